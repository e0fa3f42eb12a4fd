"""A view that is a table: rows of text, shown as HTML in a notebook, a panel and a page. Knows nothing of what it lists.

In a notebook it is plain HTML in JupyterLab's own colours, so it follows light and dark, needs no kernel when the
notebook is opened again, and its links open notebooks beside it.
"""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Mapping
from html import escape
from pathlib import Path
from textwrap import wrap
from typing import Any, ClassVar

import pandas as pd
import plotly.graph_objects as go

from workbench.errors import WorkbenchError
from workbench.views.theme import FONT, INK, Theme, empty_note, heading, template
from workbench.views.view import Table

# The class twice, to be stronger than JupyterLab's own rules for tables.
STYLE = """
.wb-listing { font: 13px/1.5 var(--jp-ui-font-family, FONT); color: var(--jp-content-font-color1, TEXT);
  margin: 2px 0 10px; max-width: 900px; overflow-x: auto; }
.wb-listing.wb-listing table { border-collapse: collapse; width: 100%; margin: 0; table-layout: auto; font: inherit; }
.wb-listing.wb-listing :is(th, td) { text-align: left; vertical-align: top; padding: 5px 14px 5px 0; background: none;
  border: 0; border-bottom: 1px solid var(--jp-border-color2, LINE); font: inherit; color: inherit; max-width: none;
  white-space: normal; font-variant-numeric: tabular-nums; }
.wb-listing.wb-listing th { font-weight: 600; border-bottom-width: 2px; }
.wb-listing.wb-listing td:first-child { white-space: nowrap; font-weight: 600; }
.wb-listing.wb-listing tbody tr { background: none; }
.wb-listing .wb-note, .wb-listing .wb-empty { color: var(--jp-content-font-color2, QUIET); }
.wb-listing .wb-note { font-size: 12px; margin-top: 4px; }
.wb-listing .wb-empty { padding: 22px; text-align: center; border: 1px dashed var(--jp-border-color2, LINE);
  border-radius: 6px; }
"""


class Listing(Table):
    """A table of text; a subclass gives `data`, and `shown`, the same as people read it."""

    title: ClassVar[str]
    """What is listed, for the picture and the page."""
    nothing: ClassVar[str]
    """The sentence in the place of an empty table."""

    def __init__(self, theme: Theme = "light") -> None:
        self.theme = theme

    @abstractmethod
    def shown(self) -> pd.DataFrame:
        """The table as people read it: text only, its columns named by their headings."""

    def links(self) -> Mapping[str, str]:
        """Where the texts of the first column lead, those that lead somewhere."""
        return {}

    def note(self) -> str:
        """A quiet sentence below the table."""
        return ""

    def figure(self) -> go.Figure:
        """The table as a plotly figure, for .png and .svg."""
        table, ink = self.shown(), INK[self.theme]
        figure = go.Figure(layout={"template": template(self.theme), "width": 900})
        note = wrap(self.note(), 140)
        above = 72 + 15 * max(1, len(note))
        figure.update_layout(
            title=heading(self.title, "<br>".join(note), self.theme),
            margin={"l": 1, "r": 1, "b": 1, "t": above},
        )
        if not len(table):
            nothing = "<br>".join(wrap(self.nothing, 90))
            figure.update_layout(annotations=[empty_note(nothing, self.theme)], height=above + 112)
            return figure.update_xaxes(visible=False).update_yaxes(visible=False)
        padding = 3  # of a cell, in characters, so that a narrow column's words are not cut
        lengths = [padding + max(len(column), *(len(text) for text in table[column])) for column in table]
        lines = sum(
            max(
                -(-(padding + len(text)) * sum(lengths) // (120 * n))
                for text, n in zip(row, lengths, strict=True)
            )
            for row in table.to_numpy()
        )
        figure.add_table(
            columnwidth=lengths,
            header={"values": list(table.columns), "align": "left", "fill": {"color": ink["grid"]}},
            cells={
                "values": [table[column] for column in table],
                "align": "left",
                "fill": {"color": ink["paper"]},
                "height": 24,
            },
        )
        return figure.update_layout(height=above + 63 + 24 * int(lines))

    def html(self) -> str:
        """The table as a page of its own."""
        ink = INK[self.theme]
        variables = f"--jp-content-font-color1:{ink['text']};--jp-content-font-color2:{ink['quiet']}"
        return (
            f"<!doctype html><meta charset='utf-8'><title>{escape(self.title)}</title>"
            f"<body style='max-width:900px;margin:24px auto;background:{ink['paper']};{variables};"
            f"--jp-border-color2:{ink['line']}'>{self.table_html()}</body>"
        )

    def table_html(self) -> str:
        """The table with its style."""
        table, links = self.shown(), self.links()
        style = STYLE.replace("FONT", FONT)
        for name in ("text", "quiet", "line"):
            style = style.replace(name.upper(), INK[self.theme][name])
        said = self.note()
        note = f"<div class='wb-note'>{escape(said)}</div>" if said else ""
        if not len(table):
            return f"<style>{style}</style><div class='wb-listing'><div class='wb-empty'>{escape(self.nothing)}</div>{note}</div>"
        head = "".join(f"<th>{escape(column)}</th>" for column in table)
        rows = "".join(
            f"<tr><td>{_linked(first, links.get(first))}</td>{''.join(f'<td>{escape(text)}</td>' for text in rest)}</tr>"
            for first, *rest in table.to_numpy()
        )
        return (
            f"<style>{style}</style><div class='wb-listing'><table><thead><tr>{head}</tr></thead>"
            f"<tbody>{rows}</tbody></table>{note}</div>"
        )


def _linked(text: str, target: str | None) -> str:
    return f'<a href="{escape(target)}">{escape(text)}</a>' if target else escape(text)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file. Raises WorkbenchError, with its name, where it is damaged."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise WorkbenchError(f"the file {path} is damaged or cannot be read ({error}); restore it") from error


def near(path: Path) -> str:
    """A path as seen from where the notebook runs."""
    return Path(os.path.relpath(path)).as_posix()

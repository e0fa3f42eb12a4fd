"""Lines with seed bands: the mean over the runs of a group, and the band from the lowest run to the highest.

It draws tables of (run, group, step, value) into a figure. It reads nothing and groups nothing: see `groups.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.views.groups import Group
from workbench.views.theme import Theme, colours, heading

#: Points of all lines of one panel together; above it evenly chosen steps are drawn, and the figure says so.
MOST_POINTS = 20_000

DASHES = ("solid", "dash", "dot")
COLOURS = len(colours())

#: Groups that can be told apart by colour and dash; more are not drawn, and the figure says so.
MOST_GROUPS = COLOURS * len(DASHES)

#: Pixels: a page of 900 has its margins and its scroll bar as well.
WIDE = 860

#: Letters in a line of the legend.
LEGEND = 26


def spread(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """Over the runs of each group at each step: group, step, mean, low, high, and `runs`, how many have that step."""
    if value not in table or not len(table):
        return pd.DataFrame(columns=["group", "step", "mean", "low", "high", "runs"])
    found = table.dropna(subset=[value]).groupby(["group", "step"])[value]
    return (
        found.agg(["mean", "min", "max", "count"])
        .set_axis(["mean", "low", "high", "runs"], axis=1)
        .reset_index()
    )


def colour_of(number: int, theme: Theme) -> str:
    """The colour of the group with this number, from 0."""
    return colours(theme)[number % COLOURS]


@dataclass(frozen=True)
class Bands:
    """Draws the same groups, each in its own colour and dash, into one panel of a figure after another.

    Every panel gets 3 traces a group (band, single runs, mean), whatever has happened so far, so that a live figure
    keeps its traces while the runs go on.
    """

    groups: Sequence[Group]
    """In the order of the legend."""
    theme: Theme = "light"
    each: bool = False
    """Whether single runs are shown from the start; the legend shows and hides them."""

    @property
    def banded(self) -> bool:
        """Whether any group has more than one run."""
        return any(len(group.runs) > 1 for group in self.groups)

    def draw(
        self,
        figure: go.Figure,
        table: pd.DataFrame,
        value: str,
        row: int,
        text: str,
        marks: bool = False,
        col: int = 1,
    ) -> int:
        """One panel: `value` of `table` by step. `text` is how a value is written, `.3f`; `marks` shows each step.

        Returns how many steps one that is drawn stands for.
        """
        means = spread(table, value)
        longest = int(means.groupby("group").size().max()) if len(means) else 0
        every = max(1, -(-longest // max(100, MOST_POINTS // max(1, len(self.groups)))))
        for number, group in enumerate(self.groups[:MOST_GROUPS]):
            singles = _singles(table, group, value, every)
            line = means[means["group"] == group.name].iloc[::every]
            self._group(figure, number, group.name, line, singles, value, (row, col), text, marks)
        return every

    def _group(
        self,
        figure: go.Figure,
        number: int,
        name: str,
        line: pd.DataFrame,
        singles: pd.DataFrame,
        value: str,
        at: tuple[int, int],
        text: str,
        marks: bool,
    ) -> None:
        colour, dash = colour_of(number, self.theme), DASHES[number // COLOURS]
        banded = line[line["runs"] > 1]
        shared: dict[str, Any] = {"legendgroup": f"group {number}", "showlegend": False}
        place = {"row": at[0], "col": at[1]}
        figure.add_scatter(
            x=np.concatenate([banded["step"], banded["step"][::-1]]),
            y=np.concatenate([banded["high"], banded["low"][::-1]]),
            mode="lines",
            line={"width": 0},
            fill="toself",
            fillcolor=_pale(colour, 0.2),
            hoverinfo="skip",
            name=f"{name}, band",
            **shared,
            **place,
        )
        first = next((i for i, group in enumerate(self.groups) if len(group.runs) > 1), None)
        figure.add_scatter(
            x=singles["step"],
            y=singles[value],
            text=singles["run"],
            mode="lines",
            line={"width": 0.9, "color": colour, "dash": dash},
            opacity=0.6,
            hovertemplate=f"%{{text}}: %{{y:{text}}}<extra></extra>",
            name="single runs",
            visible=True if self.each else "legendonly",
            legendgroup="single runs",
            showlegend=at == (1, 1) and number == first,
            legendrank=2000,
            **place,
        )
        said = np.where(
            line["runs"] > 1,
            [
                f" ({low:{text}} to {high:{text}}, {runs} runs)"
                for low, high, runs in zip(line["low"], line["high"], line["runs"], strict=True)
            ],
            "",
        )
        figure.add_scatter(
            x=line["step"],
            y=line["mean"],
            text=said.tolist(),
            mode="lines+markers" if marks else "lines",
            marker={"size": 5},
            line={"width": 2.2, "color": colour, "dash": dash},
            hovertemplate=f"{escape(name)}: %{{y:{text}}}%{{text}}<extra></extra>",
            name="<br>".join(escape(part) for part in wrap(name, LEGEND)),
            **(shared | {"showlegend": at == (1, 1)}),
            **place,
        )

    def layout(self, title: str, below: Sequence[str], width: int, height: int) -> dict[str, Any]:
        """The heading, and a legend to the right of the data that the figure is high enough for."""
        names, left_out = [group.name for group in self.groups], len(self.groups) - MOST_GROUPS
        notes = [*below, f"{left_out} of {len(names)} groups are not drawn"] if left_out > 0 else below
        lines = wrap("; ".join(notes), max(30, int(width / 6.2))) or [""]
        entries = [wrap(name, LEGEND) for name in names[:MOST_GROUPS]]
        legend = 17 * (sum(map(len, entries)) + 1) + 5 * len(entries)
        top = 58 + 15 * len(lines)
        return {
            "title": heading(title, "<br>".join(lines), self.theme),
            "width": width,
            "height": max(height, legend + top + 60),
            "margin": {"t": top},
            "legend": {
                "orientation": "v",
                "x": 1.02,
                "xanchor": "left",
                "y": 1,
                "yanchor": "top",
                "tracegroupgap": 3,
            },
            "hovermode": "x unified" if 0 < len(names) <= COLOURS else "closest",
        }


def _singles(table: pd.DataFrame, group: Group, value: str, every: int) -> pd.DataFrame:
    """The runs of a group as one line with a gap after each; nothing for a single run, which is its own mean."""
    columns = ["run", "step", value]
    if value not in table or not len(table) or len(group.runs) < 2:
        return pd.DataFrame(columns=columns)
    parts: list[pd.DataFrame] = []
    for run, rows in table[table["group"] == group.name].dropna(subset=[value]).groupby("run"):
        gap = pd.DataFrame({"run": [run], "step": [np.nan], value: [np.nan]})
        parts += [rows[columns].iloc[::every].astype({"step": float}), gap]
    return pd.concat(parts) if parts else pd.DataFrame(columns=columns)


def _pale(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"

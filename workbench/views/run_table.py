"""A table of runs that is filtered, sorted and selected in the page. Knows entries; reads no run and draws no figure.

Filter, order and selection are worked out by `run_table.js` in the browser, so they answer while a cell runs; what
the kernel hears of is the selection. The same script makes the table of a saved page.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets as t

from workbench.views.shelf import Entry
from workbench.views.still import still
from workbench.views.theme import CSS

SCRIPT = Path(__file__).with_name("run_table.js").read_text(encoding="utf-8")
STYLE = Path(__file__).with_name("run_table.css").read_text(encoding="utf-8")

#: The most runs that can be selected at once.
MOST_SELECTED = 40

#: name, heading, help, whether it is a number.
COLUMNS = (
    ("name", "run", "The folder of the run", False),
    ("state", "state", "Where it stands", False),
    ("backbone", "backbone", "The frozen model", False),
    ("task", "task", "What it was trained on", False),
    ("method", "method", "What is trained", False),
    ("prior", "prior", "What its vectors were drawn from", False),
    ("steps", "steps", "Steps done, of those asked for", True),
    ("loss", "val. loss", "The lowest loss on validation, nats a token", True),
    ("score", "val. score", "The highest score on validation, accuracy for most tasks", True),
    ("seconds", "time", "Time spent in training steps", True),
    ("age", "age", "Time since it was created", True),
)

EXPORT = "export default { render };"

#: A model for `render` where there is no kernel: it keeps what is set and tells nobody.
STILL = """(() => { SCRIPT
  const traits = TRAITS;
  render({ model: { get: name => traits[name], set: (name, value) => { traits[name] = value; }, save_changes() {}, on() {} },
    el: document.currentScript.parentElement });
})();"""


class RunTable(anywidget.AnyWidget):
    """The table. `show` sets what it shows; `selected` holds the names of the chosen runs, in the order of the choice."""

    _esm = SCRIPT
    _css = CSS + STYLE
    columns: t.List[dict[str, Any]] = t.List().tag(sync=True)
    rows: t.List[dict[str, Any]] = t.List().tag(sync=True)
    selected = t.List(t.Unicode()).tag(sync=True)
    query = t.Unicode("").tag(sync=True)
    sort = t.Int(len(COLUMNS) - 1).tag(sync=True)
    """The column that orders the rows; the rows come with the newest first."""
    descending = t.Bool(True).tag(sync=True)
    empty = t.Unicode("Reading the runs …").tag(sync=True)
    """The sentence in the place of a table without runs."""
    most = t.Int(MOST_SELECTED).tag(sync=True)
    still = t.Bool(False).tag(sync=True)

    def __init__(self, theme: str = "light") -> None:
        super().__init__(
            columns=[
                {"name": name, "label": label, "help": text, "numeric": numeric}
                for name, label, text, numeric in COLUMNS
            ]
        )
        self.add_class(f"wb-{theme}")

    def show(self, entries: Sequence[Entry], empty: str) -> None:
        """Shows these runs; `empty` is what is said where there are none. Sends nothing when nothing changed."""
        rows = [row_of(entry) for entry in entries]
        with self.hold_sync():
            self.empty = empty
            if rows != self.rows:
                self.rows = rows
            known = {entry.name for entry in entries}
            if any(name not in known for name in self.selected):
                self.selected = [name for name in self.selected if name in known]

    def part(self) -> str:
        """The table as a piece of a page: filter and order work there, the selection is as it was."""
        names = ("columns", "rows", "selected", "query", "sort", "descending", "empty", "most")
        traits = {name: getattr(self, name) for name in names} | {"still": True}
        facts = json.dumps(traits).replace("<", "\\u003c")
        script = STILL.replace("SCRIPT", SCRIPT.replace(EXPORT, "")).replace("TRAITS", facts)
        return f"<style>{CSS}{STYLE}</style><div class='{' '.join(self._dom_classes)}'><script>{script}</script></div>"


@still.register
def _(table: RunTable) -> str:
    return table.part()


def row_of(entry: Entry) -> dict[str, Any]:
    """What the script needs of a run: its name, its cells as text, what they are ordered by, and what is wrong."""
    steps = f"{entry.step:,}" if entry.steps in (None, entry.step) else f"{entry.step:,} / {entry.steps:,}"
    loss, score = entry.best_validation_loss, entry.best_validation_score
    text = [entry.name, entry.state, entry.backbone, entry.task, entry.method, entry.prior]
    cells = [
        *text,
        steps,
        "" if loss is None else f"{loss:.3f}",
        "" if score is None else f"{score:.1%}",
        _duration(entry.seconds) if entry.seconds else "",
        "",
    ]
    keys = [*(word or None for word in text), entry.step, loss, score, entry.seconds or None, entry.created]
    return {"id": entry.name, "cells": cells, "keys": [_finite(key) for key in keys], "note": entry.note}


def _finite(key: Any) -> Any:
    """JSON has no nan and no infinity; they are ordered as what is not known."""
    return None if isinstance(key, float) and not abs(key) < float("inf") else key


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"

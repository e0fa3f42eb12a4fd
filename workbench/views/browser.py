"""The run browser: a table of all runs in a folder, and below it what those that are selected have and have not in
common. It reads run directories and nothing else; it starts, changes and deletes no run.

One thread looks at the folder, soon again after a selection, otherwise once a second; a look at runs that have not
changed costs a walk over their folders. No callback does more than wake it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import ipywidgets as w
import pandas as pd
import plotly.graph_objects as go

from workbench.errors import WorkbenchError, unknown
from workbench.views.answers import FILE as ANSWERS
from workbench.views.answers import WAYS
from workbench.views.answers_beside import AnswersBeside
from workbench.views.bands import MOST_GROUPS, WIDE, colour_of
from workbench.views.curves import Curves
from workbench.views.drift import Drift
from workbench.views.groups import difference_table, group_runs
from workbench.views.page import page
from workbench.views.run_table import MOST_SELECTED, RunTable
from workbench.views.shelf import Entry, Shelf
from workbench.views.theme import CSS, TURN, Theme
from workbench.views.view import View

if TYPE_CHECKING:
    from workbench.training.run import Run

#: Seconds between two looks at the folder; longer where a look takes more than a twentieth of it.
INTERVAL = 1.0

STYLE = """
.wb-compare { max-width: 920px; background: var(--wb-paper); }
.wb-compare .widget-html { margin: 0; }
.wb-differences { font: 12.5px/1.45 var(--jp-ui-font-family, system-ui, sans-serif); color: var(--wb-text);
  overflow-x: auto; margin: 10px 0 4px; }
.wb-differences h4 { margin: 0 0 4px; font-size: 14px; font-weight: 600; }
.wb-differences table { border-collapse: collapse; margin: 0; font: inherit; }
.wb-differences th, .wb-differences td { text-align: left; vertical-align: top; padding: 4px 16px 4px 0; border: 0;
  border-bottom: 1px solid var(--wb-line); background: none; color: inherit; font: inherit; white-space: normal;
  min-width: 76px; max-width: 260px; overflow-wrap: anywhere; }
.wb-differences tbody tr:nth-child(n) { background: none; }
.wb-differences thead th { font-weight: 600; border-bottom-width: 2px; }
.wb-differences tbody th, .wb-differences .wb-quiet { color: var(--wb-quiet); }
.wb-differences .wb-swatch { display: inline-block; width: 14px; height: 4px; border-radius: 2px; margin: 0 6px 3px 0; }
body[data-jp-theme-light="false"] .wb-light .wb-swatch { filter: TURN; }
.wb-left-out { font: 12px/1.45 var(--jp-ui-font-family, system-ui, sans-serif); color: var(--wb-quiet);
  background: var(--wb-paper); max-width: 920px; overflow-wrap: anywhere; }
.wb-compare .wb-empty { padding: 22px 0; text-align: center; color: var(--wb-quiet); border: 1px dashed var(--wb-line);
  border-radius: 6px; margin: 10px 0; }
.wb-compare .wb-fault { border-left: 3px solid var(--wb-second); padding: 4px 12px; margin: 8px 0; }
""".replace("TURN", TURN)


class RunBrowser(View):
    """All runs below `folder`: filter, sort, select, compare. `RunBrowser("runs")` as the last line of a cell.

    The table answers to the mouse and to the keyboard (Tab, Space, the arrows, Enter on a heading). What is selected
    is compared below it: the settings that differ, the curves on shared axes, how far the prompts went, the answers.
    """

    _newest: ClassVar[
        dict[Path, RunBrowser]
    ] = {}  # a cell run again makes a new one; the older stops reading

    def __init__(self, folder: str | Path = "runs", theme: Theme = "light") -> None:
        self.folder, self.theme = Path(folder).resolve(), theme
        self.curves, self.drift = Curves(None, theme, width=WIDE), Drift(None, theme)
        self.answers = AnswersBeside(None, theme=theme)
        self.entries: list[Entry] = []
        self._shelf = Shelf(self.folder)
        self._turn = threading.RLock()
        self._wake, self._closed = threading.Event(), threading.Event()
        self._compared: Any = None
        self.table = RunTable(theme)
        self._said, self._left_out, self._differences = w.HTML(), w.HTML(), w.HTML()
        self._compare = w.VBox()
        style = w.HTML(f"<style>{CSS}{STYLE}</style>", layout={"display": "none"})
        self._box = w.VBox([style, self.table, self._left_out, self._said, self._compare])
        self._box.add_class(f"wb-{theme}").add_class("wb-browser")
        self._compare.add_class("wb-compare")
        self.table.observe(lambda _: self._wake.set(), names="selected")
        if (older := RunBrowser._newest.get(self.folder)) is not None:
            older.close()
        RunBrowser._newest[self.folder] = self
        threading.Thread(target=self._watch, name=f"run browser of {self.folder.name}", daemon=True).start()

    # what it holds

    def data(self) -> pd.DataFrame:
        """One row a run, the newest first.

        name, state, backbone, task, method, prior, step, steps, loss, best_validation_loss, measure,
        best_validation_score, seconds, created (s since 1970), note, path: see `Entry`.
        """
        columns = [name for name in Entry.__dataclass_fields__ if name != "path"]
        rows = [
            {name: getattr(entry, name) for name in columns} | {"path": str(entry.path)}
            for entry in self._look()
        ]
        return pd.DataFrame(rows, columns=[*columns, "path"])

    @property
    def selected(self) -> list[Run]:
        """The runs that are selected, but for damaged ones."""
        by_name = {entry.name: entry for entry in self.entries}
        chosen = (by_name[name] for name in self.table.selected[:MOST_SELECTED] if name in by_name)
        return [run for entry in chosen if (run := _run(entry)) is not None]

    def select(self, names: Sequence[str]) -> None:
        """Selects the runs with these names, as the table's boxes do.

        Raises:
            WorkbenchError: there is no such run, or there are more than can be compared.
        """
        known = [entry.name for entry in self._look()]
        for name in names:
            if name not in known:
                raise unknown("run", name, known)
        if len(names) > MOST_SELECTED:
            raise WorkbenchError(f"{len(names)} runs cannot be compared; select {MOST_SELECTED} at most")
        self.table.selected = list(names)
        self.refresh()

    # what it looks like

    def figure(self) -> go.Figure:
        """The curves of the selected runs; of all of them (the newest, if there are many) where none is selected."""
        runs = self.selected
        if not runs:
            runs = [run for entry in self._look() if (run := _run(entry)) is not None][:MOST_SELECTED]
        return Curves(runs, self.theme, width=WIDE).figure()

    def widget(self) -> w.VBox:
        """The table, and below it the comparison."""
        return self._box

    def html(self) -> str:
        """The table, and the comparison of what is selected, as one page."""
        self.refresh()
        parts = [f"<style>{STYLE}</style>{self.table.part()}{self.left_out_html()}"]
        if runs := self.selected:
            parts += [self.differences_html(runs), *(view.part() for view in self._views(runs))]
        return page(f"Runs in {self.folder.name}", parts, self.theme, heading=True)

    def differences_html(self, runs: Sequence[Run]) -> str:
        """The settings in which the groups of `runs` differ, beside the colours that the figures draw them in."""
        groups = group_runs(runs)
        if not groups:
            return ""
        table = difference_table(groups)
        heads = ""
        for number, group in enumerate(groups):
            colour = f"background:{colour_of(number, self.theme)}" if number < MOST_GROUPS else ""
            heads += (
                f"<th scope='col'><span class='wb-swatch' style='{colour}'></span>{escape(group.name)}</th>"
            )
        rows = "".join(
            f"<tr><th scope='row'>{escape(setting)}</th>{''.join(f'<td>{escape(text)}</td>' for text in values)}</tr>"
            for setting, *values in table.itertuples(index=False)
        )
        many, one = len(groups) > 1, len(runs) == 1
        title = "What differs" if many else "The run" if one else "These differ in nothing but their seeds"
        return (
            f"<div class='wb-differences'><h4>{title}</h4><table><thead><tr><th></th>{heads}</tr></thead>"
            f"<tbody>{rows}</tbody></table></div>"
        )

    # how it is kept up to date

    def close(self) -> None:
        """Stops reading and drawing."""
        self._closed.set()
        self._wake.set()
        self._said.value = "<div class='wb-compare'><div class='wb-empty'>This browser has moved to a newer cell.</div></div>"

    def update(self) -> None:
        """Brings every widget up to what the folder holds now."""
        self.refresh()

    def refresh(self) -> None:
        """Brings every widget up to what the folder holds now; cheap when nothing changed."""
        with self._turn:
            entries = self._look()
            there = self.folder.is_dir()
            self.table.show(
                entries,
                f"There is no run in {self.folder} yet."
                if there
                else f"There is no folder {self.folder} yet.",
            )
            if self._left_out.value != self.left_out_html():
                self._left_out.value = self.left_out_html()
            self._show_comparison()

    def left_out_html(self) -> str:
        """Which studies' runs are not in the table; empty where there are none."""
        said = self._shelf.left_out
        return f"<div class='wb-left-out'>{escape(said)}</div>" if said else ""

    def _watch(self) -> None:
        while not self._closed.is_set():
            begun = time.monotonic()
            self._wake.clear()
            try:
                self.refresh()
                fault = ""
            except Exception as error:  # said until a look goes well again
                fault = f"<div class='wb-compare'><div class='wb-fault' role='alert'>{escape(str(error))}</div></div>"
            if self._said.value != fault and not self._closed.is_set():
                self._said.value = fault
            self._wake.wait(max(INTERVAL, 20 * (time.monotonic() - begun)))

    def _look(self) -> list[Entry]:
        with self._turn:
            self.entries = self._shelf.look()
            return self.entries

    def _show_comparison(self) -> None:
        runs = self.selected
        by_path = {entry.path: entry for entry in self.entries}
        state = [
            (by_path[run.path], _written(run.path / ANSWERS), _count(run.path / "snapshots")) for run in runs
        ]
        chosen = list(self.table.selected)
        if (chosen, state) == self._compared:
            return
        unread = [entry for entry in self.entries if entry.name in chosen and _run(entry) is None]
        fault = "".join(
            f"<div class='wb-fault'>{escape(entry.name)} cannot be compared: {escape(entry.note)}</div>"
            for entry in unread
        )
        if not runs:
            note = "Select a run to see its curves; two or more to compare them."
            self._differences.value = fault or f"<div class='wb-empty'>{note}</div>"
            children: tuple[w.Widget, ...] = (self._differences,)
        else:
            views = self._views(runs)
            for view in views:
                view.update()
            self._differences.value = fault + self.differences_html(runs)
            children = (self._differences, *(view.widget() for view in views))
        if children != self._compare.children:
            self._compare.children = children
        self._compared = (chosen, state)

    def _views(self, runs: Sequence[Run]) -> list[View]:
        """The views below the table, turned to `runs`: those for which there is something to see."""
        self.curves.runs = self.drift.runs = self.answers.runs = tuple(runs)
        self.answers.ways = tuple(WAYS) if len(runs) == 1 else ("trained",)
        views: list[View] = [self.curves]
        if any(_count(run.path / "snapshots") > 1 for run in runs):
            views.append(self.drift)
        if any(_written(run.path / ANSWERS) for run in runs):
            views.append(self.answers)
        return views


def _run(entry: Entry) -> Run | None:
    try:
        return entry.run
    except WorkbenchError:  # gone since the look
        return None


def _written(path: Path) -> int:
    """When a file was written; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _count(folder: Path) -> int:
    """How many files a folder holds; 0 where there is none."""
    try:
        return sum(1 for _ in folder.iterdir())
    except OSError:
        return 0

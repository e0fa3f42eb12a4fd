"""Learning curves of any set of runs: training loss and validation scores by step. Reads runs, writes nothing.

One run is drawn step by step with its running mean. Of several, those that differ in nothing but seeds are one line,
the mean, with a band from the lowest to the highest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.views.bands import WIDE, Bands
from workbench.views.groups import Group, group_runs
from workbench.views.tail import Tail
from workbench.views.theme import INK, VERMILION, Theme, empty_note, heading, template
from workbench.views.view import View

if TYPE_CHECKING:
    from workbench.training.run import Run

#: More steps of one run than this are drawn as evenly chosen ones; the figure says so.
MOST_POINTS = 5000

NOTE = "The curves are drawn here<br>while a prompt trains."


class Curves(View):
    """Loss and validation score of some runs; with none, the empty figure that says what will be drawn.

    Args:
        runs: a run, or any number of them.
        width, height: in pixels; by default 440 by 430 for one run, 860 by 640 for several.
        each: show single runs beside the mean of their group from the start. The legend does so at any time.

    Attributes:
        runs: the runs that are drawn; set it and call `update()` to draw others. `run` is the same for one.
    """

    def __init__(
        self,
        runs: Run | Iterable[Run] | None = None,
        theme: Theme = "light",
        width: int | None = None,
        height: int | None = None,
        each: bool = False,
    ) -> None:
        self.theme, self.width, self.height, self.each = theme, width, height, each
        self.runs = runs  # type: ignore[assignment]
        self._tables: dict[Path, tuple[Tail, pd.DataFrame]] = {}

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs that are drawn."""
        return self._runs

    @runs.setter
    def runs(self, runs: Run | Iterable[Run] | None) -> None:
        self._runs = listed(runs)

    @property
    def run(self) -> Run | None:
        """The run that is drawn, where it is one; of several, the first."""
        return self._runs[0] if self._runs else None

    @run.setter
    def run(self, run: Run | None) -> None:
        self._runs = listed(run)

    def groups(self) -> list[Group]:
        """The runs by what they have in common; a run whose config cannot be read is in none."""
        return group_runs(self._runs)

    def data(self) -> pd.DataFrame:
        """One row a run and step.

        run; group; step; loss (nats an answer token); smoothed (its running mean over about the last tenth of the
        run so far, for the eye); and one column a validation measure, empty at steps that did not look.
        """
        columns = ["run", "group", "step", "loss", "smoothed"]
        names = run_names(self._runs)
        parts = []
        for group in self.groups():
            for run in group.runs:
                table = self._table(run)
                if len(table):
                    parts.append(table.assign(run=names[run.path], group=group.name))
        if not parts:
            return pd.DataFrame(columns=columns)
        whole = pd.concat(parts, ignore_index=True)
        return whole[[*columns, *(name for name in whole if name not in columns)]]

    def _table(self, run: Run) -> pd.DataFrame:
        """A run's steps; lines that were read before are not read again."""
        tail, known = self._tables.setdefault(run.path, (Tail(run.path / "metrics.jsonl"), pd.DataFrame()))
        anew, records = tail.read()
        if anew:
            known = pd.DataFrame()
        if records:
            rows = [{"step": r["step"], "loss": r["loss"]} | _validation(r) for r in records]
            known = pd.concat([known.drop(columns="smoothed", errors="ignore"), pd.DataFrame(rows)])
            # Corrected at the start (`adjust`), where there is little to take a mean of.
            known["smoothed"] = known["loss"].ewm(span=max(2, len(known) / 10), adjust=True).mean()
        self._tables[run.path] = (tail, known)
        return known

    def figure(self) -> go.Figure:
        """One run: its loss above, its validation score below. Several: losses and score of each group."""
        return self._of_one() if len(self._runs) < 2 else self._of_many()

    def _of_one(self) -> go.Figure:
        table, ink = self.data(), INK[self.theme]
        every = -(-len(table) // MOST_POINTS) if len(table) else 1
        drawn = table.iloc[::every]
        measure = _measure(table)
        scored = table.dropna(subset=[measure]) if measure else table.iloc[:0]
        figure = make_subplots(
            rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.07, row_heights=[0.56, 0.44]
        )
        figure.add_scatter(
            x=drawn["step"],
            y=drawn["loss"],
            mode="lines",
            name="each step",
            line={"color": ink["first"], "width": 1},
            opacity=0.35,
            hovertemplate="step %{x}: loss %{y:.3f}<extra></extra>",
            row=1,
            col=1,
        )
        figure.add_scatter(
            x=drawn["step"],
            y=drawn["smoothed"],
            mode="lines",
            name="smoothed",
            line={"color": ink["first"], "width": 2.5},
            hovertemplate="step %{x}: %{y:.3f} smoothed<extra></extra>",
            row=1,
            col=1,
        )
        figure.add_scatter(
            x=scored["step"],
            y=scored[measure] * 100 if measure else [],
            mode="lines+markers",
            name="on validation",
            line={"color": VERMILION, "width": 2},
            marker={"size": 6},
            hovertemplate="step %{x}: %{y:.0f} %<extra></extra>",
            row=2,
            col=1,
        )
        below = (
            f"every {every}th of {len(table):,} steps is drawn"
            if every > 1
            else "loss, and score on validation"
        )
        figure.update_layout(
            template=template(self.theme),
            title=heading("How the prompt learns", below, self.theme),
            width=self.width or 440,
            height=self.height or 430,
            annotations=[] if len(table) else [empty_note(NOTE, self.theme)],
            hovermode="x unified" if len(table) else "closest",
            uirevision="curves",
        )
        figure.update_yaxes(title_text="loss (nats per token)", rangemode="tozero", row=1, col=1)
        figure.update_yaxes(title_text=f"{_title(measure)} (%)", range=[-4, 104], dtick=25, row=2, col=1)
        figure.update_xaxes(title_text="training step", row=2, col=1)
        if not len(table):
            figure.update_xaxes(visible=False).update_yaxes(visible=False)
        return figure

    def _of_many(self) -> go.Figure:
        table, groups = self.data(), self.groups()
        measure = _measure(table)
        score = measure or "validation score"
        table = table.assign(**{score: table[measure] * 100}) if measure else table
        bands = Bands(groups, self.theme, self.each)
        figure = make_subplots(
            rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.05, row_heights=[0.36, 0.32, 0.32]
        )
        every = max(
            bands.draw(figure, table, "smoothed", 1, ".3f"),
            bands.draw(figure, table, "validation loss", 2, ".3f", marks=True),
            bands.draw(figure, table, score, 3, ".0f", marks=True),
        )
        notes = ["training loss smoothed"]
        if bands.banded:
            notes.insert(0, "line: mean over seeds, band: lowest to highest seed")
        if every > 1:
            notes.append(f"every {every}th step is drawn")
        if unread := len({run.path for run in self._runs}) - sum(len(group.runs) for group in groups):
            notes.append(f"{unread} of {len(self._runs)} runs cannot be read")
        figure.update_layout(
            template=template(self.theme),
            annotations=[] if len(table) else [empty_note("No step has been trained yet.", self.theme)],
            uirevision="curves",
        )
        figure.update_layout(
            bands.layout("How the prompts learn", notes, self.width or WIDE, self.height or 640)
        )
        unit = "(nats per token)"
        figure.update_yaxes(title_text=f"training loss<br>{unit}", rangemode="tozero", row=1, col=1)
        figure.update_yaxes(title_text=f"validation loss<br>{unit}", rangemode="tozero", row=2, col=1)
        title = f"{_title(measure)}<br>on validation (%)"
        figure.update_yaxes(title_text=title, range=[-4, 104], dtick=25, row=3, col=1)
        figure.update_xaxes(title_text="training step", row=3, col=1)
        if not len(table):
            figure.update_xaxes(visible=False).update_yaxes(visible=False)
        return figure


def listed(runs: Any) -> tuple[Any, ...]:
    """None, one run or several, as several."""
    if runs is None:
        return ()
    return tuple(runs) if isinstance(runs, Iterable) else (runs,)


def run_names(runs: Iterable[Run]) -> dict[Path, str]:
    """What each run is called in a table: its folder, or its path where another folder has the same name."""
    paths = {run.path for run in runs}
    count = Counter(path.name for path in paths)
    return {path: path.name if count[path.name] == 1 else str(path) for path in paths}


def _validation(record: dict[str, Any]) -> dict[str, float]:
    found = record.get("validation")
    return {f"validation {k}": v for k, v in found.items()} if isinstance(found, dict) else {}


def _measure(table: pd.DataFrame) -> str | None:
    """The score to draw: the first validation measure that is not a loss."""
    return next((c for c in table if c.startswith("validation ") and not c.endswith("loss")), None)


def _title(measure: str | None) -> str:
    return measure.removeprefix("validation ").replace("_", " ") if measure else "score"

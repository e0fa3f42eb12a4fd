"""How far the trained vectors of some runs are from where they started, by step. Reads runs, writes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.errors import WorkbenchError
from workbench.views.bands import WIDE, Bands
from workbench.views.curves import listed, run_names
from workbench.views.groups import group_runs
from workbench.views.theme import Theme, empty_note, template
from workbench.views.view import View

if TYPE_CHECKING:
    from workbench.training.run import Run


class Drift(View):
    """The distance of the snapshots of `runs` from their first one: a line for each group that differs only in seeds.

    runs: a run, or any number; set it and call `update()` to draw others. width, height: in pixels.
    each: show single runs beside the mean of their group from the start. The legend does so at any time.
    """

    def __init__(
        self,
        runs: Run | Iterable[Run] | None = None,
        theme: Theme = "light",
        width: int = WIDE,
        height: int = 340,
        each: bool = False,
    ) -> None:
        self.theme, self.width, self.height, self.each = theme, width, height, each
        self.runs = listed(runs)
        self._moved: dict[Path, dict[int, float]] = {}
        self._start: dict[Path, dict[str, np.ndarray]] = {}

    def data(self) -> pd.DataFrame:
        """One row a run and snapshot: run, group, step, moved.

        `moved` is the distance of a vector from its first snapshot, in the unit of its own space, the mean over all
        that the snapshot holds (rows of a matrix; a tensor of another rank is one vector). Ours.
        """
        names = run_names(self.runs)
        rows = [
            {"run": names[run.path], "group": group.name, "step": step, "moved": moved}
            for group in group_runs(self.runs)
            for run in group.runs
            for step, moved in self._distances(run).items()
        ]
        return pd.DataFrame(rows, columns=["run", "group", "step", "moved"])

    def _distances(self, run: Run) -> dict[int, float]:
        """Step to distance; each snapshot is read once, and one that cannot be read is passed over."""
        known = self._moved.setdefault(run.path, {})
        for step in run.snapshots():
            if step in known:
                continue
            try:
                now = {name: np.asarray(t, np.float32) for name, t in run.snapshot(step).items()}
                start = self._start.setdefault(run.path, now)
                known[step] = moved(start, now)
            except (OSError, ValueError, KeyError, WorkbenchError):
                continue
            except Exception as error:
                if type(error).__name__ != "SafetensorError":
                    raise
        return dict(sorted(known.items()))

    def figure(self) -> go.Figure:
        """One panel: the mean distance by step."""
        table, groups = self.data(), group_runs(self.runs)
        bands = Bands(groups, self.theme, self.each)
        figure = make_subplots(rows=1, cols=1)
        bands.draw(figure, table, "moved", 1, ".3g", marks=True)
        notes = ["mean distance of the trained vectors from their first snapshot"]
        if bands.banded:
            notes.append("line: mean over seeds, band: lowest to highest seed")
        nothing = not len(table)
        figure.update_layout(
            template=template(self.theme),
            annotations=[empty_note("No snapshots yet.", self.theme)] if nothing else [],
            uirevision="drift",
        )
        figure.update_layout(bands.layout("How far the prompts went", notes, self.width, self.height))
        figure.update_yaxes(
            title_text="distance from the start<br>(the vectors' own unit)", rangemode="tozero"
        )
        figure.update_xaxes(title_text="training step")
        if nothing:
            figure.update_xaxes(visible=False).update_yaxes(visible=False)
        return figure


def moved(start: dict[str, np.ndarray], now: dict[str, np.ndarray]) -> float:
    """The mean Euclidean distance between the vectors of two snapshots.

    >>> moved({"embeddings": np.zeros((2, 2))}, {"embeddings": np.array([[3.0, 4.0], [0.0, 1.0]])})
    3.0
    """
    parts = []
    for name, before in start.items():
        gap = now[name] - before
        parts.append(np.linalg.norm(gap if gap.ndim == 2 else gap.reshape(1, -1), axis=1))
    return float(np.concatenate(parts).mean())

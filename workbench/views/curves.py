"""The learning curves of one run: the training loss, and the validation score, by step. Reads a run, writes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.views.theme import INK, VERMILION, Theme, empty_note, heading, template
from workbench.views.view import View

if TYPE_CHECKING:
    from workbench.training.run import Run

#: More steps than this are drawn as evenly chosen ones; the figure says so.
MOST_POINTS = 5000


class Curves(View):
    """Loss and validation score of `run`; with `run=None` the empty figure that says what will be drawn."""

    def __init__(
        self, run: Run | None = None, theme: Theme = "light", width: int = 440, height: int = 430
    ) -> None:
        self.run, self.theme, self.width, self.height = run, theme, width, height

    def data(self) -> pd.DataFrame:
        """One row a step: step, loss (nats an answer token), smoothed, and one column a validation measure."""
        rows = []
        for record in self.run.metrics() if self.run else []:
            row = {"step": record["step"], "loss": record["loss"]}
            rows.append(row | {f"validation {k}": v for k, v in (record.get("validation") or {}).items()})
        table = pd.DataFrame(rows, columns=None if rows else ["step", "loss"])
        # A mean over about the last tenth of the run so far, corrected at the start (`adjust`): ours, for the eye.
        table["smoothed"] = (
            table["loss"].ewm(span=max(2, len(table) / 10), adjust=True).mean() if rows else []
        )
        return table

    def figure(self) -> go.Figure:
        """Two panels over the same steps: the loss above, the validation score below."""
        table, ink = self.data(), INK[self.theme]
        every = -(-len(table) // MOST_POINTS) if len(table) else 1
        drawn = table.iloc[::every]
        measure = next((c for c in table if c.startswith("validation ") and not c.endswith("loss")), None)
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
        title = measure.removeprefix("validation ").replace("_", " ") if measure else "score"
        below = (
            f"every {every}th of {len(table):,} steps is drawn"
            if every > 1
            else "loss, and score on validation"
        )
        figure.update_layout(
            template=template(self.theme),
            title=heading("How the prompt learns", below, self.theme),
            width=self.width,
            height=self.height,
            annotations=[]
            if len(table)
            else [empty_note("The curves are drawn here<br>while a prompt trains.", self.theme)],
            hovermode="x unified" if len(table) else "closest",
            uirevision="curves",
        )
        figure.update_yaxes(title_text="loss (nats per token)", rangemode="tozero", row=1, col=1)
        figure.update_yaxes(title_text=f"{title} (%)", range=[-4, 104], dtick=25, row=2, col=1)
        figure.update_xaxes(title_text="training step", row=2, col=1)
        if not len(table):
            figure.update_xaxes(visible=False).update_yaxes(visible=False)
        return figure

"""How a synthesiser learns: its loss, what it is right about, and the cosine of its changes to the true gradient, by step.

    MatchingCurves(wb.Run("runs/synthesisers/0001-tiny-rwkv"))

Reads the run's directory, and writes nothing.
"""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.views.bands import WIDE
from workbench.views.curves import Curves
from workbench.views.maps import lines
from workbench.views.theme import INK, Theme, colours, empty_note, heading, template
from workbench.views.view import View

if TYPE_CHECKING:
    from workbench.training.run import Run

_COSINE = re.compile(r"validation (highest )?cosine layer (\d+) (.+)")
_TITLE = "How the synthesiser learns"


class MatchingCurves(View):
    """The loss of a run beside the cosines that its method measures on validation prompts.

    run: set it and call `update()` to draw another.
    """

    def __init__(
        self, run: Run | None = None, theme: Theme = "light", width: int = WIDE, height: int = 360
    ) -> None:
        self.theme, self.width, self.height = theme, width, height
        self._curves = Curves(run, theme)

    @property
    def run(self) -> Run | None:
        """The run that is drawn."""
        return self._curves.run

    @run.setter
    def run(self, run: Run | None) -> None:
        self._curves.run = run

    def data(self) -> pd.DataFrame:
        """One row a step: run, step, loss (nats a token), smoothed; validation measures, the cosines among them, where it looked."""
        return self._curves.data().drop(columns="group")

    def cosines(self) -> pd.DataFrame:
        """One row a matrix and look: step, layer, matrix, cosine; highest, what the rank allows (nan where it allows all)."""
        table, parts = self.data(), []
        for column in table:
            if (found := _COSINE.fullmatch(column)) and not found[1]:
                own = table[["step"]].assign(
                    layer=int(found[2]),
                    matrix=found[3],
                    cosine=table[column],
                    highest=table.get(column.replace("cosine", "highest cosine", 1), float("nan")),
                )
                parts.append(own.dropna(subset=["cosine"]))
        columns = ["step", "layer", "matrix", "cosine", "highest"]
        return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)

    @property
    def first(self) -> int:
        """Steps that come before the answer is learnt, each with a loss of its own."""
        config = self.run.config["method"]["config"] if self.run is not None else {}
        return int(config.get("align_steps", 0)) + int(config.get("match_steps", 0))

    def figure(self) -> go.Figure:
        """Loss and validation loss left; right a line a matrix, and their mean."""
        table, cosines, ink = self.data(), self.cosines(), INK[self.theme]
        first, answers = self.first, table[table["step"] > self.first]
        smoothed = answers["loss"].ewm(span=max(2, len(table) / 10), adjust=True).mean()
        figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.12)
        scored = table.dropna(subset=["validation loss"]) if "validation loss" in table else table.iloc[:0]
        figure.add_scatter(
            x=table["step"], y=table["loss"], mode="lines", name="each step", opacity=0.35,
            line={"color": ink["first"], "width": 1}, row=1, col=1,
        )  # fmt: skip
        figure.add_scatter(
            x=answers["step"], y=smoothed, mode="lines", name="smoothed",
            line={"color": ink["first"], "width": 2.4}, row=1, col=1,
        )  # fmt: skip
        figure.add_scatter(
            x=scored["step"], y=scored.get("validation loss", []), mode="lines+markers", name="on validation",
            line={"color": ink["second"], "width": 2}, row=1, col=1,
        )  # fmt: skip
        matrices = list(dict.fromkeys(cosines["matrix"]))
        for (matrix, layer), own in cosines.groupby(["matrix", "layer"], sort=False):
            tone = colours(self.theme)[2 + matrices.index(matrix) % 4]
            figure.add_scatter(
                x=own["step"],
                y=own["cosine"],
                mode="lines",
                name=escape(str(matrix)),
                legendgroup=matrix,
                showlegend=bool(layer == cosines[cosines["matrix"] == matrix]["layer"].min()),
                line={"color": tone, "width": 1.2},
                hovertemplate=f"layer {layer}, {escape(str(matrix))}: %{{y:.2f}}<extra></extra>",
                row=1,
                col=2,
            )
        mean = cosines.groupby("step")[["cosine", "highest"]].mean().reset_index()
        figure.add_scatter(
            x=mean["step"], y=mean["cosine"], mode="lines+markers", name="mean of all",
            line={"color": ink["text"], "width": 2.6}, row=1, col=2,
        )  # fmt: skip
        limit = mean.dropna(subset=["highest"])
        if len(limit):
            figure.add_scatter(
                x=limit["step"], y=limit["highest"], mode="lines", name="the most that the rank allows",
                line={"color": ink["quiet"], "width": 1.4, "dash": "dash"}, row=1, col=2,
            )  # fmt: skip
        about = ["left: loss", "right: cosine of the changes to the true gradient, on validation prompts"]
        if first and len(table):
            figure.add_vline(x=first + 0.5, line={"color": ink["quiet"], "dash": "dot", "width": 1.5})
            about.append(
                "up to the dotted line keys or changes are aligned, by a loss of their own, which has no unit"
            )
        below = lines(about, self.width)
        figure.update_layout(
            template=template(self.theme),
            title=heading(_TITLE, "<br>".join(below), self.theme) | {"y": 1 - 18 / self.height},
            width=self.width,
            height=self.height,
            margin={"t": 108 + 15 * (len(below) - 1), "l": 66},
            annotations=[]
            if len(table)
            else [empty_note("The curves are drawn here while it trains.", self.theme)],
            uirevision="matching",
        )
        if not len(table):
            return figure.update_xaxes(visible=False).update_yaxes(visible=False)
        figure.update_xaxes(title_text="training step")
        figure.update_yaxes(title_text="loss (nats per token)", row=1, col=1)
        return figure.update_yaxes(title_text="cosine", range=[-0.1, 1.05], row=1, col=2)

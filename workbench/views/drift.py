"""How the trained vectors of some runs change, by step: one panel a measure of `analysis/drift.py`. Reads runs only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.analysis.drift import MEASURES, Measure
from workbench.analysis.run_drift import RunDrifts, Travelled
from workbench.errors import unknown
from workbench.views.bands import WIDE, Bands
from workbench.views.curves import listed, run_names
from workbench.views.groups import group_runs
from workbench.views.theme import INK, Theme, empty_note, template
from workbench.views.view import View

if TYPE_CHECKING:
    from workbench.backbones.backbone import Backbone

#: Panels beside one another, and the height of a row of them with what stands above it, in pixels.
COLUMNS, ROW = 3, 170
#: Pixels above the first row, for heading, legend and its heads; between two rows; and below the last.
TOP, GAP, BELOW = 138, 62, 52


class Drift(View):
    """Measures of the snapshots of `runs`: in each panel a line for each group that differs only in seeds.

    Args:
        runs: a run, or any number; set it and call `update()` to draw others.
        measures: names of `MEASURES`; None for all that the runs allow.
        place: the space that is measured, "embeddings" or "layer 3"; None for all that a run has, together.
        backbone: the runs' model, for measures that compare with its tokens or with the prior. Without it these are left
            out.
        each: show single runs beside the mean of their group from the start. The legend does so at any time.
        width, height: in pixels; the height of one row of panels is chosen where none is given.
    """

    def __init__(
        self,
        runs: Travelled | Iterable[Travelled] | None = None,
        theme: Theme = "light",
        width: int = WIDE,
        height: int | None = None,
        each: bool = False,
        measures: Sequence[str] | None = ("moved",),
        place: str | None = None,
        backbone: Backbone | None = None,
    ) -> None:
        for name in measures or ():
            if name not in MEASURES:
                raise unknown("measure", name, MEASURES)
        self.theme, self.width, self.height, self.each = theme, width, height, each
        self.runs, self.measures, self.place = listed(runs), measures, place
        self.backbone = backbone

    @property
    def backbone(self) -> Backbone | None:
        """The runs' model; what was measured with another is forgotten."""
        return self.drifts.backbone

    @backbone.setter
    def backbone(self, backbone: Backbone | None) -> None:
        self.drifts = RunDrifts(backbone)

    def data(self) -> pd.DataFrame:
        """One row a run and snapshot: run, group, step, and a column for each measure that is there.

        A measure of single vectors is their mean over those that the snapshot holds at the place.
        """
        names, parts = run_names(self.runs), []
        for group in group_runs(self.runs):
            for run in group.runs:
                if len(found := self._means(run)):
                    parts.append(found.assign(run=names[run.path], group=group.name))
        columns = ["run", "group", "step"]
        if not parts:
            return pd.DataFrame(columns=[*columns, *(self.measures or ())])
        table = pd.concat(parts, ignore_index=True)
        return table[[*columns, *(name for name in MEASURES if name in table)]]

    def _means(self, run: Travelled) -> pd.DataFrame:
        """step and measures of one run."""
        table = self.drifts.measures(run, self.measures)
        if self.place is not None:
            table = table[table["place"] == self.place]
        means = table.pivot_table("value", "step", "measure", aggfunc="mean", dropna=False)
        return means.reset_index().rename_axis(columns=None)

    def figure(self) -> go.Figure:
        """Small panels, all over the same steps."""
        table, groups = self.data(), group_runs(self.runs)
        shown = [name for name in (self.measures or MEASURES) if name in table] or ["moved"]
        columns = min(COLUMNS, len(shown))
        rows, many = -(-len(shown) // columns), columns > 1
        height = self.height or (340 if rows == 1 else TOP + ROW * rows)
        bands = Bands(groups, self.theme, self.each)
        figure = make_subplots(
            rows=rows,
            cols=columns,
            vertical_spacing=GAP / (height - TOP - BELOW) if rows > 1 else 0,
            horizontal_spacing=0.11 if many else 0,
        )
        heads: list[dict[str, object]] = []
        for number, name in enumerate(shown):
            row, col = number // columns + 1, number % columns + 1
            bands.draw(figure, table, name, row, ".3g", marks=not many, col=col)
            measure, last = MEASURES[name], number + columns >= len(shown)
            figure.update_xaxes(
                title_text="training step" if last else None, showticklabels=last, row=row, col=col
            )
            if many:
                heads.append(self._head(measure, number))
                unit = "<br>".join(wrap(measure.unit or "no unit", 17))
            else:
                unit = measure.label + (f"<br>({measure.unit})" if measure.unit else "")
            figure.update_yaxes(title_text=unit, row=row, col=col)
        figure.update_xaxes(
            matches="x"
        )  # where a measure has no value at first, its panel starts there all the same
        if shown == ["moved"]:
            figure.update_yaxes(rangemode="tozero")
        notes = ["mean over the trained vectors" + (f" at {self.place}" if self.place else "")]
        if bands.banded:
            notes.append("line: mean over seeds, band: lowest to highest seed")
        nothing = not len(table)
        figure.update_layout(template=template(self.theme), uirevision="drift")
        title = "How far the prompts went" if shown == ["moved"] else "What becomes of the vectors"
        figure.update_layout(bands.layout(title, notes, self.width, height))
        if many:  # a legend beside so many small panels would make them smaller
            above = {"orientation": "h", "x": 0, "yanchor": "bottom", "y": 1 + 44 / (height - TOP - BELOW)}
            figure.update_yaxes(title={"font": {"size": 11}, "standoff": 4})
            figure.update_layout(
                hovermode="closest", height=height, margin={"t": TOP, "b": BELOW}, legend=above
            )
        figure.layout.annotations = [empty_note("No snapshots yet.", self.theme)] if nothing else heads
        if nothing:
            figure.update_xaxes(visible=False).update_yaxes(visible=False)
        return figure

    def _head(self, measure: Measure, number: int) -> dict[str, object]:
        """What stands above a small panel."""
        axis = "" if number == 0 else str(number + 1)
        return {
            "text": "<br>".join(wrap(measure.label, 34)),
            "xref": f"x{axis} domain",
            "yref": f"y{axis} domain",
            "x": 0,
            "y": 1.03,
            "xanchor": "left",
            "yanchor": "bottom",
            "align": "left",
            "showarrow": False,
            "font": {"size": 12, "color": INK[self.theme]["text"]},
        }

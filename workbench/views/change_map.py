"""A map of the changes that many prompts make of the weights, coloured by the value of one of their clauses.

    ChangeMap(MappedChanges(coordinates(gram), values, prompts, kind="pet", name="error"))

Whether prompts with one value are neighbours is measured in all directions, beside shuffled values: two of many directions
prove nothing. It computes no change; see `analysis/weight_changes.py`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from workbench.analysis.clusters import measure_layers
from workbench.analysis.half_samples import FEWEST
from workbench.analysis.projection import Projection, fit_projection
from workbench.views.bands import COLOURS, colour_of
from workbench.views.maps import axis_title, lines, spans
from workbench.views.theme import INK, Theme, empty_figure, heading, template
from workbench.views.view import View

#: Nearest prompts that are asked for their value; fewer where values have few prompts (`clusters.measure_layers`).
NEIGHBOURS = 5

_TITLE = "Changes of many prompts"


@dataclass(frozen=True, eq=False)
class MappedChanges:
    """The changes of n prompts as vectors, and what the prompts say of one kind of clause."""

    vectors: NDArray[np.float64]
    """(n, d) see `weight_changes.coordinates`."""
    values: tuple[str, ...]
    """n values of the clause."""
    prompts: tuple[str, ...]
    kind: str
    name: str
    """What made the changes."""

    @cached_property
    def frame(self) -> Projection:
        """The plane of most variance."""
        return fit_projection(self.vectors)

    @cached_property
    def purity(self) -> pd.Series:
        """Of `clusters.measure_layers`: value, low, high, chance, chance_low, chance_high; of values that four prompts have."""
        count = Counter(self.values)
        several = np.array([count[value] >= FEWEST for value in self.values])
        labels = [value for value, keep in zip(self.values, several, strict=True) if keep]
        vectors = {"change": self.vectors[several]}
        table = measure_layers(vectors, labels, measures=["purity"], neighbours=NEIGHBOURS)
        return table.iloc[0]


class ChangeMap(View):
    """Each point is a prompt, where its change of the weights points.

    changes: set it and call `update()` to draw others. pending: what the empty figure says instead, while they are made.
    """

    def __init__(
        self,
        changes: MappedChanges | None = None,
        theme: Theme = "light",
        width: int = 620,
        height: int = 480,
    ) -> None:
        self.changes, self.pending = changes, ""
        self.theme, self.width, self.height = theme, width, height

    def data(self) -> pd.DataFrame:
        """One row a prompt: prompt, value (of the clause), x, y."""
        made = self.changes
        if made is None:
            return pd.DataFrame(columns=["prompt", "value", "x", "y"])
        x, y = made.frame.points.T
        return pd.DataFrame({"prompt": made.prompts, "value": made.values, "x": x, "y": y})

    def figure(self) -> go.Figure:
        """The plane of most variance; the most frequent values in colours, the others grey."""
        made = self.changes
        if made is None:
            return self._empty()
        table, ink = self.data(), INK[self.theme]
        figure = go.Figure()
        first = [value for value, _ in Counter(made.values).most_common(COLOURS - 1)]
        rest = table[~table["value"].isin(first)]
        groups = [(f"{rest['value'].nunique()} others", rest, ink["quiet"])] if len(rest) else []
        groups += [(v, table[table["value"] == v], colour_of(n, self.theme)) for n, v in enumerate(first)]
        for name, own, tone in groups:
            figure.add_scatter(
                x=own["x"],
                y=own["y"],
                mode="markers",
                name=f"{escape(name)} ({len(own)})",
                marker={"size": 8, "color": tone, "opacity": 0.45 if tone == ink["quiet"] else 0.95},
                text=[
                    f"<b>{escape(v)}</b><br>{_wrapped(p)}"
                    for v, p in zip(own["value"], own["prompt"], strict=True)
                ],
                hovertemplate="%{text}<extra></extra>",
            )
        found = made.purity
        said = [
            f"{len(table)} prompts by the value of “{escape(made.kind)}”, {escape(made.name)}",
            f"of the prompts nearest to each in all directions {found['value']:.0%} share its value "
            f"({found['low']:.0%} to {found['high']:.0%}); with values shuffled {found['chance']:.0%} "
            f"({found['chance_low']:.0%} to {found['chance_high']:.0%})",
        ]
        below = lines(said, self.width)
        top = 58 + 15 * len(below)
        x_range, y_range = spans(made.frame.points)
        figure.update_layout(
            template=template(self.theme),
            title=heading(_TITLE, "<br>".join(below), self.theme) | {"y": 1 - 18 / self.height},
            width=self.width,
            height=self.height,
            margin={"t": top, "b": 48},
            legend={"orientation": "v", "x": 1.02, "xanchor": "left", "y": 1, "yanchor": "top"},
            uirevision="changes",
        )
        figure.update_xaxes(title_text=axis_title(made.frame, 0), range=x_range, showgrid=False)
        return figure.update_yaxes(title_text=axis_title(made.frame, 1), range=y_range, showgrid=False)

    def _empty(self) -> go.Figure:
        text = self.pending or "Press Map many prompts: are those with one value of a clause neighbours?"
        return empty_figure(_TITLE, "each point a prompt", text, self.theme, self.width)


def _wrapped(text: str) -> str:
    return "<br>".join(lines([text], 460))

"""What layers have in common: the centred kernel alignment of every two of them, as a heat map that prints its numbers.

    LayerAlignment(trace)

Layers may differ in width, so embeddings, states and the output are compared as well. Reads a trace; runs no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from workbench.analysis.clusters import compare_layers
from workbench.errors import WorkbenchError
from workbench.views.maps import lines
from workbench.views.theme import INK, Theme, empty_figure, heading, template
from workbench.views.traces import as_traces
from workbench.views.view import View

if TYPE_CHECKING:
    from workbench.analysis.trace import Trace

COLUMNS = ["layer", "other", "value", "low", "high", "texts", "rows"]

_TITLE = "What layers have in common"
_NOTHING = "Trace two layers or more, and see here how much they have in common."

#: Pixels of a cell: of few layers, and the least that a number fits into. Of more layers than `_PRINTED` none is printed.
_WIDE, _NARROW, _UNPRINTED, _PRINTED = 70, 36, 16, 40
#: Pixels of all cells together, as far as they may be narrowed for it.
_ROOM = 560
_LEAST = 620  # pixels of the figure, so that the lines below its title are not too many
_LETTER = 6.4  # pixels of a letter of a layer's name
#: The value of a cell from which on its number is written in the paper's colour.
_TURN: dict[Theme, float] = {"light": 0.62, "dark": 0.47}


class LayerAlignment(View):
    """Linear centred kernel alignment of every two places of a trace, see `clusters.compare_layers`.

    Args:
        trace: what is compared; of several the first.
    """

    def __init__(self, trace: Trace | Mapping[str, Trace] | None = None, theme: Theme = "light") -> None:
        self.trace: Trace | None = next(iter(as_traces(trace).values()), None)
        self.theme = theme

    @cached_property
    def _compared(self) -> tuple[pd.DataFrame, str]:
        """The table, and why it is empty."""
        trace = self.trace
        if trace is None or len(trace.places) < 2:
            return pd.DataFrame(columns=COLUMNS), _NOTHING
        table = trace.table
        try:
            states = {place: trace[place] for place in trace.places}
            return compare_layers(states, list(table["text"]), list(table["task"])), ""
        except WorkbenchError as error:  # too few rows: not an error of the trace
            return pd.DataFrame(columns=COLUMNS), str(error)

    def update(self) -> None:
        """As of any view, and what was worked out is worked out anew."""
        self.__dict__.pop("_compared", None)
        super().update()

    def data(self) -> pd.DataFrame:
        """One row a pair of layers: see `clusters.compare_layers`."""
        return self._compared[0]

    def matrix(self) -> pd.DataFrame:
        """The same as a square, layers by layers; nan where a layer's rows are all the same."""
        assert self.trace is not None
        found = self._square("value")
        known = found.notna().any(axis=1)
        values = found.to_numpy(copy=True)
        np.fill_diagonal(values, np.where(known, 1.0, np.nan))
        return pd.DataFrame(values, found.index, found.columns)

    def figure(self) -> go.Figure:
        """A row and a column a layer, the first at the top left; the darker, the more alike."""
        table, why = self._compared
        if not len(table):
            note = "<br>".join(lines([escape(why)], _LEAST))
            return empty_figure(_TITLE, "a cell for every two layers", note, self.theme, _LEAST)
        ink, square = INK[self.theme], self.matrix()
        names, values = list(square.columns), square.to_numpy()
        count, longest = len(names), max(map(len, names)) * _LETTER
        cell = min(_WIDE, max(_NARROW, _ROOM // count)) if count <= _PRINTED else _UNPRINTED
        upright = longest > cell - 4
        left, right, bottom = longest + 48, 84, (longest if upright else 14) + 46
        width = max(_LEAST, round(left + right + cell * count))
        below = self._below(width)
        top = 58 + 15 * len(below)
        height = round(top + bottom + cell * count)
        figure = go.Figure(
            go.Heatmap(
                x=np.arange(count),
                y=np.arange(count),
                z=values,
                zmin=0,
                zmax=1,
                colorscale=[[0, ink["grid"]], [1, ink["first"]]],
                xgap=1,
                ygap=1,
                hoverongaps=False,
                text=self._hovers(names, values),
                hovertemplate="%{text}<extra></extra>",
                colorbar={
                    "title": {
                        "text": "alignment",
                        "side": "right",
                        "font": {"size": 11, "color": ink["quiet"]},
                    },
                    "tickfont": {"size": 11, "color": ink["quiet"]},
                    "tickvals": [0, 0.5, 1],
                    "thickness": 10,
                    "x": 1,
                    "xpad": 10,
                    "outlinewidth": 0,
                },
            )
        )
        if count <= _PRINTED:
            for alike in (False, True):
                figure.add_trace(self._printed(values, alike))
        ticks = {"tickvals": np.arange(count), "ticktext": [escape(name) for name in names], "ticks": ""}
        shared = {
            **ticks,
            "title_text": "layers",
            "showgrid": False,
            "showline": False,
            "ticklabelstandoff": 5,
        }
        font = {"size": 11, "color": ink["text"]}
        figure.update_xaxes(**shared, tickfont=font, range=[-0.5, count - 0.5], tickangle=-90 * upright)
        figure.update_yaxes(**shared, tickfont=font, range=[count - 0.5, -0.5])
        return figure.update_layout(
            template=template(self.theme),
            title=heading(_TITLE, "<br>".join(below), self.theme)
            | {"y": 1 - 18 / height, "xref": "container", "x": 16 / width},
            width=width,
            height=height,
            margin={"l": left, "r": width - left - cell * count, "t": top, "b": bottom},
            showlegend=False,
            uirevision="layer alignment",
        )

    def _square(self, column: str) -> pd.DataFrame:
        """A column of the table as layers by layers, nan on the diagonal."""
        assert self.trace is not None
        names = list(self.trace.places)
        table = self.data()
        both = pd.concat([table, table.rename(columns={"layer": "other", "other": "layer"})])
        return both.pivot(index="layer", columns="other", values=column).reindex(index=names, columns=names)

    def _printed(self, values: NDArray[np.float64], alike: bool) -> go.Scatter:
        """The numbers of the cells whose colour is strong, or of the others."""
        ink = INK[self.theme]
        y, x = np.nonzero((values >= _TURN[self.theme]) == alike)
        return go.Scatter(
            x=x,
            y=y,
            mode="text",
            text=[_short(value) for value in values[y, x]],
            textfont={"size": 11, "color": ink["paper" if alike else "text"]},
            hoverinfo="skip",
        )

    def _hovers(self, names: list[str], values: NDArray[np.float64]) -> list[list[str]]:
        low, high = self._square("low").to_numpy(), self._square("high").to_numpy()

        def said(i: int, j: int) -> str:
            if i == j:
                return f"{escape(names[i])} with itself"
            sure = "" if np.isnan(low[i, j]) else f" [{_short(low[i, j])}, {_short(high[i, j])}]"
            return f"{escape(names[i])} and {escape(names[j])}: {_short(values[i, j])}{sure}"

        return [[said(i, j) for j in range(len(names))] for i in range(len(names))]

    def _below(self, width: int) -> list[str]:
        assert self.trace is not None
        table, settings = self.data(), self.trace.settings
        rows, texts = int(table["rows"].iloc[0]), int(table["texts"].iloc[0])
        thinned = f" (of {len(self.trace):,})" if rows < len(self.trace) else ""
        sure = table["low"].notna().any()
        first = [
            escape(str(settings["backbone"]["name"])) + (" with a prompt" if settings["method"] else ""),
            f"linear centred kernel alignment of {rows:,} rows{thinned} of {texts:,} texts",
            "rows of one text are alike, which raises it" if rows > texts else "",
            "1: the same up to rotation and scale, 0: unrelated",
            "hover for 95% intervals over texts" if sure else "",
            "—: all rows of a layer are the same" if table["value"].isna().any() else "",
        ]
        return lines(first, width)


def _short(value: float) -> str:
    """Two digits behind the point."""
    return "—" if np.isnan(value) else f"{value:.2f}".replace("-", "−")

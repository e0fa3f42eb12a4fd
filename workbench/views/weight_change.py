"""The change of the weights itself: how large in each matrix, how near to the true gradient, in how many directions.

    WeightChange(change_table(method, rows), spectra(method, rows))

Tables of `analysis/weight_changes.py` in, a figure out.
"""

from __future__ import annotations

from html import escape

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.views.bands import WIDE
from workbench.views.maps import lines
from workbench.views.theme import Theme, colours, empty_figure, heading, template
from workbench.views.view import View

_COLUMNS = ["layer", "matrix", "norm", "relative", "cosine"]
_TITLE = "The change of the weights"


class WeightChange(View):
    """Norms, cosines and singular values of one prompt's change; of several prompts their means.

    Args:
        changes: of `change_table`.
        spectrum: of `spectra`.
        name: of the method.
    """

    def __init__(
        self,
        changes: pd.DataFrame | None = None,
        spectrum: pd.DataFrame | None = None,
        name: str = "",
        theme: Theme = "light",
        width: int = WIDE,
        height: int = 330,
    ) -> None:
        self.changes, self.spectrum, self.name = changes, spectrum, name
        self.theme, self.width, self.height = theme, width, height

    def data(self) -> pd.DataFrame:
        """One row a matrix: layer; matrix; norm (Frobenius); relative (to the matrix's own); cosine (to the true gradient)."""
        if self.changes is None or not len(self.changes):
            return pd.DataFrame(columns=_COLUMNS)
        return self.changes.groupby(["layer", "matrix"], sort=False)[_COLUMNS[2:]].mean().reset_index()

    def values(self) -> pd.DataFrame:
        """One row a singular value: layer; matrix; number (from 1); value."""
        if self.spectrum is None or not len(self.spectrum):
            return pd.DataFrame(columns=["layer", "matrix", "number", "value"])
        keys = ["layer", "matrix", "number"]
        return self.spectrum.groupby(keys, sort=False)["value"].mean().reset_index()

    def figure(self) -> go.Figure:
        """Three panels: norm over the matrix's own, cosine to the true gradient, singular values."""
        table, values = self.data(), self.values()
        if not len(table):
            return self._empty()
        figure = make_subplots(rows=1, cols=3, horizontal_spacing=0.095, column_widths=[0.32, 0.32, 0.36])
        matrices = list(dict.fromkeys(table["matrix"]))
        layers = sorted(set(table["layer"]))
        for number, matrix in enumerate(matrices):
            tone, own = colours(self.theme)[number % 7], table[table["matrix"] == matrix]
            shared = {"legendgroup": matrix, "name": escape(matrix)}
            where = own["layer"].map(str)
            for col, column, form in ((1, "relative", ".2%"), (2, "cosine", ".2f")):
                figure.add_bar(
                    x=where,
                    y=own[column],
                    marker={"color": tone},
                    hovertemplate=f"layer %{{x}}, {escape(matrix)}: %{{y:{form}}}<extra></extra>",
                    showlegend=col == 1,
                    **shared,
                    row=1,
                    col=col,
                )
            for at, layer in enumerate(layers):
                line = values[(values["matrix"] == matrix) & (values["layer"] == layer)]
                figure.add_scatter(
                    x=line["number"],
                    y=line["value"],
                    mode="lines",
                    line={"color": tone, "width": 2 if at == len(layers) - 1 else 1.1},
                    hovertemplate=f"layer {layer}, {escape(matrix)}, value %{{x}}: %{{y:.3g}}<extra></extra>",
                    showlegend=False,
                    **shared,
                    row=1,
                    col=3,
                )
        about = [
            escape(self.name),
            f"cosine to the true gradient: mean {table['cosine'].mean():.2f}",
            "thick: the last layer" if len(layers) > 1 else "",
        ]
        below = lines(about, self.width)
        figure.update_layout(
            template=template(self.theme),
            title=heading(_TITLE, "<br>".join(below), self.theme)
            | {"y": 1 - 18 / self.height, "xref": "container", "x": 0.012},
            width=self.width,
            height=self.height + 15 * (len(below) - 1),
            margin={"t": 98 + 15 * (len(below) - 1), "b": 50, "l": 66},
            bargap=0.25,
            uirevision="weights",
        )
        figure.update_xaxes(title_text="layer", type="category", row=1, col=1)
        figure.update_xaxes(title_text="layer", type="category", row=1, col=2)
        figure.update_xaxes(title_text="number of the singular value", row=1, col=3)
        figure.update_yaxes(
            title_text="norm / the matrix's", tickformat=".1%", rangemode="tozero", row=1, col=1
        )
        low = min(-0.05, float(table["cosine"].min()) - 0.05)
        figure.update_yaxes(title_text="cosine to the gradient", range=[low, 1.05], row=1, col=2)
        figure.update_yaxes(title_text="singular value", type="log", exponentformat="power", row=1, col=3)
        return figure

    def _empty(self) -> go.Figure:
        note = "Switch ProSG on, and see here what it changes in each matrix."
        return empty_figure(_TITLE, "norms, directions, and the true gradient", note, self.theme, self.width)

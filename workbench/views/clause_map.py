"""Clauses by steps: what each clause of a prompt still says while a text is written, and where it falls due.

    ClauseMap(wb.forgetting(backbone, prompt))
    ClauseMap({"plain": one, "ProSG": other}, measure="state_probe")

Texts stand one below the other on the same steps, and fill while they are written. Reads numbers; runs no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from workbench.analysis.forgetting_measures import MEASURES
from workbench.errors import unknown
from workbench.views.bands import WIDE
from workbench.views.maps import lines
from workbench.views.theme import INK, Theme, empty_figure, heading, template
from workbench.views.view import View

if TYPE_CHECKING:
    from workbench.analysis.forgetting import Forgetting

MET, MISSED, OPEN = "✓", "✗", "·"
SIGNS = {True: MET, False: MISSED, None: OPEN}

#: Texts that stand one below the other.
MOST = 3

#: Pixels left of the steps and right of them: the same in every figure over steps, so that they line up.
LEFT, RIGHT = 216, 76

_ROW, _TOP, _BETWEEN, _BOTTOM = 21, 84, 30, 46


def as_texts(texts: Forgetting | Mapping[str, Forgetting] | None) -> dict[str, Forgetting]:
    """None, one text or several by name, as several."""
    if texts is None:
        return {}
    return dict(texts) if isinstance(texts, Mapping) else {"the text": texts}


class ClauseMap(View):
    """A heat map of a measure of clauses (or of layers) by steps, one for each text.

    Args:
        texts: one, or some by name; the first `MOST` are drawn.
        measure: a name in `MEASURES` that the texts have numbers of, a clause or a layer.
        steps: the most tokens that a text will have; by default as many as there are.
    """

    def __init__(
        self,
        texts: Forgetting | Mapping[str, Forgetting] | None = None,
        measure: str = "clause_influence",
        steps: int | None = None,
        theme: Theme = "light",
        width: int = WIDE,
    ) -> None:
        self.texts, self.measure, self.steps = as_texts(texts), measure, steps
        self.theme, self.width = theme, width

    def data(self) -> pd.DataFrame:
        """One row a number: text, and the columns of `Forgetting.table`, for the measure and for "met"."""
        parts = []
        for name, seen in self._drawn().items():
            table = seen.table
            wanted = table["measure"].isin([self.measure, "met"])
            parts.append(table[wanted].assign(text=name))
            due = seen.due.dropna(subset=["step", "met"])
            at = due["step"].astype(int)
            met = {"step": at, "measure": "met", "clause": due["clause"], "layer": -1, "text": name}
            ids = {"token_id": [seen.ids[i - 1] for i in at], "token": [seen.tokens[i - 1] for i in at]}
            if "met" not in seen.values:
                parts.append(pd.DataFrame({**met, **ids, "value": due["met"].astype(float)}))
        columns = ["text", "step", "token_id", "token", "measure", "clause", "layer", "value"]
        return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)

    def figure(self) -> go.Figure:
        """A panel a text: a row a clause, a column a token, and a mark where a clause fell due."""
        texts, ink = self._drawn(), INK[self.theme]
        if not texts:
            return self._empty()
        matrices = [seen.matrix(self.measure) for seen in texts.values()]
        rows = [
            max(3, len(matrix) + self._of_layers) for matrix in matrices
        ]  # an axis is as high as its title
        body = _ROW * sum(rows) + _BETWEEN * (len(rows) - 1)
        below = lines([self._says(), self._signs()], self.width)
        top = _TOP + 15 * (len(below) - 1) + 18
        figure = make_subplots(
            rows=len(rows),
            cols=1,
            shared_xaxes=True,
            row_heights=rows,
            vertical_spacing=_BETWEEN / body if len(rows) > 1 else 0,
        )
        for at, ((name, seen), matrix) in enumerate(zip(texts.items(), matrices, strict=True), 1):
            self._panel(figure, at, name, seen, matrix)
        longest = max(self.steps or 0, *(len(seen.ids) for seen in texts.values()))
        figure.update_xaxes(range=[0.5, longest + 0.5], showgrid=False)
        figure.update_xaxes(title_text="tokens behind the prompt", row=len(rows), col=1)
        figure.update_layout(
            template=template(self.theme),
            title=heading(self._title(), "<br>".join(below), self.theme)
            | {"y": 1 - 18 / (top + body + _BOTTOM), "xref": "container", "x": 0.012},
            coloraxis=self._colours(),
            width=self.width,
            height=top + body + _BOTTOM,
            margin={"l": LEFT, "r": RIGHT, "t": top, "b": _BOTTOM},
            showlegend=False,
            hovermode="closest",
            uirevision="clauses",
        )
        for at, (name, seen) in enumerate(texts.items(), 1):
            figure.add_annotation(
                x=0, y=figure.get_subplot(at, 1).yaxis.domain[1], xref="paper", yref="paper", xanchor="left",
                yanchor="bottom", showarrow=False, font={"size": 12, "color": ink["text"]},
                text=f"<b>{escape(name)}</b>  {said(seen)}",
            )  # fmt: skip
        return figure

    # what it is made of

    @property
    def _of_layers(self) -> bool:
        if self.measure not in MEASURES:
            raise unknown("measure", self.measure, MEASURES)
        return MEASURES[self.measure].per == "layer"

    def _drawn(self) -> dict[str, Forgetting]:
        return dict(list(self.texts.items())[:MOST])

    def _panel(self, figure: go.Figure, at: int, name: str, seen: Forgetting, matrix: pd.DataFrame) -> None:
        count = len(matrix) + self._of_layers
        names = [escape(str(label)) for label in matrix.index] + ["a clause falls due"] * self._of_layers
        z = self._shade(matrix.to_numpy())
        if self._of_layers:
            z = np.concatenate([z, np.full((1, z.shape[1]), np.nan)])
        place = {"row": at, "col": 1}
        tokens = [escape(repr(token)[1:-1]) for token in seen.tokens]
        unit = MEASURES[self.measure].unit
        figure.add_trace(
            go.Heatmap(
                x=np.arange(1, len(seen.ids) + 1),
                y=np.arange(count),
                z=z,
                text=[tokens] * count,
                customdata=np.pad(
                    matrix.to_numpy(), ((0, int(self._of_layers)), (0, 0)), constant_values=np.nan
                ),
                hovertemplate=f"token %{{x}}: %{{text}}<br>%{{customdata:.3g}} {unit}<extra></extra>",
                coloraxis="coloraxis",
                hoverongaps=False,
                xgap=0.3,
                ygap=1,
            ),
            **place,
        )
        for met in (True, False):
            figure.add_trace(self._marks(seen, met, count - 1 if self._of_layers else None), **place)
        labels = names
        if not self._of_layers:
            labels = [f"{_short(n)} {SIGNS[m]}" for n, m in zip(names, seen.met, strict=True)]
        figure.update_yaxes(
            tickvals=np.arange(count),
            ticktext=labels,
            range=[count - 0.5, -0.5],
            ticks="",
            showgrid=False,
            title_text="layers" if self._of_layers else "clauses",
            title_standoff=10,
            tickfont={"size": 12, "color": INK[self.theme]["text"]},
            **place,
        )

    def _marks(self, seen: Forgetting, met: bool, row: int | None) -> go.Scatter:
        ink, due = INK[self.theme], seen.due.dropna(subset=["step", "met"])
        due = due[due["met"].astype(bool) == met]
        found = [escape(str(word)) for word in due["found"]]
        return go.Scatter(
            x=due["step"].to_numpy(int),
            y=due["clause"].to_numpy(int) - 1 if row is None else np.full(len(due), row),
            mode="markers+text",
            marker={
                "symbol": "circle" if met else "square",
                "size": 16,
                "color": ink["good" if met else "second"],
                "line": {"width": 1.5, "color": ink["paper"]},
            },
            text=[SIGNS[met]] * len(due),
            textposition="middle center",
            textfont={"size": 11, "color": ink["paper"]},
            customdata=[f"{escape(t)}<br>said: {word}" for t, word in zip(due["text"], found, strict=True)],
            hovertemplate=f"token %{{x}}: {'met' if met else 'missed'}<br>%{{customdata}}<extra></extra>",
            name="met" if met else "missed",
        )

    def _shade(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """What is coloured: of what spans orders its logarithm, of all else the number itself."""
        if (ends := MEASURES[self.measure].decades) is not None:
            return np.log10(np.clip(values, 10.0 ** ends[0], 10.0 ** ends[1]))
        return values

    def _colours(self) -> dict[str, Any]:
        ink, unit = INK[self.theme], MEASURES[self.measure].unit
        bar: dict[str, Any] = {
            "thickness": 10,
            "x": 1.012,
            "xanchor": "left",
            "outlinewidth": 0,
            "title": {"text": unit.split()[0] if unit else "", "font": {"size": 11, "color": ink["quiet"]}},
            "tickfont": {"size": 11, "color": ink["quiet"]},
        }
        one_way = [[0, ink["grid"]], [1, ink["first"]]]
        if (ends := MEASURES[self.measure].decades) is not None:
            ticks = list(range(ends[0], ends[1] + 1))
            bar |= {"tickvals": ticks, "ticktext": [f"{10.0**t:g}" for t in ticks]}
            return {"cmin": ends[0], "cmax": ends[1], "colorscale": one_way, "colorbar": bar}
        if MEASURES[self.measure].unit == "nats":
            both = [[0, ink["second"]], [0.5, ink["grid"]], [1, ink["first"]]]
            return {"cmin": -3, "cmax": 3, "colorscale": both, "colorbar": bar}
        return {"cmin": 0, "cmax": 1, "colorscale": one_way, "colorbar": bar}

    def _title(self) -> str:
        if self._of_layers:
            return "What each layer still holds of the prompt"
        of_state = "states" in MEASURES[self.measure].needs
        return "What the state holds of each clause" if of_state else "What each clause still says"

    def _says(self) -> str:
        unit = MEASURES[self.measure].unit
        scale = ", on a logarithmic scale" if MEASURES[self.measure].decades else ""
        return f"colour: {MEASURES[self.measure].label}{f' ({unit})' if unit else ''}{scale}"

    def _signs(self) -> str:
        return f"{MET} a clause falls due and is met, {MISSED} it is missed, {OPEN} it is not due so far"

    def _empty(self) -> go.Figure:
        note = "Press Generate: a text is written, and here is seen<br>what each clause still says."
        return empty_figure(
            "What each clause still says", "clauses by tokens", note, self.theme, self.width, 170
        )


def said(seen: Forgetting) -> str:
    """How many clauses were met, missed, and did not fall due so far."""
    met, missed = seen.met.count(True), seen.met.count(False)
    open_ = len(seen.met) - met - missed
    judged = [f"{met} met {MET}", f"{missed} missed {MISSED}"] if met + missed else []
    return ", ".join([*judged, *([f"{open_} not due {OPEN}"] if open_ else [])])


def _short(text: str) -> str:
    return text if len(text) <= 26 else f"{text[:25]}…"

"""How much a whole prompt still says while texts go on, those of the plain backbone and of ProSG on the same axes.

    InfluenceCurves({"plain": one, "ProSG": other, "read again": third})

Above the influence of the prompt on the next token, below what the state still holds of it, where there is a state. Reads
numbers; runs no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.analysis.forgetting_measures import MEASURES
from workbench.views.bands import WIDE
from workbench.views.clause_map import LEFT, MOST, RIGHT, as_texts
from workbench.views.maps import lines
from workbench.views.theme import INK, Theme, colours, empty_figure, heading, template
from workbench.views.view import View

if TYPE_CHECKING:
    from workbench.analysis.forgetting import Forgetting

#: Tokens over which about the thick line is a mean.
SPAN = 12

#: Of the theme's colours, those of texts; green and vermilion say met and missed.
_TONES = (0, 3, 4)
_COLUMNS = ["text", "step", "token", "influence", "smoothed", "state_cosine"]


class InfluenceCurves(View):
    """The influence of the prompt by step for some texts, with their due words.

    Args:
        texts: one, or some by name; the first `MOST` are drawn.
        steps: the most tokens that a text will have; by default as many as there are.
    """

    def __init__(
        self,
        texts: Forgetting | Mapping[str, Forgetting] | None = None,
        steps: int | None = None,
        theme: Theme = "light",
        width: int = WIDE,
    ) -> None:
        self.texts, self.steps, self.theme, self.width = as_texts(texts), steps, theme, width

    def data(self) -> pd.DataFrame:
        """One row a token: text; step; token; influence (nats); smoothed; state_cosine (mean of layers; nan without a state)."""
        parts = []
        for name, seen in self._drawn().items():
            influence = pd.Series(seen.values["influence"])
            cosine = seen.values.get("state_cosine")
            parts.append(
                pd.DataFrame(
                    {
                        "text": name,
                        "step": np.arange(1, len(seen.ids) + 1),
                        "token": seen.tokens,
                        "influence": influence,
                        "smoothed": influence.ewm(span=SPAN, adjust=True).mean(),
                        "state_cosine": np.nan if cosine is None else cosine.mean(1),
                    }
                )
            )
        return pd.concat(parts, ignore_index=True)[_COLUMNS] if parts else pd.DataFrame(columns=_COLUMNS)

    def figure(self) -> go.Figure:
        """Influence above; below, where any text has a state, its likeness to the state right after the prompt."""
        table, texts = self.data(), self._drawn()
        if not texts:
            return self._empty()
        state = bool(table["state_cosine"].notna().any())
        figure = make_subplots(
            rows=1 + state,
            cols=1,
            shared_xaxes=True,
            row_heights=[0.6, 0.4] if state else [1],
            vertical_spacing=0.08 if state else 0,
        )
        tones = [colours(self.theme)[number] for number in _TONES]
        for (name, seen), tone in zip(texts.items(), tones, strict=False):
            own = table[table["text"] == name]
            self._lines(figure, name, own, seen, tone)
            if state:
                figure.add_scatter(
                    x=own["step"],
                    y=own["state_cosine"],
                    mode="lines",
                    line={"color": tone, "width": 2},
                    hovertemplate=f"{escape(name)}, token %{{x}}: %{{y:.2f}}<extra></extra>",
                    showlegend=False,
                    row=2,
                    col=1,
                )
        again = [seen.again_at for seen in texts.values() if seen.again_at is not None]
        notes = [
            f"thin: each token, thick: mean of about {SPAN}",
            "circle: a clause falls due and is met, cross: it is missed",
            "dotted: the prompt is read again" if again else "",
        ]
        longest = max(self.steps or 0, *(len(seen.ids) for seen in texts.values()))
        below = lines(notes, self.width)
        top, height = 92 + 15 * (len(below) - 1), 290 + 150 * state
        figure.update_layout(
            template=template(self.theme),
            title=heading("What the whole prompt still says", "<br>".join(below), self.theme)
            | {"y": 1 - 18 / height, "xref": "container", "x": 0.012},
            width=self.width,
            height=height,
            margin={"l": LEFT, "r": RIGHT, "t": top, "b": 46},
            hovermode="closest",
            uirevision="influence",
        )
        for at in again:
            figure.add_vline(
                x=at + 0.5, line={"color": INK[self.theme]["quiet"], "dash": "dot", "width": 1.5}
            )
        figure.update_xaxes(range=[0.5, longest + 0.5])
        figure.update_xaxes(title_text="tokens behind the prompt", row=1 + state, col=1)
        figure.update_yaxes(
            title_text="influence of the prompt<br>(nats)",
            rangemode="tozero",
            title_standoff=16,
            row=1,
            col=1,
        )
        if state:
            label = "cosine of state<br>to the prompt's"
            figure.update_yaxes(title_text=label, range=[-0.05, 1.05], title_standoff=16, row=2, col=1)
        return figure

    def _drawn(self) -> dict[str, Forgetting]:
        return dict(list(self.texts.items())[:MOST])

    def _lines(self, figure: go.Figure, name: str, own: pd.DataFrame, seen: Forgetting, tone: str) -> None:
        """Each token, the mean, and the due words on it."""
        ink, group = INK[self.theme], {"legendgroup": name, "row": 1, "col": 1}
        figure.add_scatter(
            x=own["step"],
            y=own["influence"],
            mode="lines",
            line={"color": tone, "width": 1},
            opacity=0.35,
            text=[escape(repr(token)[1:-1]) for token in own["token"]],
            hovertemplate=f"{escape(name)}, token %{{x}}: %{{text}}<br>%{{y:.3f}} nats<extra></extra>",
            showlegend=False,
            **group,
        )
        figure.add_scatter(
            x=own["step"],
            y=own["smoothed"],
            mode="lines",
            name=escape(name),
            line={"color": tone, "width": 2.4},
            hoverinfo="skip",
            **group,
        )
        due = seen.due.dropna(subset=["step", "met"])
        at, met = due["step"].to_numpy(int), due["met"].to_numpy(bool)
        figure.add_scatter(
            x=at,
            y=own["smoothed"].to_numpy()[at - 1],
            mode="markers",
            marker={
                "size": 8,
                "symbol": np.where(met, "circle", "x").tolist(),
                "color": [ink["good" if one else "second"] for one in met],
                "line": {"width": 1, "color": ink["paper"]},
            },
            customdata=[escape(str(text)) for text in due["text"]],
            hovertemplate="token %{x}, due: %{customdata}<extra></extra>",
            showlegend=False,
            **group,
        )

    def _empty(self) -> go.Figure:
        note = f"The {MEASURES['influence'].label} is drawn here, token by token."
        return empty_figure(
            "What the whole prompt still says", "while a text goes on", note, self.theme, self.width
        )

"""What priors draw, before anything is trained: a panel a prior, on one map of the vocabulary.

    PriorSamples("tiny-llama")                                       # those that need no setting
    PriorSamples("tiny-llama", {"near": wb.priors.Shell(radius=1.0), "far": wb.priors.Shell(radius=3.0)})

The figure of samples of each prior of arXiv 2412.18582. Reads a backbone; trains nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from workbench.analysis.projection import Placed, Projection, ProjectionConfig, fit_projection
from workbench.analysis.reference import Reference
from workbench.analysis.surroundings import Surroundings
from workbench.views.bands import WIDE, colour_of
from workbench.views.cloud import cloud_traces
from workbench.views.maps import axis_title, head, lines, model, place_name, spans
from workbench.views.theme import INK, Theme, empty_note, heading, template
from workbench.views.view import View

if TYPE_CHECKING:
    from workbench.backbones.backbone import Backbone
    from workbench.methods.priors.prior import Prior

#: The priors that are drawn where none are chosen: those that need no setting and no data but the vocabulary.
USUAL = ("isotropic", "xavier", "fitted-gaussian", "gaussian-exclusion", "shell", "vocabulary")

#: Words of the vocabulary that can be hovered over in a panel.
WORDS = 300

#: Pixels of a panel's title above it, and between panels.
_TITLE, _GAP = 34, 24


@dataclass(frozen=True)
class Draws:
    """n vectors from one prior."""

    vectors: NDArray[np.float32]
    """(n, d)"""
    placed: Placed
    radius: NDArray[np.float64]
    """(n,) Mahalanobis distance from the vocabulary's mean, over √d: about 1 for the fitted Gaussian's own draws."""
    token: list[str]
    """The nearest token of each."""
    token_distance: NDArray[np.float64]
    """(n,) how far that is."""


class PriorSamples(View):
    """Draws from priors in one space of a backbone.

    Args:
        backbone: the model, or its name.
        priors: name to prior, or priors, or names of such that need no setting (`wb.priors.PRIORS`); None for `USUAL`.
        n: vectors of each.
        layer: None for input embeddings, or a block from 0, for what it reads.
        projection: how the map is fitted, to the vocabulary alone.
        seed: of the draws, the same for each prior.
        cache: a folder that keeps fitted maps.

    Raises:
        WorkbenchError: no such backbone, layer or prior, or one that cannot be fitted here.
    """

    def __init__(
        self,
        backbone: Backbone | str | None = None,
        priors: Mapping[str, Prior | str] | Sequence[Prior | str] | None = None,
        n: int = 100,
        layer: int | None = None,
        projection: ProjectionConfig | None = None,
        seed: int = 0,
        cache: Path | None = None,
        theme: Theme = "light",
        width: int = WIDE,
        height: int | None = None,
    ) -> None:
        self.around = Surroundings(model(backbone), place_name(layer)) if backbone is not None else None
        self.priors = _named(USUAL if priors is None else priors)
        self.n, self.seed, self.cache = n, seed, cache
        self.projection = projection or ProjectionConfig()
        self.theme, self.width, self.height = theme, width, height

    @cached_property
    def frame(self) -> Projection | None:
        """The map of the vocabulary; None without a backbone or a prior."""
        around = self.around
        if around is None or not self.priors:
            return None
        named = {"backbone": around.backbone.name, "place": around.place}
        return fit_projection(
            around.vocabulary, self.projection, key=named, cache=self.cache, words=around.words
        )

    @cached_property
    def draws(self) -> dict[str, Draws]:
        """Name to what that prior drew."""
        around, frame = self.around, self.frame
        if around is None or frame is None:
            return {}
        import torch

        from workbench.methods.priors import FittedGaussian

        normal = FittedGaussian().normal(around.backbone, around.layer)
        words, found = Reference(around.vocabulary), {}
        for name, prior in self.priors.items():
            dice = torch.Generator().manual_seed(self.seed)
            drawn = prior.fit(around.backbone, around.layer).sample(self.n, dice)
            near = words.nearest(drawn.numpy())
            found[name] = Draws(
                drawn.numpy(),
                frame.place(drawn.numpy()),
                (normal.squared_distance(drawn).sqrt() / math.sqrt(normal.width)).double().numpy(),
                [around.words[i] for i in near.row[:, 0]],
                near.distance[:, 0],
            )
        return found

    def data(self) -> pd.DataFrame:
        """One row a vector.

        prior; vector (from 1); x, y (on the map); distance (to what the map was fitted to, see `Placed`); off (whether
        that is off the map); norm; radius (Mahalanobis distance from the vocabulary's mean over √width, about 1 for the
        fitted Gaussian's own draws); nearest, nearest_distance (the token that is nearest, and how far it is).
        """
        columns = [
            "prior",
            "vector",
            "x",
            "y",
            "distance",
            "off",
            "norm",
            "radius",
            "nearest",
            "nearest_distance",
        ]
        parts = [
            pd.DataFrame(
                {
                    "prior": name,
                    "vector": np.arange(1, len(drawn.vectors) + 1),
                    "x": drawn.placed.points[:, 0],
                    "y": drawn.placed.points[:, 1],
                    "distance": drawn.placed.distance,
                    "off": drawn.placed.off,
                    "norm": np.linalg.norm(drawn.vectors, axis=1),
                    "radius": drawn.radius,
                    "nearest": drawn.token,
                    "nearest_distance": drawn.token_distance,
                }
            )
            for name, drawn in self.draws.items()
        ]
        return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)

    def figure(self) -> go.Figure:
        """A panel a prior, all on the same map and scale; hollow where the vocabulary is far."""
        frame, ink = self.frame, INK[self.theme]
        if frame is None:
            return self._empty()
        below = self._below()
        count = len(self.draws)
        columns = min(count, 2 if count in (2, 4) else 3)
        rows = -(-count // columns)
        side = (self.width - 76 - _GAP * (columns - 1)) / columns
        x, y = spans(frame.points, *(drawn.placed.points for drawn in self.draws.values()))
        shape = float(np.clip((y[1] - y[0]) / (x[1] - x[0]), 0.62, 1.1 if columns > 1 else 0.62))
        top, bottom = 62 + 16 * len(below) + _TITLE, 48
        height = self.height or round(top + bottom + rows * shape * side + (rows - 1) * _TITLE)
        inner = height - top - bottom
        panel = (inner - (rows - 1) * _TITLE) / rows
        x, y = _widened(x, y, panel / side)
        figure = make_subplots(
            rows=rows,
            cols=columns,
            shared_xaxes=True,
            shared_yaxes=True,
            horizontal_spacing=_GAP / (self.width - 76),
            vertical_spacing=_TITLE / inner if rows > 1 else 0,
        )
        ground = cloud_traces(frame.points, frame.words, self.theme, 0, most=WORDS)
        for at, (name, drawn) in enumerate(self.draws.items()):
            place = {"row": at // columns + 1, "col": at % columns + 1}
            for trace in ground:
                figure.add_trace(go.Figure(trace).data[0], **place)
                figure.data[-1].showlegend = at == 0 and trace.type == "scatter"
            figure.add_trace(self._points(name, drawn, at), **place)
            axes = figure.get_subplot(**place)
            figure.add_annotation(head(axes, escape(_cut(name, side)), self._note(drawn), ink))
        mark = {"x": [None], "y": [None], "mode": "markers", "hoverinfo": "skip"}
        for name, symbol in (("a draw", "circle"), ("off the map", "circle-open")):
            figure.add_scatter(**mark, name=name, marker={"symbol": symbol, "size": 6, "color": ink["text"]})
        figure.update_layout(
            template=template(self.theme),
            title=heading("Samples of each prior", "<br>".join(below), self.theme) | {"y": 1 - 20 / height},
            width=self.width,
            height=height,
            margin={"l": 60, "r": 16, "t": top, "b": bottom},
            legend={"itemsizing": "constant", "y": 1 + (_TITLE - 6) / inner},
            uirevision="prior samples",
        )
        figure.update_xaxes(range=x, nticks=5, mirror=True).update_yaxes(range=y, nticks=5, mirror=True)
        for column in range(1, columns + 1):
            last = (count - column) // columns + 1
            figure.update_xaxes(title_text=self._axis(0), showticklabels=True, row=last, col=column)
        for row in range(1, rows + 1):
            figure.update_yaxes(title_text=self._axis(1), row=row, col=1)
        return figure

    def _points(self, name: str, drawn: Draws, number: int) -> go.Scatter:
        colour, off = colour_of(number, self.theme), drawn.placed.off
        paper = INK[self.theme]["paper"]
        return go.Scatter(
            x=drawn.placed.points[:, 0],
            y=drawn.placed.points[:, 1],
            mode="markers",
            name=escape(name),
            showlegend=False,
            marker={
                "symbol": np.where(off, "circle-open", "circle").tolist(),
                "size": 6,
                "color": colour,
                "opacity": 0.9,
                "line": {"width": np.where(off, 1.2, 0.6), "color": np.where(off, colour, paper).tolist()},
            },
            customdata=[
                [
                    escape(word),
                    f"{far:.3g}",
                    f"{norm:.3g}",
                    f"{radius:.2f}",
                    "<br>off the map" if away else "",
                ]
                for word, far, norm, radius, away in zip(
                    drawn.token,
                    drawn.token_distance,
                    np.linalg.norm(drawn.vectors, axis=1),
                    drawn.radius,
                    off,
                    strict=True,
                )
            ],
            hovertemplate=(
                "nearest token: %{customdata[0]} (at %{customdata[1]})<br>norm %{customdata[2]}, "
                "Mahalanobis radius %{customdata[3]}%{customdata[4]}<extra>%{fullData.name}</extra>"
            ),
        )

    def _note(self, drawn: Draws) -> str:
        off = f", {drawn.placed.off.mean():.0%} off" if drawn.placed.off.any() else ""
        return f"radius {np.median(drawn.radius):.2f}{off}"

    def _axis(self, number: int) -> str:
        assert self.frame is not None
        return axis_title(self.frame, number).replace(" of the variance", "")

    def _below(self) -> list[str]:
        around, frame = self.around, self.frame
        assert around is not None and frame is not None
        where = (
            "its token embeddings" if around.layer is None else f"what {around.place} reads of single tokens"
        )
        off = sum(int(drawn.placed.off.sum()) for drawn in self.draws.values())
        whole = sum(len(drawn.vectors) for drawn in self.draws.values())
        parts = [
            f"{around.backbone.name}, over {where}",
            f"{off:,} of {whole:,} draws are off the map",
            "radius: median Mahalanobis / √width",
            frame.note,
        ]
        return lines(parts, self.width)

    def _empty(self) -> go.Figure:
        note = empty_note("Give a backbone, and see where each prior<br>would start a prompt.", self.theme)
        figure = go.Figure(layout={"template": template(self.theme), "annotations": [note]})
        figure.update_layout(
            title=heading("Samples of each prior", "over the vocabulary", self.theme),
            width=self.width,
            height=self.height or 430,
        )
        return figure.update_xaxes(visible=False).update_yaxes(visible=False)


def _named(priors: Mapping[str, Prior | str] | Sequence[Prior | str]) -> dict[str, Prior]:
    """Every prior under a name: its own, and where several have the same with the settings that were chosen."""
    from workbench.methods.priors import from_description

    def made(prior: Prior | str) -> Prior:
        return from_description({"name": prior}) if isinstance(prior, str) else prior

    if isinstance(priors, Mapping):
        return {name: made(prior) for name, prior in priors.items()}
    every = [made(prior) for prior in ([priors] if isinstance(priors, str) else priors)]
    count = Counter(prior.name for prior in every)
    found: dict[str, Prior] = {}
    for prior in every:
        usual = type(prior)().settings()
        chosen = [f"{key}={value}" for key, value in prior.settings().items() if value != usual[key]]
        found[", ".join([prior.name, *(chosen if count[prior.name] > 1 else [])])] = prior
    return found


def _cut(name: str, side: float) -> str:
    """A name as long as it fits above a panel, beside what is said of its draws."""
    letters = int((side - 118) / 7)
    return name if len(name) <= letters else name[: letters - 1] + "…"


def _widened(x: list[float], y: list[float], shape: float) -> tuple[list[float], list[float]]:
    """Both ranges, one of them widened, so that a unit is as long on either axis of a panel of height/width `shape`."""
    wide, high = x[1] - x[0], y[1] - y[0]
    more_x, more_y = max(0, high / shape - wide) / 2, max(0, wide * shape - high) / 2
    return [x[0] - more_x, x[1] + more_x], [y[0] - more_y, y[1] + more_y]

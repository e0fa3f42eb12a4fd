"""What maps have in common: the model that a name means, titles of axes, room for what is on them, the slider of a page.

It fits nothing, reads no run and draws no trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from workbench.analysis.projection import Projection
from workbench.views.theme import INK, Theme

if TYPE_CHECKING:
    from workbench.backbones.backbone import Backbone

_NAMES = {"umap": "UMAP", "tsne": "t-SNE"}


def model(backbone: Backbone | str) -> Backbone:
    """A backbone, or the one of that name, loaded once in this process."""
    if isinstance(backbone, str):
        from workbench.training.work import shared_backbone

        return shared_backbone(backbone)
    return backbone


def axis_title(frame: Projection, number: int) -> str:
    """What axis `number`, from 0, of a map is: of PCA with its share of the variance, of others that it has no unit."""
    if frame.explained is not None:
        return f"PC {number + 1} ({frame.explained[number]:.0%} of the variance)"
    return f"{_NAMES[frame.config.kind]} {number + 1} (no unit)"


def lines(parts: Iterable[str], width: int) -> list[str]:
    """What stands below a heading, in lines that fit a figure `width` pixels wide; empty parts are left out."""
    return wrap("; ".join(part for part in parts if part), max(30, int((width - 80) / 6.2)))


def place_name(layer: int | None) -> str:
    """Layer 3 to "layer 3", None to "embeddings", as `Surroundings` takes it."""
    return "embeddings" if layer is None else f"layer {layer}"


def spans(*points: NDArray[Any], room: float = 0.07) -> list[list[float]]:
    """The ranges of both axes that show all of some points (m, 2), with some room around them."""
    every = np.concatenate([part[np.isfinite(part).all(1)] for part in points])
    low, high = every.min(0), every.max(0)
    around = room * float((high - low).max()) + 1e-6
    return [[float(a) - around, float(b) + around] for a, b in zip(low, high, strict=True)]


def head(axes: Any, name: str, note: str, ink: Mapping[str, str]) -> dict[str, Any]:
    """What stands above one panel of several, left: its name, and a smaller note. As an annotation; `axes` of `get_subplot`."""
    return {
        "x": axes.xaxis.domain[0],
        "y": axes.yaxis.domain[1],
        "xref": "paper",
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "bottom",
        "showarrow": False,
        "align": "left",
        "text": f"<b>{name}</b>  <span style='font-size:11px'>{note}</span>",
        "font": {"size": 12, "color": ink["text"]},
    }


def apart(
    points: NDArray[Any], texts: Sequence[str], ranges: Sequence[Sequence[float]], room: tuple[float, float]
) -> list[int]:
    """Which texts can be written beside their points, of letters 11 pixels high, without one lying on another.

    The first come first, so give the most telling ones first.

    Args:
        points: (m, 2).
        texts: m of them; those without a letter or digit are not written.
        ranges: of both axes, of equal scale.
        room: width and height of the plot in pixels.
    """
    scale = min(room[i] / (ranges[i][1] - ranges[i][0]) for i in (0, 1))
    boxes: list[tuple[float, float, float]] = []
    chosen = []
    for i, (place, text) in enumerate(zip(np.asarray(points) * scale, texts, strict=True)):
        box = (float(place[0]), float(place[1]), 3.3 * len(text) + 2)
        if any(map(str.isalnum, text)) and all(
            abs(box[1] - b[1]) > 13 or abs(box[0] - b[0]) > box[2] + b[2] for b in boxes
        ):
            boxes.append(box)
            chosen.append(i)
    return chosen


def within(places: NDArray[np.float32], outlines: Sequence[NDArray[np.float64]]) -> NDArray[np.bool_]:
    """(m,) whether each of (m, 2) places lies in any outline: a ray to the right crosses its sides an odd number of times."""
    found = np.zeros(len(places), bool)
    for corners in outlines:
        x, y = places[:, :1].astype(float), places[:, 1:].astype(float)
        (x0, y0), (x1, y1) = corners.T, np.roll(corners, -1, axis=0).T
        with np.errstate(divide="ignore", invalid="ignore"):
            crossed = ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
        found |= crossed.sum(1) % 2 == 1
    return found


def with_slider(figure: go.Figure, prefix: str, now: int, theme: Theme, below: int = 46) -> go.Figure:
    """A figure that has frames with a slider over them and a button that plays them, below it; for a page.

    Args:
        figure: of a height that it says; it grows by the slider's.
        prefix: what stands before the name of the frame that is shown.
        now: the number of the frame that the figure shows.
        below: pixels that the axis below the data takes.
    """
    # Without `redraw` a title stays what it was, and so do WebGL and bars.
    go_on = {
        "frame": {"duration": 250, "redraw": True},
        "transition": {"duration": 0},
        "mode": "immediate",
    }
    ink = INK[theme]
    slider = {
        "active": now,
        "steps": [
            {"label": frame.name, "method": "animate", "args": [[frame.name], go_on]}
            for frame in figure.frames
        ],
        "currentvalue": {"prefix": prefix, "font": {"size": 12, "color": ink["text"]}},
        "x": 0.08,
        "len": 0.92,
        "pad": {"t": below, "b": 4},
        "font": {"size": 11, "color": ink["quiet"]},
        "bgcolor": ink["line"],
        "bordercolor": ink["line"],
    }
    play = {
        "type": "buttons",
        "showactive": False,
        "x": 0,
        "xanchor": "left",
        "y": 0,
        "yanchor": "top",
        "pad": {"t": below + 16},
        "bgcolor": ink["paper"],
        "bordercolor": ink["line"],
        "buttons": [{"label": "▶", "method": "animate", "args": [None, {**go_on, "fromcurrent": True}]}],
    }
    return figure.update_layout(
        height=figure.layout.height + below + 24,
        margin={"b": below + 72},
        sliders=[slider],
        updatemenus=[play],
    )

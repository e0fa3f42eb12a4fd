"""What maps of one space have in common: the model that a name means, titles of axes, room for what is on them.

It fits nothing, reads no run and draws no trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.projection import Projection

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

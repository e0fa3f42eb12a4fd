"""Many points as quiet hills: the ground that a figure's few loud marks stand on. Fits nothing and places nothing.

The hills are drawn from every point, in as many cells however many there are, so a vocabulary of a quarter of a million
words weighs in a page what one of a thousand does. Points to hover over are few, and the legend says how many.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from workbench.views.theme import INK, Theme

#: Points that can be hovered over, unless told otherwise; of more, so many are drawn.
MOST_POINTS = 2000

#: Shares of the points that lie within a line, the innermost first; a share more a line.
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)

#: Cells along the longer side of the ground.
CELLS = 96

#: Fewer points than this make no hills: the points themselves are drawn, and can be seen.
FEWEST = 200

#: How dark the top of the hills is, from 0 to 1.
DARKEST = 0.4


def cloud_traces(
    points: NDArray[Any],
    words: Sequence[str] = (),
    theme: Theme = "light",
    landmarks: int = 10,
    name: str = "vocabulary",
    group: dict[str, Any] | None = None,
    most: int = MOST_POINTS,
) -> list[Any]:
    """Points (m, 2) as plotly traces, in the order in which to draw them: hills, some points, a few words written out.

    Args:
        points: places in the figure's own unit, of equal scale along both axes.
        words: m texts that hovering shows; none, and nothing is shown or written.
        landmarks: the most words to write, far from one another.
        name: in the legend, which has one entry for all.
        group: what each trace gets besides, such as the axes of a panel.
        most: points that can be hovered over.
    """
    points, ink = np.asarray(points, np.float32), INK[theme]
    if not len(points):
        return []
    shared: dict[str, Any] = {"legendgroup": name} | (group or {})
    enough = len(points) >= FEWEST
    traces: list[Any] = [_hills(points, theme, name, shared)] if enough else []
    seen = np.arange(len(points))
    if len(points) > most:
        seen = np.sort(np.random.default_rng(0).choice(len(points), most, replace=False))
        name = f"{name} ({len(seen):,} of {len(points):,} points)"
    texts = [escape(words[int(i)]) for i in seen] if len(words) else None
    traces.append(
        go.Scatter(
            x=points[seen, 0],
            y=points[seen, 1],
            text=texts,
            mode="markers",
            name=name,
            marker={"size": 3, "color": ink["quiet"], "opacity": 0.2 if enough else 0.5},
            hovertemplate="%{text}<extra></extra>" if texts else None,
            hoverinfo=None if texts else "skip",
            **shared,
        )
    )
    if len(words) and landmarks:
        traces.append(_landmark_trace(points, words, landmarks, theme, shared))
    return traces


def outline(points: NDArray[Any], colour: str, share: float = 0.75, **group: Any) -> Any:
    """A line around the densest `share` of points (m, 2), as a plotly trace; see `hills`. `group` goes to the trace."""
    columns, rows, depth = hills(points, CELLS // 2)
    return go.Contour(
        x=columns,
        y=rows,
        z=depth.astype(np.float32),
        contours={"type": "constraint", "operation": ">", "value": 1 - share},
        fillcolor="rgba(0,0,0,0)",
        line={"color": colour, "width": 1.5, "smoothing": 1},
        showlegend=False,
        hoverinfo="skip",
        **group,
    )


def written(words: Sequence[str], places: NDArray[Any], most: int = 10) -> list[int]:
    """Which words to write on a cloud: a few whole ones, each the farthest from those before it."""
    whole = [i for i, word in enumerate(words) if len(word) > 2 and word.isalpha()]
    if not whole:
        return []
    spots = places[whole]
    away = np.linalg.norm(spots - spots.mean(0), axis=1)
    chosen: list[int] = []
    for _ in range(min(most, len(whole))):
        chosen.append(int(away.argmax()))
        away = np.minimum(away, np.linalg.norm(spots - spots[chosen[-1]], axis=1))
    return [whole[i] for i in chosen]


def hills(
    points: NDArray[Any], cells: int = CELLS
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """How deep each cell of a grid lies in the points (m, 2): (columns,) and (rows,) places, and (rows, columns).

    Deep is the share of the points that lie where the density is lower: 0 outside, towards 1 at the densest place, so
    that the line at 0.1 holds nine in ten of the points (a highest-density region; Hyndman 1996, The American
    Statistician 50:120). The density is a histogram, smoothed by half the normal reference bandwidth, as a map of words
    has more than one hill, and by a half or a quarter of that where points lie close (Abramson 1982, Annals of
    Statistics 10:1217: the width falls with the root of the density; here in octaves).
    """
    from scipy.ndimage import gaussian_filter

    points = np.asarray(points, np.float64)
    spread = np.maximum(points.std(0), 1e-9 + 1e-3 * points.std())
    width = 0.5 * spread * len(points) ** (-1 / 6)
    low, high = points.min(0) - 3 * width, points.max(0) + 3 * width
    cell = (high - low).max() / cells
    counts = np.maximum(np.ceil((high - low) / cell).astype(int), 2)
    edges = [low[i] + cell * np.arange(counts[i] + 1) for i in (0, 1)]
    here, _, _ = np.histogram2d(points[:, 0], points[:, 1], bins=edges)

    def smoothed(part: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
        return np.asarray(gaussian_filter(part, np.maximum(factor * width / cell, 0.8), mode="constant"))

    pilot = np.maximum(smoothed(here, 1), 1e-12)
    usual = np.exp((here * np.log(pilot)).sum() / here.sum())  # at the points: their geometric mean
    octave = np.clip(np.round(np.log2(usual / pilot) / 2), -2, 0)
    density = np.sum([smoothed(np.where(octave == k, here, 0), 2.0**k) for k in (-2, -1, 0)], axis=0)
    order = np.argsort(density, axis=None)
    below = np.cumsum(here.ravel()[order]) / here.sum()
    depth = np.empty(density.size)
    depth[order] = below
    columns, rows = ((edge[:-1] + edge[1:]) / 2 for edge in edges)
    return columns, rows, depth.reshape(density.shape).T


def _hills(points: NDArray[Any], theme: Theme, name: str, shared: dict[str, Any]) -> go.Contour:
    columns, rows, depth = hills(points)
    levels = sorted(1 - share for share in SHARES)
    step = levels[1] - levels[0]
    shades = ["rgba(0,0,0,0)", *(_mixed(theme, DARKEST * k / len(levels)) for k in range(1, len(levels) + 1))]
    scale = [[(k + end) / len(shades), shade] for k, shade in enumerate(shades) for end in (0, 1)]
    return go.Contour(
        x=columns,
        y=rows,
        z=depth.astype(np.float32),
        zmin=levels[0] - step,
        zmax=levels[-1] + step,
        contours={"start": levels[0], "end": levels[-1], "size": step, "coloring": "fill"},
        line={"width": 0, "smoothing": 1},
        colorscale=scale,
        showscale=False,
        showlegend=False,
        hoverinfo="skip",
        name=f"{name}, hills",
        **shared,
    )


def _mixed(theme: Theme, share: float) -> str:
    """The paper's colour with a share of the quiet ink in it."""
    ink = INK[theme]
    parts = zip(
        *([int(ink[name][i : i + 2], 16) for i in (1, 3, 5)] for name in ("paper", "quiet")), strict=True
    )
    return "rgb({},{},{})".format(*(round(paper + share * (quiet - paper)) for paper, quiet in parts))


def _landmark_trace(
    points: NDArray[Any], words: Sequence[str], most: int, theme: Theme, shared: dict[str, Any]
) -> go.Scatter:
    marked, ink = written(words, points, most), INK[theme]
    return go.Scatter(
        x=points[marked, 0],
        y=points[marked, 1],
        text=[escape(words[i]) for i in marked],
        mode="text",
        name="landmarks",
        showlegend=False,
        textfont={"size": 11, "color": ink["text"], "shadow": ", ".join([f"0 0 2px {ink['paper']}"] * 3)},
        opacity=0.8,
        hoverinfo="skip",
        **shared,
    )

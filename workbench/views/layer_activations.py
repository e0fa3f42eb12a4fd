"""What each layer makes of some tasks: one map a layer, each turned so that points stay where they were.

    LayerActivations("tiny-llama", tasks=("reading", "order-2"))

The figure of the activations of data sets at each layer of arXiv 2412.18582. Reads a backbone and tasks; trains nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.analysis.frames import Frames
from workbench.analysis.projection import Projection, ProjectionConfig
from workbench.analysis.reference import Reference
from workbench.analysis.surroundings import Surroundings
from workbench.errors import WorkbenchError
from workbench.views.bands import COLOURS, WIDE, colour_of
from workbench.views.cloud import outline
from workbench.views.maps import head, lines, model, place_name, spans
from workbench.views.theme import INK, Theme, empty_note, heading, template
from workbench.views.view import View

if TYPE_CHECKING:
    from workbench.backbones.backbone import Backbone

TITLE = "Activations of tasks, layer by layer"

#: Layers that are drawn where none are chosen; of more, evenly chosen ones, the first and the last among them.
MOST_LAYERS = 12

#: Neighbours that are looked through for copies: in layer 0 every "." is the same vector.
_COPIES = 64

#: Pixels of a panel's title above it.
_TITLE = 34


class LayerActivations(View):
    """Tokens of some tasks' texts, as each layer reads them.

    Args:
        backbone: the model, or its name.
        tasks: names or files, up to seven.
        layers: blocks from 0, for what each reads; None for all, or for `MOST_LAYERS` of more.
        points: tokens of each task.
        projection: how each layer's map is fitted.
        seed: of the choice of tokens, the same in every layer.
        cache: a folder that keeps fitted maps.

    Raises:
        WorkbenchError: no such backbone, task or layer, or too many tasks.
    """

    def __init__(
        self,
        backbone: Backbone | str | None = None,
        tasks: str | Sequence[str] = (),
        layers: Sequence[int] | None = None,
        points: int = 400,
        projection: ProjectionConfig | None = None,
        seed: int = 0,
        cache: Path | None = None,
        theme: Theme = "light",
        width: int = WIDE,
        height: int | None = None,
    ) -> None:
        self.backbone = model(backbone) if backbone is not None else None
        self.tasks = (tasks,) if isinstance(tasks, str) else tuple(tasks)
        if len(self.tasks) > COLOURS:
            raise WorkbenchError(f"{len(self.tasks)} tasks cannot be told apart; give {COLOURS} or fewer")
        count = self.backbone.num_layers if self.backbone else 0
        chosen = range(count) if layers is None else layers
        if layers is None and count > MOST_LAYERS:
            chosen = np.linspace(0, count - 1, MOST_LAYERS).round().astype(int).tolist()
        self.layers = tuple(chosen)
        self.points, self.seed, self.cache = points, seed, cache
        self.projection = projection or ProjectionConfig()
        self.theme, self.width, self.height = theme, width, height

    @cached_property
    def frames(self) -> dict[int, Projection]:
        """Layer to its map; a part of the map's rows for each task."""
        backbone = self.backbone
        if backbone is None or not self.tasks or not self.layers:
            return {}
        around = [Surroundings(backbone, place_name(layer)) for layer in self.layers]
        parts = {
            there.place: [there.activations(task, self.points, self.seed) for task in self.tasks]
            for there in around
        }
        sizes = [len(part) for part in parts[around[0].place]]
        named = {"backbone": backbone.name, "tasks": list(self.tasks)}
        found = Frames(
            list(parts), lambda place: np.concatenate(parts[place]), self.projection, named, self.cache, sizes
        )
        return dict(zip(self.layers, found.values(), strict=True))

    @cached_property
    def kept_together(self) -> dict[int, float]:
        """Layer to the share of tokens whose nearest other one, in all directions, is of their own task."""
        return {layer: _kept_together(frame) for layer, frame in self.frames.items()}

    def data(self) -> pd.DataFrame:
        """One row a token and layer.

        layer; task; token (from 1, the same one in every layer); x, y (on the layer's map); explained (share of the
        variance that the map shows; empty for one that is not linear); kept_together (the layer's, see above).
        """
        columns = ["layer", "task", "token", "x", "y", "explained", "kept_together"]
        parts = []
        for layer, frame in self.frames.items():
            explained = None if frame.explained is None else float(frame.explained.sum())
            for number, task in enumerate(self.tasks):
                rows, places = frame.part(number)
                facts: dict[str, Any] = {"layer": layer, "task": _title(task), "token": rows + 1}
                facts |= {"x": places[:, 0], "y": places[:, 1], "explained": explained}
                parts.append(pd.DataFrame(facts | {"kept_together": self.kept_together[layer]}))
        return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)

    def figure(self) -> go.Figure:
        """A panel a layer: each task a colour, its tokens as points, and a line around most of them."""
        if not self.frames:
            return self._empty()
        ink, count = INK[self.theme], len(self.frames)
        columns = min(count, 2 if count <= 4 else 3 if count <= 9 else 4)
        rows = -(-count // columns)
        side = (self.width - 32 - 24 * (columns - 1)) / columns
        below = self._below()
        top, bottom = 61 + 16 * len(below), 16
        height = self.height or round(top + bottom + rows * ((0.78 if columns > 1 else 0.55) * side + _TITLE))
        inner = height - top - bottom
        figure = make_subplots(
            rows=rows,
            cols=columns,
            horizontal_spacing=24 / (self.width - 32),
            vertical_spacing=_TITLE / inner if rows > 1 else 0,
        )
        for at, frame in enumerate(self.frames.values()):
            place = {"row": at // columns + 1, "col": at % columns + 1}
            for number, task in enumerate(self.tasks):
                self._draw(figure, frame, number, task, first=at == 0, **place)
            x, y = spans(frame.points)
            figure.update_xaxes(range=x, **place)
            figure.update_yaxes(range=y, scaleanchor=f"x{at + 1}" if at else "x", scaleratio=1, **place)
        figure.update_xaxes(showticklabels=False, ticks="", mirror=True, showgrid=False)
        figure.update_yaxes(showticklabels=False, ticks="", mirror=True, showgrid=False)
        figure.update_layout(
            template=template(self.theme),
            title=heading(TITLE, "<br>".join(below), self.theme) | {"y": 1 - 20 / height},
            width=self.width,
            height=height,
            margin={"l": 16, "r": 16, "t": top + _TITLE, "b": bottom},
            legend={"itemsizing": "constant", "y": 1 + (_TITLE - 6) / (inner - _TITLE)},
            uirevision="layer activations",
        )
        for at, (layer, frame) in enumerate(self.frames.items()):
            axes = figure.get_subplot(at // columns + 1, at % columns + 1)
            figure.add_annotation(head(axes, f"layer {layer}", self._note(layer, frame), ink))
        return figure

    def _draw(
        self, figure: go.Figure, frame: Projection, number: int, task: str, first: bool, **place: int
    ) -> None:
        colour = colour_of(number, self.theme)
        _, points = frame.part(number)
        shared: dict[str, Any] = {"legendgroup": task, "name": escape(_title(task))}
        figure.add_trace(outline(points, colour, **shared), **place)
        figure.add_scatter(
            x=points[:, 0],
            y=points[:, 1],
            mode="markers",
            marker={"size": 3.5, "color": colour, "opacity": 0.5},
            showlegend=first,
            hovertemplate="%{fullData.name}<extra></extra>",
            **shared,
            **place,
        )

    def _note(self, layer: int, frame: Projection) -> str:
        shown = [] if frame.explained is None else [f"{frame.explained.sum():.0%} of the variance"]
        return "; ".join([*shown, f"{self.kept_together[layer]:.0%} beside their own task"])

    def _below(self) -> list[str]:
        assert self.backbone is not None
        first, count = next(iter(self.frames.values())), self.backbone.num_layers
        parts = [
            f"{self.backbone.name}; {min(first.parts):,} tokens of each task, a line around three in four",
            f"{len(self.frames)} of {count} layers" if len(self.frames) < count else "",
            first.note,
        ]
        beside = "beside: the nearest other token, in all directions, is of the same task"
        chance = f" (by chance {max(first.parts) / sum(first.parts):.0%})" if len(self.tasks) > 1 else ""
        return lines(parts, self.width) + lines([beside + chance, "each layer has its own scale"], self.width)

    def _empty(self) -> go.Figure:
        note = empty_note(
            "Give a backbone and two or three tasks,<br>and see what each layer makes of them.", self.theme
        )
        figure = go.Figure(layout={"template": template(self.theme), "annotations": [note]})
        figure.update_layout(
            title=heading(TITLE, "one map a layer", self.theme),
            width=self.width,
            height=self.height or 430,
        )
        return figure.update_xaxes(visible=False).update_yaxes(visible=False)


def _title(task: str) -> str:
    """A task's name, or its file's."""
    return Path(task).stem if "/" in task else task


def _kept_together(frame: Projection) -> float:
    """The share of fitted rows whose nearest other row is of their own part; of copies just as near, the share of those."""
    part = np.searchsorted(np.cumsum(frame.parts), frame.kept, side="right")
    near = Reference(frame.vectors).nearest(frame.vectors, k=_COPIES)
    others = near.row != np.arange(len(part))[:, None]
    nearest = others & (near.distance <= near.distance.min(1, where=others, initial=np.inf)[:, None])
    own = nearest & (part[near.row] == part[:, None])
    return float((own.sum(1) / nearest.sum(1)).mean())

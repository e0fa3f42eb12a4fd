"""Maps of the same rows in one layer after another, each turned to the one before: points move because layers differ.

    frames = Frames(trace.places, lambda place: trace[place])
    frames["layer 2"]                   # a Projection; those before it are fitted first, each once
    moved(one, other)                   # how far points go from one map to the other, as a share of the maps' size

What a map leaves open is settled by the map before: turn, mirror and place of all (`align`), and of UMAP also where each
group lies, as it starts from the places there. In a layer where all rows are the same, such as embeddings of one token,
all points are at zero; the next layer goes on from the map before that. Arrays in, maps out; it reads no model and
never draws.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from workbench.analysis.projection import Projection, ProjectionConfig, align, fit_projection
from workbench.errors import WorkbenchError, unknown


class Frames(Mapping[str, Projection]):
    """The maps of some layers, fitted when they are first asked for; a mapping in the layers' order.

    Args:
        layers: their names, in order.
        rows: name to (n, d), the same n rows in each, d its own.
        config: how each map is fitted.
        key: what the rows are, see `fit_projection`; the layer's name is added.
        cache: a folder that keeps fitted maps.
        parts: see `fit_projection`.

    Raises:
        WorkbenchError: when a map is asked for: rows that cannot be mapped, or no such layer.
    """

    def __init__(
        self,
        layers: Sequence[str],
        rows: Callable[[str], ArrayLike],
        config: ProjectionConfig | None = None,
        key: Mapping[str, Any] | None = None,
        cache: Path | None = None,
        parts: Sequence[int] | None = None,
    ) -> None:
        self.layers, self.config, self._rows = tuple(layers), config or ProjectionConfig(), rows
        self._key, self._cache, self._parts = dict(key or {}), cache, parts
        self._fitted: dict[str, Projection] = {}
        self._fitting = threading.Lock()

    def __getitem__(self, layer: str) -> Projection:
        if layer not in self.layers:
            raise unknown("layer of these maps", layer, self.layers)
        if layer not in self._fitted:
            with self._fitting:
                for name in self.layers[: self.layers.index(layer) + 1]:
                    if name not in self._fitted:
                        self._fitted[name] = self._fit(name)
        return self._fitted[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def ready(self) -> tuple[str, ...]:
        """The layers whose maps are fitted already, so that asking for them takes no time."""
        return tuple(name for name in self.layers if name in self._fitted)

    def _fit(self, name: str) -> Projection:
        before = next((one for one in reversed(self._fitted.values()) if not one.alike), None)
        fitted = fit_projection(
            self._rows(name),
            self.config,
            key={**self._key, "place": name},
            cache=self._cache,
            parts=self._parts,
            after=before,
            allow_alike=True,
        )
        return fitted if before is None or fitted.alike else align(fitted, before)


def moved(one: Projection, other: Projection) -> float:
    """How far points go from one map to another: root mean squared distance, as a share of the maps' radius (ours).

    Of the rows that both fitted. Each map is first scaled about its mean to a root mean squared radius of 1, since layers
    have their own scales; 0: nothing moves, √2: places on the one say nothing of those on the other.

    Raises:
        WorkbenchError: maps without a row in common.
    """
    _, mine, theirs = np.intersect1d(one.kept, other.kept, return_indices=True)
    if not len(mine):
        raise WorkbenchError("the two maps have no row in common; fit both to the same rows")
    here, there = (
        (part - part.mean(0)) / (np.sqrt(np.square(part - part.mean(0)).sum(1).mean()) or 1.0)
        for part in (one.points[mine].astype(np.float64), other.points[theirs].astype(np.float64))
    )
    return float(np.sqrt(np.square(here - there).sum(1).mean()))

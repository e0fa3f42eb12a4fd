"""Vectors that others are measured against, a vocabulary above all: exact nearest neighbours in bounded memory.

Arrays in, arrays out. It knows no model and no words, and never draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.errors import WorkbenchError, unknown

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Metric = Literal["euclidean", "cosine"]

#: A table of more rows than this has its spacing estimated from as many of them.
SAMPLED = 1024
_CELLS = 1 << 22  # numbers in a block of rows, and in a block of distances


class Nearest(NamedTuple):
    """The k nearest rows of n vectors, the nearest first; of rows just as near the first in the table."""

    row: Ints
    """(n, k) where in the table, from 0."""
    distance: Floats
    """(n, k) Euclidean distance, or 1 - cosine; nan where there is no direction to compare."""


class Reference:
    """A table of vectors to be near to.

    Args:
        rows: (V, d), of any float type; it is kept as it is, and read in blocks in float64.

    Raises:
        WorkbenchError: rows that are no such table.
    """

    def __init__(self, rows: ArrayLike):
        self.rows = np.asarray(rows)
        if self.rows.ndim != 2 or not self.rows.size:
            raise WorkbenchError(
                f"a vocabulary of shape {self.rows.shape} cannot be measured against; give one row a token"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def nearest(self, vectors: ArrayLike, k: int = 1, metric: Metric = "euclidean") -> Nearest:
        """The k rows nearest to each of (n, d) vectors; fewer where the table has fewer.

        Every row is looked at, in float64, so the answer is exact; no more than a few blocks are held at once. By
        cosine, a row of zeros is near to nothing.

        Raises:
            WorkbenchError: vectors of another width, an unknown metric, or k below 1.
        """
        vectors = np.asarray(vectors, np.float64)
        if vectors.ndim != 2 or vectors.shape[1] != self.rows.shape[1]:
            raise WorkbenchError(
                f"vectors of shape {vectors.shape} cannot be compared with a vocabulary of width "
                f"{self.rows.shape[1]}; give (n, {self.rows.shape[1]})"
            )
        if metric not in get_args(Metric):
            raise unknown("metric", metric, get_args(Metric))
        if k < 1:
            raise WorkbenchError(f"there are no {k} nearest tokens; give k=1 or more")
        return self._nearest(vectors, min(k, len(self)), metric)

    @cached_property
    def spacing(self) -> float:
        """The mean distance of a row to the nearest other one: the table's own unit of nearness (ours).

        Of a table of more than `SAMPLED` rows as many are asked, drawn with a fixed seed, each about all the others.
        nan where there is no other row, or all are copies.
        """
        count = len(self)
        if count < 2:
            return float("nan")
        asked = np.arange(count)
        if count > SAMPLED:
            asked = np.sort(np.random.default_rng(0).choice(count, SAMPLED, replace=False))
        found = self._nearest(self.rows[asked].astype(np.float64), 1, "euclidean", asked)
        return float(found.distance.mean()) or float("nan")

    @cached_property
    def _squared(self) -> Floats:
        """(V,) squared lengths."""
        return np.concatenate([np.square(block).sum(1) for _, block in self._blocks()])

    @property
    def _height(self) -> int:
        """Rows in a block."""
        return max(1, _CELLS // self.rows.shape[1])

    def _blocks(self) -> Iterator[tuple[int, Floats]]:
        """The rows, a block at a time: where it starts, and (height, d) float64."""
        for start in range(0, len(self), self._height):
            yield start, self.rows[start : start + self._height].astype(np.float64)

    def _nearest(self, vectors: Floats, k: int, metric: Metric, itself: Ints | None = None) -> Nearest:
        """`nearest`, checked; `itself` (n,) is the row that a vector is not to be given."""
        count = max(1, _CELLS // min(self._height, len(self)))
        parts = [
            self._some(
                vectors[at : at + count], k, metric, None if itself is None else itself[at : at + count]
            )
            for at in range(0, max(1, len(vectors)), count)
        ]
        index, distance = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Nearest(index, distance)

    def _some(self, vectors: Floats, k: int, metric: Metric, itself: Ints | None) -> Nearest:
        each = np.arange(len(vectors))[:, None]
        index, far = np.zeros((len(vectors), 0), np.int64), np.zeros((len(vectors), 0))
        for start, block in self._blocks():
            score = self._score(vectors, block, self._squared[start : start + len(block)], metric)
            if itself is not None:
                inside = np.flatnonzero((itself >= start) & (itself < start + len(block)))
                score[inside, itself[inside] - start] = np.inf
            near = _smallest(score, k)
            index = np.concatenate([index, near + start], axis=1)
            far = np.concatenate([far, score[each, near]], axis=1)
            best = _smallest(far, k)
            index, far = index[each, best], far[each, best]
        distance = np.stack([self._distance(vectors, column, metric) for column in index.T], axis=1)
        order = np.lexsort((index, distance), axis=1)
        return Nearest(index[each, order], distance[each, order])

    @staticmethod
    def _score(vectors: Floats, block: Floats, squared: Floats, metric: Metric) -> Floats:
        """(n, height): what grows with the distance of each vector to each row, compared for one vector only."""
        score: Floats = vectors @ block.T
        if metric == "euclidean":
            score *= -2  # |v - r|² without |v|²
            score += squared
        else:
            score *= np.divide(-1, np.sqrt(squared), out=np.zeros_like(squared), where=squared > 0)
            score[:, squared == 0] = np.inf
        return score

    def _distance(self, vectors: Floats, index: Ints, metric: Metric) -> Floats:
        """(n,) from each vector to one row: from their difference, so that a token is at 0 from itself."""
        rows = self.rows[index].astype(np.float64)
        if metric == "euclidean":
            return np.asarray(np.linalg.norm(vectors - rows, axis=1))
        return 1 - cosine(vectors, rows)


def cosine(a: Floats, b: Floats) -> Floats:
    """The cosine of each of (…, d) with its fellow in (…, d): (…,); nan where either is all zeros."""
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    product = (a * b).sum(-1)
    return np.clip(np.divide(product, lengths, out=np.full_like(product, np.nan), where=lengths > 0), -1, 1)


def _smallest(score: Floats, k: int) -> Ints:
    """(n, m) to (n, k): where the k smallest of each row are, in no order."""
    if k == 1:
        return score.argmin(axis=1)[:, None]
    if k >= score.shape[1]:
        return np.tile(np.arange(score.shape[1]), (len(score), 1))
    return np.argpartition(score, k - 1, axis=1)[:, :k]

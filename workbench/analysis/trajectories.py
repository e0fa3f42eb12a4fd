"""A generated answer as a path: how far it spreads and steps, beside paths that are known to go everywhere.

    spread, step_length     of one path, in the vectors' own unit
    localisation            1 - (spread of a path / spread of a reference)², with its interval over texts
    measure_paths           all of it for every layer, against three references, as one table

A path is (T, d): what a layer holds, or the embedding, at each generated token in order. The three references:

    vocabulary    a random walk: tokens drawn from the vocabulary, one independent of the other
    shuffled      the steps of the same path in another order: as spread, but going nowhere in particular
    others        each step from another text of the same task: what the task visits, without what one text visits

Squares are compared, since the mean squared step between independent draws is twice their variance: every reference is
then exact, and none is drawn. Arrays in, tables out. It runs no model and never draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from workbench.analysis.half_samples import Interval, half_samples, interval
from workbench.errors import WorkbenchError, unknown

__all__ = ["Of", "Walks", "localisation", "measure_paths", "spread", "step_length"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Of = Literal["spread", "step"]
Walks = NDArray[np.floating] | Sequence[ArrayLike] | str
"""A table (V, d), one row a token; or paths that were walked at random, a list of (T, d); or "shuffled" or "others"."""

DRAWS = 1000


def spread(path: ArrayLike) -> float:
    """Root of the variance of the rows of a path (T, d): √(Σ|x_t - x̄|² / (T - 1)), for any T the same on average.

    The radius of gyration, but for T - 1. nan for one row.

    >>> spread([[0.0, 0.0], [2.0, 0.0]]) ** 2
    2.0
    """
    return float(np.sqrt(_variance(_rows(path))))


def step_length(path: ArrayLike) -> float:
    """Root of the mean squared distance from each row of a path (T, d) to the next. nan for one row.

    >>> step_length([[0.0, 0.0], [3.0, 4.0]])
    5.0
    """
    return float(np.sqrt(_squared_step(_rows(path))))


def localisation(
    paths: Sequence[ArrayLike],
    reference: Walks,
    tasks: Sequence[object] | None = None,
    of: Of = "spread",
    draws: int = DRAWS,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """How much less a path spreads, or how much shorter it steps, than the reference (ours).

        1 - mean of s² / mean of S²

    with s the spread (or step length) of a path and S that of the reference.

    0: paths are as wide as the reference, they go wherever it does: not local, which is claim E5 of arXiv 2412.18582
    where the reference is the vocabulary. 1: each path stays at one point. Below 0: wider than the reference. Against
    the others of a task it is the share of the variance that tells texts apart (the intraclass correlation); of steps
    against shuffled ones, 1 less the ratio of von Neumann 1941 (Ann. Math. Stat. 12:367), 0 where the order of steps
    says nothing. Of the spread against shuffled steps it is 0, since order does not change what is visited.

    Args:
        paths: n answers (T, d), T may differ; those of one token have no spread and are left out.
        reference: "shuffled", "others", rows (V, d) to draw tokens from, or walks, a list of (T, d). In a layer, give
            walks: what the model makes of random tokens that follow one another, as long as the answers are.
        tasks: n tasks, within which other texts are looked for and halves are drawn; None for one task.
        of: what is compared, "spread" or "step".
        draws: of half-samples of texts, and of walks where walks are given; rows count as all there are.

    The interval is nan where a task has fewer than four paths, or where there are fewer than four walks.

    Raises:
        WorkbenchError: no path of two tokens, paths that are not finite or of different widths, an unknown reference.

    >>> localisation([path, another], vocabulary).value
    """
    if of not in get_args(Of):
        raise unknown("part of a path", of, get_args(Of))
    return _Comparison(_Paths.of(paths, tasks), reference, draws, seed).localisation(of, confidence)


def measure_paths(
    layers: Mapping[str, Sequence[ArrayLike]],
    vocabulary: Mapping[str, Walks] | None = None,
    tasks: Sequence[object] | None = None,
    draws: int = DRAWS,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Spread, step length and localisation of the paths of every layer, against each reference that there is.

    Args:
        layers: layer to n paths (T, d), the same answers in each.
        vocabulary: layer to rows or walks, see `localisation`; a layer without any is compared with the other two.
        tasks: n tasks, or None for one.

    Returns:
        layer, reference ("" for the paths themselves), measure, value, low, high, texts (paths of two tokens or more).
        Measures: "spread" and "step" in the vectors' own unit, also of the reference; "spread localisation" and "step
        localisation", see `localisation`. Of shuffled steps there are only "step" and "step localisation", as their
        spread is that of the paths.

    Raises:
        WorkbenchError: as `localisation`.
    """
    table: list[tuple[object, ...]] = []
    for layer, paths in layers.items():
        read = _Paths.of(paths, tasks)
        references: dict[str, Walks] = {"shuffled": "shuffled", "others": "others"}
        if vocabulary is not None and layer in vocabulary:
            references = {"vocabulary": vocabulary[layer], **references}
        themselves = _Comparison(read, "shuffled", draws, seed)
        for of in get_args(Of):
            table.append(
                (layer, "", of, *themselves.interval(np.sqrt(themselves.own(of)), confidence), len(read))
            )
        for name, reference in references.items():
            beside = _Comparison(read, reference, draws, seed)
            for of in ("step",) if name == "shuffled" else get_args(Of):
                size = beside.interval(np.sqrt(beside.theirs(of)), confidence)
                table.append((layer, name, of, *size, len(read)))
                sure = beside.localisation(of, confidence)
                table.append((layer, name, f"{of} localisation", *sure, len(read)))
    return pd.DataFrame(table, columns=["layer", "reference", "measure", "value", "low", "high", "texts"])


@dataclass(frozen=True, eq=False)
class _Paths:
    """What is read of n paths of two rows or more."""

    task: Ints
    """(n,)"""
    variance: Floats
    """(n,)"""
    step: Floats
    """(n,) mean squared step."""
    apart: Floats
    """(n, n) half the mean squared distance between rows of two paths."""
    width: int

    @classmethod
    def of(cls, paths: Sequence[ArrayLike], tasks: Sequence[object] | None) -> _Paths:
        task = pd.factorize(np.asarray(["all"] * len(paths) if tasks is None else tasks, object))[0]
        if len(task) != len(paths):
            raise WorkbenchError(f"{len(paths)} paths have {len(task)} tasks; give one for each path")
        known = [(way, of) for way, of in zip(map(_rows, paths), task, strict=True) if len(way) > 1]
        if not known:
            raise WorkbenchError(
                "no answer has two tokens, so there is no path; let the model write longer answers"
            )
        if len({way.shape[1] for way, _ in known}) > 1:
            raise WorkbenchError("the paths have different widths; give those of one layer")
        mean = np.stack([way.mean(0) for way, _ in known])
        within = np.array(
            [np.square(way - own).sum(1).mean() for (way, _), own in zip(known, mean, strict=True)]
        )
        mean -= mean.mean(0)
        length = np.square(mean).sum(1)
        between = np.maximum(length[:, None] + length - 2 * mean @ mean.T, 0)
        return cls(
            np.array([of for _, of in known]),
            np.array([_variance(way) for way, _ in known]),
            np.array([_squared_step(way) for way, _ in known]),
            (within[:, None] + within + between) / 2,
            mean.shape[1],
        )

    def __len__(self) -> int:
        return len(self.task)

    def own(self, of: Of, parts: Floats) -> Floats:
        """(b, n) parts to (b,): the mean variance, or squared step, of the paths in them."""
        return parts @ (self.variance if of == "spread" else self.step) / parts.sum(1)

    def others(self, parts: Floats) -> Floats:
        """(b, n) parts to (b,): the variance of rows of other texts of a path's task, mean of the paths that have any."""
        other = (self.task[:, None] == self.task) & ~np.eye(len(self), dtype=bool)
        count = parts @ other
        each = np.divide(parts @ (self.apart * other), count, out=np.zeros_like(count), where=count > 0)
        there = parts * (count > 0)
        total = there.sum(1)
        return np.divide((each * there).sum(1), total, out=np.full_like(total, np.nan), where=total > 0)


class _Comparison:
    """Paths beside a reference: both of them in all texts, then in each half."""

    def __init__(self, paths: _Paths, reference: Walks, draws: int, seed: int):
        self.paths, self.reference = paths, reference
        self.walks: _Paths | None = None
        self.variance = np.nan
        self.labels = paths.task
        halves, drawn = half_samples(paths.task, draws, seed), None
        if not isinstance(reference, str):
            if isinstance(reference, np.ndarray) and reference.ndim == 2:
                rows, width = _rows(reference), reference.shape[1]
                self.variance = _variance(rows)
            else:
                self.walks = _Paths.of(reference, None)  # type: ignore[arg-type]
                width = self.walks.width
                drawn = half_samples(self.walks.task, draws, seed + 1)
                self.labels = np.concatenate([paths.task, np.full(len(self.walks), -1)])
            if width != paths.width:
                raise WorkbenchError(
                    f"a reference of width {width} cannot be compared with paths of width {paths.width}"
                )
        elif reference not in ("shuffled", "others"):
            raise unknown("reference", reference, ["shuffled", "others"])
        count = min(len(halves), len(halves) if drawn is None else len(drawn))
        self.parts = np.concatenate([np.ones((1, len(paths))), halves[:count]])
        if self.walks is not None and drawn is not None:
            self.drawn = np.concatenate([np.ones((1, len(self.walks))), drawn[:count]])

    def own(self, of: Of) -> Floats:
        """(1 + halves,) mean variance or squared step of the paths."""
        return self.paths.own(of, self.parts)

    def theirs(self, of: Of) -> Floats:
        """(1 + halves,) the same of the reference; a step between independent draws is twice the variance."""
        if self.walks is not None:
            return self.walks.own(of, self.drawn)
        if isinstance(self.reference, str):
            shuffled = self.reference == "shuffled"
            variance = self.own("spread") if shuffled else self.paths.others(self.parts)
        else:
            variance = np.full(len(self.parts), self.variance)
        return variance if of == "spread" else 2 * variance

    def localisation(self, of: Of, confidence: float) -> Interval:
        theirs = self.theirs(of)
        ratio = np.divide(self.own(of), theirs, out=np.full_like(theirs, np.nan), where=theirs > 0)
        return self.interval(1 - ratio, confidence)

    def interval(self, values: Floats, confidence: float) -> Interval:
        return interval(values[0], values[1:], self.labels, confidence)


def _variance(path: Floats) -> float:
    path = path - path[:1]  # so that what stands still has none, to the last digit
    return float(np.square(path - path.mean(0)).sum() / (len(path) - 1)) if len(path) > 1 else np.nan


def _squared_step(path: Floats) -> float:
    return float(np.square(np.diff(path, axis=0)).sum() / (len(path) - 1)) if len(path) > 1 else np.nan


def _rows(path: ArrayLike) -> Floats:
    """(T, d) in float64."""
    path = np.asarray(path, np.float64)
    if path.ndim != 2:
        raise WorkbenchError(f"an array of shape {path.shape} is no path; give (tokens, width)")
    if not np.isfinite(path).all():
        raise WorkbenchError("a path is not finite; leave out the answers that are not")
    return path

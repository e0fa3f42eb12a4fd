"""How sure a number is whose unit is the text: half-samples of texts without replacement, and the interval they give.

    half_samples    draws of half of the texts of every task
    interval        a number, with its interval from what it was in the halves

Rows of one text are alike, so whole texts are drawn. A bootstrap with replacement would put copies of a text beside it,
and whatever looks for neighbours, clusters or agreement would find the copies; the half-sample bootstrap (McCarthy 1969,
Review of the International Statistical Institute 37:239; Shao and Wu 1989, Annals of Statistics 17:1176) has none. Arrays
in, numbers out. It knows no measure.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

#: A task of fewer texts has no half in which two of its texts could be compared, and so no interval.
FEWEST = 4


class Interval(NamedTuple):
    """A number and its two-sided interval; nan where there were too few texts for one."""

    value: float
    low: float
    high: float


def half_samples(tasks: ArrayLike, draws: int, seed: int = 0) -> Floats:
    """(draws, G), 1 where a text is in the half and 0 where not: ⌊half⌋ of the texts of each task.

    Args:
        tasks: (G,) what each text belongs to.

    Of a task with fewer than `FEWEST` texts there are no halves: (0, G).

    >>> half_samples(["a"] * 4 + ["b"] * 6, draws=3).sum(1).tolist()
    [5.0, 5.0, 5.0]
    """
    tasks = np.asarray(tasks)
    found, sizes = np.unique(tasks, return_counts=True)
    if sizes.min() < FEWEST:
        return np.zeros((0, len(tasks)))
    dice, kept = np.random.default_rng(seed), np.zeros((draws, len(tasks)))
    for task, size in zip(found, sizes, strict=True):
        own = np.flatnonzero(tasks == task)
        order = dice.random((draws, size)).argsort(1)
        kept[:, own] = order < size // 2
    return kept


def interval(value: float, halves: ArrayLike, tasks: ArrayLike, confidence: float = 0.95) -> Interval:
    """The value, and how far from it the truth may lie.

    Args:
        value: the number, of all G texts.
        halves: (draws,) the same number of each half, see `half_samples`; nan of a half is left out.
        tasks: (G,) as they were given to `half_samples`.

    With m of G texts in a half, a mean of the half is off the whole's by √((G − m)/m) times as much as the whole's is
    off the truth; the standard deviation of the halves over that is the standard error, and Student's quantile with
    G − k degrees of freedom, of k tasks, times it the half width. (The halves' own quantiles would say no more: a mean
    is as much too high in one half as it is too low in the other.)

    >>> interval(1.0, [], ["a", "b"])
    Interval(value=1.0, low=nan, high=nan)
    """
    from scipy.stats import t

    known = np.asarray(halves, np.float64)
    known = known[np.isfinite(known)]
    if len(known) < 2 or not math.isfinite(value):
        return Interval(float(value), math.nan, math.nan)
    sizes = np.unique(np.asarray(tasks), return_counts=True)[1]
    inside = (sizes // 2).sum()
    error = known.std(ddof=1) * math.sqrt(inside / (sizes.sum() - inside))
    width = float(t.ppf((1 + confidence) / 2, sizes.sum() - len(sizes)) * error)
    return Interval(float(value), float(value) - width, float(value) + width)

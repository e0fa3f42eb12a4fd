"""Intervals and tests behind the claims: pure functions of numbers, SciPy's distributions inside.

An `Estimate` is an effect and its interval at any confidence, so that the weakest of several (cells, radii) can be
given an interval that is honest about having been chosen. Trains nothing, reads nothing, knows no claim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Interval = tuple[float, float]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """An effect and its two-sided interval, as a function of the confidence (0.95: 2.5% on either side)."""

    effect: float
    at: Callable[[float], Interval]

    @property
    def interval(self) -> Interval:
        """At 95%."""
        return self.at(0.95)


def weakest(estimates: Sequence[Estimate], side: str) -> Estimate:
    """The estimate that supports a claim least, with an interval for the weakest true effect (ours).

    Where the claim is "above", that is the smallest effect, from the smallest lower end to the smallest upper end.
    The end on the claim's side needs no correction: to claim that all effects lie above a threshold, each is tested
    at its own level (intersection-union test, Berger 1982, Technometrics 24:295). The other end says "at least one
    lies below", which m effects get m chances to say by luck; so it is taken at 1 − (1 − confidence) / m (Bonferroni).
    For "below" all is mirrored. It nests: the weakest cell, each by its weakest radius.
    """
    m = len(estimates)
    choose = min if side == "above" else max

    def at(confidence: float) -> Interval:
        plain = [estimate.at(confidence) for estimate in estimates]
        strict = [estimate.at(1 - (1 - confidence) / m) for estimate in estimates]
        lows, highs = (plain, strict) if side == "above" else (strict, plain)
        return choose(low for low, _ in lows), choose(high for _, high in highs)

    return Estimate(choose(estimate.effect for estimate in estimates), at)


def mean(values: ArrayLike) -> Estimate:
    """The mean of independent numbers (one a seed), with Student's t interval."""
    x = np.asarray(values, float)
    return _student(float(x.mean()), float(x.std(ddof=1)) / math.sqrt(len(x)), len(x) - 1)


def ratio(numerators: ArrayLike, denominators: ArrayLike) -> Estimate:
    """mean(y) / mean(x) of n pairs (one a seed), with Fieller's interval (1954, J. R. Stat. Soc. B 16:175).

    The ratios r that a t test of mean(y − r·x) = 0 does not refuse: exact for normal pairs. What moves both of a pair
    alike is not counted as spread. Without end where mean(x) cannot be told from zero.
    """
    from scipy import stats

    y, x = np.asarray(numerators, float), np.asarray(denominators, float)
    n, top, bottom = len(x), float(y.mean()), float(x.mean())
    (syy, sxy), (_, sxx) = np.cov(y, x) / n

    def at(confidence: float) -> Interval:
        t2 = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) ** 2
        a, b, c = bottom**2 - t2 * sxx, top * bottom - t2 * sxy, top**2 - t2 * syy
        if a <= 0:
            return -math.inf, math.inf
        half = math.sqrt(max(0.0, b * b - a * c))
        return float(b - half) / a, float(b + half) / a

    return Estimate(top / bottom, at)


def _student(effect: float, error: float, degrees: int) -> Estimate:
    from scipy import stats

    def at(confidence: float) -> Interval:
        half = float(stats.t.ppf(0.5 + confidence / 2, degrees)) * error
        return effect - half, effect + half

    return Estimate(effect, at)


def lower_bound(values: ArrayLike, confidence: float = 0.95) -> float:
    """The lower end of the one-sided t interval of the mean: above zero is "more than nothing"."""
    return mean(values).at(2 * confidence - 1)[0]


def shifted(estimate: Estimate, by: float) -> Estimate:
    """The estimate of the effect and a constant."""

    def at(confidence: float) -> Interval:
        low, high = estimate.at(confidence)
        return low + by, high + by

    return Estimate(estimate.effect + by, at)


def scaled(estimate: Estimate, by: float) -> Estimate:
    """The estimate of the effect times a positive constant."""

    def at(confidence: float) -> Interval:
        low, high = estimate.at(confidence)
        return low * by, high * by

    return Estimate(estimate.effect * by, at)


def binomial(right: int, of: int) -> Estimate:
    """A share, with its exact interval (Clopper and Pearson 1934): never of no width, not even for all of n."""
    from scipy import stats

    test = stats.binomtest(right, of)

    def at(confidence: float) -> Interval:
        found = test.proportion_ci(confidence, method="exact")
        return float(found.low), float(found.high)

    return Estimate(right / of, at)


def widest(first: Estimate, second: Estimate) -> Estimate:
    """The first's effect, with an interval that holds those of both."""

    def at(confidence: float) -> Interval:
        (a, b), (c, d) = first.at(confidence), second.at(confidence)
        return min(a, c), max(b, d)

    return Estimate(first.effect, at)


def spreads(table: ArrayLike) -> tuple[float, float]:
    """σ_row and σ_seed of a table (a rows, n columns), one number a cell: rows are priors, columns seeds.

    The model is y_ij = μ + row_i + column_j + rest_ij with normal effects. Columns are seeds: a seed decides the order
    of the data for all priors alike, so a plain one-way analysis would count that order in its within-mean-square and
    not in its between one, and find the priors too much alike. With the mean squares A (rows), B (columns), E (rest):

        σ_row² = max(0, A − E) / n,   σ_seed² = max(0, B − E) / a + E

    σ_seed is the spread between runs of one prior that differ in their seed.
    """
    squares, shape = _mean_squares(table)
    row, seed = _spreads(*squares, *shape)
    return float(row), float(seed)


def spread_ratio(table: ArrayLike, draws: int = 100_000, dice: int = 0) -> Estimate:
    """σ_row / σ_seed of `spreads`, with the generalised interval for this design.

    As in gauge studies (Weerahandi 1993, JASA 88:899; Burdick, Borror and Montgomery 2005, Design and Analysis of Gauge
    R&R Studies, ch. 3): each mean square is divided by draws of χ² over its degrees, the formulas are applied, and
    quantiles are taken.
    """
    squares, (a, n) = _mean_squares(table)
    random = np.random.default_rng(dice)
    degrees = (a - 1, n - 1, (a - 1) * (n - 1))
    rows, columns, rest = (m * d / random.chisquare(d, draws) for m, d in zip(squares, degrees, strict=True))
    pivots = _quotient(*_spreads(rows, columns, rest, a, n))

    def at(confidence: float) -> Interval:
        low, high = np.quantile(pivots, [0.5 - confidence / 2, 0.5 + confidence / 2])
        return float(low), float(high)

    return Estimate(float(_quotient(*_spreads(*squares, a, n))), at)


def _mean_squares(table: ArrayLike) -> tuple[tuple[float, float, float], tuple[int, int]]:
    """Mean squares of rows, columns and rest, and the table's shape."""
    y = np.asarray(table, float)
    a, n = y.shape
    rows, columns, whole = y.mean(1), y.mean(0), y.mean()
    rest = y - rows[:, None] - columns[None] + whole
    between = n * float(((rows - whole) ** 2).sum()) / (a - 1)
    seeds = a * float(((columns - whole) ** 2).sum()) / (n - 1)
    return (between, seeds, float((rest**2).sum()) / ((a - 1) * (n - 1))), (a, n)


def _spreads(rows: ArrayLike, columns: ArrayLike, rest: ArrayLike, a: int, n: int) -> tuple[Floats, Floats]:
    between, seeds, left = (np.asarray(square, float) for square in (rows, columns, rest))
    row, seed = np.maximum(0, between - left) / n, np.maximum(0, seeds - left) / a + left
    return np.sqrt(row), np.sqrt(seed)


def _quotient(above: Floats, below: Floats) -> Floats:
    """Zero over zero is zero: nothing varies."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(above > 0, above / below, 0.0)


def nearest_in_other_seeds(groups: Mapping[str, Floats], seeds: Ints) -> Ints:
    """For each of n runs the run of another seed that is most like it: (n,) indices.

    Args:
        groups: features (n, d_g), in groups that count alike, however many features each has.
        seeds: (n,) the seed of each run; one seed's runs are left out together.

    Each feature is divided by its spread over the runs of the other seeds, so nothing of the seed that is left out is
    used. Ours; the distance is Euclidean.
    """
    nearest = np.zeros(len(seeds), np.int64)
    for seed in np.unique(seeds):
        out, others = np.flatnonzero(seeds == seed), np.flatnonzero(seeds != seed)
        distance = np.zeros((len(out), len(others)))
        for features in groups.values():
            spread = features[others].std(0)
            scaled = features / np.where(spread > 0, spread, 1)
            difference = scaled[out][:, None] - scaled[others][None]
            distance += (difference**2).mean(-1)
        nearest[out] = others[distance.argmin(1)]
    return nearest


def permutation_p(labels: Ints, nearest: Ints, seeds: Ints, times: int = 999, seed: int = 0) -> float:
    """How likely at least as many neighbours of the same label are, were labels given at random within each seed.

    (1 + number as good) / (1 + times): Phipson and Smyth 2010 (Stat. Appl. Genet. Mol. Biol. 9:39), never zero.
    The features know no labels, so neighbours stay where they are and only the labels move.
    """
    dice = np.random.default_rng(seed)
    found = int((labels == labels[nearest]).sum())
    places = [np.flatnonzero(seeds == s) for s in np.unique(seeds)]
    as_good, moved = 0, labels.copy()
    for _ in range(times):
        for place in places:
            moved[place] = dice.permutation(labels[place])
        as_good += int((moved == moved[nearest]).sum() >= found)
    return (1 + as_good) / (1 + times)


def rank_correlation(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rank correlation, ties at their mean rank; 0 where one of the two does not vary."""
    from scipy import stats

    x, y = np.asarray(x, float), np.asarray(y, float)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(stats.spearmanr(x, y).statistic)

"""Whether two sets of vectors are of one kind, and how far apart they are: energy, sliced Wasserstein, a classifier.

Arrays in, numbers out. It knows no prompt but as vectors that came together, and never draws.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.errors import WorkbenchError

Floats = NDArray[np.float64]

_PROJECTIONS = 512  # directions of a sliced distance
_SHUFFLES = 999  # ways of handing out labels that are tried, where not all can be
_VECTORS = 1000  # the most vectors of a set that the classifier reads: its work grows with their cube
_RIDGE = 1.0
_CELLS = 1 << 22  # numbers in a block of distances


class Comparison(NamedTuple):
    """What a number of `compare_sets` is called, and what it says."""

    label: str
    explain: str


COMPARISONS: dict[str, Comparison] = {
    "energy_distance": Comparison(
        "energy distance",
        "0 for equal sets, and more the less they have in common; unit: the root of a length",
    ),
    "energy_coefficient": Comparison(
        "energy coefficient",
        "the energy distance without a unit: 0 for equal sets, 1 for two different points",
    ),
    "energy_p": Comparison(
        "p of the energy distance", "how often labels that are shuffled give as large a one"
    ),
    "sliced_wasserstein": Comparison(
        "sliced Wasserstein distance", "how far mass is carried along a direction, in the vectors' own unit"
    ),
    "told_apart": Comparison(
        "told apart",
        "share of vectors that a classifier trained on other prompts gives to the right set; chance: 1/2",
    ),
    "told_apart_auc": Comparison(
        "AUC of told apart", "area under the ROC curve of the same classifier; chance: 1/2"
    ),
    "told_apart_control": Comparison(
        "told apart, shuffled",
        "the same share where labels are shuffled; with few prompts below 1/2 if they differ",
    ),
    "told_apart_p": Comparison("p of told apart", "how often labels that are shuffled give as high a share"),
    "least_p": Comparison("least possible p", "no p can be smaller with so few prompts"),
    "prompts": Comparison("prompts", "prompts of each set that the classifier read"),
}
"""What `compare_sets` gives, by name."""


def energy_distance(x: ArrayLike, y: ArrayLike) -> float:
    """√(2·E|X−Y| − E|X−X′| − E|Y−Y′|) between samples (n, d) and (m, d).

    Székely and Rizzo 2013 (J. Stat. Plan. Inference 143:1249), with the root that makes it a metric, as in
    `scipy.stats.energy_distance`; its unit is the root of a length. The means run over all pairs, a vector with itself
    among them (V statistic): never below zero, zero for equal samples, and above it for two samples of one
    distribution, the more so the smaller they are.
    """
    return math.sqrt(_energy(*_samples(x, y))[0])


def energy_coefficient(x: ArrayLike, y: ArrayLike) -> float:
    """The squared energy distance over 2·E|X−Y|, from 0 (equal samples) to 1 (two different points).

    Székely and Rizzo 2013, their coefficient of inhomogeneity H: without a unit, so that layers can be compared.
    """
    energy, between = _energy(*_samples(x, y))
    return energy / (2 * between) if between > 0 else 0.0


def sliced_wasserstein(
    x: ArrayLike, y: ArrayLike, p: float = 2, projections: int = _PROJECTIONS, seed: int = 0
) -> float:
    """(E_θ W_p(θ·X, θ·Y)^p)^(1/p), θ uniform on the sphere: Rabin et al. 2011; Bonneel et al. 2015 (JMIV 51:22).

    Args:
        x, y: samples (n, d) and (m, d); n and m may differ.
        p: the order, 1 or more.
        projections: directions drawn for the mean over θ.
        seed: of the directions.

    In the vectors' own unit. A direction in d dimensions sees little of one shift: of length s, it gives s/√d (p = 2).
    """
    x, y = _samples(x, y)
    if p < 1 or projections < 1:
        raise WorkbenchError(
            f"no Wasserstein distance has order {p} or {projections} directions; give p and projections of 1 or more"
        )
    theta = np.random.default_rng(seed).standard_normal((projections, x.shape[1]))
    theta /= np.linalg.norm(theta, axis=1, keepdims=True)
    a, b = np.sort(x @ theta.T, axis=0), np.sort(y @ theta.T, axis=0)
    n, m = len(a), len(b)
    # Quantiles at which either sample has a step, in units of 1/(n·m): between two of them both stand still.
    steps = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    share = np.diff(steps, prepend=0) / (n * m)
    gap = np.abs(a[(steps - 1) // m] - b[(steps - 1) // n])
    return float((share @ gap**p).mean() ** (1 / p))


class ToldApart(NamedTuple):
    """How well two sets of prompts are told apart; nan where there is one prompt a set."""

    accuracy: float
    auc: float
    control: float
    p: float
    prompts: int


def told_apart(prior: ArrayLike, posterior: ArrayLike, seed: int = 0) -> ToldApart:
    """Classifier two-sample test (Lopez-Paz and Oquab 2017, ICLR) between (n, P, d) and (n, P, d).

    Prompt i of both sets is left out, a classifier is trained on the vectors of the others and judges its 2·P vectors:
    so neither a prompt's own vectors nor what it grew from stand in training and test at once. The classifier (ours)
    is ridge regression onto ±1 with a Gaussian kernel whose width is the median distance: it sees a shift as logistic
    regression does, and a change of spread, which that does not; neighbours in high dimension see neither (hubness).
    Its answers are linear in the labels, so leaving out and shuffling are exact and cost one matrix product.

    p: labels are exchanged within pairs of prompts, as whole prompts, since the vectors of one are not independent:
    all 2^(n−1) ways, or 999 drawn with `seed` (then p counts the given one too; Phipson and Smyth 2010). The control is
    the mean accuracy of those ways. Sets above 1,000 vectors are thinned to as many prompts as fit, drawn with `seed`.
    """
    x, y = _sets(prior, posterior)
    n, count = x.shape[:2]
    if n > (most := max(2, _VECTORS // count)):
        kept = np.sort(np.random.default_rng(seed).choice(n, most, replace=False))
        x, y, n = x[kept], y[kept], most
    if n < 2:
        return ToldApart(math.nan, math.nan, math.nan, math.nan, n)
    answer = _left_out_answers(np.concatenate([x, y], axis=1))
    truth = np.repeat(_swaps(n, seed), count, axis=1).reshape(-1, 2 * n * count)
    scores = truth @ answer.T
    scores[np.abs(scores) < 1e-9] = 0  # rounding must not tell twins apart: an answer of 0 is half right
    right = (1 + np.sign(scores) * truth).mean(1) / 2
    auc = _auc(scores[0], truth[0] > 0)
    return ToldApart(float(right[0]), auc, float(right[1:].mean()), _p(right), n)


def compare_sets(prior: ArrayLike, posterior: ArrayLike, seed: int = 0) -> dict[str, float]:
    """All of `COMPARISONS` between n prompts of P vectors before training and the same n after: (n, P, d) both.

    Prompt i of `posterior` is taken to have grown from prompt i of `prior`; unrelated draws do no harm. With one prompt
    a set nothing can be left out or shuffled, and what rests on that is nan.
    """
    x, y = _sets(prior, posterior)
    n, width = len(x), x.shape[2]
    told = told_apart(x, y, seed)
    flat = x.reshape(-1, width), y.reshape(-1, width)
    return {
        "energy_distance": energy_distance(*flat),
        "energy_coefficient": energy_coefficient(*flat),
        "energy_p": _energy_p(x, y, seed),
        "sliced_wasserstein": sliced_wasserstein(*flat, seed=seed),
        "told_apart": told.accuracy,
        "told_apart_auc": told.auc,
        "told_apart_control": told.control,
        "told_apart_p": told.p,
        "least_p": 1 / len(_swaps(n, seed)),
        "prompts": told.prompts,
    }


def _samples(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    """Both as float64, about their common mean: distances are the same, and more exact."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not x.size or not y.size:
        raise WorkbenchError(
            f"samples of shape {x.shape} and {y.shape} cannot be compared; give (n, d) and (m, d)"
        )
    _check_finite(x, y)
    mean = (x.sum(0) + y.sum(0)) / (len(x) + len(y))
    return x - mean, y - mean


def _sets(prior: ArrayLike, posterior: ArrayLike) -> tuple[Floats, Floats]:
    x, y = np.asarray(prior, np.float64), np.asarray(posterior, np.float64)
    if x.ndim != 3 or x.shape != y.shape or not x.size:
        raise WorkbenchError(
            f"prompts of shape {x.shape} and {y.shape} cannot be compared; give as many of the prior as of the "
            "posterior, both (prompts, vectors, width)"
        )
    _check_finite(x, y)
    return x, y


def _check_finite(x: Floats, y: Floats) -> None:
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise WorkbenchError("the vectors to compare are not all finite; leave out the run that diverged")


def _squared_distances(x: Floats, y: Floats) -> Floats:
    """(n, m) squared Euclidean distances; what is zero but for rounding is zero."""
    lengths = np.square(x).sum(1)[:, None] + np.square(y).sum(1)
    squared = lengths - 2 * (x @ y.T)
    squared[squared < 64 * np.finfo(np.float64).eps * lengths] = 0
    return squared


def _mean_distance(x: Floats, y: Floats) -> float:
    step = max(1, _CELLS // len(y))
    total = sum(np.sqrt(_squared_distances(x[at : at + step], y)).sum() for at in range(0, len(x), step))
    return float(total) / (len(x) * len(y))


def _energy(x: Floats, y: Floats) -> tuple[float, float]:
    """The squared energy distance, and E|X−Y|."""
    between = _mean_distance(x, y)
    return max(0.0, 2 * between - _mean_distance(x, x) - _mean_distance(y, y)), between


def _energy_p(x: Floats, y: Floats, seed: int) -> float:
    """p of the energy distance, labels exchanged within pairs of prompts; nan for one pair."""
    n, count, width = x.shape
    if n < 2:
        return math.nan
    flat = np.concatenate([x, y], axis=1).reshape(-1, width)
    flat -= flat.mean(0)
    table = np.zeros((2 * n, 2 * n))  # summed distances between prompts: x₁, y₁, x₂, y₂, …
    for i in range(2 * n):
        row = np.sqrt(_squared_distances(flat[i * count : (i + 1) * count], flat))
        table[i] = row.reshape(count, 2 * n, count).sum((0, 2))
    signs = _swaps(n, seed)
    return _p(-((signs @ table) * signs).sum(1) / max(table.sum(), 1e-300))


def _swaps(n: int, seed: int) -> Floats:
    """(s, 2·n) labels ±1 of x₁, y₁, x₂, y₂, …: the true ones first, then others with pairs exchanged.

    Exchanging all pairs changes no measure, so the first is never exchanged.
    """
    if 2 ** (n - 1) <= _SHUFFLES + 1:
        flips = (np.arange(2 ** (n - 1))[:, None] >> np.arange(n - 1)) & 1
    else:
        flips = np.random.default_rng(seed).integers(0, 2, (_SHUFFLES + 1, n - 1))
        flips[0] = 0
    first = np.concatenate([np.zeros((len(flips), 1), np.int64), flips], axis=1) * 2.0 - 1
    return np.stack([first, -first], axis=2).reshape(len(flips), 2 * n)


def _p(statistics: Floats) -> float:
    """The share of the statistics that are as large as the first, itself among them; but for rounding."""
    return float((statistics >= statistics[0] - 1e-12).mean())


def _left_out_answers(pairs: Floats) -> Floats:
    """(N, N): row i times the labels is what a classifier that has not read pair (i) answers for vector i.

    pairs: (n, 2·P, d), N = n·2·P. Kernel ridge regression answers H·y, H = K·(K + λ)⁻¹; without the pair g the answer
    there is (I − H_gg)⁻¹·H_g,rest·y_rest, the leave-out formula of least squares for a block.
    """
    n, size, width = pairs.shape
    flat = pairs.reshape(-1, width)
    squared = _squared_distances(flat - flat.mean(0), flat - flat.mean(0))
    median = float(np.median(squared[np.triu_indices(len(squared), 1)])) or float(squared.mean()) or 1.0
    kernel = np.exp(-squared / (2 * median)) + 1  # the 1 is the intercept
    smooth = np.linalg.solve(kernel + _RIDGE * np.eye(len(kernel)), kernel).T
    answer = smooth.copy()
    for i in range(n):
        own = slice(i * size, (i + 1) * size)
        answer[own, own] = 0
        answer[own] = np.linalg.solve(np.eye(size) - smooth[own, own], answer[own])
    return answer


def _auc(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """P(score of a positive > score of a negative), ties counting half (Mann and Whitney 1947)."""
    gap = scores[positive][:, None] - scores[~positive]
    return float(((gap > 0) + 0.5 * (gap == 0)).mean())

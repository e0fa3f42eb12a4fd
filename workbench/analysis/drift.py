"""Where a prompt's vectors go while they are trained: one registry of measures, and the table of a whole run.

    MEASURES          name -> Measure, a pure function of a Trail (the vectors of one place at every snapshot, and what
                      they may be compared with); says its label, unit, whether it is one number a vector or a prompt
    measure_run       every measure that what was given allows, at every place, as one table
    nearest_tokens    the tokens that vectors are nearest to, with their words
    compare_places    the prior's draws against the posterior's, place by place (`two_samples.py`)
    prior_spread, density    what a prior brings: the unit of a movement, and its density on arrays

Arrays in, tables out. It reads no run, trains nothing and never draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from workbench.analysis.reference import Metric, Nearest, Reference, cosine
from workbench.analysis.two_samples import COMPARISONS, compare_sets
from workbench.errors import WorkbenchError, unknown

if TYPE_CHECKING:
    from workbench.methods.priors.prior import Distribution

__all__ = [
    "COMPARISONS",
    "INPUT",
    "MEASURES",
    "Measure",
    "Trail",
    "compare_places",
    "compare_sets",
    "density",
    "displacement",
    "measure_run",
    "nearest_tokens",
    "prior_spread",
    "rows",
]

Floats = NDArray[np.float64]
LogProb = Callable[[Floats], ArrayLike]
Per = Literal["vector", "prompt"]
Need = Literal["reference", "spread", "log_prob"]

INPUT = "embeddings"
"""The place whose vectors stand among the token embeddings, as methods call it in their snapshots."""


@dataclass(frozen=True, eq=False)
class Trail:
    """The vectors of one place at every snapshot, and what they may be measured against: what a measure reads.

    Shapes: S snapshots, P vectors, width d.
    """

    vectors: Floats
    """(S, P, d), the snapshots in order, the first being the start; nan where training diverged, and so are measures."""
    reference: Reference | None = None
    """What fills that space: token embeddings, or activations of that layer."""
    spread: float | None = None
    """The prior's own spread, see `prior_spread`."""
    log_prob: LogProb | None = None
    """The prior's density there: (n, d) to (n,), in nats."""

    @cached_property
    def moved(self) -> Floats:
        """(S, P) distance from the start."""
        return displacement(self.vectors[:1], self.vectors)

    @cached_property
    def path(self) -> Floats:
        """(S, P) length of the way so far, straight from snapshot to snapshot."""
        steps = np.linalg.norm(np.diff(self.vectors, axis=0), axis=-1)
        return np.concatenate([np.zeros((1, *steps.shape[1:])), steps.cumsum(0)])

    @cached_property
    def token(self) -> Nearest:
        """(S, P) each: the nearest row of the reference, and its distance."""
        return self._nearest("euclidean")

    @cached_property
    def aligned(self) -> Nearest:
        """(S, P) each: the row of the reference in the most similar direction, and 1 - cosine."""
        return self._nearest("cosine")

    @cached_property
    def log_density(self) -> Floats:
        """(S, P) log density under the prior, in nats."""
        assert self.log_prob is not None
        found = np.asarray(self.log_prob(self._flat), np.float64)
        if found.size != len(self._flat):
            raise WorkbenchError(
                f"the log density of {len(self._flat)} vectors came as {found.shape}; give one number a vector"
            )
        return found.reshape(self.vectors.shape[:2])

    @property
    def _flat(self) -> Floats:
        return self.vectors.reshape(-1, self.vectors.shape[-1])

    def _nearest(self, metric: Metric) -> Nearest:
        assert self.reference is not None
        found = self.reference.nearest(self._flat, 1, metric)
        shape = self.vectors.shape[:2]
        return Nearest(found.row.reshape(shape), found.distance.reshape(shape))


@dataclass(frozen=True)
class Measure:
    """A function of a `Trail`, with what an axis and a table say of it. Call it with the trail."""

    function: Callable[[Trail], Floats]
    """Gives (S, P) where it is one number a vector, (S,) where it is one a prompt."""
    label: str
    unit: str
    """For an axis; "" where there is none."""
    per: Per
    needs: tuple[Need, ...]
    """What the trail must have beside its vectors."""

    def __call__(self, trail: Trail) -> Floats:
        return self.function(trail)

    @property
    def explain(self) -> str:
        """What it is, in one sentence."""
        return " ".join((self.function.__doc__ or "").split("\n\n")[0].split())

    def fits(self, trail: Trail) -> bool:
        """Whether the trail has what it needs; a spread of nan is none."""
        given = [getattr(trail, need) for need in self.needs]
        return not any(thing is None or thing != thing for thing in given)


MEASURES: dict[str, Measure] = {}
"""Every measure by its name, in the order in which tables and menus show them."""

_Function = Callable[[Trail], Floats]


def measure(label: str, unit: str, per: Per, *needs: Need) -> Callable[[_Function], _Function]:
    """Puts a function of a trail into `MEASURES`, under its own name."""

    def add(function: _Function) -> _Function:
        MEASURES[function.__name__] = Measure(function, label, unit, per, needs)
        return function

    return add


@measure("moved", "the vectors' own unit", "vector")
def moved(trail: Trail) -> Floats:
    """Euclidean distance from where the vector started."""
    return trail.moved


@measure("moved, in spreads of the prior", "spreads of the prior", "vector", "spread")
def moved_in_spreads(trail: Trail) -> Floats:
    """Distance from the start over the rms distance of the prior's draws from their mean.

    Ours. For N(μ, Σ) the unit is √tr Σ, which two draws differ by √2 of.
    """
    assert trail.spread is not None
    return trail.moved / (trail.spread or np.nan)


@measure("cosine to the start", "", "vector")
def cosine_to_start(trail: Trail) -> Floats:
    """Cosine between the vector and where it started: 1 for the same direction, whatever the length."""
    return cosine(trail.vectors, trail.vectors[:1])


@measure("path length", "the vectors' own unit", "vector")
def path_length(trail: Trail) -> Floats:
    """Length of the way so far, straight from snapshot to snapshot.

    A lower bound of the way through all training steps; snapshots taken more often see more of it.
    """
    return trail.path


@measure("straightness", "distance moved / path length", "vector")
def straightness(trail: Trail) -> Floats:
    """Distance from the start over path length: 1 for a straight way, towards 0 for one that wanders or returns.

    Known as the straightness index (Batschelet 1981, Circular Statistics in Biology); nan before the first movement.
    """
    straight = np.minimum(trail.moved, trail.path)  # rounding may make the way the shorter one
    return np.divide(straight, trail.path, out=np.full_like(trail.path, np.nan), where=trail.path > 0)


@measure("distance to the nearest token", "the vectors' own unit", "vector", "reference")
def nearest_distance(trail: Trail) -> Floats:
    """Euclidean distance to the nearest token's embedding, of all there are."""
    return trail.token.distance


@measure("distance to the nearest token, in spacings", "spacings of the vocabulary", "vector", "reference")
def nearest_in_spacings(trail: Trail) -> Floats:
    """Distance to the nearest token over the mean distance of a token to its own nearest other.

    Ours; see `Reference.spacing`. About 1: as far as tokens are from one another.
    """
    assert trail.reference is not None
    return trail.token.distance / trail.reference.spacing


@measure("cosine to the most similar token", "", "vector", "reference")
def nearest_cosine(trail: Trail) -> Floats:
    """The largest cosine with any token's embedding."""
    return 1 - trail.aligned.distance


@measure("log density under the prior", "nats", "vector", "log_prob")
def log_density(trail: Trail) -> Floats:
    """Log density of the vector under the prior it was drawn from; -inf where the prior has none."""
    return trail.log_density


@measure("log density a dimension", "nats a dimension", "vector", "log_prob")
def log_density_per_dimension(trail: Trail) -> Floats:
    """Log density under the prior over the vector's width, so that models of different width can be compared."""
    return trail.log_density / trail.vectors.shape[-1]


@measure("mean cosine between vectors", "", "prompt")
def mean_cosine(trail: Trail) -> Floats:
    """Mean cosine over all pairs of different vectors of the prompt: 1 where all point one way.

    The anisotropy of Ethayarajh 2019 (EMNLP), within a prompt. nan for one vector, or where one is zero.
    """
    lengths = np.linalg.norm(trail.vectors, axis=-1, keepdims=True)
    unit = np.divide(trail.vectors, lengths, out=np.full_like(trail.vectors, np.nan), where=lengths > 0)
    count = unit.shape[1]
    if count < 2:
        return np.full(len(unit), np.nan)
    return (np.square(unit.sum(1)).sum(-1) - count) / (count * (count - 1))  # |Σu|² = P + Σ over pairs


@measure("effective rank", "directions", "prompt")
def effective_rank(trail: Trail) -> Floats:
    """Exponential of the entropy of the singular values, as shares of their sum: how many directions are in use.

    Roy and Vetterli 2007 (EUSIPCO), definition 1, of the (P, d) matrix of the prompt, uncentred: from 1, where all
    vectors lie on one line through the origin, to min(P, d). nan where all are zero.
    """
    broken = np.isnan(trail.vectors).any((1, 2), keepdims=True)
    values = np.linalg.svd(np.where(broken, 0, trail.vectors), compute_uv=False)
    total = values.sum(-1, keepdims=True)
    share = np.divide(values, total, out=np.full_like(values, np.nan), where=total > 0)
    logs = np.log(share, out=np.zeros_like(share), where=~(share <= 0))
    return np.exp(-(share * logs).sum(-1))


@measure("share of vectors with a shared token", "share of vectors", "prompt", "reference")
def shared_token(trail: Trail) -> Floats:
    """Share of the prompt's vectors whose nearest token is the nearest of another vector too.

    Ours: 0 where each has a token of its own, 1 where none has. Nearest in Euclidean distance.
    """
    tokens = np.sort(trail.token.row, axis=1)
    same = tokens[:, 1:] == tokens[:, :-1]
    none = np.zeros((len(tokens), 1), bool)
    shared = (np.concatenate([none, same], axis=1) | np.concatenate([same, none], axis=1)).mean(1)
    return np.where(np.isnan(trail.token.distance).any(1), np.nan, shared)


#: Measures that are about one token, and where a trail keeps it.
_NAMED = {"nearest_distance": "token", "nearest_in_spacings": "token", "nearest_cosine": "aligned"}


def measure_run(
    snapshots: Mapping[int, Mapping[str, ArrayLike]],
    vocabulary: Mapping[str, ArrayLike | Reference] | ArrayLike | Reference | None = None,
    words: Sequence[str] | None = None,
    log_prob: Mapping[str, LogProb] | None = None,
    spread: Mapping[str, float] | None = None,
    measures: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Measures of every place at every snapshot of one run; a measure that lacks what it needs is left out.

    Args:
        snapshots: step to what `Run.snapshot` gives, place to (P, d). The first step is the start. A tensor that is no
            matrix counts as one vector, as in `rows`.
        vocabulary: what vectors are near to: token embeddings (V, d), for the place `INPUT` alone, or a table for each
            place that has one, such as activations of that layer. A `Reference` is measured only once when it is used
            again.
        words: V words of the token embeddings, as a person reads them.
        log_prob: place to the prior's density there, (n, d) to (n,); see `density`.
        spread: place to the prior's own spread there; see `prior_spread`.
        measures: names in `MEASURES`; None for all.

    Returns:
        step, place, vector (from 1; 0 where a number is the whole prompt's), measure, value, word (of the nearest
        token, where the number is about one and words were given, else ""). In the order of measures, steps, vectors.

    Raises:
        WorkbenchError: an unknown measure, a place that snapshots do not share or whose shape changes, or words or
            tables that do not fit.

    >>> measure_run({0: {"embeddings": [[0.0, 0.0]]}, 5: {"embeddings": [[3.0, 4.0]]}}, measures=["moved"]).value[1]
    5.0
    """
    chosen = list(MEASURES) if measures is None else list(measures)
    for name in chosen:
        if name not in MEASURES:
            raise unknown("measure", name, MEASURES)
    steps = sorted(snapshots)
    references = _references(vocabulary, words)
    tables = []
    for place, vectors in _trails(snapshots, steps).items():
        trail = Trail(vectors, references.get(place), (spread or {}).get(place), (log_prob or {}).get(place))
        for name in chosen:
            if not MEASURES[name].fits(trail):
                continue
            value = MEASURES[name](trail).reshape(len(steps), -1)
            whole = MEASURES[name].per == "prompt"
            count = value.shape[1]
            word: ArrayLike = ""
            if words is not None and place == INPUT and name in _NAMED:
                named: Nearest = getattr(trail, _NAMED[name])
                word = np.where(np.isnan(named.distance), "", np.asarray(words, object)[named.row]).ravel()
            tables.append(
                pd.DataFrame(
                    {
                        "step": np.repeat(steps, count),
                        "place": place,
                        "vector": np.tile(np.arange(count) + (not whole), len(steps)),
                        "measure": name,
                        "value": value.ravel(),
                        "word": word,
                    }
                )
            )
    if not tables:
        return pd.DataFrame(columns=["step", "place", "vector", "measure", "value", "word"])
    return pd.concat(tables, ignore_index=True)


def nearest_tokens(
    vectors: ArrayLike,
    vocabulary: ArrayLike | Reference,
    words: Sequence[str],
    k: int = 5,
    metric: Metric = "euclidean",
) -> pd.DataFrame:
    """The k tokens nearest to each of (n, d) vectors, of all V, exactly; see `Reference.nearest`.

    Returns:
        vector (from 1), rank (from 1), token (its row, from 0), word, distance (Euclidean, or 1 - cosine).
    """
    reference = _reference(vocabulary, words)
    found = reference.nearest(vectors, k, metric)
    n, k = found.row.shape
    return pd.DataFrame(
        {
            "vector": np.repeat(np.arange(1, n + 1), k),
            "rank": np.tile(np.arange(1, k + 1), n),
            "token": found.row.ravel(),
            "word": np.asarray(words, object)[found.row.ravel()],
            "distance": found.distance.ravel(),
        }
    )


def compare_places(
    prior: Mapping[str, ArrayLike], posterior: Mapping[str, ArrayLike], seed: int = 0
) -> pd.DataFrame:
    """`compare_sets` at each place, (n, P, d) before and (n, P, d) after: place, measure (of `COMPARISONS`), value."""
    if set(prior) != set(posterior):
        raise WorkbenchError(
            f"the prior stands at {sorted(prior)} and the posterior at {sorted(posterior)}; give the same places"
        )
    found = [
        {"place": place, "measure": name, "value": value}
        for place in prior
        for name, value in compare_sets(prior[place], posterior[place], seed).items()
    ]
    return pd.DataFrame(found, columns=["place", "measure", "value"])


def displacement(start: ArrayLike, now: ArrayLike) -> Floats:
    """(…, P, d) twice to (…, P): the Euclidean distance of each vector from where it started.

    >>> displacement([[0.0, 0.0]], [[3.0, 4.0]])
    array([5.])
    """
    return np.asarray(np.linalg.norm(np.asarray(now, np.float64) - np.asarray(start, np.float64), axis=-1))


def prior_spread(draws: ArrayLike) -> float:
    """The rms distance of a prior's draws (n, d) from their mean, √tr Σ (divided by n - 1); ours, as a unit of movement.

    For N(0, σ²·I) it is σ·√d. nan for a single draw.
    """
    draws = np.asarray(draws, np.float64)
    if draws.ndim != 2 or len(draws) < 2:
        return float("nan")
    return float(np.sqrt(draws.var(0, ddof=1).sum()))


def density(prior: Distribution) -> LogProb | None:
    """The prior's log density as a function of arrays, (…, d) to (…) in float64; None where it has none."""
    if not prior.has_log_prob:
        return None
    import torch

    def log_prob(vectors: Floats) -> Floats:
        with torch.no_grad():
            found: Floats = prior.log_prob(torch.as_tensor(np.asarray(vectors, np.float64))).numpy()
        return found

    return log_prob


def rows(tensor: ArrayLike) -> Floats:
    """What a snapshot holds, as vectors (P, d) float64: a matrix as it is, a tensor of another rank as one vector."""
    array = np.asarray(tensor, np.float64)
    return array if array.ndim == 2 else array.reshape(1, -1)


def _trails(snapshots: Mapping[int, Mapping[str, ArrayLike]], steps: list[int]) -> dict[str, Floats]:
    """Place to (S, P, d)."""
    found = {}
    for place in snapshots[steps[0]] if steps else ():
        for step in steps:
            if set(snapshots[step]) != set(snapshots[steps[0]]):
                raise WorkbenchError(
                    f"the snapshots of steps {steps[0]} and {step} hold different places; give those of one run"
                )
        each = [rows(snapshots[step][place]) for step in steps]
        for step, vectors in zip(steps, each, strict=True):
            if vectors.shape != each[0].shape:
                raise WorkbenchError(
                    f"{place} is {each[0].shape} at step {steps[0]} and {vectors.shape} at step {step}; "
                    "give the snapshots of one run"
                )
        way = np.stack(each)
        found[place] = np.where(np.isfinite(way), way, np.nan)  # the inf of a diverged run is no place either
    return found


def _references(
    given: Mapping[str, ArrayLike | Reference] | ArrayLike | Reference | None, words: Sequence[str] | None
) -> dict[str, Reference]:
    """Place to what is measured against there."""
    if given is None:
        return {}
    places = given if isinstance(given, Mapping) else {INPUT: given}
    return {place: _reference(table, words if place == INPUT else None) for place, table in places.items()}


def _reference(given: ArrayLike | Reference, words: Sequence[str] | None) -> Reference:
    reference = given if isinstance(given, Reference) else Reference(given)
    if words is not None and len(words) != len(reference):
        raise WorkbenchError(
            f"{len(words)} words were given for a vocabulary of {len(reference)} tokens; give one word a token"
        )
    return reference

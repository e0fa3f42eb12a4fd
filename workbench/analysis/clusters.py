"""Whether texts of one task lie together in a layer, in numbers beside the picture; what layers have in common.

    MEASURES            name -> Measure, a pure function of a Cloud (the rows of one layer, their texts and tasks)
    measure_layers      every measure of every layer, with its interval and what shuffled labels give, as one table
    compare_layers      centred kernel alignment of every two layers

Rows of one text are never compared with one another, nor in training and test at once: that they are alike says nothing
of their task. With one row a text, silhouette and purity are the usual ones. Intervals come from half-samples of texts
(`half_samples.py`). Arrays in, tables out. It runs no model and never draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from workbench.analysis.half_samples import Interval, half_samples, interval
from workbench.errors import WorkbenchError, unknown

__all__ = ["MEASURES", "Cloud", "Measure", "compare_layers", "measure_layers"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Rows that a table is made of: of more, as many are drawn. Distances are kept for each two of them.
ROWS = 2000
#: Rows that layers are compared by: a matrix of each two of them is kept for every layer.
COMPARED = 1000
#: Times that tasks are handed out to texts at random.
SHUFFLES = 99

_FOLDS = 5
_RIDGE = 0.01  # of the number of rows: as noise of a hundredth of each direction's variance would shrink
_KEPT = 0.9  # of the ratios of distances: the largest tenth is left out of the fit, as in the paper
_NEAR = 64  # nearest rows of each that are kept, so that enough of them are in any half
_DENSE = 5  # neighbours that a dense place has, HDBSCAN's min_samples


@dataclass(frozen=True, eq=False)
class Cloud:
    """The rows of one layer with their texts and tasks: what a measure reads. n rows, width d, G texts, K tasks."""

    vectors: Floats
    """(n, d)"""
    text: Ints
    """(n,) the text of each row, from 0 to G - 1."""
    task: Ints
    """(G,) the task of each text, from 0 to K - 1."""
    neighbours: int = 10
    seed: int = 0

    @cached_property
    def sizes(self) -> Floats:
        """(G,) rows of each text."""
        return np.bincount(self.text, minlength=len(self.task)).astype(np.float64)

    @cached_property
    def distances(self) -> Floats:
        """(n, n) Euclidean; what is zero but for rounding is zero."""
        from sklearn.metrics import pairwise_distances

        centred = self.vectors - self.vectors.mean(0)
        found = np.asarray(pairwise_distances(centred))
        lengths = np.square(centred).sum(1)
        found[np.square(found) < 64 * np.finfo(np.float64).eps * (lengths[:, None] + lengths)] = 0
        return found

    @cached_property
    def foreign(self) -> Floats:
        """(n, n) the same, infinite between rows of one text."""
        return np.where(self.text[:, None] == self.text, np.inf, self.distances)

    @cached_property
    def to_texts(self) -> Floats:
        """(n, G) summed distances from a row to the rows of a text; 0 to its own."""
        found = self._by_text(self.distances.T).T
        found[np.arange(len(found)), self.text] = 0
        return found

    @cached_property
    def between_texts(self) -> Floats:
        """(G, G) summed distances between the rows of two texts; 0 within one."""
        return self._by_text(self.to_texts)

    @cached_property
    def near(self) -> tuple[Ints, Floats]:
        """(n, m) each: the nearest rows of other texts, the nearest first, and their distances; infinite is none."""
        return self._near(self.foreign)

    @cached_property
    def near_distinct(self) -> tuple[Ints, Floats]:
        """The same among distinct rows: the first of copies stands for all of them, and is no neighbour of theirs."""
        copy = (self.distances == 0).argmax(1) < np.arange(len(self.text))
        return self._near(np.where(copy | (self.distances == 0) | copy[:, None], np.inf, self.foreign))

    @cached_property
    def dense(self) -> Ints:
        """(n,) clusters that HDBSCAN finds, -1 for rows of none; it is not told texts or tasks."""
        from sklearn.cluster import HDBSCAN

        least = max(_DENSE, len(self.text) // 20)
        dense = min(_DENSE, len(self.text))
        found = HDBSCAN(min_cluster_size=least, min_samples=dense, metric="precomputed", copy=True)
        return np.asarray(found.fit_predict(self.distances), np.int64)

    @cached_property
    def folds(self) -> Ints:
        """(G,) the fold of each text: texts of a task are dealt out to folds in random order, as evenly as they can."""
        dice, fold = np.random.default_rng(self.seed), np.zeros(len(self.task), np.int64)
        count = min(_FOLDS, int(np.bincount(self.task).min()))
        for task in np.unique(self.task):
            own = np.flatnonzero(self.task == task)
            fold[dice.permutation(own)] = np.arange(len(own)) % count
        return fold

    def shuffled(self, times: int) -> Ints:
        """(times, G) tasks handed out to whole texts at random, as many of each in every fold as there are."""
        dice, found = np.random.default_rng(self.seed), np.tile(self.task, (times, 1))
        for fold in np.unique(self.folds):
            own = np.flatnonzero(self.folds == fold)
            found[:, own] = dice.permuted(found[:, own], axis=1)
        return found

    def _near(self, distances: Floats) -> tuple[Ints, Floats]:
        m = min(len(self.text) - 1, max(_NEAR, 4 * self.neighbours))
        row = np.argpartition(distances, m - 1, axis=1)[:, :m]
        distance = np.take_along_axis(distances, row, 1)
        order = np.lexsort((row, distance), axis=1)
        return np.take_along_axis(row, order, 1), np.take_along_axis(distance, order, 1)

    def _by_text(self, rows: Floats) -> Floats:
        """(n, m) to (G, m): sums over the rows of each text."""
        order = np.argsort(self.text, kind="stable")
        starts = np.concatenate([[0], self.sizes.cumsum()[:-1].astype(np.int64)])
        return np.add.reduceat(rows[order], starts, axis=0)


_Function = Callable[[Cloud, Ints, Floats], Floats]


@dataclass(frozen=True)
class Measure:
    """A function of a `Cloud`, with what an axis and a table say of it."""

    function: _Function
    """Of a cloud, s ways (s, G) of giving tasks to texts, and b parts (b, G) of its texts, 1 or 0: (s, b)."""
    label: str
    unit: str
    """For an axis; "" where there is none."""
    tasks: bool
    """Whether it asks about tasks, so that shuffled ones are a control."""
    trained: bool
    """Whether something is trained, and so would come out otherwise with other texts."""
    share: bool
    """Whether it is a share, which is no surer than the number of texts allows even where it is 0 or 1."""

    def __call__(self, cloud: Cloud) -> float:
        return float(self.function(cloud, cloud.task[None], np.ones((1, len(cloud.task))))[0, 0])

    @property
    def explain(self) -> str:
        """What it is, in one sentence."""
        return " ".join((self.function.__doc__ or "").split("\n\n")[0].split())


MEASURES: dict[str, Measure] = {}
"""Every measure by its name, in the order in which tables and menus show them."""


def measure(
    label: str, unit: str = "", tasks: bool = True, trained: bool = False, share: bool = False
) -> Callable[[_Function], _Function]:
    """Puts a function of a cloud into `MEASURES`, under its own name."""

    def add(function: _Function) -> _Function:
        MEASURES[function.__name__] = Measure(function, label, unit, tasks, trained, share)
        return function

    return add


@measure("silhouette by task")
def silhouette(cloud: Cloud, tasks: Ints, parts: Floats) -> Floats:
    """How much nearer rows lie to other texts of their task than to the next task's, from -1 to 1; 0: no nearer.

    Rousseeuw 1987 (J. Comput. Appl. Math. 20:53), (b - a) / max(a, b), mean of rows; ours: without a row's own text.
    """
    found, each = [], np.arange(len(cloud.text))
    for chosen in _chosen(tasks, parts):  # (G, b, K)
        count = (
            np.einsum("g,gbk->bk", cloud.sizes, chosen)
            - cloud.sizes[cloud.text, None, None] * chosen[cloud.text]
        )
        total = (cloud.to_texts @ chosen.reshape(len(chosen), -1)).reshape(count.shape)
        mean = _over(total, count)
        own = chosen[cloud.text].any(1).argmax(-1)
        within = mean[each, :, own].copy()
        mean[each, :, own] = np.inf
        next_task = np.where(np.isnan(mean), np.inf, mean).min(-1)
        value = _over(next_task - within, np.maximum(next_task, within), empty=0.0)
        weight = np.where(np.isfinite(within + next_task), chosen[cloud.text, :, own], 0)
        found.append(_over((np.where(weight > 0, value, 0) * weight).sum(0), weight.sum(0)))
    return np.array(found)


@measure("purity of the nearest neighbours", "share of neighbours", share=True)
def purity(cloud: Cloud, tasks: Ints, parts: Floats) -> Floats:
    """Share of a row's nearest neighbours in other texts that are of its task, mean of rows.

    In a half they are looked for anew, among the nearest of all that are in it.
    """
    row, distance = cloud.near
    found = np.zeros((len(tasks), len(parts)))
    same = tasks[:, cloud.text[row]] == tasks[:, cloud.text, None]  # (s, n, m)
    for at, part in enumerate(parts):
        there = (part[cloud.text[row]] > 0) & np.isfinite(distance)
        there &= there.cumsum(1) <= cloud.neighbours
        count = there.sum(1)
        share = _over((same & there).sum(2), count[None], empty=0.0)
        weight = part[cloud.text] * (count > 0)
        found[:, at] = _over(share @ weight, weight.sum())
    return found


@measure("accuracy of a linear probe", "balanced accuracy", trained=True, share=True)
def probe(cloud: Cloud, tasks: Ints, parts: Floats) -> Floats:
    """Share of rows whose task a linear classifier tells that has not seen their text, mean of tasks.

    Ridge regression onto indicators of tasks, of standardised rows weighed so that tasks count alike, in folds of texts
    (ours). What it says of rows is kept, and counted in each half; for the training that is not repeated there, the
    interval's variance is multiplied by 1 + k/(k - 1) for k folds (Nadeau and Bengio 2003, Machine Learning 52:239).
    """
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    count, kinds = len(tasks), int(tasks.max()) + 1
    weight = 1 / np.bincount(cloud.task[cloud.text], minlength=kinds)[cloud.task[cloud.text]]
    truth = tasks[:, cloud.text].T  # (n, s)
    right = np.zeros((len(cloud.text), count))
    for fold in np.unique(cloud.folds):
        out = cloud.folds[cloud.text] == fold
        scale = StandardScaler().fit(cloud.vectors[~out])
        seen = np.eye(kinds)[truth[~out]].reshape(-1, count * kinds)
        balance = weight[~out] / weight[~out].mean()
        fitted = Ridge(alpha=_RIDGE * len(seen)).fit(scale.transform(cloud.vectors[~out]), seen, balance)
        said = fitted.predict(scale.transform(cloud.vectors[out])).reshape(-1, count, kinds).argmax(-1)
        right[out] = said == truth[out]
    counts = cloud._by_text(right).T  # (s, G)
    shares = []
    for own, chosen in zip(counts, _chosen(tasks, parts), strict=True):
        shares.append(
            _over(np.einsum("g,gbk->bk", own, chosen), np.einsum("g,gbk->bk", cloud.sizes, chosen)).mean(-1)
        )
    return np.array(shares)


@measure("agreement of HDBSCAN with tasks", "adjusted mutual information")
def hdbscan(cloud: Cloud, tasks: Ints, parts: Floats) -> Floats:
    """Adjusted mutual information of tasks and the clusters that HDBSCAN finds: 0 by chance, 1 for the same.

    Campello et al. 2013; Vinh et al. 2010 (JMLR 11:2837). Rows that are in no cluster count as one. Clusters are
    looked for once. Where they are texts rather than tasks, chance is above 0, and shuffled tasks say how much.
    """
    from sklearn.metrics import adjusted_mutual_info_score

    rows = parts[:, cloud.text] > 0
    if (cloud.dense == cloud.dense[0]).all():
        return np.zeros((len(tasks), len(parts)))
    return np.array(
        [
            [adjusted_mutual_info_score(way[cloud.text][part], cloud.dense[part]) for part in rows]
            for way in tasks
        ]
    )


@measure("distance between over within tasks")
def separation(cloud: Cloud, tasks: Ints, parts: Floats) -> Floats:
    """Mean distance between rows of two tasks over that between rows of two texts of one task; 1: no clusters.

    Means of tasks and of pairs of tasks, which count alike whatever their size (ours).
    """
    found = []
    pairs = np.outer(cloud.sizes, cloud.sizes)
    np.fill_diagonal(pairs, 0)
    for chosen in _chosen(tasks, parts):
        mean = _over(_blocks(cloud.between_texts, chosen), _blocks(pairs, chosen))
        within = np.trace(mean, axis1=1, axis2=2)
        kinds = mean.shape[1]
        found.append(_over((mean.sum((1, 2)) - within) / (kinds - 1), within))
    return np.array(found)


@measure("intrinsic dimension", "dimensions", tasks=False)
def dimension(cloud: Cloud, tasks: Ints, parts: Floats) -> Floats:
    """TwoNN: how many dimensions the rows fill locally, from the distances to two nearest rows of other texts.

    Facco et al. 2017 (Scientific Reports 7:12140): the slope through the origin of -log(1 - F(μ)) over log μ, μ being
    the ratio of the two distances, the largest tenth left out. Copies count as one row. Too low for more
    dimensions than about ten with so few rows, as every estimate from neighbours is.
    """
    row, distance = cloud.near_distinct
    found = []
    for part in parts:
        own = part[cloud.text] > 0
        there = (part[cloud.text[row[own]]] > 0) & np.isfinite(distance[own])
        nearest = distance[own][(there & (there.cumsum(1) <= 2)) & (there.sum(1) > 1)[:, None]].reshape(-1, 2)
        log = np.sort(np.log(nearest[:, 1] / nearest[:, 0]))
        share = np.arange(1, len(log) + 1) / max(1, len(log))
        share, log = share[share < _KEPT], log[share < _KEPT]
        found.append(_over(-(log * np.log1p(-share)).sum(), np.square(log).sum()))
    return np.tile(np.array(found, np.float64), (len(tasks), 1))


def measure_layers(
    states: Mapping[str, ArrayLike],
    tasks: Sequence[object] | ArrayLike,
    texts: Sequence[object] | ArrayLike | None = None,
    measures: Sequence[str] | None = None,
    neighbours: int = 10,
    rows: int = ROWS,
    draws: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Measures of the clusters of every layer, with intervals over texts and what shuffled tasks give.

    Args:
        states: layer to (n, d): the same n rows, each with the width of its layer.
        tasks: (n,) the task of each row.
        texts: (n,) the text that a row is of, any label; None where each is a text of its own.
        measures: names in `MEASURES`; None for all.
        neighbours: of a row, for its purity; fewer where half of a task's texts have not as many rows beside a text's own,
            since all rows that there are would be neighbours then, whatever lies where.
        rows: read at most, the same in all layers; above that as many of each task, and as many of each text as can be,
            are drawn with `seed`. Time grows with their square, memory is some of (rows, rows).
        draws: of half-samples; 0 for no intervals.
        confidence: of intervals, and of the range of what shuffled tasks give.

    Returns:
        layer, measure, value, low, high; chance, chance_low, chance_high (mean and range over `SHUFFLES` ways of handing
        out tasks to whole texts, nan where tasks are not asked about); texts, rows (how many were read). An interval is
        nan where a task has fewer than four texts, or where no half differs from another (HDBSCAN found no clusters). Near the value of no clusters at all, intervals of silhouette, purity
        and separation are wider than they need to be, as a bootstrap of pairs is; whether there are clusters at all is
        better seen by comparing with chance_high.

    Raises:
        WorkbenchError: layers of other lengths, vectors that are not finite, a text of two tasks, fewer than two tasks
            or a task of a single text, or an unknown measure.

    >>> table = measure_layers({"layer 1": vectors}, ["count", "count", "cloze", "cloze"], texts)
    """
    chosen = list(MEASURES) if measures is None else list(measures)
    for name in chosen:
        if name not in MEASURES:
            raise unknown("measure", name, MEASURES)
    if neighbours < 1:
        raise WorkbenchError(f"there are no {neighbours} nearest neighbours; give neighbours=1 or more")
    if not 0 < confidence < 1:
        raise WorkbenchError(f"confidence is {confidence}; give a share between 0 and 1, such as 0.95")
    text, task = _labels(tasks, texts)
    keep = _thinned(text, task, rows, seed)
    text, task = _renumbered(text[keep], task)
    _check_tasks(task, tasks)
    parts = np.concatenate([np.ones((1, len(task))), half_samples(task, draws, seed)])
    neighbours = min(neighbours, _in_a_half(text, task))
    table = []
    for layer, given in states.items():
        cloud = Cloud(_layer(layer, given, len(tasks))[keep].astype(np.float64), text, task, neighbours, seed)  # type: ignore[arg-type]
        shuffled = cloud.shuffled(SHUFFLES)
        for name in chosen:
            one = MEASURES[name]
            value, *halves = one.function(cloud, task[None], parts)[0]
            if one.trained:
                halves = list(value + np.sqrt(1 + _retrained(cloud)) * (np.array(halves) - value))
            sure = interval(value, halves, task, confidence)
            if one.share:
                sure = _no_surer(sure, len(task), confidence)
            elif sure.low == sure.high:
                sure = sure._replace(low=np.nan, high=np.nan)
            chance = np.full(3, np.nan)
            if one.tasks:
                by_chance = one.function(cloud, shuffled, parts[:1])[:, 0]
                tail = (1 - confidence) / 2
                chance = np.array([by_chance.mean(), *np.quantile(by_chance, [tail, 1 - tail])])
            table.append((layer, name, *sure, *chance, len(task), len(keep)))
    columns = [
        "layer",
        "measure",
        "value",
        "low",
        "high",
        "chance",
        "chance_low",
        "chance_high",
        "texts",
        "rows",
    ]
    return pd.DataFrame(table, columns=columns)


def compare_layers(
    states: Mapping[str, ArrayLike],
    texts: Sequence[object] | ArrayLike | None = None,
    tasks: Sequence[object] | ArrayLike | None = None,
    rows: int = COMPARED,
    draws: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Linear centred kernel alignment of every two layers: 1 for the same up to rotation and scale, 0 for unrelated.

    Kornblith et al. 2019 (ICML), equation 4, with the unbiased estimator of HSIC (Song et al. 2012, JMLR 13:1393,
    equation 5, as the products of U-centred matrices of Székely and Rizzo 2014), so that few rows in a wide layer do not
    look alike by chance; it may fall below 0 by chance instead. It holds rows for independent: texts of many rows that
    are alike within a text, in either layer, raise it.

    Args:
        states: layer to (n, d), the same n rows.
        texts, tasks: (n,) as in `measure_layers`; halves are drawn by task where there are tasks.
        rows: read at most, thinned as in `measure_layers`; a (rows, rows) matrix of each layer is kept.

    Returns:
        layer, other, value, low, high, texts, rows; layers in their order, each pair once, a layer with itself left out.

    Raises:
        WorkbenchError: as `measure_layers`, tasks aside; or fewer than four rows.
    """
    count = len(next(iter(states.values()))) if states else 0  # type: ignore[arg-type]
    text, task = _labels(["all"] * count if tasks is None else tasks, texts)
    keep = _thinned(text, task, rows, seed)
    text, task = _renumbered(text[keep], task)
    if len(keep) < 4:
        raise WorkbenchError(f"{len(keep)} rows are too few to compare layers by; give four or more")
    grams = []
    for layer, given in states.items():
        vectors = _layer(layer, given, count)[keep].astype(np.float64)
        vectors -= vectors.mean(0)
        vectors /= np.linalg.norm(vectors) or 1.0
        grams.append(vectors @ vectors.T)
    first, second = np.triu_indices(len(grams), 1)
    value = _alignment(grams)[first, second]
    halves = [
        _alignment([gram[np.ix_(held, held)] for gram in grams])[first, second]
        for held in (np.flatnonzero(part[text]) for part in half_samples(task, draws, seed))
        if len(held) > 3
    ]
    names = list(states)
    table = []
    for at, (one, other) in enumerate(zip(first, second, strict=True)):
        sure = interval(value[at], [half[at] for half in halves], task, confidence)
        sure = sure._replace(high=min(sure.high, 1.0)) if sure.high == sure.high else sure
        table.append((names[one], names[other], *sure, len(task), len(keep)))
    return pd.DataFrame(table, columns=["layer", "other", "value", "low", "high", "texts", "rows"])


def _alignment(grams: Sequence[Floats]) -> Floats:
    """(L, L) from L Gram matrices (n, n): the cosines of what is left of them after U-centring."""
    flat = np.stack([_u_centred(gram).ravel() for gram in grams])
    product = flat @ flat.T
    length = np.sqrt(np.diag(product))
    return _over(product, np.outer(length, length))


def _u_centred(gram: Floats) -> Floats:
    """The matrix without its diagonal, whose rows and columns then sum to zero."""
    n = len(gram)
    found = gram.copy()
    np.fill_diagonal(found, 0)
    rows = found.sum(0)
    found += rows.sum() / ((n - 1) * (n - 2)) - (rows[:, None] + rows) / (n - 2)
    np.fill_diagonal(found, 0)
    return found


def _chosen(tasks: Ints, parts: Floats) -> list[Floats]:
    """For each way of giving tasks, (G, b, K): 1 where a text is in the part and of the task."""
    kinds = int(tasks.max()) + 1
    return [np.eye(kinds)[way][:, None] * parts.T[:, :, None] for way in tasks]


def _blocks(table: Floats, chosen: Floats) -> Floats:
    """(G, G) to (b, K, K): sums of a table of texts over those chosen of two tasks; chosen (G, b, K)."""
    half = (table @ chosen.reshape(len(chosen), -1)).reshape(chosen.shape)
    return np.einsum("gbk,gbl->bkl", chosen, half)


def _over(above: ArrayLike, below: ArrayLike, empty: float = np.nan) -> Floats:
    """The quotient, `empty` where there is nothing below."""
    top, bottom = np.broadcast_arrays(np.asarray(above, np.float64), np.asarray(below, np.float64))
    return np.divide(top, bottom, out=np.full(top.shape, empty), where=bottom > 0)


def _no_surer(sure: Interval, texts: int, confidence: float) -> Interval:
    """A share of 0 or 1 of n texts is bounded as Clopper and Pearson's (1934): halves never differ from it."""
    gap = 1 - ((1 - confidence) / 2) ** (1 / texts)
    low = min(sure.low, 1 - gap) if sure.value >= 1 else max(0.0, sure.low)
    high = max(sure.high, gap) if sure.value <= 0 else min(1.0, sure.high)
    return sure if np.isnan(sure.low) else Interval(sure.value, low, high)


def _in_a_half(text: Ints, task: Ints) -> int:
    """Rows of its task that any row has beside those of its own text, in any half of the texts; at least 1."""
    sizes = np.bincount(text)
    return max(
        1, min(int((len(own) // 2 - 1) * own.min()) for own in (sizes[task == k] for k in np.unique(task)))
    )


def _retrained(cloud: Cloud) -> float:
    folds = int(cloud.folds.max()) + 1
    return folds / (folds - 1)


def _labels(tasks: object, texts: object) -> tuple[Ints, Ints]:
    """(n,) the number of each row's text, and (G,) of each text's task."""
    task = pd.factorize(np.asarray(tasks, object))[0]
    text = np.arange(len(task)) if texts is None else pd.factorize(np.asarray(texts, object))[0]
    if len(text) != len(task) or (task < 0).any() or (text < 0).any():
        raise WorkbenchError(
            f"{len(task)} tasks and {len(text)} texts were given for the rows; give one of each for every row, none empty"
        )
    of_text = np.zeros(text.max(initial=-1) + 1, np.int64)
    of_text[text] = task
    if (of_text[text] != task).any():
        name = np.asarray(texts, object)[np.flatnonzero(of_text[text] != task)[0]]
        raise WorkbenchError(
            f"the text {name!r} has rows of two tasks; give texts of different tasks different names"
        )
    return text, of_text


def _renumbered(text: Ints, task: Ints) -> tuple[Ints, Ints]:
    """Both without the texts of which no row is left."""
    left, text = np.unique(text, return_inverse=True)
    return text, task[left]


def _thinned(text: Ints, task: Ints, rows: int, seed: int) -> Ints:
    """Which rows are read, in order: all, or as many of each task, taken in turn from its texts."""
    if len(text) <= rows:
        return np.arange(len(text))
    order = np.random.default_rng(seed).permutation(len(text))
    turn = np.zeros(len(text), np.int64)
    turn[order] = pd.Series(text[order]).groupby(text[order]).cumcount()
    order = order[np.argsort(turn[order], kind="stable")]
    place = np.zeros(len(text), np.int64)  # of a row among those of its task
    place[order] = pd.Series(order).groupby(task[text[order]]).cumcount()
    return np.sort(np.flatnonzero(place < rows // len(np.unique(task))))


def _check_tasks(task: Ints, tasks: object) -> None:
    names = list(dict.fromkeys(np.asarray(tasks, object)))
    if len(names) < 2:
        raise WorkbenchError("clusters are told apart by their tasks; give rows of two tasks or more")
    few = np.flatnonzero(np.bincount(task, minlength=len(names)) < 2)
    if len(few):
        raise WorkbenchError(
            f"the task {names[few[0]]!r} has fewer than two texts, so a cluster of it could be one text; give more"
        )


def _layer(name: str, given: ArrayLike, count: int) -> NDArray[np.floating]:
    vectors = np.asarray(given)
    if vectors.ndim != 2 or len(vectors) != count:
        raise WorkbenchError(
            f"{name} has states of shape {vectors.shape}; give ({count}, width), one row a task"
        )
    if not np.isfinite(vectors).all():
        raise WorkbenchError(f"the states of {name} are not all finite; leave out the rows that are not")
    return vectors

"""Clusters by task: measures against scikit-learn and closed forms, intervals that hold what they say, no text's help."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.analysis import clusters
from workbench.analysis.clusters import MEASURES, Cloud, compare_layers, measure_layers
from workbench.analysis.half_samples import half_samples, interval
from workbench.errors import WorkbenchError

seeds = st.integers(0, 2**32 - 1)


def world(
    seed: int,
    texts: int = 12,
    rows: int = 3,
    width: int = 5,
    shift: float = 0.0,
    own: float = 1.0,
    tasks: int = 2,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows (n, d) about the centre of their text, texts about that of their task; with tasks (n,) and texts (n,)."""
    dice = np.random.default_rng(seed)
    task = np.arange(texts * tasks) % tasks
    text = np.repeat(np.arange(texts * tasks), rows)
    vectors = dice.normal(size=(len(text), width)) + own * dice.normal(size=(len(task), width))[text]
    vectors[:, 0] += shift * task[text]
    return vectors, task[text], text


def cloud(vectors: np.ndarray, task: np.ndarray, text: np.ndarray | None = None, **given: int) -> Cloud:
    """`task` is that of rows."""
    text = np.arange(len(task)) if text is None else text
    return Cloud(vectors, text, task[np.unique(text, return_index=True)[1]], **given)


def values(vectors: np.ndarray, task: object, text: object = None, **given: object) -> pd.Series:
    return measure_layers({"layer": vectors}, task, text, draws=0, **given).set_index("measure").value


def rotation(seed: int, width: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]


def covered(table: pd.DataFrame, truth: float) -> float:
    return float(((table.low <= truth) & (truth <= table.high)).mean())


# the measures


def test_silhouette_of_single_rows_is_scikit_learns() -> None:
    """Where each row is a text of its own there is nothing to leave out; three tasks of different sizes."""
    from sklearn.metrics import silhouette_score

    dice = np.random.default_rng(0)
    task = np.repeat([0, 1, 2], [10, 20, 15])
    vectors = dice.normal(size=(45, 4)) + task[:, None]
    assert MEASURES["silhouette"](cloud(vectors, task)) == pytest.approx(silhouette_score(vectors, task))


def test_purity_counts_scikit_learns_neighbours() -> None:
    """Share of the k nearest others that share the task, and no more of them than there are."""
    from sklearn.neighbors import NearestNeighbors

    vectors, task, _ = world(0, texts=20, rows=1, shift=1.0)
    near = NearestNeighbors(n_neighbors=7).fit(vectors).kneighbors(return_distance=False)
    expected = (task[near] == task[:, None]).mean()
    assert MEASURES["purity"](cloud(vectors, task, neighbours=7)) == pytest.approx(expected)
    assert MEASURES["purity"](cloud(vectors, task, neighbours=99)) == pytest.approx(19 / 39)


def test_probe_is_scikit_learns_ridge_classifier_over_the_same_folds() -> None:
    """Three tasks that count alike; each text is judged by a classifier that has not seen it."""
    from sklearn.linear_model import RidgeClassifier
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import PredefinedSplit, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    vectors, task, text = world(3, texts=10, shift=1.5, tasks=3)
    here = cloud(vectors, task, text)
    peer = make_pipeline(StandardScaler(), RidgeClassifier(alpha=0.01 * len(task) * 0.8))
    said = cross_val_predict(peer, vectors, task, cv=PredefinedSplit(here.folds[text]))
    assert MEASURES["probe"](here) == pytest.approx(balanced_accuracy_score(task, said))
    assert np.bincount(here.folds * 3 + here.task).tolist() == [2] * 15


def test_probe_lets_a_small_task_count_as_much_as_a_large_one() -> None:
    """Against scikit-learn's classifier with weights, fold by fold; without them it would hardly say the small one."""
    from sklearn.linear_model import RidgeClassifier
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.preprocessing import StandardScaler

    dice = np.random.default_rng(0)
    task = np.repeat([0, 1], [60, 10])
    vectors = dice.normal(size=(70, 3)) + task[:, None]
    here, said = cloud(vectors, task), {}
    for weights in (np.where(task == 1, 6.0, 1.0), np.ones(70)):
        found = np.zeros(70)
        for out in (here.folds == fold for fold in range(5)):
            scale = StandardScaler().fit(vectors[~out])
            weight = weights[~out] / weights[~out].mean()
            peer = RidgeClassifier(alpha=0.01 * (~out).sum())
            peer.fit(scale.transform(vectors[~out]), task[~out], weight)
            found[out] = peer.predict(scale.transform(vectors[out]))
        said[weights.max()] = balanced_accuracy_score(task, found)
    assert MEASURES["probe"](here) == pytest.approx(said[6.0])
    assert said[6.0] > said[1.0] + 0.1


def test_hdbscan_is_scikit_learns() -> None:
    """The same clusters from the vectors, and adjusted mutual information with the tasks."""
    from sklearn.cluster import HDBSCAN
    from sklearn.metrics import adjusted_mutual_info_score

    vectors, task, text = world(0, texts=20, shift=5.0, own=0.5, width=2)
    found = HDBSCAN(min_cluster_size=6, min_samples=5, copy=True).fit_predict(vectors)
    expected = adjusted_mutual_info_score(task, found)
    assert 0.1 < expected == pytest.approx(MEASURES["hdbscan"](cloud(vectors, task, text)))


def test_separation_by_hand() -> None:
    """Two texts a task on a line: between 10, 11, 9, 10, within 1 and 1."""
    vectors = np.array([[0.0], [1.0], [10.0], [11.0]])
    assert MEASURES["separation"](cloud(vectors, np.array([0, 0, 1, 1]))) == pytest.approx(10)


def test_dimension_is_the_papers_fit() -> None:
    """Facco et al.: the line through the origin, by scikit-learn, of nine tenths of the ratios."""
    from sklearn.linear_model import LinearRegression
    from sklearn.neighbors import NearestNeighbors

    vectors = np.random.default_rng(0).normal(size=(101, 4))
    distance, _ = NearestNeighbors(n_neighbors=2).fit(vectors).kneighbors()
    log = np.sort(np.log(distance[:, 1] / distance[:, 0]))[:90]
    height = -np.log(1 - np.arange(1, 91) / 101)
    slope = LinearRegression(fit_intercept=False).fit(log[:, None], height).coef_[0]
    assert MEASURES["dimension"](cloud(vectors, np.arange(101) % 2)) == pytest.approx(slope)


def test_a_plane_has_two_dimensions_wherever_it_lies() -> None:
    """In twenty dimensions, at any scale, with copies of rows among it; within three standard errors, d / √n."""
    dice = np.random.default_rng(0)
    vectors = dice.uniform(size=(1500, 2)) @ dice.normal(size=(2, 20)) * 1e-4 + 7
    task = np.arange(1500) % 2
    found = MEASURES["dimension"](cloud(vectors, task))
    assert found == pytest.approx(2, abs=3 * 1.4 * 2 / math.sqrt(1500))  # 1.4: two near rows share a distance
    copies = np.concatenate([vectors, vectors[:200]])
    assert MEASURES["dimension"](cloud(copies, np.arange(1700) % 2)) == pytest.approx(found)
    solid = dice.normal(size=(1500, 5)) @ dice.normal(size=(5, 20))
    assert 4 < MEASURES["dimension"](cloud(solid, task)) < 5.8


def test_tasks_that_are_far_apart_are_seen_by_every_measure() -> None:
    """Far Gaussians: each measure at its upper end, above whatever shuffled tasks give, and the share no surer than 24."""
    vectors, task, text = world(0, shift=40.0, own=0.2)
    table = measure_layers({"layer": vectors}, task, text, neighbours=5).set_index("measure")
    told = table.drop("dimension")
    assert (told.low.fillna(told.value) > told.chance_high).all()
    assert told.loc[["purity", "probe"]].value.tolist() == [1, 1] and table.loc["silhouette"].value > 0.9
    assert table.loc["hdbscan"].value > 0.9 and table.loc["separation"].value > 10
    assert table.loc["probe"].low == pytest.approx(0.025 ** (1 / 24)) and table.loc["probe"].high == 1
    assert table.loc["dimension", ["chance", "chance_low", "chance_high"]].isna().all()


def test_intervals_hold_chance_as_often_as_they_say() -> None:
    """Texts that cluster, tasks at random: 95% of intervals hold the value of no clusters at all, or more do.

    The tolerance is three standard errors of that share. What shuffled tasks give is centred there as well.
    """
    times, names = 60, ["silhouette", "purity", "probe", "separation"]
    tables = [
        measure_layers({"layer": vectors}, task, text, names, neighbours=5, draws=60, seed=seed)
        for seed in range(times)
        for vectors, task, text in [world(seed)]
    ]
    found = pd.concat(tables)
    error = math.sqrt(0.95 * 0.05 / times)
    for name, truth in {"silhouette": 0, "purity": 11 / 23, "probe": 0.5, "separation": 1}.items():
        one = found[found.measure == name]
        assert covered(one, truth) >= 0.95 - 3 * error, name
        assert one.chance.mean() == pytest.approx(truth, abs=0.02), name
        inside = (one.chance_low <= one.value) & (one.value <= one.chance_high)
        assert inside.mean() == pytest.approx(0.95, abs=3 * error), name


@pytest.mark.parametrize(("texts", "rows"), [(6, 1), (10, 1), (6, 4)])
def test_few_texts_give_an_interval_as_honest_as_many(texts: int, rows: int) -> None:
    """Purity as it is by default, where ten neighbours would be all rows of a half, and every half would say the same."""
    times, truth = 60, (texts - 1) / (2 * texts - 1)
    found = pd.concat(
        measure_layers({"layer": vectors}, task, text, ["purity"], draws=60, seed=seed)
        for seed in range(times)
        for vectors, task, text in [world(seed, texts=texts, rows=rows)]
    )
    assert covered(found, truth) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / times)
    apart, task, text = world(0, texts=texts, rows=rows, shift=40.0, own=0.2)
    assert values(apart, task, text)["purity"] == 1


def test_what_no_half_can_tell_has_no_interval() -> None:
    """No clusters are found in any half of one ball: that is no proof that there are none."""
    dice = np.random.default_rng(1)
    table = measure_layers({"layer": dice.normal(size=(16, 6))}, [0, 1] * 8, measures=["hdbscan"])
    assert table.value[0] == 0 and np.isnan(table.low[0]) and np.isnan(table.high[0])


def test_the_fewest_rows_that_can_be_measured() -> None:
    """Two tasks of two texts: a value for every measure that has one, and no interval."""
    table = measure_layers({"layer": np.random.default_rng(0).normal(size=(4, 3))}, [0, 0, 1, 1])
    assert table.value.notna().sum() >= 5 and table.low.isna().all()


def test_intervals_hold_the_truth_where_there_are_clusters() -> None:
    """The truth from many texts; purity's and the probe's grow with the number of texts, so theirs is the mean."""
    times, names = 60, ["silhouette", "purity", "probe", "separation"]
    vectors, task, text = world(10**6, texts=150, shift=2.0)
    truth = values(vectors, task, text, measures=["silhouette", "separation"])
    found = pd.concat(
        measure_layers({"layer": vectors}, task, text, names, neighbours=5, draws=60, seed=seed)
        for seed in range(times)
        for vectors, task, text in [world(seed, shift=2.0)]
    )
    for name in names:
        one = found[found.measure == name]
        assert covered(one, truth.get(name, one.value.mean())) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / times), (
            name
        )
        assert (one.high - one.low).mean() < 8 * one.value.std(), (
            name
        )  # and they are not too wide to say anything


def test_dimension_of_a_plane_is_in_its_interval() -> None:
    """Rows share their distances, so holding them for independent would be too sure; a tenth is lost at the edges."""
    times, tables = 40, []
    for seed in range(times):
        dice = np.random.default_rng(seed)
        vectors = dice.uniform(size=(200, 2)) @ dice.normal(size=(2, 9))
        tables.append(measure_layers({"layer": vectors}, np.arange(200) % 2, None, ["dimension"], draws=60))
    found = pd.concat(tables)
    assert covered(found, 2) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / times)
    assert (found.high - found.low).mean() < 6 * found.value.std()


def test_that_rows_of_a_text_are_alike_is_no_cluster_of_a_task() -> None:
    """The broken variant: rows taken for texts see tasks in texts handed out at random, and are sure of it."""
    vectors, task, text = world(0, texts=10, rows=8, own=3.0, width=12)
    names = ["silhouette", "purity", "probe"]
    right = measure_layers({"layer": vectors}, task, text, names).set_index("measure")
    broken = measure_layers({"layer": vectors}, task, None, names).set_index("measure")
    assert ((right.low < right.chance) & (right.chance < right.high)).all()
    assert (broken.loc[["purity", "probe"]].low > broken.loc[["purity", "probe"]].chance_high).all()
    assert broken.value["silhouette"] > right.value["silhouette"] + 0.01
    assert broken.value["silhouette"] > broken.chance_high["silhouette"]


def test_no_classifier_has_read_the_text_it_judges() -> None:
    """Texts are dealt to folds whole: one whose task is marked on it alone cannot be told, however many rows it has."""
    dice = np.random.default_rng(0)
    text = np.repeat(np.arange(16), 10)
    task = np.arange(16) % 2
    marks = np.eye(16)[text] * 9 + 0.1 * dice.normal(size=(160, 16))
    assert values(marks, task[text], text, measures=["probe"]).probe <= 0.6
    assert values(marks, task[text], None, measures=["probe"]).probe == 1


@given(seeds, st.floats(0.01, 100))
def test_no_measure_knows_axes_unit_or_names(seed: int, scale: float) -> None:
    """Turned, scaled and moved as a whole, with other names and rows in another order, a layer reads the same.

    The probe standardises along axes, and deals texts in their order: it is asked without the turn, in that order. So
    does HDBSCAN know the order, where distances are equal: of mutual reachability many are.
    """
    vectors, task, text = world(seed % 1000, texts=6, shift=2.0)
    plain = values(vectors, task, text)
    turned = values(vectors @ rotation(seed, 5) * scale + 3, [f"task {t}" for t in task], text + 40)
    scaled = values(vectors * scale + 3, task, text.astype(str))
    some = [name for name in MEASURES if name != "probe"]
    assert dict(turned[some]) == pytest.approx(dict(plain[some]), rel=1e-6, abs=1e-9)
    assert dict(scaled) == pytest.approx(dict(plain), rel=1e-6, abs=1e-9)
    order = np.random.default_rng(seed).permutation(len(text))
    mixed = values(vectors[order], task[order], text[order])
    some.remove("hdbscan")
    assert dict(mixed[some]) == pytest.approx(dict(plain[some]), rel=1e-6, abs=1e-9)


# layers


def test_alignment_is_one_for_what_is_turned_and_scaled_and_none_for_what_is_unrelated() -> None:
    """In few rows of a wide layer, where without the correction everything looks alike."""
    dice = np.random.default_rng(0)
    x, y = dice.normal(size=(60, 200)), dice.normal(size=(60, 300))
    states = {"x": x, "turned": x @ rotation(1, 200) * 7 + 2, "y": y}
    table = compare_layers(states)
    assert table.layer.tolist() == ["x", "x", "turned"] and table.other.tolist() == ["turned", "y", "y"]
    same, one, other = table.itertuples()
    assert (same.value, same.low, same.high) == pytest.approx((1, 1, 1))
    assert abs(one.value) < 0.1 and one.low < 0 < one.high and one.value == pytest.approx(other.value)
    plain = [v - v.mean(0) for v in (x, y)]
    gram = [(v @ v.T).ravel() for v in plain]
    assert gram[0] @ gram[1] / np.linalg.norm(gram[0]) / np.linalg.norm(gram[1]) > 0.7  # the broken variant


def test_alignment_is_the_unbiased_hsic_of_the_literature() -> None:
    """Song et al. 2012, equation 5, written out; products of U-centred matrices are n(n − 3) of it."""
    dice = np.random.default_rng(0)
    x, n = dice.normal(size=(9, 4)), 9
    y = x[:, :2] + dice.normal(size=(9, 2))
    one = np.ones(n)

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
        whole = np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        return float(whole - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))

    k, m = x @ x.T, y @ y.T
    expected = hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))
    assert compare_layers({"x": x, "y": y}).value[0] == pytest.approx(expected)


def test_alignment_of_a_noisy_copy_is_its_closed_form() -> None:
    """x and x + as much noise: |C_xy|² / (|C_xx| |C_yy|) = 1/2, in the interval as often as it says or more."""
    times, tables = 40, []
    for seed in range(times):
        dice = np.random.default_rng(seed)
        x = dice.normal(size=(60, 5))
        tables.append(compare_layers({"x": x, "y": x + dice.normal(size=x.shape)}, draws=60))
    found = pd.concat(tables)
    assert found.value.mean() == pytest.approx(0.5, abs=3 * found.value.std() / math.sqrt(times))
    assert covered(found, 0.5) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / times)


# half-samples and the table


def test_halves_are_halves_of_every_task_and_of_whole_texts() -> None:
    """⌊n/2⌋ of each, all equally often; none where two texts of a task could not be together."""
    tasks = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0])
    halves = half_samples(tasks, 4000)
    assert set(halves[:, tasks == 0].sum(1)) == set(halves[:, tasks == 1].sum(1)) == {2}
    assert halves.mean(0) == pytest.approx(np.where(tasks == 0, 0.4, 0.5), abs=0.03)
    assert half_samples([0, 0, 0, 1, 1, 1, 1], 10).shape == (0, 7)
    assert (half_samples(tasks, 9, seed=1) == half_samples(tasks, 9, seed=1)).all()
    assert (half_samples(tasks, 9, seed=1) != half_samples(tasks, 9, seed=2)).any()


def test_interval_of_a_mean_is_students() -> None:
    """For a plain mean, of even and odd numbers, it comes to the textbook's interval."""
    from scipy.stats import t

    for count in (10, 11):
        given = np.random.default_rng(1).normal(size=count)
        halves = half_samples(np.zeros(count), 40_000)
        found = interval(given.mean(), halves @ given / halves.sum(1), np.zeros(count))
        width = t.ppf(0.975, count - 1) * given.std(ddof=1) / math.sqrt(count)
        assert (found.high - found.value, found.value - found.low) == pytest.approx((width, width), rel=0.02)


def test_layers_are_measured_each_by_itself_on_the_same_rows() -> None:
    """A table of two is the tables of each; layers may differ in width; the columns are as promised."""
    vectors, task, text = world(0, shift=2.0)
    both = measure_layers({"a": vectors, "b": vectors[:, :3]}, task, text, draws=20)
    alone = measure_layers({"b": vectors[:, :3]}, task, text, draws=20)
    pd.testing.assert_frame_equal(both[both.layer == "b"].reset_index(drop=True), alone)
    assert set(both.measure) == set(MEASURES) and set(both.texts) == {24} and set(both.rows) == {72}


def test_many_rows_are_thinned_alike_and_it_is_said() -> None:
    """As many of each task, every text while there is room, the same for the same seed; and the answer is near."""
    vectors, task, text = world(0, texts=20, rows=40, shift=3.0)
    keep = clusters._thinned(text, task[np.unique(text, return_index=True)[1]], 160, 0)
    assert np.bincount(task[keep]).tolist() == [80, 80] and set(np.bincount(text[keep])) == {4}
    one = measure_layers({"l": vectors}, task, text, ["separation", "probe"], rows=160, draws=0)
    again = measure_layers({"l": vectors}, task, text, ["separation", "probe"], rows=160, draws=0)
    whole = measure_layers({"l": vectors}, task, text, ["separation", "probe"], draws=0)
    pd.testing.assert_frame_equal(one, again)
    assert set(one.rows) == {160} and set(whole.rows) == {1600}
    assert one.value.to_numpy() == pytest.approx(whole.value.to_numpy(), abs=0.1)
    assert set(compare_layers({"l": vectors, "m": vectors}, text, task, rows=160, draws=0).rows) == {160}


def test_few_texts_have_numbers_and_no_interval() -> None:
    """Two texts a task are compared; how sure that is cannot be said. Rows that are all alike are no cluster."""
    vectors, task, text = world(0, texts=2, shift=9.0)
    table = measure_layers({"l": vectors}, task, text)
    assert table.value.notna().all() and table[["low", "high"]].isna().all(axis=None)
    flat = values(np.ones((12, 3)), task, text)
    assert flat.silhouette == 0 and np.isnan(flat[["separation", "dimension"]]).all()


def test_every_measure_says_what_it_is() -> None:
    """A menu and an axis have something to show, and the sentence is one."""
    for name, measure in MEASURES.items():
        assert measure.label and measure.explain.endswith(".") and measure.explain.count(". ") == 0, name


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda x, t: measure_layers({"l": x}, t, measures=["purty"]), "purity"),
        (lambda x, t: measure_layers({"l": x}, t, neighbours=0), "neighbours=1"),
        (lambda x, t: measure_layers({"l": x}, t, confidence=95), "between 0 and 1"),
        (lambda x, t: measure_layers({"l": x[:5]}, t), "shape"),
        (lambda x, t: measure_layers({"l": x * np.nan}, t), "finite"),
        (lambda x, t: measure_layers({"l": x}, t, ["same"] * 8), "two tasks"),
        (lambda x, t: measure_layers({"l": x}, t, ["too", "few"]), "every row"),
        (lambda x, t: measure_layers({"l": x}, ["one"] * 8), "two tasks or more"),
        (lambda x, t: measure_layers({"l": x}, [None, *t[1:]]), "none empty"),
        (lambda x, t: measure_layers({"l": x}, ["odd"] + ["even"] * 7), "'odd' has fewer than two texts"),
        (lambda x, t: compare_layers({"l": x[:3], "m": x[:3]}), "four or more"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(wrong: object, says: str) -> None:
    """A user reads what is wrong and what to give."""
    with pytest.raises(WorkbenchError, match=says):
        wrong(np.random.default_rng(0).normal(size=(8, 3)), [0, 1] * 4)

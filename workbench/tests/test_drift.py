"""Drift: each measure against a closed form or a peer, the table of a run, and that what moves nothing reads zero."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from workbench import methods
from workbench.analysis import drift, reference, two_samples
from workbench.analysis.drift import INPUT, MEASURES, Trail, compare_places, measure_run, nearest_tokens
from workbench.analysis.reference import Reference
from workbench.analysis.two_samples import (
    COMPARISONS,
    compare_sets,
    energy_coefficient,
    energy_distance,
    sliced_wasserstein,
    told_apart,
)
from workbench.errors import WorkbenchError
from workbench.tests import zoo

seeds = st.integers(0, 2**32 - 1)


def walk(seed: int, steps: int = 4, count: int = 5, width: int = 6) -> np.ndarray:
    """(S, P, d): vectors that wander."""
    return np.random.default_rng(seed).normal(size=(steps, count, width)).cumsum(0)


def rotation(seed: int, width: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]


def full(vectors: np.ndarray, vocabulary: np.ndarray) -> Trail:
    """A trail with all that any measure needs; the density is the standard normal's."""
    width = vectors.shape[-1]
    normal = lambda e: -0.5 * (e**2).sum(-1) - 0.5 * width * math.log(2 * math.pi)  # noqa: E731
    return Trail(vectors, Reference(vocabulary), 2.0, normal)


def value(name: str, vectors: object, **given: object) -> np.ndarray:
    return MEASURES[name](Trail(np.asarray(vectors, float), **given))


# the measures


def test_movement_of_a_vector_on_a_known_way() -> None:
    """Two sides of a triangle: moved is its third side, the path both, straightness their ratio."""
    way = [[[0.0, 0.0]], [[3.0, 0.0]], [[3.0, 4.0]]]
    assert value("moved", way).ravel() == pytest.approx([0, 3, 5])
    assert value("path_length", way).ravel() == pytest.approx([0, 3, 7])
    assert value("straightness", way).ravel() == pytest.approx([np.nan, 1, 5 / 7], nan_ok=True)
    assert value("moved_in_spreads", way, spread=2.0).ravel() == pytest.approx([0, 1.5, 2.5])


def test_no_way_is_straighter_than_straight() -> None:
    """On a straight way rounding makes the sum of its steps the shorter one now and then; the ratio stays 1."""
    trails = [Trail(np.arange(6)[:, None, None] * walk(seed, 1) * 0.1) for seed in range(9)]
    assert any((trail.moved > trail.path).any() for trail in trails)
    for trail in trails:
        assert (MEASURES["straightness"](trail)[1:] <= 1).all()


def test_cosine_to_the_start_sees_direction_only() -> None:
    """Longer is 1, across is 0, back is -1; from zero there is no direction."""
    way = [
        [[1.0, 0.0], [0.0, 0.0]],
        [[9.0, 0.0], [1.0, 0.0]],
        [[0.0, 2.0], [1.0, 0.0]],
        [[-1.0, 0.0], [0.0, 0.0]],
    ]
    found = value("cosine_to_start", way)
    assert found[:, 0] == pytest.approx([1, 1, 0, -1])
    assert np.isnan(found[:, 1]).all()


def test_spread_of_a_prior_is_the_root_of_its_total_variance() -> None:
    """N(0, σ²·I) has spread σ·√d; one draw has none."""
    draws = np.random.default_rng(0).normal(3.0, 0.02, size=(5000, 64))
    assert drift.prior_spread(draws) == pytest.approx(0.02 * 8, rel=0.01)
    assert math.isnan(drift.prior_spread(draws[:1]))


def test_log_density_is_that_of_the_prior() -> None:
    """Against SciPy's normal, through the adapter of a real prior, at the width's own scale."""
    from scipy.stats import norm

    backbone = zoo.backbone("llama")
    prior = methods.priors.Isotropic(std=0.3).fit(backbone)
    vectors = np.random.default_rng(0).normal(size=(2, 3, backbone.width))
    found = value("log_density", vectors, log_prob=drift.density(prior))
    assert found == pytest.approx(norm.logpdf(vectors, scale=0.3).sum(-1), rel=1e-9)
    each = value("log_density_per_dimension", vectors, log_prob=drift.density(prior))
    assert each * backbone.width == pytest.approx(found)
    assert drift.density(methods.priors.Vocabulary().fit(backbone)) is None


def test_log_density_of_a_fitted_gaussian_is_torchs() -> None:
    """The adapter changes neither order nor type of what a prior with a full covariance says."""
    prior = methods.priors.FittedGaussian().fit(zoo.backbone("llama"))
    vectors = prior.sample((4,), torch.Generator().manual_seed(0))
    law = torch.distributions.MultivariateNormal(prior.normal.mean, scale_tril=prior.normal.factor)
    assert drift.density(prior)(vectors.numpy()) == pytest.approx(
        law.log_prob(vectors.double()).numpy(), rel=1e-6
    )


def test_collapse_at_its_two_ends_and_between() -> None:
    """Orthogonal vectors: cosine 0, rank P. Copies: 1 and 1. Singular values 3 and 1: the entropy by hand."""
    ends = np.stack([np.eye(4), np.ones((4, 4))])
    assert value("mean_cosine", ends) == pytest.approx([0, 1], abs=1e-12)
    assert value("effective_rank", ends) == pytest.approx([4, 1])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert value("effective_rank", [np.diag([3.0, 1.0])]) == pytest.approx([math.exp(entropy)])
    assert np.isnan(value("effective_rank", np.zeros((1, 3, 3)))).all()
    assert np.isnan(value("mean_cosine", np.ones((1, 1, 3)))).all()


def test_mean_cosine_is_the_mean_over_pairs() -> None:
    """Against scikit-learn's table of cosines."""
    from sklearn.metrics.pairwise import cosine_similarity

    vectors = walk(0)
    pairs = [cosine_similarity(v)[np.triu_indices(5, 1)].mean() for v in vectors]
    assert value("mean_cosine", vectors) == pytest.approx(pairs)


def test_a_token_is_shared_by_all_who_are_nearest_to_it() -> None:
    """Of five vectors, three at one token, one at each of two others: three fifths."""
    tokens = np.eye(3) * 10
    vectors = np.stack([tokens[[0, 1, 0, 2, 0]] + 0.1, tokens[[0, 1, 2, 2, 1]], tokens[[1] * 5]])
    assert value("shared_token", vectors, reference=Reference(tokens)) == pytest.approx([0.6, 0.8, 1])
    assert value("shared_token", tokens[None], reference=Reference(tokens)) == pytest.approx([0])


@given(seeds)
def test_what_does_not_move_reads_zero_and_the_path_is_no_shorter(seed: int) -> None:
    """For any way: path ≥ displacement, straightness in 0..1; and standing still is zero, and no number for a ratio."""
    trail = Trail(walk(seed))
    assert (MEASURES["path_length"](trail) >= MEASURES["moved"](trail) - 1e-9).all()
    ratio = MEASURES["straightness"](trail)[1:]
    assert ((ratio > 0) & (ratio <= 1)).all()
    still = Trail(np.repeat(walk(seed)[:1], 3, axis=0))
    assert not MEASURES["moved"](still).any() and not MEASURES["path_length"](still).any()
    assert np.isnan(MEASURES["straightness"](still)).all()
    assert MEASURES["cosine_to_start"](still) == pytest.approx(1)


@given(seeds)
def test_no_measure_knows_the_axes_or_the_order(seed: int) -> None:
    """A rotation of the whole space, vocabulary and all, changes no measure; another order of vectors only the order."""
    vectors, vocabulary = walk(seed), np.random.default_rng(seed + 1).normal(size=(30, 6)) * 3
    turn, order = rotation(seed, 6), np.random.default_rng(seed).permutation(5)
    plain, turned = full(vectors, vocabulary), full(vectors @ turn, vocabulary @ turn)
    shuffled = full(vectors[:, order], vocabulary)
    for name, measure in MEASURES.items():
        found = measure(plain)
        assert measure(turned) == pytest.approx(found, nan_ok=True), name
        expected = found[:, order] if measure.per == "vector" else found
        assert measure(shuffled) == pytest.approx(expected, nan_ok=True), name
        assert measure.per == ("vector" if found.ndim == 2 else "prompt"), name


@given(seeds, st.floats(0.01, 100))
def test_measures_without_a_unit_have_none(seed: int, scale: float) -> None:
    """What is scaled, vocabulary and prior too, reads the same unless it is in the vectors' own unit, or a density."""
    vectors, vocabulary = walk(seed), np.random.default_rng(seed + 1).normal(size=(30, 6)) * 3
    plain = full(vectors, vocabulary)
    scaled = Trail(vectors * scale, Reference(vocabulary * scale), 2.0 * scale)
    for name, measure in MEASURES.items():
        if measure.fits(scaled):
            factor = scale if measure.unit == "the vectors' own unit" else 1
            assert measure(scaled) == pytest.approx(measure(plain) * factor, nan_ok=True), name


def test_a_measure_that_forgets_the_start_is_seen() -> None:
    """The broken variant: measured from the snapshot before, a way of two equal steps would not have moved twice."""
    way = np.arange(3.0)[:, None, None] * np.ones((1, 1, 4))
    broken = np.linalg.norm(np.diff(way, axis=0, prepend=way[:1]), axis=-1)
    assert value("moved", way).ravel() == pytest.approx([0, 2, 4])
    assert broken.ravel() != pytest.approx([0, 2, 4])


def test_every_measure_says_what_it_is() -> None:
    """A menu and an axis have something to show, and the sentence is one."""
    for name, measure in MEASURES.items():
        assert measure.label and measure.explain.endswith(".") and measure.explain.count(". ") == 0, name
        assert measure.per in ("vector", "prompt")


# nearest tokens


@given(seeds, st.integers(1, 40), st.integers(1, 8), st.sampled_from(["euclidean", "cosine"]))
def test_nearest_is_what_looking_at_every_row_finds(seed: int, size: int, k: int, metric: str) -> None:
    """Against SciPy's whole table of distances, with blocks so small that answers come from several."""
    dice = np.random.default_rng(seed)
    table, vectors = dice.normal(size=(size, 4)), dice.normal(size=(7, 4))
    whole = cdist(vectors, table, metric)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "_CELLS", 12)
        found = Reference(table).nearest(vectors, k, metric)
    expected = whole.argsort(1)[:, :k]
    assert (found.row == expected).all()
    assert found.distance == pytest.approx(np.take_along_axis(whole, expected, 1), abs=1e-12)


def test_a_token_is_nearest_to_itself_at_zero() -> None:
    """Also in single precision, far from the origin, where |a|² - 2ab + |b|² alone would not be zero."""
    table = (np.random.default_rng(0).normal(size=(500, 16)) + 1000).astype(np.float32)
    found = Reference(table).nearest(table[:50], 2)
    assert (found.row[:, 0] == np.arange(50)).all() and not found.distance[:, 0].any()
    assert (found.distance[:, 1] > 0).all()
    close = Reference(table).nearest(table[:50].astype(np.float64) + 1e-5)
    assert close.distance == pytest.approx(4e-5, rel=1e-4)


def test_a_row_of_zeros_is_near_to_nothing_by_cosine() -> None:
    """Padding rows are common in vocabularies; and a vector of zeros has no direction to be near in."""
    table = np.array([[0.0, 0.0], [-1.0, 0.1]])
    found = Reference(table).nearest([[1.0, 0.0], [0.0, 0.0]], 2, "cosine")
    assert found.row[0].tolist() == [1, 0]
    assert Reference(table).nearest([[1.0, 0.0]], 1, "cosine").row.tolist() == [[1]]
    assert found.distance[0, 0] == pytest.approx(1 + 1 / math.hypot(1, 0.1))
    assert np.isnan(found.distance[0, 1]) and np.isnan(found.distance[1]).all()


def test_spacing_of_a_lattice_and_of_a_sample() -> None:
    """A grid of step 2 has spacing 2; where rows are sampled, the answer is near that of all, by the standard error."""
    grid = np.stack(np.meshgrid(*[np.arange(5) * 2.0] * 3), -1).reshape(-1, 3)
    assert Reference(grid).spacing == pytest.approx(2)
    table = np.random.default_rng(0).normal(size=(3 * reference.SAMPLED, 8))
    each = np.sort(cdist(table, table), axis=1)[:, 1]
    error = each.std() / math.sqrt(reference.SAMPLED)
    sampled = Reference(table).spacing
    assert sampled == pytest.approx(each.mean(), abs=4 * error)
    assert sampled != pytest.approx(each.mean(), rel=1e-9)  # else all were asked, which takes V² distances
    assert Reference(table[: reference.SAMPLED]).spacing == pytest.approx(
        np.sort(cdist(*[table[: reference.SAMPLED]] * 2), axis=1)[:, 1].mean()
    )
    assert math.isnan(Reference(np.ones((3, 2))).spacing) and math.isnan(Reference(np.ones((1, 2))).spacing)


def test_nearness_is_that_of_the_claims() -> None:
    """The evidence measures the same distance over the same spacing, in single precision."""
    from workbench.claims.space import Space

    space = Space(zoo.backbone("llama"))
    vectors = np.random.default_rng(0).normal(size=(1, 20, space.tokens.shape[1])).astype(np.float32)
    ours = value("nearest_in_spacings", vectors, reference=Reference(space.tokens.numpy()))
    assert ours[0] == pytest.approx(space.distance(torch.from_numpy(vectors[0])), rel=1e-3)


def test_nearest_needs_memory_for_a_few_blocks_only() -> None:
    """A vocabulary as a large model has it must not be copied, or multiplied with all vectors at once."""
    table = np.random.default_rng(0).random((60_000, 256), np.float32)
    vectors = np.random.default_rng(1).random((500, 256))
    tracemalloc.start()
    Reference(table).nearest(vectors, 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * 8 * reference._CELLS < 60_000 * 500 * 8


def test_nearest_tokens_are_named_and_ranked() -> None:
    """The table that a hover and a row of the panel show."""
    tokens, words = np.array([[0.0, 1.0], [0.0, 3.0], [5.0, 0.0]]), ["one", "three", "east"]
    table = nearest_tokens([[0.0, 2.5], [1.0, 0.0]], tokens, words, k=2)
    assert table.columns.tolist() == ["vector", "rank", "token", "word", "distance"]
    assert table.to_numpy().tolist() == [
        [1, 1, 1, "three", 0.5],
        [1, 2, 0, "one", 1.5],
        [2, 1, 0, "one", math.sqrt(2)],
        [2, 2, 1, "three", math.sqrt(10)],
    ]
    assert nearest_tokens([[1.0, 0.1]], tokens, words, 1, "cosine").word.tolist() == ["east"]
    assert len(nearest_tokens([[1.0, 0.1]], tokens, words)) == 3


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: nearest_tokens(np.ones((2, 3)), np.ones((4, 2)), ["a"] * 4), "width 2"),
        (lambda: nearest_tokens(np.ones((2, 2)), np.ones((4, 2)), ["a"] * 3), "3 words .* 4 tokens"),
        (lambda: nearest_tokens(np.ones((2, 2)), np.ones((4, 2)), ["a"] * 4, 0), "k=1"),
        (lambda: nearest_tokens(np.ones((2, 2)), np.ones((4, 2)), ["a"] * 4, 1, "cosin"), "cosine"),
        (lambda: Reference(np.ones(4)), "one row a token"),
        (lambda: measure_run({0: {"a": np.ones((1, 2))}}, measures=["mooved"]), "'moved'"),
        (lambda: measure_run({0: {"a": np.ones((1, 2))}, 1: {}}), "different places"),
        (lambda: measure_run({0: {"a": np.ones((1, 2))}, 7: {"a": np.ones((2, 2))}}), "step 7"),
        (
            lambda: measure_run({0: {"a": np.ones((2, 2))}}, log_prob={"a": lambda e: 0.0}),
            "one number a vector",
        ),
        (lambda: compare_places({"a": np.ones((2, 1, 2))}, {}), "same places"),
        (lambda: compare_sets(np.ones((3, 1, 2)), np.ones((2, 1, 2))), "as many of the prior"),
        (lambda: energy_distance(np.ones((3, 1)), np.ones((2, 2))), "cannot be compared"),
        (lambda: compare_sets(np.ones((2, 1, 2)), np.full((2, 1, 2), np.inf)), "diverged"),
        (lambda: sliced_wasserstein(np.ones((3, 1)), np.ones((2, 1)), p=0.5), "1 or more"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(wrong: object, says: str) -> None:
    """A user reads what is wrong and what to give."""
    with pytest.raises(WorkbenchError, match=says):
        wrong()


# the table of a run


def deep_run(steps: int = 3) -> dict[int, dict[str, np.ndarray]]:
    """What `Run.snapshot` gives of a deep prompt, places of different ways and sizes."""
    places = {INPUT: walk(1, steps), "layer 5": walk(2, steps), "layer 7": walk(3, steps, count=3)}
    return {10 * s: {name: way[s].astype(np.float32) for name, way in places.items()} for s in range(steps)}


def test_table_of_a_run_holds_each_place_by_itself() -> None:
    """A layer's rows are what measuring that layer alone gives; the vocabulary is compared at the input only."""
    run, vocabulary = deep_run(), np.random.default_rng(0).normal(size=(9, 6)) * 2
    words = [f"w{i}" for i in range(9)]
    table = measure_run(run, vocabulary, words, spread={"layer 5": 2.0})
    assert table.columns.tolist() == ["step", "place", "vector", "measure", "value", "word"]
    needy = {name for name, m in MEASURES.items() if "reference" in m.needs}
    assert set(table[table.measure.isin(needy)].place) == {INPUT}
    assert set(table[table.measure == "moved_in_spreads"].place) == {"layer 5"}
    assert not set(table.measure) & {"log_density", "log_density_per_dimension"}
    for place in run[0]:
        alone = measure_run({step: {place: found[place]} for step, found in run.items()}, vocabulary, words)
        same = table[(table.place == place) & (table.measure != "moved_in_spreads")].reset_index(drop=True)
        pd.testing.assert_frame_equal(same, alone, check_dtype=False)
    moved = table[(table.place == "layer 7") & (table.measure == "moved") & (table.step == 20)]
    expected = np.linalg.norm(run[20]["layer 7"] - run[0]["layer 7"], axis=1)
    assert moved.vector.tolist() == [1, 2, 3] and moved.value.to_numpy() == pytest.approx(expected)
    whole = table[(table.place == "layer 7") & (table.measure == "effective_rank")]
    assert whole.vector.tolist() == [0, 0, 0] and whole.step.tolist() == [0, 10, 20]


def test_table_names_the_nearest_word_at_every_step() -> None:
    """Words belong to the step and vector of their row, and to measures about one token."""
    vocabulary, words = np.eye(3), ["a", "b", "c"]
    run = {step: {INPUT: vocabulary[rows] * 0.9} for step, rows in ((5, [1, 1]), (0, [0, 2]))}
    table = measure_run(run, vocabulary, words)
    near = table[table.measure == "nearest_distance"]
    assert near[["step", "vector", "word"]].to_numpy().tolist() == [
        [0, 1, "a"], [0, 2, "c"], [5, 1, "b"], [5, 2, "b"],
    ]  # fmt: skip
    assert (table[table.measure == "nearest_cosine"].word.to_numpy() == near.word.to_numpy()).all()
    assert (table[table.measure == "moved"].word == "").all()
    assert table[table.measure == "shared_token"].value.tolist() == [0, 1]


def test_a_layer_is_compared_with_what_is_given_for_it() -> None:
    """Activations of that layer serve there; where words are of tokens, they name none of them."""
    run, activations = deep_run(), np.random.default_rng(0).normal(size=(20, 6))
    table = measure_run(run, {"layer 5": activations}, ["only", "tokens"], measures=["nearest_distance"])
    assert set(table.place) == {"layer 5"} and (table.word == "").all()
    expected = cdist(run[10]["layer 5"], activations).min(1)
    assert table[table.step == 10].value.to_numpy() == pytest.approx(expected)
    known = Reference(activations)
    pd.testing.assert_frame_equal(
        measure_run(run, {"layer 5": known}, measures=["nearest_distance"]), table, check_dtype=False
    )


def test_a_run_that_diverged_has_numbers_until_then() -> None:
    """After it there are none: no measure raises, reads 0 or names a token."""
    run = {step: {INPUT: vectors} for step, vectors in enumerate(walk(0))}
    run[2] = {INPUT: np.full((5, 6), np.nan)}
    run[3] = {INPUT: np.full((5, 6), np.inf)}
    vocabulary, normal = np.random.default_rng(0).normal(size=(9, 6)), lambda e: -0.5 * (e**2).sum(-1)
    table = measure_run(run, vocabulary, ["w"] * 9, {INPUT: normal}, {INPUT: 1.0})
    assert set(table.measure) == set(MEASURES)
    assert table[table.step >= 2].value.isna().all() and (table[table.step >= 2].word == "").all()
    assert table[table.step == 1].value.notna().all()
    assert "moved_in_spreads" not in set(measure_run(run, spread={INPUT: math.nan}).measure)


def test_a_run_without_matrices_or_snapshots_has_its_table() -> None:
    """Singular values of LoRA are one vector; nothing yet is an empty table with its columns."""
    table = measure_run({0: {"q": np.zeros(2)}, 3: {"q": np.array([3.0, 4.0])}}, measures=["moved"])
    assert table.value.tolist() == [0, 5] and table.vector.tolist() == [1, 1]
    assert measure_run({}).columns.tolist() == table.columns.tolist()


# two samples


def test_energy_distance_is_scipys_on_a_line() -> None:
    """Samples of different size, and the same sample twice."""
    from scipy.stats import energy_distance as scipys

    dice = np.random.default_rng(0)
    x, y = dice.normal(size=40), dice.normal(1, 2, size=55)
    assert energy_distance(x[:, None], y[:, None]) == pytest.approx(scipys(x, y))
    assert energy_distance(x[:, None], x[::-1, None]) == pytest.approx(0, abs=1e-6)
    assert energy_coefficient(np.zeros((3, 2)), np.ones((2, 2))) == pytest.approx(1)
    assert energy_coefficient(np.zeros((3, 2)), np.zeros((2, 2))) == 0


def test_energy_distance_of_shifted_gaussians_is_its_closed_form() -> None:
    """N(0, 1) and N(s, 1): the difference of two draws is normal, so its mean length is a folded normal's.

    The V statistic's own bias, E|X−X′| / n from either side, is part of what is expected.
    """
    n, s = 4000, 1.5
    dice = np.random.default_rng(0)
    x, y = dice.normal(size=(n, 1)), dice.normal(s, 1, size=(n, 1))
    between = 2 / math.sqrt(math.pi) * math.exp(-(s**2) / 4) + s * math.erf(s / 2)
    within = 2 / math.sqrt(math.pi)
    expected = 2 * between - 2 * within * (1 - 1 / n)
    assert energy_distance(x, y) ** 2 == pytest.approx(expected, rel=0.1)
    assert energy_coefficient(x, y) == pytest.approx(expected / (2 * between), rel=0.1)


@pytest.mark.parametrize("p", [1, 2])
def test_sliced_wasserstein_on_a_line_is_wasserstein(p: int) -> None:
    """One dimension has one direction: SciPy's distance at order 1, also for samples of different size."""
    from scipy.stats import wasserstein_distance

    dice = np.random.default_rng(0)
    x, y = dice.normal(size=(30, 1)), dice.normal(1, 2, size=(45, 1))
    if p == 1:
        assert sliced_wasserstein(x, y, p) == pytest.approx(wasserstein_distance(x[:, 0], y[:, 0]))
    even = np.sort(np.tile(x, (3, 1)), 0) - np.sort(np.tile(y, (2, 1)), 0)
    assert sliced_wasserstein(x, y, p) == pytest.approx((np.abs(even) ** p).mean() ** (1 / p))


def test_sliced_wasserstein_of_a_shift_is_its_closed_form() -> None:
    """A sample moved by s as a whole: |θ·s| in direction θ, whose mean square is |s|²/d."""
    dice = np.random.default_rng(0)
    x, shift = dice.normal(size=(50, 12)), dice.normal(size=12)
    found = sliced_wasserstein(x, x + shift, projections=20_000)
    assert found == pytest.approx(np.linalg.norm(shift) / math.sqrt(12), rel=0.03)


def test_sliced_wasserstein_is_that_of_pot() -> None:
    """The same directions give the same number, at both orders and for samples of different size."""
    ot = pytest.importorskip("ot")
    dice = np.random.default_rng(0)
    x, y = dice.normal(size=(30, 8)), dice.normal(0.5, 2, size=(45, 8))
    theta = np.random.default_rng(3).standard_normal((200, 8))
    theta /= np.linalg.norm(theta, axis=1, keepdims=True)
    for p in (1, 2):
        peer = ot.sliced_wasserstein_distance(x, y, projections=theta.T, p=p)
        assert sliced_wasserstein(x, y, p, 200, seed=3) == pytest.approx(peer)


@given(seeds)
def test_distances_of_sets_know_neither_order_nor_side(seed: int) -> None:
    """Zero for the same set in another order, alike from both sides; the energy knows no axes either."""
    dice = np.random.default_rng(seed)
    x, y = dice.normal(size=(9, 4)), dice.normal(1, 1, size=(7, 4))
    for distance in (energy_distance, sliced_wasserstein):
        assert distance(x, x[dice.permutation(9)]) == pytest.approx(0, abs=1e-6)
        assert distance(x, y) == pytest.approx(distance(y, x)) and distance(x, y) > 0
        assert distance(3 * x, 3 * y) == pytest.approx(
            distance(x, y) * (3**0.5 if distance is energy_distance else 3)
        )
    turn = rotation(seed, 4)
    assert energy_distance(x @ turn, y @ turn) == pytest.approx(energy_distance(x, y))


def test_answers_left_out_are_those_of_a_classifier_trained_anew() -> None:
    """The formula for leaving a pair out, against ridge regression fitted without it, pair by pair."""
    from sklearn.kernel_ridge import KernelRidge

    dice = np.random.default_rng(0)
    pairs = dice.normal(size=(4, 6, 3))
    labels = np.tile(np.repeat([-1.0, 1.0], 3), 4)
    found = two_samples._left_out_answers(pairs) @ labels
    flat = pairs.reshape(-1, 3)
    squared = cdist(flat, flat, "sqeuclidean")
    kernel = np.exp(-squared / (2 * np.median(squared[np.triu_indices(24, 1)]))) + 1
    for i in range(4):
        out = np.arange(24) // 6 == i
        anew = KernelRidge(alpha=two_samples._RIDGE, kernel="precomputed")
        anew.fit(kernel[~out][:, ~out], labels[~out])
        assert found[out] == pytest.approx(anew.predict(kernel[out][:, ~out]), abs=1e-9)


def test_area_under_the_curve_is_scikit_learns() -> None:
    """With ties among the scores."""
    from sklearn.metrics import roc_auc_score

    dice = np.random.default_rng(0)
    scores, truth = dice.integers(0, 5, 60).astype(float), dice.random(60) > 0.4
    assert two_samples._auc(scores, truth) == pytest.approx(roc_auc_score(truth, scores))


@pytest.mark.parametrize("change", ["shifted", "wider"])
def test_sets_that_differ_are_told_apart(change: str) -> None:
    """A shift, and a change of spread alone, which a linear classifier cannot see."""
    dice = np.random.default_rng(0)
    prior = dice.normal(size=(8, 10, 32))
    posterior = (
        dice.normal(size=(8, 10, 32)) * (1.5 if change == "wider" else 1) + (change == "shifted") * 0.4
    )
    found = compare_sets(prior, posterior)
    assert found["told_apart"] > 0.75 and found["told_apart_auc"] > 0.85
    assert found["told_apart_p"] == found["energy_p"] == found["least_p"] == 1 / 2**7
    assert found["told_apart_control"] == pytest.approx(0.5, abs=0.06)
    assert set(found) == set(COMPARISONS)


def test_sets_of_one_kind_are_told_apart_no_more_often_than_p_says() -> None:
    """The rate of error: over many pairs of sets of one distribution p is below α with probability α at most.

    Vectors of a prompt lie close together here, and a posterior close to its prior: were vectors taken for independent,
    or a twin left in training, the rate would be far from α.
    """
    dice = np.random.default_rng(0)
    times, alpha = 200, 0.125
    p = []
    for _ in range(times):
        center, own = dice.normal(size=(2, 5, 1, 6)), dice.normal(size=(5, 1, 6))
        both = own + 0.5 * center + 0.2 * dice.normal(size=(2, 5, 4, 6))
        p.append((told_apart(*both).p, two_samples._energy_p(*both, 0)))
    error = math.sqrt(alpha * (1 - alpha) / times)
    for rate in (np.array(p) <= alpha).mean(0):
        assert rate <= alpha + 3 * error
    assert (np.array(p)[:, 1] <= alpha).mean() >= alpha - 3 * error  # and the test does answer


def test_shuffling_single_vectors_would_be_wrong() -> None:
    """The broken variant: labels given to vectors one by one find a difference where prompts merely cluster."""
    dice = np.random.default_rng(0)
    prompts = dice.normal(size=(2, 5, 1, 6)) + 0.2 * dice.normal(size=(2, 5, 8, 6))
    right = two_samples._energy_p(*prompts, 0)
    broken = two_samples._energy_p(prompts[0].reshape(40, 1, 6), prompts[1].reshape(40, 1, 6), 0)
    assert broken <= 0.01 < right


def test_twins_cannot_be_told_apart() -> None:
    """The same vectors on both sides: no distance, a coin's accuracy, and no evidence."""
    x = np.random.default_rng(0).normal(size=(6, 5, 16))
    found = compare_sets(x, x)
    assert found["energy_distance"] == found["sliced_wasserstein"] == 0
    assert found["told_apart"] == found["told_apart_auc"] == 0.5
    assert found["told_apart_p"] == found["energy_p"] == 1
    wide = np.random.default_rng(0).normal(size=(61, 333))
    assert not two_samples._squared_distances(wide, wide).diagonal().any()  # rounding is no distance


def test_few_vectors_say_what_can_be_said() -> None:
    """One prompt has distances but nothing to leave out; two have an accuracy, and a p that cannot be small."""
    dice = np.random.default_rng(0)
    x = dice.normal(size=(2, 3, 4))
    one = compare_sets(x[:1], x[:1] + 9)
    assert one["energy_distance"] > 0 and one["sliced_wasserstein"] > 0 and one["least_p"] == 1
    assert all(math.isnan(one[name]) for name in ("told_apart", "told_apart_auc", "told_apart_p", "energy_p"))
    two = compare_sets(x, x + 9)
    assert two["told_apart"] == 1 and two["told_apart_p"] == two["least_p"] == 0.5
    assert two["told_apart_control"] == 0  # the one other way of handing out labels, and it is exactly wrong
    single = compare_sets(x[:, :1], x[:, :1] + 9)
    assert np.isfinite(list(single.values())).all()


def test_many_prompts_are_thinned_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The classifier reads as many prompts as fit, by the seed, and the number is in the answer."""
    monkeypatch.setattr(two_samples, "_VECTORS", 24)
    x = np.random.default_rng(0).normal(size=(30, 4, 3))
    found = compare_sets(x, x + 3, seed=1)
    assert found["prompts"] == 6 and found == compare_sets(x, x + 3, seed=1)
    assert found["least_p"] == 1 / 1000


def test_places_are_compared_each_by_itself() -> None:
    """A layer that changed is seen there, and not at the input that did not."""
    dice = np.random.default_rng(0)
    x = dice.normal(size=(5, 4, 6))
    table = compare_places({INPUT: x, "layer 5": x}, {INPUT: x, "layer 5": x + 2})
    wide = table.pivot(index="place", columns="measure", values="value")
    assert wide.loc[INPUT, "energy_distance"] == 0 < wide.loc["layer 5", "energy_distance"]
    assert wide.loc["layer 5", "told_apart"] == 1
    assert list(wide.loc["layer 5", list(COMPARISONS)]) == list(compare_sets(x, x + 2).values())

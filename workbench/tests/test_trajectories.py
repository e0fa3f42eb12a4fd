"""Paths of answers: spread, step and localisation against closed forms, intervals that hold what they say."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.analysis.trajectories import localisation, measure_paths, spread, step_length
from workbench.errors import WorkbenchError

seeds = st.integers(0, 2**32 - 1)


def draws(
    seed: int, count: int = 20, low: int = 3, high: int = 12, width: int = 4, own: float = 0.0
) -> list[np.ndarray]:
    """Paths of independent rows, each about a centre of its own that has `own` times their variance."""
    dice = np.random.default_rng(seed)
    return [
        dice.normal(size=(dice.integers(low, high), width)) + math.sqrt(own) * dice.normal(size=width)
        for _ in range(count)
    ]


def walks(seed: int, keep: float, count: int = 40, length: int = 60, width: int = 4) -> list[np.ndarray]:
    """Stationary paths of variance 1 a dimension, each row `keep` times the one before, and noise."""
    dice = np.random.default_rng(seed)
    rows = [dice.normal(size=(count, width))]
    for _ in range(length - 1):
        rows.append(keep * rows[-1] + math.sqrt(1 - keep**2) * dice.normal(size=(count, width)))
    return list(np.stack(rows, axis=1))


def rotation(seed: int, width: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]


def rate(found: list, truth: float) -> float:
    return float(np.mean([one.low <= truth <= one.high for one in found]))


def test_size_of_a_path_by_hand() -> None:
    """Two sides of a triangle; a line walked at an even pace; one point; one token is no path."""
    corner = [[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]]
    assert step_length(corner) == pytest.approx(math.sqrt((9 + 16) / 2))
    assert spread(corner) == pytest.approx(np.sqrt(np.cov(np.transpose(corner)).trace()))
    assert spread(np.arange(7.0)[:, None]) == pytest.approx(math.sqrt(7 * 8 / 12))
    assert spread(np.ones((5, 3))) == step_length(np.ones((5, 3))) == 0
    assert math.isnan(spread([[1.0, 2.0]])) and math.isnan(step_length([[1.0, 2.0]]))


def test_spread_does_not_grow_with_length() -> None:
    """Of independent rows its square is their variance for two rows as for fifty; divided by T it would be half."""
    for length in (2, 50):
        squares = [spread(path) ** 2 for path in draws(0, 3000, length, length + 1)]
        error = 4 * math.sqrt(2 / (4 * (length - 1)) / 3000)
        assert np.mean(squares) == pytest.approx(4, abs=3 * error)
        if length == 2:
            broken = np.mean(squares) * (length - 1) / length
            assert abs(broken - 4) > 9 * error


def test_shuffled_steps_are_the_mean_of_all_orders() -> None:
    """Every order of five rows walked: their mean squared step is twice the variance, to the last digit."""
    path = np.random.default_rng(0).normal(size=(5, 3))
    every = np.mean([step_length(path[list(order)]) ** 2 for order in permutations(range(5))])
    table = measure_paths({"l": [path]})
    found = table[(table.reference == "shuffled") & (table.measure == "step")].value.item()
    assert found**2 == pytest.approx(every) == pytest.approx(2 * spread(path) ** 2)
    assert localisation([path], "shuffled").value == 0


def test_other_texts_are_the_mean_of_all_pairs_of_rows() -> None:
    """Half the mean squared distance between rows of two paths, within a task only; each path counts alike."""
    from scipy.spatial.distance import cdist

    paths, tasks = draws(0, 6, own=2.0), ["a", "b", "a", "b", "a", "a"]
    each = []
    for i in range(6):
        others = [j for j in range(6) if j != i and tasks[j] == tasks[i]]
        each.append(np.mean([cdist(paths[i], paths[j], "sqeuclidean").mean() / 2 for j in others]))
    table = measure_paths({"l": paths}, tasks=tasks)
    found = table[table.reference == "others"].set_index("measure").value
    assert found["spread"] ** 2 == pytest.approx(np.mean(each))
    assert found["step"] ** 2 == pytest.approx(2 * np.mean(each))
    expected = 1 - np.mean([spread(path) ** 2 for path in paths]) / np.mean(each)
    assert (
        localisation(paths, "others", tasks).value == found["spread localisation"] == pytest.approx(expected)
    )


def test_localisation_at_its_ends() -> None:
    """A token drawn anywhere each time: 0. One token again and again: 1. Wider than the vocabulary: below 0."""
    dice = np.random.default_rng(0)
    vocabulary = dice.normal(size=(500, 8))
    anywhere = [vocabulary[dice.integers(0, 500, 12)] for _ in range(200)]
    still = [np.tile(vocabulary[i], (12, 1)) for i in range(20)]
    assert localisation(anywhere, vocabulary).value == pytest.approx(0, abs=0.05)
    assert localisation(anywhere, vocabulary, of="step").value == pytest.approx(0, abs=0.05)
    for reference in (vocabulary, anywhere, "others"):
        for of in ("spread", "step"):
            assert tuple(localisation(still, reference, of=of)) == pytest.approx((1, 1, 1))
    twice = localisation([2 * path for path in anywhere], vocabulary)
    assert twice.value == pytest.approx(-3, abs=0.2) and twice.high < 0
    assert math.isnan(localisation(still, "shuffled").value)  # nothing moved, so there is no order


def test_localisation_among_other_texts_is_the_intraclass_correlation() -> None:
    """Texts whose centres have three times the variance of their rows: 3/4; its interval is away from 0."""
    found = localisation(draws(0, 300, own=3.0), "others")
    assert found.value == pytest.approx(0.75, abs=0.03)
    assert 0.7 < found.low < found.value < found.high < 0.8


def test_steps_of_a_smooth_path_are_shorter_than_shuffled_ones() -> None:
    """Each row ρ of the one before: a squared step is 2·(1 - ρ) variances, the spread's that of T rows in all."""
    keep, length = 0.8, 60
    lags = np.arange(1, length)
    correlation = 2 * ((length - lags) * keep**lags).sum() / (length * (length - 1))
    expected = 1 - (1 - keep) / (1 - correlation)
    assert localisation(walks(0, keep), "shuffled", of="step").value == pytest.approx(expected, abs=0.02)
    assert localisation(walks(0, 0.0), "shuffled", of="step").value == pytest.approx(0, abs=0.05)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Paths that go anywhere, against each reference: 0; paths with a centre of their own, against others: 1/2.

    The tolerance is three standard errors of the share of 95%, and one in thirty for so few texts.
    """
    times = 100
    least = 0.95 - 3 * math.sqrt(0.95 * 0.05 / times) - 1 / 30
    for truth, own, reference, of in [
        (0, 0, "shuffled", "step"), (0, 0, "others", "spread"), (0, 0, "others", "step"), (0.5, 1, "others", "spread"),
        (0, 0, "walks", "spread"), (0, 0, "walks", "step"), (0.5, 1, "wide", "spread"),
    ]:  # fmt: skip
        found = []
        for seed in range(times):
            given = {
                "walks": draws(seed + 10**6),
                "wide": [math.sqrt(2) * path for path in draws(seed + 10**6)],
            }
            found.append(
                localisation(draws(seed, own=own), given.get(reference, reference), of=of, draws=100)
            )
        assert rate(found, truth) >= least, (truth, reference, of)
        width = np.mean([one.high - one.low for one in found])
        assert width < 6 * np.std([one.value for one in found]), (truth, reference, of)


def test_halves_of_walks_are_drawn_apart_from_those_of_answers() -> None:
    """Beside walks that are the answers once more the number is 0, and not for certain."""
    found = localisation(draws(0), draws(0), draws=50)
    assert found.value == 0 and found.low < -0.1 and found.high > 0.1


def test_taking_rows_for_texts_would_be_too_sure() -> None:
    """The broken variant: texts of different restlessness, cut into pieces that are counted as texts."""
    times, whole, pieces = 60, [], []
    for seed in range(times):
        dice = np.random.default_rng(seed)
        size = np.sqrt(dice.chisquare(4, size=12) / 4)
        paths = [one * dice.normal(size=(40, 4)) for one in size]
        reference = np.concatenate([np.eye(4), -np.eye(4)]) * math.sqrt(
            4 * 7 / 8
        )  # of variance 4, as paths' mean
        whole.append(localisation(paths, reference, draws=60))
        cut = [piece for path in paths for piece in np.split(path, 8)]
        pieces.append(localisation(cut, reference, draws=60))
    assert rate(pieces, 0) < 0.75 < 0.8 < rate(whole, 0)


@given(seeds, st.floats(0.01, 100))
def test_no_number_knows_axes_or_unit_and_no_size_the_order(seed: int, scale: float) -> None:
    """Turned, scaled and moved with the vocabulary: the same localisation. Backwards: the same steps, and spread."""
    paths, vocabulary = draws(seed, 8, own=1.0), np.random.default_rng(seed).normal(size=(30, 4)) * 2
    turn = rotation(seed, 4) * scale
    moved, there = [path @ turn + 5 for path in paths], vocabulary @ turn + 5
    for reference, other in (
        (vocabulary, there),
        (list(paths[:5]), moved[:5]),
        ("others", "others"),
        ("shuffled",) * 2,
    ):
        for of in ("spread", "step"):
            plain = localisation(paths, reference, ["a", "b"] * 4, of, draws=20)
            turned = localisation(moved, other, ["a", "b"] * 4, of, draws=20)
            back = localisation([path[::-1] for path in paths], reference, ["a", "b"] * 4, of, draws=20)
            assert tuple(turned) == pytest.approx(tuple(plain), rel=1e-6, abs=1e-6)
            assert tuple(back) == pytest.approx(tuple(plain), rel=1e-6, abs=1e-9)
    mixed = paths[0][np.random.default_rng(seed).permutation(len(paths[0]))]
    assert spread(mixed) == pytest.approx(spread(paths[0]))


def test_table_holds_each_layer_by_itself_and_only_the_references_there_are() -> None:
    """One layer's rows are those of measuring it alone; a localisation there is that of `localisation`."""
    one, two = draws(0, 12, own=1.0), draws(1, 12)
    vocabulary = np.random.default_rng(2).normal(size=(50, 4))
    tasks = ["a", "b"] * 6
    table = measure_paths({"embeddings": one, "layer 3": two}, {"embeddings": vocabulary}, tasks, draws=50)
    alone = measure_paths({"layer 3": two}, tasks=tasks, draws=50)
    pd.testing.assert_frame_equal(table[table.layer == "layer 3"].reset_index(drop=True), alone)
    assert alone[["reference", "measure"]].to_numpy().tolist() == [
        ["", "spread"], ["", "step"],
        ["shuffled", "step"], ["shuffled", "step localisation"],
        ["others", "spread"], ["others", "spread localisation"], ["others", "step"], ["others", "step localisation"],
    ]  # fmt: skip
    here = table[(table.layer == "embeddings") & (table.reference == "vocabulary")].set_index("measure")
    for of in ("spread", "step"):
        expected = localisation(one, vocabulary, tasks, of, draws=50)
        assert tuple(here.loc[f"{of} localisation", ["value", "low", "high"]]) == tuple(expected)
    own = table[(table.layer == "embeddings") & (table.reference == "")].set_index("measure")
    assert own.loc["spread"].value == pytest.approx(np.sqrt(np.mean([spread(path) ** 2 for path in one])))
    assert here.loc["spread", ["low", "high"]].tolist() == pytest.approx([here.loc["spread"].value] * 2)


def test_short_answers_and_few_are_said() -> None:
    """An answer of one token has no path and is left out with its task; three texts have numbers and no interval."""
    paths = [*draws(0, 3), np.ones((1, 4))]
    table = measure_paths({"l": paths}, tasks=["a", "a", "a", "b"])
    assert (
        set(table.texts) == {3} and table.value.notna().all() and table[["low", "high"]].isna().all(axis=None)
    )
    pd.testing.assert_frame_equal(table, measure_paths({"l": paths[:3]}))
    assert math.isnan(localisation(draws(0), draws(1, 3)).low)  # three walks say no more
    lonely = localisation(draws(0, 2), "others", ["a", "b"])
    assert math.isnan(lonely.value) and math.isnan(lonely.low)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: localisation([np.ones((1, 2))] * 3, "others"), "two tokens"),
        (lambda: localisation([], "others"), "two tokens"),
        (lambda: localisation([np.ones(3)], "others"), "is no path"),
        (lambda: localisation([np.full((3, 2), np.nan)], "others"), "not finite"),
        (lambda: localisation([np.ones((3, 2)), np.ones((3, 4))], "others"), "widths"),
        (lambda: localisation([np.ones((3, 2))], np.ones((5, 4))), "width"),
        (lambda: localisation([np.ones((3, 2))], [np.ones((5, 4))]), "width"),
        (lambda: localisation([np.ones((3, 2))], "other"), "others"),
        (lambda: localisation([np.ones((3, 2))], "others", of="steps"), "step"),
        (lambda: localisation([np.ones((3, 2))], "others", ["a", "b"]), "one for each path"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(wrong: object, says: str) -> None:
    """A user reads what is wrong and what to give."""
    with pytest.raises(WorkbenchError, match=says):
        wrong()

"""E5 and E6: random weights, humps, walks and shuffled words, verdicts on planted truths, and a tiny study of each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from workbench import cli, load_backbone
from workbench.analysis.trace import trace
from workbench.analysis.walks import vocabulary
from workbench.backbones.untrained import untrained
from workbench.claims import CLAIMS, ClustersConfig, PathsConfig, answer_paths, reproduce, task_clusters
from workbench.claims.answer_paths import SAMPLED, PathsCell, paths_of, run_paths
from workbench.claims.domains import Segment
from workbench.claims.kept import Kept, keep
from workbench.claims.rule import FAILS, HOLDS, UNDECIDED, load_rule
from workbench.claims.task_clusters import (
    RANDOM,
    READINGS,
    SHUFFLED,
    TRAINED,
    ClustersCell,
    Tokens,
    clusters_of,
    run_clusters,
    shuffled_words,
)
from workbench.errors import WorkbenchError

SEEDS = 5


# random weights


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-rwkv"])
def test_an_untrained_twin_is_drawn_and_leaves_the_other_alone(name: str) -> None:
    """Same shapes, other weights, the seed's alone; every layer does something, as in a model that was not just zeroed."""
    backbone = load_backbone(name, device="cpu")
    before = {key: tensor.clone() for key, tensor in backbone.model.state_dict().items()}
    state = torch.random.get_rng_state()
    one, again, other = untrained(backbone, 1), untrained(backbone, 1), untrained(backbone, 2)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(before[key], tensor) for key, tensor in backbone.model.state_dict().items())
    drawn = {key: tensor for key, tensor in one.model.state_dict().items() if "embed" in key}
    assert {key: t.shape for key, t in one.model.state_dict().items()} == {
        k: t.shape for k, t in before.items()
    }
    assert drawn and all(torch.equal(t, again.model.state_dict()[key]) for key, t in drawn.items())
    assert not any(
        torch.equal(t, part.model.state_dict()[key]) for key, t in drawn.items() for part in (other, backbone)
    )
    seen = trace(one, ["the owner of the green sword is iris ."])
    change = [
        np.linalg.norm(seen[b] - seen[a]) / np.linalg.norm(seen[a])
        for a, b in zip(seen.places, seen.places[1:], strict=False)
    ]
    assert min(change) > 0.01
    assert one.name != backbone.name and one.describe()["parameters"] == backbone.describe()["parameters"]


# kept numbers


def test_numbers_are_made_once_and_again_for_other_settings(tmp_path: Path) -> None:
    """What is not finite comes back as None; what it depends on is in its name."""
    made: list[int] = []

    def make() -> dict[str, Any]:
        made.append(1)
        return {"a": float("nan"), "b": {"c": np.float32(0.5)}}

    first, new = keep(tmp_path / "x", "one", 3, b"settings", make)
    again, old = keep(tmp_path / "x", "one", 3, b"settings", make)
    assert first == again and new and not old and first.facts == {"a": None, "b": {"c": 0.5}}
    assert keep(tmp_path / "x", "one", 3, b"others", make)[1] and len(made) == 2


# humps


def test_deviations_by_hand() -> None:
    """Ashman's D on a line, whichever way the segment runs and however long it is."""
    one, other = torch.tensor([[0.0, 5.0], [2.0, 5.0]]), torch.tensor([[10.0, 5.0], [14.0, 5.0]])
    step = torch.tensor([7.0, 0.0], dtype=torch.float64)
    segment = Segment(torch.zeros(2, dtype=torch.float64), step / (step @ step), step)
    assert segment.deviations(one, other) == pytest.approx((12 - 1) / np.sqrt((2 + 8) / 2))
    assert segment.deviations(other, one) == -segment.deviations(one, other)
    assert Segment(step * 0, step / 0, step * 0).deviations(one, other) == 0


def test_two_humps_begin_at_two() -> None:
    """The reason for the threshold: the density in the middle of two equal normal clusters, against that at their means."""
    from scipy.stats import norm

    def dip(d: float) -> bool:
        density = norm.pdf(np.linspace(-4, 4 + d, 4001)) + norm.pdf(np.linspace(-4, 4 + d, 4001) - d)
        return bool((np.diff(np.sign(np.diff(density))) > 0).any())

    assert not dip(1.99) and dip(2.05)


SMALL = ClustersConfig(language=("a", "b"), arithmetic=("n",), seeds=SEEDS, texts=40, rows=160)


def states(seed: int, apart: float = 0.0, among: float = 0.0, halves: float = 0.0) -> dict[str, Any]:
    """What `clusters_of` finds of three tasks of normal clusters: n lies `apart` deviations from a and b, b lies `among`
    from a, and the first two quarters of each task's texts lie `halves` from each other, as do the last two."""
    dice = np.random.default_rng(seed)
    task = np.repeat(np.array(["a", "b", "n"], object), 160)
    text = np.tile(np.repeat(np.arange(40), 4), 3)
    found = dice.normal(size=(480, 8))
    found[:, 0] += apart * (task == "n")
    found[:, 1] += among * (task == "b")
    found[:, 2] += halves * (text % 2)
    return clusters_of(found, Tokens(task, text, dice.integers(0, 5, 480)), SMALL, seed)


def test_d_is_what_was_planted() -> None:
    """Three deviations along an axis, none between alike tasks; Fisher's axis is no worse; control and same words too."""
    found = [states(seed, apart=3.0) for seed in range(20)]
    for pair, truth in (("a/n", 3.0), ("b/n", 3.0), ("a/b", 0.0)):
        for number in ("d", "same_words"):
            values = [one["pairs"][pair][number] for one in found]
            assert np.mean(values) == pytest.approx(truth, abs=0.15), (pair, number)
    assert np.mean([one["pairs"]["a/n"]["told_apart"] for one in found]) == pytest.approx(0.933, abs=0.02)
    assert np.mean([list(one["control"].values()) for one in found]) == pytest.approx(0, abs=0.1)
    hidden = found[0]
    assert hidden["tokens"] == {"a": 160, "b": 160, "n": 160}
    assert (
        hidden["measures"]["distant"]["probe"]["value"]
        > 0.85
        > 0.6
        > hidden["measures"]["close"]["probe"]["value"]
    )


def test_means_of_a_wide_cloud_hide_what_fishers_axis_shows() -> None:
    """The limit that the rule names: apart in a direction of little variance, within one hump on the line of means."""
    dice = np.random.default_rng(0)
    task, text = np.repeat(np.array(["a", "b", "n"], object), 400), np.tile(np.repeat(np.arange(40), 10), 3)
    found = dice.normal(size=(1200, 3)) * [1.0, 30.0, 1.0]
    found[:, 1] += 20 * (task == "n")
    found[:, 0] += 5.0 * (task == "n")
    pair = clusters_of(found, Tokens(task, text, np.zeros(1200, int)), SMALL)["pairs"]["a/n"]
    assert pair["d"] < 2 < 4 < pair["fisher"]


def test_the_same_words_are_as_often_in_both() -> None:
    """Drawn without replacement, whatever else the tasks say."""
    token = np.array([7, 7, 7, 1, 7, 9, 1, 1])
    one, other = task_clusters._alike(np.arange(4), np.arange(4, 8), token, np.random.default_rng(0))
    assert sorted(token[one]) == sorted(token[other]) == [1, 7] and set(one) <= set(range(4))
    none, _ = task_clusters._alike(np.arange(3), np.array([5]), token, np.random.default_rng(0))
    assert len(none) == 0


def test_shuffled_words_are_the_same_words() -> None:
    """And not in their order."""
    text = "a miller found the bell near the old well ."
    mixed = shuffled_words(text, np.random.default_rng(0))
    assert mixed != text and sorted(mixed.split()) == sorted(text.split())


def cluster_cell(**planted: dict[str, float]) -> ClustersCell:
    """A cell of planted clusters, one set of arguments of `states` for each way of reading."""
    trials = tuple(
        Kept(reading, seed, states(10 * seed + at, **planted[reading]), 1.0)
        for seed in range(SEEDS)
        for at, reading in enumerate(READINGS)
    )
    return ClustersCell("a", "layer 1", trials, trials, "cpu")


FAR, NEARER = {"apart": 4.0}, {"apart": 2.5}


@pytest.mark.parametrize(
    ("trained", "random", "shuffled", "verdict"),
    [
        (FAR, NEARER, NEARER, HOLDS),
        ({"apart": 1.0}, {}, {}, FAILS),  # distant tasks share a hump
        ({"apart": 4.0, "among": 4.0}, NEARER, NEARER, FAILS),  # close tasks do not
        (FAR, FAR, NEARER, UNDECIDED),  # nothing learnt
        (FAR, NEARER, FAR, UNDECIDED),  # a bag of words
        ({"apart": 4.0, "halves": 3.0}, NEARER, NEARER, UNDECIDED),  # one task is two clusters
    ],
)
def test_e6_on_planted_truths(
    trained: dict[str, float], random: dict[str, float], shuffled: dict[str, float], verdict: str
) -> None:
    """True, false in either half, and explained by words alone or by a measure that sees clusters everywhere."""
    cell = cluster_cell(**{TRAINED: trained, RANDOM: random, SHUFFLED: shuffled})
    found, said = judged("E6", cell, SMALL)
    assert said == verdict
    assert found["effect"] == pytest.approx(
        min(trained["apart"] - 2, 2 - trained.get("among", 0.0)), abs=0.35
    ), "halves widen no effect along other axes"
    assert set(found["apart"]) == {"a/n", "b/n"} and set(found["one"]) == {"a/b"}


def judged(name: str, cell: Any, config: Any) -> tuple[dict[str, Any], str]:
    """A cell's numbers with its effect, and the rule's verdict."""
    found = CLAIMS[name]().measure(cell, config)
    assert found.estimate is not None
    numbers = {**cell.common(config), **found.numbers}
    verdict, _ = load_rule(name).verdict(found.estimate.interval, numbers)
    return {**numbers, "effect": found.estimate.effect}, verdict


# paths


def drawn(seed: int, size: float = 1.0, keep: float = 0.0, length: int = 30) -> list[np.ndarray]:
    """40 stationary paths of variance `size`² a dimension, each row `keep` times the one before, and noise."""
    dice = np.random.default_rng(seed)
    rows = [dice.normal(size=(40, 6))]
    for _ in range(length - 1):
        rows.append(keep * rows[-1] + np.sqrt(1 - keep**2) * dice.normal(size=(40, 6)))
    return list(size * np.stack(rows, axis=1))


def path_cell(**planted: dict[str, float]) -> PathsCell:
    """A cell of planted paths: all walks are alike, a local path is a tenth as wide, unless it is said otherwise."""
    ways = {way: {} for way in (SAMPLED, "walks", "others", "greedy", "shuffled", "random", "random walks")}
    told: dict[str, Any] = {**ways, "local": {"size": 0.1}, **planted}
    trials = []
    for seed in range(SEEDS):
        paths = {way: drawn(100 * seed + at, **given) for at, (way, given) in enumerate(sorted(told.items()))}
        trials.append(Kept(SAMPLED, seed, paths_of(paths, seed), 1.0))
    return PathsCell("a", "b", "layer 1", tuple(trials), "cpu")


@pytest.mark.parametrize(
    ("planted", "effect", "verdict"),
    [
        ({}, 0.0, HOLDS),
        ({SAMPLED: {"size": 1.5}}, -1.25, HOLDS),
        ({SAMPLED: {"size": 0.7}}, 0.51, FAILS),
        ({SAMPLED: {"size": 0.9}}, 0.19, UNDECIDED),
        ({SAMPLED: {"keep": 0.5}}, 0.08, UNDECIDED),  # wide, but in short steps
        ({"local": {"size": 0.95}}, 0.0, UNDECIDED),  # a local path goes unseen
        ({"others": {"size": 0.8}}, 0.0, UNDECIDED),  # walks differ
        ({SAMPLED: {"length": 3}}, 0.0, UNDECIDED),  # hardly a path
    ],
)
def test_e5_on_planted_truths(planted: dict[str, Any], effect: float, verdict: str) -> None:
    """As wide as a walk, wider, narrower, at the threshold, in short steps; and three ways of not being able to test it."""
    found, said = judged("E5", path_cell(**planted), PathsConfig(questions=40))
    assert said == verdict
    assert found["effect"] == pytest.approx(effect, abs=0.06) and found["paths"] == 1


def test_a_local_path_is_among_near_tokens() -> None:
    """The token itself and those nearest to it."""
    backbone = load_backbone("tiny-llama", device="cpu")
    words = vocabulary(backbone)
    found = answer_paths.near(backbone, words, words[50])
    table = backbone.vocabulary().numpy()
    distance = np.linalg.norm(table[words] - table[words[50]], axis=1)
    assert found[0] == words[50] and sorted(found) == sorted(words[np.argsort(distance)[:10]])


# studies


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was read and written, shared by the tests."""
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize(
    ("name", "cells", "trials"),
    [
        (
            "E5",
            [f"tiny-llama/order-3/{p}" for p in ("embeddings", "layer 1", "layer 2", "layer 3", "output")],
            5,
        ),
        ("E6", [f"tiny-llama/{p}" for p in ("layer 1", "layer 2", "layer 3", "output")], 12),
    ],
)
def test_each_claim_end_to_end(
    name: str, cells: list[str], trials: int, rules: Path, runs: Path, tmp_path: Path
) -> None:
    """A small study of each: plain JSON, every trial accounted for, the verdict that of its own numbers."""
    config = CLAIMS[name].settings().quick()
    found = reproduce(name, config, tmp_path, runs, rules)
    text = (tmp_path / f"{name}.json").read_text()
    evidence: dict[str, Any] = json.loads(
        text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON")
    )
    assert evidence == found and list(evidence["cells"]) == cells
    assert evidence["rule"]["commit"] == load_rule(name, rules).commit()
    assert [len(seed["trials"]) for seed in evidence["seeds"]] == [trials] * 2
    assert 0 < sum(t["seconds"] for seed in evidence["seeds"] for t in seed["trials"]) < evidence["seconds"]
    rule = load_rule(name, rules)
    for cell in evidence["cells"].values():
        assert rule.verdict(cell["interval"], cell) == (cell["verdict"], cell["reason"])
    assert rule.together(evidence["interval"], list(evidence["cells"].values())) == (
        evidence["verdict"], evidence["reason"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("run", "config"), [(run_paths, PathsConfig().quick()), (run_clusters, ClustersConfig().quick())]
)
def test_what_is_kept_is_found_again(
    run: Callable[..., Any], config: Any, runs: Path, tmp_path: Path
) -> None:
    """Stopped after the first reading, it goes on with the rest and ends with the same numbers as at once."""
    told: list[tuple[int, int]] = []

    def stop(progress: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run(config, tmp_path, report=stop))
    cells = list(run(config, tmp_path, report=lambda p: told.append((p.done, p.left))))
    assert told[0][0] == 0 and told[-1][1] == 0 < told[-1][0]
    whole = list(run(config, runs))
    for cell, other in zip(cells, whole, strict=True):
        assert cell.name == other.name
        assert [t.facts for t in cell.trials] == [t.facts for t in other.trials]
    first, second = (t.facts for t in cells[0].trials if t.prior in (SAMPLED, TRAINED))
    assert first != second


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["E5", "--questions", "0"], "at least 1"),
        (["E5", "--seeds", "3"], "not the settings that E5 is judged by"),
        (["E6", "--arithmetic", "reading"], "none of them in arithmetic"),
        (["E6", "--language", "reading"], "two tasks or more"),
        (["E6", "--texts", "8"], "need 16 or more"),
    ],
)
def test_what_the_user_can_put_right(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence, code 2, before anything is read."""
    assert cli.main(["reproduce", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and len(err.splitlines()) == 1, err


def test_settings_are_refused_in_words() -> None:
    """From Python too."""
    with pytest.raises(WorkbenchError, match="2 or more"):
        PathsConfig(seeds=1)

"""E9: the worked arithmetic, starts that cost the same, posteriors that are where they ended, and planted verdicts."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.claims import reproduce
from workbench.claims.distilling import (
    ANOTHER,
    OTHER,
    POSTERIOR,
    STEPS,
    DistilConfig,
    Distilled,
    _end_right,
    _guess,
    run_distilling,
)
from workbench.claims.e9 import PosteriorDistils
from workbench.claims.rule import FAILS, HOLDS, UNDECIDED, load_rule
from workbench.claims.study import Trial
from workbench.errors import WorkbenchError
from workbench.tasks import world
from workbench.tasks.world.mixture import _names, document
from workbench.tasks.world.sample import SPLITS
from workbench.training.run import Run

FAMILIES = ("worked-third", "worked-sum")


# worked arithmetic


@given(st.sampled_from(FAMILIES), st.sampled_from(SPLITS), st.integers(0, 10**6))
def test_steps_lead_to_the_answer(name: str, split: str, seed: int) -> None:
    """By independent reckoning: the steps are the row in order, and both forms ask and answer the same."""
    plain, worked = (world.sample(name, split, seed, 0, steps=steps) for steps in (False, True))  # type: ignore[arg-type]
    numbers = [int(word) for word in plain.prompt.split() if word.isdigit()]
    first, second, third, *_ = sorted(numbers)
    assert plain.prompt == worked.prompt and len(set(numbers)) == 5
    assert int(plain.answer) == (third if name == "worked-third" else first + second)
    assert worked.answer == f"{' '.join(map(str, sorted(numbers)))} , {plain.answer}"
    assert worked.answer == f"{plain.fields['steps']} {plain.answer}"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_row_is_of_one_split(name: str) -> None:
    """Protects the test: the same numbers in another order would give the answer away."""
    rows = [
        {tuple(sorted(s.fields["operands"])) for s in world.samples(name, split, 400)} for split in SPLITS
    ]
    assert all(rows) and not (rows[0] & rows[1] or rows[0] & rows[2] or rows[1] & rows[2])


def test_pretraining_knows_nothing_of_it() -> None:
    """Protects the bundled backbones: a new group of families leaves every document of theirs as it was."""
    assert "worked" in world.GROUPS
    drawn = {document(0, i, later=later).family for i in range(300) for later in (False, True)}
    assert not drawn & set(FAMILIES) and _names()["worked"] == FAMILIES


# what every way costs, and where it starts


def small(**more: Any) -> DistilConfig:
    return replace(DistilConfig().quick(), **more)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained prompts, shared by the tests."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def cell(runs: Path) -> Distilled:
    """A few updates of each."""
    (found,) = run_distilling(small(), runs)
    return found


def test_no_start_reads_fewer_positions_than_the_posterior(cell: Distilled) -> None:
    """Equal compute: at most one update more than what the posterior and the run before it read together."""
    config = small()
    whole = cell.cost(POSTERIOR)
    assert whole == pytest.approx(4 * cell.positions[STEPS] + 4 * cell.positions[POSTERIOR])
    for start in config.others:
        assert 0 <= cell.cost(start) - whole < cell.positions[start]
    assert 0 <= cell.cost(OTHER) - whole < cell.positions[ANOTHER]
    assert all(len(cell.of(start)) == config.seeds for start in (STEPS, ANOTHER, *config.starts))
    assert cell.steps_tokens == 6 > config.tokens
    assert cell.positions[STEPS] == pytest.approx(cell.positions[POSTERIOR] + 6)


def test_a_posterior_starts_where_the_run_before_ended(cell: Distilled, runs: Path) -> None:
    """Each seed from its own run, which began with the controlled prior's draw; all on the same data in one order."""
    for start, before in ((POSTERIOR, STEPS), (OTHER, ANOTHER)):
        for here, there in zip(cell.of(start), cell.of(before), strict=True):
            assert here.seed == there.seed and torch.equal(here.drawn, there.trained)
            assert not torch.equal(here.trained, here.drawn) and not torch.equal(there.trained, there.drawn)
    plain = cell.of(small().controlled)
    assert all(torch.equal(a.drawn, b.drawn) for a, b in zip(cell.of(STEPS), plain, strict=True))
    losses = {
        path.name.rsplit("-", 2)[0]: Run(path).metrics()[0]["tokens"]
        for path in (runs / "worked/tiny-llama/worked-sum").iterdir()
        if path.name.rsplit("-", 2)[1] == "0"
    }
    assert len({losses[start] for start in small().starts}) == 1 < losses[STEPS] / losses[POSTERIOR]


def test_what_is_done_is_not_done_again(cell: Distilled, runs: Path, tmp_path: Path) -> None:
    """Found again where it is; stopped among the runs before, it ends with the same numbers as at once."""
    told: list[int] = []
    (again,) = run_distilling(small(), runs, report=lambda progress: told.append(progress.done))
    assert not told and [t.loss for t in again.trials] == [t.loss for t in cell.trials]

    def stop(progress: Any) -> None:
        if progress.done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run_distilling(small(), tmp_path, report=stop))
    (resumed,) = run_distilling(small(), tmp_path)
    assert [t.loss for t in resumed.trials] == pytest.approx([t.loss for t in cell.trials], abs=1e-5)


def test_from_end_to_end(cell: Distilled, runs: Path, rules: Path, tmp_path: Path) -> None:
    """The file is plain JSON, tells every prompt and says what its rule says."""
    found = reproduce("E9", small(), tmp_path, runs, rules)
    evidence = json.loads((tmp_path / "E9.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    assert evidence == found
    trials = [trial for seed in evidence["seeds"] for trial in seed["trials"]]
    assert {t["start"] for t in trials} == {STEPS, ANOTHER, *small().starts} and len(trials) == 2 * 7
    assert all(("right" in t) == (t["start"] == STEPS) for t in trials)
    (judged,) = evidence["cells"].values()
    assert load_rule("E9", rules).verdict(judged["interval"], judged) == (judged["verdict"], judged["reason"])
    updates = {start: facts["updates"] for start, facts in judged["starts"].items()}
    assert {start: curve["updates"][-1] for start, curve in judged["curves"].items()} == {
        start: updates[start] for start in judged["curves"]
    }
    assert json.loads(json.dumps(evidence["config"]))["controlled"] == "fitted-gaussian"


# verdicts on prompts whose truth is known


def planted(
    loss: dict[str, float], right: float = 0.9, looks: dict[str, list[float]] | None = None
) -> Distilled:
    """A cell of made-up trials, a little luck in each; a guess has loss 2 and is right for a tenth."""
    config, dice = DistilConfig(), np.random.default_rng(0)
    trials = []
    for start in (STEPS, ANOTHER, *config.starts):
        for seed in config.numbers:
            seen = tuple((20 * (i + 1), x) for i, x in enumerate((looks or {}).get(start, [1.5, 1.0])))
            ended = loss.get(start, 1.0) + 0.01 * dice.normal()
            trials.append(
                Trial(start, seed, torch.ones(2, 3), torch.zeros(2, 3), ended, 0.5, "finished", seen, 1.0)
            )
    names = (STEPS, ANOTHER, *config.starts)
    asked = dict.fromkeys(config.numbers, right)
    number = dict.fromkeys(names, 10.0), dict.fromkeys(names, 100), asked
    return Distilled("a", "b", tuple(trials), *number, {"loss": 5.0, "accuracy": 0.0}, 2.0, 0.1, 6.0, "cpu")


def judged(cell: Distilled) -> tuple[str, dict[str, Any]]:
    config = DistilConfig()
    found = PosteriorDistils().measure(cell, config)
    numbers = {**cell.common(config), **found.numbers}
    assert found.estimate is not None
    return load_rule("E9").verdict(found.estimate.interval, numbers)[0], {
        **numbers,
        "effect": found.estimate.effect,
    }


@pytest.mark.parametrize(
    ("loss", "verdict"),
    [
        ({POSTERIOR: 0.5}, HOLDS),
        ({POSTERIOR: 1.5}, FAILS),
        ({POSTERIOR: 0.5, "vocabulary": 0.3}, FAILS),  # one draw that is better is enough
        ({POSTERIOR: 0.5, OTHER: 0.4}, UNDECIDED),  # any trained prompt would have done
        (dict.fromkeys(DistilConfig().starts, 2.5), UNDECIDED),  # nothing was learnt
    ],
)  # fmt: skip
def test_finds_what_was_planted(loss: dict[str, float], verdict: str) -> None:
    """Better than all draws, worse, worse than one, no better than an unrelated posterior, and nothing learnt."""
    found, numbers = judged(planted(loss))
    assert found == verdict
    others = [loss.get(start, 1.0) - loss.get(POSTERIOR, 1.0) for start in DistilConfig().others]
    assert numbers["effect"] == pytest.approx(min(others), abs=0.02)


def test_steps_that_were_not_learnt_test_nothing() -> None:
    """A prompt whose answers after its steps are no better than the most frequent one has no chain to distil."""
    assert judged(planted({POSTERIOR: 0.5}, right=0.1))[0] == UNDECIDED


def test_quicker_is_not_better() -> None:
    """At equal updates the posterior leads by what its first looks say; in the end it does not."""
    looks = {start: [1.8] * 10 + [0.9] for start in DistilConfig().others} | {POSTERIOR: [1.2] * 10}
    verdict, numbers = judged(planted({POSTERIOR: 1.5}, looks=looks))
    lead = numbers["leads_at_equal_updates"]["vocabulary"]
    assert verdict == FAILS and lead["effect"] == pytest.approx(0.6)
    assert numbers["curves"]["vocabulary"] == {
        "updates": [20 * i for i in range(1, 12)],
        "loss": [1.8] * 10 + [0.9],
    }


def test_only_the_last_word_is_the_answer() -> None:
    """Right after wrong steps counts, wrong after right ones and nothing at all do not."""
    written = [" 0 2 3 , 3", " 0 1 3 , 1", "", " 3 , 0"]
    assert _end_right(written, [" 0 1 3 , 3"] * 4) == 0.25


def test_a_guess_by_hand() -> None:
    """Two known answers of three and one never seen: frequencies 3/6, 2/6 and 1/6 after Laplace's ones."""
    nats, right = _guess(["1", "1", "2"], ["1", "3"], tokens=4)
    assert nats == pytest.approx(-(math.log(3 / 6) + math.log(1 / 6)) / 4) and right == 0.5


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"starts": (POSTERIOR, OTHER)}, "posteriors only"),
        ({"starts": (POSTERIOR, "vocabulary")}, "other-posterior"),
        ({"controlled": "vocabularies"}, "vocabulary"),
        ({"seeds": 1}, "2 or more"),
    ],
)
def test_studies_that_cannot_be(change: dict[str, Any], sentence: str) -> None:
    """Before anything is trained."""
    with pytest.raises(WorkbenchError, match=sentence):
        DistilConfig(**change)


def test_a_task_without_steps_is_refused(tmp_path: Path) -> None:
    """With what to name instead."""
    with pytest.raises(WorkbenchError, match="add-1 writes no steps"):
        list(run_distilling(small(tasks=("add-1",)), tmp_path))

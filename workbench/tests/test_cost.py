"""The cost before the start: an estimate that changes nothing, and says what a step is."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from workbench.errors import WorkbenchError
from workbench.methods.method import Method
from workbench.methods.soft_prompt import SoftPrompt
from workbench.tasks.task import load_task
from workbench.tests import zoo
from workbench.tests.methods_zoo import MAKERS
from workbench.training.bank import Bank
from workbench.training.config import FitConfig
from workbench.training.cost import Cost, duration, estimate
from workbench.training.fit import fit

TASK = load_task("sentiment", n=40)
CONFIG = FitConfig(steps=4, batch_size=4, evaluate_every=2, validation_examples=4, learning_rate=0.05)


def make(name: str, architecture: str = "llama") -> tuple[Any, Method]:
    backbone = zoo.backbone("rwkv" if name == "initial-state" else architecture)
    return backbone, MAKERS[name](backbone, 0)


def state(method: Method) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in method.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", MAKERS)
def test_an_estimate_changes_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the run that follows: the method, the dice of torch and Python, and the folder are as before."""
    monkeypatch.chdir(tmp_path)
    backbone, method = make(name)
    before, text = state(method), method.text
    torch.manual_seed(5)
    dice, python = torch.get_rng_state(), random.getstate()
    cost = estimate(backbone, method, TASK, CONFIG)
    assert equal(state(method), before)
    assert all(p.grad is None for p in method.parameters()) and method.text is text
    assert torch.equal(torch.get_rng_state(), dice) and random.getstate() == python
    assert not list(tmp_path.iterdir())
    assert cost.parameters == method.parameters_trained > 0


@pytest.mark.parametrize("name", ["soft-prompt", "p-tuning, LSTM", "lora"])
def test_training_after_an_estimate_has_the_same_bits(name: str) -> None:
    """Protects reproducibility: with or without a look at the cost, a run is the same run."""
    ends = []
    for looked in (False, True):
        backbone, method = make(name)
        if looked:
            estimate(backbone, method, TASK, CONFIG)
        losses = [step.loss for step in fit(backbone, method, TASK, CONFIG)]
        ends.append((losses, state(method)))
    assert ends[0][0] == ends[1][0] and equal(ends[0][1], ends[1][1])
    assert not equal(ends[0][1], state(make(name)[1])), "nothing was trained, so nothing was compared"


def test_tokens_are_those_of_the_rows_that_are_trained() -> None:
    """Protects the number a step: counted from the first steps' own batches, accumulation and all, without pads."""
    backbone, method = make("soft-prompt")
    config = FitConfig(steps=9, batch_size=3, accumulation=2, evaluate_every=0)
    cost = estimate(backbone, method, TASK, config)
    batches = Bank(backbone, [method], TASK, config).members[0].batches
    counted = [sum(len(row.ids) for row in batches[number]) for number in range(6)]
    assert cost.tokens_per_step == pytest.approx(sum(counted) / 3)


def test_seconds_grow_with_the_steps_and_the_looks() -> None:
    """Protects the time: all steps, and each look at the validation split where there are any."""
    backbone, method = make("soft-prompt")
    cost = estimate(backbone, method, TASK, FitConfig(steps=1000, batch_size=4, evaluate_every=0))
    assert cost.seconds_per_look == 0
    assert 999 * cost.seconds_per_step < cost.seconds < 999 * cost.seconds_per_step + 60
    often = FitConfig(steps=1001, batch_size=4, evaluate_every=2, validation_examples=60)
    seen = estimate(backbone, method, load_task("sentiment", n=200), often)
    assert seen.seconds_per_look > 0, "sixty rows were read in no time"
    assert seen.seconds == pytest.approx(1000 * seen.seconds_per_step + 501 * seen.seconds_per_look, abs=60)


def test_what_fit_refuses_an_estimate_refuses() -> None:
    """Protects the panel: the sentence comes before the start, not after it."""
    with pytest.raises(WorkbenchError, match="leave pull at 0"):
        estimate(*make("lora"), TASK, FitConfig(pull=1.0))
    backbone = zoo.backbone("llama")
    with pytest.raises(WorkbenchError, match="does not fit into the context of 256"):
        estimate(backbone, SoftPrompt(backbone, tokens=300), TASK, CONFIG)


def test_the_line_says_it_all() -> None:
    assert Cost(3840, 411.6, 0.2, 0.0, 40.2).line == "3,840 parameters · 412 tokens a step · about 40 s"
    assert [duration(seconds) for seconds in (0.2, 40.2, 150, 4200, 7800)] == [
        "1 s",
        "40 s",
        "2 min",
        "70 min",
        "2 h 10 min",
    ]

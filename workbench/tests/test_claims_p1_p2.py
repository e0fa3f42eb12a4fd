"""P1 and P2 measured on stories whose truth is known: a model that forgets, one that does not, curves by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from workbench.backbones.backbone import load_backbone
from workbench.backbones.score import score_stories, story_rows
from workbench.claims import memory as study
from workbench.claims import memory_limits as limits
from workbench.claims.kept import Kept
from workbench.claims.memory import (
    METHODS,
    PLAIN,
    STRENGTHS,
    TOKENS,
    MapsCell,
    MapsConfig,
    MemoryCell,
    MemoryConfig,
    at_strength,
    run_of,
    told,
)
from workbench.claims.memory_limits import ablate, behind, contradicted, followed, only
from workbench.claims.p1 import RecurrentForgets
from workbench.claims.p2 import PRICES, ProSGKeeps, _at_a_cost, _longer
from workbench.claims.rule import load_rule
from workbench.methods.apply import answer_logits
from workbench.methods.method import load_method
from workbench.methods.prompt_bias import PromptBias
from workbench.methods.rereading import Rereading
from workbench.methods.rows import Rows
from workbench.methods.synthetic_gradient import SyntheticGradient
from workbench.tasks.encode import Encoded
from workbench.training.run import Run


def cells(near: float, far: float, spread: float, seed: int) -> list[list[float]]:
    dice = np.random.default_rng(seed)
    found = []
    for clauses in (1, 4, 16):
        for bins, share in ((10, near), (50, near), (200, far), (800, far)):
            found.append([clauses, bins, float(np.clip(share + spread * dice.normal(), 0, 1)), 40])
    return found


def maps(near: float, far: float, attention_far: float, load: float = 0.0) -> MapsCell:
    trials = []
    for seed in range(5):
        for name, last in (("small", far), ("attention", attention_far)):
            of_two = cells(near, last, 0.01, seed)
            whole = [[c, d, m - load * (c == 16), n] for c, d, m, n in of_two]
            trials.append(Kept(name, seed, {"of_two": of_two, "map": whole, "met": 0.8}, 1.0))
    return MapsCell("small", tuple(trials), "cpu")


@pytest.mark.parametrize(
    ("near", "far", "attention", "verdict"),
    [
        (0.95, 0.7, 0.94, "holds"),
        (0.9, 0.95, 0.95, "does not hold"),
        (0.95, 0.7, 0.7, "undecided"),
        (0.4, 0.3, 0.4, "undecided"),
    ],
)
def test_p1_is_judged_by_distance(near: float, far: float, attention: float, verdict: str) -> None:
    """Protects the verdict: forgetting over distance is seen, its opposite refused, and not where attention forgets as well."""
    config = MapsConfig(backbones=("small",), attention="attention")
    found = RecurrentForgets().measure(maps(near, far, attention, load=0.2), config)
    assert found.estimate is not None
    assert found.estimate.effect == pytest.approx(near - far, abs=0.03)
    assert load_rule("P1").verdict(list(found.estimate.interval), found.numbers)[0] == verdict
    assert found.numbers["load"]["effect"] == pytest.approx(0.2, abs=0.03)


def memory_cell(lead: float, hard: int = 200) -> MemoryCell:
    """Curves in which "tokens" has `lead` more memory than a bias that buys memory at a price."""
    trials = []
    for seed in range(5):
        shift = 0.01 * np.random.default_rng(seed).normal()
        for name in (PLAIN, *METHODS):
            curve: list[dict[str, float]] = []
            for step, strength in enumerate(STRENGTHS.get(name, (0.0,))):
                memory = 0.5 + shift
                if name == TOKENS:
                    memory += 0.2 + lead
                elif name == "prompt-bias":
                    memory += 0.2 * (step > 0)
                price = 0.0 if name in (PLAIN, TOKENS) or step == 0 else 0.03 * step
                curve.append(
                    {
                        "strength": strength,
                        "memory": memory,
                        "price": price,
                        "held_out_memory": memory,
                        "held_out_price": price,
                    }
                )
            facts: dict[str, Any] = {
                "curve": curve,
                "hard": hard,
                "map": [[8, 10, 0.5, 9]],
                "parameters": 1,
                "training_seconds": 1.0,
            }
            facts["rereading"] = [{"every": 50, "memory": 0.9, "price": 0.0, "tokens": 1.5}]
            facts["looks"] = [{"step": 1, "cosine layer 0 x": 0.5}]
            trials.append(Kept(name, seed, facts, 1.0))
    return MemoryCell("small", tuple(trials), "cpu")  # fmt: skip


@pytest.mark.parametrize(("lead", "verdict"), [(0.1, "holds"), (-0.1, "does not hold")])
def test_p2_is_judged_at_the_least_lead(lead: float, verdict: str) -> None:
    """Protects the verdict: the bias, which is level only from 0.05 nats on, is the baseline that decides, and only there."""
    cell = memory_cell(lead)
    found = ProSGKeeps().measure(cell, MemoryConfig(backbones=("small",)))
    assert found.estimate is not None
    assert found.estimate.effect == pytest.approx(lead, abs=1e-6)
    assert load_rule("P2").verdict(list(found.estimate.interval), found.numbers)[0] == verdict
    leads = found.numbers["leads"]["prompt-bias"]
    assert leads["0.02"]["effect"] == pytest.approx(0.2 + lead) and leads["0.05"]["effect"] == pytest.approx(
        lead
    )
    assert cell.at("lora", 0.0) == pytest.approx(cell.at(PLAIN, 0.0))
    few = ProSGKeeps().measure(memory_cell(lead, hard=20), MemoryConfig(backbones=("small",)))
    assert load_rule("P2").verdict([0.1, 0.2], few.numbers)[0] == "undecided"
    assert set(PRICES) == {0.0, 0.02, 0.05, 0.1}


def test_stories_are_scored_as_the_card_scores_them() -> None:
    """Protects memory and price: with nothing injected they are `score_stories`'s; with a bias, and read again, they are not."""
    backbone = load_backbone("tiny-rwkv")
    chosen = [(2, 40), (8, 110), (4, 60)]
    rows = story_rows(backbone.tokenizer, chosen, "train", seed=5)
    expected = score_stories(backbone.model, backbone.tokenizer, chosen, "train", seed=5)
    found = told(backbone, rows, batch_tokens=300)
    assert found.recalls == expected.recalls
    assert found.nats() == pytest.approx(expected.nats(), abs=1e-5)
    biased = told(backbone, rows, PromptBias(backbone, bias=6.0).injection())
    assert biased.nats() > found.nats() + 0.1
    again = told(backbone, rows, rereading=Rereading(backbone, 25))
    assert len(again.rest) == len(found.rest) and again.nats() != found.nats()


def test_what_is_trained_has_about_as_many_parameters() -> None:
    """Protects the comparison: LoRA's rank and the state's width are chosen by the parameters of "tokens"."""
    backbone, config = load_backbone("tiny-rwkv"), MemoryConfig(hidden=16)
    sizes = {
        name: study.make(config, backbone, name, 0).parameters_trained for name in (TOKENS, "lora", "state")
    }
    for name in ("lora", "state"):
        assert 0.9 < sizes[name] / sizes[TOKENS] <= 1.0


def test_a_study_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects hours of training: what is there is not made again, and a trial's facts are all that the claim asks for."""
    monkeypatch.setattr(study, "METHODS", (TOKENS, "error", "prompt-bias"))
    monkeypatch.setattr(study, "HARD", 2.0)
    monkeypatch.setattr(study, "map_cells", lambda cases: [(2, 40)] * 10)
    monkeypatch.setattr(study, "CLAUSES", (1, 2, 2, 4))
    monkeypatch.setattr(limits, "RANKS", (1,))
    monkeypatch.setattr(limits, "LARGE", (2.0,))
    study.hard_cells.cache_clear()
    config = MemoryConfig(
        seeds=2, steps=2, align_steps=1, batch_size=2, longest=40, hidden=4, stories=1, cases=8
    )
    (cell,) = study.run_memory(config, tmp_path)
    assert [len(cell.facts(name)) for name in (PLAIN, TOKENS, "error")] == [2, 2, 2]
    facts = cell.facts(TOKENS)[0]
    assert facts["looks"] and facts["training_seconds"] > 0 and len(facts["curve"]) == len(STRENGTHS[TOKENS])
    assert json.dumps(facts)

    backbone, home, early = load_backbone("tiny-rwkv"), tmp_path / "memory" / "tiny-rwkv", 0
    for name in (TOKENS, "prompt-bias"):  # a map is that of the strength beside it
        for seed, facts in zip(config.numbers, cell.facts(name), strict=True):
            method, best = load_method(run_of(config, home, name, seed), backbone), facts["map_strength"]
            rows = story_rows(backbone.tokenizer, study.map_cells(config.cases), "train", 2000 + seed)
            fresh = told(backbone, rows, at_strength(backbone, name, method, best))
            assert fresh.nats() == pytest.approx(facts["map_nats"])
            early += int(best != STRENGTHS[name][-1])
    assert early, "no sweep went on after its best"

    def refuse(*_: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(study, "_trial", refuse)
    (again,) = study.run_memory(config, tmp_path)
    assert [t.facts for t in again.trials] == [t.facts for t in cell.trials]
    assert torch.tensor(again.at(TOKENS, 9.0)).shape == (2,)

    monkeypatch.setattr(limits, "RETRAINED", {"rank 1": {"rank": 1}})
    monkeypatch.setattr(limits, "TAUGHT", {"taught": {"match_steps": 1}})
    monkeypatch.setattr(limits, "SEEDS", 1)
    each = limits.run_limits(config, "tiny-rwkv", tmp_path)
    assert len(each) == 2 and set(each[0]) == {"ablations", "harm"}
    assert each == limits.run_limits(config, "tiny-rwkv", tmp_path)
    anew = limits.run_retrained(config, "tiny-rwkv", tmp_path)
    (rank_one,), (taught,) = anew["rank 1"], anew["taught"]
    assert len(taught["curve"]) == len(STRENGTHS[TOKENS]) and taught["curve"] != rank_one["curve"]
    assert len(rank_one["curve"]) == len(STRENGTHS[TOKENS]) and rank_one["cosines"]
    longer = limits.run_longer(config, "tiny-rwkv", tmp_path)["lora"]
    as_long = replace(config, steps=config.align_steps + config.steps)
    assert [len(f["curve"]) for f in longer] == [len(STRENGTHS["lora"])] * 2
    run = run_of(as_long, tmp_path / "memory" / "tiny-rwkv", "lora", config.numbers[0])
    assert len(Run(run).metrics()) == as_long.steps > config.steps
    beside = _longer(cell, longer)
    assert set(beside["leads"]) == {str(price) for price in PRICES}
    assert beside["curve"][0]["memory"]["effect"] >= 0

    monkeypatch.setattr(limits, "WRITTEN", 1)
    monkeypatch.setattr(limits, "ROUNDS", 1)
    costs = [one["over_plain"] for one in limits.run_costs(config, "tiny-rwkv", tmp_path)]
    assert len(costs) == 2 and all(cost > 0 for cost in costs[0].values())
    again = _at_a_cost(cell, costs)
    assert {one["every"] for one in again["again"]} == set(study.EVERY) and again["nearest"] in study.EVERY
    study.hard_cells.cache_clear()


def test_prompts_that_mislead_are_what_they_say() -> None:
    """Protects the numbers on harm: a clause against another, a second prompt, another text; each where it is scored."""
    backbone = load_backbone("tiny-rwkv")
    (row,), (second,) = (story_rows(backbone.tokenizer, [(4, 60)], "train", seed=s) for s in (1, 2))

    def text(ids: list[int]) -> str:
        return str(backbone.tokenizer.decode(ids)).strip()

    pair = contradicted(backbone, row, Random(0))
    assert pair is not None
    first, last = pair
    for made in pair:
        ((due, begin, end),) = made.due
        assert end == len(made.ids) and made.ids[: made.start] == first.ids[: first.start]
        kept = text(made.ids[made.start : begin])
        assert text(row.ids[row.start :]).startswith(kept)
    due, begin, end = first.due[0]
    other = text(last.ids[begin:])
    assert text(first.ids[begin:]) == due.answer != other
    assert text(first.ids[: first.start]).endswith(f"{due.kind} : {other} . begin :")

    both = followed(row, second)
    assert [text(both.ids[b:e]) for _, b, e in both.due] == [d.answer for d, _, _ in second.due]
    assert text(both.ids[row.start :]).count("write a story") == 1
    assert not behind(backbone, row, "a sentence .").due

    method = SyntheticGradient(backbone, hidden=4)
    config = MemoryConfig(stories=1, cases=2)
    found = ablate(config, backbone, method, 0)
    assert found["rank 1"] != found["whole"] != found["attention.output alone"]
    injection = only(method, {w.name for w in method.writers})
    rows = Rows.collate([Encoded(tuple(row.ids), row.start, 0)])
    with torch.no_grad():
        whole, _ = answer_logits(backbone, rows, method.injection())
        assert torch.equal(answer_logits(backbone, rows, injection)[0], whole)
        assert not torch.equal(answer_logits(backbone, rows, only(method, set()))[0], whole)

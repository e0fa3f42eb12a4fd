"""ProSG: what a prompt makes of the weights, against autograd, finite differences and plain code.

That rows in a batch, in training and in generation get what a plain run of each alone gives, on every architecture, is
tested with all other methods in `test_methods.py`.
"""

from __future__ import annotations

import copy
import gc
import json
import math
import os
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from workbench.analysis.weight_changes import change_table
from workbench.backbones.backbone import Backbone, load_backbone
from workbench.backbones.linear_outputs import LowRank, changed, editing, fold
from workbench.backbones.score import story_rows
from workbench.backbones.writers import find_writers
from workbench.claims.memory import told
from workbench.errors import WorkbenchError
from workbench.methods.apply import Decoder, answer_logits
from workbench.methods.generate import GenerateConfig, generate, stream
from workbench.methods.injection import NOTHING
from workbench.methods.method import load_method
from workbench.methods.prompt_gradient import (
    cosine,
    cut,
    decorrelated,
    read_prompts,
    singular_values,
    true_gradient,
)
from workbench.methods.rows import Rows
from workbench.methods.synthesisers import SHARPNESS, error_change
from workbench.methods.synthetic_gradient import SyntheticGradient, bundled_synthesiser
from workbench.tasks.encode import Encoded, TextConfig, encode
from workbench.tasks.task import load_task
from workbench.tests import zoo
from workbench.tests.methods_zoo import off_its_start
from workbench.tests.test_contracts import TOLERANCE, distance, fingerprint
from workbench.training.config import FitConfig
from workbench.training.fit import fit, resume

CHOSEN = zoo.ARCHITECTURES if os.environ.get("WORKBENCH_EVERY_ARCHITECTURE") else zoo.EVERY_COMMIT
ROWS = [
    Encoded((1, 40, 50, 60, 70, 90, 91), 5, 0),
    Encoded((1, 44, 52, 80, 81, 82, 83), 3, 0),
]
every_backbone = pytest.mark.parametrize("architecture", [a for a in CHOSEN if a != "gemma3_text"])


def ours(backbone: Backbone, **fields: object) -> SyntheticGradient:
    return off_its_start(SyntheticGradient(backbone, hidden=8, **fields), seed=0)  # type: ignore[arg-type]


def by_autograd(backbone: Backbone, row: Encoded, names: list[str]) -> list[Tensor]:
    """The gradient of the prompt's own loss at whole matrices, of one row, with nothing of ours."""
    model = copy.deepcopy(backbone.model)
    weights = [model.get_submodule(name).weight.requires_grad_() for name in names]
    view = backbone.view()
    for name, weight in zip(names, weights, strict=True):
        view.model.get_submodule(name).weight = weight
    ids = torch.tensor([row.ids[: row.answer_start]])
    ones = torch.ones(ids.shape, dtype=torch.bool)
    logits = view.runner(view.embed(ids), ones, torch.arange(ids.shape[1])[None]).logits[0]
    loss = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="sum")
    found = torch.autograd.grad(loss, weights)
    is_turned = [type(model.get_submodule(name)).__name__ == "Conv1D" for name in names]
    return [g.T if turned else g for g, turned in zip(found, is_turned, strict=True)]


@every_backbone
def test_the_true_gradient_is_autograd_s(architecture: str) -> None:
    """Protects what the cosine is measured against, in a batch of prompts of different lengths."""
    backbone = zoo.backbone(architecture)
    method = SyntheticGradient(backbone, source="gradient", step_size=1.0, ridge=0.0)
    made = method.changes(Rows.collate(ROWS))
    names = [w.name for w in method.writers]
    for number, row in enumerate(ROWS):
        for name, expected in zip(names, by_autograd(backbone, row, names), strict=True):
            found = -made[name].dense()[number]
            assert distance(found, expected) < 1e-3, name


@every_backbone
def test_the_error_above_the_last_block_is_exact_at_its_last_writer(architecture: str) -> None:
    """Protects "error": the vector-Jacobian product through norm and head, and the factor that a writer's output is given.

    Where nothing follows a writer but the sum, the error handed to it is the gradient; with the factor left out it is not.
    """
    backbone = zoo.backbone(architecture)
    method = SyntheticGradient(backbone, source="error", step_size=1.0)
    last = [w for w in method.writers if w.layer == backbone.num_layers - 1]
    reading = read_prompts(method.view, method.writers, Rows.collate(ROWS))
    true = true_gradient(method.view, method.writers, Rows.collate(ROWS))
    close = {w.name: float(cosine(error_change(reading, w, 1.0), true[w.name]).min()) for w in last}
    exact = max(close, key=close.__getitem__)
    assert close[exact] > 1 - 1e-4
    change = error_change(reading, next(w for w in last if w.name == exact), 1.0)
    assert distance(change.dense(), true[exact].dense()) < 1e-3
    writer = next(w for w in last if w.name == exact)
    if writer.gate is not None:
        without = LowRank(-reading.error.transpose(1, 2), reading.inputs[exact])
        assert float(cosine(without, true[exact]).max()) < 0.999


@pytest.mark.parametrize("architecture", zoo.ARCHITECTURES)
def test_writers_are_what_adds_to_the_residual_stream(architecture: str) -> None:
    """Protects the search by trying: two for each plain block, none behind a norm, RWKV's gate found as a sigmoid."""
    found = find_writers(zoo.backbone(architecture))
    if architecture == "gemma3_text":
        assert found == ()
        return
    assert {w.layer for w in found} == set(range(zoo.backbone(architecture).num_layers))
    if architecture == "rwkv":
        gated = [w for w in found if w.gate]
        assert [w.within for w in gated] == ["feed_forward.value"] * 3
        assert {(w.gate or "").split(".", 3)[-1] for w in gated} == {"feed_forward.receptance"}
        assert {w.activation for w in gated} == {"sigmoid"}
        assert [w.within for w in found if not w.gate] == ["attention.output"] * 3
    if architecture == "llama":
        assert [w.within for w in found] == ["self_attn.o_proj", "mlp.down_proj"] * 3


@pytest.mark.parametrize("source", ["tokens", "state"])
def test_finite_differences_confirm_the_gradients(source: str) -> None:
    """Protects training: in float64, the slope of the response's loss along a random direction, for every trained tensor."""
    backbone = zoo.backbone("rwkv")
    method = ours(backbone, source=source, alpha=3.0)
    rows = Rows.collate(ROWS)

    def loss() -> Tensor:
        logits, targets = answer_logits(backbone, rows, method.injection())
        return torch.nn.functional.cross_entropy(logits, targets)

    names, tensors = zip(*method.named_parameters(), strict=True)
    found = torch.autograd.grad(loss(), tensors)
    dice = torch.Generator().manual_seed(1)
    for name, tensor, gradient in zip(names, tensors, found, strict=True):
        assert tensor.dtype == torch.float64
        way = torch.randn(tensor.shape, generator=dice, dtype=torch.float64)
        with torch.no_grad():
            step = 1e-5
            tensor.add_(step * way)
            above = loss()
            tensor.sub_(2 * step * way)
            below = loss()
            tensor.add_(step * way)
        slope, expected = float((gradient * way).sum()), float(above - below) / (2 * step)
        assert abs(slope - expected) < 1e-5 * max(1e-3, abs(expected)), name
    assert max(float(g.abs().max()) for g in found) > 1e-4


def test_gradients_reach_the_synthesiser_and_nothing_else() -> None:
    """Contract 2: the backbone has no gradient and keeps its bits, while its view is trained on and generated with."""
    backbone = zoo.backbone("rwkv")
    before = fingerprint(backbone)
    method = ours(backbone)
    logits, targets = answer_logits(backbone, Rows.collate(ROWS), method.injection())
    torch.nn.functional.cross_entropy(logits, targets).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in method.parameters())
    for model in (backbone.model, method.view.model):
        assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    generate(backbone, ["one", "two and more"], method, GenerateConfig(max_new_tokens=4))
    assert fingerprint(backbone) == before


@pytest.mark.parametrize("source", ["tokens", "error", "gradient", "state"])
def test_the_answer_is_not_read(source: str) -> None:
    """Protects every score: a change is made of the prompt alone, whatever stands behind it."""
    backbone = zoo.backbone("rwkv")
    method = ours(backbone, source=source)
    other = [Encoded((*row.ids[: row.answer_start], *[99] * 9), row.answer_start, 0) for row in ROWS]
    with torch.no_grad():
        one, two = method.changes(Rows.collate(ROWS)), method.changes(Rows.collate(other))
        moved = method.changes(
            Rows.collate([Encoded((1, 41, *row.ids[2:]), row.answer_start, 0) for row in ROWS])
        )
    for name, change in one.items():
        assert distance(change.dense(), two[name].dense()) < 1e-6
        assert distance(change.dense(), moved[name].dense()) > 1e-3


def test_training_starts_from_the_error_or_from_the_plain_model() -> None:
    """Protects the start: an untrained "tokens" is "error", an untrained "state" changes nothing."""
    backbone, rows = zoo.backbone("rwkv"), Rows.collate(ROWS)
    tokens = SyntheticGradient(backbone, hidden=8)
    error = SyntheticGradient(backbone, source="error")
    with torch.no_grad():
        for name, change in tokens.changes(rows).items():
            assert distance(change.dense(), error.changes(rows)[name].dense()) < 1e-6
        plain = answer_logits(backbone, rows)[0]
        state = SyntheticGradient(backbone, source="state", hidden=8)
        assert torch.equal(answer_logits(backbone, rows, state.injection())[0], plain)
        assert distance(answer_logits(backbone, rows, error.injection())[0], plain) > 1e-3


@every_backbone
@pytest.mark.parametrize("source", ["tokens", "state"])
def test_training_and_generation_read_the_same_weights(architecture: str, source: str) -> None:
    """A greedy text is the likeliest at each token of one pass over it; folded for one prompt, by factors for several."""
    backbone = zoo.backbone(architecture)
    if source == "state" and backbone.kind == "attention":
        with pytest.raises(WorkbenchError, match=f"small-{architecture}"):
            ours(backbone, source=source)
        return
    method = ours(backbone, source=source, alpha=30.0, step_size=100.0)
    config = GenerateConfig(max_new_tokens=6)
    prompts = ["a prompt", "another one, longer", "a third"]
    together = generate(backbone, prompts, method, config)
    assert together == [generate(backbone, [prompt], method, config)[0] for prompt in prompts]
    assert together == ["".join(stream(backbone, prompt, method, config)) for prompt in prompts]

    ids = torch.tensor([[1, 40, 50, 60, 70]])
    rows = Rows(ids, torch.tensor([5]), torch.tensor([5]), torch.tensor([0]))
    with torch.no_grad():
        decoder = Decoder(backbone, rows, method.injection())
        found = [decoder.next_logits()]
        for token in (7, 8, 9):
            decoder.feed(torch.tensor([token]))
            found.append(decoder.next_logits())
        whole = Rows.collate([Encoded((1, 40, 50, 60, 70, 7, 8, 9, 0), 5, 0)])
        expected, _ = answer_logits(backbone, whole, method.injection())
        assert distance(torch.cat(found), expected) < TOLERANCE
        assert distance(answer_logits(backbone, whole)[0], expected) > 100 * TOLERANCE


def test_a_fold_shares_what_is_unchanged_and_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contract 2: the view of one generation is gone when it is done, and when it raises; the factors stay out of it."""
    from workbench.methods import apply

    backbone = zoo.backbone("llama")
    method = ours(backbone)
    seen: list[weakref.ref[torch.nn.Module]] = []
    shared = []

    def noted(model: torch.nn.Module, changes: dict[str, LowRank]) -> None:
        fold(model, changes)
        seen.append(weakref.ref(model))
        own = dict(backbone.model.named_parameters())
        shared.append({n for n, p in model.named_parameters() if p.data_ptr() != own[n].data_ptr()})

    monkeypatch.setattr(apply, "fold", noted)
    generate(backbone, ["one prompt"], method, GenerateConfig(max_new_tokens=3))
    assert shared == [{f"{w.name}.weight" for w in method.writers}]

    class Raised(RuntimeError):
        pass

    def choose(*_: object) -> Tensor:
        raise Raised

    monkeypatch.setattr("workbench.methods.generate.choose", choose)
    with pytest.raises(Raised):
        generate(backbone, ["one prompt"], method, GenerateConfig(max_new_tokens=3))
    generate_many = len(seen)
    gc.collect()
    assert generate_many == 2 and [model() for model in seen] == [None, None]


def test_cut_is_the_nearest_of_its_rank() -> None:
    """Against LAPACK's whole decomposition, row by row; the gradient where nothing is cut is the whole one."""
    dice = torch.Generator().manual_seed(0)
    change = LowRank(
        torch.randn(2, 12, 7, generator=dice, dtype=torch.float64),
        torch.randn(2, 7, 9, generator=dice, dtype=torch.float64),
    )
    for row in range(2):
        u, s, v = torch.linalg.svd(change.dense()[row])
        for rank in (1, 3, 7, 9):
            expected = u[:, :rank] @ torch.diag(s[:rank]) @ v[:rank]
            assert distance(cut(change, rank).dense()[row], expected) < 1e-12
        assert distance(singular_values(change)[row], s[:7]) < 1e-12
    share = singular_values(change)[:, :2].square().sum(1) / singular_values(change).square().sum(1)
    torch.testing.assert_close(cosine(cut(change, 2), change), share.sqrt())

    up = torch.zeros(1, 12, 7, dtype=torch.float64)  # of rank 2, as a short prompt's is beside a long one's
    up[:, :, :2] = change.up[:1, :, :2]
    down = change.down[:1].clone()
    weight = torch.randn(12, 9, generator=dice, dtype=torch.float64)
    gradients = []
    for rank in (0, 2, 3):
        leaves = [up.clone().requires_grad_(), down.clone().requires_grad_()]
        (cut(LowRank(*leaves), rank).dense() * weight).sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    for found in gradients[1:]:
        torch.testing.assert_close(found[0][:, :, :2], gradients[0][0][:, :, :2])
        torch.testing.assert_close(found[1], gradients[0][1])


def test_a_change_is_added_where_the_gate_is_open() -> None:
    """Protects the token from which a prompt acts: with the gate one position off the logits are others."""
    backbone = zoo.backbone("llama")
    method = ours(backbone)
    rows = Rows.collate(ROWS[:1])
    with torch.no_grad():
        changes = method.changes(rows)
        expected, _ = answer_logits(backbone, rows, method.injection())
        embedded, ones = backbone.embed(rows.ids[:, :-1]), torch.ones(1, 6, dtype=torch.bool)
        for begin, same in ((4, True), (3, False), (5, False)):
            gate = (torch.arange(6) >= begin)[None]
            with editing(changed(changes, gate)):
                logits = method.view.runner(embedded, ones, torch.arange(6)[None]).logits[0, 4:]
            assert (distance(logits, expected) < TOLERANCE) is same


def test_a_forgotten_prompt_is_not_read() -> None:
    """`forget`: the rest is read behind BOS and the prompt's last token alone, and so differs by the weights only."""
    backbone = zoo.backbone("llama")
    row = ROWS[0]
    short = Encoded((row.ids[0], *row.ids[row.answer_start - 1 :]), 2, 0)
    with torch.no_grad():
        off = SyntheticGradient(backbone, source="error", forget=True, step_size=1e-12)
        logits, targets = answer_logits(backbone, Rows.collate(ROWS), off.injection())
        expected, same = answer_logits(backbone, Rows.collate([short]), NOTHING)
        assert targets[: len(same)].tolist() == same.tolist()
        assert distance(logits[: len(same)], expected) < TOLERANCE
        on = ours(backbone, forget=True)
        assert distance(answer_logits(backbone, Rows.collate(ROWS), on.injection())[0], logits) > 1e-2
    config = GenerateConfig(max_new_tokens=4)
    both = generate(backbone, ["a prompt", "a longer prompt"], on, config)
    assert both == [generate(backbone, [p], on, config)[0] for p in ("a prompt", "a longer prompt")]


def test_decorrelated_keys_answer_to_their_own_token() -> None:
    """Protects the ridge: against the normal equations by hand; what all tokens share is answered less, what sets one apart as before."""
    dice = torch.Generator().manual_seed(0)
    own, common = torch.eye(6, 20, dtype=torch.float64), torch.ones(20, dtype=torch.float64)
    x = (own + common)[None]
    real = torch.ones(1, 6, dtype=torch.bool)
    size = float(x.square().sum(-1).mean())
    expected = 5 * torch.linalg.inv(x[0] @ x[0].T / size + 5 * torch.eye(6)) @ x[0] / size
    assert distance(decorrelated(x, real, 5.0)[0], expected) < 1e-12
    assert distance(decorrelated(x, real, 1e9)[0], x[0] / size) < 1e-6
    keys = decorrelated(x, real, 0.01)[0] @ x[0].T
    plain = x[0] @ x[0].T / size
    for scores, sharp in ((keys, True), (plain, False)):
        others = (scores.sum() - scores.trace()) / 30
        assert bool(scores.trace() / 6 > 3 * others.abs()) is sharp
    padded = torch.cat([x, torch.randn(1, 3, 20, generator=dice) * 0], 1)
    mask = torch.cat([real, ~real[:, :3]], 1)
    assert distance(decorrelated(padded, mask, 5.0)[0, :6], expected) < 1e-12


def test_strength_is_a_factor_of_every_change() -> None:
    """Protects sweeps: half the strength is half the change, none is the plain model."""
    backbone, rows = zoo.backbone("rwkv"), Rows.collate(ROWS)
    method = ours(backbone)
    with torch.no_grad():
        whole = method.changes(rows)
        method.strength = 0.5
        for name, change in method.changes(rows).items():
            assert distance(change.dense(), 0.5 * whole[name].dense()) < 1e-9
        method.strength = 0.0
        logits, _ = answer_logits(backbone, rows, method.injection())
        assert torch.equal(logits, answer_logits(backbone, rows)[0])


def test_matching_brings_the_change_to_the_true_gradient(tmp_path: Path) -> None:
    """The first stage raises the cosine, and a run writes it down for every matrix, beside the highest that the rank allows."""
    backbone = zoo.backbone("rwkv")
    task = load_task("find-person", n=40)
    method = SyntheticGradient(backbone, hidden=16, rank=2, match_steps=40, layers=(0,))
    config = FitConfig(steps=42, learning_rate=0.05, batch_size=4, evaluate_every=10, validation_examples=8)
    for _ in fit(backbone, method, task, config, run_dir=tmp_path / "run"):
        pass
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    looks = [line["validation"] for line in lines if "validation" in line]
    places = ("layer 0 attention.output", "layer 0 feed_forward.value")
    for look in looks:
        assert all(look[f"cosine {p}"] <= look[f"highest cosine {p}"] + 1e-6 <= 1 + 1e-5 for p in places)
    means = [sum(look[f"cosine {p}"] for p in places) for look in looks]
    assert means[3] > means[0] + 0.05
    assert lines[0]["loss"] < 2 and lines[-1]["loss"] > 2  # 1 - cosine, then nats


def test_the_copying_loss_is_that_of_plain_loops() -> None:
    """Protects the first stage: what counts as said again, whose key is to answer, and that pads and other rows are left out."""
    backbone = zoo.backbone("rwkv")
    method = ours(backbone)
    rows = [
        Encoded((1, 40, 50, 60, 40, 70, 90, 50, 40, 91), 5, 0),  # 50 once more; 40 stands twice in the prompt
        Encoded((1, 44, 52, 80, 44, 82), 3, 0),
        Encoded((1, 44, 52, 80, 81), 3, 0),
    ]
    found = method.objective_of_keys(Rows.collate(rows))
    terms: dict[str, tuple[list[Tensor], ...]] = {w.name: ([], [], []) for w in method.writers}
    for row in rows:
        whole = Rows.collate([Encoded(row.ids, len(row.ids), 0)])
        asked = read_prompts(method.view, method.writers, Rows.collate([row]))
        read = read_prompts(method.view, method.writers, whole)
        for part in method.synthesisers:
            keys = part.read(asked)[1][0]  # type: ignore[operator]
            name = part.writer.name  # type: ignore[union-attr]
            for s in range(row.answer_start - 1, len(row.ids) - 1):
                scores = keys @ read.inputs[name][0, s]
                places = [t for t in range(row.answer_start - 1) if row.ids[t + 1] == row.ids[s + 1]]
                wanted = torch.zeros(len(keys), dtype=torch.float64)
                if len(places) == 1:
                    wanted[places[0]] = 1.0
                    terms[name][2].append(-torch.log_softmax(SHARPNESS * scores, 0)[places[0]])
                terms[name][len(places) != 1].append((scores - wanted).square().sum())
    losses = [torch.stack([torch.stack(term).mean() for term in each]).sum() for each in terms.values()]
    assert [len(a) for a, *_ in terms.values()] == [2] * len(losses)
    assert float(found.detach()) == pytest.approx(float(torch.stack(losses).mean().detach()), rel=1e-6)


def test_aligned_keys_find_what_is_said_again(tmp_path: Path) -> None:
    """Protects what the stage is for: on stories that it has not seen, keys answer to copies more than they did, and the run says so."""
    backbone = load_backbone("tiny-rwkv", device="cpu")
    method = SyntheticGradient(backbone, hidden=16, align_steps=30)
    text = TextConfig(train_eos=False)
    fresh = load_task("stories", n=8, split="test", clauses=4)
    rows = Rows.collate([encode(fresh[at], backbone.tokenizer, text) for at in range(8)])
    before = float(method.objective_of_keys(rows).detach())
    config = FitConfig(steps=31, learning_rate=0.015, batch_size=4, evaluate_every=0, text=text)
    for _ in fit(backbone, method, load_task("stories", n=124, clauses=4), config, run_dir=tmp_path / "run"):
        pass
    losses = [
        json.loads(line)["loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert float(method.objective_of_keys(rows).detach()) < 0.9 * before
    assert max(losses[25:30]) < min(losses[:3]) and losses[30] != pytest.approx(losses[29], rel=0.1)


def test_the_bundled_synthesiser_keeps_what_the_plain_model_loses() -> None:
    """Protects the notebook's first picture: on stories of neither training, with many clauses, at next to no price."""
    backbone = load_backbone("tiny-rwkv", device="cpu")
    method = bundled_synthesiser(backbone)
    rows = story_rows(backbone.tokenizer, [(12, 160), (16, 210)] * 6, "train", seed=90)
    plain, ours = told(backbone, rows), told(backbone, rows, method.injection())
    assert len(plain.recalls) > 150
    assert ours.share() > max(0.93, plain.share() + 0.2)
    assert ours.nats() < plain.nats() + 0.05


def test_a_teacher_is_matched_in_place_of_the_true_gradient() -> None:
    """Protects "state", which learns from the others: while it matches, what is lowered is 1 - cosine to the teacher."""
    backbone, rows = zoo.backbone("rwkv"), Rows.collate(ROWS)
    student, teacher = ours(backbone, source="state", match_steps=2), ours(backbone, source="error")
    own = student.objective(rows, 0)
    student.teacher = teacher
    taught = student.objective(rows, 1)
    assert own is not None and taught is not None and student.objective(rows, 2) is None
    made, given = student.changes(rows), teacher.changes(rows)
    expected = [1 - cosine(made[w.name], given[w.name]).mean() for w in student.writers]
    assert float(taught.detach()) == pytest.approx(float(torch.stack(expected).mean().detach()))
    assert float(own.detach()) != pytest.approx(float(taught.detach()))
    assert all(
        g is not None for g in torch.autograd.grad(taught, list(student.parameters()), allow_unused=True)
    )


def taught(backbone: Backbone, teacher: SyntheticGradient | None, **fields: object) -> SyntheticGradient:
    """A small student with its teacher."""
    student = SyntheticGradient(backbone, source="state", hidden=4, **{"match_steps": 3, **fields})  # type: ignore[arg-type]
    student.teacher = teacher
    return student


def test_a_teacher_is_no_part_of_its_student(tmp_path: Path) -> None:
    """Contract 3 and 5 with a teacher that has parameters: they are not trained, counted or saved with the student, and a run
    that was left while it matched ends with the same bits once the teacher is set again."""
    backbone, task = load_backbone("tiny-rwkv", device="cpu"), load_task("find-person", n=24)
    teacher = off_its_start(SyntheticGradient(backbone, hidden=4), seed=1)
    before = copy.deepcopy(teacher.state_dict())
    config = FitConfig(steps=4, batch_size=2, learning_rate=0.05, evaluate_every=0, checkpoint_every=1)
    whole, part = taught(backbone, teacher), taught(backbone, teacher)
    assert whole.teacher is teacher and whole.parameters_trained == taught(backbone, None).parameters_trained
    for _ in fit(backbone, whole, task, config, run_dir=tmp_path / "whole"):
        pass
    for step in fit(backbone, part, task, config, run_dir=tmp_path / "part"):
        if step.index == 2:
            break
    again = taught(backbone, teacher)
    for _ in fit(backbone, again, task, config, run_dir=tmp_path / "part", resume=True):
        pass
    loaded = load_method(tmp_path / "part", backbone)
    alone = taught(backbone, None)
    for _ in fit(backbone, alone, task, config):
        pass
    for name, tensor in whole.state_dict().items():
        assert all(torch.equal(tensor, other.state_dict()[name]) for other in (again, loaded))
    assert whole.state_dict().keys() == alone.state_dict().keys() == loaded.state_dict().keys()
    assert any(not torch.equal(t, alone.state_dict()[name]) for name, t in whole.state_dict().items())
    assert all(torch.equal(t, teacher.state_dict()[name]) for name, t in before.items())


def test_a_run_with_a_teacher_does_not_go_on_without_it(tmp_path: Path) -> None:
    """Protects contract 3 where the configuration does not say all: while there is something to match, no other teacher and
    none is gone on with; afterwards nobody asks for it."""
    backbone, task = load_backbone("tiny-rwkv", device="cpu"), load_task("find-person", n=24)
    config = FitConfig(steps=3, batch_size=2, evaluate_every=0, checkpoint_every=1)
    teachers = [SyntheticGradient(backbone, hidden=4, seed=seed) for seed in (1, 1, 2)]
    off_its_start(teachers[1], seed=5)

    def leave(at: int, teacher: SyntheticGradient | None, name: str) -> Path:
        student = taught(backbone, teacher, match_steps=2)
        for step in fit(backbone, student, task, config, run_dir=tmp_path / name):
            if step.index == at:
                break
        return tmp_path / name

    def go_on(run: Path, teacher: SyntheticGradient | None) -> int:
        student = taught(backbone, teacher, match_steps=2)
        return len(list(fit(backbone, student, task, config, run_dir=run, resume=True)))

    run = leave(1, teachers[0], "matching")
    with pytest.raises(WorkbenchError, match=r"was started with a teacher, .*; set `teacher` .* to the same"):
        list(resume(run, device="cpu"))
    for other in teachers[1:]:  # of other weights, of another configuration
        with pytest.raises(WorkbenchError, match="was started with another teacher"):
            go_on(run, other)
    assert go_on(run, teachers[0]) == 2
    assert len(list(resume(leave(2, teachers[0], "matched"), device="cpu"))) == 1
    plain = leave(1, None, "plain")
    with pytest.raises(WorkbenchError, match=r"was started without a teacher, .*; set `teacher` .* to None"):
        go_on(plain, teachers[0])
    assert len(list(resume(plain, device="cpu"))) == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["tiny-rwkv", "tiny-llama"])
def test_half_precision_backbones_are_served(name: str, dtype: torch.dtype) -> None:
    """Protects large models, which come in bfloat16 or float16: every source is finite, near to what it is in float32, measured
    and trained. Squares of a gradient's numbers leave the range of float16, so norms in it would be infinite."""
    exact, backbone = load_backbone(name, device="cpu"), load_backbone(name, device="cpu", dtype=dtype)
    task, text = load_task("find-person", n=8), TextConfig()
    rows = Rows.collate([encode(task.examples("train")[at], backbone.tokenizer, text) for at in range(4)])
    sources: list[dict[str, object]] = [
        {"source": "error"},
        {"source": "error", "ridge": 0.0, "step_size": 0.1, "rank": 2},
        {"source": "gradient", "steps": 2},
        {"source": "tokens", "match_steps": 1},
        {"source": "tokens", "ridge": 0.0, "step_size": 0.1, "rank": 2},
        {"source": "state", "match_steps": 1},
    ]
    for fields in sources[: 6 if name == "tiny-rwkv" else 5]:
        method, like = (SyntheticGradient(b, hidden=4, **fields) for b in (backbone, exact))  # type: ignore[arg-type]
        table, expected = change_table(method, rows), change_table(like, rows)
        numbers = table[["norm", "relative", "cosine"]].to_numpy()
        assert np.isfinite(numbers).all(), fields
        assert float((table["cosine"] - expected["cosine"]).abs().mean()) < 0.1, fields
        np.testing.assert_allclose(table["norm"].mean(), expected["norm"].mean(), rtol=0.1)
        assert all(math.isfinite(value) for value in method.measure(rows).values()), fields
        if method.parameters_trained:
            config = FitConfig(steps=2, batch_size=2, evaluate_every=1, validation_examples=2)
            for step in fit(backbone, method, task, config):
                assert step.validation is not None and all(map(math.isfinite, step.validation.values()))


def test_one_layer_and_one_matrix_may_stand_for_themselves() -> None:
    """Protects the shortest way to say it: a number is one layer, a word one matrix, as for a LoRA."""
    method = SyntheticGradient(zoo.backbone("rwkv"), source="error", layers=0, matrices="attention.output")  # type: ignore[arg-type]
    assert [w.place for w in method.writers] == ["layer 0 attention.output"]
    assert (method.config.layers, method.config.matrices) == ((0,), ("attention.output",))


@pytest.mark.parametrize(
    ("architecture", "fields", "sentence"),
    [
        ("llama", {"source": "state"}, "small-llama"),
        ("llama", {"source": "stat"}, "did you mean 'state'"),
        ("llama", {"rank": 33}, "rank 33 is larger than the matrix layer 0 self_attn.o_proj of small-llama allows, 32"),
        ("llama", {"layers": (3,)}, "small-llama has no layer 3; it has 3"),
        ("llama", {"matrices": ("o_prj",)}, "o_prj"),
        ("llama", {"step_size": 0.0}, "step_size and alpha must be above 0"),
        ("rwkv", {"source": "error", "align_steps": 3}, '"error" has no keys to train'),
        ("llama", {"rank": 2.5}, "rank of a synthetic gradient is 2.5; it must be a whole number"),
        ("llama", {"layers": 0.5}, "layers of a synthetic gradient is (0.5,); it must be a list, each of it a whole number"),
        ("llama", {"matrices": 0}, "matrices of a synthetic gradient is (0,); it must be a list, each of it text"),
        ("gemma3_text", {}, "no matrix of small-gemma3_text"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_in_one_sentence(
    architecture: str, fields: dict[str, object], sentence: str
) -> None:
    """Protects the first minute: what is wrong, where, and what to do."""
    with pytest.raises(WorkbenchError) as refused:
        SyntheticGradient(zoo.backbone(architecture), **fields)  # type: ignore[arg-type]
    assert sentence in str(refused.value) and "\n" not in str(refused.value)


def test_a_prompt_of_one_token_has_no_gradient() -> None:
    """Protects generation from an empty prompt: BOS alone predicts nothing of the prompt's own, and is no word of it."""
    backbone = zoo.backbone("llama")
    method = SyntheticGradient(backbone, source="error")
    with pytest.raises(WorkbenchError, match="prompt 1 is empty, and a gradient needs two tokens"):
        generate(backbone, ["some words", ""], method)
    one = torch.ones(1, dtype=torch.long)
    with pytest.raises(WorkbenchError, match=r"prompt 0 has 1 token, and .*; write a longer prompt"):
        method.changes(Rows(torch.tensor([[40, 50]]), 2 * one, one, 0 * one))

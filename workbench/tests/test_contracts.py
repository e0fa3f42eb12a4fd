"""The contracts of every method on every backbone, each with a mistake made on purpose that must be seen.

Architectures: three on every run, all of them where WORKBENCH_EVERY_ARCHITECTURE is set (`.ci/run` sets it).
"""

from __future__ import annotations

import hashlib
import os
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.backbones.backbone import Backbone
from workbench.methods import priors
from workbench.methods.apply import Decoder, answer_logits
from workbench.methods.generate import GenerateConfig, generate
from workbench.methods.injection import NOTHING, Injection
from workbench.methods.method import load_method
from workbench.methods.rows import Rows
from workbench.methods.soft_prompt import SoftPrompt
from workbench.tasks.encode import Encoded
from workbench.tests import zoo

CHOSEN = zoo.ARCHITECTURES if os.environ.get("WORKBENCH_EVERY_ARCHITECTURE") else zoo.EVERY_COMMIT
CHOSEN = (*CHOSEN, zoo.WITHOUT_CACHE)
TOLERANCE = 1e-5  # of the largest logit
PROMPT = 4

every_backbone = pytest.mark.parametrize("architecture", CHOSEN)


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference as a share of the largest logit."""
    return float((a - b).abs().max() / b.abs().max())


def prompt_for(backbone: Backbone, seed: int = 0) -> SoftPrompt:
    return SoftPrompt(backbone, tokens=PROMPT, prior=priors.Vocabulary(), seed=seed)


def alone(backbone: Backbone, row: Encoded, injection: Injection) -> torch.Tensor:
    """The reference: one row, one run, no padding, no cache, every position through the head, in plain code."""
    tokens = backbone.embed(torch.tensor(row.ids))
    parts = [tokens[: row.prompt_at], tokens[row.prompt_at :]]
    if injection.input_embeddings is not None:
        parts.insert(1, injection.input_embeddings[0])
    whole = torch.cat(parts)[None]
    mask = torch.ones(whole.shape[:2], dtype=torch.bool)
    logits = backbone.runner(whole, mask, torch.arange(whole.shape[1])[None]).logits[0]
    return logits[row.answer_start + injection.length - 1 : -1]


@st.composite
def ragged_rows(draw: st.DrawFn, place: str = "any") -> list[Encoded]:
    """A few rows of different lengths, their prompts at the same or at different places."""
    rows = []
    for _ in range(draw(st.integers(2, 4))):
        ids = draw(st.lists(st.integers(3, 250), min_size=3, max_size=14))
        start = draw(st.integers(1, len(ids) - 1))
        at = draw(st.integers(0, start)) if place == "any" else 0
        rows.append(Encoded((1, *ids), start + 1, at))
    return rows


@every_backbone
@pytest.mark.parametrize("place", ["any", "front"])
@given(data=st.data())
def test_batching_changes_nothing(architecture: str, place: str, data: st.DataObject) -> None:
    """Contract 1: a row's answer logits are those of the row alone, wherever its prompt stands."""
    backbone = zoo.backbone(architecture)
    injection = prompt_for(backbone).injection()
    rows = data.draw(ragged_rows(place))
    with torch.no_grad():
        expected = torch.cat([alone(backbone, row, injection) for row in rows])
        for share in (True, False):
            logits, targets = answer_logits(backbone, Rows.collate(rows), injection, share_prefix=share)
            assert distance(logits, expected) < TOLERANCE
            assert targets.tolist() == [token for row in rows for token in row.ids[row.answer_start :]]


@every_backbone
def test_batching_test_sees_mistakes(architecture: str) -> None:
    """The test above would see a dropped prompt, one token let in, and a wrong place: 1,000 times its tolerance."""
    backbone = zoo.backbone(architecture)
    injection = prompt_for(backbone).injection()
    row = Encoded((1, 40, 50, 60, 70, 80, 90), 4, 1)
    with torch.no_grad():
        right = alone(backbone, row, injection)
        broken = {
            "prompt dropped": alone(backbone, row, NOTHING),
            "one pad let in": alone(backbone, Encoded((0, *row.ids), 5, 2), injection),
            "prompt one token later": alone(backbone, Encoded(row.ids, 4, 2), injection),
        }
    for mistake, logits in broken.items():
        assert distance(logits, right) > 1000 * TOLERANCE, mistake


@every_backbone
@given(data=st.data())
def test_gradient_is_that_of_rows_alone(architecture: str, data: st.DataObject) -> None:
    """Contract 1, for training: the shared prefix and the cut head give the prompt the gradient of plain runs."""
    backbone = zoo.backbone(architecture)
    method = prompt_for(backbone)
    rows = data.draw(ragged_rows("front"))

    def gradient(logits: torch.Tensor) -> torch.Tensor:
        targets = torch.tensor([token for row in rows for token in row.ids[row.answer_start :]])
        loss = torch.nn.functional.cross_entropy(logits, targets)
        return torch.autograd.grad(loss, method.embeddings)[0]

    expected = gradient(torch.cat([alone(backbone, row, method.injection()) for row in rows]))
    found = gradient(answer_logits(backbone, Rows.collate(rows), method.injection())[0])
    assert float((found - expected).norm() / expected.norm()) < 1e-4


@every_backbone
@given(data=st.data())
def test_decoding_is_that_of_rows_alone(architecture: str, data: st.DataObject) -> None:
    """Contract 1, for generation: prefill, feeding and dropping rows give the logits of one unbroken run."""
    backbone = zoo.backbone(architecture)
    injection = prompt_for(backbone).injection()
    rows = [Encoded(r.ids, len(r.ids), r.prompt_at) for r in data.draw(ragged_rows())]
    fed = data.draw(st.lists(st.lists(st.integers(3, 250), min_size=2, max_size=2), min_size=4, max_size=4))
    with torch.no_grad():
        decoder = Decoder(backbone, Rows.collate(rows), injection)
        for step in range(3):
            active = decoder.active
            for row, logits in zip(active, decoder.next_logits(), strict=True):
                ids = (*rows[row].ids, *(fed[row][:step]))
                expected = alone(backbone, Encoded((*ids, 0), len(ids), rows[row].prompt_at), injection)[0]
                assert distance(logits, expected) < TOLERANCE
            if step == 1:
                decoder.drop({0})
            if step < 2:
                decoder.feed(torch.tensor([fed[row][step] for row in decoder.active]))


@every_backbone
def test_generated_text_does_not_depend_on_neighbours(architecture: str) -> None:
    """Contract 1, in words: greedy and sampled texts are the same alone and in a batch."""
    backbone = zoo.backbone(architecture)
    method = prompt_for(backbone)
    prompts = ["a fox", "one much longer prompt", "mid size"]
    for config in (
        GenerateConfig(max_new_tokens=6),
        GenerateConfig(max_new_tokens=6, temperature=1.0, top_p=0.9),
    ):
        together = generate(backbone, prompts, method, config)
        first = generate(backbone, prompts[:1], method, config)
        assert together[0] == first[0]
        assert together == generate(backbone, prompts, method, config)


def fingerprint(backbone: Backbone) -> str:
    """Of every parameter and buffer."""
    digest = hashlib.sha256()
    for name, tensor in sorted(backbone.model.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def plain_logits(backbone: Backbone) -> torch.Tensor:
    row = Encoded((1, 30, 40, 50, 60, 70), 2, 0)
    with torch.no_grad():
        return answer_logits(backbone, Rows.collate([row, row]))[0]


@every_backbone
def test_frozen_model_stays_frozen(architecture: str) -> None:
    """Contract 2: after training steps and generation nothing of the backbone moved, not by a bit."""
    backbone = zoo.backbone(architecture)
    weights, logits = fingerprint(backbone), plain_logits(backbone)
    method = prompt_for(backbone)
    for _ in range(2):
        found, targets = answer_logits(
            backbone,
            Rows.collate([Encoded((1, 5, 6, 7), 2, 0), Encoded((1, 8, 9), 2, 0)]),
            method.injection(),
        )
        torch.nn.functional.cross_entropy(found, targets).backward()
    generate(backbone, ["some text"], method, GenerateConfig(max_new_tokens=3))
    assert all(p.grad is None and not p.requires_grad for p in backbone.model.parameters())
    assert fingerprint(backbone) == weights
    assert torch.equal(plain_logits(backbone), logits)


@every_backbone
def test_two_threads_share_a_backbone(architecture: str) -> None:
    """Contract 2, for jobs: two methods running at once on one backbone get what each gets alone."""
    backbone = zoo.backbone(architecture)
    methods = [prompt_for(backbone, seed) for seed in (1, 2)]
    rows = Rows.collate([Encoded((1, 15, 16, 17, 18), 2, 0), Encoded((1, 25, 26), 2, 0)])

    def run(method: SoftPrompt) -> list[torch.Tensor]:
        found = []
        for _ in range(6):
            logits, targets = answer_logits(backbone, rows, method.injection())
            loss = torch.nn.functional.cross_entropy(logits, targets)
            found.append(torch.autograd.grad(loss, method.embeddings)[0])
        return found

    expected = [run(method)[0] for method in methods]
    found: dict[int, list[torch.Tensor]] = {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: run(methods[i])})) for i in (0, 1)]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in (0, 1):
        assert all(torch.equal(gradient, expected[i]) for gradient in found[i])
    assert distance(expected[0], expected[1]) > 1000 * TOLERANCE  # a mix-up would show


@every_backbone
def test_saved_method_loads_elsewhere(architecture: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Contract 5: safetensors and JSON alone bring the method back, bit for bit."""
    backbone = zoo.backbone(architecture)
    method = prompt_for(backbone)
    folder = method.save(tmp_path / "method")
    assert sorted(p.suffix for p in folder.iterdir()) == [".json", ".safetensors"]
    assert torch.equal(load_method(folder, backbone).injection().input_embeddings[0], method.embeddings)


def test_probe_refuses_what_is_wrong() -> None:
    """The layouts known to be wrong in transformers are found by trying: Mamba behind a cache, RecurrentGemma behind pads."""
    assert not zoo.backbone("mamba").layouts.shared_prefix
    assert not zoo.backbone("recurrent_gemma").layouts.left_padding
    assert all(vars(zoo.backbone("llama").layouts).values())


def test_bfloat16_backbone_takes_a_float32_prompt() -> None:
    """A prompt stays float32 on a bfloat16 backbone, and gets a finite float32 gradient."""
    backbone = Backbone(zoo.make_model("llama").to(torch.bfloat16), zoo.tokenizer(), "bf16")
    method = prompt_for(backbone)
    logits, targets = answer_logits(
        backbone, Rows.collate([Encoded((1, 5, 6, 7), 2, 0)] * 2), method.injection()
    )
    torch.nn.functional.cross_entropy(logits.float(), targets).backward()
    assert method.embeddings.dtype == torch.float32
    assert method.embeddings.grad is not None and bool(torch.isfinite(method.embeddings.grad).all())

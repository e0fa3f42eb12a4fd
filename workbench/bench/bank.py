"""Many prompts in one pass, beside PEFT one after another: training eight and sixteen, and serving 32.

Times only; what both compute is compared before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from peft import PromptTuningConfig, TaskType, get_peft_model
from torch import Tensor

from workbench.bench.harness import Measurement, row
from workbench.bench.models import LARGE, SMALL, Shape, Work, shapes
from workbench.methods.apply import Decoder, answer_logits
from workbench.methods.injection import Injection, join
from workbench.methods.rows import Rows

WRITTEN = 32  # new tokens of each row
SERVED = replace(SMALL, tokens=32, answer=0, batch=32)
SERVED_LARGE = replace(LARGE, tokens=128, answer=0, batch=32)
SMALLER = replace(SMALL, layers=2, width=64, heads=4, vocabulary=1_024)
LARGER = replace(SMALL, batch=16)
TENANTS = replace(LARGE, tokens=64, answer=16, batch=4)


@row("bank of 8")
def bank_of_8() -> Sequence[Measurement]:
    """Eight soft prompts, each with a batch of its own, as `fit_many` runs them."""
    return [_bank(8, shape) for shape in shapes(SMALL, TENANTS)]


@row("bank of 16")
def bank_of_16() -> Sequence[Measurement]:
    """Sixteen; and sixteen on a smaller model, where overhead weighs more than arithmetic, and with four times the rows,
    where it weighs less."""
    banks = [_bank(16, shape) for shape in shapes(SMALL, TENANTS)]
    return [*banks, _bank(16, SMALLER, " of a smaller model"), _bank(16, LARGER, ", batch 16")]


def _bank(count: int, shape: Shape, more: str = "") -> Measurement:
    """One step of each of `count` prompts: forward, and backward to its gradient."""
    work = Work(shape)
    peers = _prompted(work, count)
    ids = [work.ids(n) for n in range(count)]
    labels = [work.labels(i) for i in ids]
    rows = Rows.concat([work.rows(i) for i in ids])
    members = torch.arange(count).repeat_interleave(shape.batch)
    ours_prompts = [prompt.detach().clone().requires_grad_(True) for _, prompt in peers]

    def ours() -> list[Tensor]:
        for prompt in ours_prompts:
            prompt.grad = None
        logits, answers = answer_logits(
            work.backbone, rows, join([Injection(p[None]) for p in ours_prompts], members)
        )
        nats = torch.nn.functional.cross_entropy(logits.float(), answers, reduction="none")
        torch.stack([own.mean() for own in nats.chunk(count)]).sum().backward()
        return [prompt.grad for prompt in ours_prompts]  # type: ignore[misc]

    def ours_one_by_one() -> list[Tensor]:
        gradients: list[Any] = []
        for prompt, i in zip(ours_prompts, ids, strict=True):
            prompt.grad = None
            logits, answers = answer_logits(work.backbone, work.rows(i), Injection(prompt[None]))
            torch.nn.functional.cross_entropy(logits.float(), answers).backward()
            gradients.append(prompt.grad)
        return gradients

    def peer() -> list[Tensor]:
        gradients: list[Any] = []
        for (model, prompt), i, asked in zip(peers, ids, labels, strict=True):
            prompt.grad = None
            model(input_ids=i, attention_mask=torch.ones_like(i), labels=asked).loss.backward()
            gradients.append(prompt.grad)
        return gradients

    def check() -> None:
        expected = [g.clone() for g in peer()]
        for other in (ours, ours_one_by_one):
            for found, wanted in zip(other(), expected, strict=True):
                error = float((found - wanted).norm() / wanted.norm())
                assert error <= shape.tolerance, f"gradients differ by {error:.1e} of their norm"

    return Measurement(
        f"bank of {count}{more}{shape.suffix}",
        ours,
        peer,
        check=check,
        notes=f"{shape} for each of {count} prompts; peer: PEFT prompt tuning one after another, with labels",
        variants={"ours, one after another": ours_one_by_one},
        device=shape.device,
        dtype=shape.dtype,
        tokens=count * shape.batch * shape.tokens,
        operations=count * work.operations,
    )


@row("generate one prompt")
def generate_one_prompt() -> Sequence[Measurement]:
    """32 rows behind one soft prompt, greedily; rows of one length, where PEFT is right."""
    return [_one_prompt(Work(shape)) for shape in shapes(SERVED, SERVED_LARGE)]


def _one_prompt(work: Work) -> Measurement:
    ((model, prompt),) = _prompted(work, 1)
    ids = work.ids(0)
    injection = Injection(prompt.detach()[None])
    return _written(
        "generate one prompt", work, injection, lambda: _peer_writes(model, ids), "PEFT's generate"
    )


@row("generate 32 prompts")
def generate_32_prompts() -> Sequence[Measurement]:
    """32 rows, each behind a soft prompt of its own; PEFT raises for such a batch, so it is called for each row."""
    return [_many_prompts(Work(shape)) for shape in shapes(SERVED, SERVED_LARGE)]


def _many_prompts(work: Work) -> Measurement:
    count = work.shape.batch
    peers = _prompted(work, count)
    ids = work.ids(0)
    injection = join([Injection(p.detach()[None]) for _, p in peers], torch.arange(count))

    def peer() -> Tensor:
        return torch.cat([_peer_writes(model, i[None]) for (model, _), i in zip(peers, ids, strict=True)])

    return _written("generate 32 prompts", work, injection, peer, "PEFT's generate, once for each row")


def _written(
    name: str, work: Work, injection: Injection, peer: Callable[[], Tensor], notes: str
) -> Measurement:
    rows = work.rows(work.ids(0))

    @torch.no_grad()
    def ours() -> Tensor:
        decoder = Decoder(work.backbone, rows, injection)
        found = [decoder.next_logits().argmax(-1)]
        for _ in range(WRITTEN - 1):
            decoder.feed(found[-1])
            found.append(decoder.next_logits().argmax(-1))
        return torch.stack(found, dim=1)

    def check() -> None:
        same = float((ours() == peer()).float().mean())
        # in bfloat16 two likely tokens may change places, and all that follows with them
        assert same == 1.0 or (work.shape.dtype == torch.bfloat16 and same > 0.5), (
            f"only {same:.1%} of the tokens agree"
        )

    return Measurement(
        name + work.shape.suffix,
        ours,
        peer,
        check=check,
        samples=7,
        notes=f"{work.shape}, {WRITTEN} new tokens each, greedy; peer: {notes}",
        device=work.shape.device,
        dtype=work.shape.dtype,
        tokens=work.shape.batch * WRITTEN,
    )


def _prompted(work: Work, count: int) -> list[tuple[Any, Tensor]]:
    """PEFT's models over one base, each with a prompt of its own, at the size of the embeddings."""
    base = work.fresh()
    settings = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=work.shape.prompt)
    found = []
    for seed in range(count):
        model: Any = get_peft_model(base, settings).eval()
        prompt = model.prompt_encoder.default.embedding.weight
        with torch.no_grad():
            prompt.copy_(torch.randn(prompt.shape, generator=torch.Generator().manual_seed(seed)) * 0.02)
        found.append((model, prompt))
    return found


def _peer_writes(model: Any, ids: Tensor) -> Tensor:
    """(B, WRITTEN) what PEFT's model writes, greedily."""
    whole = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=WRITTEN,
        min_new_tokens=WRITTEN,
        do_sample=False,
        pad_token_id=0,
    )
    return whole[:, ids.shape[1] :]

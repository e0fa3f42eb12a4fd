"""One training step of a soft, a deep and a prefix prompt, beside a peer's: forward, and backward to the gradient.

Times only; what both compute is compared before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft import PrefixTuningConfig, PromptTuningConfig, TaskType, get_peft_model
from torch import Tensor

from workbench.backbones.recompute import recomputing
from workbench.bench.harness import Measurement, row
from workbench.bench.models import MEDIUM, Work, shapes
from workbench.methods.apply import answer_logits
from workbench.methods.injection import Injection

Step = tuple[Tensor, Tensor]
"""Loss () and gradient of the prompt."""


@row("soft-prompt step")
def soft_prompt_step() -> Sequence[Measurement]:
    """Beside PEFT's prompt tuning, right-padded, through its documented call `model(input_ids, attention_mask, labels)`.

    Its variant leaves the labels out and hands transformers' `logits_to_keep` through PEFT, with the loss computed
    outside: faster than PEFT offers by itself, and the most that its user can get from it.
    """
    return [_soft(Work(shape)) for shape in shapes(MEDIUM)]


def _soft(work: Work) -> Measurement:
    settings = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=work.shape.prompt)
    peer = _Peft(work, settings)
    ours = _Ours(work, peer.prompt.detach(), lambda prompt: Injection(prompt[None]))
    variants: dict[str, Callable[[], Any]] = {
        "ours, prompt in every row": lambda: ours(share_prefix=False),
        "ours, head on every position": lambda: ours(keep_answers=False),
        "ours, neither": lambda: ours(share_prefix=False, keep_answers=False),
        "ours, gradient checkpointing": ours.recomputed,
        "PEFT, head on the answer through logits_to_keep": peer.with_own_loss,
    }
    return _measured(
        "soft-prompt step", ours, peer, variants, "PEFT prompt tuning, right-padded, with labels"
    )


@row("prefix step")
def prefix_step() -> Sequence[Measurement]:
    """Beside PEFT's prefix tuning without its MLP, as above."""
    return [_prefix(Work(shape)) for shape in shapes(MEDIUM)]


def _prefix(work: Work) -> Measurement:
    shape = work.shape
    settings = PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=shape.prompt)
    peer = _Peft(work, settings)
    with torch.no_grad():  # PEFT starts at a deviation of 1, where softmax saturates and gradients vanish
        peer.prompt.mul_(0.1)

    def injected(prompt: Tensor) -> Injection:
        """PEFT's (P, 2 · layers · width): keys and values of each layer in turn, each head by head."""
        size = shape.width // shape.heads
        parts = prompt.view(shape.prompt, 2 * shape.layers, -1, size).permute(1, 2, 0, 3)
        return Injection(
            keys_values=[(k[None], v[None]) for k, v in zip(parts[::2], parts[1::2], strict=True)]
        )

    ours = _Ours(work, peer.prompt.detach(), injected)
    variants = {"ours, gradient checkpointing (PEFT refuses it)": ours.recomputed}
    return _measured("prefix step", ours, peer, variants, "PEFT prefix tuning, right-padded, with labels")


@row("deep-prompt step")
def deep_prompt_step() -> Sequence[Measurement]:
    """Beside the same written by hand over transformers' layers, because PEFT has no vectors at chosen layers.

    The peer does what the paper describes: the vectors are put before a layer's input and cut from its output, in
    every row. Its head sees the answers only, as ours does.
    """
    return [_deep(Work(shape)) for shape in shapes(MEDIUM)]


def _deep(work: Work) -> Measurement:
    shape = work.shape
    layers = (0, *range(shape.layers - 3, shape.layers))
    size = shape.prompt // len(layers)
    dice = torch.Generator().manual_seed(1)
    start = (torch.randn(len(layers), size, shape.width, generator=dice) * 0.02).to(shape.device)
    ours = _Ours(
        work,
        start,
        lambda p: Injection(layer_embeddings=dict(zip(layers, p[:, None], strict=True)), cut=True),
    )
    peer = _ByHand(work, layers, start)
    variants = {"ours, gradient checkpointing": ours.recomputed}
    by_hand = f"transformers' layers by hand, {size} vectors before each of the layers {layers}, cut from its output"
    return _measured("deep-prompt step", ours, peer, variants, by_hand)


class _Ours:
    """Our step; `make` turns the prompt's tensor into an injection."""

    def __init__(self, work: Work, start: Tensor, make: Callable[[Tensor], Injection]):
        self.work, self.make = work, make
        self.prompt = start.clone().requires_grad_(True)
        self.rows = work.rows(work.ids(0))

    def __call__(self, **tricks: bool) -> Step:
        self.prompt.grad = None
        logits, answers = answer_logits(self.work.backbone, self.rows, self.make(self.prompt), **tricks)
        return _finish(torch.nn.functional.cross_entropy(logits.float(), answers), self.prompt)

    def recomputed(self) -> Step:
        """The same with gradient checkpointing."""
        with recomputing():
            return self()


class _Peft:
    """PEFT's step on the same rows, from its own start."""

    def __init__(self, work: Work, settings: Any):
        self.model: Any = get_peft_model(work.fresh(), settings).eval()
        self.prompt: Tensor = self.model.prompt_encoder.default.embedding.weight
        ids = work.ids(0)
        self.batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        self.labels, self.targets = work.labels(ids), work.targets(ids)
        shape = work.shape
        self.kept = torch.zeros(shape.batch, shape.prompt + shape.tokens, dtype=torch.bool, device=ids.device)
        self.kept[:, shape.prompt + shape.tokens - shape.answer - 1 : -1] = True

    def __call__(self) -> Step:
        self.prompt.grad = None
        return _finish(self.model(**self.batch, labels=self.labels).loss, self.prompt)

    def with_own_loss(self) -> Step:
        """The head on the answers only, and the loss outside of PEFT."""
        self.prompt.grad = None
        logits = self.model(**self.batch, logits_to_keep=self.kept).logits
        return _finish(torch.nn.functional.cross_entropy(logits.float(), self.targets), self.prompt)


class _ByHand:
    """Vectors before a layer's input, cut from its output, as one would write it over a Llama of transformers."""

    def __init__(self, work: Work, layers: tuple[int, ...], start: Tensor):
        self.work, self.layers, self.model = work, layers, work.fresh().model
        self.head = work.model.lm_head
        self.prompt = start.clone().requires_grad_(True)
        self.ids = work.ids(0)

    def __call__(self) -> Step:
        self.prompt.grad = None
        shape, size = self.work.shape, self.prompt.shape[1]
        hidden = self.model.embed_tokens(self.ids)
        front = size * len(self.layers)
        tokens = torch.arange(shape.tokens, device=hidden.device) + front
        for index, layer in enumerate(self.model.layers):
            if index not in self.layers:
                hidden = layer(hidden, position_embeddings=self.model.rotary_emb(hidden, tokens[None]))
                continue
            at = self.layers.index(index)
            # a token keeps one position in all layers: the deepest layer's vectors come first
            first = (len(self.layers) - 1 - at) * size
            before = torch.arange(first, first + size, device=hidden.device)
            positions = torch.cat([before, tokens])[None]
            longer = torch.cat([self.prompt[at].to(hidden.dtype).expand(shape.batch, -1, -1), hidden], dim=1)
            hidden = layer(longer, position_embeddings=self.model.rotary_emb(longer, positions))[:, size:]
        answers = self.model.norm(hidden[:, -shape.answer - 1 : -1])
        loss = torch.nn.functional.cross_entropy(
            self.head(answers).flatten(0, 1).float(), self.work.targets(self.ids)
        )
        return _finish(loss, self.prompt)


def _finish(loss: Tensor, prompt: Tensor) -> Step:
    loss.backward()
    assert prompt.grad is not None
    return loss.detach(), prompt.grad


def _measured(
    name: str, ours: _Ours, peer: Any, variants: dict[str, Callable[[], Any]], notes: str
) -> Measurement:
    work, shape = ours.work, ours.work.shape

    def check() -> None:
        our_loss, our_gradient = (t.clone() for t in ours())
        for other in (peer, *variants.values()):
            loss, gradient = other()
            assert abs(float(our_loss - loss)) <= shape.tolerance / 10, f"losses {our_loss} and {loss}"
            error = float((our_gradient - gradient).norm() / gradient.norm())
            assert error <= shape.tolerance, f"gradients differ by {error:.1e} of their norm"

    return Measurement(
        name + shape.suffix,
        ours,
        peer,
        check=check,
        samples=7,
        notes=f"{shape}; peer: {notes}",
        variants=variants,
        device=shape.device,
        dtype=shape.dtype,
        tokens=shape.batch * shape.tokens,
        operations=work.operations,
    )

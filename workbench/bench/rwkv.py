"""The rows of the recurrent backbone: RWKV-4's recurrence alone, and a training step of a whole model.

The peer is transformers as it comes: `rwkv_linear_attention_cpu` (on a CUDA machine its kernel, where it loads), and
`RwkvForCausalLM` in training mode with the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import RwkvConfig, RwkvForCausalLM
from transformers.models.rwkv.modeling_rwkv import rwkv_linear_attention_cpu

from workbench.backbones import rwkv
from workbench.bench.harness import Measurement, row

BATCH, TOKENS, WIDTH = 8, 256, 256
SIZES = f"batch {BATCH}, {TOKENS} tokens, width {WIDTH}, float32"


@row("rwkv recurrence")
def recurrence() -> Sequence[Measurement]:
    """Forward and backward of the recurrence: outputs, then the gradients of decay, bonus, keys and values."""
    g = torch.Generator().manual_seed(0)
    time_decay, bonus = torch.linspace(-5, 3, WIDTH), torch.randn(WIDTH, generator=g)
    k, v, cotangent = (torch.randn(BATCH, TOKENS, WIDTH, generator=g) for _ in range(3))
    inputs = [tensor.requires_grad_() for tensor in (time_decay, bonus, k, v)]

    def ours() -> tuple[Tensor, ...]:
        out, _ = rwkv.wkv(time_decay.exp(), bonus, k, v)
        return out, *torch.autograd.grad(out, inputs, cotangent)

    def peer() -> tuple[Tensor, ...]:
        out, _ = rwkv_linear_attention_cpu(*inputs)
        return out, *torch.autograd.grad(out, inputs, cotangent)

    def plain() -> tuple[Tensor, ...]:
        empty = torch.zeros(BATCH, WIDTH)
        out, _ = rwkv.wkv_reference(time_decay.exp(), bonus, k, v, (empty, empty, empty + rwkv.EMPTY))
        return out, *torch.autograd.grad(out, inputs, cotangent)

    return [
        Measurement(
            "rwkv recurrence",
            ours,
            peer,
            notes=f"forward and backward, {SIZES}; peer: transformers' rwkv_linear_attention_cpu",
            variants={"ours, step by step (wkv_reference)": plain},
            check=lambda: _same(ours(), peer()),
        )
    ]


@row("rwkv step")
def step() -> Sequence[Measurement]:
    """Loss and gradients of every weight of a four-layer model."""
    torch.manual_seed(0)
    config = RwkvConfig(
        vocab_size=4000, hidden_size=WIDTH, num_hidden_layers=4, rescale_every=0, use_cache=False
    )
    model = RwkvForCausalLM(config).train()
    rwkv.init_weights(model, torch.Generator().manual_seed(0))
    with torch.no_grad():  # away from the zeros that training starts from
        for weight in model.parameters():
            weight += 0.02 * torch.randn(weight.shape)
    ids = torch.randint(config.vocab_size, (BATCH, TOKENS))

    def gradients(logits: Tensor) -> tuple[Tensor, ...]:
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        return loss, *torch.autograd.grad(loss, list(model.parameters()))

    def ours() -> tuple[Tensor, ...]:
        return gradients(model.head(rwkv.forward(model, model.rwkv.embeddings(ids)).hidden))

    def peer() -> tuple[Tensor, ...]:
        return gradients(model(ids).logits)

    return [
        Measurement(
            "rwkv step",
            ours,
            peer,
            notes=f"loss and all gradients, 4 layers, vocabulary 4,000, {SIZES}; peer: RwkvForCausalLM",
            check=lambda: _same(ours(), peer()),
            samples=5,
        )
    ]


def _same(ours: Sequence[Tensor], peer: Sequence[Tensor]) -> None:
    for mine, theirs in zip(ours, peer, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5 * theirs.abs().max().item())

"""Protects the CUDA path of the recurrence: its values and gradients are the reference's.

Runs on a CUDA GPU; without one, in Triton's interpreter, where triton is installed and TRITON_INTERPRET=1 is set.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from workbench.backbones import rwkv

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

pytestmark = pytest.mark.skipif(
    find_spec("triton") is None or not (DEVICE == "cuda" or INTERPRETED),
    reason="Triton's kernels need a CUDA GPU, or the triton package and TRITON_INTERPRET=1",
)

MASK = torch.tensor([[1, 0, 1, 1, 0, 1, 1], [0, 0, 1, 1, 1, 0, 0]], dtype=torch.bool)


def cell(dtype: torch.dtype, width: int, batch: int = 2, steps: int = 7) -> list[Tensor]:
    """Arguments w, u, k, v, numerator, denominator, maximum of the recurrence, to be differentiated."""
    g = torch.Generator().manual_seed(3)
    shapes = [(width,)] * 2 + [(batch, steps, width)] * 2 + [(batch, width)] * 3
    tensors = [torch.randn(shape, generator=g, dtype=dtype) for shape in shapes]
    tensors[0], tensors[5] = tensors[0].exp(), tensors[5].exp()
    return [tensor.to(DEVICE).requires_grad_() for tensor in tensors]


def run(*args: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
    from workbench.backbones.rwkv_triton import TritonWkv

    return TritonWkv.apply(*args, mask)


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "ragged"])
def test_gradcheck(mask: Tensor | None) -> None:
    """float64, all inputs, outputs and the final state."""
    mask = mask if mask is None else mask.to(DEVICE)
    assert torch.autograd.gradcheck(lambda *args: run(*args, mask=mask), cell(torch.float64, 3))


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "ragged"])
def test_equal_to_the_reference(mask: Tensor | None) -> None:
    """float32, more channels than a block and not a multiple of one, keys that need the running scale."""
    ours, theirs = cell(torch.float32, 41), cell(torch.float32, 41)
    results = []
    for args, function in ((ours, run), (theirs, None)):
        with torch.no_grad():
            args[2] *= 30
        if function is not None:
            out, *sums = function(*args, mask=mask if mask is None else mask.to(DEVICE))
        else:
            outs, state = [], [tuple(s[i : i + 1] for s in args[4:]) for i in range(2)]
            for i in range(2):
                real = torch.ones(7, dtype=torch.bool) if mask is None else mask[i]
                means = torch.zeros(7, 41, device=DEVICE)
                row, state[i] = rwkv.wkv_reference(
                    *args[:2], args[2][i : i + 1, real], args[3][i : i + 1, real], state[i]
                )
                outs.append(means.index_copy(0, real.nonzero().flatten().to(DEVICE), row[0]))
            out, sums = torch.stack(outs), [torch.cat(parts) for parts in zip(*state, strict=True)]
        if mask is not None:
            out = out * mask.to(DEVICE).unsqueeze(-1)
        (out.sin().sum() + sum(s.cos().sum() for s in sums)).backward()
        results.append([out, *sums, *(a.grad for a in args)])
    for mine, peer in zip(*results, strict=True):
        assert torch.allclose(mine, peer, rtol=1e-4, atol=1e-5)
        assert peer.abs().max() > 1e-2


@pytest.mark.skipif(DEVICE != "cuda", reason="the choice of the kernel is made for CUDA tensors only")
def test_chosen_on_cuda() -> None:
    """`rwkv.wkv` runs the kernel for CUDA tensors."""
    out, _ = rwkv.wkv(*(a.requires_grad_() for a in cell(torch.float32, 8)[:4]))
    assert "TritonWkv" in str(out.grad_fn)

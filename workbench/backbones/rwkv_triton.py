"""The recurrence of RWKV-4 as two Triton kernels, for CUDA tensors: `rwkv.wkv` chooses it where triton is installed.

One program walks one row's block of channels through time, in registers, and leaves the state before each token for the
backward, which walks the other way. The same mathematics as `rwkv.wkv_reference`, pads passed over, the gradient of the
returned scale included. Never runs on the CPU, except in Triton's interpreter (TRITON_INTERPRET=1), as its tests do.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 32  # channels a program: one warp, so that even a small batch spreads over the GPU


@triton.jit
def _step(m, k, w, u, b, real):
    """The four factors of one token, and the scale after it: see `rwkv.wkv_reference`."""
    top = tl.maximum(m, u + k)
    past, present = tl.exp(m - top), tl.exp(u + k - top)
    total = past * b + present
    after = tl.where(real, tl.maximum(m - w, k), m)
    decay = tl.where(real, tl.exp(m - w - after), 1.0)
    gain = tl.where(real, tl.exp(tl.minimum(k - after, 0.0)), 0.0)
    return past / total, present / total, decay, gain, after


@triton.jit
def _forward(
    w_ptr, u_ptr, k_ptr, v_ptr, state_ptr, mask_ptr, out_ptr, before_ptr, steps, width,
    MASKED: tl.constexpr, KEEP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, channel = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < width
    w = tl.load(w_ptr + channel, inside, 0.0)
    u = tl.load(u_ptr + channel, inside, 0.0)
    at, plane = row * width + channel, tl.num_programs(0) * width
    a = tl.load(state_ptr + at, inside, 0.0)
    b = tl.load(state_ptr + plane + at, inside, 0.0)
    m = tl.load(state_ptr + 2 * plane + at, inside, 0.0)
    first = row.to(tl.int64) * steps
    volume = tl.num_programs(0).to(tl.int64) * width * steps
    for t in range(steps):
        here = (first + t) * width + channel
        k = tl.load(k_ptr + here, inside, 0.0)
        v = tl.load(v_ptr + here, inside, 0.0)
        real = inside
        if MASKED:
            real = inside & (tl.load(mask_ptr + first + t) != 0)
        if KEEP:
            tl.store(before_ptr + here, a, inside)
            tl.store(before_ptr + volume + here, b, inside)
            tl.store(before_ptr + 2 * volume + here, m, inside)
        past, present, decay, gain, m = _step(m, k, w, u, b, real)
        tl.store(out_ptr + here, past * a + present * v, inside)
        a = decay * a + gain * v
        b = decay * b + gain
    tl.store(state_ptr + at, a, inside)
    tl.store(state_ptr + plane + at, b, inside)
    tl.store(state_ptr + 2 * plane + at, m, inside)


@triton.jit
def _backward(
    w_ptr, u_ptr, k_ptr, v_ptr, mask_ptr, before_ptr, g_out_ptr, g_state_ptr, g_w_ptr, g_u_ptr, g_k_ptr, g_v_ptr,
    steps, width, MASKED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, channel = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < width
    w = tl.load(w_ptr + channel, inside, 0.0)
    u = tl.load(u_ptr + channel, inside, 0.0)
    at, plane = row * width + channel, tl.num_programs(0) * width
    g_a = tl.load(g_state_ptr + at, inside, 0.0)
    g_b = tl.load(g_state_ptr + plane + at, inside, 0.0)
    g_m = tl.load(
        g_state_ptr + 2 * plane + at, inside, 0.0
    )  # of the returned scale, the sums it divides included
    g_w = tl.zeros_like(w)
    g_u = tl.zeros_like(u)
    first = row.to(tl.int64) * steps
    volume = tl.num_programs(0).to(tl.int64) * width * steps
    for back in range(steps):
        t = steps - 1 - back
        here = (first + t) * width + channel
        k = tl.load(k_ptr + here, inside, 0.0)
        v = tl.load(v_ptr + here, inside, 0.0)
        g = tl.load(g_out_ptr + here, inside, 0.0)
        a = tl.load(before_ptr + here, inside, 0.0)
        b = tl.load(before_ptr + volume + here, inside, 0.0)
        m = tl.load(before_ptr + 2 * volume + here, inside, 0.0)
        real = inside
        if MASKED:
            real = inside & (tl.load(mask_ptr + first + t) != 0)
        past, present, decay, gain, _ = _step(m, k, w, u, b, real)
        out = past * a + present * v
        g_bonus = g * present * (v - out)
        g_u += g_bonus
        lost = tl.where(real, decay * (a * g_a + b * g_b), 0.0)
        born = real & (k > m - w)  # this token's key set the scale
        g_w -= lost + tl.where(real & (k <= m - w), g_m, 0.0)
        tl.store(g_k_ptr + here, gain * (g_b + g_a * v) + g_bonus + tl.where(born, g_m, 0.0), inside)
        tl.store(g_v_ptr + here, gain * g_a + g * present, inside)
        g_m = tl.where(born, 0.0, g_m)
        g_a = decay * g_a + g * past
        g_b = decay * g_b - g * past * out
    a = tl.load(before_ptr + first * width + channel, inside, 0.0)
    b = tl.load(before_ptr + volume + first * width + channel, inside, 0.0)
    tl.store(g_state_ptr + at, g_a, inside)
    tl.store(g_state_ptr + plane + at, g_b, inside)
    tl.store(g_state_ptr + 2 * plane + at, g_m + g_a * a + g_b * b, inside)
    tl.store(g_w_ptr + at, g_w, inside)
    tl.store(g_u_ptr + at, g_u, inside)


class TritonWkv(torch.autograd.Function):
    """Same arguments and results as the CPU's `rwkv._Wkv`: w, u (A,), k, v (B, T, A), three (B, A), mask (B, T)."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        w, u, k, v = (tensor.contiguous() for tensor in inputs[:4])
        state, mask = torch.stack(inputs[4:7]), inputs[7]
        mask = None if mask is None else mask.to(torch.uint8).contiguous()
        rows, steps, width = k.shape
        keep = any(ctx.needs_input_grad)
        before = k.new_empty(3, *k.shape) if keep else k
        out = torch.empty_like(k)
        sizes = {"steps": steps, "width": width, "MASKED": mask is not None, "BLOCK": BLOCK}
        grid = (rows, triton.cdiv(width, BLOCK))
        _forward[grid](
            w, u, k, v, state, k if mask is None else mask, out, before, KEEP=keep, num_warps=1, **sizes
        )
        ctx.save_for_backward(w, u, k, v, mask, before, state)
        ctx.launch = grid, sizes
        a, b, m = state.clone().unbind(0)
        return out, a, b, m

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_out: Tensor, g_a: Tensor, g_b: Tensor, g_m: Tensor) -> tuple[Tensor | None, ...]:
        w, u, k, v, mask, before, (a, b, _) = ctx.saved_tensors
        grid, sizes = ctx.launch
        g_state = torch.stack([g_a, g_b, g_m - g_a * a - g_b * b])
        g_w, g_u = (torch.empty_like(a) for _ in range(2))
        g_k, g_v = torch.empty_like(k), torch.empty_like(v)
        args = (
            w,
            u,
            k,
            v,
            k if mask is None else mask,
            before,
            g_out.contiguous(),
            g_state,
            g_w,
            g_u,
            g_k,
            g_v,
        )
        with torch.cuda.device_of(k):
            _backward[grid](*args, num_warps=1, **sizes)
        return g_w.sum(0), g_u.sum(0), g_k, g_v, *g_state.unbind(0), None

"""RWKV-4 as pure functions over transformers' own weights.

    init_weights     the author's start for training from scratch
    State            what the model remembers: five tensors, stacked over layers
    wkv_reference    the recurrence, as one reads it
    wkv              the same values, fast, with an analytic backward
    block, forward   the layers of an `RwkvModel`, differentiable in inputs, weights and initial state

The modules hold the weights, so loading and saving stay transformers', and every matrix is applied by calling its
`nn.Linear`, so hooks, adapters and quantised layers work. Never writes into a state or a weight, never reads
`config.rescale_every` (transformers halves weights in place for it when a model enters eval mode: load with 0, which
is the definition followed here; a float16 model of many layers may then overflow, bfloat16 does not), never lets a
pad into a state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import RwkvForCausalLM, RwkvModel

from workbench.backbones import recompute
from workbench.backbones.linear_outputs import reordered
from workbench.errors import WorkbenchError

EMPTY = -1e38  # the log-scale of a state in which nothing has been read
_STEEPEST = 1e4  # decays beyond exp(-1e4) a token are all the same to the choice of a scale


class State(NamedTuple):
    """What the model remembers of a text, for all layers (L), a batch of rows (B), width d, attention width A.

    The sums of the recurrence are `numerator * exp(maximum)` and `denominator * exp(maximum)`. An empty state has
    `maximum` -1e38, which hides the other two: a state that is to be trained starts at `maximum` 0.
    """

    feed_forward_shift: Tensor
    """(L, B, d) the last token's input to each layer's feed-forward part."""
    attention_shift: Tensor
    """(L, B, d) the last token's input to each layer's attention part."""
    numerator: Tensor
    """(L, B, A) decayed sum of exp(key) * value; float32, as the next two."""
    denominator: Tensor
    """(L, B, A) decayed sum of exp(key)."""
    maximum: Tensor
    """(L, B, A) log-scale of both sums."""

    @property
    def mean(self) -> Tensor:
        """(L, B, A) the weighted mean of the values so far, numerator / denominator; NaN of an empty state."""
        return self.numerator / self.denominator

    @property
    def weight(self) -> Tensor:
        """(L, B, A) the logarithm of the sum of their weights."""
        return self.denominator.log() + self.maximum

    @staticmethod
    def of(mean: Tensor, weight: Tensor, attention_shift: Tensor, feed_forward_shift: Tensor) -> State:
        """The state with this mean and weight. Many numerators, denominators and maxima are one such memory."""
        return State(feed_forward_shift, attention_shift, mean, torch.ones_like(mean), weight)

    def expand(self, batch: int) -> State:
        """A state of one row, seen by `batch` rows (no copy)."""
        return State(*(tensor.expand(-1, batch, -1) for tensor in self))

    def select(self, rows: Tensor | Sequence[int]) -> State:
        """The state of the given rows, in that order; a row may be named more than once."""
        index = torch.as_tensor(rows, device=self.numerator.device)
        return State(*(tensor.index_select(1, index) for tensor in self))

    def layer(self, index: int) -> State:
        """The state of one layer: the same five tensors without their first dimension."""
        return State(*(tensor[index] for tensor in self))

    @staticmethod
    def stack(layers: Sequence[State]) -> State:
        """The layers' states as one: undoes `layer`."""
        return State(*(torch.stack(tensors) for tensors in zip(*layers, strict=True)))


class Output(NamedTuple):
    """What `forward` returns."""

    hidden: Tensor
    """(B, T, d) after the final norm; logits are `model.head(hidden)`."""
    state: State
    """The state after each row's last real token."""


def initial_state(
    model: RwkvForCausalLM | RwkvModel,
    batch: int = 1,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> State:
    """The empty state; `dtype` and `device` default to the model's (the three sums are float32, or float64)."""
    backbone = _backbone(model)
    like = backbone.blocks[0].ln1.weight
    dtype, device = dtype or like.dtype, device or like.device
    layers, width, inner = (
        len(backbone.blocks),
        like.numel(),
        backbone.blocks[0].attention.attention_hidden_size,
    )

    def filled(size: int, kind: torch.dtype, value: float = 0.0) -> Tensor:
        return torch.full((layers, batch, size), value, dtype=kind, device=device)

    sums = torch.promote_types(dtype, torch.float32)
    return State(
        filled(width, dtype),
        filled(width, dtype),
        filled(inner, sums),
        filled(inner, sums),
        filled(inner, sums, EMPTY),
    )


Sums = tuple[Tensor, Tensor, Tensor]


def wkv_reference(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Sums) -> tuple[Tensor, Sums]:
    """The recurrence of RWKV-4, step by step (arXiv 2305.13048, eq. 16, in the stable form of its appendix D).

    A weighted mean of the values so far: token s weighs exp(k_s - w * (t - 1 - s)) at a later t, and exp(u + k_t) at t.

    Args:
        w: (A,) decay per token and channel, positive: `exp(time_decay)`.
        u: (A,) bonus of the present token: `time_first`.
        k, v: (B, T, A) keys and values.
        state: numerator, denominator, maximum, each (B, A).

    Returns: the means (B, T, A), and the state after the last token.

    >>> one = torch.ones(1)
    >>> k, v = torch.zeros(1, 3, 1), torch.tensor([[[1.0], [2.0], [3.0]]])
    >>> empty = (torch.zeros(1, 1), torch.zeros(1, 1), torch.full((1, 1), EMPTY))
    >>> wkv_reference(0 * one, 0 * one, k, v, empty)[0].flatten().tolist()   # no decay, no bonus: the plain mean
    [1.0, 1.5, 2.0]
    """
    a, b, m = state
    out = []
    for k_t, v_t in zip(k.unbind(1), v.unbind(1), strict=True):
        top = torch.maximum(m, u + k_t)
        past, now = torch.exp(m - top), torch.exp(u + k_t - top)
        out.append((past * a + now * v_t) / (past * b + now))
        top = torch.maximum(m - w, k_t)
        past, now = torch.exp(m - w - top), torch.exp(k_t - top)
        a, b, m = past * a + now * v_t, past * b + now, top
    return torch.stack(out, 1), (a, b, m)


def wkv(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Sums | None = None, mask: Tensor | None = None
) -> tuple[Tensor, Sums]:
    """`wkv_reference`, fast: same arguments, same values, same gradients (first derivatives only).

    Also takes `state=None` (empty) and `mask` (B, T), False where a token is a pad: the state passes over it. A pad's
    own output is finite and means nothing. Computes in float32 (float64 if given), whatever autocast says, and
    returns means in k's dtype. On CUDA it is one Triton kernel, where triton is installed.
    """
    kind = torch.promote_types(k.dtype, torch.float32)
    if state is None:
        empty = k.new_zeros(k.shape[0], k.shape[2], dtype=kind)
        state = (empty, empty, empty + EMPTY)
    if mask is not None:
        mask = mask.bool()
    cell: Any = _Wkv
    if k.is_cuda and find_spec("triton") is not None:
        from workbench.backbones.rwkv_triton import TritonWkv as cell
    out, a, b, m = cell.apply(*(tensor.to(kind) for tensor in (w, u, k, v, *state)), mask)
    return out.to(k.dtype), (a, b, m)


class _Wkv(torch.autograd.Function):
    """The recurrence with everything but one fused multiply-add a step taken out of the loop over time.

    The scale m_t = max(m_{t-1} - w, k_t) does not depend on the sums, and is a running maximum of k_t + w t. Given it,
    x_t = (numerator, denominator) obeys x_t = decay_t x_{t-1} + gain_t (v_t, 1), decay_t = exp(m_{t-1} - w - m_t),
    gain_t = exp(k_t - m_t), and the output is past_t a_{t-1} + now_t v_t with weights past_t b_{t-1} + now_t = 1.
    Results do not depend on m, so that rounding in it is harmless as long as all factors use the same numbers; the
    backward treats it as constant, and adds the gradient of the returned state's own scale at the end.
    Shapes are time first: (T, B, A); x and its gradient are (T + 1, 2, B, A), with the initial state at 0.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        w, u, k, v, a, b, m0, mask = inputs
        batch, steps, width = k.shape
        k_t, v_t = k.transpose(0, 1), v.transpose(0, 1)
        time, real = _clock(k, mask)

        slope = time * w.clamp(max=_STEEPEST)
        m = k.new_empty(steps + 1, batch, width)
        m[0] = m0
        torch.add(k_t, slope, out=m[1:])
        if real is not None:
            m[1:].masked_fill_(~real, -torch.inf)
        rows = m.unbind(0)
        for before, now in zip(rows, rows[1:], strict=False):
            torch.maximum(before, now, out=now)
        m[1:] -= slope

        decay = (m[:-1] - m[1:]).sub_(w if real is None else w * real).exp_()
        gain = (k_t - m[1:]).exp_()
        if real is not None:
            gain.masked_fill_(~real, 0)
        x = k.new_empty(steps + 1, 2, batch, width)
        x[0, 0], x[0, 1], x[1:, 1] = a, b, gain
        torch.mul(gain, v_t, out=x[1:, 0])
        rows = x.unbind(0)
        for factor, before, now in zip(decay.unsqueeze(1).unbind(0), rows, rows[1:], strict=False):
            torch.addcmul(now, factor, before, out=now)

        bonus = k_t + u
        top = torch.maximum(m[:-1], bonus)
        past, present = (m[:-1] - top).exp_(), bonus.sub_(top).exp_()
        total = torch.addcmul(present, past, x[:-1, 1])
        past /= total
        present /= total
        out = torch.addcmul(present * v_t, past, x[:-1, 0])

        ctx.save_for_backward(w, k, v, m0, mask, decay, gain, past, present, x, out)
        ctx.set_materialize_grads(False)
        return out.transpose(0, 1), x[-1, 0].clone(), x[-1, 1].clone(), m[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        w, k, v, m0, mask, decay, gain, past, present, x, out = ctx.saved_tensors
        g_out, g_a, g_b, g_m = grads
        need_w, need_u, need_k, need_v, *need_state = ctx.needs_input_grad[:7]
        v_t = v.transpose(0, 1)
        g_out = torch.zeros_like(out) if g_out is None else g_out.transpose(0, 1)

        g_x = torch.empty_like(
            x
        )  # first what each output asks of the state before it, then the sum over all later
        torch.mul(g_out, past, out=g_x[:-1, 0])
        torch.mul(g_x[:-1, 0], out, out=g_x[:-1, 1]).neg_()
        g_x[-1, 0] = 0 if g_a is None else g_a
        g_x[-1, 1] = 0 if g_b is None else g_b
        rows = g_x.unbind(0)
        for factor, now, later in zip(
            decay.unsqueeze(1).unbind(0)[::-1], rows[-2::-1], rows[:0:-1], strict=True
        ):
            torch.addcmul(now, factor, later, out=now)

        g_w = g_u = g_k = g_v = g_m0 = None
        g_present = g_out * present
        if need_v:
            g_v = torch.addcmul(g_present, gain, g_x[1:, 0])
        if need_u or need_k:
            g_bonus = (v_t - out).mul_(g_present)
            g_u = g_bonus.sum((0, 1)) if need_u else None
            if need_k:
                g_k = torch.addcmul(g_x[1:, 1], g_x[1:, 0], v_t).mul_(gain).add_(g_bonus)
        if need_w:
            lost = (x[:-1] * g_x[1:]).sum(1).mul_(decay)
            if mask is not None:
                lost *= mask.T.unsqueeze(-1)
            g_w = -lost.sum((0, 1))
        if any(need_state):
            g_m0 = (g_x[0] * x[0]).sum(0)

        if not (g_a is None and g_b is None and g_m is None):
            # The returned scale is one key, or the first scale, less the decay since: find which, and pass it on.
            g_scale = -(g_x[-1] * x[-1]).sum(0) + (0 if g_m is None else g_m)
            time, real = _clock(k, mask)
            risen = k.transpose(0, 1) + time * w.clamp(max=_STEEPEST)
            if real is not None:
                risen = risen.masked_fill(~real, -torch.inf)
            highest, index = risen.max(0)
            kept = m0 >= highest
            if g_m0 is not None:
                g_m0 = g_m0 + g_scale * kept
            if g_k is not None:
                g_k.scatter_add_(0, index.unsqueeze(0), (g_scale * ~kept).unsqueeze(0))
            if g_w is not None:
                born = time.expand_as(risen).gather(0, index.unsqueeze(0))[0] * ~kept
                g_w = g_w - (g_scale * (time[-1] - born)).sum(0)
        g_k, g_v = (None if g is None else g.transpose(0, 1) for g in (g_k, g_v))
        return g_w, g_u, g_k, g_v, g_x[0, 0], g_x[0, 1], g_m0, None


def _clock(k: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """How many real tokens each position has seen (T, B or 1, 1), and which positions are real (T, B, 1)."""
    if mask is None:
        return torch.arange(1, k.shape[1] + 1, dtype=k.dtype, device=k.device)[:, None, None], None
    real = mask.T.unsqueeze(-1)
    return real.cumsum(0).to(k.dtype), real


def block(layer: Any, hidden: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
    """One transformers `RwkvBlock`: hidden (B, T, d) and the layer's state (see `State.layer`) to the same after it.

    `mask` (B, T) is True on real tokens, which come first in each row: `forward` packs the rows.
    """
    if layer.layer_id == 0:
        hidden = layer.pre_ln(hidden)
    x, part = layer.ln1(hidden), layer.attention
    shifted, attention_shift = _shift(x, state.attention_shift, mask)
    step = x - shifted
    k = part.key(torch.addcmul(shifted, step, part.time_mix_key))
    v = part.value(torch.addcmul(shifted, step, part.time_mix_value))
    r = part.receptance(torch.addcmul(shifted, step, part.time_mix_receptance)).sigmoid()
    mean, sums = wkv(part.time_decay.exp(), part.time_first, k, v, state[2:], mask)
    hidden = hidden + part.output(r * mean)

    x, part = layer.ln2(hidden), layer.feed_forward
    shifted, feed_forward_shift = _shift(x, state.feed_forward_shift, mask)
    step = x - shifted
    k = part.key(torch.addcmul(shifted, step, part.time_mix_key)).relu().square()
    r = part.receptance(torch.addcmul(shifted, step, part.time_mix_receptance)).sigmoid()
    return hidden + r * part.value(k), State(feed_forward_shift, attention_shift, *sums)


def _shift(x: Tensor, last: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Each token's predecessor (B, T, d), the first one's being `last` (B, d); and each row's last real token."""
    padded = torch.cat([last.to(x.dtype).unsqueeze(1), x], 1)
    if mask is None:
        return padded[:, :-1], padded[:, -1]
    return padded[:, :-1], padded[torch.arange(len(x), device=x.device), mask.sum(1)]


def forward(
    model: RwkvForCausalLM | RwkvModel,
    inputs_embeds: Tensor,
    attention_mask: Tensor | None = None,
    state: State | None = None,
    edit: Callable[[int, Tensor], Tensor] | None = None,
) -> Output:
    """Runs the layers of `model` on embeddings, from `state` (empty where None), without touching either.

    Args:
        inputs_embeds: (B, T, d), cast to the dtype of the model's norms.
        attention_mask: (B, T), 0 on pads, which may stand anywhere in a row: what real tokens give, and the state, are
            those of the row without its pads. A pad's own hidden state is finite and means nothing.
        state: of B rows, for example an earlier output's.
        edit: (layer from 0, hidden (B, T, d)) to what that layer reads instead; L is what the last one gives.
    """
    backbone = _backbone(model)
    hidden = inputs_embeds.to(backbone.ln_out.weight.dtype)
    if state is None:
        state = initial_state(backbone, len(hidden), hidden.dtype, hidden.device)
    if attention_mask is not None and attention_mask.shape != hidden.shape[:2]:
        raise WorkbenchError(
            f"the attention mask is {tuple(attention_mask.shape)} but the inputs are {tuple(hidden.shape[:2])}; "
            "give one mask entry for each token that is read now"
        )
    mask = order = None
    if attention_mask is not None and not attention_mask.all():
        mask = attention_mask.bool()
        hidden = hidden.masked_fill(~mask.unsqueeze(-1), 0)
        if (
            mask[:, 1:] > mask[:, :-1]
        ).any():  # a real token after a pad: bring each row's real tokens to its front
            mask, order = mask.sort(dim=1, descending=True, stable=True)
            hidden = _reorder(hidden, order)
    states = []
    with reordered(order):
        for index, layer in enumerate(backbone.blocks):
            if edit is not None:  # in the caller's order of positions
                hidden = edit(index, hidden if order is None else _reorder(hidden, order.argsort(1)))
                hidden = hidden if order is None else _reorder(hidden, order)
            hidden, after = recompute.run(block, index, layer, hidden, state.layer(index), mask)
            states.append(after)
    if order is not None:
        hidden = _reorder(hidden, order.argsort(1))
    if edit is not None:
        hidden = edit(len(states), hidden)
    return Output(backbone.ln_out(hidden), State.stack(states))


def _reorder(x: Tensor, order: Tensor) -> Tensor:
    """x (B, T, d) with row b's tokens in the order `order[b]`."""
    return x.gather(1, order.unsqueeze(-1).expand_as(x))


def _backbone(model: Any) -> Any:
    return model if isinstance(model, RwkvModel) else model.rwkv


@torch.no_grad()
def init_weights(
    model: RwkvForCausalLM | RwkvModel,
    generator: torch.Generator | None = None,
    *,
    decays: tuple[float, float] = (-5.0, 3.0),
    gates: float = 0.0,
) -> None:
    """Gives `model`, in place, the start that RWKV-4's author trains from (BlinkDL/RWKV-LM: RWKV-v4neo/src/model.py).

    Decays exp(-exp(d)), d spread over channels from -5 to 3 (`decays`); a bonus of log 0.3, half more or less by
    channel; shares of a token and its predecessor spread over channels and depth; zeros in what a layer adds
    (attention's output, feed-forward's value), in attention's key and all receptances (attention's key and receptance:
    orthogonal with the gain `gates`, if that is not 0); all else orthogonal; embeddings uniform within 1e-4 (his:
    within the learning rate): the first norm scales them up, so that the first steps move them far.

    transformers' own start differs: its bonus is 1 in every channel (a slip: `ones_like` of the intended value), it
    has no zeros, and it fails for one layer. A head tied to the embeddings keeps the embeddings' start.
    """
    backbone = _backbone(model)
    layers = len(backbone.blocks)
    width = backbone.ln_out.weight.numel()
    for depth, layer in enumerate(backbone.blocks):
        rise, fall = depth / max(layers - 1, 1), 1 - depth / layers
        attention, feed_forward = layer.attention, layer.feed_forward
        channel = torch.arange(attention.attention_hidden_size)
        slowest, fastest = decays
        spread = (channel / max(len(channel) - 1, 1)) ** (0.7 + 1.3 * rise)
        attention.time_decay.copy_(slowest + (fastest - slowest) * spread)
        attention.time_first.copy_(torch.tensor(0.3).log() + 0.5 * ((channel + 1) % 3 - 1))
        share = (torch.arange(width) / width).view(1, 1, -1)
        attention.time_mix_key.copy_(share**fall)
        attention.time_mix_value.copy_(share**fall + 0.3 * rise)
        attention.time_mix_receptance.copy_(share ** (0.5 * fall))
        feed_forward.time_mix_key.copy_(share**fall)
        feed_forward.time_mix_receptance.copy_(share**fall)
        nn.init.zeros_(attention.output.weight)
        for linear in (attention.key, attention.receptance):
            _orthogonal(linear.weight, gates, generator)
        for linear in (feed_forward.receptance, feed_forward.value):
            nn.init.zeros_(linear.weight)
        for linear in (attention.value, feed_forward.key):
            _orthogonal(linear.weight, 1.0, generator)
        for norm in (m for m in layer.modules() if isinstance(m, nn.LayerNorm)):
            norm.reset_parameters()
    backbone.ln_out.reset_parameters()
    embeddings = backbone.embeddings.weight
    head = None if isinstance(model, RwkvModel) else model.head.weight
    if head is not None and head is not embeddings:
        _orthogonal(head, 0.5, generator)
    nn.init.uniform_(embeddings, -1e-4, 1e-4, generator=generator)


def _orthogonal(weight: Tensor, gain: float, generator: torch.Generator | None) -> None:
    out, into = weight.shape
    if gain == 0:
        nn.init.zeros_(weight)
        return
    nn.init.orthogonal_(weight, gain * max(1.0, out / into) ** 0.5, generator=generator)

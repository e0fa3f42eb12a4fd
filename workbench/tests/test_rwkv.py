"""Protects the RWKV-4 of the workbench: its values are transformers', its gradients are right, and pads never count.

Contracts are checked in float64 on models whose weights are scaled until memory matters; each check is also made to
fail on a variant broken on purpose, by at least a thousand times its tolerance.
"""

from __future__ import annotations

import copy
import doctest

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import RwkvConfig, RwkvForCausalLM

from workbench.backbones import rwkv
from workbench.backbones.rwkv import State
from workbench.errors import WorkbenchError

EXACT = 1e-9  # float64, between two ways to the same number
VISIBLE = 1000  # a break must show this many times the tolerance


def make_model(dtype: torch.dtype = torch.float64, rescale_every: int = 0) -> RwkvForCausalLM:
    """A small model in which a token's influence lasts: embeddings of size 1, slow decays, a loud head."""
    torch.manual_seed(0)
    config = RwkvConfig(
        vocab_size=61, hidden_size=32, num_hidden_layers=3, rescale_every=rescale_every, use_cache=False
    )
    model = RwkvForCausalLM(config)
    with torch.no_grad():
        torch.nn.init.normal_(model.rwkv.embeddings.weight)
        torch.nn.init.normal_(model.head.weight, std=0.3)
        for layer in model.rwkv.blocks:
            layer.attention.time_decay.copy_(torch.linspace(-6, 0.5, 32))
            layer.attention.time_first.copy_(torch.randn(32) * 0.5)
            layer.attention.output.weight *= 2
    return model.to(dtype).eval()


MODEL = make_model()


def embeds(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, 32, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def logits(x: Tensor, mask: Tensor | None = None, state: State | None = None) -> tuple[Tensor, State]:
    hidden, after = rwkv.forward(MODEL, x, mask, state)
    return MODEL.head(hidden), after


def meaning(state: State) -> tuple[Tensor, ...]:
    """The state without its choice of scale."""
    scale = state.maximum.exp()
    return state.feed_forward_shift, state.attention_shift, state.numerator * scale, state.denominator * scale


def distance(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


def cell(dtype: torch.dtype = torch.float64, batch: int = 2, steps: int = 6, width: int = 3) -> list[Tensor]:
    """Arguments w, u, k, v, numerator, denominator, maximum of the recurrence, all to be differentiated."""
    g = torch.Generator().manual_seed(3)
    shapes = [(width,)] * 2 + [(batch, steps, width)] * 2 + [(batch, width)] * 3
    tensors = [torch.randn(shape, generator=g, dtype=dtype) for shape in shapes]
    tensors[0], tensors[5] = tensors[0].exp(), tensors[5].exp()
    return [tensor.requires_grad_() for tensor in tensors]


RAGGED = torch.tensor([[1, 0, 1, 1, 0, 1], [0, 0, 1, 1, 1, 0]], dtype=torch.bool)


@pytest.mark.parametrize("mask", [None, RAGGED], ids=["whole", "ragged"])
def test_gradients_of_the_recurrence_are_those_of_its_values(mask: Tensor | None) -> None:
    """The analytic backward, for weights, inputs, initial state, through outputs and all of the final state."""

    def run(*args: Tensor) -> tuple[Tensor, ...]:
        out, sums = rwkv.wkv(*args[:4], args[4:], mask)
        return out, *sums

    assert torch.autograd.gradcheck(run, cell())
    if mask is None:  # the check can fail: a gradient lost on the way is seen
        broken = torch.autograd.gradcheck(
            lambda w, *args: run(w.detach() + 0 * w, *args), cell(), raise_exception=False
        )
        assert not broken


def test_fast_recurrence_equals_the_reference() -> None:
    """Values and gradients, over keys that would overflow without a running scale."""
    fast, slow = cell(steps=40), cell(steps=40)
    for args in (fast, slow):
        with torch.no_grad():
            args[2] *= 300
    results = []
    for function, args in ((rwkv.wkv, fast), (rwkv.wkv_reference, slow)):
        out, sums = function(*args[:4], tuple(args[4:]))
        (out.sin().sum() + sum(s.sin().sum() for s in sums)).backward()
        results.append([out, *sums, *(a.grad for a in args)])
    for ours, theirs in zip(*results, strict=True):
        assert torch.isfinite(ours).all()
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-11)


def test_float32_recurrence_stays_exact_far_into_a_text() -> None:
    """Rounding in the running scale must cancel: 2,000 tokens, decays from 1e-3 to 1e3 a token."""
    args = [a.detach() for a in cell(steps=2000, width=7)]
    args[0] = torch.logspace(-3, 3, 7, dtype=torch.float64)
    exact, _ = rwkv.wkv_reference(*args[:4], tuple(args[4:]))
    single, _ = rwkv.wkv(*(a.float() for a in args[:4]), tuple(a.float() for a in args[4:]))
    assert distance(single.double(), exact) < 1e-5


ROWS = (
    st.integers(1, 6)
    .flatmap(lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1, max_size=3))
    .map(torch.tensor)
)
"""Masks (B, T) of any shape; a row may hold no real token at all."""


@given(mask=ROWS)
def test_recurrence_passes_over_pads_anywhere(mask: Tensor) -> None:
    """Outputs at real tokens, and the end state, are those of the row walked through without its pads."""
    w, u, k, v, *sums = (a.detach() for a in cell(batch=len(mask), steps=mask.shape[1]))
    out, after = rwkv.wkv(w, u, k, v, tuple(sums), mask)
    for i, real in enumerate(mask):
        end = tuple(s[i : i + 1] for s in sums)
        for t in real.nonzero().flatten().tolist():
            alone, end = rwkv.wkv_reference(w, u, k[i : i + 1, t : t + 1], v[i : i + 1, t : t + 1], end)
            assert distance(out[i, t], alone[0, 0]) < EXACT
        assert all(distance(a[i], b[0]) < EXACT for a, b in zip(after, end, strict=True))


def test_equal_to_transformers_in_logits_state_and_gradients() -> None:
    """float32, one row of 24 tokens: logits, and the gradients of inputs and of every weight, to 1e-5."""
    x = embeds(1, 24, dtype=torch.float32)
    weigh = torch.randn(1, 24, 61, generator=torch.Generator().manual_seed(5)) / 24
    ours, theirs = make_model(torch.float32), make_model(torch.float32)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    hidden, state = rwkv.forward(ours, inputs[0])
    mine = ours.head(hidden)
    peer = theirs(inputs_embeds=inputs[1]).logits
    (mine * weigh).sum().backward()
    (peer * weigh).sum().backward()
    assert distance(mine, peer) < 1e-5
    assert distance(inputs[0].grad, inputs[1].grad) < 1e-5
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        if b.grad is not None:  # embeddings are not read here
            assert distance(a.grad, b.grad) < 1e-5 * max(1.0, b.grad.abs().max().item()), name
            assert b.grad.abs().max() > 1e-4, f"{name} has no gradient to speak of: the check is empty"
    with torch.no_grad():
        kept = theirs(inputs_embeds=x, use_cache=True).state
    for a, b in zip(meaning(state), meaning(State(*(s.permute(2, 0, 1) for s in kept))), strict=True):
        assert distance(a, b) < 1e-5 * max(1.0, b.abs().max().item())


def test_rescaling_is_not_ours() -> None:
    """A model with `rescale_every` gives what the same weights give without, and its weights stay."""
    plain, rescaled = make_model(torch.float32), make_model(torch.float32, rescale_every=1)
    before = copy.deepcopy(rescaled.state_dict())
    x = embeds(1, 5, dtype=torch.float32)
    assert torch.equal(rwkv.forward(plain, x).hidden, rwkv.forward(rescaled, x).hidden)
    assert all(
        torch.equal(a, b) for a, b in zip(before.values(), rescaled.state_dict().values(), strict=True)
    )


@given(mask=ROWS)
def test_batching_changes_nothing(mask: Tensor) -> None:
    """A row's logits and end state are the same alone and among pads of any place and content."""
    x = embeds(*mask.shape, seed=int(mask.sum()))
    together, state = logits(x.masked_fill(~mask.unsqueeze(-1), float("nan")), mask.long())
    for i, real in enumerate(mask):
        if not real.any():
            after = rwkv.initial_state(MODEL)
        else:
            alone, after = logits(x[i : i + 1, real])
            assert distance(together[i, real], alone[0]) < EXACT
        for a, b in zip(meaning(state.select([i])), meaning(after), strict=True):
            assert distance(a, b) < EXACT


@pytest.mark.parametrize("side", ["left", "middle", "right"])
def test_one_pad_let_in_is_seen(side: str) -> None:
    """The broken variant of the test above: a mask that misses one pad moves logits or state visibly."""
    mask = torch.ones(1, 9, dtype=torch.bool)
    at = {"left": 0, "middle": 4, "right": 8}[side]
    mask[0, at] = False
    x = embeds(1, 9)
    (good, after), (bad, spoilt) = logits(x, mask), logits(x)
    moved = max(distance(a, b) for a, b in zip(meaning(after), meaning(spoilt), strict=True))
    assert moved > VISIBLE * EXACT
    if side != "right":
        assert distance(good[mask], bad[mask]) > VISIBLE * EXACT


def test_gradients_pass_pads_by() -> None:
    """Inputs at real tokens get the gradient of the row alone; pads get none, and none flows out of them."""
    x, mask = embeds(2, 6).requires_grad_(), RAGGED
    together, _ = logits(x, mask)
    together[mask].sin().sum().backward()
    assert (x.grad[~mask] == 0).all()
    for i, real in enumerate(mask):
        alone = x.detach()[i : i + 1, real].requires_grad_()
        logits(alone)[0].sin().sum().backward()
        assert distance(x.grad[i, real], alone.grad[0]) < EXACT


@given(cut=st.integers(1, 7), rows=st.integers(1, 3))
def test_read_then_continue_equals_unbroken(cut: int, rows: int) -> None:
    """A prompt's state, expanded over rows, carries on for four tokens, one by one, as if never interrupted."""
    prompt, rest = embeds(1, cut), embeds(rows, 4, seed=2)
    unbroken, last = logits(torch.cat([prompt.expand(rows, -1, -1), rest], 1))
    start = logits(prompt)[1].expand(rows)
    state = start
    for t in range(4):
        step, state = logits(rest[:, t : t + 1], state=state)
        assert distance(step[:, 0], unbroken[:, cut + t]) < EXACT
    assert all(distance(a, b) < EXACT for a, b in zip(meaning(state), meaning(last), strict=True))

    zeroed = State(*(torch.zeros_like(s) for s in start[:4]), start.maximum)
    for broken in (
        zeroed,
        None,
        *(start._replace(**{f: getattr(start, f) + 0.1}) for f in start._fields[:4]),
    ):
        assert distance(logits(rest, state=broken)[0], unbroken[:, cut:]) > VISIBLE * EXACT


def test_state_with_left_padded_continuation() -> None:
    """Rows of unlike length read on from states of their own: pads before the first token do not hide the state."""
    state = logits(embeds(2, 3))[1]
    x, mask = embeds(2, 4, seed=2), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    together, _ = logits(x, mask, state)
    alone, _ = logits(x[:1, 2:], state=state.select([0]))
    assert distance(together[0, 2:], alone[0]) < EXACT


def test_gradient_reaches_the_initial_state_through_frozen_weights() -> None:
    """Along random directions of every state tensor, against finite differences; weights get no gradient."""
    frozen = copy.deepcopy(MODEL).requires_grad_(False)
    start = State(*(s.clone().requires_grad_() for s in logits(embeds(2, 3))[1]))
    x = embeds(2, 4, seed=2)

    def loss(state: State) -> Tensor:
        hidden, after = rwkv.forward(frozen, x, RAGGED[:, :4], state)
        return (hidden[RAGGED[:, :4]].sin().sum() + sum(t.sin().sum() for t in after)) / 10

    grads = torch.autograd.grad(loss(start), start)
    for field, value, grad in zip(State._fields, start, grads, strict=True):
        way = torch.randn(value.shape, generator=torch.Generator().manual_seed(7), dtype=value.dtype)
        with torch.no_grad():
            ends = [loss(start._replace(**{field: value + h * way})) for h in (1e-5, -1e-5)]
        slope = (ends[0] - ends[1]) / 2e-5
        assert abs(slope) > 1e-3, field
        assert torch.allclose((grad * way).sum(), slope, rtol=1e-5), field
    assert all(p.grad is None for p in frozen.parameters())


def test_mask_of_another_length_is_refused() -> None:
    """A mask over prompt and text, with embeddings of the text alone, gives one sentence with both shapes."""
    with pytest.raises(WorkbenchError, match=r"\(1, 5\) but the inputs are \(1, 3\)"):
        logits(embeds(1, 3), torch.ones(1, 5))


def test_nothing_is_written_in_place() -> None:
    """The state that goes in, the inputs and the weights are what they were, to the bit and to the version."""
    state, x = logits(embeds(1, 3))[1], embeds(1, 2)
    kept = [t.clone() for t in (*state, x, *MODEL.parameters())]
    versions = [t._version for t in (*state, x, *MODEL.parameters())]
    logits(x, torch.tensor([[1, 0]]), state)
    for before, version, now in zip(kept, versions, (*state, x, *MODEL.parameters()), strict=True):
        assert torch.equal(before, now)
        assert version == now._version


def test_training_under_autocast_keeps_the_recurrence_in_float32() -> None:
    """bfloat16 matrices, float32 recurrence; from the author's start the loss of a repeated text falls."""
    k, v = (embeds(1, 8, seed=s, dtype=torch.float32).bfloat16() for s in (1, 2))
    w, u = torch.linspace(0.01, 1, 32), torch.zeros(32)
    with torch.autocast("cpu", torch.bfloat16):
        out, sums = rwkv.wkv(w, u, k, v)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, rwkv.wkv(w, u, k.float(), v.float())[0].bfloat16())
    assert all(s.dtype == torch.float32 for s in sums)

    model = make_model(torch.float32).train()
    rwkv.init_weights(model, torch.Generator().manual_seed(0))
    ids = torch.randint(61, (4, 17), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        with torch.autocast("cpu", torch.bfloat16):
            predicted = model.head(rwkv.forward(model, model.rwkv.embeddings(ids[:, :-1])).hidden)
        loss = torch.nn.functional.cross_entropy(predicted.float().flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert abs(losses[0] - torch.tensor(61.0).log()) < 0.2
    assert losses[-1] < 0.5


def test_authors_initialisation() -> None:
    """Spread decays, zeros where a layer starts silent, and the same seed gives the same weights."""
    model, again = make_model(torch.float32), make_model(torch.float32)
    rwkv.init_weights(model, torch.Generator().manual_seed(0))
    rwkv.init_weights(again, torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    attention = model.rwkv.blocks[-1].attention
    assert (attention.time_decay.min().item(), attention.time_decay.max().item()) == (-5, 3)
    assert attention.time_first.std() > 0.3
    x = embeds(1, 4, dtype=torch.float32)
    silent = model.rwkv.ln_out(model.rwkv.blocks[0].pre_ln(x))
    assert distance(rwkv.forward(model, x).hidden, silent) < 1e-5


def test_examples_in_the_docstrings_run() -> None:
    """The docstring of the reference is what a reader tries first."""
    result = doctest.testmod(rwkv)
    assert result.attempted > 0
    assert result.failed == 0

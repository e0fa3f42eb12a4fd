"""States as vectors: what is read is all that a layer remembers, and each row's own, whoever stands beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from workbench.backbones import rwkv, states
from workbench.backbones.backbone import Backbone
from workbench.backbones.states import end_states, read_state, state_sizes, write_states
from workbench.errors import WorkbenchError
from workbench.tests import zoo

RECURRENT = ("rwkv", "mamba", "mamba2", "recurrent_gemma", "falcon_h1", "qwen3_next")
CHOSEN = RECURRENT if os.environ.get("WORKBENCH_EVERY_ARCHITECTURE") else ("rwkv", "falcon_h1")
TOLERANCE = 1e-5  # of the largest number
every_state = pytest.mark.parametrize("architecture", CHOSEN)
START, STEPS = 9, 4


def distance(a: Tensor, b: Tensor) -> float:
    """Largest difference as a share of the largest number."""
    return float((a - b).abs().max() / b.abs().max())


def texts(seed: int) -> Tensor:
    """Ids of two texts."""
    return torch.randint(3, 250, (2, START + STEPS), generator=torch.Generator().manual_seed(seed))


def run(backbone: Backbone, ids: Tensor, cache: Any = None, first: int = 0) -> Any:
    """Ids (B, T) that stand at position `first` and after it, no pads."""
    mask = torch.ones(len(ids), first + ids.shape[1], dtype=torch.bool)
    positions = torch.arange(first, first + ids.shape[1]).expand(len(ids), -1)
    return backbone.runner(backbone.embed(ids), mask, positions, cache, True)


def go_on(backbone: Backbone, ids: Tensor, cache: Any) -> Tensor:
    """(B, STEPS, V) logits of the last tokens of ids, one by one: Mamba restarts where several follow a cache."""
    found = []
    for at in range(START, ids.shape[1]):
        output = run(backbone, ids[:, at : at + 1], cache, at)
        found.append(output.logits)
        cache = output.cache
    return torch.cat(found, dim=1)


def remembering(backbone: Backbone, ids: Tensor, keys_of: Any) -> Any:
    """A cache that has read other texts, with the keys and values of `keys_of`, which are no part of a state."""
    cache = run(backbone, ids).cache
    for entry, own in zip(getattr(cache, "layers", ()), getattr(keys_of, "layers", ()), strict=True):
        if isinstance(getattr(own, "keys", None), Tensor):
            entry.keys, entry.values = own.keys, own.values
    return cache


def pieces(cache: Any, layer: int, vector: Tensor) -> list[Tensor]:
    """For each part of a vector (window and recurrent state; RWKV's sums and shifts) where in it that stands, (n,) bool."""
    sizes = [vector.shape[1] // 2] * 2
    if not isinstance(cache, rwkv.State):
        sizes = [part[0].numel() for part in states.RecurrentLayersReader._parts(cache.layers[layer])]
    owner = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return [owner == number for number in range(len(sizes))]


@every_state
@torch.no_grad()
def test_a_written_state_goes_on_as_its_text_does(architecture: str) -> None:
    """The proof: read, written where another text was, continued, it is one unbroken run. Each layer's state matters."""
    backbone = zoo.backbone(architecture)
    ids = texts(0)
    expected = run(backbone, ids).logits[:, START:]
    cache = run(backbone, ids[:, :START]).cache
    vectors = {layer: read_state(backbone, cache, layer) for layer in state_sizes(backbone)}
    assert vectors and all(v.shape == (2, state_sizes(backbone)[layer]) for layer, v in vectors.items())
    other = remembering(backbone, texts(1)[:, :START], keys_of=cache)

    written = write_states(backbone, other, vectors)
    for layer, vector in vectors.items():
        assert distance(read_state(backbone, written, layer), vector) < 1e-6
    assert distance(go_on(backbone, ids, written), expected) < TOLERANCE
    for layer, vector in vectors.items():  # a part of one layer's is the neighbour's
        for part in pieces(cache, layer, vector):
            broken = torch.where(part, vector.flip(0), vector)
            found = go_on(backbone, ids, write_states(backbone, other, {**vectors, layer: broken}))
            assert distance(found, expected) > 1000 * TOLERANCE, layer

    assert (
        distance(go_on(backbone, ids, other), expected) > 1000 * TOLERANCE
    )  # what was given stays as it was
    before = {layer: vector.clone() for layer, vector in vectors.items()}
    assert distance(go_on(backbone, ids, cache), expected) < TOLERANCE
    assert all(
        torch.equal(vectors[layer], before[layer]) for layer in vectors
    )  # copies of what is written in place


@every_state
@pytest.mark.parametrize("part", [0, -1])
def test_a_reader_that_loses_something_is_not_proven(
    architecture: str, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects the proof at load, and with it every architecture that no test knows: half a state is refused.

    The first part is the window of a convolution, or RWKV's sums; the last is the recurrent state, or the shifts.
    """
    backbone = zoo.backbone(architecture)
    read, parts = states.RwkvReader.read, states.RecurrentLayersReader._parts

    def half(self: Any, cache: Any, layer: int) -> Tensor:
        halves = read(self, cache, layer).split(64, dim=-1)
        return torch.cat([0 * one if one is halves[part] else one for one in halves], dim=-1)

    def fewer(entry: Any) -> Iterator[Tensor]:
        whole = list(parts(entry))
        yield from (one for one in whole if one is not whole[part])

    monkeypatch.setattr(states.RwkvReader, "read", half)
    monkeypatch.setattr(states.RecurrentLayersReader, "_parts", staticmethod(fewer))
    again = Backbone(backbone.model, backbone.tokenizer, "half-read")
    assert again.proven_states == {}
    with pytest.raises(WorkbenchError, match="no reader that is proven; those of RWKV, Mamba"):
        state_sizes(again)


@every_state
@given(rows=st.lists(st.lists(st.integers(3, 250), min_size=1, max_size=12), min_size=2, max_size=4))
def test_end_states_are_those_of_rows_alone(architecture: str, rows: list[list[int]]) -> None:
    """Contract 1 for states: after its last token, a row's state is what it is alone, read without a pad."""
    backbone = zoo.backbone(architecture)
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.tensor([row + [7] * (int(lengths.max()) - len(row)) for row in rows])
    found = end_states(backbone, ids, lengths)
    assert list(found) == list(state_sizes(backbone))
    with torch.no_grad():
        alone = [run(backbone, torch.tensor([row])).cache for row in rows]
    for layer, vectors in found.items():
        expected = torch.cat([read_state(backbone, cache, layer) for cache in alone])
        assert distance(vectors, expected) < TOLERANCE
        assert not vectors.requires_grad


@pytest.mark.parametrize("architecture", [a for a in CHOSEN if a != "rwkv"])
@torch.no_grad()
def test_right_padding_with_a_mask_would_be_seen(architecture: str) -> None:
    """The test above sees the known mistake: a state read behind pads on the right, which are masked."""
    backbone, ids = zoo.backbone(architecture), texts(0)
    right = end_states(backbone, ids, torch.tensor([START, START]))
    mask = torch.ones(ids.shape, dtype=torch.bool)
    mask[:, START:] = False
    cache = backbone.runner(backbone.embed(ids), mask, mask.long().cumsum(1) - 1, use_cache=True).cache
    for layer, vectors in right.items():
        assert distance(read_state(backbone, cache, layer), vectors) > 1000 * TOLERANCE


@every_state
def test_gradients_flow_through_a_read(architecture: str) -> None:
    """Protects training through states: the gradient of what is read reaches each token that was read, as small steps say."""
    backbone = zoo.backbone(architecture)
    layer = max(state_sizes(backbone))
    embeddings = backbone.embed(texts(0)[:, :4]).clone().requires_grad_(True)
    ones = torch.ones(2, 4, dtype=torch.bool)
    weights = torch.randn(state_sizes(backbone)[layer], generator=torch.Generator().manual_seed(1))

    def value(embeddings: Tensor) -> Tensor:
        cache = backbone.runner(embeddings, ones, torch.arange(4).expand(2, -1), use_cache=True).cache
        return (read_state(backbone, cache, layer).double() * weights).sum()

    gradient = torch.autograd.grad(value(embeddings), embeddings)[0]
    assert bool((gradient.abs().amax(-1) > 0).all())
    step = gradient / gradient.norm() * (1e-5 if backbone.dtype == torch.float64 else 1e-4)
    with torch.no_grad():
        slope = (value(embeddings + step) - value(embeddings - step)) / (2 * step.norm())
    assert abs(float(slope / gradient.norm()) - 1) < 0.02


def test_gradients_flow_through_a_write() -> None:
    """Protects training a state: RWKV's logits behind vectors give these the gradient that small steps show."""
    backbone, ids = zoo.backbone("rwkv"), texts(0)
    with torch.no_grad():
        cache = run(backbone, ids[:, :START]).cache
    vector = read_state(backbone, cache, 1).requires_grad_(True)

    def value(vector: Tensor) -> Tensor:
        return go_on(backbone, ids, write_states(backbone, cache, {1: vector})).log_softmax(-1)[..., 5].sum()

    gradient = torch.autograd.grad(value(vector), vector)[0]
    step = gradient / gradient.norm() * 1e-5
    with torch.no_grad():
        slope = (value(vector + step) - value(vector - step)) / (2 * step.norm())
    assert float(gradient.norm()) > 1e-3 and abs(float(slope / gradient.norm()) - 1) < 1e-3


def test_rwkv_reads_a_memory_not_its_scale() -> None:
    """The same memory with other numerators, denominators and scales has the same vector."""
    backbone = zoo.backbone("rwkv")
    with torch.no_grad():
        cache = run(backbone, texts(0)).cache
    other = rwkv.State(cache[0], cache[1], cache[2] * 8, cache[3] * 8, cache[4] - torch.tensor(8.0).log())
    assert distance(read_state(backbone, other, 1), read_state(backbone, cache, 1)) < 1e-6


def test_bfloat16_states_are_proven_too() -> None:
    """Protects big models, whose states come in bfloat16 or are written next to float32."""
    backbone = Backbone(zoo.make_model("falcon_h1").to(torch.bfloat16), zoo.tokenizer(), "bf16")
    assert backbone.proven_states == zoo.backbone("falcon_h1").proven_states


def test_what_has_no_state_is_refused() -> None:
    """One sentence that says what is missing and who has it."""
    llama, qwen, rwkv_4 = zoo.backbone("llama"), zoo.backbone("qwen3_next"), zoo.backbone("rwkv")
    ids = texts(0)
    for act, said in (
        (lambda: state_sizes(llama), "is an attention model.*RWKV, Mamba, .* have one"),
        (lambda: end_states(llama, ids, torch.tensor([3, 2])), "is an attention model"),
        (lambda: end_states(qwen, ids, torch.tensor([3, 2]), [1]), "layer 1 .* these have one: 0, 2"),
        (lambda: read_state(rwkv_4, run(rwkv_4, ids).cache, 3), "layer 3 .* these have one: 0, 1, 2"),
        (lambda: read_state(rwkv_4, None, 0), "holds no recurrent state"),
        (lambda: end_states(rwkv_4, ids, torch.tensor([3, 0])), "row 1 has no tokens"),
    ):
        with pytest.raises(WorkbenchError, match=said) as caught:
            act()
        assert "\n" not in str(caught.value)

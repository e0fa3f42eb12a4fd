"""States that live in a model's modules (RecurrentGemma's): every cache has its own, and a run leaves nothing behind."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from workbench.backbones import module_state
from workbench.backbones.backbone import Backbone
from workbench.tests import zoo

TOLERANCE = 1e-6  # of the largest logit


@pytest.fixture
def backbone() -> Backbone:
    return zoo.backbone("recurrent_gemma")


def texts(seed: int, rows: int, tokens: int) -> Tensor:
    return torch.randint(3, 250, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def run(backbone: Backbone, ids: Tensor, cache: Any = None, first: int = 0, use_cache: bool = True) -> Any:
    """Ids (B, T) that stand at position `first` and after it."""
    mask = torch.ones(len(ids), first + ids.shape[1], dtype=torch.bool)
    positions = torch.arange(first, first + ids.shape[1]).expand(len(ids), -1)
    with torch.no_grad():
        return backbone.runner(backbone.embed(ids), mask, positions, cache, use_cache)


def decode(backbone: Backbone, ids: Tensor, start: int) -> Tensor:
    """(B, T - start, V) logits, the first `start` tokens read at once and the others one by one."""
    output, found = run(backbone, ids[:, :start]), []
    for at in range(start, ids.shape[1]):
        output = run(backbone, ids[:, at : at + 1], output.cache, at)
        found.append(output.logits)
    return torch.cat(found, dim=1)


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def test_every_cache_has_its_own_state(backbone: Backbone) -> None:
    """Two texts read in turn go on as each would alone, also as rows of a batch that are dropped and doubled."""
    one, other = texts(0, 2, 12), texts(1, 2, 12)
    whole = [run(backbone, ids, use_cache=False).logits for ids in (one, other)]
    first, second = run(backbone, one[:, :9]), run(backbone, other[:, :9])
    for at in range(9, 12):
        first = run(backbone, one[:, at : at + 1], first.cache, at)
        second = run(backbone, other[:, at : at + 1], second.cache, at)
        assert distance(first.logits[:, 0], whole[0][:, at]) < TOLERANCE
        assert distance(second.logits[:, 0], whole[1][:, at]) < TOLERANCE
        assert distance(second.logits[:, 0], whole[0][:, at]) > 1000 * TOLERANCE  # a mix-up would show
    rows = torch.tensor([1, 1, 0])
    cache = backbone.runner.expand(run(backbone, one[:, :11]).cache, rows)
    assert distance(run(backbone, one[rows, 11:], cache, 11).logits[:, 0], whole[0][rows, 11]) < TOLERANCE
    cache = backbone.runner.select(run(backbone, one[:, :11]).cache, rows[:1])
    assert distance(run(backbone, one[1:, 11:], cache, 11).logits[:, 0], whole[0][1:, 11]) < TOLERANCE


def test_a_state_that_is_not_carried_is_seen(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above would see a run that begins with what another one left."""
    ids = texts(0, 2, 12)
    right = decode(backbone, ids, 9)

    def forget(model: Any, places: Any, states: Any) -> None:
        """Leaves the modules as they are."""

    monkeypatch.setattr(module_state, "_fill", forget)
    output = run(backbone, ids[:, :9])
    run(backbone, texts(1, 2, 9))
    assert distance(run(backbone, ids[:, 9:10], output.cache, 9).logits, right[:, :1]) > 1000 * TOLERANCE
    monkeypatch.undo()
    run(backbone, ids)  # which empties the places again


def test_a_run_leaves_nothing_behind(backbone: Backbone) -> None:
    """No tensor stays on a module, whose graph would stay with it: after reading, training, decoding, and an error."""

    def left() -> set[tuple[str, str]]:
        return module_state._left(backbone.model)

    ids = texts(0, 2, 6)
    assert backbone.runner.places
    decode(backbone, ids, 4)
    assert not left()
    embeddings = backbone.embed(ids).requires_grad_(True)
    ones = torch.ones(ids.shape, dtype=torch.bool)
    backbone.runner(embeddings, ones, torch.arange(6).expand(2, -1)).logits.sum().backward()
    assert not left()
    with pytest.raises(RuntimeError):
        run(backbone, ids[:, :1], run(backbone, ids[:1, :4]).cache, 4)  # one row's cache for two
    assert not left() and not backbone.runner.lock.locked()


def test_two_threads_decode_at_once(backbone: Backbone) -> None:
    """Protects jobs: each thread's text goes on from its own state."""
    rows = [texts(seed, 2, 16) for seed in (0, 1)]
    expected = [decode(backbone, ids, 4) for ids in rows]
    found: dict[int, Tensor] = {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: decode(backbone, rows[i], 4)}))  # type: ignore[misc]
        for i in (0, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[i], expected[i]) for i in (0, 1))

"""What layers read can be seen and changed, only where asked, and without a trace afterwards."""

from __future__ import annotations

import os
import threading

import pytest
import torch
from torch import Tensor

from workbench.backbones.backbone import Backbone
from workbench.backbones.layer_inputs import install, reading
from workbench.tests import zoo

CHOSEN = zoo.ARCHITECTURES if os.environ.get("WORKBENCH_EVERY_ARCHITECTURE") else zoo.EVERY_COMMIT


def run(backbone: Backbone, mask: Tensor | None = None) -> Tensor:
    """Logits of five tokens."""
    embeddings = backbone.vocabulary()[5:10][None]
    mask = torch.ones(1, 5, dtype=torch.bool) if mask is None else mask
    with torch.no_grad():
        return backbone.runner(embeddings, mask, (mask.long().cumsum(1) - 1).clamp(min=0)).logits


@pytest.mark.parametrize("architecture", CHOSEN)
def test_layers_are_read_and_changed(architecture: str) -> None:
    """Protects deep prompts and traces: every layer passes by once, looking changes nothing, changing does."""
    backbone = zoo.backbone(architecture)
    plain = run(backbone)
    seen: list[tuple[int, Tensor]] = []

    def look(layer: int, hidden: Tensor) -> Tensor:
        seen.append((layer, hidden))
        return hidden

    with reading(look):
        assert torch.equal(run(backbone), plain)
    assert [layer for layer, _ in seen] == list(range(backbone.num_layers + 1))  # and what the last one gives
    if architecture not in (
        "gpt2",
        "recurrent_gemma",
    ):  # which add positions, or a factor, behind the embeddings
        assert torch.equal(seen[0][1], backbone.vocabulary()[5:10][None])
    for place in (1, backbone.num_layers):
        with reading(lambda layer, hidden, at=place: hidden + hidden.roll(1, -1) if layer == at else hidden):
            assert float((run(backbone) - plain).abs().max() / plain.abs().max()) > 1e-2
    assert torch.equal(run(backbone), plain)


def test_positions_are_the_callers_where_pads_come_first() -> None:
    """Protects the recurrence that packs its rows: an edit sees the positions that it was given."""
    backbone = zoo.backbone("rwkv")
    mask = torch.tensor([[False, False, True, True, True]])
    seen = []

    def look(layer: int, hidden: Tensor) -> Tensor:
        seen.append(hidden.abs().sum(-1)[0] > 0)
        return hidden

    with reading(look):
        run(backbone, mask)
    assert torch.equal(seen[0], mask[0])


def test_threads_do_not_meet_and_hooks_are_put_on_once() -> None:
    """Protects jobs: another thread's run of the same model is not edited."""
    backbone = zoo.backbone("llama")
    plain = run(backbone)
    install(backbone.layers)
    assert all(len(layer._forward_pre_hooks) == 1 for layer in backbone.layers)
    found = []
    with reading(lambda layer, hidden: hidden * 2):
        thread = threading.Thread(target=lambda: found.append(run(backbone)))
        thread.start()
        thread.join()
    assert torch.equal(found[0], plain)

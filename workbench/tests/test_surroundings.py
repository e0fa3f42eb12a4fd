"""Protects what prompts are drawn among: the right vectors of the right space, under the right names."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.analysis import surroundings
from workbench.analysis.surroundings import Surroundings, layer_of, places_of
from workbench.backbones.layer_inputs import reading


def read_alone(backbone: wb.Backbone, token: int, layer: int) -> np.ndarray:
    """What a layer reads of a text of one token."""
    seen: dict[int, torch.Tensor] = {}

    def look(index: int, hidden: torch.Tensor) -> torch.Tensor:
        seen[index] = hidden
        return hidden

    with torch.no_grad(), reading(look):
        here = torch.zeros(1, 1, dtype=torch.long)
        backbone.runner(backbone.embed(here + token), here == 0, here)
    return seen[layer][0, 0].numpy()


@pytest.fixture(scope="module", params=["tiny-llama", "tiny-rwkv"])
def backbone(request: pytest.FixtureRequest) -> wb.Backbone:
    return wb.load_backbone(request.param, device="cpu")


def test_the_vocabulary_of_a_layer_is_what_it_reads_of_each_token_alone(backbone: wb.Backbone) -> None:
    """Protects the words beside a deep prompt: row i is token i's, in that layer, with its text."""
    around = Surroundings(backbone, "layer 2")
    for row in (5, 700):
        token = int(around.ids[row])
        alone = read_alone(backbone, token, 2)
        np.testing.assert_allclose(around.vocabulary[row], alone, atol=1e-4)
        assert np.abs(around.vocabulary[row + 1] - alone).max() > 0.02  # another token would be seen
        assert around.words[row] == backbone.tokenizer.decode([token]).strip()


def test_embeddings_are_what_the_model_embeds(backbone: wb.Backbone) -> None:
    around = Surroundings(backbone)
    ids = torch.tensor([3, 50, 999])
    np.testing.assert_array_equal(around.vocabulary[ids], backbone.embed(ids).detach().numpy())
    assert len(around.words) == len(around.vocabulary) == backbone.vocabulary_size


def test_activations_are_of_the_task_and_read_once(backbone: wb.Backbone) -> None:
    """Protects two clouds from being one: other tasks lie elsewhere, and a second look costs nothing."""
    around = Surroundings(backbone, "layer 1")
    reading_, order = around.activations("reading", 64), around.activations("order-2", 64)
    assert reading_.shape == (64, backbone.width) and np.isfinite(reading_).all()
    assert np.abs(reading_.mean(0) - order.mean(0)).max() > 0.05
    assert around.activations("reading", 64) is reading_


def test_a_large_vocabulary_is_thinned_for_a_layer(
    backbone: wb.Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surroundings, "MOST_WORDS", 30)
    around = Surroundings(backbone, "layer 0")
    assert around.vocabulary.shape == (30, backbone.width) and len(set(around.ids)) == len(around.words) == 30


def test_places() -> None:
    assert layer_of("embeddings") is None and layer_of("layer 11") == 11
    assert places_of(["layer 10", "mlp", "layer 9", "embeddings"]) == ["embeddings", "layer 9", "layer 10"]
    with pytest.raises(wb.WorkbenchError, match="'keys'"):
        layer_of("keys")


def test_a_layer_that_is_not_there_is_refused(backbone: wb.Backbone) -> None:
    with pytest.raises(wb.WorkbenchError, match="no layer 9"):
        Surroundings(backbone, "layer 9")

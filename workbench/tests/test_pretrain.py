"""Pretraining of the bundled backbones: the tokenizer, the corpus, the loop, and the cards that are committed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from workbench.backbones import card as cards
from workbench.backbones.corpus import Words, batches, make_shard, tokenizer_texts
from workbench.backbones.pretrain import (
    RECIPES,
    PretrainConfig,
    _CausalAttention,
    batch_loss,
    feed,
    new_model,
    pretrain,
    rate,
)
from workbench.backbones.score import Row, score
from workbench.data import BACKBONES
from workbench.errors import WorkbenchError
from workbench.tasks.world.mixture import document

BUNDLED = sorted(RECIPES)
TINY = PretrainConfig(
    width=32,
    layers=2,
    heads=2,
    inner=64,
    vocabulary=600,
    steps=6,
    warmup=2,
    card_samples=1,
    card_cases=2,
    batch_tokens=512,
    opening_documents=10,
    opening_batch=512,
    middle_documents=10**9,
    middle_words=60,
    shard_tokens=4000,
    checkpoint_every=2,
    evaluate_every=1000,
    precision="float32",
)


@pytest.fixture(scope="module")
def words_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tokenizer, trained once for this file."""
    from workbench.backbones.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(tokenizer_texts(0, 300), 600).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def small(words_folder: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(words_folder)


def _run(config: PretrainConfig, folder: Path, words: Path, stop_at: int | None = None) -> list[float]:
    if not (folder / "tokenizer").exists():
        shutil.copytree(words, folder / "tokenizer")
    return [step.loss for step in pretrain(config, folder, device="cpu", stop_at=stop_at)]


def _bundled_tokenizers() -> list[PreTrainedTokenizerFast]:
    return [PreTrainedTokenizerFast.from_pretrained(BACKBONES / name) for name in BUNDLED]


@given(text=st.text(max_size=60))
def test_any_text_comes_back(small: PreTrainedTokenizerFast, text: str) -> None:
    """Protects the byte-level alphabet: nothing is unknown, nothing is cleaned up."""
    ids = small.encode(text)
    assert ids[0] == small.bos_token_id
    assert small.decode(ids, skip_special_tokens=True) == text


def test_a_word_of_the_world_is_one_token() -> None:
    """Protects the size of the vocabulary: in documents never trained on, a word costs about one token.

    Numbers stand aside, since each digit costs one.
    """
    first, *others = _bundled_tokenizers()
    assert all(other.get_vocab() == first.get_vocab() for other in others)
    texts = [document(99, index).text for index in range(200)]
    words = [word for text in texts for word in text.split()[1:] if not word.isdigit()]
    tokens = first([f" {word}" for word in words], add_special_tokens=False)["input_ids"]
    assert np.mean([len(ids) for ids in tokens]) < 1.01
    assert len(first.encode("12345", add_special_tokens=False)) == 5


def test_word_by_word_is_what_the_tokenizer_does(small: PreTrainedTokenizerFast) -> None:
    """Protects the corpus's short cut: ids of words in a row are the ids of the text."""
    words = Words(small)
    for index in range(40):
        made = document(5, index)
        ids, weights = words.encode(made)
        assert ids == [*small.encode(made.text), small.eos_token_id]
        assert len(ids) == len(weights) and weights[0] == 0


def test_batches_hold_every_document_once(small: PreTrainedTokenizerFast) -> None:
    """Protects against documents that are lost, doubled, cut or mixed when they are sorted into batches."""
    shard, following = make_shard(small, 0, 7, 6000)
    assert following == 7 + len(shard.offsets) - 1
    found = [
        tuple(row[mask])
        for b in batches(shard, 1024, small.pad_token_id, 3)
        for row, mask in zip(b.ids, b.mask, strict=False)
    ]
    wanted = [tuple(shard.ids[a:b]) for a, b in zip(shard.offsets, shard.offsets[1:], strict=False)]
    assert sorted(found) == sorted(wanted)


@pytest.mark.parametrize("architecture", ["llama", "rwkv"])
def test_a_loss_is_the_weighted_cross_entropy(architecture: str, small: PreTrainedTokenizerFast) -> None:
    """Protects the hand-made gradient of the head, and that padding and BOS count for nothing."""
    config = replace(TINY, architecture=architecture)
    model = new_model(config, small)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    batch = next(b for _, _, b in feed(config, small, 0, 0) if not b.mask.all())
    loss, nats = batch_loss(model, batch)
    loss.backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    each = []
    for ids, mask, weights in zip(batch.ids, batch.mask, batch.weights, strict=False):
        ids = torch.from_numpy(ids[mask])
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
        losses = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")
        each.append((losses, torch.from_numpy(weights[mask][1:])))
    losses, weights = (torch.cat(parts) for parts in zip(*each, strict=False))
    reference = (losses * weights).sum() / weights.sum()
    reference.backward()
    assert loss.item() == pytest.approx(reference.item(), rel=1e-5)
    assert nats.item() == pytest.approx(losses.mean().item(), rel=1e-5)
    assert abs(loss.item() - nats.item()) > 1e-3  # or the weights would not be tested
    for name, p in model.named_parameters():
        torch.testing.assert_close(ours[name], p.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", ["llama", "rwkv"])
def test_loss_falls_and_a_resumed_run_is_bit_equal(
    architecture: str, precision: str, words_folder: Path, tmp_path: Path
) -> None:
    """Protects the checkpoint: weights, moments and place in the data, across a shard's end and a lost step."""
    config = replace(TINY, architecture=architecture, precision=precision, steps=14, learning_rate=1e-2)
    whole = _run(config, tmp_path / "whole", words_folder)
    _run(config, tmp_path / "parts", words_folder, stop_at=5)
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:  # a step whose checkpoint a kill prevented
        file.write('{"index": 6, "loss": 1.0}\n{"index": 7, "lo')
    rest = _run(config, tmp_path / "parts", words_folder)
    assert rest == whole[5:]
    assert np.mean(whole[-3:]) < np.mean(whole[:3]) - 0.2
    metrics = [json.loads(line) for line in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    assert [m["index"] for m in metrics] == list(range(1, 15))
    for file in (
        "checkpoint/model.safetensors",
        "checkpoint/optimizer.safetensors",
        "backbone/model.safetensors",
    ):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes(), file
    card = json.loads((tmp_path / "whole" / "backbone" / "card.json").read_text())
    assert (
        card["steps"] == 14
        and card["forgetting"]
        and (tmp_path / "whole" / "backbone" / "README.md").exists()
    )


@pytest.mark.parametrize("length", [5, 8, 19])
def test_attention_by_blocks_is_attention(length: int) -> None:
    """Protects the hand-made attention, values and gradients, in one block and across several."""
    q, k, v = (torch.randn(2, length, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    ours = _CausalAttention.apply(q, k, v, 8)
    theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)
    torch.testing.assert_close(ours, theirs)
    grad = torch.randn_like(ours)
    found, wanted = (torch.autograd.grad(out, (q, k, v), grad) for out in (ours, theirs))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_the_rate_rises_falls_and_ends_at_nothing() -> None:
    """Protects the schedule that the recipes state."""
    config = RECIPES["tiny-llama"]
    rates = [rate(config, step) for step in range(config.steps + 1)]
    assert max(rates) == rates[config.warmup] == config.learning_rate and rates[-1] == 0
    again = config.first_cycle
    assert rates[again - 1] < 1e-3 * config.learning_rate and max(rates[again:]) == config.later_rate
    for falling in (rates[config.hold : again], rates[again + config.warmup :]):
        assert all(a > b for a, b in zip(falling, falling[1:], strict=False))


def test_bad_recipes_and_folders_are_refused(words_folder: Path, tmp_path: Path) -> None:
    """Protects a run from being continued under another recipe."""
    with pytest.raises(WorkbenchError, match="heads"):
        PretrainConfig(width=100, heads=3)
    _run(TINY, tmp_path / "run", words_folder, stop_at=1)
    with pytest.raises(WorkbenchError, match="another recipe"):
        next(iter(pretrain(replace(TINY, seed=1), tmp_path / "run")))


def test_scores_tell_a_right_answer_from_a_wrong_one(small: PreTrainedTokenizerFast) -> None:
    """Protects the measure: positions are not shifted, padding does not matter."""
    model = new_model(replace(TINY, architecture="llama"), small).eval()
    ids = small.encode("the fox lives in the forest near tom")
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0]
    rows = [Row(ids, [1, 4, len(ids) - 1]), Row(ids[:3], [2])]
    (first, second) = score(model, rows)
    for position, (choice, nats) in zip([1, 4, len(ids) - 1], first, strict=False):
        assert choice == logits[position - 1].argmax().item()
        expected = -logits[position - 1].log_softmax(-1)[ids[position]].item()
        assert nats == pytest.approx(expected, abs=1e-4)
    assert second[0][0] == logits[1].argmax().item()


@pytest.mark.parametrize("name", BUNDLED)
def test_the_card_is_the_backbone_s(name: str) -> None:
    """Protects the card: it belongs to these weights and this recipe, and a measurement made now agrees with it."""
    folder = BACKBONES / name
    card = json.loads((folder / "card.json").read_text())
    assert json.loads(json.dumps(card["recipe"])) == json.loads(json.dumps(vars(RECIPES[name])))
    for key in (
        "tokens",
        "seconds",
        "loss",
        "accuracy",
        "forgetting",
        "loss_by_position",
        "versions",
    ):
        assert card[key], key
    assert all(len(cell) == 4 for cell in card["forgetting"])
    assert (folder / "model.safetensors").stat().st_size < 25e6
    assert (folder / "README.md").read_text() == cards.render(card)
    model, tokenizer = cards.load_finished(folder)
    assert card["parameters"] == sum(p.numel() for p in model.parameters())
    for family in ("capital-of", "last-word"):
        found = cards.family_accuracy(model, tokenizer, family, 25, seed=1)
        for key, value in found.items():
            assert abs(value - card["accuracy"][family][key]) < 0.3, (family, key)
    stories = cards.story_scores(model, tokenizer, 48, seed=1)
    expected = {(c, d): share for c, d, share, _ in card["forgetting"]}
    mean = np.mean([expected[c, d] for c, d, _, _ in stories.forgetting()])
    assert abs(np.mean([share for _, _, share, _ in stories.forgetting()]) - mean) < 0.15


def test_the_recurrent_backbone_forgets_and_the_other_does_not() -> None:
    """Protects the phenomenon that the workbench studies, as the cards state it."""
    maps = {}
    for name in BUNDLED:
        cells = json.loads((BACKBONES / name / "card.json").read_text())["forgetting"]
        near = [(share, n) for c, d, share, n in cells if c == 1 and d <= 25]
        far = [(share, n) for c, d, share, n in cells if c >= 12 and d >= 200]
        maps[name] = [sum(s * n for s, n in part) / sum(n for _, n in part) for part in (near, far)]
    assert min(maps["tiny-llama"][0], maps["tiny-rwkv"][0]) >= 0.9
    assert maps["tiny-rwkv"][1] <= maps["tiny-rwkv"][0] - 0.2
    assert maps["tiny-rwkv"][1] <= maps["tiny-llama"][1] - 0.2

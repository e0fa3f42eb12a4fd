"""The pretraining corpus: documents of the small world as token ids, made shard by shard, in a fixed order.

A shard depends on the recipe and its number alone, so that a resumed run reads the same tokens as an
uninterrupted one, and two backbones read the same tokens. It never sees a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from workbench.tasks.world.mixture import Document, document

PROMPT, TEXT, ANSWER, ANSWER_LATER, DUE, DUE_AT_FIRST = 1, 4, 20, 60, 40, 120
"""Weight in the loss, in quarters: of the words of a prompt or question, which are mostly dice; of running words; of
answers (those of worked examples too); of those in the second cycle; of a word that falls due; and of one in the opening
stage."""


@dataclass(frozen=True)
class Shard:
    """Documents end to end: `ids[offsets[i]:offsets[i + 1]]` is document i, BOS first and EOS last."""

    ids: np.ndarray
    """uint16, (tokens,)."""
    weights: np.ndarray
    """uint8, (tokens,): weight of the loss at each token; 0 at BOS."""
    offsets: np.ndarray
    """int64, (documents + 1,)."""


@dataclass(frozen=True)
class Batch:
    """Documents of about one length, right-padded."""

    ids: np.ndarray
    """int64, (B, T)."""
    weights: np.ndarray
    """float32, (B, T): 0 at BOS and at padding."""
    mask: np.ndarray
    """bool, (B, T): False at padding."""


class Words:
    """Token ids of documents, word by word.

    The tokenizer splits at spaces, so the tokens of a document are those of its words, and a dictionary
    of words is some thirty times as quick as the tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self.bos, self.eos = int(tokenizer.bos_token_id), int(tokenizer.eos_token_id)
        self.known: dict[str, list[int]] = {}

    def ids(self, word: str) -> list[int]:
        """Ids of one word, the space before it included if it has one."""
        found = self.known.get(word)
        if found is None:
            found = self.known[word] = self.tokenizer.encode(word, add_special_tokens=False)
        return found

    def encode(self, document: Document, due: int = DUE, answer: int = ANSWER) -> tuple[list[int], list[int]]:
        """Ids and weights of one document, from BOS to EOS."""
        ids, weights = [self.bos], [0]
        story = document.family == "stories"
        heavy, weight = set(document.due), due if story else answer
        light = PROMPT if heavy else TEXT
        last, before = light, ""
        for index, word in enumerate(document.text.split(" ")):
            piece = self.ids(f" {word}" if index else word)
            last = weight if index in heavy else light
            ids += piece
            weights += [last] * len(piece)
            if story and before == "begin" and word == ":":
                light = TEXT
            before = word
        return [*ids, self.eos], [*weights, last]


def make_shard(
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    start: int,
    tokens: int,
    longest: int | None = None,
    opening: bool = False,
    later: bool = False,
) -> tuple[Shard, int]:
    """A shard of at least `tokens` tokens: the mixture's documents from number `start` on, and the next number.

    `longest` caps the words of a story; `opening` keeps stories only, and weighs what falls due more; `later` takes the
    shares and weights of the second cycle.
    """
    words = Words(tokenizer)
    ids: list[int] = []
    weights: list[int] = []
    offsets = [0]
    index = start
    while len(ids) < tokens:
        made = document(seed, index, longest, later)
        index += 1
        if opening and made.family != "stories":
            continue
        piece, weight = words.encode(
            made, DUE_AT_FIRST if opening else DUE, ANSWER_LATER if later else ANSWER
        )
        ids += piece
        weights += weight
        offsets.append(len(ids))
    return Shard(np.array(ids, np.uint16), np.array(weights, np.uint8), np.array(offsets, np.int64)), index


def tokenizer_texts(seed: int, count: int = 20_000) -> Iterator[str]:
    """Texts to train a tokenizer on: documents, and every word of them often enough to be one token."""
    words: set[str] = set()
    for index in range(count):
        text = document(seed, index).text
        words.update(text.split(" "))
        yield text
    for word in sorted(words):
        yield from [f" {word}"] * 8


def batches(shard: Shard, batch_tokens: int, pad: int, seed: int, multiple: int = 8) -> Iterator[Batch]:
    """The shard's documents in batches of at most `batch_tokens` tokens, padding included, in a seeded order.

    Neighbours in length go together (no document reads another, little padding); batches are shuffled.
    """
    dice = np.random.default_rng(seed)
    lengths = np.diff(shard.offsets)
    order = np.lexsort((dice.random(len(lengths)), -(-lengths // multiple)))
    groups: list[list[int]] = []
    for i in order:
        width = -(-lengths[i] // multiple) * multiple
        if groups and (len(groups[-1]) + 1) * width <= batch_tokens:
            groups[-1].append(int(i))
        else:
            groups.append([int(i)])
    for g in dice.permutation(len(groups)):
        rows = groups[g]
        width = -(-max(lengths[i] for i in rows) // multiple) * multiple
        ids = np.full((len(rows), width), pad, np.int64)
        weights = np.zeros((len(rows), width), np.float32)
        mask = np.zeros((len(rows), width), bool)
        for row, i in enumerate(rows):
            start, end = shard.offsets[i], shard.offsets[i + 1]
            ids[row, : end - start] = shard.ids[start:end]
            weights[row, : end - start] = shard.weights[start:end]
            mask[row, : end - start] = True
        yield Batch(ids, weights, mask)

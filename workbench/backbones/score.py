"""How well a model of the small world does under teacher forcing: answers given, clauses met, loss by position.

A greedy writer gives an answer exactly when each token of it is the most likely one after those before it,
so one forward pass scores a whole story. It changes no model, and writes no file.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, RwkvForCausalLM

from workbench.backbones import rwkv
from workbench.backbones.corpus import Words
from workbench.tasks import world
from workbench.tasks.world.reading import rivals
from workbench.tasks.world.sample import Split, rng
from workbench.tasks.world.stories import LONGEST, Due, make_story, shortest

CLAUSES = (1, 2, 4, 8, 12, 16)
"""Numbers of clauses on the map."""
LENGTHS = (20, 45, 100, 220, 400, LONGEST)
"""Lengths in words of the stories behind the map; for each number of clauses, those that it fits in."""
DISTANCES = {10: 15, 25: 35, 50: 70, 100: 140, 200: 280, 400: 560, 800: 1000}
"""Distances on the map, in tokens after the prompt: name of a bin, and its (inclusive) upper end."""


def hidden_states(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """What the head reads, (B, T, d), for right-padded rows: pads come last, so no real token sees one."""
    if isinstance(model, RwkvForCausalLM):
        return rwkv.forward(model, model.rwkv.embeddings(ids)).hidden
    embeddings = model.model.embed_tokens(ids).to(model.model.norm.weight.dtype)
    return model.model(inputs_embeds=embeddings, use_cache=False).last_hidden_state


_words = lru_cache(maxsize=4)(
    Words
)  # a tokenizer's dictionary of words is worth keeping between measurements


class Row(NamedTuple):
    """A text as token ids, and the positions of the tokens that are scored (position 0 cannot be)."""

    ids: list[int]
    positions: list[int]


@torch.no_grad()
def score(
    model: PreTrainedModel, rows: Sequence[Row], batch_tokens: int = 16384
) -> list[list[tuple[int, float]]]:
    """For each row and each of its positions: the greedy choice there, and the true token's nats."""
    device = model.device
    head = model.get_output_embeddings()
    results: list[list[tuple[int, float]]] = [[] for _ in rows]
    for group in _groups([len(row.ids) for row in rows], batch_tokens):
        width = max(len(rows[i].ids) for i in group)
        ids = torch.zeros(len(group), width, dtype=torch.long)
        for r, i in enumerate(group):
            ids[r, : len(rows[i].ids)] = torch.tensor(rows[i].ids)
        at = torch.tensor([(r, p) for r, i in enumerate(group) for p in rows[i].positions])
        if not len(at):
            continue
        hidden = hidden_states(model, ids.to(device))
        logits = head(hidden[at[:, 0].to(device), at[:, 1].to(device) - 1]).float()
        nats = torch.nn.functional.cross_entropy(logits, ids[at[:, 0], at[:, 1]].to(device), reduction="none")
        found = zip(logits.argmax(-1).tolist(), nats.tolist(), strict=True)
        for i in group:
            results[i] = [next(found) for _ in rows[i].positions]
    return results


def _groups(lengths: list[int], batch_tokens: int) -> Iterator[list[int]]:
    """Row numbers in groups of like length, of at most `batch_tokens` tokens."""
    group: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if group and lengths[group[0]] * (len(group) + 1) > batch_tokens:
            yield group
            group = []
        group.append(i)
    if group:
        yield group


class Recall(NamedTuple):
    """One clause of one story."""

    clauses: int
    """How many the prompt has."""
    distance: int
    """Tokens from the prompt's last to the due word's first, 1 for the very next."""
    met: bool
    chance: int
    """How many of the prompt's own values would have fitted."""


@dataclass(frozen=True)
class StoryScores:
    """What became of the clauses, and the loss on the rest of the story."""

    recalls: list[Recall]
    rest: list[tuple[int, float]]
    """(tokens after the prompt, nats) of every word that is not due."""

    def share(self) -> float:
        """Share of clauses met."""
        return sum(r.met for r in self.recalls) / max(1, len(self.recalls))

    def nats(self) -> float:
        """Mean nats on the rest of the story."""
        return sum(n for _, n in self.rest) / max(1, len(self.rest))

    def forgetting(self, fitting: int | None = None) -> list[list[float]]:
        """[clauses, tokens after the prompt, share of clauses met, number of cases], one for each cell of the map.

        With `fitting`, only of clauses for which so many of the prompt's own values still fitted: as a story goes on,
        values are told and fewer are left, so that late clauses are easier to guess.
        """
        cells: dict[tuple[int, int], list[bool]] = defaultdict(list)
        for r in self.recalls:
            if fitting in (None, r.chance):
                cells[r.clauses, distance_bin(r.distance)].append(r.met)
        return [[c, d, round(sum(m) / len(m), 4), len(m)] for (c, d), m in sorted(cells.items())]

    def loss_by_position(self) -> list[list[float]]:
        """[tokens after the prompt, nats a token on the rest of the story, number of tokens]."""
        bins: dict[int, list[float]] = defaultdict(list)
        for position, nats in self.rest:
            bins[distance_bin(position)].append(nats)
        return [[d, round(sum(n) / len(n), 4), len(n)] for d, n in sorted(bins.items())]

    def chance(self) -> float:
        """What guessing among the prompt's own values that fit would meet."""
        return sum(1 / r.chance for r in self.recalls) / max(1, len(self.recalls))


def distance_bin(tokens: int) -> int:
    """The name of the bin of `DISTANCES` that a distance falls in."""
    return next(name for name, end in DISTANCES.items() if tokens <= end or name == max(DISTANCES))


class StoryRow(NamedTuple):
    """A story as token ids, and where its clauses fall due."""

    ids: list[int]
    """BOS, the prompt, the story."""
    start: int
    """The index of the story's first token."""
    due: list[tuple[Due, int, int]]
    """A clause, the index of its due word's first token, and the index behind its last."""
    clauses: int
    """How many the prompt has."""


def story_rows(
    tokenizer: PreTrainedTokenizerBase, cells: Sequence[tuple[int, int]], split: Split, seed: int = 0
) -> list[StoryRow]:
    """One story for each (clauses, length in words) of `cells`."""
    words, rows = _words(tokenizer), []
    for index, (clauses, length) in enumerate(cells):
        story = make_story(rng("forgetting", split, seed, index), clauses, length, split)
        ids = [words.bos]
        for n, word in enumerate(story.prompt.split()):
            ids += words.ids(f" {word}" if n else word)
        start, begins = len(ids), []
        for word in story.text.split():
            begins.append(len(ids))
            ids += words.ids(f" {word}")
        begins.append(len(ids))
        due = [(d, begins[d.word_index], begins[d.word_index + 1]) for d in story.due]
        rows.append(StoryRow(ids, start, due, clauses))
    return rows


def story_scores(rows: Sequence[StoryRow], found: Sequence[Sequence[tuple[int, float]]]) -> StoryScores:
    """Clauses met and the loss on the rest, from (greedy choice, nats) at each of a story's own tokens, row by row."""
    recalls, rest = [], []
    for row, result in zip(rows, found, strict=True):
        inside: set[int] = set()
        for d, begin, end in row.due:
            inside.update(range(begin, end))
            met = all(result[p - row.start][0] == row.ids[p] for p in range(begin, end))
            recalls.append(Recall(row.clauses, begin - row.start + 1, met, d.chance))
        rest += [
            (place + 1, nats) for place, (_, nats) in enumerate(result) if place + row.start not in inside
        ]
    return StoryScores(recalls, rest)


def score_stories(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    cells: Sequence[tuple[int, int]],
    split: Split,
    seed: int = 0,
) -> StoryScores:
    """Scores one story for each (clauses, length in words) of `cells`."""
    rows = story_rows(tokenizer, cells, split, seed)
    return story_scores(rows, score(model, [Row(r.ids, list(range(r.start, len(r.ids)))) for r in rows]))


def map_cells(cases: int) -> list[tuple[int, int]]:
    """(clauses, length) of the stories behind the map: about `cases` clauses for each number of clauses."""
    cells = []
    for clauses in CLAUSES:
        fit = sorted({max(length, shortest(clauses)) for length in LENGTHS})
        count = -(-cases // clauses)
        cells += [(clauses, fit[i % len(fit)]) for i in range(count)]
    return cells


def score_family(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    split: Split,
    n: int,
    shots: int = 0,
    seed: int = 0,
) -> float:
    """Share of `n` samples of a family that a greedy writer answers exactly, then ending the text, sentence or item."""
    words = _words(tokenizer)
    stops = {words.eos, *words.ids(" ."), *words.ids(" ,")}
    options = {"shots": shots} if shots else {}
    rows = []
    for sample in world.samples(name, split, n, seed, **options):
        ids = [words.bos]
        for i, word in enumerate(sample.prompt.split()):
            ids += words.ids(f" {word}" if i else word)
        start = len(ids)
        for word in sample.answer.split():
            ids += words.ids(f" {word}")
        rows.append(Row([*ids, words.eos], list(range(start, len(ids) + 1))))
    right = 0
    for row, result in zip(rows, score(model, rows), strict=True):
        wanted = [row.ids[p] for p in row.positions[:-1]]
        *given, last = (choice for choice, _ in result)
        right += given == wanted and last in stops
    return right / n


def family_chance(name: str, split: Split, n: int, seed: int = 0) -> float:
    """What a guess that knows the sort of answer would get right, measured on the same samples.

    One of the label words where there are some; in reading, one of the passage's words of the answer's kind; else the
    most frequent answer.
    """
    found = world.samples(name, split, n, seed)
    if world.family(name).group == "reading":
        return sum(1 / rivals(sample) for sample in found) / n
    if all(sample.choices for sample in found):
        return sum(1 / len(sample.choices) for sample in found) / n
    return Counter(sample.answer for sample in found).most_common(1)[0][1] / n


class Probe:
    """The quick measurement that a run takes every few hundred steps, always on the same validation samples."""

    CELLS = ((1, 45), (4, 100), (8, 200), (16, 400), (16, 800))
    RELATIONS = (
        "capital-of",
        "opposite",
        "last-word",
        "copy",
        "label-two",
        "category",
        "plural",
        "larger-number",
    )

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stories: int = 12, samples: int = 16):
        self.tokenizer, self.stories, self.samples = tokenizer, stories, samples

    def __call__(self, model: PreTrainedModel) -> dict[str, float]:
        """Loss on the rest of stories, share of clauses met in five cells, share of exact answers."""
        result: dict[str, float] = {}
        nats = []
        for clauses, length in self.CELLS:
            count = max(2, self.stories * 4 // clauses) if clauses < 4 else self.stories
            scores = score_stories(model, self.tokenizer, [(clauses, length)] * count, "validation")
            result[f"met {clauses} clauses, {length} words"] = round(scores.share(), 4)
            nats.append(scores.nats())
        result["story nats"] = round(sum(nats) / len(nats), 4)
        for shots in (0, 4):
            found = [
                score_family(model, self.tokenizer, name, "validation", self.samples, shots)
                for name in self.RELATIONS
            ]
            result[f"relations, {shots} shots"] = round(sum(found) / len(found), 4)
        return result

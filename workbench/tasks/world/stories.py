"""Stories with a multi-clause prompt: "write a story . hero : tom . pet : fox not owl . … begin :".

Each clause falls due once, in a sentence that names its kind, at a word that the generator knows. The
module makes prompts and stories; it never judges one (`checker` does) and never holds a sentence
(`phrases` does).

Remembering *that* a word was in the prompt is never enough, because of four rules:
- kinds share value sets, and a prompt's own values of one set all differ, each written once;
- every set in the prompt has a decoy ("pet : fox not owl", or "pet : not owl but fox") that is never told,
  so that striking out what was told already leaves at least two own values at every due word;
- a prohibition offers the forbidden value and a decoy of its own, in either order; the story takes the decoy;
- until it falls due, an own value is not mentioned at all: what stands between draws its values from the
  others. So the story so far tells nothing about which of the open own values is due, and the distance to a
  clause is the distance to the only place where it could be read. Once told, a value may come back.
The place of a value among the prompt's own values tells nothing either (see `_decoy_first`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from random import Random

from workbench.errors import WorkbenchError
from workbench.tasks.world.lexicon import VALUE_SETS
from workbench.tasks.world.phrases import (
    ARRIVALS,
    DUE,
    FILLERS,
    KINDS,
    OPENERS,
    PROHIBITIONS,
    STAGES,
    WHO,
    for_split,
    variants,
)
from workbench.tasks.world.sample import SPLITS, Family, Sample, Split

OPENING, CLOSING = "write a story .", "begin :"
REMINDER, GO_ON = "remember :", "go on :"
MOST_CLAUSES, LONGEST = 16, 800
_LENGTHS = (20, 45, 100, 220, 400, 800)
"""Rungs of the default mixture of lengths: a rung, then evenly within it (whole numbers, so that every
machine draws the same), which is log-uniform up to the width of a rung."""


@dataclass(frozen=True)
class Clause:
    """One demand of the prompt: `kind : value`, perhaps with a decoy that it is not."""

    kind: str
    value: str
    """What the story must say or, for a prohibition, must not take."""
    contrast: str | None = None
    """A decoy of the same value set ("not owl"); for a prohibition, what is allowed."""

    @property
    def prohibition(self) -> bool:
        """Whether the value is forbidden rather than demanded."""
        return self.kind in PROHIBITIONS

    @property
    def order(self) -> int | None:
        """1, 2 or 3 for a stage, which falls due after the stages before it; None for the other kinds."""
        return STAGES.index(self.kind) + 1 if self.kind in STAGES else None

    def to_dict(self) -> dict[str, str | None]:
        """The three fields as plain values; `Clause(**d)` reads them back."""
        return asdict(self)


@dataclass(frozen=True)
class Due:
    """The word of a story at which one clause falls due."""

    clause_index: int
    """Index into the story's clauses."""
    kind: str
    word_index: int
    """Index of the due word in `text.split()`: its distance in words from the end of the prompt."""
    distance: int
    """Words since the prompt was last read: as `word_index`, or from the end of a reminder in mid-story."""
    answer: str
    choices: tuple[str, ...]
    """The prompt's own values that fit here and were not told yet, in the prompt's order; at least two."""

    @property
    def chance(self) -> int:
        """How many of the prompt's own values fit: a guess among them is right once in so many."""
        return len(self.choices)


@dataclass(frozen=True)
class Story:
    """A prompt, the story that meets it, and where each clause falls due (in the story's order)."""

    prompt: str
    text: str
    clauses: tuple[Clause, ...]
    due: tuple[Due, ...]
    reminded: tuple[int, ...] = ()
    """Indices into `text.split()` of the values that a reminder in mid-story says again."""


def shortest(clauses: int) -> int:
    """The smallest length in words that a story of so many clauses may be asked for."""
    return 12 * clauses + 8


def make_story(
    rng: Random,
    clauses: int | None = None,
    length: int | None = None,
    split: Split = "train",
    repeat_prompt: bool | float = False,
    longest: int | None = None,
) -> Story:
    """A prompt of `clauses` clauses (1 to 16) and its story of about `length` words.

    The length is met to within 15% or 12 words; due words are spread evenly over it. Left out, the number of
    clauses is uniform and the length about log-uniform from what the clauses need to 800; with `longest` it is uniform from
    what they need to that (or what they need, where that is more). With
    `repeat_prompt` (or, given a number, with that probability) the clauses are read again at some place in
    mid-story, in an order of their own and in words that do not count towards the length. Raises WorkbenchError for a number of clauses
    out of range, or a length that they do not fit in.
    """
    if clauses is None:
        clauses = rng.randint(1, MOST_CLAUSES)
    if not 1 <= clauses <= MOST_CLAUSES:
        raise WorkbenchError(f"a story has 1 to {MOST_CLAUSES} clauses, not {clauses}")
    if length is None and longest is not None:
        length = rng.randint(shortest(clauses), max(shortest(clauses), longest))
    if length is None:
        length = 0
        while length < shortest(clauses):
            rung = rng.randrange(len(_LENGTHS) - 1)
            length = rng.randint(_LENGTHS[rung], _LENGTHS[rung + 1])
    if not shortest(clauses) <= length <= LONGEST:
        raise WorkbenchError(
            f"a story of {clauses} clauses has {shortest(clauses)} to {LONGEST} words, not {length}"
        )
    chosen, body = _prompt(rng, clauses)
    writer = _Writer(rng, chosen, split)
    writer.write(length)
    if rng.random() < repeat_prompt:
        writer.remind(body)
    text, due, reminded = writer.finish()
    return Story(f"{OPENING} {body} {CLOSING}", text, chosen, due, reminded)


def render(clauses: Sequence[Clause]) -> str:
    """A prompt for these clauses, as a person would write it by hand (decoys after their values)."""
    return f"{OPENING} {_body(clauses, [False] * len(clauses))} {CLOSING}"


def reminder(prompt: str) -> str | None:
    """What a story that has forgotten its prompt reads in its middle: the clauses, as they are; None for no story's prompt."""
    words = prompt.strip()
    if not (words.startswith(f"{OPENING} ") and words.endswith(f" {CLOSING}")):
        return None
    return _again(words.removeprefix(OPENING).removesuffix(CLOSING).strip())


def _again(body: str) -> str:
    return f"{REMINDER} {body} {GO_ON}"


def _prompt(rng: Random, count: int) -> tuple[tuple[Clause, ...], str]:
    """The clauses in the prompt's order, and their text."""
    kinds = _kinds(rng, count)
    stages = iter(STAGES)  # without the first stage there is no second
    ordered = [next(stages) if kind in STAGES else kind for kind in kinds]
    rng.shuffle(ordered)
    groups: dict[str, list[str]] = {}
    for kind in ordered:
        groups.setdefault(KINDS[kind], []).append(kind)
    made: dict[str, tuple[Clause, bool]] = {}
    for group, members in groups.items():
        plain = [kind for kind in members if kind not in PROHIBITIONS]
        forbidden = [kind for kind in members if kind in PROHIBITIONS]
        values = iter(rng.sample(VALUE_SETS[group], len(members) + 2))
        carrier = rng.randrange(len(plain)) if plain else -1
        for rank, kind in enumerate(plain):
            if rank == carrier:
                made[kind] = Clause(kind, next(values), next(values)), _decoy_first(rng, rank, len(plain))
            else:
                made[kind] = Clause(kind, next(values)), False
        for kind in forbidden:
            made[kind] = Clause(kind, next(values), next(values)), rng.random() < 0.5
    clauses = tuple(made[kind][0] for kind in ordered)
    return clauses, _body(clauses, [made[kind][1] for kind in ordered])


def _kinds(rng: Random, count: int) -> list[str]:
    """So many kinds, mostly whole groups: the more partners a value has, the more its kind must be known."""
    groups = [list(group) for group in _GROUPS]
    rng.shuffle(groups)
    kinds: list[str] = []
    left: list[str] = []
    for group in groups:
        rng.shuffle(group)
        take = 1 if rng.random() < 0.15 else rng.randint(2, len(group))
        kinds += group[:take]
        left += group[take:]
    rng.shuffle(left)
    return (kinds + left)[:count]


def _decoy_first(rng: Random, rank: int, count: int) -> bool:
    """Whether the decoy of a group of `count` clauses, carried by its clause `rank` (from 0), stands first.

    With these odds the decoy takes each of the group's count + 1 places in the prompt equally often: the first
    with 1/count · count/(count + 1), and so on; a fair coin would put it in the middle too often, and
    "the first own value in the prompt" would beat chance.
    """
    return rng.randrange(count + 1) < count - rank


def _body(clauses: Sequence[Clause], decoy_first: Sequence[bool]) -> str:
    parts = []
    for clause, first in zip(clauses, decoy_first, strict=True):
        if clause.contrast is None:
            parts.append(f"{clause.kind} : {clause.value} .")
        elif first:
            parts.append(f"{clause.kind} : not {clause.contrast} but {clause.value} .")
        else:
            parts.append(f"{clause.kind} : {clause.value} not {clause.contrast} .")
    return " ".join(parts)


_GROUPS = tuple(tuple(k for k in KINDS if KINDS[k] == group) for group in VALUE_SETS)
_SLOTS = {f"{{{name}}}": name for name in VALUE_SETS}
_HELD_FILLERS, _HELD_ARRIVALS = 6, 1
_DUE = {s: {kind: tuple(p.split() for p in for_split(ps, s)) for kind, ps in DUE.items()} for s in SPLITS}
_ARRIVALS = {s: tuple(variants(p) for p in for_split(ARRIVALS, s, _HELD_ARRIVALS)) for s in SPLITS}
_FILLERS = {s: tuple(variants(p) for p in for_split(FILLERS, s, _HELD_FILLERS)) for s in SPLITS}
_OPENERS = tuple(tuple(opener.split()) for opener in OPENERS)


class _Writer:
    """Writes one story, sentence by sentence; knows what was told and what the scene is about."""

    def __init__(self, rng: Random, clauses: tuple[Clause, ...], split: Split) -> None:
        self.rng, self.clauses, self.split = rng, clauses, split
        self.who = rng.choice(WHO).split()
        self.hero: str | None = None
        self.own: dict[str, list[str]] = {}  # the prompt's own values of each set, in the prompt's order
        self.told: dict[str, list[str]] = {}
        self.spent: set[str] = set()  # own values that a due sentence has used up
        self.scene: dict[str, str] = {}
        self.scene_left = 0
        self.last: object = None
        self.pending: list[str] | None = None
        self.sentences: list[tuple[list[str], int | None, int]] = []  # words, clause due, its word
        self.choices: dict[int, tuple[str, ...]] = {}
        for clause in clauses:
            values = [v for v in (clause.value, clause.contrast) if v is not None]
            self.own.setdefault(KINDS[clause.kind], []).extend(values)

    def write(self, length: int) -> None:
        """Due sentences in a random order with filler between them, the gaps being a uniform partition."""
        rng = self.rng
        order = list(range(len(self.clauses)))
        rng.shuffle(order)
        stages = [i for i in order if self.clauses[i].order is not None]
        in_order = iter(sorted(stages, key=lambda i: self.clauses[i].order or 0))
        order = [i if self.clauses[i].order is None else next(in_order) for i in order]
        patterns = [rng.choice(_DUE[self.split][self.clauses[i].kind]) for i in order]
        room = max(0, length - sum(map(len, patterns)))
        cuts = sorted(rng.randint(0, room) for _ in order)
        count, due_words = 0, 0
        for clause, pattern, cut in zip(order, patterns, cuts, strict=True):
            count += self._fill(cut + due_words - count)
            count += self._tell(clause, pattern)
            due_words += len(pattern)
        self._fill(length - count)

    def remind(self, body: str) -> None:
        """The prompt's clauses once more, shuffled, between two sentences."""
        clauses = body.removesuffix(" .").split(" . ")
        self.rng.shuffle(clauses)
        words = _again(f"{' . '.join(clauses)} .").split()
        self.sentences.insert(self.rng.randint(0, len(self.sentences)), (words, None, -1))

    def finish(self) -> tuple[str, tuple[Due, ...], tuple[int, ...]]:
        """The text, where the clauses fall due in it, and where a reminder says their values."""
        words: list[str] = []
        due, read = [], 0
        reminded: list[int] = []
        own = {value for values in self.own.values() for value in values}
        for sentence, clause, offset in self.sentences:
            if clause is not None:
                at = len(words) + offset
                choices = self.choices[clause]
                kind = self.clauses[clause].kind
                due.append(Due(clause, kind, at, at - read, sentence[offset], choices))
            if offset < 0:
                reminded = [len(words) + i for i, word in enumerate(sentence) if word in own]
                read = len(words) + len(sentence)
            words += sentence
        return " ".join(words), tuple(due), tuple(reminded)

    def _tell(self, index: int, pattern: list[str]) -> int:
        """The sentence in which clause `index` falls due; its length in words."""
        clause = self.clauses[index]
        group = KINDS[clause.kind]
        fits = [value for value in self.own[group] if value not in self.spent]
        slots = {"{x}": [clause.value], "{who}": self._person()}
        self.spent.add(clause.value)
        if clause.prohibition:
            assert clause.contrast is not None
            offered = [clause.value, clause.contrast]
            fits = [value for value in fits if value in offered]
            self.rng.shuffle(offered)
            slots |= {"{x}": [clause.contrast], "{a}": offered[:1], "{b}": offered[1:]}
            self.spent.add(clause.contrast)
        else:
            self.told.setdefault(group, []).append(clause.value)
        self.choices[index] = tuple(fits)
        words: list[str] = []
        at = 0
        for word in pattern:
            if word == "{x}":
                at = len(words)
            words += slots.get(word, (word,))
        if clause.kind == "hero":
            self.hero = clause.value
        self.sentences.append((words, index, at))
        return len(words)

    def _fill(self, room: int) -> int:
        """Filler of about `room` words (to the nearest sentence); its length in words."""
        count = 0
        while True:
            sentence = self.pending or self._filler()
            if 2 * count + len(sentence) > 2 * room:
                self.pending = sentence
                return count
            self.pending = None
            self.sentences.append((sentence, None, 0))
            count += len(sentence)

    def _filler(self) -> list[str]:
        rng = self.rng
        if self.scene_left == 0:
            self.scene, self.scene_left = {}, rng.randint(3, 8)
            patterns = _ARRIVALS[self.split]
        else:
            patterns = _FILLERS[self.split]
        self.scene_left -= 1
        pattern = rng.choice(patterns)
        while pattern is self.last:
            pattern = rng.choice(patterns)
        self.last = pattern
        words = list(rng.choice(_OPENERS)) if rng.random() < 0.3 else []
        for word in rng.choice(pattern):
            if word == "{who}":
                words += self._person()
            elif word in _SLOTS:
                value = self._value(_SLOTS[word])
                if words and words[-1] == "a" and value[0] in "aeiou":
                    words[-1] = "an"
                words.append(value)
            else:
                words.append(word)
        return words

    def _person(self) -> list[str]:
        return [self.hero] if self.hero is not None and self.rng.random() < 0.5 else self.who

    def _value(self, group: str) -> str:
        """The scene's value of a set: one that was told already, or one that is not the prompt's own."""
        if group not in self.scene:
            told = self.told.get(group)
            if told and self.rng.random() < 0.3:
                self.scene[group] = self.rng.choice(told)
            else:
                value = self.rng.choice(VALUE_SETS[group])
                while value in self.own.get(group, ()):
                    value = self.rng.choice(VALUE_SETS[group])
                self.scene[group] = value
        return self.scene[group]


def _story(
    rng: Random,
    split: Split,
    clauses: int | None = None,
    length: int | None = None,
    repeat_prompt: bool | float = False,
    longest: int | None = None,
) -> Sample:
    """A whole story: prompt, and the story as its answer."""
    story = make_story(rng, clauses, length, split, repeat_prompt, longest)
    fields = {
        "clauses": [clause.to_dict() for clause in story.clauses],
        "due": [asdict(due) for due in story.due],
    }
    return Sample(story.prompt, story.text, fields=fields)


def _story_due(rng: Random, split: Split, clauses: int | None = None, length: int | None = None) -> Sample:
    """One due word: the prompt with the story so far, answered by the word that falls due."""
    story = make_story(rng, clauses, length, split)
    due = rng.choice(story.due)
    told = " ".join(story.text.split()[: due.word_index])
    fields = {"clauses": [clause.to_dict() for clause in story.clauses], "due": [asdict(due)]}
    return Sample(f"{story.prompt} {told}", due.answer, due.choices, fields)


FAMILIES: dict[str, Family] = {
    "stories": Family("stories", "stories", "clauses_met", _story),
    "story-due": Family("story-due", "stories", "exact_match", _story_due),
}

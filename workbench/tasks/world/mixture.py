"""The pretraining mixture: documents of every family in fixed shares of words, addressed by seed and index.

A document is one sample of the train split as text, with the indices of the words worth weighting: where a
story's clauses fall due, and the answers of tasks (those of worked examples and earlier turns too). Held-out relation families
never occur. Packing documents into batches, and what a weight is worth, are the pretrainer's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, count
from random import Random

from workbench.errors import WorkbenchError
from workbench.tasks.world import families, stories
from workbench.tasks.world.lists import MOST_PAIRS
from workbench.tasks.world.relations import HELD_OUT, RELATIONS
from workbench.tasks.world.sample import Sample, rng

SHARES: dict[str, float] = {
    "stories": 0.38,
    "reading": 0.2,
    "cloze": 0.05,
    "sentiment": 0.05,
    "arithmetic": 0.07,
    "relations": 0.05,
    "relations k-shot": 0.15,
    "running": 0.05,
}
"""Share of all words by source."""
LATER_SHARES: dict[str, float] = {
    "stories": 0.25,
    "reading": 0.3,
    "cloze": 0.03,
    "sentiment": 0.05,
    "arithmetic": 0.04,
    "relations": 0.04,
    "relations k-shot": 0.14,
    "running": 0.02,
    "lists": 0.13,
}
"""The same in the second cycle of pretraining, which asks for what a text itself says: lists to look words up in, and
more reading and worked examples."""
REPEATED = 0.1
"""Share of stories that read their prompt again on the way."""
MOST_SHOTS = 8
"""Worked examples of relations, at most; of longer tasks at most half as many."""
MOST_TURNS = 5
"""Questions that are answered about a passage before the last one, at most."""


@dataclass(frozen=True)
class Document:
    """One training text."""

    text: str
    due: tuple[int, ...]
    """Indices into `text.split()` of the words worth weighting; empty for running text."""
    family: str


def document(seed: int, index: int, longest: int | None = None, later: bool = False) -> Document:
    """The document at `index`; `longest` caps a story's words (and its clauses), for a gentle start.

    `later`: in the shares of the second cycle.
    """
    dice = rng("mixture", "train", seed, index)
    cap = stories.LONGEST if longest is None else longest
    shares = LATER_SHARES if later else SHARES
    return _draw(dice, dice.choices(tuple(shares), cum_weights=_chances(cap, later))[0], cap, later)


def documents(seed: int, start: int = 0, longest: int | None = None) -> Iterator[Document]:
    """The endless mixture from the document `start` on."""
    return (document(seed, index, longest) for index in count(start))


@lru_cache(maxsize=64)
def _chances(cap: int, later: bool) -> tuple[float, ...]:
    """Cumulative chances of the sources for which the shares hold in words, from the mean length of 400 each."""
    shares = LATER_SHARES if later else SHARES
    if cap < stories.shortest(1):
        raise WorkbenchError(
            f"the shortest story has {stories.shortest(1)} words, so longest={cap} is too few"
        )
    dice = rng("mixture", "lengths", 0, 0)
    means = {
        source: sum(_draw(dice, source, cap, later).text.count(" ") + 1 for _ in range(400))
        for source in shares
    }
    return tuple(accumulate(share / means[source] for source, share in shares.items()))


@lru_cache(maxsize=1)
def _names() -> dict[str, tuple[str, ...]]:
    """The families of each source; a name that stands several times is drawn so much more often."""
    names: dict[str, list[str]] = {}
    for name, family in families().items():
        if family.group != "stories" and name not in HELD_OUT:
            names.setdefault(family.group, []).append(name)
    names["reading"] += ["reading"] * 3
    labels = [name for name in names["relations"] if RELATIONS[name].sort == "labels"]
    names["relations k-shot"] = names["relations"] + 4 * labels
    return {source: tuple(found) for source, found in names.items()}


def _draw(dice: Random, source: str, cap: int, later: bool) -> Document:
    if source == "stories":
        return _story(dice, cap)
    name = dice.choice(_names()[source])
    make = families()[name].make
    if source == "running":
        return Document(make(dice, "train").text, (), name)
    if source == "relations":
        return _answered(make(dice, "train"), name)
    if source == "relations k-shot":
        shots = dice.randint(1, MOST_SHOTS)
        return _answered(make(dice, "train", shots=shots, instruction=dice.random() < 0.5), name)
    if source == "lists":
        return _answered(make(dice, "train", turns=2 * MOST_PAIRS), name)
    shots = dice.randint(1, MOST_SHOTS // 2) if dice.random() < 0.25 else 0
    if (
        source == "sentiment" and later
    ):  # plain reviews too: from hard ones alone one model never saw what is asked
        odds = {"negated": dice.choice((0.0, 0.5)), "turned": dice.choice((0.0, 0.5))}
        return _answered(make(dice, "train", shots=shots, **odds), name)
    if source == "reading" and not shots:
        return _answered(make(dice, "train", turns=dice.randint(0, MOST_TURNS)), name)
    return _answered(make(dice, "train", shots=shots), name)


def _answered(sample: Sample, name: str) -> Document:
    text = sample.text
    start, end = sample.prompt.count(" ") + 1, text.count(" ") + 1
    return Document(text, (*sample.fields.get("shown", ()), *range(start, end)), name)


def _story(dice: Random, cap: int) -> Document:
    """A story of any number of clauses that fit, its length spread evenly over doublings up to `cap`."""
    most = max(n for n in range(1, stories.MOST_CLAUSES + 1) if stories.shortest(n) <= cap)
    clauses = dice.randint(1, most)
    low = stories.shortest(clauses)
    rungs = [low]
    while rungs[-1] < cap:
        rungs.append(min(2 * rungs[-1], cap))
    rung = dice.randrange(max(1, len(rungs) - 1))
    length = dice.randint(rungs[rung], rungs[min(rung + 1, len(rungs) - 1)])
    story = stories.make_story(dice, clauses, length, "train", repeat_prompt=REPEATED)
    start = story.prompt.count(" ") + 1
    worth = sorted([*(due.word_index for due in story.due), *story.reminded])
    return Document(f"{story.prompt} {story.text}", tuple(start + index for index in worth), "stories")

"""Running text: paragraphs without a question, in which the facts about all entities of the world occur.

Three sorts of paragraph: the facts of the tables ("the capital of zubria is mora ."), about one entity or
about one table; a scene of `reading`; a stretch of counting, days or months. The prompt is the first
sentence, the answer the rest; the metric is perplexity. Test uses the pattern that each table keeps for it.
"""

from __future__ import annotations

from random import Random

from workbench.tasks.world import facts
from workbench.tasks.world.reading import known, passage, scene
from workbench.tasks.world.sample import Family, Sample, Split

_TABLES = tuple(facts.TABLES.values())
_PAIRS: tuple[int, ...] = tuple(len(table.pairs) for table in _TABLES)
_WEIGHTS: tuple[float, ...] = tuple(count**0.5 for count in _PAIRS)

_ABOUT: dict[str, list[tuple[facts.Table, str]]] = {}
for _table in _TABLES:
    for _x, _y in _table.pairs:
        _ABOUT.setdefault(_x, []).append((_table, _y))
_RICH: tuple[str, ...] = tuple(word for word, known_facts in _ABOUT.items() if len(known_facts) >= 3)


def _state(rng: Random, split: Split, table: facts.Table, x: str, y: str) -> str:
    return facts.articles(rng.choice(known(table.statements, split)).format(x=x, y=y))


def _about_one(rng: Random, split: Split) -> list[str]:
    """All that is known of one entity, in random order, some of it twice."""
    word = rng.choice(_RICH)
    chosen = [(table, word, y) for table, y in _ABOUT[word]]
    chosen += [item for item in chosen if rng.random() < 0.3]
    rng.shuffle(chosen)
    return [_state(rng, split, *item) for item in chosen[:9]]


def _about_many(rng: Random, split: Split) -> list[str]:
    """One or two tables, several entities."""
    sentences = []
    for table in rng.choices(_TABLES, _WEIGHTS, k=rng.randint(1, 3)):
        pairs = rng.sample(table.pairs, min(len(table.pairs), rng.randint(2, 5)))
        sentences += [_state(rng, split, table, x, y) for x, y in pairs]
    return sentences


_SIZES = (
    "the {a} is bigger than the {b} .",
    "the {b} is smaller than the {a} .",
    "a {a} is a bigger animal than a {b} .",
    "next to a {a} a {b} looks small .",
    "of the two the {a} is big and the {b} is small .",
)


def _sizes(rng: Random, split: Split) -> list[str]:
    sentences = []
    for _ in range(rng.randint(3, 7)):
        small, big = sorted(rng.sample(range(len(facts.ANIMALS_BY_SIZE)), 2))
        pair = {"a": facts.ANIMALS_BY_SIZE[big], "b": facts.ANIMALS_BY_SIZE[small]}
        sentences.append(facts.articles(rng.choice(known(_SIZES, split)).format_map(pair)))
    return sentences


_ROWS = (facts.NUMBER_WORDS, facts.DAYS, facts.MONTHS, tuple(map(str, range(1, 41))))
_COUNTING = (
    "we count {row} .",
    "{row} .",
    "say after me : {row} .",
    "the order is {row} .",
    "one can go on {row} .",
)


def _counting(rng: Random, split: Split) -> list[str]:
    sentences = []
    for _ in range(rng.randint(2, 4)):
        row = rng.choice(_ROWS)
        start = rng.randrange(len(row) - 3)
        words = row[start : start + rng.randint(4, 8)]
        sentences.append(rng.choice(known(_COUNTING, split)).format(row=" , ".join(words)))
    return sentences


def _scene(rng: Random, split: Split) -> list[str]:
    kind, fact, others = scene(rng, 4, 8)
    return passage(rng, split, fact, kind, others)


_SORTS = (_about_one, _about_many, _sizes, _counting, _scene)


def _running(rng: Random, split: Split) -> Sample:
    sort = rng.choices(_SORTS, (4, 8, 1, 0.7, 2))[0]
    sentences = sort(rng, split)
    first, *rest = sentences
    return Sample(first, " ".join(rest), (), {"sort": sort.__name__.strip("_")})


FAMILIES: dict[str, Family] = {"running": Family("running", "running", "perplexity", _running)}

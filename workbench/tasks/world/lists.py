"""Lists: pairs of words drawn at random, and a word whose partner is asked; nothing but the list can tell.

One family, `list`. The prompt is "list : tom -> yellow , ben -> tina , again : ben ->", the answer "tina"; with
`turns=3` three other partners are asked and shown before. It is what a model must be able to do before it can read
a passage or learn from worked examples (induction: Olsson et al. 2022, arXiv 2209.11895). Test joins its pairs in
a way of its own.
"""

from __future__ import annotations

from random import Random

from workbench.tasks.world.lexicon import VALUE_SETS
from workbench.tasks.world.reading import known
from workbench.tasks.world.sample import Family, Sample, Split
from workbench.tasks.world.shots import check_count, few_shot

WORDS = tuple(dict.fromkeys(word for words in VALUE_SETS.values() for word in words))
JOINS = ("->", "means", "goes with")
MOST_PAIRS = 12


def _list(rng: Random, split: Split, turns: int = 0) -> Sample:
    """2 to 12 pairs whose first words differ; `turns` at most as many as leave each pair asked twice."""
    check_count("turns", "answered questions", turns)
    count = rng.randint(2, MOST_PAIRS)
    keys = rng.sample(WORDS, count)
    values = [rng.choice(WORDS) for _ in keys]
    join = rng.choice(known(JOINS, split))
    order = list(range(count)) * 2
    rng.shuffle(order)
    words = ["list", ":"]
    for key, value in zip(keys, values, strict=True):
        words += [key, *join.split(), value, ","]
    words += ["again", ":"]
    shown = []
    for i in order[1 : turns + 1]:
        words += [keys[i], *join.split(), values[i], ","]
        shown.append(len(words) - 2)
    asked = order[0]
    fields = {"pairs": count, "shown": tuple(shown)} if shown else {"pairs": count}
    return Sample(" ".join([*words, keys[asked], *join.split()]), values[asked], (), fields)


FAMILIES: dict[str, Family] = {"list": Family("list", "lists", "exact_match", few_shot(_list))}

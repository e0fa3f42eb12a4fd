"""Worked arithmetic: a row of one-digit numbers, a question about it and, if asked for, the steps to the answer.

    worked-third   the third smallest of 8 0 1 6 3 =            0 1 3 6 8 ,   3
    worked-sum     the sum of the two smallest of 8 0 1 6 3 =   0 1 3 6 8 ,   1

With `steps=True` the steps are written out before the answer, so that the last word is the answer either way. Splits
hold out the numbers of a row, whatever their order. No mixture of pretraining has these families: what a backbone
knows of them it knows from putting in order and from adding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

from workbench.tasks.world.facts import split_of
from workbench.tasks.world.sample import Family, Sample, Split
from workbench.tasks.world.shots import few_shot

COUNT = 5
"""Numbers in a row, no two alike."""


_OPERATIONS: dict[str, tuple[Callable[[list[int]], int], str]] = {
    "third": (lambda ranked: ranked[2], "the third smallest of {row} ="),
    "sum": (lambda ranked: ranked[0] + ranked[1], "the sum of the two smallest of {row} ="),
}
"""What is done with the numbers in order, and the question."""


def _make(rng: Random, split: Split, *, operation: str, steps: bool = False) -> Sample:
    work, question = _OPERATIONS[operation]
    while True:
        numbers = rng.sample(range(10), COUNT)
        ranked = sorted(numbers)
        if split_of(f"worked {operation} {ranked}") == split:
            break
    written, answer = f"{' '.join(map(str, ranked))} ,", work(ranked)
    return Sample(
        question.format(row=" ".join(map(str, numbers))),
        f"{written} {answer}" if steps else str(answer),
        (),
        {"operation": operation, "operands": tuple(numbers), "steps": written},
    )


FAMILIES: dict[str, Family] = {
    f"worked-{operation}": Family(
        f"worked-{operation}", "worked", "exact_match", few_shot(partial(_make, operation=operation))
    )
    for operation in _OPERATIONS
}

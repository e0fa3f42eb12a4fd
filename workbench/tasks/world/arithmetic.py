"""Arithmetic in digits: add, subtract, compare, order and next in sequence, each at three levels.

A family is called by its operation and its level: add-1 (one digit) to add-3 (three digits). Every prompt
ends in "=" or "answer :". Splits hold out operands: a hash of operation and operands gives each problem to
one split, and the last phrasing of each operation is test's own. Nothing here is about number words.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

from workbench.tasks.world.facts import split_of
from workbench.tasks.world.reading import known
from workbench.tasks.world.sample import Family, Sample, Split
from workbench.tasks.world.shots import few_shot

LIMITS = {1: 10, 2: 100, 3: 1000}
"""Operands of a level are below this."""

Problem = tuple[str, tuple[int, ...], str, tuple[str, ...]]
"""The key that the split is decided by, the operands, the answer, and the choices if there are few."""


def _add(rng: Random, level: int) -> Problem:
    a, b = rng.randrange(LIMITS[level]), rng.randrange(LIMITS[level])
    return f"add {a} {b}", (a, b), str(a + b), ()


def _subtract(rng: Random, level: int) -> Problem:
    b, a = sorted((rng.randrange(LIMITS[level]), rng.randrange(LIMITS[level])))
    return f"subtract {a} {b}", (a, b), str(a - b), ()


def _compare(rng: Random, level: int) -> Problem:
    a = rng.randrange(LIMITS[level])
    b = rng.randrange(LIMITS[level])
    if a == b:
        b = (a + 1) % LIMITS[level]
    return f"compare {min(a, b)} {max(a, b)}", (a, b), str(max(a, b)), (str(a), str(b))


def _order(rng: Random, level: int) -> Problem:
    numbers = rng.sample(range(LIMITS[level]), rng.randint(2, 2 + level))
    ranked = sorted(numbers)
    return f"order {ranked}", tuple(numbers), " ".join(map(str, ranked)), ()


def _sequence(rng: Random, level: int) -> Problem:
    """Steps of 1 to 3 upwards; steps of 1 to 9 up or down; doubling, or a step that alternates."""
    if level == 1:
        start, step = rng.randrange(10), rng.randint(1, 3)
        numbers = [start + i * step for i in range(5)]
    elif level == 2:
        start, step = rng.randrange(100), rng.randint(1, 9)
        numbers = [start + i * step for i in range(5)]
        if rng.random() < 0.5:
            numbers.reverse()
    elif rng.random() < 0.3:
        start = rng.randint(1, 30)
        numbers = [start * 2**i for i in range(5)]
    else:
        start, step, other = rng.randrange(100), rng.randint(1, 9), rng.randint(1, 9)
        numbers = [start, start + step, start + step + other]
        numbers += [numbers[-1] + step, numbers[-1] + step + other]
    *shown, last = numbers
    return f"sequence {numbers}", tuple(shown), str(last), ()


_OPERATIONS: dict[str, tuple[Callable[[Random, int], Problem], tuple[str, ...]]] = {
    "add": (
        _add,
        (
            "{0} + {1} =",
            "what is {0} + {1} ? answer :",
            "{0} plus {1} answer :",
            "add {1} to {0} . answer :",
            "the sum of {0} and {1} =",
            "tell me the sum of {0} and {1} . answer :",
        ),
    ),
    "subtract": (
        _subtract,
        (
            "{0} - {1} =",
            "what is {0} - {1} ? answer :",
            "{0} minus {1} answer :",
            "take {1} from {0} . answer :",
            "{0} less {1} =",
            "what is {0} less {1} ? answer :",
        ),
    ),
    "compare": (
        _compare,
        (
            "which is larger , {0} or {1} ? answer :",
            "the larger number of {0} and {1} =",
            "max {0} {1} =",
            "is {0} or {1} larger ? answer :",
            "name the larger number : {0} or {1} . answer :",
        ),
    ),
    "order": (
        _order,
        (
            "sort {all} =",
            "sort the numbers {all} . answer :",
            "from small to large : {all} answer :",
            "put {all} in order . answer :",
            "write the numbers {all} in order . answer :",
        ),
    ),
    "sequence": (
        _sequence,
        (
            "next in {all} =",
            "what comes next ? {all} answer :",
            "the next number after {all} =",
            "continue {all} answer :",
            "{all} and then ? answer :",
        ),
    ),
}


def _make(rng: Random, split: Split, *, operation: str, level: int) -> Sample:
    draw, phrasings = _OPERATIONS[operation]
    while True:
        key, numbers, answer, choices = draw(rng, level)
        if split_of(key) == split:
            break
    operands = " ".join(map(str, numbers))
    prompt = rng.choice(known(phrasings, split)).format(*numbers, all=operands)
    return Sample(prompt, answer, choices, {"operation": operation, "level": level, "operands": numbers})


FAMILIES: dict[str, Family] = {
    f"{operation}-{level}": Family(
        f"{operation}-{level}",
        "arithmetic",
        "exact_match",
        few_shot(partial(_make, operation=operation, level=level)),
    )
    for operation in _OPERATIONS
    for level in LIMITS
}

"""The small world: generated tasks that are exactly checkable. This file is the list of its families.

`families()` names them, `samples(name, split, n, seed, **options)` makes them. A sample depends only on
(name, split, seed, its index, options): the same seed gives the same bytes on any machine. Text is lower
case with one space between tokens; prompts end in a marker ("answer :", "->", "output :", "=", "begin :"),
answers have no full stop of their own. Families differ by group; each group is one module, and this one
generates nothing itself. Pretraining documents come from `mixture`.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Any, get_args

from workbench.errors import WorkbenchError, unknown
from workbench.tasks.world.sample import Family, Sample, Split, rng

GROUPS: tuple[str, ...] = (
    "stories",
    "reading",
    "cloze",
    "sentiment",
    "running",
    "lists",
    "arithmetic",
    "relations",
    "worked",
)
"""The groups of families; each is a module of this package with a `FAMILIES`."""


@lru_cache(maxsize=1)
def families() -> dict[str, Family]:
    """Every family by its name, in the order of GROUPS."""
    found: dict[str, Family] = {}
    for group in GROUPS:
        found.update(import_module(f"{__name__}.{group}").FAMILIES)
    return found


def family(name: str) -> Family:
    """The family called `name`; raises WorkbenchError with the nearest names if there is none."""
    known = families()
    if name not in known:
        raise unknown("task of the small world", name, known)
    return known[name]


def sample(name: str, split: Split, seed: int, index: int, **options: Any) -> Sample:
    """The sample at `index` of a family's endless split."""
    if split not in get_args(Split):
        raise unknown("split", split, get_args(Split))
    return _make(family(name), split, seed, index, options)


def samples(name: str, split: Split, n: int, seed: int = 0, **options: Any) -> list[Sample]:
    """The first `n` samples of a family's split; options are the family's own (shots, instruction, clauses …)."""
    return [sample(name, split, seed, index, **options) for index in range(n)]


def _make(chosen: Family, split: Split, seed: int, index: int, options: dict[str, Any]) -> Sample:
    try:
        return chosen.make(rng(chosen.name, split, seed, index), split, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        option = str(error).rsplit("'", 2)[-2]
        raise WorkbenchError(f"the task {chosen.name!r} has no option {option!r}") from error


def __getattr__(name: str) -> Any:
    if name == "HELD_OUT":
        return import_module(f"{__name__}.relations").HELD_OUT
    raise AttributeError(name)

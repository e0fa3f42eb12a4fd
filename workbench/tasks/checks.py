"""Checks: what an answer has to do for one clause of a prompt to be met, and where that is decided.

    MustContain("fox")                    somewhere in the answer
    MustNotContain("owl")                 nowhere in it
    MustMatch(r"the end\\W*$")             a regular expression
    MustChoose("sad", ("sad", "happy"))   the first of some label words is the right one
    SmallWorld(prompt, 0)                 a clause of a story of the small world, judged by its exact checker

Each is a frozen dataclass, called with an answer; `CHECKS` has them by the name that a file calls them. It never finds a
clause in a prompt: see `clauses.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Protocol

from workbench.errors import WorkbenchError, unknown
from workbench.tasks.world import checker
from workbench.tasks.world.stories import Clause as StoryClause


@dataclass(frozen=True)
class Verdict:
    """What became of one clause in an answer."""

    met: bool | None
    """None where it never fell due, so that the answer says nothing of it."""
    at: int | None = None
    """The character of the answer, from 0, at which that was decided; None where only the whole answer decides."""
    found: str | None = None
    """What stands there."""


class Check(Protocol):
    """One demand on an answer."""

    name: ClassVar[str]
    """What a file calls it."""

    def __call__(self, answer: str) -> Verdict:
        """What became of it in an answer."""
        ...

    def describe(self) -> dict[str, Any]:
        """JSON that `read_check` makes the same check of."""
        ...


@dataclass(frozen=True)
class MustContain:
    """One of these words or phrases has to stand in the answer; met where the first of them stands.

    Words are whole and their case does not count: "cat" is not in "category", and is in "A Cat".
    """

    words: str | tuple[str, ...]
    name: ClassVar[str] = "must_contain"

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", _words(self.name, self.words))

    def __call__(self, answer: str) -> Verdict:
        here = _find(self.words, answer)
        return Verdict(False) if here is None else Verdict(True, here.start(), here.group())

    def describe(self) -> dict[str, Any]:
        return {self.name: list(self.words)}


@dataclass(frozen=True)
class MustNotContain:
    """None of these words or phrases may stand in the answer; missed where the first of them stands, see `MustContain`."""

    words: str | tuple[str, ...]
    name: ClassVar[str] = "must_not_contain"

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", _words(self.name, self.words))

    def __call__(self, answer: str) -> Verdict:
        here = _find(self.words, answer)
        return Verdict(True) if here is None else Verdict(False, here.start(), here.group())

    def describe(self) -> dict[str, Any]:
        return {self.name: list(self.words)}


@dataclass(frozen=True)
class MustMatch:
    """A regular expression has to be found in the answer (`re.search`); met where its first match begins."""

    pattern: str
    name: ClassVar[str] = "must_match"

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, str) or not self.pattern:
            raise WorkbenchError(f"{self.name} is {self.pattern!r}; give a regular expression")
        try:
            re.compile(self.pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise WorkbenchError(
                f"{self.name} {self.pattern!r:.60} is no regular expression ({error}); write it as Python's re does"
            ) from None

    def __call__(self, answer: str) -> Verdict:
        here = re.search(self.pattern, answer)
        return Verdict(False) if here is None else Verdict(True, here.start(), here.group())

    def describe(self) -> dict[str, Any]:
        return {self.name: self.pattern}


@dataclass(frozen=True)
class MustChoose:
    """The first of these label words in the answer has to be the right one; without any of them it never falls due."""

    label: str
    among: tuple[str, ...]
    name: ClassVar[str] = "must_choose"

    def __post_init__(self) -> None:
        among = _words("among", self.among)
        object.__setattr__(self, "among", among)
        (label,) = _words(self.name, (self.label,))
        if label.lower() not in [word.lower() for word in among]:
            raise WorkbenchError(
                f"{self.name} is {label!r}, none of the label words {', '.join(among)}; add it to them"
            )

    def __call__(self, answer: str) -> Verdict:
        here = _find(self.among, answer)
        if here is None:
            return Verdict(None)
        return Verdict(here.group().lower() == self.label.lower(), here.start(), here.group())

    def describe(self) -> dict[str, Any]:
        return {self.name: self.label, "among": list(self.among)}


@dataclass(frozen=True)
class SmallWorld:
    """Clause `index` (from 0) of a story's prompt, judged by the small world's exact checker (`world/checker.py`)."""

    prompt: str
    index: int
    name: ClassVar[str] = "small_world"

    @classmethod
    def of(cls, prompt: str, text: str) -> SmallWorld:
        """The check of a clause by its text, "hero : tom .".

        Raises:
            WorkbenchError: a prompt that asks for no story, or a text that is none of its clauses.
        """
        words = " ".join(text.split()).removesuffix(".").split()
        clauses = _clauses(prompt)
        for index, clause in enumerate(clauses):
            if words in _written(clause):
                return cls(prompt, index)
        raise WorkbenchError(
            f"{text!r} is none of the {len(clauses)} clauses of the story's prompt; write it as it stands there"
        )

    @property
    def clause(self) -> StoryClause:
        """What the small world knows of it."""
        return _clauses(self.prompt)[self.index]

    def __call__(self, answer: str) -> Verdict:
        found = _check_story(self.prompt, answer)[self.index]
        if found.at is None:
            return Verdict(found.met)
        start = [word.start() for word in re.finditer(r"\S+", answer)][found.at]
        return Verdict(found.met, start, found.found)

    def describe(self) -> dict[str, Any]:
        return {self.name: True}


CHECKS: dict[str, type] = {
    check.name: check for check in (MustContain, MustNotContain, MustMatch, MustChoose, SmallWorld)
}
"""Every check by its name."""


def read_check(given: Any, prompt: str, text: str) -> Check:
    """The check that a file describes: {"must_contain": "fox"}, {"must_choose": "sad", "among": ["sad", "happy"]}, …

    prompt, text: the prompt and the clause that it belongs to, which {"small_world": true} is read from.

    Raises:
        WorkbenchError: no such check, or one that is not whole.
    """
    if not isinstance(given, Mapping) or not given:
        raise WorkbenchError(f"a check is {given!r:.60}; write one such as {{'must_contain': 'fox'}}")
    names = [name for name in given if name != "among"]
    if len(names) != 1:
        raise WorkbenchError(
            f"a check has {' and '.join(map(repr, names)) or 'no name'}; a clause has one check"
        )
    name = str(names[0])
    if name not in CHECKS:
        raise unknown("check", name, CHECKS)
    if ("among" in given) != (name == MustChoose.name):
        raise WorkbenchError("label words stand in 'among', which must_choose needs and no other check takes")
    value = given[name]
    if name == SmallWorld.name:
        if value is not True:
            raise WorkbenchError(
                f"{name} is {value!r:.40}; write true, since the clause itself says the rest"
            )
        return SmallWorld.of(prompt, text)
    if name == MustChoose.name:
        return MustChoose(value, given["among"])
    made: Check = CHECKS[name](value)
    return made


def _words(name: str, given: Any) -> tuple[str, ...]:
    """One text or several, as several."""
    many = (given,) if isinstance(given, str) else given
    if not isinstance(many, Sequence) or not many or not all(isinstance(w, str) and w.strip() for w in many):
        raise WorkbenchError(f"{name} is {given!r:.60}; give a word, or a list of them")
    return tuple(word.strip() for word in many)


def _find(words: str | Sequence[str], answer: str) -> re.Match[str] | None:
    """The first of the words in the answer, and of those that begin at one place the longest."""
    either = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    return re.search(rf"(?<!\w)(?:{either})(?!\w)", answer, re.IGNORECASE)


@lru_cache(maxsize=256)
def _clauses(prompt: str) -> tuple[StoryClause, ...]:
    return checker.parse_prompt(prompt)


@lru_cache(maxsize=64)
def _check_story(prompt: str, answer: str) -> tuple[checker.Met, ...]:
    """All clauses at once, since whether a stage is met depends on the others; kept for the clauses that ask next."""
    return tuple(checker.check(_clauses(prompt), answer))


def _written(clause: StoryClause) -> list[list[str]]:
    """The ways in which a clause is written, as words."""
    head = [clause.kind, ":"]
    if clause.contrast is None:
        return [[*head, clause.value]]
    return [
        [*head, clause.value, "not", clause.contrast],
        [*head, "not", clause.contrast, "but", clause.value],
    ]

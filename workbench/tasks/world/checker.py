"""The checker: which clauses of a prompt a story met, and where each fell due.

It reads any text, a model's as well as the generator's, through the due phrases; it never makes one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.errors import WorkbenchError, unknown
from workbench.tasks.world.phrases import DUE, KINDS
from workbench.tasks.world.stories import CLOSING, OPENING, Clause

_WORD, _PERSON = "[^ ]+", "[^ ]+(?: [^ ]+){0,2}"


@dataclass(frozen=True)
class Met:
    """What became of one clause."""

    clause: Clause
    met: bool | None
    """None where the clause never fell due."""
    at: int | None = None
    """The word of the text (counted from 0) at which it fell due."""
    found: str | None = None
    """The word that stands there."""


def check(prompt: str | Sequence[Clause], text: str) -> list[Met]:
    """What became of each clause of the prompt (or of these clauses) in `text`, in the prompt's order.

    A clause falls due where a due phrase of its kind first stands, and is met where the next word is its
    value; a stage not where an earlier stage falls due after it. A prohibition falls due where the forbidden
    value is offered, and is met where the other is taken and the forbidden is taken nowhere.
    """
    clauses = parse_prompt(prompt) if isinstance(prompt, str) else prompt
    story = " ".join(text.split())
    found = [_check_one(clause, story) for clause in clauses]
    stages = [(met.clause.order, met.at) for met in found if met.clause.order and met.at is not None]
    for i, met in enumerate(found):
        if met.met and met.clause.order:
            late = any(order < met.clause.order and at > (met.at or 0) for order, at in stages)
            found[i] = Met(met.clause, not late, met.at, met.found)
    return found


def share_met(prompt: str | Sequence[Clause], text: str) -> float:
    """The share of the prompt's clauses that the story met, 0 to 1; a clause that never fell due counts as 0."""
    result = check(prompt, text)
    return sum(met.met is True for met in result) / len(result)


def parse_prompt(prompt: str) -> tuple[Clause, ...]:
    """The clauses of the last "write a story . … begin :" in a text, in its order.

    Raises WorkbenchError where there is none, or for a clause that is not "kind : value ." with or without
    a decoy.
    """
    normal = f" {' '.join(prompt.split())} "
    start = normal.rfind(f" {OPENING} ")
    end = normal.find(f" {CLOSING} ", start)
    if start < 0 or end < 0:
        raise WorkbenchError(f"no story is asked for: the prompt needs '{OPENING} … {CLOSING}'")
    parts = normal[start + len(OPENING) + 2 : end].split(" .")
    clauses = tuple(_parse_clause(part.split()) for part in parts if part.strip())
    if not clauses:
        raise WorkbenchError(f"the story's prompt has no clause between '{OPENING}' and '{CLOSING}'")
    return clauses


def _parse_clause(words: list[str]) -> Clause:
    match words:
        case [kind, ":", value]:
            clause = Clause(kind, value)
        case [kind, ":", value, "not", contrast] | [kind, ":", "not", contrast, "but", value]:
            clause = Clause(kind, value, contrast)
        case _:
            raise WorkbenchError(f"'{' '.join(words)}' is no clause of a story; write 'hero : tom .'")
    if clause.kind not in KINDS:
        raise unknown("kind of clause", clause.kind, KINDS)
    return clause


def _compile(kind: str) -> re.Pattern[str]:
    """Everything up to and with the due word, for all phrases of a kind; groups a, b (offered) and x."""
    heads = []
    for i, phrase in enumerate(DUE[kind]):
        head = re.escape(phrase[: phrase.index("{x}") + 3]).replace("\\ ", " ")
        head = head.replace(r"\{x\}", f"(?P<x{i}>{_WORD})").replace(r"\{who\}", _PERSON)
        head = head.replace(r"\{a\}", f"(?P<a{i}>{_WORD})").replace(r"\{b\}", f"(?P<b{i}>{_WORD})")
        heads.append(head)
    return re.compile(f"(?<![^ ])(?:{'|'.join(heads)})(?![^ ])")


_PATTERNS = {kind: _compile(kind) for kind in DUE}


def _check_one(clause: Clause, story: str) -> Met:
    due: tuple[int, str] | None = None
    broken = False
    for match in _PATTERNS[clause.kind].finditer(story):
        groups = {name[0]: (name, word) for name, word in match.groupdict().items() if word is not None}
        name, taken = groups["x"]
        if clause.prohibition:
            broken |= taken == clause.value
            if taken != clause.value and clause.value not in (groups["a"][1], groups["b"][1]):
                continue
        if due is None or (clause.prohibition and taken == clause.value):
            due = story.count(" ", 0, match.start(name)), taken
        if not clause.prohibition or broken:
            break
    if due is None:
        return Met(clause, None)
    return Met(clause, not broken if clause.prohibition else due[1] == clause.value, *due)

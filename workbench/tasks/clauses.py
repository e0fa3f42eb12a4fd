"""Prompts with clauses: a prompt, the parts of it that each demand something, and a check for each.

    prompt = ClausePrompt("Write about Tom. End sadly.", (Clause("End sadly.", MustMatch("died|wept")),))
    prompt.without(0)                        # "Write about Tom."
    prompt.judge("Tom went home and wept.")  # a Verdict for each clause
    from_story("write a story . hero : tom . begin :")    # the small world's prompts, with its exact checker
    load_prompts("mine.jsonl")               # people's own

A clause is a stretch of the prompt's own text, so that it can be taken out and another put in its place. It runs no model, and what
a check is stands in `checks.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

from workbench.errors import WorkbenchError, unknown
from workbench.tasks.checks import Check, SmallWorld, Verdict, read_check
from workbench.tasks.readers import JsonLines
from workbench.tasks.task import Example, joined
from workbench.tasks.template import BadRow, look_up, text_of
from workbench.tasks.world.checker import parse_prompt
from workbench.tasks.world.stories import CLOSING, OPENING, Story, reminder

Span = tuple[int, int]
"""Where a text begins in a prompt, and where it ends: characters, from 0, the end not included."""

_KIND = re.compile(r"\s*([^\s:][^:\n]{0,39}?)\s*:\s*(\S.*?)[\s.]*", re.DOTALL)
_STORY_CLAUSE = re.compile(r"[^\s.][^.]*\.(?=\s)")
_SENTENCE = re.compile(r"\S.*?(?:[.!?;]+(?=\s|$)|(?=\n)|$)")
_PART = re.compile(r"[^\s,][^,]*")


@dataclass(frozen=True)
class Clause:
    """One demand of a prompt."""

    text: str
    """As it stands in the prompt."""
    check: Check | None = None
    """What an answer has to do; None: it is looked at, and never judged."""

    @property
    def kind(self) -> str | None:
        """What is asked for: "hero" of "hero : tom ."; None for a clause that is not written so."""
        if isinstance(self.check, SmallWorld):
            return self.check.clause.kind
        found = _KIND.fullmatch(self.text)
        return found[1] if found else None

    @property
    def value(self) -> str | None:
        """What it is to be: "tom" of "hero : tom .", in the small world without a decoy; None as for `kind`."""
        if isinstance(self.check, SmallWorld):
            return self.check.clause.value
        found = _KIND.fullmatch(self.text)
        return found[2] if found else None


@dataclass(frozen=True)
class ClausePrompt:
    """A prompt with its clauses, and perhaps an answer.

    Raises:
        WorkbenchError: an empty prompt, no clauses, or one that does not occur in it.
    """

    prompt: str
    clauses: tuple[Clause, ...]
    answer: str | None = None
    """The answer as it follows the prompt, its leading space included."""
    again: str | None = None
    """How the prompt is put when it is read again in the middle of an answer; None: as it is."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "clauses", tuple(self.clauses))
        if not self.prompt.strip():
            raise WorkbenchError("the prompt is empty; write what is asked for")
        if not self.clauses:
            raise WorkbenchError(
                f"the prompt {self.prompt[:60]!r} has no clauses; name at least one part of its text"
            )
        _ = self.spans

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """Where each clause stands in the prompt: the first place that no clause before it took."""
        taken: list[Span] = []
        for clause in self.clauses:
            if not clause.text.strip():
                raise WorkbenchError(
                    f"clause {len(taken) + 1} of the prompt is empty; give a part of its text"
                )
            start = self.prompt.find(clause.text)
            while start >= 0 and any(a < start + len(clause.text) and start < b for a, b in taken):
                start = self.prompt.find(clause.text, start + 1)
            if start < 0:
                often = " so often" if clause.text in self.prompt else ""
                raise WorkbenchError(
                    f"the clause {clause.text!r} does not occur{often} in the prompt {self.prompt[:60]!r}; "
                    "give it as it stands there"
                )
            taken.append((start, start + len(clause.text)))
        return tuple(taken)

    def without(self, index: int) -> str:
        """The prompt without clause `index` (from 0) and without the space that it leaves: the rest as it was."""
        return put(self.prompt, self.spans[index], "")

    def swapped(self, index: int, other: ClausePrompt) -> str | None:
        """The prompt with another prompt's clause in place of clause `index`; None where it has no `counterpart`."""
        theirs = self.counterpart(index, other)
        return None if theirs is None else put(self.prompt, self.spans[index], theirs.text)

    def counterpart(self, index: int, other: ClausePrompt) -> Clause | None:
        """The clause of another prompt that is of the same kind as clause `index`.

        The one in its place, where a kind is not written. None where the other has no such clause, or the very same.
        """
        clause = self.clauses[index]
        if clause.kind is None:
            found = list(other.clauses[index : index + 1])
        else:
            found = [theirs for theirs in other.clauses if theirs.kind == clause.kind]
        return found[0] if found and found[0].text != clause.text else None

    def judge(self, answer: str) -> tuple[Verdict, ...]:
        """What became of each clause in an answer; those without a check were never due."""
        return tuple(
            Verdict(None) if clause.check is None else clause.check(answer) for clause in self.clauses
        )

    def share_met(self, answer: str) -> float:
        """The share of clauses met, 0 to 1, among those that the answer can be judged by; 0 where there is none."""
        judged = [verdict.met for verdict in self.judge(answer) if verdict.met is not None]
        return sum(judged) / len(judged) if judged else 0.0

    def to_dict(self) -> dict[str, Any]:
        """A row of a file that `load_prompts` reads."""
        clauses = [
            {"text": clause.text, **({} if clause.check is None else {"check": clause.check.describe()})}
            for clause in self.clauses
        ]
        row: dict[str, Any] = {"prompt": self.prompt, "clauses": clauses}
        return row | {k: v for k in ("answer", "again") if (v := getattr(self, k)) is not None}


def put(prompt: str, span: Span, text: str) -> str:
    """A prompt with another text in a span; "" takes the span out, and one white space beside it.

    >>> put("be kind . be brief .", (0, 9), "")
    'be brief .'
    """
    start, end = span
    if not text and prompt[end : end + 1].isspace():
        end += 1
    elif not text and start and prompt[start - 1].isspace():
        start -= 1
    return prompt[:start] + text + prompt[end:]


def from_story(story: Story | str, answer: str | None = None) -> ClausePrompt:
    """A story's prompt of the small world with its clauses ("hero : tom .", the full stop included), each with the exact checker.

    answer: the story as it follows the prompt; by default a Story's own.

    Raises:
        WorkbenchError: a text that asks for no story.
    """
    prompt = story if isinstance(story, str) else story.prompt
    if answer is None and not isinstance(story, str):
        answer = joined(prompt, story.text)
    begin, end = prompt.rfind(OPENING), prompt.rfind(CLOSING)
    texts = [] if begin < 0 else _STORY_CLAUSE.findall(prompt, begin + len(OPENING), max(end, 0))
    checks = [SmallWorld(prompt, index) for index in range(len(parse_prompt(prompt)))]
    if len(texts) != len(checks):
        raise WorkbenchError(
            f"the clauses of the story's prompt {prompt[:60]!r} cannot be told apart; write each as 'hero : tom .'"
        )
    clauses = tuple(Clause(text, check) for text, check in zip(texts, checks, strict=True))
    return ClausePrompt(prompt, clauses, answer, reminder(prompt[begin : end + len(CLOSING)]))


def split_clauses(prompt: str) -> list[Span]:
    """A guess at the clauses of a written prompt, as spans.

    Its parts "kind : value ." where there are any, the colon between spaces; else its sentences and lines; else, of a single
    sentence, what stands between commas.
    """
    spans = [found.span() for found in _SENTENCE.finditer(prompt)]
    kinds = [(a, b) for a, b in spans if " : " in prompt[a:b] and _KIND.fullmatch(prompt, a, b)]
    if kinds:
        return kinds
    if len(spans) == 1:
        return [found.span() for found in _PART.finditer(prompt)]
    return spans


def guess(prompt: str) -> ClausePrompt:
    """A written prompt with its clauses: a story's with the exact checker, any other's by `split_clauses`, without checks."""
    if OPENING in prompt and CLOSING in prompt:
        return from_story(prompt)
    return ClausePrompt(prompt, tuple(Clause(prompt[a:b]) for a, b in split_clauses(prompt)))


def from_row(row: Mapping[str, Any]) -> ClausePrompt:
    """The prompt of one row of a file, see `load_prompts`.

    Raises:
        BadRow: names the field and what is wrong with it.
    """
    prompt = text_of(look_up(row, "prompt"), "prompt")
    if not prompt.strip():
        raise BadRow("the field 'prompt' is empty; write what is asked for")
    given = look_up(row, "clauses")
    if not isinstance(given, Sequence) or isinstance(given, str | bytes) or not given:
        raise BadRow("the field 'clauses' is no list of clauses; write [{'text': …, 'check': {…}}, …]")
    clauses = []
    for number, one in enumerate(given):
        if not isinstance(one, Mapping):
            raise BadRow(f"the field 'clauses.{number}' is {one!r:.40} and no object with 'text' and 'check'")
        text = text_of(look_up(one, "text"), f"clauses.{number}.text")
        try:
            check = None if one.get("check") is None else read_check(one["check"], prompt, text)
        except WorkbenchError as error:
            raise BadRow(f"the field 'clauses.{number}.check': {error}") from None
        clauses.append(Clause(text, check))
    answer, again = (None if row.get(k) is None else text_of(row[k], k) for k in ("answer", "again"))
    if answer is not None:
        answer = joined(prompt, answer.strip())
    try:
        return ClausePrompt(prompt, tuple(clauses), answer, again)
    except WorkbenchError as error:
        raise BadRow(f"the field 'clauses': {error}") from None


def from_example(example: Example) -> ClausePrompt:
    """The prompt of a task's example: of the task of a file of prompts, or of the small world's stories."""
    given = example.fields.get("clauses")
    if given and "text" in given[0]:
        return from_row(example.fields)
    return from_story(example.prompt, example.answer)


class Prompts(Sequence[ClausePrompt]):
    """The prompts of a JSONL, made when they are looked at; `skipped` rows were bad."""

    def __init__(self, path: Path, on_bad: str):
        self._rows = JsonLines(path, from_row, on_bad, ())
        self.skipped = self._rows.skipped
        if not len(self._rows):
            first = f"; the first bad one is {self._rows.first_bad}" if self.skipped else ""
            raise WorkbenchError(f"{path} has no rows that can be used{first}")

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> ClausePrompt: ...
    @overload
    def __getitem__(self, index: slice) -> list[ClausePrompt]: ...
    def __getitem__(self, index: int | slice) -> ClausePrompt | list[ClausePrompt]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return from_row(self._rows[index % len(self)])


def load_prompts(path: str | Path, on_bad: str = "stop") -> Prompts:
    """People's own prompts from a JSONL: on each line a prompt, its clauses and, for each, a check.

        {"prompt": "Write about Tom. End sadly.",
         "clauses": [{"text": "about Tom", "check": {"must_contain": "Tom"}},
                     {"text": "End sadly.", "check": {"must_match": "died|wept"}}]}

    A clause's text stands in the prompt. Checks are those of `checks.CHECKS`: must_contain and must_not_contain (a word or a
    list), must_match (a regular expression), must_choose with among (label words), and small_world (true). A row may have an
    answer, and, in again, how its prompt is put when it is read again. With answers, `load_task(path, preset="clauses")` makes a
    task of the same file.

    Args:
        path: the file.
        on_bad: "stop" at a bad row with file, line and field, or "skip" and count it.

    Raises:
        WorkbenchError: a file that cannot be read, or a bad row.
    """
    if on_bad not in ("stop", "skip"):
        raise unknown("way to treat bad rows (on_bad)", on_bad, ("stop", "skip"))
    return Prompts(Path(path).expanduser().absolute(), on_bad)

"""Texts whose forgetting was followed, kept while they are written: a file of JSON lines, one a step. Runs no model.

    for step in keep(path, prompt, wb.follow_forgetting(backbone, prompt)):
        …                                   # each step is on the disk before it is here
    load(path)                              # what there is of it, as `wb.forgetting` gives it; also of a text that is being written

The first line says what the text is of. A last line that was cut short is left out, so that a text may be read at any time.
"""

from __future__ import annotations

import bisect
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workbench.analysis.forgetting import Forgetting, ForgettingStep
from workbench.analysis.forgetting_measures import MEASURES, Floats
from workbench.errors import WorkbenchError
from workbench.tasks.checks import Verdict
from workbench.tasks.clauses import ClausePrompt, from_row
from workbench.tasks.template import BadRow

Record = dict[str, Any]

OVER = "over"
"""The key of the line behind the last step of a text that has ended."""


@dataclass(frozen=True, eq=False)
class Kept:
    """A text of a file, as far as it is written.

    Attributes:
        forgetting: its numbers, texts and verdicts.
        done: whether it has ended, and was not left or cut short.
        likely: of each step the likeliest tokens with their probabilities.
    """

    forgetting: Forgetting
    done: bool
    likely: tuple[tuple[tuple[str, float], ...], ...]


def keep(
    path: Path,
    prompt: ClausePrompt,
    steps: Iterable[ForgettingStep],
    layers: Mapping[str, Sequence[int]] | None = None,
    after: Path | None = None,
    again_at: int | None = None,
) -> Iterator[ForgettingStep]:
    """The steps, each after it was written to a file; what is there already is written over when the first comes.

    Args:
        path: the file; its folder is there.
        prompt: what the text is of.
        steps: see `follow_forgetting`.
        layers: of each measure of layers, which these are.
        after: the file of a text whose first `again_at` steps go before these.
        again_at: the number of tokens behind which the prompt was read again.

    Raises:
        WorkbenchError: `after` has fewer steps.
    """
    numbers = {measure: list(own) for measure, own in (layers or {}).items()}
    head = {"prompt": prompt.to_dict(), "layers": numbers, "again_at": again_at}
    before = [] if after is None else _records(after)[1][:again_at]
    if after is not None and len(before) < (again_at or 0):
        raise WorkbenchError(f"{after.name} has {len(before)} steps, and {again_at} are to be gone on from")
    text = _text(before)
    partial = path.with_name(f".{path.name}.partial")
    file = None
    try:
        for step in steps:
            if file is None:  # the file that was there stands until then
                file = partial.open("w", encoding="utf-8")
                for record in (head, *before):
                    file.write(_line(record))
                os.replace(partial, path)
            file.write(_line(_record(step, _common(text, step.text))))
            file.flush()
            text = step.text
            yield step
        if file is not None:
            file.write(_line({OVER: True}))
    finally:
        if file is not None:
            file.close()


def load(path: Path) -> Kept | None:
    """What a file holds; None where there is none, or it has no step yet.

    Raises:
        WorkbenchError: a file that is damaged.
    """
    if not path.is_file():
        return None
    head, records, done = _records(path)
    if not records:
        return None
    try:
        prompt, text = from_row(head["prompt"]), _text(records)
        ends = [record["end"] for record in records]
        known = {int(clause) for record in records for clause in record["fell"]}
        values = {name: _array(name, records) for name in records[0]["values"]}
        ids, tokens = tuple(r["id"] for r in records), tuple(r["token"] for r in records)
        likely = tuple(tuple((str(word), float(p)) for word, p in r["likely"]) for r in records)
        layers = {name: tuple(numbers) for name, numbers in head["layers"].items()}
    except (KeyError, TypeError, ValueError, BadRow) as error:
        raise WorkbenchError(
            f"{path} is damaged ({error}); take it away and have the text written again"
        ) from None
    verdicts = _verdicts(prompt, text, known, done)
    due = tuple(None if v.at is None else 1 + bisect.bisect_right(ends, v.at) for v in verdicts)
    seen = Forgetting(prompt, ids, text, verdicts, head["again_at"], values, tokens, layers, due)
    return Kept(seen, done, likely)


def _verdicts(prompt: ClausePrompt, text: str, known: set[int], done: bool) -> tuple[Verdict, ...]:
    """What became of each clause; while a text goes on only of those of which a step has said so."""
    if not done:  # its last word may be half a word
        text = text[: max((found.start() for found in re.finditer(r"\s", text)), default=0)]
    judged = prompt.judge(text)
    return tuple(v if done or clause in known else Verdict(None) for clause, v in enumerate(judged, 1))


def _record(step: ForgettingStep, common: int) -> Record:
    return {
        "step": step.index,
        "id": step.token_id,
        "token": step.token,
        "from": common,
        "text": step.text[common:],
        "end": len(step.text),
        "likely": step.likely,
        "values": {name: _plain(value) for name, value in step.values.items()},
        "fell": step.fell,
    }


def _plain(value: Floats) -> Any:
    """Numbers as JSON has them; nan, which it has not, is null."""
    if np.ndim(value):
        return [_plain(one) for one in value]
    return None if np.isnan(value) else float(value)


def _array(name: str, records: Sequence[Record]) -> Floats:
    """(T,), (T, C) or (T, L)."""
    per = MEASURES[name].per
    found = np.array([record["values"][name] for record in records], np.float64)
    if found.ndim != (1 if per == "prompt" else 2):
        raise ValueError(f"{name} has other numbers in other steps")
    return found


def _text(records: Sequence[Record]) -> str:
    text = ""
    for record in records:
        text = text[: record["from"]] + record["text"]
    return text


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _records(path: Path) -> tuple[Record, list[Record], bool]:
    """The first line, the steps, and whether there are no more to come; without a line that is being written."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        head, *records = (json.loads(line) for line in lines)
    except (OSError, ValueError) as error:
        raise WorkbenchError(
            f"{path} cannot be read ({error}); take it away and have the text written again"
        ) from None
    over = bool(records) and OVER in records[-1]
    return head, records[:-1] if over else records, over


def _common(one: str, other: str) -> int:
    """How many letters two texts begin with alike; a token may change the end of what was there, half a letter."""
    if other.startswith(one):
        return len(one)
    return next(i for i, (a, b) in enumerate(zip(one, other + "\0", strict=False)) if a != b)

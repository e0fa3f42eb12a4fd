"""Presets: the public formats that people have data in, as template, answer field, metric and, where a format has its
own file shape, the reader of it. Written against the formats' own descriptions; no data is held here.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from workbench.errors import WorkbenchError
from workbench.tasks.clauses import from_row
from workbench.tasks.readers import Check, JsonLines, Lines, Record, Rows, opened, progress, settle
from workbench.tasks.template import BadRow


@dataclass(frozen=True)
class Preset:
    """How a public format is read."""

    name: str
    template: str
    answer: str
    metric: str
    source: str
    """Where the format is described."""
    readers: Mapping[str, Callable[..., Rows]] = field(default_factory=dict)
    """File ending to reader, where it is not the usual one."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of load_task that the preset takes, with their defaults."""


class SquadJson(Rows):
    """SQuAD's own JSON, v1.1 and v2.0: {"version", "data": [{"title", "paragraphs": [{"context", "qas": […]}]}]}.

    Read an article at a time; a row is one question in the shape that the 🤗 Hub gives it: id, title, context,
    question, answers {"text", "answer_start"}. An unanswerable question (v2.0, `is_impossible`) has no answers.
    """

    def __init__(self, path: Path, check: Check, on_bad: str, columns: tuple[str, ...], **options: Any):
        super().__init__(path)
        self._spans = array("Q")  # start and end byte of each article
        self._places = array("I")  # article, paragraph and question of each row
        self._article = lru_cache(maxsize=16)(self._read_article)
        with opened(path) as file, progress(path) as moved:
            for number, (start, end, article) in enumerate(self._articles(file)):
                self._spans.extend((start, end))
                for p, q, row in self._questions(article):
                    place = f"{path.name}, article {number + 1}, paragraph {p + 1}, question {q + 1}"
                    if settle(self, row, check, on_bad, place):
                        self._places.extend((number, p, q))
                moved(end)

    def __len__(self) -> int:
        return len(self._places) // 3

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        number, p, q = self._places[3 * index : 3 * index + 3]
        self.unchanged(index)
        row = next(r for i, j, r in self._questions(self._article(number)) if (i, j) == (p, q))
        assert not isinstance(row, BadRow)  # it was good when the file was indexed
        return row

    def where(self, index: int) -> str:
        number, p, q = self._places[3 * index : 3 * index + 3]
        return f"{self.path.name}, article {number + 1}, paragraph {p + 1}, question {q + 1}"

    def _read_article(self, number: int) -> Any:
        start, end = self._spans[2 * number : 2 * number + 2]
        with opened(self.path) as file:
            file.seek(start)
            return json.loads(file.read(end - start))

    def _articles(self, file: BinaryIO) -> Iterator[tuple[int, int, Any]]:
        """Start, end and value of each element of "data". Boundaries are found in the bytes read as Latin-1, where
        one character is one byte and JSON's own signs are what they are in UTF-8."""
        decoder = json.JSONDecoder(strict=False)
        text, base, step, whole = "", 0, 1 << 20, False

        def more() -> None:
            nonlocal text, whole
            new = file.read(max(step, len(text)))
            text, whole = text + new.decode("latin-1"), not new

        more()
        begin = re.search(r'"data"\s*:\s*\[', text)
        if begin is None:
            raise WorkbenchError(f'{self.path} is not SQuAD\'s JSON: it has no list called "data"')
        at = begin.end()
        while True:
            gap = re.compile(r"[\s,]*").match(text, at)
            at = gap.end() if gap else at
            if at < len(text) and text[at] == "]":
                return
            try:
                _, end = decoder.raw_decode(text, at)
            except json.JSONDecodeError as error:
                if whole:
                    raise WorkbenchError(
                        f"{self.path} is truncated or is no JSON: it cannot be read from byte {base + error.pos} on"
                    ) from None
                more()
                continue
            raw = text[at:end].encode("latin-1")
            try:
                yield base + at, base + end, json.loads(raw.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise WorkbenchError(
                    f"{self.path} is not UTF-8: see byte {base + at + error.start}"
                ) from None
            text, base, at = text[end:], base + end, 0

    def _questions(self, article: Any) -> Iterator[tuple[int, int, Mapping[str, Any] | BadRow]]:
        paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
        if not isinstance(paragraphs, list):
            yield 0, 0, BadRow("there is no list 'paragraphs'")
            return
        for p, paragraph in enumerate(paragraphs):
            questions = paragraph.get("qas") if isinstance(paragraph, dict) else None
            if not isinstance(questions, list):
                yield p, 0, BadRow("there is no list 'qas'")
                continue
            for q, qa in enumerate(questions):
                missing = (
                    [key for key in ("question", "answers") if key not in qa]
                    if isinstance(qa, dict)
                    else ["question"]
                )
                if "context" not in paragraph:
                    missing.append("context")
                if missing or not isinstance(qa["answers"], list):
                    yield p, q, BadRow(f"there is no field {(missing or ['answers'])[0]!r} as SQuAD has it")
                    continue
                answers = [] if qa.get("is_impossible") else qa["answers"]
                yield (
                    p,
                    q,
                    {
                        "id": qa.get("id", ""),
                        "title": article.get("title", ""),
                        "context": paragraph["context"],
                        "question": qa["question"],
                        "answers": {key: [a.get(key) for a in answers] for key in ("text", "answer_start")},
                    },
                )


class QuestionAnswerLines(Lines):
    """DeepMind's text files: a line with a question, a line with its answer, and so on."""

    def records(self, file: BinaryIO, number: int = 1) -> Iterator[Record]:
        while question := self.line(file):
            offset, answer = file.tell() - len(question), self.line(file)
            row: Mapping[str, Any] | BadRow
            try:
                row = {"question": question.decode().strip(), "answer": answer.decode().strip()}
            except UnicodeDecodeError:
                row = BadRow("the line is not UTF-8")
            else:
                if not row["question"]:
                    row = BadRow("the question is an empty line")
                elif not answer:
                    row = BadRow("the file ends after a question, without its answer: it is truncated")
            yield offset, number, row
            number += 2


class ClauseLines(JsonLines):
    """Prompts with clauses and answers, one JSON object a line: see `clauses.load_prompts`."""

    def __init__(self, path: Path, check: Check, on_bad: str, columns: tuple[str, ...], **options: Any):
        def both(row: Mapping[str, Any]) -> object:
            if from_row(row).answer is None:
                raise BadRow(
                    "there is no field 'answer', which a task trains on; load_prompts reads prompts without answers"
                )
            return check(row)

        super().__init__(path, both, on_bad, columns, **options)


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "squad",
            template="{context}\nQuestion: {question}\nAnswer:",
            answer="answers.text",
            metric="token_f1",
            source="Rajpurkar et al. 2016 and 2018, https://rajpurkar.github.io/SQuAD-explorer/",
            readers={".json": SquadJson},
            options={"unanswerable": "unanswerable"},
        ),
        Preset(
            "gsm8k",
            template="Question: {question}\nAnswer:",
            answer="answer",
            metric="numeric_match",
            source="Cobbe et al. 2021, https://github.com/openai/grade-school-math",
        ),
        Preset(
            "deepmind-math",
            template="Question: {question}\nAnswer:",
            answer="answer",
            metric="string_match",
            source="Saxton et al. 2019, https://github.com/google-deepmind/mathematics_dataset",
            readers={".txt": QuestionAnswerLines},
        ),
        Preset(
            "clauses",
            template="{prompt}",
            answer="answer",
            metric="clauses_met",
            source="ours: prompts with clauses, each with a check (tasks/clauses.py)",
            readers={".jsonl": ClauseLines},
        ),
    )
}

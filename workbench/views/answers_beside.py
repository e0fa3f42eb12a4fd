"""The same questions as several runs answered them, side by side, with what differs marked. Asks no model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from html import escape
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go

from workbench.errors import WorkbenchError, unknown
from workbench.views.answers import STYLE, WAYS, Answers
from workbench.views.curves import listed
from workbench.views.groups import name_runs
from workbench.views.page import page
from workbench.views.theme import CSS, INK, Theme, empty_note, heading, template
from workbench.views.view import Table

if TYPE_CHECKING:
    from workbench.training.run import Run

#: Letters of a question and of an answer that are shown; of a question the end, where it is asked.
QUESTION, ANSWER = 240, 160

MARKS = """
.wb-beside .wb-differs td:first-child { border-left: 3px solid var(--wb-quiet); padding-left: 8px; }
.wb-beside mark { background: color-mix(in srgb, var(--wb-quiet) 28%, transparent); color: inherit; border-radius: 2px;
  padding: 0 1px; }
.wb-beside { overflow-x: auto; }
.wb-beside table { min-width: 560px; }
"""

NOTE = "The answers of the runs stand here side by side, once they have been asked."


@dataclass(frozen=True)
class Column:
    """What one run answered when it was asked in one way."""

    label: str
    answers: dict[tuple[str, str], tuple[str, float | None]]
    """(question, expected) to (answer, score from 0 to 1)."""
    score: float
    """Over all that it was asked, 0 to 1."""


class AnswersBeside(Table):
    """The answers of some runs to the same questions.

    Args:
        runs: a run, or any number of them; one that has not been asked has no column.
        ways: the ways of asking that get a column for each run, of `zero_shot`, `hand_written` and `trained`.
        rows: how many questions are shown; `data()` has them all.

    Raises:
        WorkbenchError: there is no such way of asking.
    """

    def __init__(
        self,
        runs: Run | Iterable[Run] | None = None,
        ways: Sequence[str] = ("trained",),
        theme: Theme = "light",
        rows: int = 12,
    ) -> None:
        for way in ways:
            if way not in WAYS:
                raise unknown("way of asking", way, WAYS)
        self.runs, self.ways, self.theme, self.rows = listed(runs), tuple(ways), theme, rows

    def data(self) -> pd.DataFrame:
        """One row a question, in the order in which they were asked.

        question; expected; differ (whether those that were asked it gave other answers); and for each run and way its
        answer and, in the column that ends in ` score`, its score (0 to 1); None for who was not asked.
        """
        columns = self.columns()[0]
        rows = []
        for question, expected in dict.fromkeys(key for column in columns for key in column.answers):
            given = {c.label: c.answers.get((question, expected), (None, None)) for c in columns}
            answers = {answer for answer, _ in given.values() if answer is not None}
            row: dict[str, Any] = {"question": question, "expected": expected, "differ": len(answers) > 1}
            for label, (answer, score) in given.items():
                row |= {label: answer, f"{label} score": score}
            rows.append(row)
        names = [
            "question",
            "expected",
            "differ",
            *(n for c in columns for n in (c.label, f"{c.label} score")),
        ]
        return pd.DataFrame(rows, columns=names, dtype=object)

    def columns(self) -> tuple[list[Column], list[str]]:
        """The columns of answers, and the names of the runs whose file is damaged."""
        columns: list[Column] = []
        damaged = []
        named = name_runs(self.runs)
        for run, name in named:
            try:
                asked = Answers(run).read()
                columns += [
                    _column(_label(name, way, len(named) > 1, len(self.ways) > 1), way, asked)
                    for way in self.ways
                    if asked and way in asked["scores"]
                ]
            except (WorkbenchError, ValueError, KeyError, TypeError, OSError):
                damaged.append(run.name)
        return columns, damaged

    def _shown(self, whole: pd.DataFrame) -> pd.DataFrame:
        """The first rows, those in which the answers differ before the others."""
        return whole.sort_values("differ", ascending=False, kind="stable").head(self.rows)

    def _said(self, whole: pd.DataFrame) -> str:
        """How many were asked, and in how many the answers differ."""
        said = f"{len(whole)} questions, {int(whole['differ'].sum())} of them answered differently"
        if len(whole) > self.rows:
            said += f"; {self.rows} are shown, those that differ before the others"
        return said

    def figure(self) -> go.Figure:
        """The table as a plotly figure, for .png and .svg; words that differ are bold."""
        ink, whole, columns = INK[self.theme], self.data(), self.columns()[0]
        figure = go.Figure(layout={"template": template(self.theme), "width": 900})
        if not len(whole):
            figure.update_layout(annotations=[empty_note(NOTE, self.theme)], height=160)
            return figure.update_xaxes(visible=False).update_yaxes(visible=False)
        table = self._shown(whole)
        cells = [
            [escape(_short(q, QUESTION)) for q in table["question"]],
            [escape(e) for e in table["expected"]],
        ]
        marked = [_marked([row[c.label] for c in columns], "<b>", "</b>") for _, row in table.iterrows()]
        for number, column in enumerate(columns):
            scores = table[f"{column.label} score"]
            cells.append([_sign(s)[1] + texts[number] for texts, s in zip(marked, scores, strict=True)])
        shares = [2.6, 1.1, *[1.6] * len(columns)]
        fitting = [max(6, 125 * share / sum(shares)) for share in shares]  # letters in a line of each column
        lines = sum(
            max(
                math.ceil(len(text.replace("<b>", "").replace("</b>", "")) / fit) + text.count("\n")
                for text, fit in zip(row, fitting, strict=True)
            )
            for row in zip(*cells, strict=True)
        )
        heads = [f"{'<br>'.join(wrap(escape(c.label), 26))}<br><b>{c.score:.0%}</b>" for c in columns]
        line = {"color": ink["line"], "width": 1}
        figure.add_table(
            columnwidth=shares,
            header={
                "values": ["question", "expected", *heads],
                "align": "left",
                "fill": {"color": ink["grid"]},
                "line": line,
            },
            cells={
                "values": cells,
                "align": "left",
                "fill": {"color": ink["paper"]},
                "line": line,
                "height": 22,
            },
        )
        return figure.update_layout(
            title=heading("Their answers", self._said(whole), self.theme),
            height=160 + 17 * lines + 8 * len(table),
            margin={"l": 1, "r": 1, "t": 64, "b": 1},
        )

    def html(self) -> str:
        """The table as a page of its own."""
        return page("Answers side by side", [self.part()], self.theme)

    def part(self) -> str:
        """The table as a piece of a page."""
        return self.table_html()

    def table_html(self) -> str:
        """The first rows as an HTML table: ✓ right, ✗ wrong, ~ in part; a bar where answers differ, and the words."""
        whole, (columns, damaged) = self.data(), self.columns()
        notes = f"answers.json of {', '.join(damaged)} is damaged" if damaged else ""
        if len(whole):
            body = self._rows_html(whole, columns, notes)
        else:
            body = f"<div class='wb-empty'>{escape(notes or NOTE)}</div>"
        style = f"<style>{CSS}{STYLE}{MARKS}</style>"
        return f"{style}<div class='wb-answers wb-beside wb-{self.theme}'>{body}</div>"

    def _rows_html(self, whole: pd.DataFrame, columns: Sequence[Column], notes: str) -> str:
        head = "<th style='width:30%'>question</th><th style='width:12%'>expected</th>"
        head += "".join(f"<th>{escape(c.label)}<br><b>{c.score:.0%}</b></th>" for c in columns)
        lines = []
        for _, row in self._shown(whole).iterrows():
            cells = f"<td class='wb-question'>{escape(_short(row['question'], QUESTION))}</td>"
            cells += f"<td>{escape(row['expected'])}</td>"
            for column, text in zip(columns, _marked([row[c.label] for c in columns]), strict=True):
                cells += f"<td class='{_sign(row[f'{column.label} score'])[0]}'>{text}</td>"
            differs = " class='wb-differs' title='answered differently'" if row["differ"] else ""
            lines.append(f"<tr{differs}>{cells}</tr>")
        caption = "; ".join(filter(None, [self._said(whole), notes]))
        return (
            f"<h4>Their answers</h4><table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>{''.join(lines)}</tbody></table>"
        )


def _column(label: str, way: str, asked: dict[str, Any]) -> Column:
    answers: dict[tuple[str, str], tuple[str, float | None]] = {
        (str(row["question"]), str(row["expected"])): (str(row[way]), float(row[f"{way}_score"]))
        for row in asked["rows"]
    }
    return Column(label, answers, float(asked["scores"][way]))


def _label(name: str, way: str, many_runs: bool, many_ways: bool) -> str:
    return ", ".join([*([name] if many_runs else []), *([WAYS[way]] if many_ways or not many_runs else [])])


def differing_words(texts: Sequence[str]) -> list[list[tuple[str, bool]]]:
    """For each text its words, and whether a word is one that some other text does not have in that place.

    "In that place" as `difflib` aligns two lists of words: the longest common run first, then what is on its sides.

    >>> differing_words(["a red door", "a blue door"])[0]
    [('a', False), ('red', True), ('door', False)]
    """
    split = [text.split() for text in texts]
    found = []
    for number, words in enumerate(split):
        other = [False] * len(words)
        for beside in (rest for i, rest in enumerate(split) if i != number):
            shared = [False] * len(words)
            for block in SequenceMatcher(None, words, beside, autojunk=False).get_matching_blocks():
                shared[block.a : block.a + block.size] = [True] * block.size
            other = [was or not now for was, now in zip(other, shared, strict=True)]
        found.append(list(zip(words, other, strict=True)))
    return found


def _marked(texts: Sequence[str | None], before: str = "<mark>", after: str = "</mark>") -> list[str]:
    """The texts as HTML with the words marked in which they differ; a dash for who was not asked."""
    given = [None if text is None else _short(text, ANSWER) for text in texts]
    asked = [text for text in given if text is not None]
    words = iter(differing_words(asked))
    return [
        "—"
        if text is None
        else " ".join(f"{before}{escape(w)}{after}" if other else escape(w) for w, other in next(words))
        or "<i>nothing</i>"
        for text in given
    ]


def _sign(score: float | None) -> tuple[str, str]:
    """The class of a cell, and what it begins with."""
    if score is None:
        return "", ""
    if score >= 1:
        return "wb-right", "✓ "
    return ("wb-part", "~ ") if score > 0 else ("wb-wrong", "✗ ")


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else "… " + text[-most:]

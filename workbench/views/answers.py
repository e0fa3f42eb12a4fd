"""The same questions answered without a prompt, with a hand-written one, and with the trained one. Asks no model."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go

from workbench.training.answers import FILE, WAYS
from workbench.views.theme import CSS, INK, Theme, empty_note, template
from workbench.views.view import Table

if TYPE_CHECKING:
    from workbench.training.run import Run

# The class twice, to be stronger than JupyterLab's own rules for tables.
STYLE = """
.wb-answers.wb-answers { font: 13px/1.45 var(--jp-ui-font-family, system-ui, sans-serif); color: var(--wb-text);
  background: var(--wb-paper); }
.wb-answers.wb-answers table { border-collapse: collapse; width: 100%; table-layout: fixed; margin: 0 0 8px; font: inherit; }
.wb-answers.wb-answers :is(th, td) { text-align: left; vertical-align: top; padding: 6px 10px 6px 0; background: none;
  border: 0; border-bottom: 1px solid var(--wb-line); overflow-wrap: anywhere;
  font: inherit; color: inherit; white-space: normal; max-width: none; }
.wb-answers.wb-answers tbody tr { background: none; }
.wb-answers.wb-answers th { font-weight: 600; color: var(--wb-text); border-bottom: 2px solid var(--wb-line); }
.wb-answers.wb-answers th b { font-size: 20px; font-variant-numeric: tabular-nums; }
.wb-answers.wb-answers .wb-right::before { content: "✓ "; color: var(--wb-good); font-weight: 700; }
.wb-answers.wb-answers .wb-wrong::before { content: "✗ "; color: var(--wb-second); font-weight: 700; }
.wb-answers.wb-answers .wb-part::before { content: "~ "; color: var(--wb-quiet); font-weight: 700; }
.wb-answers.wb-answers tbody tr.wb-gained { background: color-mix(in srgb, var(--wb-good) 12%, transparent); }
.wb-answers.wb-answers tbody tr.wb-lost { background: color-mix(in srgb, var(--wb-second) 12%, transparent); }
.wb-answers.wb-answers caption { text-align: left; caption-side: top; padding: 2px 0 8px; color: var(--wb-quiet); }
.wb-answers.wb-answers h4 { margin: 14px 0 2px; font-size: 14px; font-weight: 600; }
.wb-answers.wb-answers .wb-question { white-space: pre-wrap; }
.wb-answers.wb-answers .wb-empty { padding: 26px 0; text-align: center; color: var(--wb-quiet); border: 1px dashed var(--wb-line);
  border-radius: 6px; }
"""


class Answers(Table):
    """The answers that a run's directory holds, once its prompt has been trained and asked."""

    def __init__(self, run: Run | None = None, theme: Theme = "light", rows: int = 12) -> None:
        self.run, self.theme, self.rows = run, theme, rows

    def read(self) -> dict[str, Any] | None:
        """What `write_answers` wrote, or None while there is nothing."""
        path = Path(self.run.path) / FILE if self.run else None
        return json.loads(path.read_text(encoding="utf-8")) if path and path.exists() else None

    def data(self) -> pd.DataFrame:
        """One row a question: question, expected, and for each way of asking its answer and its score (0 to 1)."""
        asked = self.read()
        columns = ["question", "expected", *(c for way in WAYS for c in (way, f"{way}_score"))]
        if asked is None:
            return pd.DataFrame(columns=columns)
        return pd.DataFrame(asked["rows"]).reindex(columns=[c for c in columns if c in asked["rows"][0]])

    def figure(self) -> go.Figure:
        """The table as a plotly figure, for .png and .svg; right answers in the text's colour, wrong ones pale."""
        asked, ink = self.read(), INK[self.theme]
        figure = go.Figure(
            layout={"template": template(self.theme), "width": 900, "margin": {"l": 1, "r": 1, "b": 1}}
        )
        if asked is None:
            figure.update_layout(annotations=[empty_note("No answers yet.", self.theme)], height=160)
            figure.update_xaxes(visible=False).update_yaxes(visible=False)
            return figure
        table, ways = self.data().head(self.rows), list(asked["scores"])
        heads = [f"{WAYS[w]}: {asked['scores'][w]:.0%}" for w in ways]
        colours = [[ink["text"]] * len(table)] * 2
        colours += [[ink["text"] if s >= 1 else ink["quiet"] for s in table[f"{w}_score"]] for w in ways]
        marks = [
            [f"{_mark(s)[1]} {a}" for a, s in zip(table[w], table[f"{w}_score"], strict=True)] for w in ways
        ]
        figure.add_table(
            columnwidth=[3, 1.4, *[1.6] * len(ways)],
            header={
                "values": ["question", "expected", *heads],
                "align": "left",
                "fill": {"color": ink["grid"]},
            },
            cells={
                "values": [table["question"], table["expected"], *marks],
                "align": "left",
                "fill": {"color": ink["paper"]},
                "font": {"color": colours},
                "height": 26,
            },
        )
        figure.update_layout(title={"text": self.title(asked)}, height=120 + 30 * len(table))
        return figure

    @staticmethod
    def title(asked: dict[str, Any]) -> str:
        """What was asked, and of whom."""
        return f"{asked['task']}: {asked['questions']} unseen questions, asked of {asked['backbone']}"

    def html(self) -> str:
        """The table as a page of its own."""
        ink = INK[self.theme]
        return (
            f"<!doctype html><meta charset='utf-8'><title>Answers</title><body style='max-width:900px;margin:24px auto;"
            f"background:{ink['paper']}'>{self.table_html()}</body>"
        )

    def table_html(self) -> str:
        """The first rows as an HTML table: ✓ right, ✗ wrong, ~ in part; a row is shaded where training changed it."""
        asked = self.read()
        if asked is None:
            note = "Once the prompt is trained, the same questions are answered here with and without it."
            body = f"<div class='wb-empty'>{note}</div>"
        else:
            body = self._rows_html(asked)
        return f"<style>{CSS}{STYLE}</style><div class='wb-answers wb-{self.theme}'>{body}</div>"

    def _rows_html(self, asked: dict[str, Any]) -> str:
        ways, rows = list(asked["scores"]), asked["rows"][: self.rows]
        head = "<th style='width:34%'>question</th><th style='width:14%'>expected</th>"
        for way in ways:
            head += f"<th>{WAYS[way]}<br><b>{asked['scores'][way]:.0%}</b></th>"
        lines = []
        for row in rows:
            change = row["trained_score"] - row["zero_shot_score"]
            shade = "wb-gained" if change > 0 else "wb-lost" if change < 0 else ""
            cells = f"<td class='wb-question'>{escape(_short(row['question']))}</td><td>{escape(row['expected'])}</td>"
            for way in ways:
                kind, _ = _mark(row[f"{way}_score"])
                cells += f"<td class='{kind}'>{escape(_short(row[way], 120)) or '<i>nothing</i>'}</td>"
            lines.append(f"<tr class='{shade}'>{cells}</tr>")
        score = escape(asked["metric"].replace("_", " "))
        caption = f"{escape(self.title(asked))}; the score is {score}. "
        caption += f"The first {len(rows)} are shown, shaded where training changed the score."
        if asked.get("hand_prompt"):
            caption += f" Hand-written prompt: “{escape(_short(asked['hand_prompt'].strip(), 160)).replace(chr(10), ' ⏎ ')}”"
        return (
            f"<h4>What it learnt</h4><table><caption>{caption}</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>{''.join(lines)}</tbody></table>"
        )


def _mark(score: float) -> tuple[str, str]:
    if score >= 1:
        return "wb-right", "✓"
    return ("wb-part", "~") if score > 0 else ("wb-wrong", "✗")


def _short(text: str, most: int = 240) -> str:
    """The end of a long text: that is where the question stands."""
    return text if len(text) <= most else "… " + text[-most:]

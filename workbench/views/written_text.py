"""Texts as they are written, token by token, with the words at which clauses fell due marked. Reads numbers; runs no model."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from workbench.views.clause_map import SIGNS, as_texts, said
from workbench.views.listing import Listing
from workbench.views.theme import Theme

if TYPE_CHECKING:
    from workbench.analysis.forgetting import Forgetting

STYLE = """
.wb-text .wb-due { font-weight: 600; padding: 0 2px; border-bottom: 2px solid; white-space: nowrap; }
.wb-text .wb-due.wb-met { border-color: var(--wb-good, #489f7d); }
.wb-text .wb-due.wb-missed { border-color: var(--wb-second, #ea6c02); border-bottom-style: double; border-bottom-width: 4px; }
.wb-text .wb-again { color: var(--jp-content-font-color2, #646d78); font-style: italic; }
"""

_COLUMNS = ["text", "step", "token", "written", "probability", "influence", "clause", "met"]


class WrittenText(Listing):
    """What was written behind a prompt, one text a row.

    texts: one, or some by name; set it and call `update()`.
    """

    title = "The text, as it is written"
    nothing = "The text is written here, token by token."

    def __init__(
        self, texts: Forgetting | Mapping[str, Forgetting] | None = None, theme: Theme = "light"
    ) -> None:
        super().__init__(theme)
        self.texts = as_texts(texts)

    def data(self) -> pd.DataFrame:
        """One row a token: text (its name), step, token, written (what it added), probability, influence (nats); clause that fell
        due in it (from 1; missing at most tokens), met."""
        parts = []
        for name, seen in self.texts.items():
            due = seen.due.dropna(subset=["step"]).drop_duplicates("step").set_index("step")
            step = np.arange(1, len(seen.ids) + 1)
            parts.append(
                pd.DataFrame(
                    {
                        "text": name,
                        "step": step,
                        "token": seen.tokens,
                        "written": pieces(seen),
                        "probability": np.exp(seen.values["log_probability"]),
                        "influence": seen.values["influence"],
                        "clause": due["clause"].reindex(step).astype("Int64").to_numpy(),
                        "met": due["met"].reindex(step).astype("boolean").to_numpy(),
                    }
                )
            )
        return pd.concat(parts, ignore_index=True)[_COLUMNS] if parts else pd.DataFrame(columns=_COLUMNS)

    def shown(self) -> pd.DataFrame:
        """The texts with a sign behind each due word."""
        table, rows = self.data(), []
        for name, seen in self.texts.items():
            own = table[table["text"] == name]
            text = "".join(
                row.written + ("" if pd.isna(row.met) else f" [{int(row.clause)} {SIGNS[bool(row.met)]}]")
                for row in own.itertuples()
            )
            rows.append((name, text.strip(), said(seen)))
        return pd.DataFrame(rows, columns=["written by", "text", "clauses"])

    def note(self) -> str:
        """What the marks are, where there are any."""
        if not self.texts:
            return ""
        return (
            f"Marked: the words at which a clause fell due, with its number, {SIGNS[True]} met or {SIGNS[False]} missed. Point "
            "at a token to see how likely it was."
        )

    def table_html(self) -> str:
        """The texts with marks in colour and a sign."""
        plain = super().table_html()
        if not self.texts:
            return plain
        table = self.data()
        body = "".join(
            f"<tr><td>{escape(name)}</td><td>{self._html(table[table['text'] == name], seen)}</td><td>{said(seen)}</td></tr>"
            for name, seen in self.texts.items()
        )
        before, _, rest = plain.partition("<tbody>")
        _, _, after = rest.partition("</tbody>")
        return f"<style>{STYLE}</style><div class='wb-text'>{before}<tbody>{body}</tbody>{after}</div>"

    def _html(self, own: pd.DataFrame, seen: Forgetting) -> str:
        parts = []
        for row in own.itertuples():
            about = f"token {row.step}: probability {row.probability:.2f}, influence {row.influence:.2f} nats"
            if seen.again_at == row.step - 1:
                parts.append(" <span class='wb-again'>[the prompt, read again]</span>")
            if pd.isna(row.clause) or pd.isna(row.met):
                parts.append(f"<span title='{about}'>{escape(row.written)}</span>")
                continue
            number, kind = int(row.clause), "met" if row.met else "missed"
            about = escape(f"{seen.prompt.clauses[number - 1].text} {kind}; {about}")
            sign = f"<sup>{number}{SIGNS[bool(row.met)]}</sup>"
            word = escape(row.written.strip())
            parts.append(f" <span class='wb-due wb-{kind}' title='{about}'>{word}{sign}</span>")
        return "".join(parts).strip()


def pieces(seen: Forgetting) -> list[str]:
    """What each token added to the text, spaces before it included; together they are the text."""
    found, at = [], 0
    for token in seen.tokens:
        word = token.strip()
        start = seen.text.find(word, at) if word else -1
        end = at if start < 0 or seen.text[at:start].strip() else start + len(word)
        found.append(seen.text[at:end])
        at = end
    if found:
        found[-1] += seen.text[at:]
    return found

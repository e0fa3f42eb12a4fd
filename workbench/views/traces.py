"""Traces side by side on one map: which rows are drawn, where, and what a pointer over one of them is told. Draws nothing.

The first trace fits the maps, layer by layer (`analysis/frames.py`); what others saw, with another prompt or of other
texts, is placed in them, so that the ground stands still whatever is put beside it.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from functools import cached_property
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench.analysis.frames import Frames
from workbench.analysis.projection import ProjectionConfig
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.analysis.trace import Trace

#: Rows of a trace that are drawn; of more so many are. UMAP and t-SNE take minutes for that many.
MOST_ROWS = {"pca": 50_000, "umap": 10_000, "tsne": 3_000}

#: Letters that are shown on either side of a marked token.
AROUND = 48

ALONE = "no prompt"


class Places(NamedTuple):
    """Where rows are on the map of one layer."""

    points: NDArray[np.float32]
    """(m, 2)"""
    off: NDArray[np.bool_]
    """(m,) off the map: far from all that it was fitted to."""


class Traces:
    """Traces of the same places of one backbone, by what they are called.

    Args:
        traces: name to trace; the first one fits the maps.
        kind: "pca", "umap" or "tsne".
        cache: a folder that keeps fitted maps.
        most: rows of each trace that are drawn; see `MOST_ROWS`.

    Raises:
        WorkbenchError: no trace, one that holds no rows, or one without the places of the first.
    """

    def __init__(
        self,
        traces: Mapping[str, Trace],
        kind: str = "pca",
        cache: Path | None = None,
        most: int | None = None,
    ) -> None:
        self.traces, self.kind = dict(traces), kind
        if not self.traces:
            raise WorkbenchError("there is no trace to show; give one made by wb.trace")
        self.first = next(iter(self.traces.values()))
        self.places = self.first.places
        for name, one in self.traces.items():
            if not len(one):
                raise WorkbenchError(f"the trace {name!r} holds no rows yet; trace some texts first")
            if missing := set(self.places) - set(one.places):
                raise WorkbenchError(
                    f"the trace {name!r} has no {sorted(missing)[0]}; trace the layers {', '.join(self.places)}"
                )
        self.most = most or MOST_ROWS[kind]
        config = ProjectionConfig(kind, most=self.most)  # type: ignore[arg-type]
        asked = json.dumps(self.first.settings, sort_keys=True).encode()
        key = {"trace": hashlib.sha256(asked).hexdigest()[:16]}
        self.frames = Frames(self.places, lambda place: self.first[place], config, key, cache)
        self._placed: dict[tuple[str, str], Places] = {}
        self._placing = threading.Lock()

    @cached_property
    def kept(self) -> dict[str, NDArray[np.int64]]:
        """Name to the rows that are drawn, rising."""
        found = {}
        for number, (name, one) in enumerate(self.traces.items()):
            if number == 0:
                found[name] = self.frames[self.places[0]].kept
            elif len(one) <= self.most:
                found[name] = np.arange(len(one))
            else:
                found[name] = np.sort(np.random.default_rng(0).choice(len(one), self.most, replace=False))
        return found

    @cached_property
    def rows(self) -> pd.DataFrame:
        """A row for each that is drawn: `run`, `row` in its trace, the columns of `Trace.table`, and `hover`."""
        parts = []
        for name, one in self.traces.items():
            kept = self.kept[name]
            table = one.table
            hover = hovers(one, table, kept)
            parts.append(table.iloc[kept].assign(run=name, row=kept, hover=hover))
        return pd.concat(parts, ignore_index=True)

    def at(self, place: str) -> Places:
        """Where the rows of `rows` are on the map of a place."""
        parts = [self._at(name, place) for name in self.traces]
        return Places(
            np.concatenate([part.points for part in parts]), np.concatenate([part.off for part in parts])
        )

    def _at(self, name: str, place: str) -> Places:
        with self._placing:
            if (name, place) not in self._placed:
                frame = self.frames[place]
                if self.traces[name] is self.first:
                    found = Places(frame.points, np.zeros(len(frame.points), bool))
                else:
                    placed = frame.place(self.traces[name][place][self.kept[name]])
                    found = Places(placed.points, placed.off)
                self._placed[name, place] = found
            return self._placed[name, place]

    @property
    def thinned(self) -> str:
        """What is left out, for a figure; "" where every row is drawn."""
        whole, drawn = sum(map(len, self.traces.values())), sum(map(len, self.kept.values()))
        return f"thinned: {drawn:,} of {whole:,} rows are drawn" if drawn < whole else ""


def hovers(trace: Trace, table: pd.DataFrame, kept: NDArray[np.int64]) -> list[str]:
    """What a pointer over some rows is told, as HTML: where they are from, and the text around with the token marked."""
    marks = spans(trace, table)
    whole = [text["prompt"] + text["answer"] for text in trace.texts]
    number = {text["text"]: at for at, text in enumerate(trace.texts)}
    found = []
    columns = [table[name].to_numpy()[kept] for name in ("text", "task", "position", "token", "step")]
    for row, text, task, position, token, step in zip(kept, *columns, strict=True):
        said = whole[number[text]]
        start, end = map(int, marks[row])
        where = f"written {step}" if step > 0 else f"position {position}" if position >= 0 else "mean"
        head = f"{escape(str(task))} · text {text} · {where}"
        if start < 0:
            named = f"<b>{escape(token)}</b> in: " if token else ""
            found.append(_wrapped(f"{head}<br>{named}{escape(_cut(said))}"))
            continue
        before, after = said[max(0, start - AROUND) : start], said[end : end + AROUND]
        marked = f"{escape(before)}<b>[{escape(said[start:end])}]</b>{escape(after)}"
        found.append(
            _wrapped(f"{head}<br>{'…' * (start > AROUND)}{marked}{'…' * (end + AROUND < len(said))}")
        )
    return found


def spans(trace: Trace, table: pd.DataFrame) -> NDArray[np.int64]:
    """(n, 2) where each row's token stands in its text, question and answer as one; -1 where that is not certain.

    Of tokens that follow one another from the text's first, or from its answer's, or of its last: a token alone, of one
    kind with others of its text, could be any of them.
    """
    asked = trace.settings["positions"]
    found = np.full((len(table), 2), -1)
    if asked not in ("all", "answer", "last"):
        return found
    texts = {text["text"]: text for text in trace.texts}
    tokens = [str(token).strip() for token in table["token"]]
    numbers = table["text"].to_numpy()
    ends = [*np.flatnonzero(numbers[1:] != numbers[:-1]) + 1, len(numbers)]
    for start, end in pairwise([0, *ends] if len(numbers) else []):
        text = texts[numbers[start]]
        whole = text["prompt"] + text["answer"]
        if asked == "last":
            at = whole.rstrip().rfind(tokens[start])
            if tokens[start] and at + len(tokens[start]) == len(whole.rstrip()):
                found[start] = at, at + len(tokens[start])
            continue
        here = len(text["prompt"]) if asked == "answer" else 0
        for row in range(start, end):
            at = whole.find(tokens[row], here) if tokens[row] else -1
            if at >= 0 and not whole[here:at].strip():  # the very next letters
                here = at + len(tokens[row])
                found[row] = at, here
    return found


def _cut(text: str) -> str:
    most = 2 * AROUND
    return text if len(text) <= most else f"…{text[-most:]}"


def _wrapped(text: str, width: int = 64) -> str:
    """Lines of some width, as a browser does not break what it shows beside a pointer."""
    lines: list[str] = []
    for part in text.split("<br>"):
        line = ""
        for word in part.split(" "):
            if line and len(line) + len(word) >= width:
                lines.append(line)
                line = word
            else:
                line = f"{line} {word}" if line else word
        lines.append(line)
    return "<br>".join(lines)


def as_traces(given: Trace | Mapping[str, Trace] | None) -> dict[str, Any]:
    """Traces by name, of whatever a view is given."""
    if given is None:
        return {}
    return dict(given) if isinstance(given, Mapping) else {ALONE: given}

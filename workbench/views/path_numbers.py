"""How local the paths of answers are in each layer: less wide, or of shorter steps, than paths that are known to go anywhere.

    PathNumbers(seen, random_walks(backbone, seen))

The three references are those of `analysis/trajectories.py`. Reads traces; runs no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from workbench.analysis.trace_points import points_of
from workbench.analysis.trajectories import measure_paths
from workbench.analysis.walks import paths
from workbench.errors import WorkbenchError
from workbench.views.listing import Listing
from workbench.views.theme import Theme
from workbench.views.traces import as_traces

if TYPE_CHECKING:
    from workbench.analysis.trace import Trace

COLUMNS = ["layer", "reference", "measure", "value", "low", "high", "texts"]

#: What is read of the table: reference, measure, and the heading of its column.
READ = (
    ("vocabulary", "spread localisation", "spread, random walks"),
    ("vocabulary", "step localisation", "step, random walks"),
    ("others", "spread localisation", "spread, other texts"),
    ("others", "step localisation", "step, other texts"),
    ("shuffled", "step localisation", "step, shuffled"),
)


class PathNumbers(Listing):
    """Localisation of the paths of a trace's answers, layer by layer, against each reference that there is.

    Args:
        trace: with all tokens of its texts, or of their answers; of several the first.
        walks: of `analysis.walks.random_walks`, on the same backbone; None leaves that reference out.
    """

    title = "How local the paths of answers are"
    nothing = "Trace answers of two tokens or more, and see here how far their paths go."

    def __init__(
        self,
        trace: Trace | Mapping[str, Trace] | None = None,
        walks: Trace | None = None,
        theme: Theme = "light",
    ) -> None:
        super().__init__(theme)
        self.trace: Trace | None = next(iter(as_traces(trace).values()), None)
        self.walks = walks

    @cached_property
    def _measured(self) -> tuple[pd.DataFrame, str]:
        """The table, and of which answers it is, or why it is empty."""
        nothing = pd.DataFrame(columns=COLUMNS)
        if self.trace is None:
            return nothing, ""
        if (positions := self.trace.settings["positions"]) not in ("all", "answer"):
            return nothing, (
                f"This trace is at positions {positions!r}, which leave out tokens of the answers: trace all tokens, or "
                "those of answers."
            )
        try:
            seen = points_of(self.trace, "answer")
        except WorkbenchError:  # no text has an answer
            return nothing, _short_answers(0)
        number = seen.rows["text"].to_numpy()
        first = np.flatnonzero(np.diff(number, prepend=-1))
        lengths = np.diff([*first, len(number)])
        if not (lengths > 1).any():
            return nothing, _short_answers(len(lengths))
        tasks = seen.rows["task"].take(first).to_pylist()
        walked = None if self.walks is None else paths(self.walks)
        did = "read" if self.trace.settings["generate"] is None else "wrote"
        which = f"Paths of {(lengths > 1).sum():,} of {len(lengths):,} answers that the model {did}, those of two tokens or more."
        return measure_paths(paths(seen), walked, tasks), which

    def update(self) -> None:
        """As of any view, and what was worked out is worked out anew."""
        self.__dict__.pop("_measured", None)
        super().update()

    def data(self) -> pd.DataFrame:
        """One row a layer, reference and measure: see `trajectories.measure_paths`."""
        return self._measured[0]

    def shown(self) -> pd.DataFrame:
        """Layer; the localisation of spread and step against each reference, with its interval."""
        table = self.data()
        there = [one for one in READ if one[0] in set(table["reference"])]
        known = {row[:3]: _sure(*row[3:6]) for row in table[COLUMNS].itertuples(index=False, name=None)}
        rows = [
            (layer, *(known.get((layer, reference, measure), "—") for reference, measure, _ in there))
            for layer in dict.fromkeys(table["layer"])
        ]
        return pd.DataFrame(rows, columns=["layer", *(head for *_, head in there)], dtype=object)

    def note(self) -> str:
        """Of how many paths, and what 0 and 1 mean; or why there are none."""
        table, said = self._measured
        if not len(table) or self.trace is None:
            return said
        walks = ""
        if self.walks is not None:
            walks = "Random walks are of any tokens, behind the same questions; other texts are of the same task. "
        elif self.trace.settings["generate"] is not None:
            walks = "For random walks over the vocabulary give walks=random_walks(backbone, trace). "
        sure = (
            "Intervals [95%] are over texts."
            if table["low"].notna().any()
            else "There are no intervals where a task has fewer than four paths."
        )
        return (
            f"{said} Localisation is 1 where a path stays at one point, 0 where it spreads or steps as far as the reference, "
            f"and below 0 where it goes farther. {walks}{sure}"
        )


def _short_answers(answers: int) -> str:
    have = (
        "None of the answers of this trace has two tokens"
        if answers
        else "No text of this trace has an answer"
    )
    return (
        f"{have}, so there is no path: trace with “Answers: written”, which is generate=… of wb.trace, or give texts "
        "whose answers are longer."
    )


def _sure(value: float, low: float, high: float) -> str:
    """A value with its interval, where it has one."""
    if np.isnan(value):
        return "—"
    return _short(value) + ("" if np.isnan(low) else f" [{_short(low)}, {_short(high)}]")


def _short(value: float) -> str:
    """Two digits behind the point."""
    return f"{value:.2f}".replace("-", "−")

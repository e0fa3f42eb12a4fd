"""The texts whose points were drawn round on a map of activations, as rows. Reads an `ActivationMap`."""

from __future__ import annotations

import pandas as pd

from workbench.views.activation_map import ActivationMap
from workbench.views.listing import Listing
from workbench.views.theme import Theme

#: Rows that a page shows; the table itself has all.
MOST_ROWS = 25

#: Letters of a text, from its end, and tokens of it that a page shows.
LETTERS, TOKENS = 150, 6


class SelectedTexts(Listing):
    """A row for each text with a point in `view.brushed`, those with most such points first."""

    title = "The texts that were drawn round"
    nothing = "Draw around some points on the map to see their texts here; around none lets them go."

    def __init__(self, view: ActivationMap | None = None, theme: Theme = "light") -> None:
        super().__init__(theme)
        self.view = ActivationMap() if view is None else view

    def data(self) -> pd.DataFrame:
        """run; task; text (its number in the run's trace); points (of it that were drawn round); tokens (of those, in
        order, "" for a mean); prompt; answer (given or written)."""
        columns = ["run", "task", "text", "points", "tokens", "prompt", "answer"]
        traces = self.view.traces
        if traces is None or not len(self.view.brushed):
            return pd.DataFrame(columns=columns)
        chosen = traces.rows.iloc[self.view.brushed]
        said = {name: {text["text"]: text for text in one.texts} for name, one in traces.traces.items()}
        rows = []
        for (run, text), part in chosen.groupby(["run", "text"], sort=False):
            one = said[str(run)][text]
            rows.append(
                (run, one["task"], text, len(part), list(part["token"]), one["prompt"], one["answer"])
            )
        table = pd.DataFrame(rows, columns=columns)
        return table.sort_values("points", ascending=False, kind="stable", ignore_index=True)

    def shown(self) -> pd.DataFrame:
        """The first rows, as text."""
        traces, table = self.view.traces, self.data().head(MOST_ROWS)
        several = traces is not None and len(traces.traces) > 1
        rows = []
        for row in table.itertuples():
            tokens = [str(token).strip() for token in row.tokens if str(token).strip()]
            more = f" … {len(tokens) - TOKENS} more" if len(tokens) > TOKENS else ""
            whole = f"{row.prompt}{row.answer}"
            cut = whole if len(whole) <= LETTERS else f"…{whole[-LETTERS:]}"
            name = f"{row.task} {row.text}" + (f" · {row.run}" if several else "")
            rows.append((name, cut, " ".join(tokens[:TOKENS]) + more or "its mean"))
        return pd.DataFrame(rows, columns=["text", "its end, with the answer", "points"], dtype=object)

    def note(self) -> str:
        """How many there are, and of which tasks."""
        table = self.data()
        if not len(table):
            return ""
        tasks = ", ".join(f"{count} {task}" for task, count in table["task"].value_counts().items())
        listed = f"; {MOST_ROWS} are listed" if len(table) > MOST_ROWS else ""
        return f"{len(table)} texts with {int(table['points'].sum()):,} points ({tasks}){listed}."

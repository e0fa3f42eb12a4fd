"""The numbers behind a map of activations: whether tasks lie apart in a layer, with intervals and shuffled tasks beside.

What a map of two directions shows is no measure; these look at all directions. Reads traces; runs no model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from workbench.analysis.clusters import MEASURES
from workbench.analysis.clusters_kept import measure_layer
from workbench.errors import WorkbenchError
from workbench.views.listing import Listing
from workbench.views.theme import Theme
from workbench.views.traces import as_traces

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.analysis.trace import Trace

COLUMNS = ["layer", "measure", "value", "low", "high", "chance", "chance_low", "chance_high", "texts", "rows"]

#: Measures as a narrow table names them.
SHORT = {
    "silhouette": "silhouette",
    "purity": "neighbour purity",
    "probe": "linear probe",
    "hdbscan": "HDBSCAN",
    "separation": "between / within",
    "dimension": "dimension",
}


class ClusterNumbers(Listing):
    """Measures of `analysis/clusters.py` for one layer of a trace, or for all of them.

    Args:
        trace: what is measured; of several the first, which fits the map.
        place: the layer; None for all.
        cache: a folder that keeps what was measured.

    Attributes:
        pending: what `shown` lists nothing of, because it is still being measured; set by whoever measures.
    """

    title = "How far apart tasks lie"
    nothing = "Trace two tasks or more, and see here how far apart they lie."

    def __init__(
        self,
        trace: Trace | Mapping[str, Trace] | None = None,
        place: str | None = None,
        cache: Path | None = None,
        theme: Theme = "light",
    ) -> None:
        super().__init__(theme)
        self.trace: Trace | None = next(iter(as_traces(trace).values()), None)
        self.place, self.cache = place, cache
        self.pending = False
        self._measured: dict[tuple[int, str], pd.DataFrame] = {}
        self._refused: dict[tuple[int, str], str] = {}

    def measure(self, place: str) -> None:
        """Measures a layer, which takes a second or two, so that `data` and `shown` find it."""
        trace = self.trace
        if trace is None or (id(trace), place) in self._measured:
            return
        table = trace.table
        try:
            found = measure_layer(place, trace[place], list(table["task"]), list(table["text"]), self.cache)
            self._measured[id(trace), place] = found
        except WorkbenchError as error:  # one task, or too few texts: not an error of the trace
            self._measured[id(trace), place] = pd.DataFrame(columns=COLUMNS)
            self._refused[id(trace), place] = str(error)

    def known(self, place: str) -> bool:
        """Whether a layer has been measured."""
        return self.trace is not None and (id(self.trace), place) in self._measured

    def data(self) -> pd.DataFrame:
        """One row a layer and measure, measured now where it was not: see `clusters.measure_layers`."""
        if self.trace is None:
            return pd.DataFrame(columns=COLUMNS)
        places = [self.place] if self.place is not None else list(self.trace.places)
        for place in places:
            self.measure(place)
        parts = [self._measured[id(self.trace), place] for place in places]
        full = [part for part in parts if len(part)]
        return pd.concat(full, ignore_index=True) if full else pd.DataFrame(columns=COLUMNS)

    def shown(self) -> pd.DataFrame:
        """Measure; value with its interval; what shuffled tasks give. Empty while it is pending."""
        columns = ["measure", "value [95%]", "shuffled"]
        if self.pending:
            return pd.DataFrame(columns=columns)
        rows = []
        table = self.data()
        for row in table.itertuples():
            layer = "" if self.place is not None else f"{row.layer}: "
            inside = "" if pd.isna(row.low) else f" [{_short(row.low)}, {_short(row.high)}]"
            chance = "—" if pd.isna(row.chance) else f"{_short(row.chance_low)} to {_short(row.chance_high)}"
            rows.append(
                (layer + SHORT.get(str(row.measure), str(row.measure)), _short(row.value) + inside, chance)
            )
        return pd.DataFrame(rows, columns=columns, dtype=object)

    def note(self) -> str:
        """Of how many rows, and what the numbers are; or why there are none."""
        if self.trace is None:
            return ""
        if self.pending:
            return "The numbers of this layer are being measured …"
        table = self.data()
        if not len(table):
            places = [self.place] if self.place is not None else list(self.trace.places)
            return next((why for p in places if (why := self._refused.get((id(self.trace), p)))), "")
        first = table.iloc[0]
        return (
            f"In all directions of the layer, not on the map; {first['rows']:,} rows of {first['texts']:,} texts. "
            "Intervals are over texts. Tasks lie apart where a value is outside of what shuffled tasks give."
        )

    def explained(self) -> pd.DataFrame:
        """What each measure is: measure, explain."""
        return pd.DataFrame([(n, m.explain) for n, m in MEASURES.items()], columns=["measure", "explain"])


def _short(value: float) -> str:
    """Two digits behind the point, or the whole number of what is large."""
    return f"{value:.2f}".replace("-", "−") if abs(value) < 100 else f"{value:,.0f}"

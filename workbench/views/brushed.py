"""The vectors that were brushed on a map, as rows: where each started, where it is now, and how far it went. Reads a `Landscape`."""

from __future__ import annotations

from typing import Any

import pandas as pd

from workbench.analysis.drift import nearest_tokens
from workbench.views.landscape import Landscape
from workbench.views.listing import Listing
from workbench.views.theme import Theme

#: Rows that a page shows; the table itself has all.
MOST_ROWS = 40


class Brushed(Listing):
    """A row for each vector in `landscape.brushed`, at the step that the landscape shows."""

    title = "The vectors that were brushed"
    nothing = "Draw around some circles on the map to see them here; around none lets them go."

    def __init__(self, landscape: Landscape | None = None, theme: Theme = "light") -> None:
        super().__init__(theme)
        self.landscape = Landscape() if landscape is None else landscape

    def data(self) -> pd.DataFrame:
        """group; run; vector (from 1); start (the nearest token then); nearest (the three nearest now); distance (to the
        first of these); cosine (to the start); moved; off (the map)."""
        columns = ["group", "run", "vector", "start", "nearest", "distance", "cosine", "moved", "off"]
        around, rows = self.landscape.around, list[dict[str, Any]]()
        starts = self.landscape.shown(0) if around else {}
        for name, now in (self.landscape.shown() if around else {}).items():
            chosen = [i for i, key in enumerate(now.keys) if key in self.landscape.brushed]
            if not chosen or around is None:
                continue
            first = starts[name]
            near = nearest_tokens(now.vectors[chosen], self.landscape.reference, around.words, k=3)
            for row, i in enumerate(chosen):
                words = near[near["vector"] == row + 1]
                start, vector = first.vectors[i].astype(float), now.vectors[i].astype(float)
                lengths = float((start @ start) ** 0.5 * (vector @ vector) ** 0.5)
                path, number = now.keys[i]
                rows.append(
                    {
                        "group": name,
                        "run": path.name,
                        "vector": number,
                        "start": first.words[i],
                        "nearest": " ".join(words["word"]),
                        "distance": float(words["distance"].iloc[0]),
                        "cosine": float(start @ vector) / lengths if lengths else float("nan"),
                        "moved": float(((vector - start) @ (vector - start)) ** 0.5),
                        "off": bool(now.off[i]),
                    }
                )
        return pd.DataFrame(rows, columns=columns)

    def shown(self) -> pd.DataFrame:
        """The first rows, as text."""
        table = self.data().head(MOST_ROWS)
        return pd.DataFrame(
            {
                "prompt": [
                    f"{group} · {run}" for group, run in zip(table["group"], table["run"], strict=True)
                ],
                "vector": [str(number) for number in table["vector"]],
                "started near": [str(word) for word in table["start"]],
                "now near": [str(words) for words in table["nearest"]],
                "at": [
                    f"{far:.3g}" + (", off the map" if off else "")
                    for far, off in zip(table["distance"], table["off"], strict=True)
                ],
                "moved": [f"{moved:.3g}" for moved in table["moved"]],
                "cosine to the start": [f"{cosine:.2f}" for cosine in table["cosine"]],
            },
            dtype=object,
        )

    def note(self) -> str:
        """How many are not shown."""
        count = len(self.data())
        return f"{MOST_ROWS} of {count} brushed vectors are listed." if count > MOST_ROWS else ""

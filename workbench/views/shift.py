"""How far posteriors lie from their priors, as two samples of prompts: a row a group. Reads runs, and draws nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from workbench.analysis.drift import COMPARISONS
from workbench.analysis.run_drift import RunDrifts, Travelled
from workbench.analysis.surroundings import EMBEDDINGS
from workbench.errors import WorkbenchError
from workbench.views.curves import listed
from workbench.views.groups import group_runs
from workbench.views.listing import Listing
from workbench.views.theme import Theme


class Shift(Listing):
    """Where the prompts of each group of `runs` started against where they are: distances, and whether they can be told apart.

    runs: set it and call `update()` to compare others. place: the space, "embeddings" or "layer 3".
    """

    title = "From prior to posterior, as two samples"
    nothing = "Train prompts, and see here how far each prior's posteriors lie from it."

    def __init__(
        self,
        runs: Travelled | Iterable[Travelled] | None = None,
        place: str = EMBEDDINGS,
        theme: Theme = "light",
    ) -> None:
        super().__init__(theme)
        self.runs, self.place, self.drifts = listed(runs), place, RunDrifts()

    def data(self) -> pd.DataFrame:
        """group, runs, and the numbers of `COMPARISONS`; groups without a second snapshot, or without vectors here, are left out."""
        rows: list[dict[str, Any]] = []
        for group in group_runs(self.runs):
            moved = [run for run in group.runs if len(run.snapshots()) > 1]
            try:
                found = self.drifts.compare(moved, self.place)
            except WorkbenchError:  # vectors that are not finite
                continue
            if found:
                rows.append({"group": group.name, "runs": len(moved), **found})
        return pd.DataFrame(rows, columns=["group", "runs", *COMPARISONS])

    def shown(self) -> pd.DataFrame:
        """The numbers that one asks for first, as text."""
        table = self.data()

        def text(value: float, form: str) -> str:
            return "—" if pd.isna(value) else f"{value:{form}}"

        return pd.DataFrame(
            {
                "prior": table["group"].astype(str),
                "prompts": [str(count) for count in table["runs"]],
                "energy coefficient": [text(v, ".2f") for v in table["energy_coefficient"]],
                "sliced Wasserstein": [text(v, ".3g") for v in table["sliced_wasserstein"]],
                "told apart": [text(v, ".0%") for v in table["told_apart"]],
                "labels shuffled": [text(v, ".0%") for v in table["told_apart_control"]],
                "p": [text(v, ".2g") for v in table["told_apart_p"]],
            },
            dtype=object,
        )

    def note(self) -> str:
        """What the numbers are."""
        return (
            "Energy coefficient: 0 for equal samples, 1 for two different points. Sliced Wasserstein: in the vectors' own "
            "unit. Told apart: vectors that a classifier trained on the other prompts gives to the right side; chance is "
            "a half. Six seeds or more are needed for p below 0.05."
        )

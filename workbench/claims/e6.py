"""E6: distant tasks have separate activation clusters at all layers, close ones share one (arXiv 2412.18582).

Measures; the rule judges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from workbench.claims.claim import Claim, Measured
from workbench.claims.statistics import Estimate, lower_bound, mean, shifted, weakest
from workbench.claims.study import Progress
from workbench.claims.task_clusters import (
    MEASURES,
    RANDOM,
    READINGS,
    SHUFFLED,
    TRAINED,
    ClustersCell,
    ClustersConfig,
    Pair,
    run_clusters,
)

HUMPS = 2.0
"""Standard deviations between two equal normal clusters from which on their mixture has two humps."""


class DistantApartCloseTogether(Claim):
    """Do tokens of language and of arithmetic make two humps in every layer, and those of language tasks one (ours)?

    The measure is D (`Segment.deviations`), along the line of two tasks' means. A cell is a place behind the first
    layer; its effect is the weakest (`statistics.weakest`) of D − 2 of each language task with each arithmetic task, and
    2 − D of each two language tasks.

    Distinct words alone make distinct clusters, so D of language and arithmetic has to be larger than where nothing was
    learnt (random weights) and where only the bag of words is left (the same texts, their words shuffled).
    """

    name = "E6"

    @classmethod
    def settings(cls) -> ClustersConfig:
        return ClustersConfig()

    def cells(
        self, config: ClustersConfig, runs: Path, device: str, report: Callable[[Progress], None]
    ) -> Iterable[ClustersCell]:
        return run_clusters(config, runs, device, report)

    def measure(self, cell: ClustersCell, config: ClustersConfig) -> Measured:
        d = {
            (reading, pair): cell.values(reading, "pairs", "/".join(pair), "d")
            for reading in READINGS
            for pair in (*config.distant, *config.close)
        }
        halves = {pair: shifted(mean(d[TRAINED, pair]), -HUMPS) for pair in config.distant}
        halves |= {pair: shifted(mean(-d[TRAINED, pair]), HUMPS) for pair in config.close}
        control = {task: mean(cell.values(TRAINED, "control", task)) for task in config.tasks}
        more = {
            reading: min(lower_bound(d[TRAINED, pair] - d[reading, pair]) for pair in config.distant)
            for reading in (RANDOM, SHUFFLED)
        }
        numbers = {
            "control_high": max(estimate.at(0.9)[1] for estimate in control.values()),
            "random_low": more[RANDOM],
            "shuffled_low": more[SHUFFLED],
            "apart": {"/".join(pair): self._of_pair(cell, pair, halves[pair]) for pair in config.distant},
            "one": {"/".join(pair): self._of_pair(cell, pair, halves[pair]) for pair in config.close},
            "measures": {
                group: {
                    name: {
                        **{
                            reading: _mean(cell, reading, "measures", group, name, "value")
                            for reading in READINGS
                        },
                        "interval": mean(cell.values(TRAINED, "measures", group, name, "value")).interval,
                        "chance": _mean(cell, TRAINED, "measures", group, name, "chance"),
                    }
                    for name in MEASURES
                }
                for group in ("distant", "close")
            },
        }
        return Measured(weakest(list(halves.values()), "above"), numbers)

    @staticmethod
    def _of_pair(cell: ClustersCell, pair: Pair, half: Estimate) -> dict[str, Any]:
        """The pair's part in the effect, and what is beside it; means over seeds."""
        path = ("pairs", "/".join(pair))
        return {
            "effect": half.effect,
            "interval": half.interval,
            "d": {reading: _mean(cell, reading, *path, "d") for reading in READINGS},
            "words_alone": float(cell.values(TRAINED, *path, "d", words=True).mean()),
            **{name: _mean(cell, TRAINED, *path, name) for name in ("fisher", "told_apart")},
            "same_words": {reading: _mean(cell, reading, *path, "same_words") for reading in READINGS},
        }


def _mean(cell: ClustersCell, reading: str, *path: str) -> float:
    return float(cell.values(reading, *path).mean())

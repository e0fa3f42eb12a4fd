"""E5: the path of a generated answer is not local (arXiv 2412.18582). Measures; the rule judges."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from workbench.claims.answer_paths import PathsCell, PathsConfig, run_paths
from workbench.claims.claim import Claim, Measured
from workbench.claims.statistics import lower_bound, mean
from workbench.claims.study import Progress

_BESIDE = ("others", "shuffled_steps", "greedy", "shuffled", "random")


class PathsAreNotLocal(Claim):
    """Does an answer spread as a random walk over the vocabulary does, behind the same question (ours)?

    The effect in a cell (backbone, task, place) is the localisation of the answers' paths against those walks
    (`trajectories.localisation`): 1 − mean squared spread of the answers / that of the walks; mean over seeds with its t
    interval. Two things could make the measure speak for itself, and keep a cell from being counted: walks that differ
    from other walks, and a path among few near tokens that does not look local.
    """

    name = "E5"

    @classmethod
    def settings(cls) -> PathsConfig:
        return PathsConfig()

    def cells(
        self, config: PathsConfig, runs: Path, device: str, report: Callable[[Progress], None]
    ) -> Iterable[PathsCell]:
        return run_paths(config, runs, device, report)

    def measure(self, cell: PathsCell, config: PathsConfig) -> Measured:
        spread, step = cell.values("spread", "value"), cell.values("step", "value")
        numbers: dict[str, Any] = {
            "walks_differ": max(abs(end) for end in mean(cell.values("walks")).at(0.9)),
            "local_low": lower_bound(cell.values("local")),
            "step_high": -lower_bound(-step),
            "step": {"effect": float(step.mean()), "interval": mean(step).interval},
            "beside": {
                name: {
                    "effect": float((values := cell.values(name)).mean()),
                    "interval": mean(values).interval,
                }
                for name in _BESIDE
            },
            "size": {name: float(cell.values("size", name).mean()) for name in cell.trials[0].facts["size"]},
        }
        return Measured(mean(spread) if np.isfinite(spread).all() else None, numbers)

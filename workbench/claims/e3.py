"""E3: prompts in regions that data never visits work as well (arXiv 2412.18582). Measures; the rule judges."""

from __future__ import annotations

from typing import Any

import numpy as np

from workbench.claims.claim import Claim, Measured
from workbench.claims.statistics import Estimate, lower_bound, ratio, shifted, weakest
from workbench.claims.study import Cell, StudyConfig
from workbench.errors import WorkbenchError

NEAR = "shell-1"
"""Where the vocabulary is: the radius that the others are compared with."""


class FarRegionsWork(Claim):
    """What a prompt far from all tokens gains, beside one that starts among them; both from shells (ours).

    A shell's vectors point where the vocabulary's Gaussian does, at one Mahalanobis distance, in units of √width. With
    one seed all radii have the same directions and the same data. A far radius counts as never visited only if every
    vector of every posterior still lies beyond the outermost token. The effect at such a radius is mean gain / mean gain
    at radius 1 − 1, with Fieller's interval of a ratio of pairs; the cell's is the weakest of them (`statistics.weakest`).
    """

    name = "E3"

    @classmethod
    def settings(cls) -> StudyConfig:
        return StudyConfig(priors=("shell-0.5", NEAR, "shell-2", "shell-4", "shell-8"))

    def check(self, config: StudyConfig) -> None:
        if NEAR not in config.priors or not all(prior.startswith("shell-") for prior in config.priors):
            raise WorkbenchError(
                f"E3 compares shells with {NEAR}, not {' '.join(config.priors)}; name {NEAR} and other shells"
            )

    def measure(self, cell: Cell, config: StudyConfig) -> Measured:
        trials = {
            (t.prior, t.seed): {
                "radius": float((radius := cell.space.radius(t.trained)).mean()),
                "radius_drawn": float(cell.space.radius(t.drawn).mean()),
                "beyond": float((radius > cell.space.edge).mean()),
                "distance": float(cell.space.distance(t.trained).mean()),
            }
            for t in cell.trials
        }
        near = np.array([cell.gain(t) for t in cell.of(NEAR)])
        radii: dict[str, dict[str, Any]] = {}
        never_visited: list[Estimate] = []
        for prior in config.priors:
            gains = np.array([cell.gain(t) for t in cell.of(prior)])
            beyond = min(trials[prior, t.seed]["beyond"] for t in cell.of(prior))
            far = float(prior.removeprefix("shell-")) > 1
            estimate = shifted(ratio(gains, near), -1.0) if near.mean() > 0 else None
            radii[prior] = {
                "gain": float(gains.mean()),
                "effect": estimate.effect if estimate else None,
                "interval": estimate.interval if estimate else None,
                "never_visited": far and beyond == 1,
                **{
                    key: float(np.mean([trials[prior, t.seed][key] for t in cell.of(prior)]))
                    for key in ("radius", "beyond", "distance")
                },
            }
            if radii[prior]["never_visited"] and estimate:
                never_visited.append(estimate)
        numbers = {
            "learnt_low": lower_bound(near),
            "outermost_token": cell.space.edge,
            "near_beyond": radii[NEAR]["beyond"],
            "radii_never_visited": len(never_visited),
            "radii": radii,
        }
        return Measured(weakest(never_visited, "above") if never_visited else None, numbers, trials)

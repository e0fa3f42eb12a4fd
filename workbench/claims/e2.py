"""E2: final quality does not depend on the prior (arXiv 2412.18582). Measures; the rule judges."""

from __future__ import annotations

import numpy as np

from workbench.claims.claim import Claim, Measured
from workbench.claims.statistics import spread_ratio, spreads
from workbench.claims.study import Cell, StudyConfig


class QualityIsTheSame(Claim):
    """The spread of the final test loss between priors, over its spread between seeds of one prior (ours).

    See `statistics.spreads`: 0 is no difference between priors, 1 as much as between two seeds. `range_share` puts the
    difference between the best prior and the worst beside what training gains at all.
    """

    name = "E2"

    def measure(self, cell: Cell, config: StudyConfig) -> Measured:
        losses = cell.table(config.priors, lambda trial: trial.loss)
        between, seeds = spreads(losses)
        gain = float(cell.zero_shot["loss"] - losses.mean())
        numbers = {
            "spread_priors": between,
            "spread_seeds": seeds,
            "range": float(np.ptp(losses.mean(1))),
            "range_share": float(np.ptp(losses.mean(1))) / gain if gain > 0 else None,
        }
        return Measured(spread_ratio(losses), numbers)

"""E4: distant priors take longer (arXiv 2412.18582). Measures; the rule judges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from workbench.claims.claim import Claim, Measured
from workbench.claims.statistics import Estimate, Interval, mean, rank_correlation
from workbench.claims.study import Cell, StudyConfig, Trial
from workbench.errors import WorkbenchError

SHARE = 0.8
"""Of the median gain: the part that is to be reached."""


class DistantTakesLonger(Claim):
    """Do prompts that start farther from the tokens need more steps to one fixed validation loss (ours)?

    The loss to reach is the zero-shot loss less 80% of the median gain of all prompts of the cell, so that no prior is
    the yardstick of the others. Steps are those of the first look at or below it; a prompt that never gets there comes
    last, with one step more than there are. A prior's distance is the mean distance of its drawn vectors to the nearest
    token. The effect is Spearman's rank correlation of the two over the priors, within a seed (one order of the data),
    then the mean over seeds with its t interval: a bootstrap of eight seeds would be too narrow.
    """

    name = "E4"

    @classmethod
    def settings(cls) -> StudyConfig:
        shells = tuple(f"shell-{radius}" for radius in (0.5, 1, 2, 4, 8))
        config = StudyConfig(priors=("vocabulary", "fitted-gaussian", "xavier", "isotropic", *shells))
        return replace(config, fit=replace(config.fit, steps=100, evaluate_every=5, validation_examples=32))

    def check(self, config: StudyConfig) -> None:
        if not config.fit.evaluate_every:
            raise WorkbenchError("E4 counts steps to a validation loss; set evaluate_every above 0")

    def measure(self, cell: Cell, config: StudyConfig) -> Measured:
        last = np.array([t.looks[-1][1] for t in cell.trials])
        gain = float(np.median(cell.zero_shot_validation - last))
        target = cell.zero_shot_validation - SHARE * gain
        never = config.fit.steps + 1

        def steps(trial: Trial) -> int:
            return next((step for step, loss in trial.looks if loss <= target), never)

        def distance(trial: Trial) -> float:
            return float(cell.space.distance(trial.drawn).mean())

        needed, far = cell.table(config.priors, steps), cell.table(config.priors, distance)
        by_seed = [rank_correlation(x, y) for x, y in zip(far.T, needed.T, strict=True)]
        numbers = {
            "gain_validation": gain,
            "target": target,
            "reached": float((needed < never).mean()),
            "by_prior": {
                prior: {"distance": x.mean(), "steps": y.mean(), "never_reached": int((y == never).sum())}
                for prior, x, y in zip(config.priors, far, needed, strict=True)
            },
            "over_all_runs": rank_correlation(far.ravel(), needed.ravel()),
        }
        trials = {
            (t.prior, t.seed): {"distance": distance(t), "steps": steps(t), "reached": steps(t) < never}
            for t in cell.trials
        }
        return Measured(_correlation(by_seed), numbers, trials)


def _correlation(by_seed: list[float]) -> Estimate:
    """The mean correlation, with its t interval cut to where correlations can lie."""
    plain = mean(by_seed)

    def at(confidence: float) -> Interval:
        low, high = plain.at(confidence)
        return max(low, -1.0), min(high, 1.0)

    return Estimate(plain.effect, at)

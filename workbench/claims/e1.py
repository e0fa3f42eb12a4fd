"""E1: the prior decides where the posterior lies (arXiv 2412.18582). Measures; the rule judges."""

from __future__ import annotations

import numpy as np
import torch

from workbench.claims.claim import Claim, Measured
from workbench.claims.statistics import (
    Estimate,
    Ints,
    binomial,
    nearest_in_other_seeds,
    permutation_p,
    ratio,
    scaled,
    shifted,
    widest,
)
from workbench.claims.study import Cell, StudyConfig


class PriorDecides(Claim):
    """Can the prior's name be told from the trained prompt alone, as well as from the untrained one (ours)?

    A run is named after the run of another seed that lies most like it (`Space.features`), before training and after:
    accuracies a_draw and a_posterior. The effect is the share of what the draw tells that the posterior still tells,
    (a_posterior − chance) / (a_draw − chance), chance being one over the number of priors. Two priors that hardly differ
    are not told apart in the draw either, and so do not count against the claim.

    Its interval is Fieller's for a ratio, with one pair of accuracies a seed, and never narrower than the exact
    binomial one of a_posterior: eight seeds without a mistake are no certainty.
    """

    name = "E1"

    def measure(self, cell: Cell, config: StudyConfig) -> Measured:
        labels = np.array([config.priors.index(t.prior) for t in cell.trials])
        seeds = np.array([t.seed for t in cell.trials])
        posterior = self._nearest(cell, [t.trained for t in cell.trials], seeds)
        draw = self._nearest(cell, [t.drawn for t in cell.trials], seeds)
        chance = 1 / len(config.priors)
        told, told_draw = labels == labels[posterior], labels == labels[draw]
        numbers = {
            "accuracy_posterior": told.mean(),
            "accuracy_draw": told_draw.mean(),
            "chance": chance,
            "p_posterior": permutation_p(labels, posterior, seeds),
            "p_draw": permutation_p(labels, draw, seeds),
            "confusion": {
                "priors": config.priors,
                "posterior": _confusion(labels, posterior),
                "draw": _confusion(labels, draw),
            },
        }
        trials = {
            (t.prior, t.seed): {"named": config.priors[labels[p]], "named_draw": config.priors[labels[d]]}
            for t, p, d in zip(cell.trials, posterior, draw, strict=True)
        }
        return Measured(self._effect(told, told_draw, seeds, chance), numbers, trials)

    @staticmethod
    def _nearest(cell: Cell, prompts: list[torch.Tensor], seeds: Ints) -> Ints:
        return nearest_in_other_seeds(cell.space.features(torch.stack(prompts)), seeds)

    @staticmethod
    def _effect(told: np.ndarray, told_draw: np.ndarray, seeds: Ints, chance: float) -> Estimate | None:
        best = float(told_draw.mean()) - chance
        if best <= 0:
            return None
        by_seed = [
            (told[seeds == s].mean() - chance, told_draw[seeds == s].mean() - chance)
            for s in np.unique(seeds)
        ]
        exact = scaled(shifted(binomial(int(told.sum()), len(told)), -chance), 1 / best)
        return widest(ratio(*zip(*by_seed, strict=True)), exact)


def _confusion(labels: Ints, nearest: Ints) -> list[list[int]]:
    """Rows: the true prior; columns: the one that it was taken for."""
    table = np.zeros((labels.max() + 1,) * 2, int)
    np.add.at(table, (labels, labels[nearest]), 1)
    return table.tolist()

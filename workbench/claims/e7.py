"""E7: interpolated prompts stay between the clusters and work (arXiv 2412.18582). Measures; the rule judges."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.claims.claim import Claim, Measured
from workbench.claims.domains import Domains, Floats
from workbench.claims.space import Space
from workbench.claims.statistics import (
    Estimate,
    binomial,
    lower_bound,
    mean,
    ratio,
    shifted,
    weakest,
    widest,
)
from workbench.claims.study import Cell, StudyConfig, Trial
from workbench.errors import WorkbenchError
from workbench.methods.priors import GaussianInterpolation, Prior

BETWEEN = "gaussian-interpolation"


class InterpolatedStayAndWork(Claim):
    """Do prompts that start between two domains end there, and gain as much as those from one of them (ours)?

    A vector is between if it is not beyond either domain's mean on the axis that tells the two apart best, and no
    farther off the way between them than 95% of the domains' own points (`Domains`). Three effects, each with −0.1 as
    its margin, and the cell's is the weakest of them (`statistics.weakest`):

    - stay: of the vectors that lie between as drawn, the share that still does once trained, less 1. Fieller's
      interval with one pair of counts a seed, never narrower than the exact binomial one;
    - work, against each domain: mean gain / mean gain from that domain's Gaussian − 1, as in E3.

    The prompts of the two Gaussians are also what "between" is held against: they must end there less often.
    """

    name = "E7"

    @classmethod
    def settings(cls) -> StudyConfig:
        one, other = StudyConfig().between
        return StudyConfig(
            tasks=("find-person", "smaller-number"),
            places=("input", "layer 2"),
            priors=(BETWEEN, f"gaussian-{one}", f"gaussian-{other}"),
        )

    def check(self, config: StudyConfig) -> None:
        needed = (BETWEEN, *_ends(config))
        if missing := [name for name in needed if name not in config.priors]:
            raise WorkbenchError(
                f"E7 compares {needed[0]} with {needed[1]} and {needed[2]}; {' '.join(missing)} is not among the priors"
            )

    def measure(self, cell: Cell, config: StudyConfig) -> Measured:
        domains = _domains(cell.space, config.prior(BETWEEN), config.numbers)
        drawn, trained = ({p: _Lie(domains, cell.of(p), end) for p in config.priors} for end in (0, 1))
        ends = _ends(config)
        gain = {prior: np.array([cell.gain(t) for t in cell.of(prior)]) for prior in config.priors}
        stayed = {p: _stayed(drawn[p].between, trained[p].between) for p in config.priors}
        halves: dict[str, Estimate] = {}
        if share := stayed[BETWEEN]:
            halves["stay"] = shifted(share, -1.0)
        for end in ends:
            if gain[end].mean() > 0:
                halves[f"work, beside {end}"] = shifted(ratio(gain[BETWEEN], gain[end]), -1.0)
        apart, control = mean(domains.apart), mean(domains.control)
        numbers = {
            "learnt_low": min(lower_bound(gain[end]) for end in ends),
            "separation": apart.effect,
            "separation_low": apart.at(0.9)[0],
            "separation_control": control.effect,
            "separation_control_high": control.at(0.9)[1],
            "told_low": min(lower_bound(drawn[BETWEEN].shares - drawn[end].shares) for end in ends),
            "specific_low": min(lower_bound(trained[BETWEEN].shares - trained[end].shares) for end in ends),
            "halves": {n: {"effect": e.effect, "interval": e.interval} for n, e in halves.items()},
            "edge": domains.edge,
            "where": {
                prior: {
                    "gain": float(gain[prior].mean()),
                    "drawn": drawn[prior].numbers(),
                    "trained": trained[prior].numbers(),
                    "stayed": share.effect if (share := stayed[prior]) else None,
                }
                for prior in config.priors
            },
        }
        trials = {
            (prior, t.seed): {
                "between_drawn": float(drawn[prior].between[row].mean()),
                "between": float(trained[prior].between[row].mean()),
                "along": float(trained[prior].along[row].mean()),
                "across": float(trained[prior].across[row].mean()),
            }
            for prior in config.priors
            for row, t in enumerate(cell.of(prior))
        }
        whole = weakest(list(halves.values()), "above") if len(halves) == 3 else None
        return Measured(whole, numbers, trials)


def _ends(config: StudyConfig) -> tuple[str, str]:
    """The priors that are the two domains' own Gaussians."""
    one, other = config.between
    return f"gaussian-{one}", f"gaussian-{other}"


@lru_cache(maxsize=1)  # the tasks of one place share it
def _domains(space: Space, prior: Prior, seeds: range) -> Domains:
    assert isinstance(prior, GaussianInterpolation)
    return Domains(space.backbone, space.layer, prior, seeds)


class _Lie:
    """Where one prior's prompts lie, as drawn (end 0) or as trained (end 1): arrays (seeds, P).

    `across` is in units of the edge; `plain` is `along` on the line of the means.
    """

    def __init__(self, domains: Domains, trials: list[Trial], end: int):
        def of(measure: Any) -> Any:
            return np.array([measure((t.drawn, t.trained)[end]) for t in trials])

        self.between: NDArray[np.bool_] = of(domains.between)
        self.along, self.plain = of(domains.segment.along), of(domains.plain.along)
        self.across = of(domains.segment.across) / domains.edge

    @property
    def shares(self) -> Floats:
        """(seeds,)"""
        return self.between.mean(1).astype(float)

    def numbers(self) -> dict[str, float]:
        """Means over all vectors."""
        return {
            "between": float(self.between.mean()),
            "along": float(self.along.mean()),
            "inside": float(((self.along >= 0) & (self.along <= 1)).mean()),
            "inside_plain": float(((self.plain >= 0) & (self.plain <= 1)).mean()),
            "across": float(self.across.mean()),
        }


def _stayed(drawn: NDArray[np.bool_], trained: NDArray[np.bool_]) -> Estimate | None:
    """Of the vectors (seeds, P) that lie between as drawn, the share that still does; None where none does."""
    were, still = drawn.sum(1), (drawn & trained).sum(1)
    if not were.any():
        return None
    return widest(ratio(still, were), binomial(int(still.sum()), int(were.sum())))

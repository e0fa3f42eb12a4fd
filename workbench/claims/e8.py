"""E8: a VAE prior collapses (arXiv 2412.18582). Measures; the rule judges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workbench.claims.claim import Claim, Measured
from workbench.claims.statistics import binomial, lower_bound, mean
from workbench.claims.study import Progress
from workbench.claims.vaes import DEFAULT, FORCED, VAECell, VAEsConfig, run_vaes
from workbench.errors import WorkbenchError
from workbench.methods.priors.vae import COLLAPSED


class VAECollapses(Claim):
    """How much of the points' variance do the draws of a VAE keep, as this library fits one (ours)?

    The effect in a cell (backbone, data set, place) is the variance kept by the VAE with default settings, mean over
    seeds with its t interval: near 0 all draws are nearly alike. The authors say that theirs collapsed, and not how it
    was fitted; so the sweep of one setting at a time stands beside the verdict and does not decide it. Two things could
    make the measure speak for itself, and keep a cell from being counted: points that no latent of that width could
    hold, and a collapse that goes unseen, so one is forced with an enormous weight of the KL term.
    """

    name = "E8"

    @classmethod
    def settings(cls) -> VAEsConfig:
        return VAEsConfig()

    def check(self, config: VAEsConfig) -> None:
        if missing := [variant for variant in (DEFAULT, FORCED) if variant not in config.variants]:
            raise WorkbenchError(
                f"E8 judges {DEFAULT} and forces a collapse with {FORCED}; {' '.join(missing)} is not among the variants"
            )

    def cells(
        self, config: VAEsConfig, runs: Path, device: str, report: Callable[[Progress], None]
    ) -> Iterable[VAECell]:
        return run_vaes(config, runs, device, report)

    def measure(self, cell: VAECell, config: VAEsConfig) -> Measured:
        kept = cell.values(DEFAULT, "variance_kept")
        numbers = {
            "linear_low": lower_bound(cell.values(DEFAULT, "linear")),
            "forced_high": -lower_bound(-cell.values(FORCED, "variance_kept")),
        }
        return Measured(mean(kept) if np.isfinite(kept).all() else None, numbers)

    def overall(self, cells: Sequence[VAECell], config: VAEsConfig) -> dict[str, Any]:
        """For each variant: the share of all its fits that collapsed, the share of cells whose mean did, with its exact
        interval, and the variance kept, mean over cells with its t interval."""
        found = {}
        for variant in config.variants:
            kept = np.array([cell.values(variant, "variance_kept").mean() for cell in cells])
            share = binomial(int((kept < COLLAPSED).sum()), len(cells))
            found[variant] = {
                "fits_collapsed": float(
                    np.mean([cell.values(variant, "collapsed").mean() for cell in cells])
                ),
                "cells_collapsed": share.effect,
                "cells_collapsed_interval": share.interval,
                "variance_kept": float(kept.mean()),
                "variance_kept_interval": mean(kept).interval if len(cells) > 1 else None,
                "active_units": float(
                    np.mean([cell.values(variant, "active_units").mean() for cell in cells])
                ),
            }
        return {"variants": found}

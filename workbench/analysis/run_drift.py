"""The drift of whole runs: what a run directory, its backbone and its prior bring to the measures of `drift.py`.

    drifts = RunDrifts(backbone)                # or RunDrifts() for what needs no backbone
    drifts.measures(run)                        # the table of `measure_run`, with words
    drifts.compare(runs, "embeddings")          # their starts against their ends, as two samples

Reads runs, and keeps what it has measured for as long as a run has no new snapshot. Trains nothing and draws nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from workbench.analysis.drift import INPUT, LogProb, compare_sets, density, measure_run, prior_spread
from workbench.analysis.reference import Reference
from workbench.analysis.surroundings import Surroundings, layer_of, places_of
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.backbones.backbone import Backbone
    from workbench.methods.priors.prior import Distribution

#: Draws from a prior that its spread is taken from.
DRAWS = 512


class Travelled(Protocol):
    """What is read of a run, or of a `Preview` of one."""

    path: Path

    @property
    def config(self) -> dict[str, Any]: ...

    def snapshots(self) -> dict[int, Path]: ...

    def snapshot(self, step: int) -> dict[str, Any]: ...


class RunDrifts:
    """Measures runs of one backbone, or of any where none is given.

    Args:
        backbone: with it, vectors are measured against its tokens, and against the prior that drew them. What a layer
            reads of each token alone stands for the tokens there.
    """

    def __init__(self, backbone: Backbone | None = None):
        self.backbone = backbone
        self._around: dict[str, Surroundings] = {}
        self._references: dict[str, Reference] = {}
        self._priors: dict[tuple[str, str], tuple[LogProb | None, float]] = {}
        self._measured: dict[tuple[Path, tuple[str, ...] | None], tuple[tuple[int, ...], pd.DataFrame]] = {}
        self._snapshots: dict[tuple[Path, int], dict[str, Any]] = {}

    def measures(self, run: Travelled, measures: Sequence[str] | None = None) -> pd.DataFrame:
        """`measure_run` of all its snapshots, but the damaged ones; None for every measure that can be taken."""
        chosen = None if measures is None else tuple(measures)
        steps = tuple(sorted(run.snapshots()))
        known = self._measured.get((run.path, chosen))
        if known is None or known[0] != steps:
            snapshots = {step: found for step in steps if (found := self._snapshot(run, step))}
            places = places_of(next(iter(snapshots.values()), {}))
            prior = {place: self._prior(run, place) for place in places} if self.backbone else {}
            table = measure_run(
                snapshots,
                {place: self.reference(place) for place in places} if self.backbone else None,
                self.around(INPUT).words if self.backbone and INPUT in places else None,
                {place: log_prob for place, (log_prob, _) in prior.items() if log_prob},
                {place: spread for place, (_, spread) in prior.items()},
                chosen,
            )
            self._measured[run.path, chosen] = known = (steps, table)
        return known[1]

    def compare(self, runs: Iterable[Travelled], place: str = INPUT, seed: int = 0) -> dict[str, float]:
        """`compare_sets` of where some runs started and where their last snapshots are, at one place."""
        starts, ends = [], []
        for run in runs:
            steps = sorted(run.snapshots())
            if steps and place in (first := self._snapshot(run, steps[0])):
                starts.append(first[place])
                ends.append(self._snapshot(run, steps[-1])[place])
        return compare_sets(np.stack(starts), np.stack(ends), seed) if starts else {}

    def around(self, place: str) -> Surroundings:
        """What is around vectors at a place of the backbone."""
        assert self.backbone is not None
        if place not in self._around:
            self._around[place] = Surroundings(self.backbone, place)
        return self._around[place]

    def reference(self, place: str) -> Reference:
        """The tokens at a place, to be near to."""
        if place not in self._references:
            self._references[place] = Reference(self.around(place).vocabulary)
        return self._references[place]

    def _snapshot(self, run: Travelled, step: int) -> dict[str, Any]:
        """A snapshot, of which each file is read once; nothing where it is damaged."""
        if (run.path, step) not in self._snapshots:
            try:
                self._snapshots[run.path, step] = run.snapshot(step)
            except (OSError, ValueError, KeyError, WorkbenchError):
                return {}
            except Exception as error:
                if type(error).__name__ != "SafetensorError":  # safetensors' own error is none of Python's
                    raise
                return {}
        return self._snapshots[run.path, step]

    def _prior(self, run: Travelled, place: str) -> tuple[LogProb | None, float]:
        """Density and spread of the prior that drew a run's vectors, fitted again; nothing where that cannot be."""
        described = run.config["method"]["config"].get("prior")
        key = (json.dumps(described, sort_keys=True), place)
        if key not in self._priors:
            fitted = self._fitted(described, place)
            self._priors[key] = (density(fitted), _spread(fitted)) if fitted else (None, float("nan"))
        return self._priors[key]

    def _fitted(self, described: dict[str, Any] | None, place: str) -> Distribution | None:
        from workbench.methods.priors import from_description

        assert self.backbone is not None
        try:
            return from_description(described).fit(self.backbone, layer_of(place)) if described else None
        except WorkbenchError:  # its data, or the run whose posterior it was, is gone
            return None


def _spread(prior: Distribution) -> float:
    import torch

    return prior_spread(prior.sample(DRAWS, torch.Generator().manual_seed(0)).numpy())

"""P1: an RNN-like language model forgets its prompt with distance, and an attention model does not (arXiv 2311.01981).

Measures; the rule judges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.claims.claim import Claim, Measured
from workbench.claims.memory import MapsCell, MapsConfig, map_of_seeds, run_maps
from workbench.claims.statistics import lower_bound, mean
from workbench.claims.study import Progress

NEAR, FAR = (10, 25, 50), (200, 400, 800)
"""Bins of tokens after the prompt (`score.DISTANCES`)."""


class RecurrentForgets(Claim):
    """Is less met far from the prompt than near it, by the recurrent backbone and not by the attention one (ours in detail)?

    As a story goes on, values are told and fewer are left to guess among. So the effect is taken of clauses for which
    exactly two of the prompt's own values still fit, for each number of clauses, and the mean of these.

    Beside it stand the same of the attention backbone, and load: what is met with one clause less what is met with
    sixteen.
    """

    name = "P1"

    @classmethod
    def settings(cls) -> MapsConfig:
        return MapsConfig()

    def cells(
        self, config: MapsConfig, runs: Path, device: str, report: Callable[[Progress], None]
    ) -> Iterable[MapsCell]:
        return run_maps(config, runs, device, report)

    def measure(self, cell: MapsCell, config: MapsConfig) -> Measured:
        recurrent, attention = cell.facts(cell.backbone), cell.facts(config.attention)
        drops = mean(_drops(recurrent))
        kept = _drops(attention)
        numbers: dict[str, Any] = {
            "fewest": min(_cases(facts) for facts in recurrent),
            "near_low": lower_bound([_share(facts["of_two"], NEAR) for facts in recurrent]),
            "attention_high": -lower_bound(-kept),
            "attention_drop": _told(kept),
            "load": _told([_load(facts["map"]) for facts in recurrent]),
            "attention_load": _told([_load(facts["map"]) for facts in attention]),
            "met": _told([facts["met"] for facts in recurrent]),
            "attention_met": _told([facts["met"] for facts in attention]),
            "drop_by_clauses": {
                str(c): _told([_drop(f["of_two"], c) for f in recurrent]) for c in _clauses(recurrent)
            },
            "map": map_of_seeds(recurrent),
            "attention_map": map_of_seeds(attention),
        }
        return Measured(drops, numbers)


def _clauses(facts: list[dict[str, Any]]) -> list[int]:
    """Numbers of clauses with which both near and far something fell due in every seed."""
    found = [
        {c for c, *_ in f["of_two"] if _number(f["of_two"], c, NEAR) and _number(f["of_two"], c, FAR)}
        for f in facts
    ]
    return sorted(set.intersection(*map(set, found)))


def _number(cells: list[list[float]], clauses: int, bins: tuple[int, ...]) -> int:
    return int(sum(n for c, d, _, n in cells if c == clauses and d in bins))


def _cases(facts: dict[str, Any]) -> int:
    """The fewest cases near or far, of any number of clauses on the map."""
    cells = facts["of_two"]
    return min(_number(cells, c, bins) for c in {c for c, *_ in cells} for bins in (NEAR, FAR))


def _share(cells: list[list[float]], bins: tuple[int, ...], clauses: int | None = None) -> float:
    """Share met in bins of distance, each case counting alike."""
    chosen = [(met, n) for c, d, met, n in cells if d in bins and clauses in (None, c)]
    return sum(met * n for met, n in chosen) / sum(n for _, n in chosen)


def _drop(cells: list[list[float]], clauses: int) -> float:
    return _share(cells, NEAR, clauses) - _share(cells, FAR, clauses)


def _drops(facts: list[dict[str, Any]]) -> NDArray[np.float64]:
    """(seeds,) near less far, mean over numbers of clauses."""
    shared = _clauses(facts)
    return np.array([np.mean([_drop(f["of_two"], c) for c in shared]) for f in facts])


def _load(cells: list[list[float]]) -> float:
    """What is met with the fewest clauses less what is met with the most, over all distances."""
    numbers = sorted({c for c, *_ in cells})
    bins = tuple({int(d) for _, d, *_ in cells})
    return _share(cells, bins, int(numbers[0])) - _share(cells, bins, int(numbers[-1]))


def _told(values: Any) -> dict[str, Any]:
    found = mean(values)
    return {"effect": found.effect, "interval": found.interval}

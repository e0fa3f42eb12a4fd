"""P2: ProSG meets requirements that the plain model misses more often than each baseline (arXiv 2311.01981).

Measures; the rule judges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workbench.claims.claim import Claim, Measured
from workbench.claims.memory import (
    BASELINES,
    METHODS,
    PLAIN,
    TOKENS,
    MemoryCell,
    MemoryConfig,
    beyond,
    map_of_seeds,
    run_memory,
)
from workbench.claims.memory_limits import run_bundled, run_costs, run_limits, run_longer, run_retrained
from workbench.claims.statistics import Estimate, mean, weakest
from workbench.claims.study import Progress

PRICES = (0.0, 0.02, 0.05, 0.1)
"""Nats a token on the rest of the story, above the plain backbone's, at which curves are compared."""
GOAL = 0.02


class ProSGKeeps(Claim):
    """At every price, does ProSG keep more of what the plain model forgets than every baseline of the same context (ours)?

    The effect is memory of "tokens" less memory of a baseline at a price (`MemoryCell.at`), paired by seed, of the baseline
    and price at which it leads least (`statistics.weakest`).

    Beside it stand the curves of all methods, those of ProSG's other sources among them; the goal, 95% at 0.02 nats; maps to
    800 tokens; and the prompt read again, with the tokens that it takes.
    """

    name = "P2"

    @classmethod
    def settings(cls) -> MemoryConfig:
        return MemoryConfig()

    def cells(
        self, config: MemoryConfig, runs: Path, device: str, report: Callable[[Progress], None]
    ) -> Iterable[MemoryCell]:
        self._runs, self._device = runs, device
        return run_memory(config, runs, device, report)

    def measure(self, cell: MemoryCell, config: MemoryConfig) -> Measured:
        leads = {
            (other, price): mean(cell.at(TOKENS, price) - cell.at(other, price))
            for other in (PLAIN, *BASELINES)
            for price in PRICES
        }
        numbers: dict[str, Any] = {
            "hard_low": min(facts["hard"] for facts in cell.facts(PLAIN)),
            "goal": _told(mean(cell.at(TOKENS, GOAL))),
            "leads": {
                other: {str(price): _told(leads[other, price]) for price in PRICES}
                for other in (PLAIN, *BASELINES)
            },
            "memory": {
                name: {str(price): _told(mean(cell.at(name, price))) for price in PRICES}
                for name in (PLAIN, *METHODS)
            },
            "curves": {name: _curve(cell.facts(name)) for name in (PLAIN, *METHODS)},
            "rereading": _rereading(cell.facts(PLAIN)),
            "parameters": {name: cell.facts(name)[0]["parameters"] for name in METHODS},
            "training_seconds": {
                name: float(np.mean([f["training_seconds"] for f in cell.facts(name)])) for name in METHODS
            },
            "twice_as_far": {
                name: _told(mean(np.array([beyond(f, 2 * config.longest) for f in cell.facts(name)])))
                for name in (PLAIN, *METHODS)
            },
            "maps": {name: map_of_seeds(cell.facts(name)) for name in (PLAIN, *METHODS)},
            "cosines": _cosines(cell.facts(TOKENS)),
        }
        return Measured(weakest(list(leads.values()), "above"), numbers)

    def overall(self, cells: Sequence[MemoryCell], config: MemoryConfig) -> dict[str, Any]:
        """What the memory of "tokens" rests on, and where it does harm; means over seeds with their intervals."""
        found = {}
        for cell in cells:
            each = run_limits(config, cell.backbone, self._runs, self._device)
            anew = run_retrained(config, cell.backbone, self._runs, self._device)
            found[cell.backbone] = {name: _spread([facts[name] for facts in each]) for name in each[0]}
            found[cell.backbone]["retrained"] = anew
            bundled = run_bundled(config, cell.backbone, self._runs, self._device)
            found[cell.backbone]["bundled"] = _spread(bundled) if bundled else None
            costs = run_costs(config, cell.backbone, self._runs, self._device)
            found[cell.backbone]["rereading"] = _at_a_cost(cell, [one["over_plain"] for one in costs])
            longer = run_longer(config, cell.backbone, self._runs, self._device)
            found[cell.backbone]["longer"] = {of: _longer(cell, facts) for of, facts in longer.items()}
        return found


def _spread(values: Sequence[Any]) -> Any:
    """The numbers of all seeds as one, place by place."""
    if isinstance(values[0], dict):
        return {key: _spread([value[key] for value in values]) for key in values[0]}
    return _told(mean(values))


def _told(estimate: Estimate) -> dict[str, Any]:
    return {"effect": estimate.effect, "interval": estimate.interval}


def _curve(facts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Memory and price by strength, with intervals over seeds; and in sentences that training does not know."""
    return [
        {
            "strength": points[0]["strength"],
            **{
                key: _told(mean([p[key] for p in points]))
                for key in ("memory", "price", "held_out_memory", "held_out_price")
                if key in points[0]
            },
        }
        for points in zip(*(f["curve"] for f in facts), strict=True)
    ]


def _longer(cell: MemoryCell, facts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A baseline that is trained for longer: its memory at each price, and by how much "tokens" leads it there."""
    best = {price: cell.best([f["curve"] for f in facts], price) for price in PRICES}
    return {
        "memory": {str(price): _told(mean(best[price])) for price in PRICES},
        "leads": {
            str(price): _told(mean(cell.at(TOKENS, price)[: len(facts)] - best[price])) for price in PRICES
        },
        "curve": _curve(facts),
        "training_seconds": float(np.mean([f["training_seconds"] for f in facts])),
    }


def _rereading(facts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Memory and price where the prompt is read again, and tokens read for each token of the story."""
    return [
        {
            "every": points[0]["every"],
            **{key: _told(mean([p[key] for p in points])) for key in ("memory", "price", "tokens")},
        }
        for points in zip(*(f["rereading"] for f in facts), strict=True)
    ]


def _at_a_cost(cell: MemoryCell, costs: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Seconds a token over the plain backbone's, with "tokens" and with the prompt read again, and how far the former leads.

    nearest: how often the prompt is read again where that costs about as much.
    """
    ours, goal = mean([one[TOKENS] for one in costs]), cell.at(TOKENS, GOAL)
    again = []
    for at, point in enumerate(cell.facts(PLAIN)[0]["rereading"]):
        every = point["every"]
        memory = np.array([facts["rereading"][at]["memory"] for facts in cell.facts(PLAIN)])
        cost = mean([one[str(every)] for one in costs])
        again.append({"every": every, "seconds": _told(cost), "lead": _told(mean(goal - memory))})
    nearest = min(again, key=lambda one: abs(one["seconds"]["effect"] - ours.effect))
    return {"tokens": _told(ours), "again": again, "nearest": nearest["every"]}


def _cosines(facts: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Cosine to the true gradient at each look, by matrix, mean over seeds."""
    looks = list(zip(*(f["looks"] for f in facts), strict=True))
    names = [key for key in looks[0][0] if key.startswith("cosine")] if looks else []
    steps = {"step": [float(points[0]["step"]) for points in looks]}
    return steps | {name: [float(np.mean([p[name] for p in points])) for points in looks] for name in names}

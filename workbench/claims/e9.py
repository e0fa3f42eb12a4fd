"""E9: a controlled posterior is a good start for distilling a chain of thought (a hypothesis of arXiv 2412.18582).

Measures; the rule judges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from workbench.claims.claim import Claim, Measured
from workbench.claims.distilling import (
    OTHER,
    POSTERIOR,
    STEPS,
    DistilConfig,
    Distilled,
    run_distilling,
)
from workbench.claims.statistics import Estimate, lower_bound, mean, weakest
from workbench.claims.study import Progress


class PosteriorDistils(Claim):
    """Does a prompt that answers at once end better if it starts from one that learnt to write its steps (ours)?

    A chain of thought is distilled as in stepwise internalisation (Deng, Choi and Shieh 2024, arXiv 2405.14838), in one
    stage: a prompt is trained with the steps written out before the answer, from the controlled prior; a prompt that
    starts where it ended is trained on the same questions with the answer alone. The others start from draws and train
    on the answer alone from the beginning, until they have read as many positions as both of these trainings together.
    The effect in a cell is test loss from a draw less test loss from the posterior, paired by seed, of the draw that
    the posterior leads least (`statistics.weakest`).

    Beside it stand the posterior of an unrelated task, which cost as much; the same difference at equal updates, what
    the posterior cost left out; how fast each start learns; and what the steps were worth to the prompt that wrote them.
    """

    name = "E9"

    @classmethod
    def settings(cls) -> DistilConfig:
        return DistilConfig()

    def cells(
        self, config: DistilConfig, runs: Path, device: str, report: Callable[[Progress], None]
    ) -> Iterable[Distilled]:
        return run_distilling(config, runs, device, report)

    def measure(self, cell: Distilled, config: DistilConfig) -> Measured:
        loss = cell.values(POSTERIOR, "loss")
        leads = {start: mean(cell.values(start, "loss") - loss) for start in config.others}
        control = cell.values(OTHER, "loss") - loss
        early = {
            start: np.array([_best(trial.looks, config.fit.steps) for trial in cell.of(start)])
            for start in config.starts
        }
        asked = np.array([cell.asked[seed] for seed in config.numbers])
        at_once = np.mean([cell.values(start, "accuracy") for start in config.others], axis=0)
        numbers: dict[str, Any] = {
            "control_low": lower_bound(control),
            "leads": {
                **{start: _told(lead) for start, lead in leads.items()},
                OTHER: _told(mean(control)),
            },
            "leads_at_equal_updates": {
                start: _told(mean(losses - early[POSTERIOR]))
                for start, losses in early.items()
                if start != POSTERIOR
            },
            "steps_over_at_once": _told(mean(asked - at_once)),
            "kept": _told(mean(cell.values(POSTERIOR, "accuracy") - asked)),
            "curves": {start: _curve(cell, start) for start in (STEPS, *config.starts)},
        }
        return Measured(weakest(list(leads.values()), "above"), numbers)


def _told(estimate: Estimate) -> dict[str, Any]:
    return {"effect": estimate.effect, "interval": estimate.interval}


def _best(looks: Iterable[tuple[int, float]], updates: int) -> float:
    """The best validation loss that was seen within so many updates; NaN where nothing was looked at."""
    return min((loss for step, loss in looks if step <= updates), default=np.nan)


def _curve(cell: Distilled, start: str) -> dict[str, Any]:
    """Validation loss at each look, mean over seeds, by updates; those of STEPS are of the steps and the answer."""
    seen = list(zip(*(trial.looks for trial in cell.of(start)), strict=False))  # as far as all of them came
    return {
        "updates": [looks[0][0] for looks in seen],
        "loss": [float(np.mean([loss for _, loss in looks])) for looks in seen],
    }

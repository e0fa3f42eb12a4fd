"""What a training would cost, before it starts: a few of its steps on a copy of the method. Keeps nothing of them.

The copy is what saving and loading would give, so the method itself, the dice of torch and every run directory are
as before, and a training that follows has the same bits as one without an estimate.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import torch

from workbench.backbones.backbone import Backbone
from workbench.methods.method import Method, load_method
from workbench.tasks.task import Task
from workbench.training.bank import Bank
from workbench.training.config import FitConfig

#: Steps that are tried; the first is slower than the others (it reads the data, and warms the machine up).
WARM_UP = 3


@dataclass(frozen=True)
class Cost:
    """What a training would cost."""

    parameters: int
    """Trained parameters."""
    tokens_per_step: float
    """Tokens of questions and answers in one step, on average; pads and the trained prompt are not counted."""
    seconds_per_step: float
    """Seconds of one step, without a look at the validation split."""
    seconds_per_look: float
    """Seconds of one look at the validation split; 0 where it is never looked at."""
    seconds: float
    """Seconds of all steps and looks. Less where its patience ends it; writing the run is not in it."""

    @property
    def line(self) -> str:
        """All of it that one asks for: `3,840 parameters · 412 tokens a step · about 40 s`."""
        tokens = f"{self.tokens_per_step:,.0f} tokens a step"
        return f"{self.parameters:,} parameters · {tokens} · about {duration(self.seconds)}"


def estimate(
    backbone: Backbone,
    method: Method | Sequence[Method],
    task: Task,
    config: FitConfig | Sequence[FitConfig] | None = None,
) -> Cost:
    """Try three steps, and a fourth with a look at the validation split where one is asked for.

    It takes as long as these steps and as reading the data does, so a panel calls it in a thread.

    >>> estimate(backbone, wb.SoftPrompt(backbone, tokens=20), task, wb.FitConfig(steps=200)).line
    '3,840 parameters · 412 tokens a step · about 40 s'

    Args:
        backbone, method, task, config: as `fit` takes them, or `fit_many` several methods: parameters and tokens are then
            those of all. No method is trained.

    Raises:
        WorkbenchError: what `fit` would refuse.
    """
    methods = [method] if isinstance(method, Method) else list(method)
    given = config or FitConfig()
    configs = [given] * len(methods) if isinstance(given, FitConfig) else list(given)
    first = configs[0]
    looks = -(-first.steps // first.evaluate_every) if first.evaluate_every else 0
    count = WARM_UP + (looks > 0)
    every, unwatched = (count if looks else 0), {"patience": 0, "keep": "last", "trackers": ()}
    tried = [replace(one, steps=count, evaluate_every=every, **unwatched) for one in configs]  # type: ignore[arg-type]
    devices = [backbone.device] if backbone.device.type == "cuda" else []
    seconds, tokens = [], []
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices):
        copies = [load_method(one.save(Path(folder) / str(n)), backbone) for n, one in enumerate(methods)]
        bank = Bank(backbone, copies, task, tried)
        with contextlib.closing(bank.steps()) as steps:  # type: ignore[type-var]
            for now in itertools.islice(steps, count):
                seconds.append(max(step.seconds for step in now.steps.values()))
                parts = [rows for member in bank.members for rows in member.parts]
                tokens.append(sum(int(rows.lengths.sum()) for rows in parts))
    step = fmean(seconds[1:WARM_UP])
    look = max(0.0, seconds[-1] - step) if looks else 0.0
    whole = seconds[0] + step * (first.steps - 1) + look * looks
    return Cost(sum(one.parameters_trained for one in methods), fmean(tokens), step, look, whole)


def duration(seconds: float) -> str:
    """A time as people say it: `8 s`, `2 min`, `1 h 10 min`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"

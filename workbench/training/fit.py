"""`fit`: training as an iterator of steps. The loop owns nothing on the screen; views read the run directory.

One method is a bank of one: the loop itself is in `bank.py`, and what belongs to a run in `member.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from workbench.backbones.backbone import Backbone, load_backbone
from workbench.methods.method import MERGED, METHODS, Method, check_merged
from workbench.tasks.task import Task
from workbench.training.bank import Bank
from workbench.training.config import FitConfig
from workbench.training.member import Step
from workbench.training.run import Run


def fit(
    backbone: Backbone,
    method: Method,
    task: Task,
    config: FitConfig | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
) -> Iterator[Step]:
    """Train a method on a task.

    >>> for step in wb.fit(backbone, method, task, wb.FitConfig(steps=200), run_dir="runs/first"):
    ...     print(step.index, step.loss)

    The loop can be left at any step: what was done is in a checkpoint, and `resume=True` goes on. When it
    ends by itself, `method` holds the state that `config.keep` names, and so does the run's `method/`.

    Args:
        backbone: the frozen model; untouched.
        method: trained in place.
        task: its `train` split is learnt, its `validation` split is looked at.
        config: how; see FitConfig.
        run_dir: a new folder to write the run to; None writes nothing.
        resume: go on with the run in `run_dir`, which must have been started with the same settings.

    Raises:
        WorkbenchError: before the first step for settings and folders that cannot work; during training for
            a loss that is not finite, with the step's number.
    """
    bank = Bank(backbone, [method], task, config)
    bank.attach(None if run_dir is None else [Path(run_dir)], [resume])
    return _alone(bank)


def _alone(bank: Bank) -> Iterator[Step]:
    """The steps of a bank of one."""
    with contextlib.closing(bank.steps()) as steps:  # type: ignore[type-var]
        for step in steps:
            yield from step.steps.values()


def resume(run_dir: str | Path, device: str = "auto") -> Iterator[Step]:
    """Go on with a run from its directory alone: backbone, task, method and settings are read from it."""
    run = Run(run_dir)
    facts = run.config
    name = facts["backbone"]["name"]
    check_merged(f"the run {run.path}", name, name.split(MERGED)[0], "go on by `fit`, with resume=True, on")
    backbone = load_backbone(name, device=device)
    cls = METHODS[facts["method"]["kind"]]
    method = cls.from_config(backbone, cls.Config(**facts["method"]["config"]))
    task = Task.from_config(facts["task"])
    return fit(backbone, method, task, FitConfig.from_json(facts["fit"]), run.path, resume=True)

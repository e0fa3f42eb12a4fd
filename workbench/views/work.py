"""What the first panel asks for, as a job and back, and the plane that its prompt is watched in. Owns no widget.

A job trains and asks (`training/job.py`) and writes the run's directory; beside it stands `map.safetensors`, the plane.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from workbench.analysis.projection import ProjectionConfig, fit_projection
from workbench.analysis.surroundings import Surroundings
from workbench.training.config import FitConfig
from workbench.training.job import Job, JobConfig
from workbench.training.run import ALIVE, Run

if TYPE_CHECKING:
    from workbench.training.cost import Cost

FRAME = "map.safetensors"

#: Rows that the plane is fitted to: the prompt's first vectors, and as many words as there is room for.
MOST_ROWS = 4096

#: How many unseen questions are asked each way.
QUESTIONS = 40


@dataclass(frozen=True)
class Settings:
    """What the form of the first panel asks for."""

    backbone: str = field(default="tiny-llama", metadata={"label": "Backbone"})
    """A bundled name, a folder, or a Hub id."""
    task: str = field(default="", metadata={"label": "Task"})
    """A task of the small world, or a file."""
    tokens: int = field(default=10, metadata={"label": "Prompt length", "min": 1, "max": 500})
    """Number of vectors in the prompt."""
    learning_rate: float = field(default=0.03, metadata={"label": "Learning rate", "min": 0.0})
    """Step size of the optimiser at its height."""
    steps: int = field(default=150, metadata={"label": "Steps", "min": 1, "max": 100_000})
    """Steps of training; each reads one batch."""


def cost_of(settings: Settings) -> Cost:
    """What a training by these settings would cost."""
    from workbench.tasks.task import Task
    from workbench.training.cost import estimate
    from workbench.training.work import shared_backbone

    config = config_of(settings).checked()
    backbone = shared_backbone(config.backbone, config.device, config.dtype)
    return estimate(backbone, config.make(backbone), Task.from_config(config.task_config), config.fit)


def make_frame(job: Job) -> None:
    """Fits the plane of a job in this process, once its prompt has a first snapshot, and keeps it in the run's directory."""
    run = Run(job.run_dir)
    while 0 not in run.snapshots():
        if job.state not in ALIVE:
            return
        time.sleep(0.1)
    if (run.path / FRAME).exists():
        return
    from workbench.training.work import shared_backbone

    config = JobConfig.from_json(run.config)
    backbone = shared_backbone(config.backbone, config.device, config.dtype)
    around, start = Surroundings(backbone), run.snapshot(0)["embeddings"]
    frame = fit_projection(
        np.concatenate([around.vocabulary, start]),
        ProjectionConfig(most=MOST_ROWS),
        words=around.words,
        parts=(len(around.vocabulary), len(start)),
    )
    frame.save(run.path / FRAME)


def new_path(folder: Path, *names: str) -> Path:
    """A directory for the next job, numbered so that names sort by age: `0003-tiny-llama-sentiment`."""
    numbers = [int(p.name[:4]) for p in folder.glob("[0-9][0-9][0-9][0-9]-*")]
    stems = (re.sub(r"[^A-Za-z0-9]+", "-", Path(name).stem).strip("-") for name in names)
    return folder / "-".join([f"{max(numbers, default=0) + 1:04d}", *stems])


def newest_path(folder: Path) -> Path | None:
    """The run in `folder` to look at: the newest that is at work, or else the newest; None where there is none."""
    paths = [path.parent for path in folder.glob("[0-9]*/config.json")]
    return max((path for path in paths if Run(path).holder is not None), default=max(paths, default=None))


def config_of(settings: Settings) -> JobConfig:
    """The job that the form asks for."""
    steps = settings.steps
    fit = FitConfig(
        steps=steps,
        learning_rate=settings.learning_rate,
        evaluate_every=max(1, steps // 16),
        snapshot_every=max(1, steps // 50),
    )
    prompt = {"tokens": settings.tokens}
    return JobConfig(settings.backbone, settings.task, settings=prompt, fit=fit, questions=QUESTIONS)


def settings_of(config: JobConfig) -> Settings:
    """What the form said when a run was started."""
    return Settings(
        backbone=config.backbone,
        task=str(config.task_config["task"]),
        tokens=config.settings.get("tokens", Settings.tokens),
        learning_rate=config.fit.learning_rate,
        steps=config.fit.steps,
    )

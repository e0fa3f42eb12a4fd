"""What the first panel asks for, how it starts that, and where it stands. Owns no widget.

A job trains and asks (`training/job.py`) and writes the run's directory; beside it stands `map.safetensors`, the plane
that the prompt moves in. `moment` and `settings_of` read it all back, so that a panel in another kernel, a week
later, shows the same.
"""

from __future__ import annotations

import re
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from workbench.analysis.projection import ProjectionConfig, fit_projection
from workbench.errors import WorkbenchError
from workbench.training.config import FitConfig
from workbench.training.job import Job, JobConfig
from workbench.training.run import ALIVE, Run
from workbench.views.tail import last_records

if TYPE_CHECKING:
    from workbench.backbones.backbone import Backbone
    from workbench.training.cost import Cost

FRAME = "map.safetensors"

#: Rows that the plane is fitted to: the prompt's first vectors, and as many words as there is room for.
MOST_ROWS = 4096

METRICS = "metrics.jsonl"

#: How many unseen questions are asked each way.
QUESTIONS = 40

Stage = Literal["loading", "training", "paused", "answering", "finished", "stopped", "failed", "interrupted"]


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


@dataclass(frozen=True)
class Moment:
    """Where a piece of work stands: all that the panel's status line is made from."""

    stage: Stage
    step: int = 0
    steps: int = 0
    loss: float | None = None
    seconds_left: float | None = None
    note: str = ""
    """What it is doing, where the stage alone does not say."""
    error: str = ""
    trace: str = ""


class Start(threading.Thread):
    """Starts a job, which reads libraries for some seconds first, and then finds the plane to watch its prompt in.

    Attributes:
        begun: the job has its directory, which says from then on how it stands.
        error, trace: what went wrong, here and not in the job.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(name=f"start of {job.run_dir.name}", daemon=True)
        self.job, self.path = job, job.run_dir
        self.begun, self.error, self.trace = False, "", ""
        self._unwanted = threading.Event()

    def run(self) -> None:
        """Does it; what goes wrong is kept for the panel, which says it in one sentence."""
        try:
            self.job.start()
            self.begun = True
            if self._unwanted.is_set():
                self.job.stop()
            make_frame(self.job)
        except Exception as error:
            known = isinstance(error, WorkbenchError)
            self.error = str(error) if known else f"{type(error).__name__}: {error}"
            self.trace = traceback.format_exc()

    def stop(self) -> None:
        """Has the job stopped as soon as it has begun."""
        self._unwanted.set()


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
    vocabulary = backbone.vocabulary().float().cpu().numpy()
    start = run.snapshot(0)["embeddings"]
    frame = fit_projection(
        np.concatenate([vocabulary, start]),
        ProjectionConfig(most=MOST_ROWS),
        words=words_of(backbone),
        parts=(len(vocabulary), len(start)),
    )
    frame.save(run.path / FRAME)


def words_of(backbone: Backbone) -> tuple[str, ...]:
    """Each row of the embedding matrix as the text that it stands for, without the space before it."""
    texts = [str(backbone.tokenizer.decode([i])) for i in range(backbone.vocabulary_size)]
    return tuple(text.strip() or repr(text) for text in texts)


def new_path(folder: Path, settings: Settings) -> Path:
    """A directory for the next run, numbered so that names sort by age: `0003-tiny-llama-sentiment`."""
    numbers = [int(p.name[:4]) for p in folder.glob("[0-9][0-9][0-9][0-9]-*")]
    stems = (
        re.sub(r"[^A-Za-z0-9]+", "-", Path(name).stem).strip("-")
        for name in (settings.backbone, settings.task)
    )
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


def moment(run: Run | None, start: Start | None = None) -> Moment:
    """Where things stand, from the run's directory; before that is there, from what is to make it."""
    records = last_records(run.path / METRICS, 20) if run else []
    last, steps = records[-1] if records else {}, run.config["fit"]["steps"] if run else 0
    facts: dict[str, Any] = {"step": last.get("step", 0), "steps": steps, "loss": last.get("loss")}
    if start is not None and not start.begun and not start.error:
        return Moment("loading", **facts, note="reading the libraries")
    if run is None:
        return Moment("failed", error=start.error, trace=start.trace) if start else Moment("interrupted")
    status, state = run.status, run.state
    if state == "running":
        stage = status.get("stage", "training")
        recent = [record["seconds"] for record in records] if stage == "training" else []
        left = sum(recent) / len(recent) * (steps - facts["step"]) if recent else None
        return Moment(stage, **facts, seconds_left=left, note=status.get("note", ""))
    if state == "failed":
        return Moment("failed", **facts, error=status.get("error", ""), trace=run.details or "")
    return Moment("interrupted" if state == "new" else state, **facts)  # type: ignore[arg-type]

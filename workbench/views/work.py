"""One piece of work behind the first panel: load, train, then ask the same questions three ways. Owns no widget.

It is a thread that writes a run's directory: what `wb.Job` writes there, and beside it `frame.safetensors` (the
plane that the prompt moves in) and `answers.json`. `moment` and `settings_of` read it all back, so that a panel in
another kernel, a week later, shows the same.
"""

from __future__ import annotations

import re
import threading
import traceback
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workbench.analysis.frame import Frame, fit_frame
from workbench.errors import WorkbenchError
from workbench.views.answers import FILE as ANSWERS
from workbench.views.answers import WAYS, write_answers

if TYPE_CHECKING:
    from workbench.backbones.backbone import Backbone
    from workbench.methods.method import Method
    from workbench.methods.soft_prompt import SoftPrompt
    from workbench.tasks.task import Task
    from workbench.training.job import Job
    from workbench.training.run import Run

FRAME = "frame.safetensors"

#: How many unseen questions are asked each way.
QUESTIONS = 40

Stage = Literal["loading", "training", "paused", "answering", "finished", "stopped", "failed", "interrupted"]


@dataclass(frozen=True)
class Settings:
    """What the form of the first panel asks for."""

    backbone: str = field(default="tiny-llama", metadata={"label": "Backbone", "width": "170px"})
    """A bundled name, a folder, or a Hub id."""
    task: str = field(default="", metadata={"label": "Task", "width": "210px"})
    """A task of the small world, or a file."""
    tokens: int = field(
        default=10, metadata={"label": "Prompt length", "min": 1, "max": 500, "width": "110px"}
    )
    """Number of vectors in the prompt."""
    learning_rate: float = field(
        default=0.03, metadata={"label": "Learning rate", "min": 0.0, "width": "110px"}
    )
    """Step size of the optimiser at its height."""
    steps: int = field(default=150, metadata={"label": "Steps", "min": 1, "max": 100_000, "width": "110px"})
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


class Work(threading.Thread):
    """Trains a prompt by `settings` into `path`; a run that lies there goes on from its last checkpoint."""

    def __init__(self, settings: Settings, path: Path) -> None:
        super().__init__(name=f"work on {path.name}", daemon=True)
        self.settings, self.path = settings, path
        self.note, self.error, self.trace = "reading the libraries", "", ""
        self.stage: Stage = "loading"
        self.job: Job | None = None
        self._ended, self._unasked = threading.Event(), threading.Event()

    def run(self) -> None:
        """Does the work; what goes wrong is kept for the panel, which says it in one sentence."""
        try:
            self._work()
        except Exception as error:
            known = isinstance(error, WorkbenchError)
            self._fail(str(error) if known else f"{type(error).__name__}: {error}", traceback.format_exc())

    def _fail(self, error: str, trace: str) -> None:
        self.error, self.trace, self.stage = error, trace, "failed"

    def _work(self) -> None:
        import workbench as wb

        ask = self.settings
        self.note = f"loading {ask.backbone}"
        backbone = _backbone(ask.backbone)
        self.note = f"reading {ask.task}"
        task = wb.load_task(ask.task)
        method = wb.SoftPrompt(backbone, tokens=ask.tokens)
        self.note = "finding the plane to look at"
        frame = _frame(backbone, method)
        config = wb.FitConfig(
            steps=ask.steps,
            learning_rate=ask.learning_rate,
            evaluate_every=max(1, ask.steps // 16),
            snapshot_every=max(1, ask.steps // 50),
        )
        self.job = wb.Job(backbone, method, task, config, self.path)
        if self._ended.is_set():
            self.stage = "stopped"
            return
        self.job.start()
        if self._ended.is_set():  # pressed between the two lines above: starting forgets an earlier stop
            self.job.stop()
        if not (self.path / FRAME).exists():
            frame.save(self.path / FRAME)
        self.stage = "training"
        if self.job.wait() == "failed":
            self._fail(self.job.error or "", self.job.details or "")
            return
        self.stage = "answering"
        self._answer(wb.Run(self.path), backbone, task, method)
        self.stage = "finished" if self.job.state == "finished" else "stopped"

    def _answer(self, run: Run, backbone: Backbone, task: Task, method: Method) -> None:
        import workbench as wb
        from workbench.training.evaluate import default_hand_prompt

        written = default_hand_prompt(task)
        asks: dict[str, dict[str, Any]] = {
            "zero_shot": {},
            "hand_written": {"hand_prompt": written},
            "trained": {"method": method},
        }
        evaluations = {}
        for way, arguments in asks.items():
            if self._unasked.is_set():
                return
            self.note = f"answering {QUESTIONS} unseen questions: {WAYS[way]}"
            evaluations[way] = wb.evaluate(backbone, task, split="test", n=QUESTIONS, **arguments)
        write_answers(run, backbone.name, task.name, evaluations, written, task.metric)

    def pause(self) -> None:
        """Holds the training after the step that it is in; returns at once."""
        if self.job:
            self.job.pause()

    def resume(self) -> None:
        """Lets a held training go on; returns at once."""
        if self.job:
            self.job.resume()

    def stop(self) -> None:
        """Ends the training after the step that it is in; the prompt as it is then is asked. Again: ends that too."""
        if self.stage == "answering":
            self._unasked.set()
        self._ended.set()
        if self.job:
            self.job.stop()


def words_of(backbone: Backbone) -> tuple[str, ...]:
    """Each row of the embedding matrix as the text that it stands for, without the space before it."""
    texts = [str(backbone.tokenizer.decode([i])) for i in range(backbone.vocabulary_size)]
    return tuple(text.strip() or repr(text) for text in texts)


@lru_cache(maxsize=2)
def _backbone(name: str) -> Backbone:
    """Frozen, so runs may share it; the next press of the button does not wait for it again."""
    from transformers.utils import logging

    import workbench as wb

    logging.disable_progress_bar()  # it would print below the panel
    return wb.load_backbone(name)


def _frame(backbone: Backbone, method: SoftPrompt) -> Frame:
    prior = method.embeddings.detach().float().cpu().numpy()
    return fit_frame(backbone.vocabulary().float().cpu().numpy(), words_of(backbone), prior)


def new_path(folder: Path, settings: Settings) -> Path:
    """A directory for the next run, numbered so that names sort by age: `0003-tiny-llama-sentiment`."""
    numbers = [int(p.name[:4]) for p in folder.glob("[0-9][0-9][0-9][0-9]-*")]
    stems = (
        re.sub(r"[^A-Za-z0-9]+", "-", Path(name).stem).strip("-")
        for name in (settings.backbone, settings.task)
    )
    return folder / "-".join([f"{max(numbers, default=0) + 1:04d}", *stems])


def newest_path(folder: Path) -> Path | None:
    """The last run in `folder`, or None."""
    return max((p.parent for p in folder.glob("[0-9]*/config.json")), default=None)


def settings_of(run: Run) -> Settings:
    """What the form said when `run` was started."""
    config = run.config
    return Settings(
        backbone=config["backbone"]["name"],
        task=str(config["task"]["task"]),
        tokens=config["method"]["config"]["tokens"],
        learning_rate=config["fit"]["learning_rate"],
        steps=config["fit"]["steps"],
    )


def moment(run: Run | None, work: Work | None) -> Moment:
    """Where things stand, from the run's directory, and from the thread if there is one in this process."""
    records = run.metrics() if run else []
    last = records[-1] if records else {}
    steps = run.config["fit"]["steps"] if run else work.settings.steps if work else 0
    facts: dict[str, Any] = {"step": last.get("step", 0), "steps": steps, "loss": last.get("loss")}
    if work is not None and work.stage != "training":
        return Moment(work.stage, **facts, note=work.note, error=work.error, trace=work.trace)
    if work is not None:
        paused = work.job is not None and work.job.state == "paused"
        recent = [record["seconds"] for record in records[-20:]]
        left = sum(recent) / len(recent) * (steps - facts["step"]) if recent else None
        return Moment("paused" if paused else "training", **facts, seconds_left=left)
    state = run.status.get("state") if run else None
    if run and state == "failed":
        return Moment("failed", **facts, error=run.status.get("error", ""))
    if run and (run.path / ANSWERS).exists():
        return Moment("finished" if facts["step"] >= steps else "stopped", **facts)
    return Moment("interrupted", **facts)

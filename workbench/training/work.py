"""A job at work: loads, trains, asks, and obeys `control.json`. It writes the run's directory and nothing else."""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from functools import lru_cache
from pathlib import Path
from typing import Any

from workbench.backbones.backbone import Backbone, load_backbone, locate
from workbench.errors import WorkbenchError
from workbench.methods.method import Method
from workbench.tasks.task import Task
from workbench.training.answers import ask, check_askable
from workbench.training.bank import Bank
from workbench.training.job import JobConfig, hand_over
from workbench.training.run import Lock, Run

_loading = threading.Lock()


class Work:
    """The sitting of one job, from loading to its end.

    Args:
        run: its directory, with the job's configuration.
        lock: held on it; let go at the end.
        backbone: what the configuration names, where it is loaded already.
        process: whether this process is the job's own.
    """

    def __init__(self, run: Run, lock: Lock, backbone: Backbone | None = None, process: bool = False):
        self.run, self.lock, self.backbone, self.process = run, lock, backbone, process
        self._obeyed = 0  # when the last order was given that has been followed

    def do(self) -> None:
        """All of it. What goes wrong is written down: a sentence in the status, and beside it the traceback."""
        try:
            end = self._do()
            if end == "detach":
                hand_over(self.run, self.lock)
            else:
                self._say(end)
        except KeyboardInterrupt:
            self._say("stopped")
        except Exception as error:
            with contextlib.suppress(OSError):
                (self.run.path / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
            known = isinstance(error, WorkbenchError)
            self._say("failed", error=str(error) if known else f"{type(error).__name__}: {error}")
        finally:
            self.lock.release()

    def _do(self) -> str:
        """What it ends as: finished, stopped, or detach for going on elsewhere."""
        config = JobConfig.from_json(self.run.config)
        backbone, task, method = self._load(config)
        if order := self._orders("loading"):
            return order
        end = self._train(Bank(backbone, [method], task, config.fit))
        if end == "detach" or not config.questions:
            return end

        def going_on(way: str) -> bool:
            self._say(
                "running", stage="answering", note=f"answering {config.questions} unseen questions: {way}"
            )
            return self._orders("answering") != "stopped"

        return end if ask(self.run, backbone, task, method, config.questions, going_on) else "stopped"

    def _load(self, config: JobConfig) -> tuple[Backbone, Task, Method]:
        self._say("running", stage="loading", note=f"loading {config.backbone}")
        backbone = self.backbone or shared_backbone(config.backbone, config.device, config.dtype)
        task = config.task_config
        self._say("running", stage="loading", note=f"reading {task['task']}")
        loaded = Task.from_config(task)
        if config.questions:
            check_askable(loaded)
        return backbone, loaded, config.make(backbone)

    def _train(self, bank: Bank) -> str:
        bank.attach([self.run.path], [True], of_job=True)
        with contextlib.closing(bank.steps()) as steps:  # type: ignore[type-var]
            for _ in steps:
                if order := self._orders("training"):
                    return order
        return "finished"

    def _orders(self, stage: str) -> str | None:
        """Wait for as long as is asked for; then stopped or detach, where somebody has asked for that since."""
        word, given = self.run.order()
        paused = word == "pause"
        if paused:
            metrics = self.run.metrics()
            self._say("paused", stage=stage, step=metrics[-1]["step"] if metrics else 0)
            while word == "pause":
                time.sleep(0.05)
                word, given = self.run.order()
            self._say("running", stage=stage)
        if given == self._obeyed:
            return None
        self._obeyed = given
        if word == "detach" and not self.process:
            if paused:
                self.run.write_order("pause")
            return word
        return "stopped" if word == "stop" else None

    def _say(self, state: str, **facts: Any) -> None:
        known = {k: v for k, v in self.run.status.items() if k in ("step", "steps", "kept_step")}
        self.run.write_status(**{"state": state, **known, **facts})


def shared_backbone(name: str, device: str = "auto", dtype: str = "auto") -> Backbone:
    """The backbone, loaded once for all jobs of this process that ask for the same; frozen, so that they can share it.

    The two last asked for are kept. A folder that was written since is loaded anew.
    """
    place = Path(locate(name))
    files = sorted(place.iterdir()) if place.is_dir() else []
    with _loading:  # two jobs that start at once load it once
        return _load(name, device, dtype, tuple(file.stat().st_mtime_ns for file in files))


@lru_cache(maxsize=2)
def _load(name: str, device: str, dtype: str, written: tuple[int, ...]) -> Backbone:
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would print below a panel
    return load_backbone(name, device=device, dtype=dtype)

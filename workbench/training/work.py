"""A job at work: loads, trains, asks, and obeys `control.json`. It writes its runs' directories and nothing else."""

from __future__ import annotations

import contextlib
import gc
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
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
from workbench.training.run import OVER, Lock, Run

_loading = threading.Lock()


class Work:
    """The sitting of one job, from loading to its end.

    Args:
        runs: its directories, with what is asked for in each; those that are over already stay as they are.
        locks: held on all of them; let go at the end.
        backbone: what the configurations name, where it is loaded already.
        process: whether this process is the job's own.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        locks: Sequence[Lock],
        backbone: Backbone | None = None,
        process: bool = False,
    ):
        self.runs, self.locks, self.backbone, self.process = runs, locks, backbone, process
        self.open = [run for run in runs if run.status["state"] not in OVER]  # what is still to be done
        self._obeyed = 0  # when the last order was given that has been followed

    def do(self) -> None:
        """All of it. What goes wrong is written down: a sentence in the status, and beside it the traceback."""
        # To look through all that the libraries hold for garbage stops every thread of a kernel for too long: until the
        # job ends only what is made meanwhile is looked through.
        gc.freeze()
        try:
            end = self._do()
            if end == "detach":
                hand_over(self.runs, self.locks)
            else:
                self._say(end)
        except KeyboardInterrupt:
            self._say("stopped")
        except Exception as error:
            for run in list(self.open):
                self._fail(run, error)
        finally:
            gc.unfreeze()
            for lock in self.locks:
                lock.release()

    def _do(self) -> str:
        """What those end as that are still open then: finished, stopped, or detach for going on elsewhere."""
        jobs = self._load()
        if order := self._orders("loading"):
            return order
        end = self._train([job for job in jobs if not trained(job.run)])
        if end == "detach":
            return end
        asked = [job for job in jobs if job.run in self.open]
        for job in asked[1:]:
            if job.config.questions:
                self._wait(job)
        for job in asked:
            if job.config.questions and not self._ask(job):
                return "stopped"
            self._leave(job.run, "finished" if trained(job.run) else end)
        return end

    def _load(self) -> list[_Loaded]:
        configs = [JobConfig.from_json(run.config) for run in self.open]
        first = configs[0]
        self._say("running", stage="loading", note=f"loading {first.backbone}")
        backbone = self.backbone or shared_backbone(first.backbone, first.device, first.dtype)
        tasks: dict[str, Task] = {}  # one for all that ask for the same
        jobs = []
        for run, config in zip(self.open, configs, strict=True):
            asked = json.dumps(config.task_config, sort_keys=True)
            if asked not in tasks:
                self._say("running", stage="loading", note=f"reading {config.task_config['task']}")
                tasks[asked] = Task.from_config(config.task_config)
            if config.questions:
                check_askable(tasks[asked])
            method = run.load_method(backbone) if trained(run) else config.make(backbone)
            jobs.append(_Loaded(run, config, backbone, tasks[asked], method))
        return jobs

    def _train(self, jobs: Sequence[_Loaded]) -> str:
        if not jobs:
            return "finished"
        bank = Bank(
            jobs[0].backbone,
            [job.method for job in jobs],
            [job.task for job in jobs],
            [job.config.fit for job in jobs],
        )
        bank.attach([job.run.path for job in jobs], [True] * len(jobs), of_job=True)
        try:
            with contextlib.closing(bank.steps()) as steps:  # type: ignore[type-var]
                for now in steps:
                    for number in now.left:
                        job = jobs[number]
                        if number in bank.failed:
                            self._fail(job.run, bank.failed[number])
                        elif job.config.questions:
                            self._wait(job)
                        else:
                            self._leave(job.run, "finished")
                    if order := self._orders("training"):
                        return order
        except WorkbenchError:
            if len(bank.failed) < len(jobs):
                raise  # otherwise each has said why
        return "finished"

    def _ask(self, job: _Loaded) -> bool:
        """False where somebody has asked for an end."""
        questions = job.config.questions

        def going_on(way: str) -> bool:
            note = f"answering {questions} unseen questions: {way}"
            _tell(job.run, "running", stage="answering", note=note)
            return self._orders("answering") != "stopped"

        return ask(job.run, job.backbone, job.task, job.method, questions, going_on)

    def _orders(self, stage: str) -> str | None:
        """Wait for as long as is asked for; then stopped or detach, where somebody has asked for that since."""
        word, given = self.runs[0].order()
        paused = word == "pause"
        if paused:
            before = [run.status for run in self.open]
            for run, status in zip(self.open, before, strict=True):
                metrics = run.metrics()
                status["step"] = metrics[-1]["step"] if metrics else 0
                _tell(run, "paused", stage=stage, step=status["step"])
            while word == "pause":
                time.sleep(0.05)
                word, given = self.runs[0].order()
            for run, status in zip(self.open, before, strict=True):
                run.write_status(**status)
        if given == self._obeyed:
            return None
        self._obeyed = given
        if word == "detach" and not self.process:
            if paused:
                self.runs[0].write_order("pause")
            return word
        return "stopped" if word == "stop" else None

    # what the directories say

    def _say(self, state: str, **facts: Any) -> None:
        for run in self.open:
            _tell(run, state, **facts)

    def _wait(self, job: _Loaded) -> None:
        note = f"waits for the others, then answers {job.config.questions} unseen questions"
        _tell(job.run, "running", stage="answering", note=note)

    def _leave(self, run: Run, state: str, **facts: Any) -> None:
        _tell(run, state, **facts)
        self.open.remove(run)

    def _fail(self, run: Run, error: Exception) -> None:
        known = isinstance(error, WorkbenchError)
        run.write_details(error)
        self._leave(run, "failed", error=str(error) if known else f"{type(error).__name__}: {error}")


@dataclass
class _Loaded:
    """What is done in one run's directory."""

    run: Run
    config: JobConfig
    backbone: Backbone
    task: Task
    method: Method


def trained(run: Run) -> bool:
    """Whether its training has ended by itself, so that the trained method is there."""
    return "kept_step" in run.status


def _tell(run: Run, state: str, **facts: Any) -> None:
    known = {k: v for k, v in run.status.items() if k in ("step", "steps", "kept_step")}
    run.write_status(**{"state": state, **known, **facts})


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

"""A job: load, train, then ask unseen questions, in a thread or in a process of its own. Here is what asks and gives orders.

Whoever does the work (`work.py`) writes the run directory and nothing else, and is asked for things through a file
there, `control.json`, that it looks at once a step. So a job can be paused, resumed and stopped by any process that
has the directory: a second notebook, a kernel started anew, a shell. Nothing here trains, and nothing heavy is
imported before a job starts.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import WorkbenchError, unknown
from workbench.training.config import FitConfig
from workbench.training.run import ALIVE, Lock, Run, plain_errors

if TYPE_CHECKING:
    from workbench.backbones.backbone import Backbone
    from workbench.methods.method import Method

OUTPUT = "output.txt"


@dataclass(frozen=True)
class JobConfig:
    """What a job does: enough to do it again."""

    backbone: str
    """A bundled backbone, a folder written by save_pretrained, or a Hub id."""
    task: str | Mapping[str, Any]
    """A task's name or file, or all that `Task.to_config()` says of one."""
    method: str = "soft-prompt"
    """The kind of method that is trained."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of that method's configuration; those left out have their defaults."""
    fit: FitConfig = field(default_factory=FitConfig)
    """How it is trained."""
    device: str = "auto"
    """Where it runs: auto takes the accelerator where there is one; or cpu, cuda:1, …"""
    dtype: str = "auto"
    """The backbone's type: auto is the checkpoint's own on an accelerator and float32 on the CPU; or float32, bfloat16, …"""
    questions: int = 0
    """Unseen questions asked after training, without a prompt, with one written by hand and with the trained one; 0 for
    none."""

    def __post_init__(self) -> None:
        if self.questions < 0:
            raise WorkbenchError(f"questions is {self.questions}; it must be 0 or more")

    @property
    def task_config(self) -> dict[str, Any]:
        """What `Task.from_config` takes."""
        return {"task": self.task} if isinstance(self.task, str) else dict(self.task)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, in the form of a run's `config.json`; `from_json` reads it back."""
        facts = {
            "backbone": {"name": self.backbone},
            "method": {"kind": self.method, "config": dict(self.settings)},
            "task": self.task_config,
            "fit": self.fit.to_json(),
            "job": {"device": self.device, "dtype": self.dtype, "questions": self.questions},
        }
        copy: dict[str, Any] = json.loads(json.dumps(facts))
        return copy

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> JobConfig:
        """The job that `to_json` wrote, or that would do the run with this `config.json`, whoever did it."""
        job = {"dtype": facts["backbone"].get("dtype", "auto"), **facts.get("job", {})}
        fit = FitConfig.from_json(facts["fit"])
        method = facts["method"]
        return cls(facts["backbone"]["name"], facts["task"], method["kind"], method["config"], fit, **job)

    def checked(self, loaded: bool = False) -> JobConfig:
        """The same in full: every setting of the method, a task of the small world as it describes itself, whole paths.

        loaded: the backbone is there, so its name need not lead to it.

        Raises:
            WorkbenchError: what can be found wrong before a backbone, a file or the Hub is read.
        """
        from workbench.backbones.backbone import bundled, locate
        from workbench.tasks.task import Task

        backbone, task = self.backbone, self.task_config
        if not loaded:
            place = Path(locate(backbone))
            backbone = str(place.resolve()) if backbone not in bundled() and place.is_dir() else backbone
        where = task.get("task")
        if isinstance(where, str) and not ("/" in where or Path(where).exists()):
            task = Task.from_config(task).to_config()
        return replace(self, backbone=backbone, task=task, settings=self._settings_in_full())

    def make(self, backbone: Backbone) -> Method:
        """The untrained method."""
        import workbench.methods  # noqa: F401 - the room registers its methods
        from workbench.methods.method import METHODS

        cls = METHODS[self.method]
        return cls.from_config(backbone, cls.Config(**self.settings))

    def _settings_in_full(self) -> dict[str, Any]:
        import workbench.methods  # noqa: F401 - the room registers its methods
        from workbench.methods.method import METHODS, described

        if self.method not in METHODS:
            raise unknown("method", self.method, METHODS)
        config = METHODS[self.method].Config
        known = {f.name for f in fields(config)}
        for name in self.settings:
            if name not in known:
                raise unknown(f"setting of the method {self.method}", name, known)
        try:
            made = config(**described(dict(self.settings)))
            full: dict[str, Any] = json.loads(json.dumps(asdict(made)))
        except (TypeError, ValueError) as error:
            raise WorkbenchError(
                f"{dict(self.settings)} cannot be settings of the method {self.method} ({error})"
            ) from error
        return full


class Job:
    """One run, done in the background.

    >>> job = wb.Job(wb.JobConfig("tiny-llama", "find-person", questions=40), "runs/first").start()
    >>> wb.Job.attach("runs/first").pause()  # from anywhere
    >>> job.resume()
    >>> job.wait()
    'finished'

    In a thread by default, which shares the loaded backbone with others and ends with this process (a run cut short
    like that is "interrupted", and goes on with `attach` and `resume`); `detached=True` in a process of its own, which
    outlives this one and Ctrl-C. Either way a run ends with the same bits, however often it was paused, stopped or cut.

    Args:
        config: what to do.
        run_dir: a new folder; `attach` takes up one that holds a run.
        detached: in a process of its own.
        backbone: one that is loaded already, for a thread; it must have the name that `config` says. Without it, threads
            of this process share what they load.
    """

    def __init__(
        self,
        config: JobConfig,
        run_dir: str | Path,
        detached: bool = False,
        backbone: Backbone | None = None,
    ):
        if backbone is not None and backbone.name != config.backbone:
            raise WorkbenchError(
                f"the job is for {config.backbone}, and the backbone given is {backbone.name}"
            )
        if backbone is not None:
            dtype = str(backbone.dtype).removeprefix("torch.")
            config = replace(config, device=str(backbone.device), dtype=dtype)
        self.config, self.run_dir = config, Path(run_dir).absolute()
        self.detached, self.backbone = detached, backbone
        self._begun = False
        self._thread: threading.Thread | None = None

    @classmethod
    def attach(cls, run_dir: str | Path, detached: bool = False, backbone: Backbone | None = None) -> Job:
        """The job of a run that is there: at work in any process, or ended, or cut short, in which case it can go on.

        Raises:
            WorkbenchError: there is no run.
        """
        job = cls(JobConfig.from_json(Run(run_dir).config), run_dir, detached, backbone)
        job._begun = True
        return job

    # how it stands, as its directory says

    @property
    def run(self) -> Run:
        """Its directory. Raises WorkbenchError before it has begun."""
        return Run(self.run_dir)

    @property
    def state(self) -> str:
        """ "ready", "running", "paused", "stopped", "finished", "failed", or "interrupted": cut short, and can go on."""
        return self.run.state if self._begun else "ready"

    @property
    def error(self) -> str | None:
        """Why it failed, in one sentence."""
        return self.run.status.get("error") if self._begun else None

    @property
    def details(self) -> str | None:
        """The traceback of its failure."""
        return self.run.details if self._begun else None

    # what it is asked to do

    def start(self) -> Job:
        """Begin, or go on from the last checkpoint.

        Raises:
            WorkbenchError: names and settings that cannot work, a used folder, a run that somebody writes. What shows only
                while loading or training ends the job as failed.
        """
        config = self.config.checked(loaded=self.backbone is not None and not self.detached)
        if self._begun:
            lock = self.run.lock()
        else:
            Run.refuse_used(self.run_dir)
            with plain_errors(self.run_dir):
                self.run_dir.mkdir(parents=True, exist_ok=True)
            lock = Lock(self.run_dir)
        try:
            if self._begun:  # where it runs is no part of what was trained
                run = self.run
                run.write_config({**run.config, "job": config.to_json()["job"]})
            else:
                run = Run.create(self.run_dir, config.to_json())
                self.config, self._begun = config, True
            (self.run_dir / "traceback.txt").unlink(missing_ok=True)
            run.write_order("go")
            done = {k: v for k, v in run.status.items() if k in ("step", "steps")}
            run.write_status(state="running", **done, stage="loading", note="reading the libraries")
            if self.detached:
                hand_over(run, lock)
            else:
                self._work(run, lock)
        except BaseException:
            lock.release()
            raise
        return self

    def pause(self) -> None:
        """Wait before the next step. Nothing happens where nothing is at work."""
        self._order("pause")

    def resume(self) -> None:
        """Go on: after a pause wherever it waits, otherwise here, from the last checkpoint."""
        if not self._order("go") and self.state != "finished":
            self.start()

    def stop(self) -> None:
        """End training after the step at hand, with a checkpoint. The questions are still asked; a second stop ends that.

        `resume` goes on from there. Nothing happens where nothing is at work.
        """
        self._order("stop")

    def detach(self) -> None:
        """Hand a running thread over to a process of its own, to the same bits; returns when it has the run.

        It stops after the step at hand, with a checkpoint, and one that was paused stays so. A process stays what it is,
        and a thread that asks its questions ends where it is. One that is not at work begins in a process.
        """
        if self.backbone is not None:
            self.config.checked()  # the process must find it by its name
        self.detached = True
        if not self._order("detach") and self.state != "finished":
            self.start()
        if self._thread is not None:
            self._thread.join()

    def wait(self, timeout: float | None = None) -> str:
        """Wait until it has ended, wherever it is at work, or so many seconds; its state then."""
        end = time.monotonic() + (threading.TIMEOUT_MAX if timeout is None else timeout)
        if self._thread is not None:
            self._thread.join(timeout)
        while self.state in ALIVE and time.monotonic() < end:
            time.sleep(0.05)
        return self.state

    def _order(self, word: str) -> bool:
        """Ask whoever is at work; False where nobody is."""
        if not self._begun or (holder := (run := self.run).holder) is None:
            return False
        if "stage" not in run.status:
            raise WorkbenchError(
                f"{self.run_dir} is written by a loop or a command (process {holder}), which takes no orders; end it there"
            )
        run.write_order(word)
        return True

    def _work(self, run: Run, lock: Lock) -> None:
        from workbench.training.work import Work

        work = Work(run, lock, self.backbone)
        self._thread = threading.Thread(target=work.do, name=f"job {run.name}", daemon=True)
        self._thread.start()


def hand_over(run: Run, lock: Lock) -> None:
    """Do the rest of a run in a process of its own, which holds the lock from now on."""
    environment = dict(os.environ)
    if "torch" in sys.modules:  # how a sum is divided among threads is in its last bits
        environment["OMP_NUM_THREADS"] = str(sys.modules["torch"].get_num_threads())
    with plain_errors(run.path), (run.path / OUTPUT).open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "workbench.training.job", str(run.path), str(lock.fd)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=(lock.fd,),
            start_new_session=True,
        )
    lock.leave()
    threading.Thread(target=process.wait, daemon=True).start()  # so that it leaves no zombie


def main(run_dir: str, descriptor: str | None = None) -> None:
    """What the process does; a polite end (SIGTERM, as from a machine that goes down) stops it with a checkpoint."""
    from workbench.training.work import Work

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run = Run(run_dir)
    Work(run, Lock(run.path, None if descriptor is None else int(descriptor)), process=True).do()


if __name__ == "__main__":
    main(*sys.argv[1:])

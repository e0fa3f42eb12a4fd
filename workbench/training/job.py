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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import WorkbenchError
from workbench.training.config import SHARED, FitConfig
from workbench.training.run import ALIVE, OVER, Lock, Run, numbered, plain_errors

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
        job.pop("bank", None)  # which runs are trained together is no part of any of them
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
        from workbench.methods.method import configured

        try:
            made = configured(self.method, self.settings)
            full: dict[str, Any] = json.loads(json.dumps(asdict(made)))
        except (TypeError, ValueError) as error:
            raise WorkbenchError(
                f"{dict(self.settings)} cannot be settings of the method {self.method} ({error})"
            ) from error
        return full


class Job:
    """One run, or several that train as one bank, done in the background.

    >>> job = wb.Job(wb.JobConfig("tiny-llama", "find-person", questions=40), "runs/first").start()
    >>> wb.Job.attach("runs/first").pause()  # from anywhere
    >>> job.resume()
    >>> job.wait()
    'finished'
    >>> configs = [wb.JobConfig("tiny-llama", "reading", settings={"prior": prior}) for prior in my_priors]
    >>> wb.Job(configs, "runs/study").start()  # runs/study/00, 01, …, each a run like any other

    In a thread by default, which shares the loaded backbone with others and ends with this process (a run cut short
    like that is "interrupted", and goes on with `attach` and `resume`); `detached=True` in a process of its own, which
    outlives this one and Ctrl-C. Either way a run ends with the same bits, however often it was paused, stopped or cut.

    Of a bank, what is asked for is done by all. A member that finishes, converges or diverges leaves with its own
    status, and the others go on; those that failed are tried again only when no other is left to go on.

    Args:
        config: what to do; or several, that differ in what they like but in backbone, device, dtype, method, the shape of
            the prompt, precision and gradient_checkpointing.
        run_dir: a new folder, or one for each config; of several configs one folder takes the runs 00, 01, … of all.
            `attach` takes up one that holds a run.
        detached: in a process of its own.
        backbone: one that is loaded already, for a thread; it must have the name that `config` says. Without it, threads
            of this process share what they load.

    Attributes:
        configs, run_dirs: of all its runs, in order.
        run_dir: of the run that it was attached by, or of the first.
    """

    def __init__(
        self,
        config: JobConfig | Sequence[JobConfig],
        run_dir: str | Path | Sequence[str | Path],
        detached: bool = False,
        backbone: Backbone | None = None,
    ):
        configs = [config] if isinstance(config, JobConfig) else list(config)
        if isinstance(run_dir, (str, Path)):
            paths = [Path(run_dir)] if isinstance(config, JobConfig) else numbered(run_dir, len(configs))
        else:
            paths = [Path(path) for path in run_dir]
        paths = [path.absolute() for path in paths]
        if not configs:
            raise WorkbenchError("a job needs at least one config")
        if len(paths) != len(configs) or len(set(paths)) < len(paths):
            raise WorkbenchError(
                f"{len(set(paths))} different folders are given for {len(configs)} configs; give one for each"
            )
        for n, asked in enumerate(configs):
            if backbone is None:
                break
            if backbone.name != asked.backbone:
                raise WorkbenchError(
                    f"the job is for {asked.backbone}, and the backbone given is {backbone.name}"
                )
            dtype = str(backbone.dtype).removeprefix("torch.")
            configs[n] = replace(asked, device=str(backbone.device), dtype=dtype)
        self.configs, self.run_dirs, self.run_dir = configs, paths, paths[0]
        self.detached, self.backbone = detached, backbone
        self._begun = False
        self._thread: threading.Thread | None = None

    @classmethod
    def attach(
        cls,
        run_dir: str | Path | Sequence[str | Path],
        detached: bool = False,
        backbone: Backbone | None = None,
    ) -> Job:
        """The job of a run that is there: at work in any process, or ended, or cut short, in which case it can go on.

        Of a run that was trained in a job of several, it is that job. Several folders, of runs that were trained by
        themselves or in a `fit_many`, go on as one bank.

        Raises:
            WorkbenchError: there is no run, or another of its bank is not where it was.
        """
        given = [run_dir] if isinstance(run_dir, (str, Path)) else run_dir
        asked = [Path(path).absolute() for path in given]
        banks = [_bank_of(path) for path in asked]
        for path, bank in zip(asked, banks, strict=True):
            if len(asked) > 1 and bank not in ([path], asked):
                raise WorkbenchError(
                    f"{path} was trained in one bank with others than those given; attach {path} alone, which takes "
                    "all of its bank"
                )
        paths = banks[0] if len(asked) == 1 else asked
        job = cls([JobConfig.from_json(Run(path).config) for path in paths], paths, detached, backbone)
        job.run_dir, job._begun = asked[0], True
        return job

    # how it stands, as its directories say

    @property
    def config(self) -> JobConfig:
        """What is done in `run_dir`."""
        return self.configs[self.run_dirs.index(self.run_dir)]

    @property
    def run(self) -> Run:
        """The directory `run_dir`. Raises WorkbenchError before it has begun."""
        return Run(self.run_dir)

    @property
    def runs(self) -> list[Run]:
        """The directories of all its runs. Raises WorkbenchError before it has begun."""
        return [Run(path) for path in self.run_dirs]

    @property
    def state(self) -> str:
        """ "ready", "running", "paused", "stopped", "finished", "failed", or "interrupted": cut short, and can go on.

        Of a bank, the first of running, paused, interrupted, stopped, failed that one of its runs is; or finished, as all.
        """
        if not self._begun:
            return "ready"
        states = [run.state for run in self.runs]
        order = ("running", "paused", "interrupted", "new", "stopped", "failed")
        return next((state for state in order if state in states), states[0])

    @property
    def error(self) -> str | None:
        """Why it failed, in one sentence; of a bank, one for each of its runs that failed by itself."""
        errors = {run.name: str(run.status.get("error")) for run in self._failed}
        if len({*errors.values()}) == 1 and len(errors) == len(self.run_dirs):
            return next(iter(errors.values()))
        return "; ".join(f"{name}: {error}" for name, error in errors.items()) or None

    @property
    def details(self) -> str | None:
        """The traceback of its failure; of a bank, of the first."""
        return next((run.details for run in self._failed if run.details), None)

    @property
    def _failed(self) -> list[Run]:
        return [run for run in self.runs if run.status["state"] == "failed"] if self._begun else []

    # what it is asked to do

    def start(self) -> Job:
        """Begin, or go on from the last checkpoint.

        Raises:
            WorkbenchError: names and settings that cannot work, a used folder, a run that somebody writes. What shows only
                while loading or training ends the job as failed.
        """
        loaded = self.backbone is not None and not self.detached
        configs = [config.checked(loaded) for config in self.configs]
        _check_bank(configs)
        if not self._begun:
            for path in self.run_dirs:
                Run.refuse_used(path)
            for path in self.run_dirs:
                with plain_errors(path):
                    path.mkdir(parents=True, exist_ok=True)
        locks: list[Lock] = []
        try:
            for path in self.run_dirs:
                locks.append(Lock(path))
            for path, config in zip(self.run_dirs, configs, strict=True):
                facts = config.to_json()
                if len(configs) > 1:
                    facts["job"]["bank"] = [os.path.relpath(other, path.parent) for other in self.run_dirs]
                if self._begun:  # where it runs is no part of what was trained
                    run = Run(path)
                    run.write_config({**run.config, "job": facts["job"]})
                else:
                    Run.create(path, facts)
            if not self._begun:
                self.configs, self._begun = configs, True
            self.runs[0].write_order("go")
            for run in _to_do(self.runs):
                (run.path / "traceback.txt").unlink(missing_ok=True)
                done = {k: v for k, v in run.status.items() if k in ("step", "steps", "kept_step")}
                run.write_status(state="running", **done, stage="loading", note="reading the libraries")
            if self.detached:
                hand_over(self.runs, locks)
            else:
                self._work(locks)
        except BaseException:
            for lock in locks:
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
        alive = [run for run in self.runs if run.state in ALIVE] if self._begun else []
        if not alive:
            return False
        if not any("stage" in run.status for run in self.runs):
            raise WorkbenchError(
                f"{alive[0].path} is written by a loop or a command (process {alive[0].holder}), which takes no orders; "
                "end it there"
            )
        self.runs[0].write_order(word)
        return True

    def _work(self, locks: list[Lock]) -> None:
        from workbench.training.work import Work

        work = Work(self.runs, locks, self.backbone)
        self._thread = threading.Thread(target=work.do, name=f"job {self.run_dir.name}", daemon=True)
        self._thread.start()


def _bank_of(path: Path) -> list[Path]:
    """The directories of all runs that were trained in one bank with the run at `path`, in order."""
    names = Run(path).config.get("job", {}).get("bank")
    if names is None:
        return [path]
    paths = [Path(os.path.normpath(path.parent / name)) for name in names]
    bank, alone = ", ".join(names), "or go on with each run by itself, by wb.resume(folder)"
    for name, other in zip(names, paths, strict=True):
        while not (made := (other / "config.json").is_file()) and Lock.holder(other):
            time.sleep(0.01)  # it is just being made
        if not made:
            raise WorkbenchError(
                f"{path} was trained in one bank, {bank}, and {name} is not there any more; put it back, {alone}"
            )
    if path not in paths:
        raise WorkbenchError(
            f"{path} was trained in one bank, {bank}, and had one of these names; give it that again, {alone}"
        )
    return paths


def _check_bank(configs: Sequence[JobConfig]) -> None:
    """Refuse configurations, in full, that cannot share their passes."""
    first = configs[0]
    for other in configs[1:]:
        for name in ("backbone", "device", "dtype", "method", *SHARED):
            one, two = (getattr(config.fit if name in SHARED else config, name) for config in (first, other))
            if one != two:
                raise WorkbenchError(
                    f"the runs of one job share their passes, so {name} must be the same in all, not {one} and {two}; "
                    "start a job for each"
                )
        for name, value in first.settings.items():
            if name not in ("prior", "seed") and value != other.settings[name]:
                raise WorkbenchError(
                    f"prompts of one job need one shape, so {name} must be the same in all, not {value} and "
                    f"{other.settings[name]}; start a job for each"
                )


def _to_do(runs: Sequence[Run]) -> list[Run]:
    """Those of a job's runs that go on when it starts: all that are not over; or else those that failed; or else all."""
    states = [(run, run.status["state"]) for run in runs]
    going = [run for run, state in states if state not in OVER]
    return going or [run for run, state in states if state == "failed"] or list(runs)


def hand_over(runs: Sequence[Run], locks: Sequence[Lock]) -> None:
    """Do the rest of a job in a process of its own, which holds the locks from now on."""
    environment = dict(os.environ)
    if "torch" in sys.modules:  # how a sum is divided among threads is in its last bits
        environment["OMP_NUM_THREADS"] = str(sys.modules["torch"].get_num_threads())
    words = [word for run, lock in zip(runs, locks, strict=True) for word in (str(run.path), str(lock.fd))]
    with plain_errors(runs[0].path), (runs[0].path / OUTPUT).open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "workbench.training.job", *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=[lock.fd for lock in locks],
            start_new_session=True,
        )
    for lock in locks:
        lock.leave()
    threading.Thread(target=process.wait, daemon=True).start()  # so that it leaves no zombie


def main(*words: str) -> None:
    """What the process does; a polite end (SIGTERM, as from a machine that goes down) stops it with a checkpoint.

    words: the directory of each run, and after each the descriptor of its lock.
    """
    from workbench.training.work import Work

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    runs = [Run(path) for path in words[::2]]
    locks = [Lock(run.path, int(word)) for run, word in zip(runs, words[1::2], strict=True)]
    Work(runs, locks, process=True).do()


if __name__ == "__main__":
    main(*sys.argv[1:])

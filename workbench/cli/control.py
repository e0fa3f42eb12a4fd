"""`workbench pause|resume|stop`: orders to a job at work, in whichever process it is. Loads no model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.training.job import Job


@dataclass(frozen=True)
class Pause:
    """Hold a job before its next step; `workbench resume` lets it go on."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """The directory of the run."""

    def run(self) -> int:
        """Asks for it, and says so."""
        at_work(self.run_dir, "pause").pause()
        print(f"{self.run_dir} pauses before its next step")
        return 0


@dataclass(frozen=True)
class Stop:
    """End a job after the step at hand, with a checkpoint. If it is to ask questions, it still does; a second stop ends
    that."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """The directory of the run."""

    def run(self) -> int:
        """Asks for it, and says so."""
        at_work(self.run_dir, "stop").stop()
        print(
            f"{self.run_dir} stops after the step at hand; `workbench resume {self.run_dir}` goes on from there"
        )
        return 0


@dataclass(frozen=True)
class Resume:
    """Let a paused job go on; or go on with a run that was stopped or cut short, in a process of its own."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """The directory of the run."""

    def run(self) -> int:
        """Asks for it, or starts it, and says so."""
        from workbench.cli.train import announce
        from workbench.training.job import Job

        job = Job.attach(self.run_dir, detached=True)
        if job.state == "finished":
            raise WorkbenchError(f"{self.run_dir} is finished; there is nothing to go on with")
        if job.run.holder is None:
            return announce(job, self.run_dir)
        job.resume()
        print(f"{self.run_dir} goes on")
        return 0


def at_work(run_dir: Path, what: str) -> Job:
    """The job of a run that somebody is at work on.

    Raises:
        WorkbenchError: nobody is.
    """
    from workbench.training.job import Job

    job = Job.attach(run_dir)
    if job.run.holder is None:
        raise WorkbenchError(f"{run_dir} is {job.state}; there is nothing to {what}")
    return job

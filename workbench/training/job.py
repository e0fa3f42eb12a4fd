"""A training run in a thread: start, pause, resume, stop. Writes the run directory and nothing else.

The thread shares the loaded backbone, which stays frozen; views learn everything from the run directory.
"""

from __future__ import annotations

import threading
import traceback
from pathlib import Path

from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError
from workbench.methods.method import Method
from workbench.tasks.task import Task
from workbench.training.config import FitConfig
from workbench.training.fit import fit
from workbench.training.run import Run


class Job:
    """One run, trained in the background.

    Args:
        backbone, method, task, config: as `fit` takes them.
        run_dir: the run directory; a run that is there already goes on.

    Attributes:
        state: "ready", "running", "paused", "stopped", "finished" or "failed".
        error: one sentence when it failed, and `details` with the traceback.
    """

    def __init__(
        self, backbone: Backbone, method: Method, task: Task, config: FitConfig, run_dir: str | Path
    ):
        self.backbone, self.method, self.task, self.config = backbone, method, task, config
        self.run_dir = Path(run_dir)
        self.state = "ready"
        self.error: str | None = None
        self.details: str | None = None
        self._go = threading.Event()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> Job:
        """Begin, or go on with a stopped run. Settings that cannot work raise here, in the caller's thread."""
        if self._thread is not None and self._thread.is_alive():
            raise WorkbenchError(
                f"the job in {self.run_dir} is {self.state} already; pause, resume or stop it"
            )
        resume = (self.run_dir / "config.json").is_file()
        steps = fit(self.backbone, self.method, self.task, self.config, self.run_dir, resume=resume)
        self._end.clear()
        self._go.set()
        self.state, self.error, self.details = "running", None, None
        self._thread = threading.Thread(
            target=self._work, args=(steps,), name=f"job {self.run_dir.name}", daemon=True
        )
        self._thread.start()
        return self

    def pause(self) -> None:
        """Wait before the next step; the run's status says paused."""
        self._go.clear()

    def resume(self) -> None:
        """Go on after a pause, or with a stopped run."""
        if self._thread is not None and self._thread.is_alive():
            self._go.set()
        else:
            self.start()

    def stop(self) -> None:
        """End after the step at hand, with a checkpoint; `resume` goes on from there."""
        self._end.set()
        self._go.set()

    def wait(self, timeout: float | None = None) -> str:
        """Wait until the job has ended, and give its state."""
        if self._thread is not None:
            self._thread.join(timeout)
        return self.state

    def _work(self, steps) -> None:  # type: ignore[no-untyped-def]
        try:
            for _ in steps:
                if not self._go.is_set():
                    self._pause_here()
                if self._end.is_set():
                    steps.close()
                    self.state = "stopped"
                    return
            self.state = "finished"
        except Exception as error:
            self.error = (
                str(error) if isinstance(error, WorkbenchError) else f"{type(error).__name__}: {error}"
            )
            self.details = traceback.format_exc()
            self.state = "failed"

    def _pause_here(self) -> None:
        run = Run(self.run_dir)
        before = run.status
        self.state = "paused"
        run.write_status(**{**before, "state": "paused", "step": len(run.metrics())})
        self._go.wait()
        if not self._end.is_set():
            self.state = "running"
            run.write_status(**{**run.status, "state": "running"})

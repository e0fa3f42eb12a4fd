"""What every panel that trains does beside what `panel.py` does: it starts jobs, and follows their runs on the disk.

A job (`wb.Job`) writes the runs' directories; the panel's thread reads them, and draws. It knows no method and no figure.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import ipywidgets as w

from workbench.errors import WorkbenchError
from workbench.training.job import Job
from workbench.training.run import Run
from workbench.views.panel import Panel
from workbench.views.status import Moment, Start, fault_html, moment, status_html
from workbench.views.theme import BLUE, Theme

if TYPE_CHECKING:
    from workbench.training.cost import Cost

ACTIVE = ("loading", "training", "paused", "answering")


class TrainingPanel(Panel):
    """A panel that trains what its form says, and shows the newest runs in its folder.

    A subclass makes `form` before it calls this constructor, and gives what is abstract here.

    Args:
        folder: where runs are written; the newest job that lies there is shown at once.
    """

    # What was last started in each folder; it outlives the panel that started it.
    _starts: ClassVar[dict[Path, Start]] = {}

    def __init__(self, folder: str | Path, theme: Theme = "light") -> None:
        super().__init__(folder, theme)
        self._start = self._starts.get(self.folder)
        beginning = self._start if self._start and self._start.is_alive() else None
        self.paths = beginning.job.run_dirs if beginning else self._newest_paths()
        if beginning:
            self.form.value = self._asked(beginning.job)
        elif self.paths:
            self.form.value = self._asked(Job.attach(self.paths[0]))
        self.begin()

    # What a subclass gives

    @abstractmethod
    def _job(self, settings: Any) -> Job:
        """What Train starts."""

    @abstractmethod
    def _asked(self, job: Job) -> Any:
        """What the form said when a job was started."""

    @abstractmethod
    def _newest_paths(self) -> list[Path]:
        """The runs in the folder to look at; none, where there are none."""

    @abstractmethod
    def _cost(self, settings: Any) -> Cost:
        """What a training would cost; may take seconds."""

    @abstractmethod
    def _draw(self, runs: list[Run]) -> bool:
        """Brings that up to what the runs' directories say now; False where there is no news, which must be cheap.

        See `Panel._look`.
        """

    def _beside(self) -> Callable[[Job], None] | None:
        """What is to be done beside a job once it has begun, in the thread that started it."""
        return None

    # What it shows

    @property
    def runs(self) -> list[Run]:
        """The runs that are shown, once their directories are there."""
        return [Run(path) for path in self.paths if (path / "config.json").exists()]

    @property
    def moment(self) -> Moment | None:
        """Where the runs that are shown stand; None before the first."""
        start = self._start if self._start and self._start.job.run_dirs == self.paths else None
        return moment(self.runs, start) if self.paths else None

    # What the buttons do: each returns at once

    def train(self) -> None:
        """Starts new runs with what the form says."""
        self._begin(self._job(self.form.value))

    def estimate(self) -> None:
        """Says below the form what the training would cost, from a few steps of it that change nothing."""
        settings = self.form.value
        self.form.show_cost("A few steps are tried …", settings)
        threading.Thread(target=self._estimate, args=(settings,), name="estimate", daemon=True).start()

    def _estimate(self, settings: Any) -> None:
        try:
            self.form.show_cost(self._cost(settings), settings)
        except Exception as error:
            self.form.show_cost(None, settings)
            self._fault = error
            self._say()

    def pause(self) -> None:
        """Holds the training; `resume` lets it go on."""
        if self.runs:
            Job.attach(self.paths[0]).pause()

    def resume(self) -> None:
        """Goes on: with a paused training, or from the checkpoint of one that was stopped or interrupted."""
        if (runs := self.runs) and any(run.holder for run in runs):
            Job.attach(self.paths[0]).resume()
        elif runs:
            self._begin(Job.attach(self.paths[0]))

    def stop(self) -> None:
        """Ends the training; what is trained is kept as it is then. Again, while questions are asked: ends those too."""
        if self.runs:
            Job.attach(self.paths[0]).stop()
        elif self._start:
            self._start.stop()

    def wait(self, seconds: float | None = None) -> bool:
        """For scripts: waits for the training to end and brings the panel up to date; False when time ran out."""
        end = threading.TIMEOUT_MAX if seconds is None else seconds
        if self._start:
            self._start.join(end)
        if self.runs:
            Job.attach(self.paths[0]).wait(end)
        self.refresh()
        return not self._active()

    def _active(self) -> bool:
        now = self.moment
        return now is not None and now.stage in ACTIVE

    def _begin(self, job: Job) -> None:
        if self._active():
            raise WorkbenchError("a prompt is being trained here; stop it first")
        self._start = self._starts[self.folder] = Start(job, self._beside())
        self.paths, self._fault = job.run_dirs, None
        self._start.start()
        self._say()

    # How it is kept up to date

    def _look(self) -> bool:
        return self._draw(self.runs)

    def _stand(self) -> str:
        now = self.moment
        stage = now.stage if now else None
        active = stage in ACTIVE
        undone = now is not None and now.step < now.steps
        resumable = stage == "paused" or (stage in ("stopped", "interrupted") and undone)
        self.form.set_disabled(active)
        self._train.disabled = self._ask.disabled = active
        self._hold.disabled = not (stage == "training" or resumable)
        self._hold.description, self._hold.icon = ("Resume", "play") if resumable else ("Pause", "pause")
        self._end.disabled = not active
        where = self.paths[0] if len(self.paths) == 1 else self.paths[0].parent if self.paths else None
        html = status_html(now, where)
        start = self._start
        if start and start.error and now and start.job.run_dirs == self.paths and not now.error:
            html += fault_html(start.error, start.trace)
        return html

    # How it is put together

    def _make_buttons(self) -> list[w.Button]:
        self._train = self.button("Train", "bolt", self.train, button_color=BLUE, text_color="white")
        self._hold = self.button("Pause", "pause", lambda: self.resume() if self._resumes() else self.pause())
        self._end = self.button("Stop", "stop", self.stop)
        self._ask = self.button("Estimate", "clock-o", self.estimate)
        return [self._train, self._hold, self._end, self._ask, *self._more_buttons()]

    def _more_buttons(self) -> list[w.Button]:
        """Buttons of this kind of panel alone."""
        return []

    def _resumes(self) -> bool:
        return bool(self._hold.description == "Resume")

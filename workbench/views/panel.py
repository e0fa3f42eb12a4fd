"""What every panel that trains does: form, buttons, status line, and a thread that follows the runs on the disk.

A job (`wb.Job`) writes the runs' directories; a thread here reads them five times a second, and draws. No callback does
more than write a small file, start a thread or set a flag, because in a notebook a callback waits for the running cell
and the page waits for the callback. What the page shows therefore follows from the disk, so a reloaded page, or the
cell run again, shows the same. It knows no method and no figure.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import ipywidgets as w

from workbench.errors import WorkbenchError
from workbench.training.job import Job
from workbench.training.run import Run
from workbench.views.form import Form
from workbench.views.live import INTERVAL
from workbench.views.status import STYLE, Moment, Start, fault_html, moment, status_html
from workbench.views.theme import BLUE, CSS, Theme

if TYPE_CHECKING:
    from workbench.training.cost import Cost

ACTIVE = ("loading", "training", "paused", "answering")


class Panel(ABC):
    """A panel that trains what its form says, and shows the newest runs in its folder.

    A subclass makes `form` before it calls this constructor, and gives what is abstract here.

    Args:
        folder: where runs are written; the newest job that lies there is shown at once.
    """

    form: Form[Any]
    # The newest panel of each kind and folder: a cell run again makes a new one, and the older must stop.
    _newest: ClassVar[dict[tuple[type, Path], Panel]] = {}
    # What was last started in each folder; it outlives the panel that started it.
    _starts: ClassVar[dict[Path, Start]] = {}

    def __init__(self, folder: str | Path, theme: Theme = "light") -> None:
        self.folder, self.theme = Path(folder).resolve(), theme
        self._saying, self._drawing = threading.RLock(), threading.Lock()  # the first is never held for long
        self._closed, self._news = threading.Event(), threading.Event()
        self._fault: Exception | None = None  # of a button
        self._undrawn: Exception | None = None
        self._build()
        self._start = self._starts.get(self.folder)
        beginning = self._start if self._start and self._start.is_alive() else None
        self.paths = beginning.job.run_dirs if beginning else self._newest_paths()
        if (older := self._newest.get((type(self), self.folder))) is not None:
            older.close()
        self._newest[type(self), self.folder] = self
        if beginning:
            self.form.value = self._asked(beginning.job)
        elif self.paths:
            self.form.value = self._asked(Job.attach(self.paths[0]))
        self.refresh()
        threading.Thread(target=self._watch, name=f"{type(self).__name__} panel", daemon=True).start()

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
    def _body(self) -> list[w.Widget]:
        """What stands below the status line."""

    @abstractmethod
    def _draw(self, runs: list[Run]) -> bool:
        """Brings that up to what the runs' directories say now; False where there is no news, which must be cheap.

        Called by one thread at a time. What it raises is said in the panel until a drawing goes well.
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

    def widget(self) -> w.VBox:
        """The panel itself."""
        return self._box

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self._box._repr_mimebundle_(**options)

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

    def close(self) -> None:
        """Stops reading and drawing; work that goes on, goes on."""
        self._closed.set()
        self._news.set()
        with self._saying:
            for button in self._buttons:
                button.disabled = True
            self._status.value = (
                "<div class='wb-status'><small>This panel has moved to a newer cell.</small></div>"
            )

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

    def _watch(self) -> None:
        while not self._closed.is_set():
            self._news.wait(INTERVAL)
            self._news.clear()
            self.refresh()

    def refresh(self) -> None:
        """Brings every widget up to what the runs' directories say now; cheap when nothing changed."""
        self._say()
        with self._drawing:
            if self._closed.is_set():
                return
            try:
                if self._draw(self.runs):
                    self._undrawn = None
            except Exception as error:
                self._undrawn = error
        if self._undrawn:
            self._say()

    def _say(self) -> None:
        """Where things stand, in the sentence and on the buttons: what a callback has time for."""
        with self._saying:
            if self._closed.is_set():
                return
            try:
                self._show(self.moment)
            except Exception as error:  # a damaged file; said until it can be read
                self._status.value = fault_html(str(error), "")

    def _show(self, now: Moment | None) -> None:
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
        html += "".join(fault_html(str(fault), "") for fault in (self._fault, self._undrawn) if fault)
        if (
            (start := self._start)
            and start.error
            and now
            and start.job.run_dirs == self.paths
            and not now.error
        ):
            html += fault_html(start.error, start.trace)
        if self._status.value != html:
            self._status.value = html

    # How it is put together

    def _build(self) -> None:
        self._train = self.button("Train", "bolt", self.train, button_color=BLUE, text_color="white")
        self._hold = self.button("Pause", "pause", lambda: self.resume() if self._resumes() else self.pause())
        self._end = self.button("Stop", "stop", self.stop)
        self._ask = self.button("Estimate", "clock-o", self.estimate)
        self._buttons = [self._train, self._hold, self._end, self._ask, *self._more_buttons()]
        self._status = w.HTML(layout={"width": "100%"})
        style = w.HTML(f"<style>{CSS}{STYLE}</style>", layout={"display": "none"})
        buttons = w.HBox(self._buttons).add_class("wb-buttons")
        parts = [style, self.form.box, buttons, self._status, *self._body()]
        self._box = w.VBox(parts).add_class("wb-panel").add_class(f"wb-{self.theme}")

    def _more_buttons(self) -> list[w.Button]:
        """Buttons of this kind of panel alone."""
        return []

    def _resumes(self) -> bool:
        return bool(self._hold.description == "Resume")

    def button(self, text: str, icon: str, call: Callable[[], None], **style: str) -> w.Button:
        """A button that does `call`, and says in the panel what went wrong there."""

        def pressed(_: w.Button) -> None:
            try:
                call()
            except Exception as error:
                self._fault = error
                self._say()

        button = w.Button(description=text, icon=icon, style=style)
        button.on_click(pressed)
        return button


def bundled() -> list[str]:
    """The names of the bundled backbones; reads no library."""
    from workbench.data import BACKBONES

    return sorted(path.parent.name for path in BACKBONES.glob("*/config.json"))

"""The panel of the first notebook: choose, train, watch, compare. It starts work and reads what the work wrote.

A job (`wb.Job`) writes a run's directory; a thread here reads that directory five times a second and brings the
widgets up to date. No callback does more than write a small file, start a thread or say a sentence, because the page
waits for a callback and so does the whole kernel; figures are made in that thread alone. What the page shows follows
from the disk, so a reloaded page, or the cell run again, shows the same.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as w

from workbench.errors import WorkbenchError
from workbench.training.answers import FILE as ANSWERS
from workbench.training.job import Job
from workbench.training.run import Run
from workbench.views.answers import Answers
from workbench.views.curves import Curves
from workbench.views.form import Form
from workbench.views.live import INTERVAL
from workbench.views.movement import Movement
from workbench.views.theme import BLUE, Theme
from workbench.views.work import (
    FRAME,
    METRICS,
    Moment,
    Settings,
    Start,
    config_of,
    cost_of,
    moment,
    new_path,
    newest_path,
    settings_of,
)

#: Tasks of the small world that the form offers unless told otherwise.
TASKS = ("find-person", "second-word", "smaller-number", "comparative", "female-of", "swap-ends")

STYLE = """
.wb-panel { max-width: 920px; padding: 4px 10px 10px 2px; background: var(--wb-paper); }
.wb-panel .widget-html { margin: 0; }
.wb-panel .wb-buttons { column-gap: 8px; margin: 12px 0 2px; align-items: center; }
.wb-panel .wb-buttons button { height: 32px; line-height: 32px; width: 104px; margin: 0; border-radius: 4px; }
.wb-panel .wb-status { font: 13px/1.5 var(--jp-ui-font-family, system-ui, sans-serif); color: var(--wb-text);
  font-variant-numeric: tabular-nums; margin-bottom: 8px; }
.wb-panel .wb-status small { color: var(--wb-quiet); font-size: 12px; }
.wb-panel .wb-track { height: 4px; border-radius: 2px; background: var(--wb-line); margin: 8px 0 6px; }
.wb-panel .wb-track > div { height: 4px; border-radius: 2px; background: var(--wb-first); transition: width .2s linear; }
.wb-panel .wb-track.wb-paused > div { background: var(--wb-quiet); }
.wb-panel .wb-track.wb-failed > div { background: var(--wb-second); }
.wb-panel .wb-track.wb-finished > div { background: var(--wb-good); }
.wb-panel .wb-error { border-left: 3px solid var(--wb-second); padding: 6px 12px; margin: 8px 0; }
.wb-panel .wb-error pre { font-size: 11px; line-height: 1.4; overflow-x: auto; color: var(--wb-quiet); }
.wb-panel .wb-error summary { cursor: pointer; color: var(--wb-quiet); font-size: 12px; margin-top: 4px; }
"""

# The newest panel of each folder: a cell run again makes a new one, and the older must stop reading and drawing.
_newest: dict[Path, FirstPrompt] = {}
# What was last started in each folder; it outlives the panel that started it.
_starts: dict[Path, Start] = {}


class FirstPrompt:
    """A panel that trains a soft prompt and shows it: `FirstPrompt("runs/first_prompt")` as the last line of a cell.

    folder: where runs are written; the newest run that lies there is shown at once.
    backbones, tasks: what the form offers, names or paths; by default the bundled backbones, and some tasks of the
    small world. settings: what the form starts with, the fields of `Settings`.
    """

    def __init__(
        self,
        folder: str | Path = "runs/first_prompt",
        backbones: Sequence[str] | None = None,
        tasks: Sequence[str] | None = None,
        theme: Theme = "light",
        **settings: Any,
    ) -> None:
        self.folder = Path(folder).resolve()
        offered = {"backbone": tuple(backbones or _bundled()), "task": tuple(tasks or TASKS)}
        self.form = Form(Settings(**{name: names[0] for name, names in offered.items()} | settings), offered)
        self.curves, self.movement, self.answers = (
            Curves(None, theme),
            Movement(None, None, theme),
            Answers(None, theme),
        )
        self._saying, self._drawing = threading.RLock(), threading.Lock()  # the first is never held for long
        self._closed = threading.Event()
        self._drawn: tuple[Any, ...] = ()
        self._fault: Exception | None = None
        self._build(theme)
        self._start = _starts.get(self.folder)
        beginning = self._start if self._start and self._start.is_alive() else None
        self.path = beginning.path if beginning else newest_path(self.folder)
        if (older := _newest.get(self.folder)) is not None:
            older.close()
        _newest[self.folder] = self
        if beginning:
            self.form.value = settings_of(beginning.job.config)
        elif self.path:
            self.form.value = settings_of(Job.attach(self.path).config)
        self.refresh()
        threading.Thread(target=self._watch, name="first-prompt panel", daemon=True).start()

    # What it shows

    @property
    def run(self) -> Run | None:
        """The run that is shown, once its directory is there."""
        return Run(self.path) if self.path and (self.path / "config.json").exists() else None

    @property
    def moment(self) -> Moment | None:
        """Where the run that is shown stands; None before the first."""
        start = self._start if self._start and self._start.path == self.path else None
        return moment(self.run, start) if self.path else None

    def widget(self) -> w.VBox:
        """The panel itself."""
        return self._box

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self._box._repr_mimebundle_(**options)

    # What the buttons do: each returns at once

    def train(self) -> None:
        """Starts a new run with what the form says."""
        settings = self.form.value
        self._begin(Job(config_of(settings), new_path(self.folder, settings)))

    def estimate(self) -> None:
        """Says below the form what the training would cost, from a few steps of it that change nothing."""
        settings = self.form.value
        self.form.show_cost("A few steps are tried …", settings)
        threading.Thread(target=self._estimate, args=(settings,), name="estimate", daemon=True).start()

    def _estimate(self, settings: Settings) -> None:
        try:
            self.form.show_cost(cost_of(settings), settings)
        except Exception as error:
            self.form.show_cost(None, settings)
            self._fault = error
            self._say()

    def pause(self) -> None:
        """Holds the training; `resume` lets it go on."""
        if self.run:
            Job.attach(self.run.path).pause()

    def resume(self) -> None:
        """Goes on: with a paused training, or from the checkpoint of one that was stopped or interrupted."""
        if (run := self.run) and run.holder:
            Job.attach(run.path).resume()
        elif run:
            self._begin(Job.attach(run.path))

    def stop(self) -> None:
        """Ends the training; the prompt as it is then is kept, and its answers are shown. Again: ends those too."""
        if self.run:
            Job.attach(self.run.path).stop()
        elif self._start:
            self._start.stop()

    def wait(self, seconds: float | None = None) -> bool:
        """For scripts: waits for the run to end and brings the panel up to date; False when time ran out."""
        end = threading.TIMEOUT_MAX if seconds is None else seconds
        if self._start:
            self._start.join(end)
        if self.run:
            Job.attach(self.run.path).wait(end)
        self.refresh()
        return not self._active()

    def close(self) -> None:
        """Stops reading and drawing; work that goes on, goes on."""
        self._closed.set()
        with self._saying:
            for button in self._buttons:
                button.disabled = True
            self._status.value = (
                "<div class='wb-status'><small>This panel has moved to a newer cell.</small></div>"
            )

    def _active(self) -> bool:
        now = self.moment
        return now is not None and now.stage in ("loading", "training", "paused", "answering")

    def _begin(self, job: Job) -> None:
        if self._active():
            raise WorkbenchError("a prompt is being trained here; stop it first")
        self._start = _starts[self.folder] = Start(job)
        self.path, self._fault = self._start.path, None
        self._start.start()
        self._say()

    # How it is kept up to date

    def _watch(self) -> None:
        while not self._closed.wait(INTERVAL):
            try:
                self.refresh()
            except Exception as error:  # said until a look goes well again
                self._status.value = fault_html(str(error), "")

    def refresh(self) -> None:
        """Brings every widget up to what the run's directory says now; cheap when nothing changed."""
        self._say()
        self._draw()

    def _say(self) -> None:
        """Where things stand, in the sentence and on the buttons: what a callback has time for."""
        with self._saying:
            if not self._closed.is_set():
                self._show(self.moment)

    def _draw(self) -> None:
        """The figures and the answers, where the run's directory has news for them."""
        with self._drawing:
            path, run = self.path, self.run
            drawn = (path, len(run.snapshots()) if run else 0, *_written(path))
            if drawn == self._drawn or self._closed.is_set():
                return
            self.curves.run = self.answers.run = run
            frame = path / FRAME if path else None
            self.movement.show(run, frame if frame and frame.exists() else None)
            for view in (self.curves, self.movement, self.answers):
                view.update()
            self._drawn = drawn

    def _show(self, now: Moment | None) -> None:
        stage = now.stage if now else None
        active = stage in ("loading", "training", "paused", "answering")
        undone = now is not None and now.step < now.steps
        resumable = stage == "paused" or (stage in ("stopped", "interrupted") and undone)
        self.form.set_disabled(active)
        self._train.disabled = self._ask.disabled = active
        self._hold.disabled = not (stage == "training" or resumable)
        self._hold.description, self._hold.icon = ("Resume", "play") if resumable else ("Pause", "pause")
        self._end.disabled = not active
        html = status_html(now, self.path) + (fault_html(str(self._fault), "") if self._fault else "")
        if (start := self._start) and start.error and now and start.path == self.path and not now.error:
            html += fault_html(start.error, start.trace)
        if self._status.value != html:
            self._status.value = html

    # How it is put together

    def _build(self, theme: Theme) -> None:
        self._train = self._button("Train", "bolt", self.train, button_color=BLUE, text_color="white")
        self._hold = self._button(
            "Pause", "pause", lambda: self.resume() if self._resumes() else self.pause()
        )
        self._end = self._button("Stop", "stop", self.stop)
        self._ask = self._button("Estimate", "clock-o", self.estimate)
        self._buttons = (self._train, self._hold, self._end, self._ask)
        self._status = w.HTML(layout={"width": "100%"})
        style = w.HTML(f"<style>{STYLE}</style>", layout={"display": "none"})
        buttons = w.HBox(self._buttons).add_class("wb-buttons")
        figures = w.HBox([self.curves.widget(), self.movement.widget()], layout={"flex_flow": "row wrap"})
        parts = [style, self.form.box, buttons, self._status, figures, self.answers.widget()]
        self._box = w.VBox(parts).add_class("wb-panel").add_class(f"wb-{theme}")

    def _resumes(self) -> bool:
        return bool(self._hold.description == "Resume")

    def _button(self, text: str, icon: str, call: Callable[[], None], **style: str) -> w.Button:
        def pressed(_: w.Button) -> None:
            try:
                call()
            except Exception as error:
                self._fault = error
                self._say()

        button = w.Button(description=text, icon=icon, style=style)
        button.on_click(pressed)
        return button


def _written(path: Path | None) -> tuple[int, ...]:
    """When the files beside the run were written; 0 for one that is not there."""
    files = [path / name for name in (METRICS, FRAME, ANSWERS)] if path else []
    return tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)


def _bundled() -> Sequence[str]:
    from workbench.data import BACKBONES

    return sorted(path.parent.name for path in BACKBONES.glob("*/config.json"))


def status_html(now: Moment | None, path: Path | None) -> str:
    """The track of the progress, and one sentence on where things stand."""
    if now is None:
        return (
            "<div class='wb-status'><div class='wb-track'></div>Choose what to train, and press Train.</div>"
        )
    done = now.step / now.steps if now.steps else 0.0
    step = f"step {now.step:,} of {now.steps:,}"
    loss = f" · loss {now.loss:.3f}" if now.loss is not None else ""
    left = f" · about {seconds_text(now.seconds_left)} left" if now.seconds_left is not None else ""
    text = {
        "loading": f"Getting ready: {escape(now.note)} …",
        "training": f"Training: {step}{loss}{left}",
        "paused": f"Paused at {step}{loss}",
        "answering": f"Trained, {step}{loss}. Now {escape(now.note)} …",
        "finished": f"Finished: {step}{loss}",
        "stopped": f"Stopped at {step}{loss}",
        "interrupted": f"Interrupted at {step}: its kernel ended. Resume goes on from the last checkpoint.",
        "failed": f"Failed at {step}" if now.step else "Failed before the first step",
    }[now.stage]
    where = (
        f"<br><small>kept in {escape(_near(path))}</small>"
        if path and now.stage in ("finished", "stopped")
        else ""
    )
    track = f"<div class='wb-track wb-{now.stage}'><div style='width:{done:.1%}'></div></div>"
    return f"<div class='wb-status'>{track}{text}{where}</div>" + (
        fault_html(now.error, now.trace) if now.error else ""
    )


def fault_html(sentence: str, trace: str) -> str:
    """What went wrong, in its sentence; the traceback is folded away below it."""
    folded = (
        f"<details><summary>Where it happened</summary><pre>{escape(trace)}</pre></details>" if trace else ""
    )
    return f"<div class='wb-error' role='alert'>{escape(sentence)}{folded}</div>"


def seconds_text(seconds: float) -> str:
    """A time left as people say it: `8 s`, `2 min`, `1 h 10 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _near(path: Path) -> str:
    """A path as seen from where the notebook runs, if that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)

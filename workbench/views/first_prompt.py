"""The panel of the first notebook: choose, train, watch, compare. What it shares with other panels is in `training_panel.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from workbench.training.answers import FILE as ANSWERS
from workbench.training.job import Job
from workbench.training.run import Run
from workbench.views.answers import Answers
from workbench.views.curves import Curves
from workbench.views.form import Form
from workbench.views.movement import Movement
from workbench.views.panel import bundled
from workbench.views.status import METRICS
from workbench.views.theme import Theme
from workbench.views.training_panel import TrainingPanel
from workbench.views.work import (
    FRAME,
    Settings,
    config_of,
    cost_of,
    make_frame,
    new_path,
    newest_path,
    settings_of,
)

if TYPE_CHECKING:
    from workbench.training.cost import Cost

#: Tasks of the small world that the form offers unless told otherwise.
TASKS = ("find-person", "second-word", "smaller-number", "comparative", "female-of", "swap-ends")


class FirstPrompt(TrainingPanel):
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
        offered = {"backbone": tuple(backbones or bundled()), "task": tuple(tasks or TASKS)}
        self.form = Form(Settings(**{name: names[0] for name, names in offered.items()} | settings), offered)
        self.curves = Curves(None, theme)
        self.movement = Movement(None, None, theme)
        self.answers = Answers(None, theme)
        self._drawn: tuple[Any, ...] = ()
        super().__init__(folder, theme)

    @property
    def run(self) -> Run | None:
        """The run that is shown, once its directory is there."""
        return next(iter(self.runs), None)

    @property
    def path(self) -> Path | None:
        """Its folder, which may not be there yet."""
        return next(iter(self.paths), None)

    def _job(self, settings: Settings) -> Job:
        return Job(config_of(settings), new_path(self.folder, settings.backbone, settings.task))

    def _asked(self, job: Job) -> Settings:
        return settings_of(job.config)

    def _newest_paths(self) -> list[Path]:
        path = newest_path(self.folder)
        return [path] if path else []

    def _cost(self, settings: Settings) -> Cost:
        return cost_of(settings)

    def _beside(self) -> Callable[[Job], None]:
        return make_frame

    def _body(self) -> list[w.Widget]:
        figures = w.HBox([self.curves.widget(), self.movement.widget()], layout={"flex_flow": "row wrap"})
        return [figures, self.answers.widget()]

    def _draw(self, runs: list[Run]) -> bool:
        path, run = self.path, next(iter(runs), None)
        drawn = (path, len(run.snapshots()) if run else 0, *_written(path))
        if drawn == self._drawn:
            return False
        self.curves.run = self.answers.run = run
        frame = path / FRAME if path else None
        self.movement.show(run, frame if frame and frame.exists() else None)
        for view in (self.curves, self.movement, self.answers):
            view.update()
        self._drawn = drawn
        return True


def _written(path: Path | None) -> tuple[int, ...]:
    """When the files beside the run were written; 0 for one that is not there."""
    files = [path / name for name in (METRICS, FRAME, ANSWERS)] if path else []
    return tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)

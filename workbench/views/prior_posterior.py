"""The panel of notebook 02: priors side by side, drawn, trained as one bank, and watched from prior to posterior.

What it shares with other panels is in `training_panel.py`; the study that it trains is in `study.py`.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as w
import numpy as np
from numpy.typing import NDArray

from workbench.analysis.drift import MEASURES
from workbench.analysis.projection import ProjectionConfig
from workbench.analysis.surroundings import EMBEDDINGS, places_of
from workbench.training.job import Job
from workbench.training.run import Run
from workbench.views.brushed import Brushed
from workbench.views.curves import Curves
from workbench.views.drift import Drift
from workbench.views.form import Form
from workbench.views.landscape import Landscape
from workbench.views.panel import bundled
from workbench.views.shift import Shift
from workbench.views.study import StudySettings, configs_of, cost_of, newest_paths, offered, settings_of
from workbench.views.theme import Theme
from workbench.views.training_panel import ACTIVE, TrainingPanel
from workbench.views.work import new_path

if TYPE_CHECKING:
    from workbench.methods.priors import Prior
    from workbench.training.cost import Cost
    from workbench.training.preview import Preview

#: Tasks of the small world that the form offers unless told otherwise, and those whose activations a map can show.
TASKS = ("find-person", "second-word", "smaller-number", "reading", "order-2")
AROUND = ("reading", "order-2", "sentiment")

#: Measures that are drawn while a study trains.
FIRST = ("moved", "nearest_in_spacings", "effective_rank")
EVERY = "every measure"

MAPS = {"PCA": "pca", "UMAP": "umap", "t-SNE": "tsne"}
WHOLE, HALF = 880, 438

STYLE = """
.wb-panel .wb-controls { flex-flow: row wrap; gap: 4px 16px; align-items: center; margin: 6px 0; }
.wb-panel .wb-controls > * { margin: 0; } .wb-panel .wb-controls .widget-label { color: var(--wb-quiet); font-size: 12px; }
.wb-panel .wb-controls .widget-checkbox { width: auto; }
"""


class PriorPosterior(TrainingPanel):
    """A panel that trains prompts from several priors at once: `PriorPosterior("runs/priors")` as the last line of a cell.

    Args:
        folder: where studies are written; the newest that lies there is shown at once.
        priors: what the form offers, by name; without it, all priors that need no file and no other run.
        backbones, tasks: what the form offers, names or paths.
        around: tasks whose activations the map can show.
        settings: what the form starts with, the fields of `StudySettings`.

    Attributes:
        landscape, beside: the map, and the second one that can stand beside it.
        table: the vectors that were brushed.
        drift, curves, shift: measures by step, loss and scores by step, and priors against posteriors.
    """

    def __init__(
        self,
        folder: str | Path = "runs/priors",
        priors: Mapping[str, Prior] | None = None,
        backbones: Sequence[str] | None = None,
        tasks: Sequence[str] | None = None,
        around: Sequence[str] = AROUND,
        theme: Theme = "light",
        **settings: Any,
    ) -> None:
        self.priors = dict(offered() if priors is None else priors)
        choices = {
            "backbone": tuple(backbones or bundled()),
            "task": tuple(tasks or TASKS),
            "priors": tuple(self.priors),
        }
        first: dict[str, Any] = {name: choices[name][0] for name in ("backbone", "task")}
        if priors is not None:
            first["priors"] = tuple(priors)
        self.form = Form(StudySettings(**first | settings), choices)
        cache = Path(folder) / "maps"
        self.landscape = Landscape(theme=theme, cache=cache, width=WHOLE)
        self.beside = Landscape(theme=theme, cache=cache, width=HALF, height=520)
        self.table = Brushed(self.landscape, theme)
        self.drift, self.curves = Drift(theme=theme, measures=FIRST), Curves(None, theme, width=WHOLE)
        self.shift = Shift(theme=theme)
        self.previews: list[Preview] = []
        self._around = tuple(around)
        self._asked_for: Any = None
        self._awaited = self._drawing_priors = False
        self._drawn: tuple[Any, ...] = ()
        self._setting = False
        super().__init__(folder, theme)
        if not self.paths:
            self.draw_priors()

    # What the buttons do

    def draw_priors(self) -> None:
        """Shows where the prompts of the form would start, before anything is trained."""
        settings = self.form.value
        self._asked_for, self._fault, self._drawing_priors = settings, None, True
        self._wait_for("The priors are being drawn …")
        threading.Thread(target=self._preview, args=(settings,), name="priors drawn", daemon=True).start()

    def _preview(self, settings: StudySettings) -> None:
        try:
            from workbench.training.preview import Preview
            from workbench.training.work import shared_backbone

            configs = [config.checked() for config in configs_of(settings, self.priors)]
            backbone = shared_backbone(configs[0].backbone, configs[0].device, configs[0].dtype)
            # a folder of their own for other settings: views keep what they have read by where it was
            said = json.dumps([config.to_json() for config in configs], sort_keys=True)
            home = self.folder / f"drawn-{hashlib.sha256(said.encode()).hexdigest()[:16]}"
            found = [Preview(config, backbone, home / f"{n:02d}") for n, config in enumerate(configs)]
            if self._asked_for is settings:
                self.previews = found
        except Exception as error:
            self._fault = error
            self._say()
        self._drawing_priors = False
        self._waiting.value = ""
        self._news.set()

    def _wait_for(self, what: str) -> None:
        """Says above the map what takes a while."""
        self._waiting.value = f"<div class='wb-status'><small>{what}</small></div>"

    def train(self) -> None:
        """Starts the study that the form asks for, with the very draws that it would show."""
        super().train()
        if self._asked_for != self.form.value:
            self.previews = []
        self._asked_for, self._awaited = None, True  # what is drawn is shown until the runs have it

    # What a panel asks of its kind

    def _job(self, settings: StudySettings) -> Job:
        return Job(configs_of(settings, self.priors), new_path(self.folder, settings.backbone, settings.task))

    def _asked(self, job: Job) -> StudySettings:
        return settings_of(job.configs, self.priors)

    def _newest_paths(self) -> list[Path]:
        return newest_paths(self.folder)

    def _cost(self, settings: StudySettings) -> Cost:
        return cost_of(settings, self.priors)

    def _more_buttons(self) -> list[w.Button]:
        return [self.button("Draw", "random", self.draw_priors)]

    # What it shows

    def _body(self) -> list[w.Widget]:
        def choice(text: str, options: Sequence[Any], value: Any, width: str) -> w.Dropdown:
            made = w.Dropdown(
                options=options, value=value, description=text, style={"description_width": "auto"}
            )
            made.layout.width = width
            made.observe(self._changed, "value")
            return made

        self._step = w.IntSlider(
            0, 0, 0, description="Step", layout={"width": "360px"}, style={"description_width": "auto"}
        )
        self._play = w.Play(interval=250, min=0, max=0, show_repeat=False)
        w.jslink((self._play, "value"), (self._step, "value"))
        self._step.observe(self._changed, "value")
        self._place = choice("Space", [EMBEDDINGS], EMBEDDINGS, "190px")
        self._kind = choice("Map", list(MAPS), "PCA", "120px")
        self._who = choice("Priors", [("all", "")], "", "240px")
        self._ticks = {
            task: w.Checkbox(False, description=Path(task).stem, indent=False) for task in self._around
        }
        for tick in self._ticks.values():
            tick.observe(self._changed, "value")
        self._two = w.Checkbox(False, description="a second map beside it", indent=False)
        self._two.observe(self._changed, "value")
        self._place_2 = choice("Space", [EMBEDDINGS], EMBEDDINGS, "190px")
        self._who_2 = choice("Priors", [("all", "")], "", "240px")
        self._measures = choice(
            "Measures",
            [("the first three", FIRST), (EVERY, None), *((m.label, (n,)) for n, m in MEASURES.items())],
            FIRST,
            "360px",
        )
        self._second = w.HBox([w.Label("Second map:"), self._place_2, self._who_2]).add_class("wb-controls")
        around = w.HBox([w.Label("Activations of"), *self._ticks.values(), self._two]).add_class(
            "wb-controls"
        )
        self._waiting = w.HTML()
        self._maps = w.HBox([self.landscape.widget()], layout={"flex_flow": "row wrap"})
        self.landscape.widget().on_brush = lambda drawn: self._brush(self.landscape, drawn)
        self.beside.widget().on_brush = lambda drawn: self._brush(self.beside, drawn)
        style = w.HTML(f"<style>{STYLE}</style>", layout={"display": "none"})
        walk = w.HBox([self._play, self._step, self._place, self._who, self._kind]).add_class("wb-controls")
        return [
            style,
            walk,
            around,
            self._second,
            self._waiting,
            self._maps,
            self.table.widget(),
            w.HBox([self._measures]).add_class("wb-controls"),
            self.drift.widget(),
            self.shift.widget(),
            self.curves.widget(),
        ]

    def _changed(self, change: Any) -> None:
        if not self._setting:
            self._news.set()

    def _brush(self, where: Landscape, outlines: Sequence[NDArray[np.float64]]) -> None:
        self.landscape.brushed = self.beside.brushed = where.inside(outlines)
        self._news.set()

    def _draw(self, runs: list[Run]) -> bool:
        if self._awaited and runs and all(run.snapshots() for run in runs):
            self.previews, self._awaited = [], False
        shown: list[Any] = list(self.previews) or runs
        steps = sorted({step for run in shown for step in run.snapshots()})
        self._offer(shown, steps)
        now = self.moment
        over = bool(shown) and not self.previews and (now is None or now.stage not in ACTIVE)
        asked = (self._step.value, self._place.value, self._kind.value, self._who.value, tuple(t.value for t in self._ticks.values()),
                 self._two.value, self._place_2.value, self._who_2.value, frozenset(self.landscape.brushed))  # fmt: skip
        there = (tuple((run.path, type(run)) for run in shown), tuple(steps))
        drawn = (there, asked, self._measures.value, over)
        if drawn == self._drawn:
            return False
        before = self._drawn or ((), (), (), None)
        self._drawn = drawn
        if (there, asked) != before[:2]:
            self._draw_maps(shown)
        if (there, asked[1], drawn[2], over) != (before[0], (before[1] or (None,) * 2)[1], *before[2:]):
            self._draw_curves(shown, over)
        if not self._drawing_priors:
            self._waiting.value = ""
        return True

    def _draw_maps(self, shown: list[Any]) -> None:
        two = self._two.value
        if self._kind.value != "PCA":
            self._wait_for(f"The {self._kind.value} map is being fitted …")
        for view, place, who in (
            (self.landscape, self._place.value, self._who.value),
            (self.beside, self._place_2.value, self._who_2.value),
        ):
            view.runs, view.place, view.step = tuple(shown), place, self._step.value
            view.only = (who,) if who else None
            view.tasks = tuple(task for task, tick in self._ticks.items() if tick.value)
            view.projection = ProjectionConfig(MAPS[self._kind.value])  # type: ignore[arg-type]
        self.landscape.width, self.landscape.height = (HALF, 520) if two else (WHOLE, 600)
        self.landscape.update()
        if two:
            self.beside.update()
        maps = (self.landscape.widget(), self.beside.widget()) if two else (self.landscape.widget(),)
        if self._maps.children != maps:
            self._maps.children = maps
        self._second.layout.display = "flex" if two else "none"
        self.table.update()

    def _draw_curves(self, shown: list[Any], over: bool) -> None:
        self.drift.runs = self.curves.runs = self.shift.runs = tuple(shown)
        self.drift.measures, self.drift.place = self._measures.value, self._place.value
        if self.landscape.backbone is not self.drift.backbone:
            self.drift.backbone = self.landscape.backbone
        self.drift.update()
        self.curves.update()
        if over:
            self.shift.place = self._place.value
            self.shift.update()

    def _offer(self, shown: list[Any], steps: list[int]) -> None:
        """Brings the choices of the controls up to what there is; a slider at the last step stays at the last step."""
        if not shown:
            return
        self._setting = True
        try:
            last, behind = (steps or [0])[-1], self._step.value < self._step.max
            if last != self._step.max:
                self._step.max = self._play.max = last
            gap = min((b - a for a, b in zip(steps, steps[1:], strict=False)), default=1)
            self._step.step = self._play.step = gap
            if not behind and self._step.value != last:
                self._step.value = last
            self.landscape.runs = tuple(shown)
            self.landscape.look()
            first = next((run for run in shown if 0 in run.snapshots()), None)
            places = places_of(first.snapshot(0)) if first is not None else [EMBEDDINGS]
            groups = [("all", ""), *((group.name, group.name) for group in self.landscape.every())]
            for place, who in ((self._place, self._who), (self._place_2, self._who_2)):
                if tuple(place.options) != tuple(places):
                    place.options = places
                if tuple(who.options) != tuple(groups):
                    who.options = groups
        finally:
            self._setting = False

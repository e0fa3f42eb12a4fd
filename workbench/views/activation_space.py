"""The panel of notebook 03: texts traced through a backbone, looked at layer by layer, and what to do with some of them.

What it shares with other panels is in `panel.py`; what it traces is in `tracing.py`, what it keeps in `selection.py`.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import ipywidgets as w
import numpy as np
from numpy.typing import NDArray

from workbench.analysis.surroundings import EMBEDDINGS, layer_of
from workbench.analysis.trace_points import POINTS, points_of
from workbench.errors import WorkbenchError
from workbench.training.job import Job
from workbench.training.run import Run
from workbench.views.activation_map import NAMES, ActivationMap
from workbench.views.cluster_numbers import ClusterNumbers
from workbench.views.controls import Chores, menu, offer, part, row, style
from workbench.views.form import Form
from workbench.views.generation_walk import GenerationWalk
from workbench.views.panel import Panel, bundled
from workbench.views.selected_texts import SelectedTexts
from workbench.views.selection import Selection, kept_priors
from workbench.views.status import fault_html, moment, status_html
from workbench.views.theme import BLUE, Theme
from workbench.views.traces import Traces
from workbench.views.tracing import (
    MAPS,
    Asked,
    Traced,
    TraceSettings,
    Tracing,
    name_of_run,
    newest_home,
    tracing_html,
    trained_runs,
    writing,
)
from workbench.views.work import new_path

if TYPE_CHECKING:
    from workbench.analysis.trace import Trace
    from workbench.methods.priors import Prior
    from workbench.tasks.task import Example

#: Tasks of the small world that the form offers unless told otherwise, and those that are ticked.
TASKS = ("reading", "cloze", "running", "add-2", "order-2", "sentiment", "stories")
TICKED = 4

COLOURS = {
    "task": "task",
    "token": "token",
    "position": "position",
    "answered right": "correctness",
    "run": "run",
}

#: Seconds between two looks for trained prompts.
LOOKS = 3.0

#: Texts that can be chosen to be written on, where none are drawn round.
OFFERED = 30

STYLE = """
.wb-panel .wb-numbers .wb-listing { font-size: 12px; }
.wb-panel .wb-numbers .wb-listing.wb-listing td:first-child { font-weight: normal; }
.wb-panel .wb-numbers .wb-listing.wb-listing :is(th, td) { padding: 4px 8px 4px 0; white-space: nowrap; }
"""


class ActivationSpace(Panel):
    """A panel over a folder of traces: `ActivationSpace("runs/activation_space")` as the last line of a cell.

    Args:
        folder: where traces, selections and what is trained on them are written; the newest trace there is shown at once.
        backbones, tasks: what the form offers, names or paths.
        runs: a folder below which trained prompts are looked for; by default the folder that `folder` lies in.
        settings: what the form starts with, the fields of `TraceSettings`.

    Attributes:
        map, numbers, table, walk: the map of a layer, the numbers beside it, the texts that were drawn round, and the
            text that was written on.
    """

    # What is traced in each folder; it outlives the panel that started it.
    _works: ClassVar[dict[Path, Tracing]] = {}

    def __init__(
        self,
        folder: str | Path = "runs/activation_space",
        backbones: Sequence[str] | None = None,
        tasks: Sequence[str] | None = None,
        runs: str | Path | None = None,
        theme: Theme = "light",
        **settings: Any,
    ) -> None:
        self.runs = Path(runs).resolve() if runs is not None else Path(folder).resolve().parent
        names = {"backbone": tuple(backbones or bundled()), "tasks": tuple(tasks or TASKS)}
        first: dict[str, Any] = {
            "backbone": names["backbone"][0],
            "tasks": names["tasks"][:TICKED],
        } | settings
        prompts = ["", *(str(path) for path in trained_runs(self.runs, first["backbone"]))]
        self.form: Form[TraceSettings] = Form(
            TraceSettings(**first),
            {**names, "run": prompts},
            shown=("backbone", "run", "texts", "answers", "layers", "tasks", "files", "tokens", "written"),
            check=TraceSettings.look,
        )
        self.map, self.numbers = ActivationMap(theme=theme, width=560), ClusterNumbers(theme=theme)
        self.table, self.walk = SelectedTexts(self.map, theme), GenerationWalk(theme=theme)
        self.traced: Traced | None = None
        self._shared: dict[Any, Traces] = {}
        self._job: tuple[str, Job] | None = None
        self._did, self._choose = "", None  # type: tuple[str, str | None]
        self._looked = -LOOKS
        self._walked: tuple[tuple[Path, int, str], dict[str, Trace]] | None = None
        self._written: tuple[int, str] | None = None
        self._drawn: tuple[Any, ...] = ()
        self._setting = False
        super().__init__(folder, theme)
        self._chores = Chores("activation space", self._failed, self._news)
        self.selections = self.folder / "selections"
        self._work = self._works.get(self.folder)
        if self._work is not None and self._work.is_alive():
            self.traced = self._work.traced
        elif (home := newest_home(self.folder)) is not None:
            self._work = None
            try:
                self.traced = Traced(home)
            except WorkbenchError as error:  # damaged: others can be made, so the panel is there
                self._failed(error)
        if self.traced is not None:
            self.form.value = self.traced.settings
            self._written = _remembered(self.traced)
        self.begin()

    # What the buttons do: each returns at once

    def trace(self) -> None:
        """Traces what the form says."""
        settings = self.form.value
        self._free()
        self.traced = Traced.begin(new_path(self.folder, settings.backbone), settings)
        self._written, self._job, self._did = None, None, ""
        self.map.brushed = np.zeros(0, np.int64)
        self._begin()

    def resume(self) -> None:
        """Goes on with a trace that was stopped or interrupted."""
        self._free()
        if self.traced is not None:
            self._begin()

    def stop(self) -> None:
        """Ends the tracing after the texts at hand; what is done is kept."""
        if self._work is not None:
            self._work.stop()

    def keep(self) -> None:
        """Keeps the texts that are drawn round, under the name that was typed."""
        name, chosen = str(self._name.value), self.chosen()

        def write() -> None:
            texts = [self._example(run, text) for run, text in chosen]
            kept = Selection.keep(self.selections, name, [e for _, e in texts], [task for task, _ in texts])
            self._did, self._choose = f"Kept {len(texts)} texts as “{escape(kept.name)}”.", str(kept.path)

        self._later("keep", write)

    def train(self) -> None:
        """Trains a prompt on the kept selection that is chosen, in the background."""
        selection, backbone = self._selection(), self._settings().backbone
        if self._job is not None and self._job[1].state in ("running", "paused"):
            raise WorkbenchError(f"a prompt is being trained on {self._job[0]}; wait for it to end")

        def start() -> None:
            self._did = ""
            path = new_path(self.folder / "prompts", f"on {selection.name}")
            self._job = (selection.name, Job(selection.job(backbone), path).start())

        self._did = f"The training on “{escape(selection.name)}” is being prepared …"
        self._later("train", start)

    def trace_selection(self) -> None:
        """Traces the kept selection that is chosen with the prompt that is chosen, onto the same map."""
        selection, run = self._selection(), str(self._with.value)
        if not run:
            raise WorkbenchError(
                "no prompt is chosen under With; choose one, or train one on the selection first"
            )
        self._free()
        if self.traced is not None:
            label = f"{name_of_run(run)}, {selection.name}"
            self.traced.ask(Asked(label, run, str(selection.path)))
            self._did = f"“{escape(selection.name)}” is traced with {escape(name_of_run(run))}."
            self._begin()

    def fit_prior(self) -> None:
        """Fits a Gaussian to the kept selection that is chosen, in the space of the layer that is shown."""
        selection, settings, place = self._selection(), self._settings(), self._place.value or EMBEDDINGS

        def fit() -> None:
            from workbench.training.work import shared_backbone

            layer = layer_of(place)  # says itself what is no space of vectors
            facts = selection.fit_prior(shared_backbone(settings.backbone), layer)
            self._did = (
                f"Fitted a Gaussian to {facts['points']:,} tokens of “{escape(selection.name)}” in {place}: it varies in "
                f"{facts['effective_rank']:.0f} of {facts['width']} directions. Notebook 02 trains from it by "
                "<code>PriorPosterior(priors=panel.priors)</code>."
            )

        self._did = f"A Gaussian is being fitted to “{escape(selection.name)}” …"
        self._later("prior", fit)

    def write(self) -> None:
        """Has the model write on behind the text that is chosen: without a prompt, and with the one chosen under With."""
        if self.traced is None or self._text.value is None:
            raise WorkbenchError("there is no text to write on; trace some texts first")
        traced, asked = self.traced, (int(self._text.value), str(self._with.value))

        def walk() -> None:
            _write_on(traced, *asked)
            self._written = asked

        self._later("write", walk)

    def wait(self, seconds: float = threading.TIMEOUT_MAX) -> bool:
        """For scripts: waits for all that was begun, and brings the panel up to date; False where time ran out."""
        if self._work is not None:
            self._work.join(seconds)
        done = self._chores.wait(seconds)
        if self._job is not None:
            self._job[1].wait(seconds)
        self.refresh()
        done = self._chores.wait(seconds) and done  # what drawing has begun, the numbers of the layer
        self.refresh()
        return done and not (self._work is not None and self._work.is_alive())

    # What it holds

    @property
    def priors(self) -> dict[str, Prior]:
        """The priors that were fitted to selections here, by name, as notebook 02 takes them."""
        return kept_priors(self.selections)

    @property
    def traces(self) -> dict[str, Trace]:
        """What was traced, all tokens that were kept, by what it is called on the map; of a trace at work, what is done."""
        traced = self.traced
        if traced is None:
            return {}
        found = {asked.label: traced.trace(number) for number, asked in traced.asked.items()}
        return {label: trace for label, trace in found.items() if trace is not None and len(trace)}

    def chosen(self) -> list[tuple[str, int]]:
        """The texts that are drawn round: the name of the run on the map, and the text's number in it."""
        table = self.table.data()
        return list(zip(table["run"].astype(str), table["text"].astype(int), strict=True))

    def _settings(self) -> TraceSettings:
        if self.traced is None:
            raise WorkbenchError("nothing is traced yet; press Trace first")
        return self.traced.settings

    def _selection(self) -> Selection:
        if self._kept.value is None:
            raise WorkbenchError("no selection is kept yet; draw round some points, name them and press Keep")
        return Selection(Path(self._kept.value))

    def _example(self, run: str, text: int) -> tuple[str, Example]:
        assert self.traced is not None
        asked = next(asked for asked in self.traced.asked.values() if asked.label == run)
        task, _, example = self.traced.examples(asked)[text]
        return task, example

    # What is done beside the page

    def _free(self) -> None:
        if self._work is not None and self._work.is_alive():
            raise WorkbenchError("texts are being traced here; stop that first")

    def _begin(self) -> None:
        assert self.traced is not None
        self._fault = None
        self._work = self._works[self.folder] = Tracing(self.traced)
        self._work.start()
        self._say()

    def _later(self, name: str, call: Callable[[], None]) -> None:
        """Does something in a thread of its own, one of a name at a time; what goes wrong is said in the panel."""
        if not self._chores.busy(name):
            self._fault = None
            self._chores.do(name, call)

    def _failed(self, error: Exception) -> None:
        self._fault, self._did = error, ""

    # Where things stand

    def _stand(self) -> str:
        work = self._work
        busy = work is not None and work.is_alive()
        self.form.set_disabled(busy)
        self._trace.disabled, self._end.disabled = busy, not busy
        self._go_on.disabled = busy or self.traced is None or self.traced.undone() is None
        html = tracing_html(work, self.traced)
        if work is not None and work.error is not None and not (work.field and self.form.errors):
            html += fault_html(str(work.error), "")
        return html

    def _make_buttons(self) -> list[w.Button]:
        self._trace = self.button("Trace", "bolt", self.trace, button_color=BLUE, text_color="white")
        self._end = self.button("Stop", "stop", self.stop)
        self._go_on = self.button("Resume", "play", self.resume)
        return [self._trace, self._end, self._go_on]

    # What stands below

    def _body(self) -> list[w.Widget]:
        def choice(text: str, options: Any, width: str) -> w.Dropdown:
            return menu(text, options, width, self._changed)

        self._place = w.SelectionSlider(
            options=[("—", "")],
            description="Layer",
            layout={"width": "300px"},
            style={"description_width": "auto"},
        )
        self._place.observe(self._changed, "value")
        self._points = choice("Points", [(text, name) for name, text in POINTS.items()], "220px")
        self._kind = choice("Map", [(text, name) for name, text in NAMES.items()], "120px")
        self._colour = choice("Colour", list(COLOURS.items()), "180px")
        self._waiting = w.HTML()
        self.map.widget().on_brush = self._brush
        beside = w.VBox([part("How far apart tasks lie"), self.numbers.widget()], layout={"width": "344px"})
        beside.add_class("wb-numbers")
        picture = w.HBox([self.map.widget(), beside], layout={"flex_flow": "row wrap"})

        self._name = w.Text(placeholder="a name for them", layout={"width": "170px"})
        self._kept = choice("Kept", [("none yet", None)], "220px")
        self._with = choice("With", [("no prompt", "")], "260px")
        doing = [
            self.button("Train a prompt on it", "bolt", self.train),
            self.button("Trace it with the prompt", "map-marker", self.trace_selection),
            self.button("Fit a prior to it", "circle-o", self.fit_prior),
        ]
        self._acted = w.HTML(layout={"width": "100%"})

        self._text = choice("Text", [("none yet", None)], "520px")
        self._play = w.Play(interval=350, min=0, max=0, show_repeat=False)
        self._step = w.IntSlider(
            0, 0, 0, description="Token", layout={"width": "360px"}, style={"description_width": "auto"}
        )
        w.jslink((self._play, "value"), (self._step, "value"))
        self._step.observe(self._changed, "value")
        return [
            style(STYLE),
            row(self._place, self._points, self._kind, self._colour),
            self._waiting,
            picture,
            self.table.widget(),
            row(self._name, self.button("Keep", "bookmark", self.keep), self._kept, self._with),
            row(*doing),
            self._acted,
            part("A text, as it is written"),
            row(self._text, self.button("Write on", "pencil", self.write)),
            row(self._play, self._step),
            self.walk.widget(),
        ]

    def _changed(self, change: Any) -> None:
        if not self._setting:
            self._news.set()

    def _brush(self, outlines: Sequence[NDArray[np.float64]]) -> None:
        self.map.brushed = self.map.inside(outlines)
        self._news.set()

    # How it is brought up to date

    def _look(self) -> bool:
        work, traced = self._work, self.traced
        if work is not None and work.is_alive():
            return False
        if work is not None and work.error is not None and traced is not None and not traced.asked:
            self._take_back(work)
            return True
        self._offer()
        there = self.traces
        numbers = (self.numbers.known(self._place.value), self._colour.value)
        asked = (
            self._place.value,
            self._points.value,
            self._kind.value,
            self._colour.value,
            self._scored(there),
        )
        brushed = self.map.brushed.tobytes()
        story = (self._written, self._step.value)
        did = (self._did, self._job_html())
        held = tuple((name, len(trace)) for name, trace in there.items())
        drawn = (held, traced and traced.home, asked, brushed, numbers, story, did)
        if drawn == self._drawn:
            return False
        before, self._drawn = self._drawn or (None,) * 7, drawn
        if did != before[6]:
            self._acted.value = "".join(f"<div class='wb-status'>{text}</div>" for text in did if text)
        if drawn[:4] != before[:4]:
            self._draw_map(there)
        if (drawn[:3], numbers) != (before[:3], before[4]):
            self._draw_numbers()
        if (drawn[:3], story) != (before[:3], before[5]):
            self._draw_walk(there)
        return True

    def _take_back(self, work: Tracing) -> None:
        """Of what could not be traced nothing is left: said at its field, and what was there before is shown."""
        home = newest_home(self.folder)
        self.traced = None if home is None else Traced(home)
        if work.field:
            self.form.refuse(work.field, str(work.error))

    def _seen(self, there: dict[str, Trace], points: str, kind: str) -> Traces | None:
        """The traces as points on maps; kept, so that a change of colour or layer makes nothing anew."""
        if not there or self.traced is None:
            return None
        key = (self.traced.home, tuple((name, id(trace)) for name, trace in there.items()), points, kind)
        if key not in self._shared:
            shown = {name: points_of(trace, points) for name, trace in there.items()}  # type: ignore[arg-type]
            self._shared[key] = Traces(shown, kind, self.traced.home / MAPS)
            while len(self._shared) > 4:
                del self._shared[next(iter(self._shared))]
        return self._shared[key]

    def _draw_map(self, there: dict[str, Trace]) -> None:
        traces, place = self._seen(there, self._points.value, self._kind.value), self._place.value
        if traces is not None and place not in traces.frames.ready:
            self._wait_for(f"The {NAMES[traces.kind]} map of {place} is being fitted …")
        view = self.map
        if view.traces is not traces:
            view.brushed = _same_rows(view, traces)
        view.traces, view.place, view.colour = traces, place or None, self._colour.value
        view.scores = dict(self._scores(there))
        view.update()
        self.table.update()
        self._wait_for("")
        if traces is not None and len(traces.frames.ready) < len(traces.places):
            self._later("maps", lambda: _fit_all(traces))

    def _draw_numbers(self) -> None:
        traces, place = self.map.traces, self._place.value
        self.numbers.trace = None if traces is None else traces.first
        self.numbers.place = place or None
        self.numbers.cache = None if self.traced is None else self.traced.home / MAPS
        self.numbers.pending = traces is not None and not self.numbers.known(place)
        self.numbers.update()
        if self.numbers.pending:
            self._later("numbers", lambda: self.numbers.measure(place))

    def _walks(self) -> dict[str, Trace]:
        """The text that was written on, as it was without a prompt and with one."""
        if self.traced is None or self._written is None:
            return {}
        key = (self.traced.home, *self._written)
        if self._walked is None or self._walked[0] != key:
            self._walked = (key, _walks(self.traced, *self._written))
        return self._walked[1]

    def _draw_walk(self, there: dict[str, Trace]) -> None:
        walks = self._walks()
        view, place = self.walk, self._place.value
        view.walks, view.place = walks, place
        if walks and there:
            whole = self._settings().tokens == "all"
            points = "all" if whole else self._points.value
            kind = self._kind.value if points == self._points.value else "pca"
            traces = self._seen(dict(list(there.items())[:1]), points, kind)
            assert traces is not None
            view.frame = traces.frames[place]
            view.words = [str(token).strip() for token in traces.rows["token"]]
        else:
            view.frame = None
        self._setting = True
        try:
            last = view.last
            if last != self._step.max:
                behind = self._step.value < self._step.max
                self._step.max = self._play.max = last
                if not behind:
                    self._step.value = last
        finally:
            self._setting = False
        view.step = self._step.value
        view.update()

    # What can be chosen

    def _offer(self) -> None:
        """Brings the choices of the controls up to what there is."""
        self._setting = True
        try:
            there = self.traces
            first = next(iter(there.values()), None)
            places = [("—", "")] if first is None else [(place, place) for place in first.places]
            if tuple(self._place.options) != tuple(places):
                self._place.options = places
                self._place.value = places[len(places) // 2][1]
            kept = "all" if first is None else str(first.settings["positions"])
            points = [(text, name) for name, text in POINTS.items() if kept in ("all", name)]
            offer(self._points, points)
            self._offer_kept()
            self._offer_prompts()
            self._offer_texts(first)
        finally:
            self._setting = False

    def _offer_kept(self) -> None:
        kept = [(one.name, str(one.path)) for one in Selection.all(self.selections)]
        offer(self._kept, kept or [("none yet", None)])
        if self._choose in [path for _, path in kept]:
            self._kept.value, self._choose = self._choose, None

    def _offer_prompts(self) -> None:
        """The trained prompts for this backbone; looked for every few seconds, as that is a walk over many folders."""
        if self.traced is None or time.monotonic() - self._looked < LOOKS:
            return
        self._looked = time.monotonic()
        runs = trained_runs(self.runs, self.traced.settings.backbone)
        named = [(path.relative_to(self.runs).as_posix(), str(path)) for path in runs]
        offer(self._with, [("no prompt", ""), *named])

    def _offer_texts(self, first: Trace | None) -> None:
        if first is None:
            return offer(self._text, [("none yet", None)])
        label = next(iter(self.traces))
        numbers = [text for run, text in self.chosen() if run == label][:OFFERED]
        texts = {text["text"]: text for text in first.texts}
        if not numbers:  # of each task some, those with long answers first, as these have long paths
            order = sorted(texts.values(), key=lambda text: -len(text["answer"]))
            numbers = [text["text"] for text in order[:OFFERED]]
        if self._written is not None and self._written[0] not in numbers and self._written[0] in texts:
            numbers = [self._written[0], *numbers]
        said = [(f"{texts[n]['task']} {n}: {_end(texts[n]['prompt'])}", n) for n in numbers]
        offer(self._text, said)

    # What takes a while

    def _scored(self, there: dict[str, Trace]) -> bool:
        """Whether answers are scored; has that done where the colours need it and it is not."""
        if self._colour.value != "correctness" or self.traced is None:
            return False
        traced = self.traced
        missing = [
            n for n, asked in traced.asked.items() if asked.label in there and traced.scores(n) is None
        ]
        if missing and self._fault is None:
            self._wait_for("The model answers the questions, so that right and wrong can be coloured …")
            self._later("scores", lambda: _score_all(traced, missing))
        return not missing

    def _scores(self, there: dict[str, Trace]) -> dict[str, Sequence[float]]:
        if self.traced is None:
            return {}
        found = {asked.label: self.traced.scores(number) for number, asked in self.traced.asked.items()}
        return {label: scores for label, scores in found.items() if scores is not None and label in there}

    def _job_html(self) -> str:
        if self._job is None:
            return ""
        name, job = self._job
        if not (job.run_dir / "config.json").exists():
            return ""
        now = moment([Run(job.run_dir)])
        after = " It can be chosen under With." if now.stage == "finished" else ""
        return f"<b>A prompt on “{escape(name)}”.</b>{after}{status_html(now, job.run_dir)}"

    def _wait_for(self, what: str) -> None:
        """Says above the map what takes a while."""
        html = f"<div class='wb-status'><small>{what}</small></div>" if what else ""
        if self._waiting.value != html:
            self._waiting.value = html


def _end(text: str) -> str:
    return text if len(text) <= 70 else f"…{text[-70:]}"


def _same_rows(view: ActivationMap, traces: Traces | None) -> NDArray[np.int64]:
    """What was drawn round on a map, as numbers of the same points on another; none where that has other points."""
    before = view.traces
    if before is None or traces is None or not len(view.brushed):
        return np.zeros(0, np.int64)
    if before.first.settings != traces.first.settings:
        return np.zeros(0, np.int64)
    keys = before.rows.iloc[view.brushed].set_index(["run", "row"]).index
    found = traces.rows.set_index(["run", "row"]).index.get_indexer(keys)
    return np.sort(found[found >= 0])


def _fit_all(traces: Traces) -> None:
    for place in traces.places:
        traces.at(place)


def _score_all(traced: Traced, numbers: Sequence[str]) -> None:
    for number in numbers:
        traced.score(number)


# A text that is written on


def _write_on(traced: Traced, text: int, run: str) -> None:
    """Traces what the model writes behind a text, without a prompt and with one, into the folder of the traces."""
    from workbench.analysis.trace import trace

    main = traced.trace("00")
    assert main is not None
    prompt = next(one["prompt"] for one in main.texts if one["text"] == text)
    for its in dict.fromkeys(("", run)):
        backbone, method = traced.model(Asked("", its))
        trace(
            backbone,
            [prompt],
            list(main.places),
            "all",
            method,
            generate=writing(method, traced.settings.written),
            folder=_walk_folder(traced, text, its),
        )
    (traced.home / "walk.json").write_text(json.dumps({"text": text, "run": run}), encoding="utf-8")


def _walks(traced: Traced, text: int, run: str) -> dict[str, Trace]:
    from workbench.analysis.trace import Trace

    return {name_of_run(its): Trace.load(_walk_folder(traced, text, its)) for its in dict.fromkeys(("", run))}


def _remembered(traced: Traced) -> tuple[int, str] | None:
    """The text that was written on last, and the run of its prompt."""
    path = traced.home / "walk.json"
    if not path.is_file():
        return None
    facts = json.loads(path.read_text(encoding="utf-8"))
    written = int(facts["text"]), str(facts["run"])
    there = all(_walk_folder(traced, written[0], its).is_dir() for its in ("", written[1]))
    return written if there else None


def _walk_folder(traced: Traced, text: int, run: str) -> Path:
    which = hashlib.sha256(run.encode()).hexdigest()[:8]  # two folders of runs have runs of one name
    return traced.home / "walks" / "-".join([f"{text:06d}", *([Path(run).name, which] if run else [])])

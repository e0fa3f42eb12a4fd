"""The panel of notebook 04: a prompt is forgotten while its text is written, plain, with ProSG, and with the prompt read again.

What it shares with other panels is in `panel.py`; what it has written is in `telling.py`. ProSG, its strength and the place at
which the prompt is read again are asked for by turning them: the text that belongs to them is then written beside the others.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import ipywidgets as w

from workbench.analysis.forgetting_measures import MEASURES
from workbench.errors import WorkbenchError
from workbench.views.change_map import ChangeMap
from workbench.views.clause_map import ClauseMap, said
from workbench.views.controls import Chores, menu, offer, part, row, style
from workbench.views.form import Form
from workbench.views.influence_curves import InfluenceCurves
from workbench.views.many_changes import STORIES, kinds, map_changes
from workbench.views.panel import Panel, bundled
from workbench.views.status import fault_html
from workbench.views.telling import (
    PLAIN,
    UNTRAINED,
    Asked,
    Telling,
    TellSettings,
    Told,
    example_settings,
    guessed,
    make_method,
    newest_home,
    sources,
    telling_html,
    write_json,
)
from workbench.views.theme import BLUE, Theme
from workbench.views.weight_change import WeightChange
from workbench.views.work import new_path
from workbench.views.written_text import WrittenText

if TYPE_CHECKING:
    from workbench.analysis.forgetting import Forgetting

#: Measures that the map of clauses can show, where a text has them.
SHOWN = ("clause_influence", "clause_gain", "clause_state", "state_cosine")

#: The file that says which map of changes was made last.
LAST = "shown.json"

#: Seconds between two looks for synthesisers that were trained meanwhile.
LOOKS = 3.0


class ForgettingSteps(Panel):
    """A panel over a folder of texts: `ForgettingSteps("runs/forgetting")` as the last line of a cell.

    Args:
        folder: where texts and maps are written; the newest text there is shown at once.
        backbones: what the form offers, names or paths.
        runs: a folder below which trained synthesisers are looked for; by default the folder that `folder` lies in.
        settings: what the form starts with, the fields of `TellSettings`.

    Attributes:
        clauses, influence, text, weights, changes: the map of clauses, the curves, the texts, the change of the weights by this
            prompt, and the map of the changes by many.
    """

    # What is written in each folder; it outlives the panel that started it.
    _works: ClassVar[dict[Path, Telling]] = {}

    def __init__(
        self,
        folder: str | Path = "runs/forgetting",
        backbones: Sequence[str] | None = None,
        runs: str | Path | None = None,
        theme: Theme = "light",
        **settings: Any,
    ) -> None:
        self.runs = Path(runs).resolve() if runs is not None else Path(folder).resolve().parent
        names = tuple(backbones or sorted(bundled(), reverse=True))
        first = {"backbone": names[0]} | example_settings(settings.get("example", "8 clauses")) | settings
        if "prompt" in settings and "clauses" not in settings:
            first["clauses"] = guessed(first["prompt"])
        self.form: Form[TellSettings] = Form(
            TellSettings(**first),
            {"backbone": names},
            shown=("backbone", "example", "tokens", "temperature", "prompt", "clauses"),
        )
        self._before = (first["example"], first["prompt"])
        self.form.observe(self._follow)
        self.clauses, self.influence = ClauseMap(theme=theme), InfluenceCurves(theme=theme)
        self.text, self.weights, self.changes = (
            WrittenText(theme=theme),
            WeightChange(theme=theme),
            ChangeMap(theme=theme),
        )
        self.told: Told | None = None
        self._drawn: tuple[Any, ...] = ()
        self._setting, self._looked = False, -LOOKS
        self._changed_by: tuple[Any, ...] = ()
        super().__init__(folder, theme)
        self.maps = self.folder / "maps"
        self._chores = Chores("forgetting", self._failed, self._news)
        self._work = self._works.get(self.folder)
        if self._work is not None and self._work.is_alive():
            self.told = self._work.told
        elif (home := newest_home(self.folder)) is not None:
            self.told, self._work = Told(home), None
        if self.told is not None:
            self._before = (self.told.settings.example, self.told.settings.prompt)
            self.form.value = self.told.settings
        self._offer_sources()
        self._remember()
        self.begin()

    # What the buttons do: each returns at once

    def generate(self) -> None:
        """Has the text behind the prompt written, plain and with what is chosen; of the same prompt only what is missing."""
        settings = self.form.value
        self._free()
        if self.told is None or self.told.settings != settings:
            self._setting = True
            self._again.value = 0
            if self.told is not None and self.told.settings.backbone != settings.backbone:
                self._source.value = ""  # a synthesiser is for one backbone
            self._setting = False
            self.told = Told.begin(new_path(self.folder, settings.backbone), settings)
        self._fault = None
        for asked in self._wanted():
            self.told.ask(asked)
        self._begin()

    def stop(self) -> None:
        """Ends the writing after the token at hand; what there is can be looked at."""
        if self._work is not None:
            self._work.stop()

    def map_many(self) -> None:
        """Maps the changes that many stories' prompts make, coloured by the kind of clause that is chosen."""
        source, kind = str(self._source.value), str(self._kind.value)
        if not source or self.told is None:
            raise WorkbenchError(
                "no ProSG is switched on; choose one above, and see what it makes of many prompts"
            )
        self._fault = None
        self._map(self.told.settings.backbone, source, kind)

    def _map(self, backbone: str, source: str, kind: str) -> None:
        """Has the map made, in a thread; which one is remembered, and is there again after a reload."""

        def make() -> None:
            try:
                self.changes.changes = map_changes(backbone, source, kind, self.maps)
                write_json(self.maps / LAST, {"backbone": backbone, "source": source, "kind": kind})
            finally:
                self.changes.pending = ""

        if not self._chores.busy("map"):
            self.changes.changes = None
            self.changes.pending = f"{STORIES} prompts with the clause “{kind}” are being read …"
            self._chores.do("map", make)

    @property
    def sources(self) -> list[str]:
        """What ProSG can be switched to, the first choice first."""
        return [value for _, value in self._source.options if value]

    def switch(self, source: str, strength: float = 1.0) -> None:
        """For scripts: switches ProSG to one of `sources`, or off by "", as the menu and the slider do."""
        self._source.value, self._strength.value = source, strength

    def read_again(self, behind: int) -> None:
        """For scripts: has the prompt read again behind so many tokens of the plain text, as the slider does; 0 for not at all."""
        self._again.value = behind

    def wait(self, seconds: float = threading.TIMEOUT_MAX) -> bool:
        """For scripts: waits for all that was begun, and brings the panel up to date; False where time ran out."""
        done = True
        for _ in range(3):  # what is drawn asks for more: the text of a choice, then its weights
            self.refresh()
            work = self._work
            if work is not None:
                work.join(seconds)
                done = not work.is_alive()
            done = self._chores.wait(seconds) and done
        self.refresh()
        return done

    # What is asked for

    def texts(self) -> dict[str, Forgetting]:
        """The texts that are shown, by name: the plain one, the one with ProSG, the one with the prompt read again."""
        if self.told is None:
            return {}
        there = {asked: number for number, asked in self.told.asked.items()}
        found = {}
        for asked in self._wanted():
            kept = self.told.text(there[asked]) if asked in there else None
            if kept is not None:
                found[asked.label] = kept.forgetting
        return found

    def _wanted(self) -> list[Asked]:
        wanted = [Asked()]
        if self._source.value:
            wanted.append(Asked(str(self._source.value), float(self._strength.value)))
        if self._again.value:
            wanted.append(Asked(again_at=int(self._again.value)))
        return wanted

    def _free(self) -> None:
        if self._work is not None and self._work.is_alive():
            raise WorkbenchError("a text is being written here; stop that first")

    def _begin(self) -> None:
        assert self.told is not None
        self._work = self._works[self.folder] = Telling(self.told)
        self._work.start()
        self._say()

    def _ask_for_more(self) -> None:
        """Has what was turned to written, where there is a plain text and nobody has stopped it."""
        told, work = self.told, self._work
        if told is None or (work is not None and (work.stopped or work.error is not None)):
            return
        there = set(told.asked.values())
        for asked in self._wanted():
            if asked in there or asked == Asked():
                continue
            if work is None or not work.takes(asked):
                told.ask(asked)
                self._begin()
                work = self._work

    def _failed(self, error: Exception) -> None:
        self._fault = error

    def _follow(self, form: Form[TellSettings]) -> None:
        """The example that is chosen goes into the box, and chips are guessed anew for another prompt."""
        if self._setting:
            return
        controls = form.controls
        example, prompt = controls["example"].value, controls["prompt"].value
        before, self._before = self._before, (example, prompt)
        self._setting = True
        try:
            if example != before[0]:
                fields = example_settings(example)
                self._before = (example, fields["prompt"])
                for name in ("prompt", "clauses"):
                    controls[name].value = fields[name]
            elif prompt != before[1]:
                controls["clauses"].value = guessed(prompt)
        finally:
            self._setting = False

    # Where things stand

    def _stand(self) -> str:
        work = self._work
        busy = work is not None and work.is_alive()
        self.form.set_disabled(busy)
        self._go.disabled, self._end.disabled = busy, not busy
        html = telling_html(work, self.told)
        if work is not None and work.error is not None and not self.form.errors:
            html += fault_html(str(work.error), "")
        return html

    def _make_buttons(self) -> list[w.Button]:
        self._go = self.button("Generate", "pencil", self.generate, button_color=BLUE, text_color="white")
        self._end = self.button("Stop", "stop", self.stop)
        return [self._go, self._end]

    # What stands below

    def _body(self) -> list[w.Widget]:
        def slider(made: w.Widget, text: str, width: str) -> w.Widget:
            made.description, made.continuous_update = text, False
            made.style, made.layout.width = {"description_width": "auto"}, width
            made.observe(self._changed, "value")
            return made

        self._source = menu("ProSG", [("off", "")], "250px", self._changed)
        self._strength = slider(
            w.FloatSlider(1.0, min=0.0, max=2.0, step=0.1, readout_format=".1f"), "Strength", "240px"
        )
        self._again = slider(w.IntSlider(0, 0, 0), "Read the prompt again behind token", "420px")
        self._measure = menu(
            "Colour", [(MEASURES[name].label, name) for name in SHOWN[:1]], "300px", self._changed
        )
        self._kind = menu("Coloured by", [(kind, kind) for kind in kinds()], "220px", self._changed)
        self._came = w.HTML(layout={"width": "100%"})
        return [
            style(),
            row(self._source, self._strength),
            row(self._again, self._measure),
            self.clauses.widget(),
            self.influence.widget(),
            self._came,
            self.text.widget(),
            part("What ProSG writes into the weights"),
            self.weights.widget(),
            row(self._kind, self.button("Map many prompts", "map-marker", self.map_many)),
            self.changes.widget(),
        ]

    def _changed(self, change: Any) -> None:
        if not self._setting:
            self._news.set()

    # How it is brought up to date

    def _look(self) -> bool:
        work, told = self._work, self.told
        if work is not None and work.error is not None and told is not None and not told.asked:
            self._take_back(work)
            told = self.told
        self._offer()
        self._ask_for_more()
        texts = self.texts()
        sizes = tuple((name, len(seen.ids), seen.met) for name, seen in texts.items())
        choice = (self._source.value, self._strength.value)
        drawn = (
            (told and told.home, sizes, self._measure.value),
            self._weights_of(choice),
            (self.changes.changes, self.changes.pending, self._chores.busy("map")),
        )
        if drawn == self._drawn:
            return False
        before, self._drawn = self._drawn or (None,) * 3, drawn
        if drawn[0] != before[0]:
            self._draw_texts(texts)
        if drawn[1] != before[1]:
            self.weights.update()
        if drawn[2] != before[2]:
            self.changes.update()
        return True

    def _draw_texts(self, texts: dict[str, Forgetting]) -> None:
        steps = self.told.settings.tokens if self.told is not None and self._busy() else None
        self.clauses.texts = self.influence.texts = self.text.texts = texts
        self.clauses.measure = self._measure.value
        self.clauses.steps = self.influence.steps = steps
        for view in (self.clauses, self.influence, self.text):
            view.update()
        self._came.value = came_back(texts)

    def _busy(self) -> bool:
        return self._work is not None and self._work.is_alive()

    def _weights_of(self, choice: tuple[str, float]) -> tuple[Any, ...]:
        """What the change of the weights is shown of; has it worked out where that is something else by now."""
        source, strength = choice
        told = self.told
        wanted = (told.home, source, strength) if told is not None and source else ()
        if wanted and wanted != self._changed_by and not self._busy() and not self._chores.busy("weights"):
            assert told is not None
            settings, self._changed_by = told.settings, wanted

            def measure() -> None:
                from workbench.analysis.weight_changes import change_table, prompt_rows, spectra
                from workbench.training.work import shared_backbone

                method = make_method(shared_backbone(settings.backbone), source, strength)
                assert method is not None
                rows = prompt_rows(method, [settings.prompt])
                self.weights.changes, self.weights.spectrum = (
                    change_table(method, rows),
                    spectra(method, rows),
                )
                self.weights.name = Asked(source, strength).label

            self._chores.do("weights", measure)
        if not source and self.weights.changes is not None:
            self.weights.changes = self.weights.spectrum = None
            self._changed_by = ()
        return (id(self.weights.changes), self._chores.busy("weights"))

    def _take_back(self, work: Telling) -> None:
        """Of what could not be read nothing is left: said at its field, and what was there before is shown."""
        home = newest_home(self.folder)
        self.told = None if home is None else Told(home)
        self.form.refuse(work.field, str(work.error))

    # What can be chosen

    def _offer(self) -> None:
        """Brings the choices of the controls up to what there is."""
        self._setting = True
        try:
            if time.monotonic() - self._looked > LOOKS:
                self._offer_sources()
            plain = None if self.told is None else self.told.text("00")
            last = 0 if plain is None else len(plain.forgetting.ids) - 1
            if self._again.max != last:
                self._again.max = last
            have = SHOWN[:1] if plain is None else [m for m in SHOWN if m in plain.forgetting.values]
            offer(self._measure, [(MEASURES[name].label, name) for name in have])
        finally:
            self._setting = False

    def _offer_sources(self) -> None:
        """What ProSG can come from; looked for every few seconds, as that is a walk over many folders."""
        self._looked = time.monotonic()
        backbone = self.form.controls["backbone"].value if self.told is None else self.told.settings.backbone
        offer(self._source, [("off", ""), *sources(self.runs, backbone)])

    def _remember(self) -> None:
        """Turns the controls to the texts that were asked for last in the folder that is shown."""
        if self.told is None:
            return
        self._setting = True
        try:
            plain = self.told.text("00")
            self._again.max = 0 if plain is None else len(plain.forgetting.ids) - 1
            for asked in self.told.asked.values():
                if asked.again_at is not None:
                    self._again.value = asked.again_at
                elif asked.source in [value for _, value in self._source.options] and asked.source:
                    self._source.value, self._strength.value = asked.source, asked.strength
        finally:
            self._setting = False
        if (self.maps / LAST).is_file():
            last = json.loads((self.maps / LAST).read_text(encoding="utf-8"))
            if last["source"] in UNTRAINED or Path(last["source"]).is_dir():
                self._kind.value = last["kind"]
                self._map(**last)


def came_back(texts: dict[str, Forgetting]) -> str:
    """One sentence on each text: what was met, and what reading the prompt again brought back."""
    lines = [f"<b>{escape(name)}</b>: {said(seen)}" for name, seen in texts.items() if said(seen)]
    plain = texts.get(PLAIN)
    for seen in texts.values():
        at = seen.again_at
        if at is not None and plain is not None and len(seen.ids) > at and len(plain.ids) > at:
            now, then = seen.values["influence"][at:].mean(), plain.values["influence"][at:].mean()
            lines.append(
                f"Read again behind token {at}, the prompt's influence on what follows is {now:.2f} nats a token; "
                f"it was {then:.2f}."
            )
    return "".join(f"<div class='wb-status'>{line}</div>" for line in lines)

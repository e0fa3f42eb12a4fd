"""What the panel of notebook 03 asks for, as traces in a folder and back, and the thread that makes them. Owns no widget.

    runs/activation_space/0001-tiny-llama/asked.json        what the form said
                                         /00.json, 00/      a trace: what it is called and with which prompt; its rows
                                         /01.json, 01/      another, such as a selection read with a trained prompt
                                         /00.scores.json    how well its texts were answered, once that was asked
                                         /maps/             fitted maps, and what was measured of layers

A trace that was interrupted has its finished parts, and goes on from there.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workbench.errors import WorkbenchError
from workbench.training.run import Run
from workbench.views.selection import Selection, metric_of
from workbench.views.status import seconds_text

if TYPE_CHECKING:
    from workbench.analysis.trace import Trace, TraceProgress
    from workbench.analysis.trace_files import TraceFolder
    from workbench.backbones.backbone import Backbone
    from workbench.methods.method import Method
    from workbench.tasks.task import Example, Task

ASKED, MAPS = "asked.json", "maps"
ALONE = "no prompt"


@dataclass(frozen=True)
class TraceSettings:
    """What the form asks for."""

    backbone: str = field(default="tiny-llama", metadata={"label": "Backbone"})
    """A bundled name, a folder, or a Hub id."""
    run: str = field(default="", metadata={"label": "Prompt"})
    """A trained prompt that stands before every text, or none."""
    texts: int = field(default=100, metadata={"label": "Texts of each task", "min": 1, "max": 100_000})
    """Of each task and file, as many are drawn."""
    answers: Literal["given", "written"] = "given"
    """Given: question and answer are read. Written: the model writes its own answer, and that is traced as it goes."""
    layers: tuple[int | str, ...] = ("all",)
    """all, or numbers from 0 (-1 is the last), embeddings, output; of tiny-rwkv states as well."""
    tasks: tuple[str, ...] = ("reading", "cloze", "running", "add-2")
    """Whose texts are read; colours tell them apart."""
    files: tuple[str, ...] = field(default=(), metadata={"label": "Your own files"})
    """Files with the fields prompt and answer: JSONL, CSV or Parquet; several with commas between them."""
    tokens: Literal["all", "last", "answer", "mean"] = field(
        default="all", metadata={"label": "Tokens to keep"}
    )
    """All, so that any points can be looked at below; or only a text's last, its answer's, or their mean, which takes less
    room."""
    written: int = field(default=24, metadata={"label": "Tokens to write", "min": 1, "max": 2000})
    """The most that the model writes of an answer, or behind a text."""
    seed: int = field(default=0, metadata={"min": 0})
    """Of the draw of texts."""

    def __post_init__(self) -> None:
        for name in ("tasks", "files", "layers"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not (self.tasks or self.files):
            raise WorkbenchError("tasks is empty; tick one, or name a file of your own")
        if not self.layers:
            raise WorkbenchError("layers is empty; write all, or numbers such as 0, -1")

    def look(self) -> None:
        """Raises WorkbenchError where a file or a run is not there; what was traced of it may be, so it is asked of a form."""
        for path in self.files:
            if not Path(path).exists():
                raise WorkbenchError(
                    f"files has {path!r}, which is not there; give a path from where this notebook is"
                )
        if self.run and (its := backbone_of(self.run)) != self.backbone:
            raise WorkbenchError(
                f"run {Path(self.run).name} has a prompt for {its}, not for {self.backbone}; choose one that is"
            )

    @property
    def named(self) -> tuple[str, ...]:
        """The tasks and the files."""
        return (*self.tasks, *self.files)


def backbone_of(run: str | Path) -> str:
    """The backbone that a run's prompt is for. Raises WorkbenchError where there is no run."""
    return str(Run(run).config["backbone"]["name"])


def trained_runs(folder: Path, backbone: str) -> list[Path]:
    """The finished runs below a folder whose prompt is for a backbone, the newest first; damaged ones are left out."""
    found = []
    for run in Run.list(folder):
        try:
            if (run.path / "method/method.json").is_file() and backbone_of(run.path) == backbone:
                found.append(run.path)
        except (WorkbenchError, KeyError):
            continue
    return found


@dataclass(frozen=True)
class Asked:
    """One trace of a folder."""

    label: str
    """What it is called on the map."""
    run: str = ""
    """The folder of the trained prompt that was put before every text; "" for none."""
    selection: str = ""
    """The file of the selection whose texts it read; "" for the texts of the settings."""


class Traced:
    """A folder of traces: the first of what the form asked for, and those that were added.

    Args:
        home: the folder; `begin` makes a new one.

    Raises:
        WorkbenchError: a folder without what was asked, or one that is damaged.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        try:
            self.settings = TraceSettings(**json.loads((home / ASKED).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, WorkbenchError) as error:
            raise WorkbenchError(f"{home} holds no readable traces ({error}); trace again") from None
        self._loaded: dict[str, tuple[int, Trace]] = {}
        self._tasks: dict[str, Task] | None = None

    @classmethod
    def begin(cls, home: Path, settings: TraceSettings) -> Traced:
        """A new folder, with the first trace asked for."""
        home.mkdir(parents=True)
        _write(home / ASKED, asdict(settings))
        made = cls(home)
        made.ask(Asked(name_of_run(settings.run), settings.run))
        return made

    @property
    def asked(self) -> dict[str, Asked]:
        """Number, "00" and so on, to what was asked, in order."""
        found = {}
        for path in sorted(self.home.glob("[0-9][0-9].json")):
            found[path.stem] = Asked(**json.loads(path.read_text(encoding="utf-8")))
        return found

    def ask(self, asked: Asked) -> str:
        """Adds a trace, still to be made; its number. One that was asked for already is not added again."""
        there = self.asked
        for number, other in there.items():
            if (other.run, other.selection) == (asked.run, asked.selection):
                return number
        labels, label, count = {other.label for other in there.values()}, asked.label, 2
        while label in labels:
            label, count = f"{asked.label} ({count})", count + 1
        number = f"{len(there):02d}"
        _write(self.home / f"{number}.json", {**asdict(asked), "label": label})
        return number

    def tasks(self) -> dict[str, Task]:
        """The tasks and files by their names, of which no two are alike; loaded once."""
        from workbench.tasks.task import load_task

        if self._tasks is None:
            found: dict[str, Task] = {}
            for asked in dict.fromkeys(self.settings.named):
                task = load_task(asked)
                found[task.name if task.name not in found else asked] = task
            self._tasks = found
        return self._tasks

    def examples(self, asked: Asked) -> list[tuple[str, str, Example]]:
        """The texts of a trace, by number: task, metric, example; those of a task follow one another."""
        if asked.selection:
            texts = Selection(Path(asked.selection)).texts
            drawn = [(task, metric_of(task), example) for task, example in texts]
            order = list(dict.fromkeys(task for task, _ in texts))
            return sorted(drawn, key=lambda one: order.index(one[0]))
        return [
            (name, task.metric, example)
            for name, task in self.tasks().items()
            for example in task.examples(n=self.settings.texts, seed=self.settings.seed)
        ]

    def trace(self, number: str) -> Trace | None:
        """What there is of a trace; None before it has any part. Of one at work, what was there when it was asked."""
        from workbench.analysis.trace import Trace

        parts = len(list(self._folder(number).numbers()))
        if not parts:
            return None
        if number not in self._loaded or self._loaded[number][0] != parts:
            self._loaded[number] = (parts, Trace.load(self.home / number))
        return self._loaded[number][1]

    def forget(self, number: str) -> None:
        """Takes back what was asked where nothing of it was made; with the first trace the folder goes."""
        if not (self.home / number / "00000.safetensors").is_file():
            (self.home / f"{number}.json").unlink(missing_ok=True)
            shutil.rmtree(self.home / number, ignore_errors=True)
            if not self.asked:
                shutil.rmtree(self.home, ignore_errors=True)

    def undone(self) -> str | None:
        """The number of the first trace that is not complete; None where all are."""
        return next((number for number in self.asked if not self._folder(number).whole), None)

    def _folder(self, number: str) -> TraceFolder:
        from workbench.analysis.trace_files import TraceFolder

        return TraceFolder(self.home / number)

    def scores(self, number: str) -> list[float] | None:
        """Of each of its texts the score (0 to 1) of the model's own answer, nan where its task has none.

        None where that was not asked, or texts have come since.
        """
        path, trace = self.home / f"{number}.scores.json", self.trace(number)
        if trace is None or not path.is_file():
            return None
        kept = json.loads(path.read_text(encoding="utf-8"))
        if len(kept) != len(trace.texts):
            return None
        return [math.nan if score is None else float(score) for score in kept]

    def score(self, number: str) -> None:
        """Has the model answer the texts of a trace, scores the answers, and keeps the scores."""
        from workbench.methods.generate import default_config, generate
        from workbench.tasks.metrics import METRICS

        asked, trace = self.asked[number], self.trace(number)
        if trace is None:
            return
        examples = self.examples(asked)[: len(trace.texts)]
        metrics = [METRICS[metric] for _, metric, _ in examples]
        answered = [i for i, metric in enumerate(metrics) if metric.name != "perplexity"]
        said = {text["text"]: text["answer"] for text in trace.texts}
        if self.settings.answers == "given" and answered:
            backbone, method = self.model(asked)
            longest = max(
                len(backbone.tokenizer(examples[i][2].answer, add_special_tokens=False)["input_ids"])
                for i in answered
            )
            config = default_config(method, max_new_tokens=longest + 4)
            texts = generate(backbone, [examples[i][2].prompt for i in answered], method, config)
            said = dict(zip(answered, texts, strict=True))
        scores: list[float | None] = [None] * len(examples)
        for i in answered:
            score = metrics[i].score(said[i], examples[i][2])
            scores[i] = None if math.isnan(score) else score
        _write(self.home / f"{number}.scores.json", scores)

    def model(self, asked: Asked) -> tuple[Backbone, Method | None]:
        """The backbone, and the trained prompt if there is one."""
        from workbench.training.work import shared_backbone

        backbone = shared_backbone(self.settings.backbone)
        return backbone, Run(asked.run).load_method(backbone) if asked.run else None


class Tracing(threading.Thread):
    """Makes the traces of a folder that are not complete.

    Args:
        traced: the folder.

    Attributes:
        progress: how far the trace at hand is; None while libraries and models are read.
        error, field: what went wrong, and the field of the form that it is about, "" for none.
        stopped: whether it was asked to end and has; what is done is kept.
    """

    def __init__(self, traced: Traced) -> None:
        super().__init__(name=f"tracing {traced.home.name}", daemon=True)
        self.traced, self.progress = traced, None  # type: tuple[Traced, TraceProgress | None]
        self.error: Exception | None = None
        self.field, self.stopped = "", False
        self._unwanted = threading.Event()

    def stop(self) -> None:
        """Ends after the part at hand."""
        self._unwanted.set()

    def run(self) -> None:
        """Does it; what goes wrong is kept for the panel, which says it in one sentence."""
        number: str | None = None
        try:
            while (number := self.traced.undone()) is not None:
                self._make(number)
        except _Unwanted:
            self.stopped = True
        except Exception as error:
            self.error = error
            self.traced.forget(number or "00")

    def _make(self, number: str) -> None:
        asked, settings, self.progress = self.traced.asked[number], self.traced.settings, None
        for field_, step in self._steps(asked):
            self.field = field_
            step()
        self.field = ""
        from workbench.analysis.trace import trace

        backbone, method = self.traced.model(asked)
        texts: dict[str, list[Example]] = {}
        for name, _, example in self.traced.examples(asked):
            texts.setdefault(name, []).append(example)
        trace(
            backbone,
            texts,
            list(settings.layers),
            settings.tokens,
            method,
            generate=writing(method, settings.written) if settings.answers == "written" else None,
            folder=self.traced.home / number,
            progress=self._heard,
        )

    def _steps(self, asked: Asked) -> Iterator[tuple[str, Callable[[], Any]]]:
        """What may go wrong before a trace begins, beside the field that it is about."""
        from workbench.analysis.trace_places import place_names
        from workbench.training.work import shared_backbone

        settings = self.traced.settings
        backbone = settings.backbone
        yield "backbone", lambda: shared_backbone(backbone)
        yield "files" if settings.files else "tasks", lambda: self.traced.examples(asked)
        yield "run", lambda: self.traced.model(asked)
        yield "layers", lambda: place_names(shared_backbone(backbone), list(settings.layers))
        if self._unwanted.is_set():
            raise _Unwanted

    def _heard(self, progress: TraceProgress) -> None:
        self.progress = progress
        if self._unwanted.is_set() and progress.texts < progress.of:
            raise _Unwanted


class _Unwanted(Exception):
    """Somebody has asked for an end."""


def writing(method: Method | None, tokens: int) -> Any:
    """How a model writes its answers, as a `GenerateConfig`: greedy, with the text settings of its prompt."""
    from workbench.methods.generate import default_config

    return default_config(method, max_new_tokens=tokens)


def name_of_run(run: str) -> str:
    """What a run is called on a map: its folder, or that there is none."""
    return Path(run).name if run else ALONE


def newest_home(folder: Path) -> Path | None:
    """The newest folder of traces; None where there is none."""
    return max((path.parent for path in folder.glob(f"[0-9]*/{ASKED}")), default=None)


def tracing_html(work: Tracing | None, traced: Traced | None) -> str:
    """The track of the progress, and one sentence on where things stand."""
    text, stage, done = "Choose what to read, and press Trace.", "", 0.0
    if work is not None and work.is_alive():
        at = work.progress
        text, stage = "Getting ready: reading the libraries and the model …", "loading"
        if at is not None:
            left = f" · about {seconds_text(at.left)} left" if at.left >= 0.5 else ""
            text, stage, done = (
                f"Tracing: text {at.texts:,} of {at.of:,}{left}",
                "training",
                at.texts / max(1, at.of),
            )
    elif work is not None and work.error is not None:
        text, stage = "Failed.", "failed"
    elif traced is not None and (number := traced.undone()) is not None:
        trace = traced.trace(number)
        there = f" after {len(trace.texts):,} texts" if trace else ""
        word = "Interrupted" if work is None else "Stopped"
        text, stage = f"{word}{there}. Resume goes on from there; nothing is lost.", word.lower()
    elif traced is not None:
        trace = traced.trace("00")
        rows, texts = (len(trace), len(trace.texts)) if trace else (0, 0)
        where = f"<br><small>kept in {Path(os.path.relpath(traced.home)).as_posix()}</small>"
        text, stage, done = f"Traced: {rows:,} points of {texts:,} texts{where}", "finished", 1.0
    track = f"<div class='wb-track wb-{stage}'><div style='width:{done:.1%}'></div></div>"
    return f"<div class='wb-status'>{track}{text}</div>"


def _write(path: Path, facts: Mapping[str, Any] | Sequence[Any]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)

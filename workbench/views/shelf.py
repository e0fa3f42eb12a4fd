"""What lies in a folder of runs: one line of facts a run, read again only where its files changed. Writes nothing.

Every listing of runs, in a shell and in a notebook, begins with `runs_in`, so all agree on what is listed.

A look at 500 runs of which none changed is a walk over their folders; what was appended to a metrics.jsonl is read
from where the last look ended. A run that cannot be read is an entry that says so.
"""

from __future__ import annotations

import calendar
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from workbench.training.run import Run
from workbench.views.tail import Tail

#: The state of a run whose config or status cannot be read.
DAMAGED = "damaged"

#: States that only change when a file does; of any other the writer may have gone without a word.
RESTING = ("finished", "stopped", "failed")

FILES = ("config.json", "status.json", "metrics.jsonl")

#: What a study (`workbench reproduce`) adds to each of its runs, which are STUDY/backbone/task/run.
STUDY_FILE, STUDY_DEPTH = "study.json", 3


class Found(NamedTuple):
    """The runs in a folder that are listed, and the studies whose runs are not."""

    runs: list[Path]
    """Their folders, in order of their names."""
    studies: dict[Path, int]
    """The folders of studies to the number of their runs."""

    def note(self) -> str:
        """Which studies are left out, in a sentence; nothing where there are none."""
        said = [
            f"{count:,} {'run of a study' if count == 1 else 'runs of studies'} in {path}"
            for path, count in self.studies.items()
        ]
        return f"Not listed: {' and '.join(said)}. To see them, name that folder." if said else ""


def runs_in(folder: str | Path) -> Found:
    """The runs below a folder, however deep, but for those of studies.

    A study keeps hundreds of runs, among which one's own would be lost. They are listed where the study's folder, or
    one in it, is named; a folder that is not there holds none.
    """
    folder = Path(folder)
    found = dict(_runs_below(folder))
    deeper = [path for path in found if len(path.relative_to(folder).parts) > STUDY_DEPTH]
    homes = {path.parents[STUDY_DEPTH - 1] for path in deeper if found[path]}
    of_studies = Counter(home for path in found for home in homes if home in path.parents)
    return Found([path for path in found if homes.isdisjoint(path.parents)], dict(of_studies))


@dataclass(frozen=True)
class Entry:
    """What is known of one run without opening its tensors. Text is empty, and a number None, where nothing is known."""

    name: str
    """Its folder, as seen from the folder that was looked into."""
    path: Path
    state: str
    """As the run says; `damaged` where its config or its status cannot be read."""
    backbone: str = ""
    task: str = ""
    method: str = ""
    prior: str = ""
    step: int = 0
    """Steps done."""
    steps: int | None = None
    """Steps asked for."""
    loss: float | None = None
    """The last step's, nats a token."""
    best_validation_loss: float | None = None
    """The lowest, nats a token."""
    measure: str = ""
    """The first measure on validation that is not a loss, such as accuracy."""
    best_validation_score: float | None = None
    """The highest of that measure, 0 to 1."""
    seconds: float = 0.0
    """Spent in steps."""
    created: float = 0.0
    """Seconds since 1970."""
    note: str = ""
    """What is wrong with it, in one sentence."""

    @property
    def run(self) -> Run | None:
        """The run, where there is one to read."""
        return Run(self.path) if self.state != DAMAGED and (self.path / "config.json").is_file() else None


@dataclass
class _Tally:
    """Sums over a metrics.jsonl so far."""

    tail: Tail
    step: int = 0
    loss: float | None = None
    best_loss: float | None = None
    measure: str = ""
    best_score: float | None = None
    seconds: float = 0.0

    def read(self) -> None:
        anew, records = self.tail.read()
        if anew:
            self.step, self.loss, self.best_loss, self.best_score, self.seconds = 0, None, None, None, 0.0
            self.measure = ""
        for record in records:
            self.step, self.loss = record["step"], record["loss"]
            self.seconds += _number(record.get("seconds")) or 0.0
            looked = record.get("validation")
            if isinstance(looked, Mapping):
                loss = _number(looked.get("loss"))
                self.measure = self.measure or next(
                    (name for name in looked if not name.endswith("loss")), ""
                )
                score = _number(looked.get(self.measure))
                if loss is not None:
                    self.best_loss = loss if self.best_loss is None else min(self.best_loss, loss)
                if score is not None:
                    self.best_score = score if self.best_score is None else max(self.best_score, score)


@dataclass
class _Kept:
    """What the last look found at one path."""

    tally: _Tally
    stamp: Any = None
    entry: Entry | None = None


@dataclass
class Shelf:
    """The runs below `folder`: those of `runs_in`."""

    folder: Path
    left_out: str = ""
    """Which studies the last look left out, in a sentence."""
    _kept: dict[Path, _Kept] = field(default_factory=dict)

    def look(self) -> list[Entry]:
        """The runs now, the newest first; a folder that is not there holds none."""
        found = runs_in(self.folder)
        self.left_out = found.note()
        self._kept = {
            path: self._kept.get(path) or _Kept(_Tally(Tail(path / "metrics.jsonl"))) for path in found.runs
        }
        entries = [self._entry(path, kept) for path, kept in self._kept.items()]
        return sorted(entries, key=lambda entry: (-entry.created, entry.name))

    def _entry(self, path: Path, kept: _Kept) -> Entry:
        stamp = tuple(_stamp(path / name) for name in FILES)
        if kept.entry is None or stamp != kept.stamp or kept.entry.state not in (*RESTING, DAMAGED):
            kept.entry, kept.stamp = self._read(path, kept.tally), stamp
        return kept.entry

    def _read(self, path: Path, tally: _Tally) -> Entry:
        name = path.relative_to(self.folder).as_posix()
        name = path.name if name == "." else name
        faults: list[str] = []
        config, status = (_json(path / file, faults) for file in ("config.json", "status.json"))
        state = DAMAGED if faults else str(status.get("state", "new"))
        if state not in (*RESTING, DAMAGED):
            state = str(getattr(Run(path), "state", state))
        tally.read()
        if tally.tail.damaged:
            lines = "1 line" if tally.tail.damaged == 1 else f"{tally.tail.damaged} lines"
            faults.append(f"{lines} of metrics.jsonl cannot be read")
        if status.get("error"):
            faults.append(str(status["error"]))
        settings = _at(config, "method", "config")
        prior = settings.get("prior") if isinstance(settings, Mapping) else None
        asked = _number(status.get("steps"))
        asked = asked if asked is not None else _number(_at(config, "fit", "steps"))
        return Entry(
            name=name,
            path=path,
            state=state,
            backbone=_text(_at(config, "backbone", "name")),
            task=_text(_at(config, "task", "task")),
            method=_text(_at(config, "method", "kind")),
            prior=_text(_at({"prior": prior}, "prior", "name")),
            step=tally.step,
            steps=None if asked is None else int(asked),
            loss=tally.loss,
            best_validation_loss=tally.best_loss,
            measure=tally.measure,
            best_validation_score=tally.best_score,
            seconds=tally.seconds,
            created=_created(config, path),
            note="; ".join(faults),
        )


def _runs_below(folder: Path) -> Iterator[tuple[Path, bool]]:
    """The folders with a run, whole or damaged, and whether it is a study's; what lies inside a run is not looked at."""
    for path, folders, files in os.walk(folder):
        if "status.json" in files or ("config.json" in files and "snapshots" in folders):
            folders.clear()
            yield Path(path), STUDY_FILE in files
        else:
            folders[:] = sorted(name for name in folders if not name.startswith("."))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size, facts.st_ino


def _json(path: Path, faults: list[str]) -> dict[str, Any]:
    """The facts of a file; where there are none, nothing, and a fault more."""
    try:
        facts = json.loads(path.read_bytes())
    except FileNotFoundError:
        faults.append(f"{path.name} is missing")
        return {}
    except (OSError, ValueError):
        faults.append(f"{path.name} cannot be read")
        return {}
    if not isinstance(facts, dict):
        faults.append(f"{path.name} holds no facts")
        return {}
    return facts


def _at(facts: Mapping[str, Any], part: str, name: str) -> Any:
    """`facts[part][name]`; where `part` is no mapping, that itself."""
    inner = facts.get(part)
    return inner.get(name) if isinstance(inner, Mapping) else inner


def _text(value: Any) -> str:
    if isinstance(value, Mapping):  # a file's task: its place, and its part
        return " ".join(map(str, value.values()))
    return "" if value is None else str(value)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _created(config: Mapping[str, Any], path: Path) -> float:
    """When the run was created, as it says; else when its folder last changed."""
    try:
        return float(calendar.timegm(time.strptime(str(config.get("created")), "%Y-%m-%d %H:%M:%S UTC")))
    except ValueError:
        stamp = _stamp(path / "config.json") or _stamp(path)
        return stamp[0] / 1e9 if stamp else 0.0

"""`workbench runs|tasks|backbones`: what there is, one line each. Reads small files; loads no model."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from workbench.data import BACKBONES
from workbench.errors import WorkbenchError
from workbench.tables import table


@dataclass(frozen=True)
class Tasks:
    """List the tasks of the small world: name, kind, metric, and what one looks like."""

    group: str | None = None
    """Only those of one kind: stories, reading, arithmetic, relations, …"""

    def run(self) -> int:
        """Prints a line for each."""
        from workbench.errors import unknown
        from workbench.tasks import world

        families = [f for f in world.families().values() if self.group in (None, f.group)]
        if not families:
            raise unknown("kind of task", str(self.group), {f.group for f in world.families().values()})
        lines = [("task", "kind", "metric", "example")]
        for family in sorted(families, key=lambda f: (f.group, f.name)):
            (sample,) = world.samples(family.name, "train", 1, 0)
            lines.append((family.name, family.group, family.metric, _short(sample.prompt, sample.answer)))
        print(table(lines))
        return 0


@dataclass(frozen=True)
class Backbones:
    """List the bundled backbones; any folder or Hub id of a causal language model can be used as well."""

    def run(self) -> int:
        """Prints a line for each."""
        folders = sorted(path.parent for path in BACKBONES.glob("*/config.json"))
        if not folders:
            raise WorkbenchError(
                f"no backbone is bundled in {BACKBONES}; install with `pip install -e .` in a checkout that has them"
            )
        lines = [("backbone", "model", "size", "card")]
        for folder in folders:
            model = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"][0]
            size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
            lines.append((folder.name, model, f"{size / 1e6:.1f} MB", str(folder / "README.md")))
        print(table(lines))
        return 0


@dataclass(frozen=True)
class Runs:
    """List the runs in a folder: what was trained on what, how far it is, and how well it does.

    A run that should be at work and that nobody writes (killed, or its kernel ended) is interrupted: it can go on.
    The runs of studies (`workbench reproduce`) are counted, and listed where their folder is named.
    """

    folder: Annotated[Path, tyro.conf.Positional] = Path("runs")
    """The folder that holds the run directories, or one of these."""

    def run(self) -> int:
        """Prints a line for each, the newest first."""
        from workbench.views.shelf import Shelf

        shelf = Shelf(self.folder)
        entries = shelf.look()
        if shelf.left_out:
            print(shelf.left_out, file=sys.stderr)
        if not entries:
            but = " but those of studies" if shelf.left_out else ""
            raise WorkbenchError(
                f"there are no runs in {self.folder}{but}; start one with `workbench train --run …`"
            )
        lines = [
            ("run", "backbone", "task", "method", "state", "step", "loss", "best on validation", "written")
        ]
        for entry in entries:
            best = {"loss": entry.best_validation_loss, entry.measure: entry.best_validation_score}
            lines.append(
                (
                    str(entry.path),
                    entry.backbone,
                    entry.task,
                    entry.method,
                    f"{entry.state}: {entry.note}" if entry.note else entry.state,
                    f"{entry.step}/{entry.steps}",
                    "" if entry.loss is None else f"{entry.loss:.4f}",
                    ", ".join(f"{name} {value:.3f}" for name, value in best.items() if value is not None),
                    _ago(max(path.stat().st_mtime for path in entry.path.iterdir() if path.is_file())),
                )
            )
        print(table(lines))
        return 0


def _ago(when: float) -> str:
    """A time in the past as people say it, so that a run that died while running shows."""
    seconds = max(0.0, time.time() - when)
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} seconds ago"


def _short(prompt: str, answer: str, room: int = 72) -> str:
    """The end of the question and the start of the answer, on one line."""
    answer = answer if len(answer) <= room // 2 else answer[: room // 2 - 2] + " …"
    left = room - len(answer)
    prompt = prompt if len(prompt) <= left else "… " + prompt[-left + 2 :]
    return f"{prompt} → {answer}".replace("\n", " ")

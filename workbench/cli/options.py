"""Options that several commands share, and how words become a command. Loads what they name; runs nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import tyro

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.backbones.backbone import Backbone
    from workbench.tasks.encode import TextConfig
    from workbench.tasks.task import Task
    from workbench.training.run import Run


class Runs(Protocol):
    """A parsed command."""

    def run(self) -> int:
        """Does the work; the exit code."""
        ...


C = TypeVar("C", bound=Runs)


def parse(kind: type[C], name: str, words: Sequence[str]) -> C:
    """The command that the words ask for. Where it has `defaults(words)`, these stand in for what is not said.

    Wrong words leave with exit code 2 and what was wrong, --help with 0.
    """
    defaults = getattr(kind, "defaults", None)
    default: Any = defaults(words) if defaults else None
    command: Any = tyro.cli(
        kind, prog=f"workbench {name}", args=list(words), default=default, config=(tyro.conf.OmitArgPrefixes,)
    )
    return command


def value_of(words: Sequence[str], option: str) -> str | None:
    """What follows `--option` (or `--option=`) among the words, before they are parsed."""
    for word, following in zip(words, [*words[1:], None], strict=True):
        if word == option:
            return following
        if word.startswith(option + "="):
            return word.partition("=")[2]
    return None


def settings(pairs: Sequence[str], of: str) -> dict[str, Any]:
    """`("shots=4", "style=plain")` to `{"shots": 4, "style": "plain"}`: values are JSON where they can be."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise WorkbenchError(f"{pair!r} is no setting of {of}; write it as name=value")
        try:
            found[key] = json.loads(text)
        except ValueError:
            found[key] = text
    return found


@dataclass(frozen=True)
class BackboneOptions:
    """Which language model, and where it runs."""

    backbone: str | None = None
    """A bundled one (`workbench backbones` lists them), a folder written by save_pretrained, or a Hub id."""
    device: str = "auto"
    """auto takes the accelerator where there is one; or cpu, cuda:1, …"""
    dtype: str = "auto"
    """auto is the checkpoint's own type on an accelerator and float32 on the CPU; or float32, bfloat16, …"""

    def load(self, run: Run | None = None) -> Backbone:
        """The frozen model; the run's own where none is named."""
        from transformers.utils import logging

        from workbench.backbones.backbone import load_backbone

        logging.disable_progress_bar()  # stderr has one bar, the command's own
        name = self.backbone or (run.config["backbone"]["name"] if run else None)
        if name is None:
            raise WorkbenchError("no backbone is named; give --backbone, such as tiny-llama, or --run")
        return load_backbone(name, device=self.device, dtype=self.dtype)


@dataclass(frozen=True)
class TaskOptions:
    """Which task: one of the small world, or somebody's own data."""

    task: str | None = None
    """A task of the small world (`workbench tasks` lists them); a JSONL, CSV, TSV or Parquet file; a folder with
    train, validation and test files; a folder or Hub name of 🤗 datasets."""
    examples: int | None = None
    """How many training examples; None: all of a file, and the small world's own number."""
    task_seed: int = 0
    """Seed of the examples."""
    template: str | None = None
    """For files, the question with the row's fields in braces: "{context} Question: {question} Answer:"; backslash n is a new line."""
    answer: str | None = None
    """For files, the field with the answer."""
    metric: str | None = None
    """How an answer is scored; None: the task's own way."""
    preset: str | None = None
    """For files in a known format: squad, gsm8k, deepmind-math; or clauses, prompts with a check for each of their clauses."""
    on_bad: Literal["stop", "skip"] = "stop"
    """What to do at a bad row: stop with its place, or skip and count it."""
    settings: tuple[str, ...] = ()
    """The task's own options, as name=value: shots=4, clauses=8, …"""

    def load(self, run: Run | None = None) -> Task:
        """The task with its splits; the run's own where none is named."""
        from workbench.tasks.task import Task, load_task

        if self.task:
            return load_task(self.task, **self.arguments())
        if self != TaskOptions():
            raise WorkbenchError("options of a task are given, and no --task; name the task as well")
        if run is None:
            raise WorkbenchError("no task is named; give --task, such as reading, or --run")
        return Task.from_config(run.config["task"])

    def arguments(self) -> dict[str, Any]:
        """What `load_task` takes beside the name."""
        named: Mapping[str, Any] = {
            "n": self.examples,
            "seed": self.task_seed,
            "template": self.template and self.template.replace("\\n", "\n"),
            "answer": self.answer,
            "metric": self.metric,
            "preset": self.preset,
            "on_bad": self.on_bad,
        }
        return {**named, **settings(self.settings, "the task")}


def text_of_run(words: Sequence[str]) -> TextConfig:
    """How the run behind --run makes tokens of text, so that its prompt is used as it was trained."""
    from workbench.tasks.encode import TextConfig
    from workbench.training.run import Run

    folder = value_of(words, "--run")
    return TextConfig(**Run(folder).config["fit"]["text"]) if folder else TextConfig()

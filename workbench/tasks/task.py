"""Task: examples with splits and a metric, and `load_task`, the one door to all of them.

A task has a source (the small world, or somebody's files) that gives any example of any split by its index, so
nothing is loaded that is not looked at, and a sample is a list of indices that is the same on every machine.
This module never parses a file (readers.py), never tokenises (encode.py) and never scores (metrics.py).
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, cast, overload

from workbench.errors import WorkbenchError, unknown

SPLITS = ("train", "validation", "test")
WORLD_SIZES = {"train": 2000, "validation": 200, "test": 500}


@dataclass(frozen=True)
class Example:
    """One question with its answer.

    `prompt + answer` is the whole text: the answer carries its own leading space where the prompt does not end
    in white space. `references` are all accepted answers (stripped, the trained one first); `choices` the label
    words, where the answer is one of few; `fields` the row or the world's own facts that it was made from.
    """

    prompt: str
    answer: str
    references: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), hash=False)

    def __post_init__(self) -> None:
        if not self.references:
            object.__setattr__(self, "references", (self.answer.strip(),))

    @property
    def text(self) -> str:
        """Prompt and answer as the model reads them."""
        return self.prompt + self.answer


def joined(prompt: str, answer: str) -> str:
    """The answer as it follows the prompt: after one space, or after none where the prompt is empty or ends in space."""
    return answer if not prompt or prompt[-1].isspace() else " " + answer


class Source(Protocol):
    """Where a task's examples come from: any example of any split, by index, always the same one."""

    splits: tuple[str, ...]

    def size(self, split: str) -> int: ...
    def example(self, split: str, index: int) -> Example: ...
    def describe(self) -> dict[str, Any]: ...


class Examples(Sequence[Example]):
    """Some examples of one split, made when they are looked at: a source and a list of row indices."""

    def __init__(self, source: Source, split: str, indices: Sequence[int]):
        self.source, self.split, self.indices = source, split, indices

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Examples: ...
    def __getitem__(self, index: int | slice) -> Example | Examples:
        if isinstance(index, slice):
            return Examples(self.source, self.split, self.indices[index])
        return self.source.example(self.split, self.indices[index])

    def __repr__(self) -> str:
        return f"Examples({self.split!r}, {len(self)})"


class Task(Sequence[Example]):
    """Examples with splits and a metric. Made by `load_task`; as a sequence it is the examples of its own split.

    `name`; `metric`, a key of `metrics.METRICS`; `splits`, the names that `examples` takes; `split`, the one that
    iteration, `len` and indexing use. `to_config()` is JSON from which `Task.from_config` loads the same again.
    """

    def __init__(
        self,
        name: str,
        metric: str,
        source: Source,
        config: Mapping[str, Any],
        split: str = "train",
        n: int | None = None,
        seed: int = 0,
    ):
        from workbench.tasks.metrics import METRICS

        if metric not in METRICS:
            raise unknown("metric", metric, METRICS)
        if split not in source.splits:
            raise unknown(f"split of {name}", split, source.splits)
        self.name, self.metric, self.source, self.split, self.n, self.seed = (
            name,
            metric,
            source,
            split,
            n,
            seed,
        )
        self._config = dict(config)
        if n is not None and n < 0:
            raise WorkbenchError(f"n is {n}; a number of examples is zero or more")
        if n is not None and n > source.size(split):
            raise WorkbenchError(
                f"{name} has {source.size(split)} examples in its split {split!r}, fewer than the {n} asked for; "
                f"ask for n={source.size(split)} or leave n out"
            )

    @property
    def splits(self) -> tuple[str, ...]:
        return self.source.splits

    @property
    def separator(self) -> str:
        """What stands between a worked example and the next question: as the small world has it, else a blank line."""
        return str(getattr(self.source, "separator", "\n\n"))

    @property
    def skipped(self) -> int:
        """How many bad rows `on_bad="skip"` left out, in all splits."""
        return int(getattr(self.source, "skipped", 0))

    def examples(self, split: str | None = None, n: int | None = None, seed: int = 0) -> Examples:
        """`n` examples of `split` (its own split by default), drawn without replacement with `seed`.

        `n=None`, or an `n` that is not below the number there is, gives all of them in their own order. The same
        arguments give the same examples in the same order on every machine.
        """
        split = self.split if split is None else split
        if split not in self.splits:
            raise unknown(f"split of {self.name}", split, self.splits)
        indices: Sequence[int] = range(self.source.size(split))
        if split == self.split:
            indices = _draw(indices, self.n, self.seed)
        return Examples(self.source, split, _draw(indices, n, seed))

    def __len__(self) -> int:
        return self.source.size(self.split) if self.n is None else self.n

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Examples: ...
    def __getitem__(self, index: int | slice) -> Example | Examples:
        return self.examples()[index]

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples())

    def describe(self) -> dict[str, Any]:
        """What there is: name, metric, examples in each split, rows skipped, the first example, the source's own."""
        own = self.examples()
        return {
            "name": self.name,
            "metric": self.metric,
            "split": self.split,
            "examples": {s: len(self.examples(s)) for s in self.splits},
            "skipped": self.skipped,
            "first": {"prompt": own[0].prompt, "answer": own[0].answer} if len(own) else None,
            **self.source.describe(),
        }

    def to_config(self) -> dict[str, Any]:
        """The arguments of `load_task` that give this task again, as JSON (paths are absolute)."""
        return dict(self._config)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Task:
        """The task of `to_config()`; stops where a file is not the one it was, so that a resumed run is honest."""
        arguments = dict(config)
        rows = arguments.pop("rows", None)
        task = load_task(arguments.pop("task"), **arguments)
        now = task.to_config().get("rows")
        if rows is not None and now != rows:
            raise WorkbenchError(
                f"the data of {task.name} has changed since its configuration was written "
                f"(then {rows}, now {now}); put the old file back, or start a new run"
            )
        return task

    def __repr__(self) -> str:
        return f"Task({self.name!r}, split={self.split!r}, examples={len(self)}, metric={self.metric!r})"


def _draw(indices: Sequence[int], n: int | None, seed: int) -> Sequence[int]:
    """`n` of `indices` without replacement; all of them in their order where `n` is None or not smaller."""
    if n is not None and n < 0:
        raise WorkbenchError(f"n is {n}; a number of examples is zero or more")
    if n is None or n >= len(indices):
        return indices
    return random.Random(f"examples {seed}").sample(indices, n)  # a string seed goes through sha512: portable


class WorldSource:
    """A family of the small world: an example is generated when it is first looked at, and kept."""

    separator = " . "

    def __init__(self, name: str, sizes: Mapping[str, int], seed: int, options: Mapping[str, Any]):
        self.name, self.sizes, self.seed, self.options = name, dict(sizes), seed, dict(options)
        self.splits: tuple[str, ...] = SPLITS
        self._made: dict[tuple[str, int], Example] = {}

    def size(self, split: str) -> int:
        """How many examples the split is taken to have; the generator has no end."""
        return self.sizes[split]

    def example(self, split: str, index: int) -> Example:
        """The world's sample with this index; it does not depend on how many others there are."""
        key = (split, index)
        if key not in self._made:
            from workbench.tasks import world

            made = world.sample(self.name, cast(world.Split, split), self.seed, index, **self.options)
            answer = joined(made.prompt, made.answer)
            self._made[key] = Example(made.prompt, answer, (made.answer,), made.choices, made.fields)
        return self._made[key]

    def describe(self) -> dict[str, Any]:
        """The seed and the family's options."""
        return {"source": "small world", "seed": self.seed, "options": self.options}


def _check_options(family: Any, options: Mapping[str, Any]) -> None:
    """Stops at an option that the family does not take; the generator's first two arguments are dice and split."""
    known = list(inspect.signature(family.make).parameters.values())[2:]
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known):
        for option in options:
            if option not in (names := [parameter.name for parameter in known]):
                raise unknown(f"option of the task {family.name}", option, names)


def list_tasks() -> list[str]:
    """The names of the small world's tasks, sorted; `load_task` also takes paths and Hub names."""
    from workbench.tasks import world

    return sorted(world.families())


def load_task(
    name: str | Path | Mapping[str, str | Path],
    split: str = "train",
    n: int | None = None,
    seed: int = 0,
    *,
    template: str | None = None,
    answer: str | None = None,
    metric: str | None = None,
    preset: str | None = None,
    on_bad: str = "stop",
    **options: Any,
) -> Task:
    """A task of the small world, or one made from files.

    name: a family of the small world (`list_tasks()`; a family wins over a file of the same name); or a JSONL, CSV,
        TSV or Parquet file (one file is split 8 : 1 : 1 by row number, see `readers.split_rows`); or a folder with
        files called train, validation (or dev, valid, val) and test; or a dict from split to file; or a folder
        saved by 🤗 datasets; or a Hub name with a slash, "rajpurkar/squad".
    split: the split that the task itself iterates over; the others are there through `examples(split)`.
    n: how many examples that split has: generated in the small world (default 2000, 200 and 500 in train, validation
        and test), drawn with `seed` from a file (default all).
    seed: of the generated examples, or of the draw of `n` from a file.
    template: the question, with the row's fields in braces: "{context}\\nQuestion: {question}\\nAnswer:" (default
        "{prompt}"). Dots reach into nested fields. `<prompt>` marks where a trained prompt stands, if it stands there.
    answer: the field with the answer (default "answer"); "answers.text" reaches into a row, and a list gives several
        references, of which the first is trained on.
    metric: a key of `metrics.METRICS` (default: the family's or preset's own, otherwise exact match).
    preset: "squad", "gsm8k" or "deepmind-math": template, answer and metric of a public format (`presets.PRESETS`);
        "clauses": prompts with a check for each clause (`clauses.load_prompts`).
    on_bad: "stop" at a bad row with file, line and field, or "skip" and count it in `task.skipped`. Rows are checked
        while a file is indexed, so a bad one shows here and not in the middle of a run.
    options: of the family (shots=4, clauses=8, length=200, …); for files `choices` (the label words, or the field
        that holds them), `subset` (a Hub data set's configuration) and those of the preset.

    Raises WorkbenchError for an unknown name, split, metric, preset or option, and for files that cannot be read.
    """
    from workbench.tasks import world

    if on_bad not in ("stop", "skip"):
        raise unknown("way to treat bad rows (on_bad)", on_bad, ("stop", "skip"))
    asked = {"template": template, "answer": answer, "metric": metric, "preset": preset}
    shared: dict[str, Any] = {"split": split, "n": n, "seed": seed, "on_bad": on_bad}
    families = world.families()
    if isinstance(name, str) and name in families:
        if used := [key for key in ("template", "answer", "preset") if asked[key] is not None]:
            raise WorkbenchError(f"{name} is a family of the small world and takes no {' or '.join(used)}")
        if split not in SPLITS:
            raise unknown(f"split of {name}", split, SPLITS)
        _check_options(families[name], options)
        metric = metric or families[name].metric
        sizes = WORLD_SIZES if n is None else {**WORLD_SIZES, split: n}
        source = WorldSource(name, sizes, seed, options)
        config = {"task": name, **shared, "metric": metric, **options}
        return Task(name, metric, source, config, split=split, n=n, seed=seed)

    from workbench.tasks import readers

    source_of_files, metric = readers.open_source(
        name, on_bad=on_bad, known_tasks=families, **asked, **options
    )
    config = {"task": source_of_files.location, **shared, **asked, "metric": metric, **options}
    config["rows"] = source_of_files.fingerprint()
    return Task(source_of_files.name, metric, source_of_files, config, split=split, n=n, seed=seed)

"""A named selection of texts, kept as a task file, and what can be made of it: a training, a prior. Owns no widget.

    kept = Selection.keep(folder, "late answers", examples, tasks)      # folder/late-answers.jsonl
    kept.job(backbone)                                  # a JobConfig that trains a prompt on it
    kept.prior()                                        # a Gaussian fitted to its texts, for any method and form
    kept_priors(folder)                                 # those that were fitted here, by name

A selection is a file that `load_task` reads like any other, so whatever takes a task takes a selection.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import WorkbenchError
from workbench.training.config import FitConfig
from workbench.training.job import JobConfig

if TYPE_CHECKING:
    from workbench.backbones.backbone import Backbone
    from workbench.methods.priors import FittedGaussian, Prior
    from workbench.tasks.task import Example

#: A file of fewer has no split to train on, to validate on, and to test on.
FEWEST = 3

#: Of a prompt that is trained on a selection, unless its form says otherwise: see `Selection.job`.
STEPS, TOKENS, LEARNING_RATE = 100, 10, 0.03

#: A prior's file, beside the selection's.
PRIOR = ".prior.json"


@dataclass(frozen=True)
class Selection:
    """A kept selection."""

    path: Path
    """The file, with a line of prompt, answer and task for each text."""

    @classmethod
    def keep(cls, folder: Path, name: str, examples: Sequence[Example], tasks: Sequence[str]) -> Selection:
        """Writes a selection; one of the same name and texts stays, and one of other texts is not overwritten.

        Args:
            folder: where it goes.
            name: letters, digits and spaces; the file is called by it.
            examples, tasks: the texts, and the task of each.

        Raises:
            WorkbenchError: no name, too few texts, a text without an answer, or a name that is taken.
        """
        stem = re.sub(r"[^\w]+", "-", name.strip()).strip("-_")
        if not stem:
            raise WorkbenchError("the selection has no name; give it one, such as: late answers")
        if len(examples) < FEWEST:
            raise WorkbenchError(
                f"{len(examples)} texts are too few to train and test on; draw round {FEWEST} or more"
            )
        rows = []
        for example, task in zip(examples, tasks, strict=True):
            if not example.answer.strip():
                raise WorkbenchError(
                    f"a text of {task} has no answer, so nothing can be trained on it; select texts with answers"
                )
            rows.append({"prompt": example.prompt, "answer": example.answer.strip(), "task": task})
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path = folder / f"{stem}.jsonl"
        if path.exists():
            if path.read_text(encoding="utf-8") != text:
                raise WorkbenchError(f"a selection of other texts is called {stem!r}; choose another name")
            return cls(path)
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
        return cls(path)

    @classmethod
    def all(cls, folder: Path) -> list[Selection]:
        """The selections in a folder, by name; none where it is not there."""
        return [cls(path) for path in sorted(folder.glob("*.jsonl"))]

    @property
    def name(self) -> str:
        """What it is called."""
        return self.path.stem

    @cached_property
    def texts(self) -> list[tuple[str, Example]]:
        """Its texts, each with its task."""
        from workbench.tasks.task import Task

        # a text may hold other ends of a line, U+2028 among them, that JSON leaves as they are
        lines = [line for line in self.path.read_text(encoding="utf-8").split("\n") if line.strip()]
        examples = Task.from_config(self.whole).examples("train")
        return [(json.loads(line)["task"], example) for line, example in zip(lines, examples, strict=True)]

    @property
    def task(self) -> dict[str, Any]:
        """It as a task, for `Task.from_config`: eight in ten of its texts to train on; the metric of its tasks, if one."""
        metrics = {metric_of(task) for task, _ in self.texts}
        metric = metrics.pop() if len(metrics) == 1 else metric_of("")
        return {"task": str(self.path.resolve()), "metric": metric}

    @property
    def whole(self) -> dict[str, Any]:
        """It as a task whose every text is in the training split, for what is fitted and not tested."""
        return {"task": {"train": str(self.path.resolve())}}

    def job(self, backbone: str, prior: Prior | None = None) -> JobConfig:
        """A soft prompt trained on it, for `wb.Job`."""
        settings: dict[str, Any] = {"tokens": TOKENS}
        if prior is not None:
            settings["prior"] = prior.describe()
        fit = FitConfig(
            steps=STEPS,
            learning_rate=LEARNING_RATE,
            evaluate_every=STEPS // 5,
            snapshot_every=STEPS // 20,
        )
        return JobConfig(backbone, self.task, settings=settings, fit=fit)

    def prior(self) -> FittedGaussian:
        """The Gaussian of its tokens, in the space where it is asked for: embeddings, or what a layer reads."""
        from workbench.methods.priors import FittedGaussian

        return FittedGaussian(data=self.whole)

    def fit_prior(self, backbone: Backbone, layer: int | None) -> dict[str, Any]:
        """Fits the Gaussian on a backbone, keeps what it is beside the selection, and gives what was measured.

        Args:
            backbone: the model.
            layer: None for embeddings, or a block from 0 for what it reads.

        Raises:
            WorkbenchError: no such layer, or too few tokens.
        """
        prior = self.prior()
        facts = prior.fit(backbone, layer).describe()
        written = {"prior": prior.describe(), "backbone": backbone.name, "fitted": facts}
        path = self.path.with_name(f"{self.name}{PRIOR}")
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, path)
        return facts


def metric_of(task: str) -> str:
    """How answers of a task of the small world are scored; of any other text by exact match."""
    from workbench.tasks import world

    known = world.families()
    return str(known[task].metric) if task in known else "exact_match"


def kept_priors(folder: Path) -> dict[str, Prior]:
    """The priors that were fitted to selections in a folder, by the selections' names.

    Raises:
        WorkbenchError: a file that is damaged, or describes no prior.
    """
    from workbench.methods.priors import from_description

    found = {}
    for path in sorted(folder.glob(f"*{PRIOR}")):
        try:
            described = json.loads(path.read_text(encoding="utf-8"))["prior"]
        except (ValueError, KeyError) as error:
            raise WorkbenchError(f"the file {path} is damaged ({error}); fit the prior again") from None
        found[path.name.removesuffix(PRIOR)] = from_description(described)
    return found

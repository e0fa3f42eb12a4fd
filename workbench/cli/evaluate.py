"""`workbench evaluate`: how well a task is done with a trained prompt, beside no prompt and one written by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from workbench.cli.options import BackboneOptions, TaskOptions, text_of_run
from workbench.errors import WorkbenchError
from workbench.tables import table
from workbench.tasks.encode import TextConfig

if TYPE_CHECKING:
    from workbench.methods.method import Method
    from workbench.training.evaluate import Evaluation


@dataclass(frozen=True)
class Evaluate:
    """Score a trained prompt beside no prompt and one written by hand.

    With --run, backbone and task are the run's own where no others are named. Without it, the plain backbone is
    scored, alone and after a prompt written by hand.
    """

    run_dir: Annotated[Path | None, tyro.conf.arg(name="run")] = None
    """The run whose trained prompt is scored."""
    split: str = "test"
    """Which examples: test, validation or train."""
    n: int | None = None
    """How many of them; None: all."""
    seed: int = 0
    """Which of them, where n is fewer than there are."""
    hand_prompt: str | None = None
    """The prompt written by hand, put before each question; None: two worked examples of the train split."""
    max_new_tokens: int = 128
    """Most tokens of an answer."""
    batch_size: int = 32
    """Questions answered at once."""
    answers: Path | None = None
    """A file to write every question, answer, prediction and score to, as JSON lines."""
    backbone: BackboneOptions = field(default_factory=BackboneOptions)
    task: TaskOptions = field(default_factory=TaskOptions)
    text: TextConfig = field(default_factory=TextConfig)

    @classmethod
    def defaults(cls, words: Sequence[str]) -> Evaluate:
        """Text becomes tokens as in the run."""
        return cls(text=text_of_run(words))

    def run(self) -> int:
        """Prints one table: a line for each way to ask, a column for each measure."""
        from workbench.methods.generate import GenerateConfig
        from workbench.training.evaluate import default_hand_prompt, evaluate
        from workbench.training.run import Run

        run = Run(self.run_dir) if self.run_dir else None
        task, backbone = self.task.load(run), self.backbone.load(run)
        by_hand = default_hand_prompt(task) if self.hand_prompt is None else self.hand_prompt
        ways: dict[str, tuple[Method | None, str | None]] = {
            "no prompt": (None, None),
            "by hand": (None, by_hand),
        }
        if run is not None:
            ways["trained"] = (run.load_method(backbone), None)
        config = GenerateConfig(
            max_new_tokens=self.max_new_tokens, batch_size=self.batch_size, text=self.text
        )
        found = {
            way: evaluate(backbone, task, method, self.split, self.n, self.seed, hand, config)
            for way, (method, hand) in ways.items()
        }
        heads = list(next(iter(found.values())).metrics)
        lines = [[way, *(f"{result.metrics[head]:.4g}" for head in heads)] for way, result in found.items()]
        print(table([["", *heads], *lines], right=True))
        if self.answers:
            write_answers(found, self.answers)
        return 0


def write_answers(found: Mapping[str, Evaluation], path: Path) -> None:
    """One JSON object a line: the way that was asked, then question, answer, prediction and score."""
    rows = [{"way": way, **row} for way, result in found.items() for row in result.rows]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            "".join(json.dumps(r, ensure_ascii=False, default=str) + "\n" for r in rows), encoding="utf-8"
        )
    except OSError as error:
        raise WorkbenchError(
            f"the answers cannot be written to {path} ({error.strerror}); name another file"
        ) from error

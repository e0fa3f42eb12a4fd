"""`workbench generate`: what a backbone writes after a question, with a trained prompt or without."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from workbench.cli.options import BackboneOptions, text_of_run
from workbench.errors import WorkbenchError
from workbench.methods.generate import GenerateConfig, generate, stream


@dataclass(frozen=True)
class Generate:
    """Let a backbone write, with a trained prompt or without.

    One question is answered as it is written; several get a line each, in which a new line is written \\n.
    Without a question on the command line, each line of the standard input is one.
    """

    questions: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """What the model reads."""
    run_dir: Annotated[Path | None, tyro.conf.arg(name="run")] = None
    """The run whose trained prompt is used, on the backbone that it was trained on; None: no prompt."""
    backbone: BackboneOptions = field(default_factory=BackboneOptions)
    config: GenerateConfig = field(default_factory=GenerateConfig)

    @classmethod
    def defaults(cls, words: Sequence[str]) -> Generate:
        """Text becomes tokens as in the run."""
        return cls(config=GenerateConfig(text=text_of_run(words)))

    def run(self) -> int:
        """Writes to stdout."""
        from workbench.training.run import Run

        questions = list(self.questions)
        if not questions:
            if sys.stdin.isatty():
                raise WorkbenchError(
                    "there is no question; write one in quotes, or one a line on the standard input"
                )
            questions = sys.stdin.read().splitlines()
        run = Run(self.run_dir) if self.run_dir else None
        backbone = self.backbone.load(run)
        method = run.load_method(backbone) if run else None
        if len(questions) == 1:
            for piece in stream(backbone, questions[0], method, self.config):
                print(piece, end="", flush=True)
            print()
        else:
            for text in generate(backbone, questions, method, self.config):
                print(text.replace("\n", "\\n"))
        return 0

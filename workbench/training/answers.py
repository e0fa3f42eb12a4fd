"""Unseen questions, asked without a prompt, with one written by hand and with the trained one. Draws nothing.

The answers stand side by side in the run's directory, `answers.json`: backbone, task, metric, the number of questions,
the hand-written prompt, the score of each way of asking, and a row for each question.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import WorkbenchError
from workbench.training.run import Run, plain_errors, replace_text

if TYPE_CHECKING:
    from workbench.backbones.backbone import Backbone
    from workbench.methods.method import Method
    from workbench.tasks.task import Task
    from workbench.training.evaluate import Evaluation

FILE = "answers.json"

WAYS = {"zero_shot": "no prompt", "hand_written": "hand-written", "trained": "trained"}
"""The ways to ask, in order, with what people call each."""


def check_askable(task: Task) -> None:
    """Refuse, before anything is trained, a task whose answers could not be shown side by side afterwards."""
    if "test" not in task.splits:
        raise WorkbenchError(
            f"{task.name} has no test split, so there are no unseen questions; give one, or set questions=0"
        )
    if task.metric == "perplexity":
        raise WorkbenchError(
            f"{task.name} is scored by perplexity, which no single answer has; set questions=0, or name another metric"
        )


def ask(
    run: Run,
    backbone: Backbone,
    task: Task,
    method: Method,
    questions: int,
    going_on: Callable[[str], bool] = lambda way: True,
) -> bool:
    """Ask `questions` of the test split each way, and write the answers to the run's directory.

    going_on: called before each way with what people call it; where it says no, nothing is written, and False returned.
    """
    from workbench.training.evaluate import default_hand_prompt, evaluate

    written = default_hand_prompt(task)
    asks: dict[str, dict[str, Any]] = {
        "hand_written": {"hand_prompt": written},
        "trained": {"method": method},
    }
    evaluations = {}
    for way, words in WAYS.items():
        if not going_on(words):
            return False
        evaluations[way] = evaluate(backbone, task, split="test", n=questions, **asks.get(way, {}))
    write_answers(run, backbone.name, task.name, evaluations, written, task.metric)
    return True


def write_answers(
    run: Run,
    backbone: str,
    task: str,
    evaluations: Mapping[str, Evaluation],
    hand_prompt: str | None,
    metric: str,
) -> Path:
    """Put several evaluations of the same questions side by side into the run's directory, whole or not at all.

    `evaluations` goes from a way of asking (a key of WAYS) to what `evaluate` gave for it.
    """
    rows = []
    for index, first in enumerate(next(iter(evaluations.values())).rows):
        row = {"question": first["question"], "expected": first["answer"]}
        for way, evaluation in evaluations.items():
            answered = evaluation.rows[index]
            row |= {way: answered["prediction"].strip(), f"{way}_score": float(answered["score"])}
        rows.append(row)
    content = {
        "backbone": backbone,
        "task": task,
        "metric": metric,
        "questions": len(rows),
        "hand_prompt": hand_prompt,
        "scores": {way: float(evaluation.metrics[metric]) for way, evaluation in evaluations.items()},
        "rows": rows,
    }
    path = run.path / FILE
    with plain_errors(run.path):
        replace_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path

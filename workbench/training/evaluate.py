"""Evaluation: answers generated and scored with the task's metric, and the loss of the true answers.

A trained method is never looked at alone: `compare` puts the plain backbone and a hand-written prompt beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError
from workbench.methods.apply import answer_logits
from workbench.methods.generate import GenerateConfig, default_config, generate
from workbench.methods.injection import NOTHING, Injection
from workbench.methods.method import Method
from workbench.methods.rereading import Rereading
from workbench.methods.rows import Rows
from workbench.tasks.metrics import METRICS
from workbench.tasks.task import Example, Task
from workbench.training.batches import encode_for


@dataclass(frozen=True)
class Evaluation:
    """How well a method does a task.

    metrics: the task's metric (mean over the examples), `loss` (nats an answer token, of the true answers),
        `perplexity` (its exponential), `exact_tokens` (share of answers whose every token is the likeliest)
        and `examples`, their number.
    rows: one dict for each example: question, answer, prediction, score; the score is None where the metric
        has none for a single answer (perplexity).
    """

    metric: str
    metrics: dict[str, float]
    rows: list[dict[str, Any]] = field(repr=False)


def evaluate(
    backbone: Backbone,
    task: Task,
    method: Method | None = None,
    split: str = "test",
    n: int | None = None,
    seed: int = 0,
    hand_prompt: str | None = None,
    config: GenerateConfig | None = None,
) -> Evaluation:
    """Answer the questions of a split and score the answers.

    Args:
        backbone: the frozen model.
        task: its metric scores.
        method: a trained method; None for the plain backbone.
        split, n, seed: which examples; n=None takes all.
        hand_prompt: a text put before every question: the baseline that a person would write.
        config: how answers are generated; by default greedy, with room for the longest true answer, and with the
            text settings that the method was trained with.
    """
    if split not in task.splits:
        raise WorkbenchError(f"{task.name} has no {split} split; it has {', '.join(task.splits)}")
    examples = list(task.examples(split, n=n, seed=seed))
    if not examples:
        raise WorkbenchError(f"the {split} split of {task.name} is empty; there is nothing to evaluate")
    if hand_prompt:
        examples = [replace(e, prompt=hand_prompt + e.prompt) for e in examples]
    config = config or default_config(method, max_new_tokens=_room(backbone, examples))
    injection = method.injection() if method is not None else NOTHING
    rereading = Rereading(backbone, config.reread_every) if config.reread_every else None
    with torch.no_grad():
        truth = score_answers(backbone, _collate(backbone, examples, config, injection), injection, rereading)
    predictions = generate(backbone, [e.prompt for e in examples], method, config)
    metric = METRICS[task.metric]
    scores = [metric.score(p, e) for p, e in zip(predictions, examples, strict=True)]
    rows = [
        {
            "question": e.prompt,
            "answer": e.answer.strip(),
            "prediction": p.strip(),
            "score": None if math.isnan(s) else s,
        }
        for e, p, s in zip(examples, predictions, scores, strict=True)
    ]
    metrics = {
        task.metric: sum(scores) / len(scores),
        "loss": truth["loss"],
        "perplexity": math.exp(min(truth["loss"], 700)),
        "exact_tokens": truth["accuracy"],
        "examples": len(examples),
    }
    return Evaluation(task.metric, metrics, rows)


def compare(
    backbone: Backbone,
    task: Task,
    method: Method,
    hand_prompt: str | None = None,
    split: str = "test",
    n: int | None = None,
    seed: int = 0,
    config: GenerateConfig | None = None,
) -> dict[str, Evaluation]:
    """The same questions answered by the plain backbone, after a hand-written prompt, and with the method.

    `hand_prompt=None` writes two worked examples of the train split, which is what most people would try first.
    """
    shared: dict[str, Any] = {"split": split, "n": n, "seed": seed, "config": config}
    return {
        "zero-shot": evaluate(backbone, task, None, **shared),
        "hand-written prompt": evaluate(
            backbone,
            task,
            None,
            hand_prompt=default_hand_prompt(task) if hand_prompt is None else hand_prompt,
            **shared,
        ),
        method.kind: evaluate(backbone, task, method, **shared),
    }


def default_hand_prompt(task: Task, shots: int = 2) -> str:
    """Worked examples of the train split before the question: the prompt that a person would write first."""
    examples = task.examples("train", n=shots, seed=0)
    return "".join(e.text + task.separator for e in examples)


class Tally:
    """How likely true answers are, added up over batches."""

    def __init__(self) -> None:
        self.nats, self.right, self.tokens, self.rows = 0.0, 0, 0, 0

    def add(self, logits: Tensor, targets: Tensor, rows: Rows) -> None:
        """Count the answers of some rows: (N, V) logits and (N,) targets, as `answer_logits` gives them."""
        self.nats += float(torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum"))
        hits = logits.argmax(-1) == targets
        counts = (rows.lengths - rows.answer_start).tolist()
        self.right += sum(bool(part.all()) for part in hits.split(counts))
        self.tokens, self.rows = self.tokens + len(targets), self.rows + len(rows)

    @property
    def scores(self) -> dict[str, float]:
        """`loss`, the mean over all answer tokens in nats, and `accuracy`, the share of rows in which every answer
        token is the likeliest: exactly those that greedy generation would write."""
        return {"loss": self.nats / max(self.tokens, 1), "accuracy": self.right / max(self.rows, 1)}


def score_answers(
    backbone: Backbone,
    batches: Sequence[Rows],
    injection: Injection = NOTHING,
    rereading: Rereading | None = None,
) -> dict[str, float]:
    """How likely the true answers are, in one forward pass a batch: see `Tally.scores`. What is read again is not counted."""
    tally = Tally()
    for rows in batches:
        if rereading is None:
            tally.add(*answer_logits(backbone, rows, injection), rows)
            continue
        longer, own = rereading.rows(rows)
        logits, targets = answer_logits(backbone, longer, injection)
        tally.add(logits[own], targets[own], rows)
    return tally.scores


def _collate(
    backbone: Backbone, examples: Sequence[Example], config: GenerateConfig, injection: Injection
) -> list[Rows]:
    encoded = [encode_for(backbone, e, config.text, injection.length) for e in examples]
    encoded.sort(key=lambda e: len(e.ids))
    size = config.batch_size
    return [Rows.collate(encoded[i : i + size], backbone.device) for i in range(0, len(encoded), size)]


def _room(backbone: Backbone, examples: Sequence[Example]) -> int:
    """Tokens that the longest true answer takes, and a few more for answers of another length."""
    longest = max(len(backbone.tokenizer(e.answer, add_special_tokens=False)["input_ids"]) for e in examples)
    return longest + 4

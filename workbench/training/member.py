"""One method in training: its data, its optimiser and its run directory. Runs no backbone: see `bank.py`.

All that happens in a step is a pure function of the state before it and of (seed, step), so a run that was
killed goes on from its last checkpoint and ends with the same bits as one that was not.
"""

from __future__ import annotations

import contextlib
import json
import math
import platform
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import workbench
from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError, unknown
from workbench.methods.apply import given_to
from workbench.methods.method import Method
from workbench.methods.rows import Rows
from workbench.tasks.task import Task
from workbench.training.batches import Batches, EncodedExamples
from workbench.training.checkpoint import Checkpoint, checkpoints, copy_state
from workbench.training.config import FitConfig, schedule_factor
from workbench.training.run import Lock, Run, now, plain_errors


@dataclass(frozen=True)
class Step:
    """What one update did.

    index: from 1. loss: nats a token, the mean over the update's answer tokens (as `emphasis` weighs them), before the update.
    tokens: answer tokens. gradient_norm: before clipping.
    seconds: of this step; in a bank, of all its members together.
        While a method has an objective of its own (`Method.objective`), that.
    validation: `loss` (nats a token) and `accuracy` (share of answers whose every token is the likeliest),
        after the update, at the steps that look, and what the method measures of itself then; otherwise None.
    """

    index: int
    loss: float
    tokens: int
    learning_rate: float
    gradient_norm: float
    seconds: float
    validation: dict[str, float] | None = None


class Data:
    """What members train on, encoded once for all of them that ask for the same."""

    def __init__(self, backbone: Backbone):
        self.backbone = backbone
        self._made: dict[Any, Any] = {}

    def batches(self, task: Task, config: FitConfig, length: int) -> Batches:
        """The order of the train split for a method of `length` positions."""
        key = id(task), config.text, length
        if key not in self._made:
            self._need(task, "train")
            self._made[key] = EncodedExamples(self.backbone, task.examples("train"), config.text, length)
        return Batches(self._made[key], config.batch_size, config.seed)

    def validation(self, task: Task, config: FitConfig, length: int) -> list[Rows]:
        """The rows that a look at the validation split reads; none where it is never looked at."""
        if not config.evaluate_every:
            return []
        key = id(task), config.text, length, config.validation_examples, config.batch_size
        if key not in self._made:
            self._need(task, "validation")
            chosen = task.examples("validation", n=config.validation_examples, seed=0)
            read = EncodedExamples(self.backbone, chosen, config.text, length)
            encoded = sorted((read[i] for i in range(len(read))), key=lambda e: len(e.ids))
            size = config.batch_size
            parts = [encoded[i : i + size] for i in range(0, len(encoded), size)]
            self._made[key] = [Rows.collate(part, self.backbone.device) for part in parts]
        return self._made[key]

    @staticmethod
    def _need(task: Task, split: str) -> None:
        if split not in task.splits:
            without = ", or set evaluate_every=0" if split == "validation" else ""
            raise WorkbenchError(f"{task.name} has no {split} split; give one{without}")


class Member:
    """The state of one training run between two steps.

    An update is `open`, then `lost` for each part that was run backward, then `close`, and `look` and `record`.

    Attributes:
        number: its place in the bank.
        done: updates so far.
        parts: after `open`, the batches of this update, `tokens` their answer tokens, and `weight` what these weigh in the loss.
    """

    def __init__(self, number: int, data: Data, method: Method, task: Task, config: FitConfig):
        from accelerate import Accelerator

        self.number, self.backbone = number, data.backbone
        self.method, self.task, self.config = method, task, config
        given_to(self.backbone, method.injection())  # refused now, if it was made for another
        if config.pull:
            method.log_prior(self.backbone)  # refused now, if it has none
        method.text = config.text
        self.batches = data.batches(task, config, method.prompt_length)
        self.validation = data.validation(task, config, method.prompt_length)
        self.parameters = [p for p in method.parameters() if p.requires_grad]
        _check_trackers(config)
        # Accelerate moves nothing (the backbone says where things are); it runs backward and the trackers.
        self.accelerator = Accelerator(
            device_placement=False, log_with=list(config.trackers) or None, project_dir="."
        )
        self.optimizer = _make_optimizer(self.parameters, config)
        self.run: Run | None = None
        self.lock: Lock | None = None
        self.of_job = False
        self.done = 0
        self.best: dict[str, Tensor] | None = None
        self.scalars: dict[str, Any] = {"best_loss": None, "best_step": None, "looks_without_better": 0}
        self.whole = True  # whether all of the last update is done and written down
        self.kept = 0  # the step of the newest checkpoint
        self.parts: list[Rows] = []
        self.tokens, self.weight, self.loss, self.rate = 0, 0.0, 0.0, 0.0

    # the run directory

    def attach(self, path: Path, resume: bool, of_job: bool = False, at: int | None = None) -> None:
        """Write to a run there, a new one or, to resume, the one that is there, from its checkpoint of step `at`, or its last.

        A job (`of_job`) holds the lock itself, and goes on when training has ended, so it says itself how the run ends.
        """
        facts = describe_run(self.backbone, self.method, self.task, self.config)
        self.run, self.of_job = Run(path) if resume else Run.create(path, facts), of_job
        self.lock = None if of_job else self.run.lock()
        kept = checkpoints(self.run.path)
        at = max(kept, default=0) if at is None else at
        try:
            if resume:
                _go_on_alike(self.run, facts, self.method.beside(at))
            if at:
                self._restore(Checkpoint.load(kept[at]))
            for step in [step for step in kept if step > at]:
                shutil.rmtree(kept[step])
            self.run.cut_metrics(self.done)
        except BaseException:
            if self.lock is not None:
                self.lock.release()
            raise
        if self.config.trackers:
            self.accelerator.project_configuration.set_directories(str(self.run.path))
            self.accelerator.project_configuration.logging_dir = str(self.run.path)
            self.accelerator.init_trackers("trackers")

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.method.load_state_dict(checkpoint.method)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.best, self.scalars = checkpoint.best, checkpoint.scalars
        self.done = self.kept = checkpoint.step

    def begin(self) -> None:
        """Before the first step of this sitting."""
        self._status("running")
        if self.done == 0:
            self._snapshot()

    @property
    def finished(self) -> bool:
        """Whether every step is done."""
        return self.done >= self.config.steps

    @property
    def converged(self) -> bool:
        """Whether its patience is at an end."""
        return 0 < self.config.patience <= self.scalars["looks_without_better"]

    # one update

    def open(self) -> None:
        """Take the data of the next update and clear the gradient."""
        number = self.done + 1
        self.rate = self.config.learning_rate * schedule_factor(self.config, number)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.optimizer.zero_grad(set_to_none=True)
        first = (number - 1) * self.config.accumulation
        self.parts = [
            Rows.collate(self.batches[first + i], self.backbone.device)
            for i in range(self.config.accumulation)
        ]
        self.tokens, self.loss = sum(rows.answer_tokens for rows in self.parts), 0.0
        self.weight = sum(self.weigh(rows) for rows in self.parts)

    def weigh(self, rows: Rows) -> float:
        """What a part's answers weigh in the loss, all together."""
        even = self.config.emphasis == 1
        return float(rows.answer_tokens) if even else float(rows.weights(self.config.emphasis).sum())

    def lost(self, loss: float) -> None:
        """Count a part's share of the loss. Raises WorkbenchError where it is not finite."""
        self.loss += loss
        self._check("loss", self.loss)

    def close(self) -> float:
        """Update the method by the gradient that is there now; the norm that this had before clipping."""
        if self.config.pull:
            penalty = -self.config.pull * self.method.log_prior(self.backbone)
            self._check("pull of the prior", float(penalty.detach()))
            self.accelerator.backward(penalty)
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip or math.inf))
        self._check("gradient", norm)
        self.whole = False
        self.optimizer.step()
        self.done += 1
        return norm

    def _check(self, what: str, value: float) -> None:
        if math.isfinite(value):
            return
        kept = checkpoints(self.run.path) if self.run else {}
        place = f"the last good checkpoint is {kept[max(kept)]}" if kept else "there is no checkpoint yet"
        raise WorkbenchError(
            f"the {what} became {value} at step {self.done + 1} (learning rate {self.rate:g}); lower the learning rate "
            f"or clip the gradient; {place}"
        )

    def due(self, every: int) -> bool:
        """Whether something happens after this step: every so many, and at the end."""
        return every > 0 and (self.done % every == 0 or self.done == self.config.steps)

    def look(self, found: dict[str, float]) -> None:
        """Remember the state with the best validation loss."""
        best = self.scalars["best_loss"]
        if best is None or found["loss"] < best:
            self.best = copy_state(self.method)
            self.scalars = {"best_loss": found["loss"], "best_step": self.done, "looks_without_better": 0}
        else:
            self.scalars["looks_without_better"] += 1

    def record(self, step: Step) -> None:
        """Write down what a step did."""
        if self.run is None:
            return
        facts = {("step" if k == "index" else k): v for k, v in asdict(step).items() if v is not None}
        self.run.append_metrics(facts)
        if self.due(self.config.snapshot_every):
            self._snapshot()
        if self.config.trackers:
            flat = {**facts, **{f"validation_{k}": v for k, v in (step.validation or {}).items()}}
            flat.pop("validation", None)
            self.accelerator.log(flat, step=step.index)

    def _snapshot(self) -> None:
        if self.run is not None:
            self.run.write_snapshot(self.done, self.method.snapshot())

    def keep(self) -> None:
        """Write a checkpoint, where there is none of this step."""
        if self.run is not None and self.done > self.kept:
            Checkpoint(
                self.done, copy_state(self.method), self.optimizer.state_dict(), self.best, dict(self.scalars)
            ).save(self.run.path)
            self.kept = self.done

    # the end

    def finish(self) -> None:
        """Leave the method in the state that `config.keep` names, and save it."""
        if self.run is not None and self.config.snapshot_every == 0:
            self._snapshot()
        kept = self.done
        if self.config.keep == "best" and self.best is not None:
            self.method.load_state_dict(self.best)
            kept = self.scalars["best_step"]
        if self.run is not None:
            with plain_errors(self.run.path):
                self.method.save(self.run.path / "method")
        self._status("finished", kept_step=kept)
        self.release()

    def fail(self, error: BaseException) -> None:
        """End with an error's sentence."""
        self._status("failed", error=str(error) if isinstance(error, WorkbenchError) else repr(error))
        self.release()

    def interrupt(self, reason: BaseException) -> None:
        """End where it is: the consumer left, or somebody or something stopped it."""
        if isinstance(reason, (GeneratorExit, KeyboardInterrupt)):
            self._status("stopped")
            self.release()
        else:
            self.fail(reason)

    def release(self) -> None:
        """Let others write the run."""
        if self.lock is not None:
            self.lock.release()
        if self.config.trackers:
            self.accelerator.end_training()
            self.accelerator.trackers = []

    def _status(self, state: str, **facts: Any) -> None:
        if self.run is None:
            return
        quiet = contextlib.suppress(WorkbenchError) if state == "failed" else contextlib.nullcontext()
        if self.of_job:
            state, facts = "running", {"stage": "training", **facts}
        with quiet:
            self.run.write_status(state=state, step=self.done, steps=self.config.steps, **facts)


def describe_run(backbone: Backbone, method: Method, task: Task, config: FitConfig) -> dict[str, Any]:
    """What `config.json` holds."""
    import transformers

    return {
        "backbone": backbone.describe(),
        "method": {
            "kind": method.kind,
            "config": asdict(method.config),
            "parameters": method.parameters_trained,
        },
        "beside": method.beside(0),
        "priors": method.prior_facts,
        "task": task.to_config(),
        "fit": config.to_json(),
        "versions": {
            "workbench": workbench.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
        "created": now(),
    }


def _go_on_alike(run: Run, facts: dict[str, Any], beside: dict[str, Any]) -> None:
    """Refuse to go on with other settings than those that the run was started with, or with other things `beside` the method."""
    path, before = run.path, run.config
    if "versions" not in before:  # what a job was asked for; it has trained nothing yet
        run.write_config({**before, **facts})
        return
    before["fit"] = {
        **FitConfig().to_json(),
        **before["fit"],
    }  # a setting that was not there yet had its default
    for part in ("method", "task", "fit"):
        then, today = before[part], json.loads(json.dumps(facts[part]))  # as it comes back from JSON
        for key in sorted({*then, *today}):
            if then.get(key) != today.get(key):
                raise WorkbenchError(
                    f"{path} was started with {part} {key}={then.get(key)!r}, not {today.get(key)!r}; resume with the "
                    "same settings, or start a new run"
                )
    for key, today in beside.items():
        then = before.get("beside", {}).get(key)
        if then != json.loads(json.dumps(today)):
            which = "without a" if not then else "with another" if today else "with a"
            raise WorkbenchError(
                f"{path} was started {which} {key}, which a run does not keep; set `{key}` of the method to "
                f"{'the same' if then else None}, and go on by `fit` with resume=True"
            )
    if before["backbone"]["name"] != facts["backbone"]["name"]:
        raise WorkbenchError(
            f"{path} was started on {before['backbone']['name']}, not {facts['backbone']['name']}"
        )


def _check_trackers(config: FitConfig) -> None:
    """Refuse trackers that Accelerate would leave out with a warning."""
    if not config.trackers:
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    for name in config.trackers:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise unknown("tracker", name, LOGGER_TYPE_TO_CLASS)
        if name not in [str(getattr(t, "value", t)) for t in get_available_trackers()]:
            raise WorkbenchError(
                f"the tracker {name!r} is not installed; pip install {name}, or leave it out"
            )


def _make_optimizer(parameters: list[torch.nn.Parameter], config: FitConfig) -> torch.optim.Optimizer:
    if not parameters:
        raise WorkbenchError("the method has nothing to train; every parameter of it is frozen")
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=0.9, weight_decay=decay)
    cls = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return cls(parameters, rate, weight_decay=decay)

"""`fit`: training as an iterator of steps. The loop owns nothing on the screen; views read the run directory.

All that happens in a step is a pure function of the state before it and of (seed, step), so a run that was
killed goes on from its last checkpoint and ends with the same bits as one that was not.
"""

from __future__ import annotations

import contextlib
import math
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import workbench
from workbench.backbones.backbone import Backbone, load_backbone
from workbench.errors import WorkbenchError, unknown
from workbench.methods.apply import answer_logits
from workbench.methods.method import METHODS, Method
from workbench.methods.rows import Rows
from workbench.tasks.task import Task
from workbench.training.batches import Batches, encode_for
from workbench.training.checkpoint import Checkpoint, checkpoints, copy_state
from workbench.training.config import FitConfig, schedule_factor
from workbench.training.evaluate import score_answers
from workbench.training.run import Run, now


@dataclass(frozen=True)
class Step:
    """What one update did.

    index: from 1. loss: nats a token, the mean over the update's answer tokens, before the update.
    tokens: answer tokens. gradient_norm: before clipping. seconds: of this step.
    validation: `loss` (nats a token) and `accuracy` (share of answers whose every token is the likeliest),
        after the update, at the steps that look; otherwise None.
    """

    index: int
    loss: float
    tokens: int
    learning_rate: float
    gradient_norm: float
    seconds: float
    validation: dict[str, float] | None = None


def fit(
    backbone: Backbone,
    method: Method,
    task: Task,
    config: FitConfig | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
) -> Iterator[Step]:
    """Train a method on a task.

    >>> for step in wb.fit(backbone, method, task, wb.FitConfig(steps=200), run_dir="runs/first"):
    ...     print(step.index, step.loss)

    The loop can be left at any step: what was done is in a checkpoint, and `resume=True` goes on. When it
    ends by itself, `method` holds the state that `config.keep` names, and so does the run's `method/`.

    Args:
        backbone: the frozen model; untouched.
        method: trained in place.
        task: its `train` split is learnt, its `validation` split is looked at.
        config: how; see FitConfig.
        run_dir: a new folder to write the run to; None writes nothing.
        resume: go on with the run in `run_dir`, which must have been started with the same settings.

    Raises:
        WorkbenchError: before the first step for settings and folders that cannot work; during training for
            a loss that is not finite, with the step's number.
    """
    config = config or FitConfig()
    loop = _Loop(backbone, method, task, config)
    run = None
    if run_dir is not None:
        facts = describe_run(backbone, method, task, config)
        run = _open_run(Path(run_dir), facts, resume)
        loop.attach(run)
    elif config.trackers:
        raise WorkbenchError("trackers write beside a run; give a run_dir as well, or leave trackers out")
    elif resume:
        raise WorkbenchError("resume=True needs the run_dir of the run to go on with")
    return loop.steps()


def resume(run_dir: str | Path, device: str = "auto") -> Iterator[Step]:
    """Go on with a run from its directory alone: backbone, task, method and settings are read from it."""
    run = Run(run_dir)
    facts = run.config
    backbone = load_backbone(facts["backbone"]["name"], device=device)
    cls = METHODS[facts["method"]["kind"]]
    method = cls.from_config(backbone, cls.Config(**facts["method"]["config"]))
    task = Task.from_config(facts["task"])
    return fit(backbone, method, task, FitConfig.from_json(facts["fit"]), run.path, resume=True)


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


def _open_run(path: Path, facts: dict[str, Any], resume: bool) -> Run:
    if not resume:
        return Run.create(path, facts)
    run = Run(path)
    before = run.config
    for part in ("method", "task", "fit"):
        for key in sorted({*before[part], *facts[part]}):
            then, today = before[part].get(key), facts[part].get(key)
            if then != _plain(today):
                raise WorkbenchError(
                    f"{path} was started with {part} {key}={then!r}, not {today!r}; resume with the same settings, "
                    "or start a new run"
                )
    if before["backbone"]["name"] != facts["backbone"]["name"]:
        raise WorkbenchError(
            f"{path} was started on {before['backbone']['name']}, not {facts['backbone']['name']}"
        )
    return run


def _plain(value: Any) -> Any:
    """A value as it comes back from JSON."""
    import json

    return json.loads(json.dumps(value))


class _Loop:
    """The state of one training run between two steps."""

    def __init__(self, backbone: Backbone, method: Method, task: Task, config: FitConfig):
        from accelerate import Accelerator

        self.backbone, self.method, self.config = backbone, method, config
        if config.pull:
            method.log_prior(backbone)  # refused now, if it has none
        method.text = config.text
        for split in ("train", *(["validation"] if config.evaluate_every else [])):
            if split not in task.splits:
                raise WorkbenchError(f"{task.name} has no {split} split; give one, or set evaluate_every=0")
        length = method.prompt_length
        self.batches = Batches(
            backbone, task.examples("train"), config.batch_size, config.text, length, config.seed
        )
        self.validation: list[Rows] = []
        if config.evaluate_every:
            chosen = task.examples("validation", n=config.validation_examples, seed=0)
            encoded = sorted(
                (encode_for(backbone, e, config.text, length) for e in chosen), key=lambda e: len(e.ids)
            )
            size = config.batch_size
            parts = [encoded[i : i + size] for i in range(0, len(encoded), size)]
            self.validation = [Rows.collate(part, backbone.device) for part in parts]
        self.parameters = [p for p in method.parameters() if p.requires_grad]
        # Accelerate moves nothing (the backbone says where things are); it runs backward and the trackers.
        _check_trackers(config)
        self.accelerator = Accelerator(
            device_placement=False, log_with=list(config.trackers) or None, project_dir="."
        )
        self.optimizer = _make_optimizer(self.parameters, config)
        self.run: Run | None = None
        self.lock: Any = None
        self.done = 0
        self.best: dict[str, Tensor] | None = None
        self.scalars: dict[str, Any] = {"best_loss": None, "best_step": None, "looks_without_better": 0}

    def attach(self, run: Run) -> None:
        """Write to this run, going on from its last checkpoint."""
        self.run, self.lock = run, run.lock()
        kept = checkpoints(run.path)
        try:
            if kept:
                self._restore(Checkpoint.load(kept[-1]))
            run.cut_metrics(self.done)
        except BaseException:
            self.lock.release()
            raise
        if self.config.trackers:
            self.accelerator.project_configuration.set_directories(str(run.path))
            self.accelerator.project_configuration.logging_dir = str(run.path)
            self.accelerator.init_trackers("trackers")

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.method.load_state_dict(checkpoint.method)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.best, self.scalars, self.done = checkpoint.best, checkpoint.scalars, checkpoint.step

    def steps(self) -> Iterator[Step]:
        """Train to the end, one step at a time."""
        whole = True  # whether the method is exactly as after `self.done` updates
        try:
            self._status("running")
            if self.done == 0:
                self._snapshot()
            while self.done < self.config.steps and not self._out_of_patience():
                started = time.perf_counter()
                number = self.done + 1
                loss, tokens, norm, rate = self._gradient(number)
                whole = False
                self.optimizer.step()
                self.done, whole = number, True
                look = self._look() if self._due(self.config.evaluate_every) else None
                step = Step(number, loss, tokens, rate, norm, time.perf_counter() - started, look)
                self._record(step)
                yield step
            self._finish()
        except WorkbenchError as error:
            self._status("failed", error=str(error))
            raise
        except BaseException as reason:  # the consumer left, or an interrupt: keep what was done
            if whole:
                self._checkpoint()
            left = isinstance(reason, (GeneratorExit, KeyboardInterrupt))
            self._status("stopped" if left else "failed", **({} if left else {"error": repr(reason)}))
            raise
        finally:
            if self.lock is not None:
                self.lock.release()
            if self.config.trackers:
                self.accelerator.end_training()

    def _gradient(self, number: int) -> tuple[float, int, float, float]:
        """Loss, answer tokens, gradient norm and learning rate of update `number`; leaves the gradient."""
        rate = self.config.learning_rate * schedule_factor(self.config, number)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        first = (number - 1) * self.config.accumulation
        parts = [
            Rows.collate(self.batches[first + i], self.backbone.device)
            for i in range(self.config.accumulation)
        ]
        tokens = sum(rows.answer_tokens for rows in parts)
        total = 0.0
        for rows in parts:
            with autocast(self.backbone, self.config):
                logits, targets = answer_logits(self.backbone, rows, self.method.injection())
                loss = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum") / tokens
            total += float(loss.detach())
            if not math.isfinite(total):
                raise self._not_finite("loss", total, number, rate)
            self.accelerator.backward(loss)
        if self.config.pull:
            penalty = -self.config.pull * self.method.log_prior(self.backbone)
            if not math.isfinite(float(penalty.detach())):
                raise self._not_finite("pull of the prior", float(penalty.detach()), number, rate)
            self.accelerator.backward(penalty)
        limit = self.config.clip or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, limit))
        if not math.isfinite(norm):
            raise self._not_finite("gradient", norm, number, rate)
        return total, tokens, norm, rate

    def _not_finite(self, what: str, value: float, number: int, rate: float) -> WorkbenchError:
        kept = checkpoints(self.run.path) if self.run else []
        place = f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint yet"
        return WorkbenchError(
            f"the {what} became {value} at step {number} (learning rate {rate:g}); lower the learning rate or clip "
            f"the gradient; {place}"
        )

    def _look(self) -> dict[str, float]:
        """Loss and accuracy on the validation rows, after the update; remembers the best state."""
        with torch.no_grad(), autocast(self.backbone, self.config):
            look = score_answers(self.backbone, self.validation, self.method.injection())
        best = self.scalars["best_loss"]
        if best is None or look["loss"] < best:
            self.best = copy_state(self.method)
            self.scalars = {"best_loss": look["loss"], "best_step": self.done, "looks_without_better": 0}
        else:
            self.scalars["looks_without_better"] += 1
        return look

    def _out_of_patience(self) -> bool:
        return 0 < self.config.patience <= self.scalars["looks_without_better"]

    def _due(self, every: int) -> bool:
        """Whether something happens after this step: every so many, and at the end."""
        return every > 0 and (self.done % every == 0 or self.done == self.config.steps)

    def _record(self, step: Step) -> None:
        facts = {("step" if k == "index" else k): v for k, v in asdict(step).items() if v is not None}
        if self.run is not None:
            self.run.append_metrics(facts)
            if self._due(self.config.snapshot_every):
                self._snapshot()
            if self._due(self.config.checkpoint_every):
                self._checkpoint()
        if self.run is not None and self.config.trackers:
            flat = {**facts, **{f"validation_{k}": v for k, v in (step.validation or {}).items()}}
            flat.pop("validation", None)
            self.accelerator.log(flat, step=step.index)

    def _snapshot(self) -> None:
        if self.run is not None:
            self.run.write_snapshot(self.done, self.method.snapshot())

    def _checkpoint(self) -> None:
        if self.run is not None and self.done > 0:
            Checkpoint(
                self.done, copy_state(self.method), self.optimizer.state_dict(), self.best, dict(self.scalars)
            ).save(self.run.path)

    def _finish(self) -> None:
        if self.run is not None and self.config.snapshot_every == 0:
            self._snapshot()
        kept = self.done
        if self.config.keep == "best" and self.best is not None:
            self.method.load_state_dict(self.best)
            kept = self.scalars["best_step"]
        if self.run is not None:
            from workbench.training.run import plain_errors

            with plain_errors(self.run.path):
                self.method.save(self.run.path / "method")
        self._status("finished", kept_step=kept)

    def _status(self, state: str, **facts: Any) -> None:
        if self.run is not None:
            with contextlib.suppress(WorkbenchError) if state == "failed" else contextlib.nullcontext():
                self.run.write_status(state=state, step=self.done, steps=self.config.steps, **facts)


def autocast(backbone: Backbone, config: FitConfig) -> Any:
    """The precision of the backbone's activations."""
    if config.precision == "backbone":
        return contextlib.nullcontext()
    return torch.autocast(backbone.device.type, torch.bfloat16)


def _check_trackers(config: FitConfig) -> None:
    """Refuse trackers that Accelerate would leave out with a warning."""
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

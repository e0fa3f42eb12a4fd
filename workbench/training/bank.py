"""A bank: K methods of one shape, trained in one pass over one backbone, each as if it were alone.

In a step every member brings its own batch. The rows of all run through the backbone together, each row with
its own member's prompt, and the sum of the members' losses goes backward: since no row sees another, each
method gets the gradient of its own loss. Data, optimiser, learning rate, clipping, checkpoints and run
directory are each member's own (`member.py`); only the passes over the backbone are shared, and those are here.

Which rows run through the backbone together is in the last bits of what they give. So that a bank which was killed
goes on with the same bits, all members write their checkpoints at the same steps: when one of them is due, and when
one leaves, before it says so. What is on disk is then always a moment with the members that were there after it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.backbones.backbone import Backbone
from workbench.backbones.recompute import recomputing
from workbench.errors import WorkbenchError
from workbench.methods.apply import answer_logits
from workbench.methods.injection import join
from workbench.methods.method import Method
from workbench.methods.rows import Rows
from workbench.tasks.task import Task
from workbench.training.checkpoint import KEPT, checkpoints
from workbench.training.config import SHARED, FitConfig
from workbench.training.evaluate import Tally
from workbench.training.member import Data, Member, Step
from workbench.training.run import OVER, Run, numbered

_ENOUGH = {"cpu": 1024, "accelerator": 16_384}
"""Positions in one pass, above which more make it no cheaper: longer rows then wait for the next. Found by measuring on
a CPU; the accelerator's number is a guess."""


@dataclass(frozen=True)
class BankStep:
    """What one step of a bank did.

    steps: member (from 0, in the order of the methods) to what its update did.
    left: the members that have left since the step before, each with the reason: "finished", "converged" (its patience
        is at an end), or the sentence of the error that ended it. The last of a bank's steps may hold only this.
    """

    steps: dict[int, Step]
    left: dict[int, str] = field(default_factory=dict)


def fit_many(
    backbone: Backbone,
    methods: Sequence[Method],
    task: Task | Sequence[Task],
    config: FitConfig | Sequence[FitConfig] | None = None,
    run_dirs: str | Path | Sequence[str | Path] | None = None,
    resume: bool = False,
    rows_at_once: int | None = None,
) -> Iterator[BankStep]:
    """Train K methods of one shape at once: about the work of one large batch instead of K small ones.

    >>> methods = [wb.SoftPrompt(backbone, prior=prior, seed=seed) for prior in priors for seed in range(5)]
    >>> for now in wb.fit_many(backbone, methods, task, wb.FitConfig(steps=200), run_dirs="runs/study"):
    ...     print({member: step.loss for member, step in now.steps.items()}, now.left)

    Each ends as it would have alone with `fit`: to the bit with a bank of one, and otherwise to the rounding of a
    larger batch. A member that has finished, converged or diverged leaves; the others go on. As with `fit`, the loop can
    be left at any step and resumed.

    Args:
        backbone: the frozen model; untouched.
        methods: trained in place; of one kind and shape, with priors and seeds as they like.
        task: one for all, or one for each.
        config: one for all, or one for each, which differ in what they like but in precision and gradient_checkpointing.
        run_dirs: one folder, which takes the runs 00, 01, … of all members, or a folder for each; None writes nothing.
        resume: go on with the runs that are there; members whose run was not begun yet begin.
        rows_at_once: most rows in one pass, for a backbone whose memory more would not fit; a member's batch is never
            divided. None takes as many as make a pass efficient. Results are the same.

    Raises:
        WorkbenchError: before the first step for settings, shapes and folders that cannot work; during training when
            the last member left has diverged and none has finished.
    """
    bank = Bank(backbone, methods, task, config, rows_at_once)
    if isinstance(run_dirs, (str, Path)):
        run_dirs = numbered(run_dirs, len(methods))
    paths = None if run_dirs is None else [Path(path) for path in run_dirs]
    bank.attach(paths, [resume and (p / "config.json").is_file() for p in paths] if paths else [resume])
    return bank.steps()


class Bank:
    """The members and the passes that they share."""

    def __init__(
        self,
        backbone: Backbone,
        methods: Sequence[Method],
        task: Task | Sequence[Task],
        config: FitConfig | Sequence[FitConfig] | None = None,
        rows_at_once: int | None = None,
    ):
        count = len(methods)
        if not count:
            raise WorkbenchError("a bank needs at least one method to train")
        if len({id(method) for method in methods}) < count:
            raise WorkbenchError("the same method stands twice in the bank; make one for each member")
        tasks = _for_each(task, count, "tasks", Task)
        configs = _for_each(config or FitConfig(), count, "configs", FitConfig)
        for name in SHARED:
            if len({getattr(c, name) for c in configs}) > 1:
                raise WorkbenchError(
                    f"the members of a bank share their passes, so {name} must be the same in all"
                )
        self.backbone, self.config, self.rows_at_once = backbone, configs[0], rows_at_once
        if count > 1:  # refused now, if they have not one shape
            join([method.injection() for method in methods], torch.arange(count))
        self.failed: dict[int, WorkbenchError] = {}
        data = Data(backbone)
        self.members = [
            Member(n, data, method, task, config)
            for n, (method, task, config) in enumerate(zip(methods, tasks, configs, strict=True))
        ]

    def attach(self, paths: Sequence[Path] | None, resume: Sequence[bool], of_job: bool = False) -> None:
        """Write each member's run to its folder; without folders, see that nothing asks for one.

        of_job: a job holds the locks, see `Member.attach`.
        """
        if paths is None:
            if any(resume):
                raise WorkbenchError("resume=True needs the run directory of the run to go on with")
            if any(member.config.trackers for member in self.members):
                raise WorkbenchError(
                    "trackers write beside a run; give a run directory as well, or leave trackers out"
                )
            return
        if len(paths) != len(self.members) or len(set(paths)) < len(paths):
            raise WorkbenchError(
                f"{len(set(paths))} different run_dirs are given for {len(self.members)} methods; give one for each"
            )
        for path, going_on in zip(paths, resume, strict=True):
            if not going_on:
                Run.refuse_used(path)  # before any folder is made
        going = [p for p, on in zip(paths, resume, strict=True) if on and Run(p).status["state"] not in OVER]
        at = _common(going)
        try:
            for member, path, going_on in zip(self.members, paths, resume, strict=True):
                member.attach(path, going_on, of_job, at if path in going else None)
        except BaseException:
            for member in self.members:
                member.release()
            raise

    def steps(self) -> Iterator[BankStep]:
        """Train to the end, one step of all members at a time."""
        active, failed = list(self.members), self.failed
        try:
            for member in active:
                with _caught(failed, member):
                    member.begin()
            while active:
                left: dict[int, str] = {}
                if leaving := [m for m in active if m.finished or m.converged]:
                    self._keep(active)
                for member in leaving:
                    with _caught(failed, member):
                        member.finish()
                        left[member.number] = "finished" if member.finished else "converged"
                steps = self._step([m for m in active if m.number not in left | failed], failed)
                if any(m.number in failed for m in active):
                    self._keep([m for m in active if m.number not in left])
                for member in [m for m in active if m.number in failed]:
                    member.fail(failed[member.number])
                    left[member.number] = str(failed[member.number])
                active = [m for m in active if m.number not in left]
                yield BankStep(steps, left)
            if len(failed) == len(self.members):
                raise failed[max(failed)]
        except WorkbenchError as error:
            for member in active:
                member.fail(error)
            raise
        except BaseException as reason:  # the consumer left, or an interrupt: keep what was done
            if all(member.whole for member in active):
                self._keep(active)
            for member in active:
                member.interrupt(reason)
            raise
        finally:
            for member in self.members:
                member.release()

    def _step(self, active: list[Member], failed: dict[int, WorkbenchError]) -> dict[int, Step]:
        """One update of each member; what went wrong goes into `failed`, by member."""
        started = time.perf_counter()
        for member in active:
            with _caught(failed, member):
                member.open()
        active = [m for m in active if m.number not in failed]
        for part in range(max((len(m.parts) for m in active), default=0)):
            going = [m for m in active if part < len(m.parts) and m.number not in failed]
            for group in self._passes(going, [m.parts[part] for m in going]):
                self._backward(group, part, failed)
        norms = {}
        for member in active:
            if member.number not in failed:
                with _caught(failed, member):
                    norms[member.number] = member.close()
        updated = [m for m in active if m.number in norms]
        looks = self._look([m for m in updated if m.due(m.config.evaluate_every)])
        seconds = time.perf_counter() - started
        steps = {}
        for m in updated:
            step = Step(m.done, m.loss, m.tokens, m.rate, norms[m.number], seconds, looks.get(m.number))
            with _caught(failed, m):
                m.record(step)
                steps[m.number] = step
        if any(m.due(m.config.checkpoint_every) for m in updated):
            self._keep(updated)
        for m in updated:
            m.whole = True
        return {number: step for number, step in steps.items() if number not in failed}

    def _keep(self, members: list[Member]) -> None:
        """Write the checkpoints of all that are well."""
        for member in members:
            if member.number not in self.failed:
                with _caught(self.failed, member):
                    member.keep()

    def _backward(self, group: list[Member], part: int, failed: dict[int, WorkbenchError]) -> None:
        """Run one batch of each member, and leave the gradients of their losses."""
        losses = []
        for member, loss in self._losses(group, part):
            with _caught(failed, member):
                member.lost(float(loss.detach()))
                losses.append(loss)  # one that is not finite stays out of the sum
        if losses:
            with self._precision():
                group[0].accelerator.backward(losses[0] if len(losses) == 1 else torch.stack(losses).sum())

    def _losses(self, group: list[Member], part: int) -> Iterator[tuple[Member, Tensor]]:
        """Each member's share of its loss: of its method's own objective while that has one, else of the answers' nats."""
        answering = []
        for member in group:
            rows = member.parts[part]
            own = member.method.objective(rows, member.done)
            if own is None:
                answering.append(member)
            else:
                yield member, own * member.weigh(rows) / member.weight
        if answering:
            logits, targets, counts = self._run(answering, [m.parts[part] for m in answering])
            nats = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
            for member, answers in zip(answering, nats.split(counts), strict=True):
                if member.config.emphasis != 1:
                    answers = answers * member.parts[part].weights(member.config.emphasis)
                yield member, answers.sum() / member.weight

    @torch.no_grad()
    def _look(self, due: list[Member]) -> dict[int, dict[str, float]]:
        """Loss and accuracy on each member's validation rows, after the update."""
        tallies = {m.number: Tally() for m in due}
        for part in range(max((len(m.validation) for m in due), default=0)):
            going = [m for m in due if part < len(m.validation)]
            for group in self._passes(going, [m.validation[part] for m in going]):
                rows = [m.validation[part] for m in group]
                logits, targets, counts = self._run(group, rows)
                parts = zip(group, logits.split(counts), targets.split(counts), rows, strict=True)
                for member, *answers in parts:
                    tallies[member.number].add(*answers)
        found = {}
        for member in due:
            scores = tallies[member.number].scores
            member.look(scores)
            found[member.number] = {**scores, **member.method.measure(member.validation[0])}
        return found

    def _run(self, group: list[Member], rows: list[Rows]) -> tuple[Tensor, Tensor, list[int]]:
        """(N, V) float32 logits and (N,) targets of all members' answers, and how many are each one's."""
        injections = [member.method.injection() for member in group]
        if len(group) == 1:
            injection = injections[0]
        else:
            members = torch.tensor([n for n, part in enumerate(rows) for _ in range(len(part))])
            injection = join(injections, members.to(self.backbone.device))
        with self._precision(), recomputing(self.config.gradient_checkpointing):
            logits, targets = answer_logits(self.backbone, Rows.concat(rows), injection)
        return logits.float(), targets, [part.answer_tokens for part in rows]

    def _passes(self, members: list[Member], rows: list[Rows]) -> Iterator[list[Member]]:
        """The members in groups whose rows go through the backbone together: those of like length, so as not to pad."""
        enough = _ENOUGH["cpu" if self.backbone.device.type == "cpu" else "accelerator"]
        longest = [part.ids.shape[1] for part in rows]
        group: list[Member] = []
        count = positions = 0
        for length, part, member in sorted(
            zip(longest, rows, members, strict=True), key=lambda row: (row[0], row[2].number)
        ):
            full = count + len(part) > self.rows_at_once if self.rows_at_once else positions >= enough
            if group and full:
                yield group
                group, count, positions = [], 0, 0
            group.append(member)
            count, positions = count + len(part), positions + len(part) * length
        if group:
            yield group

    def _precision(self) -> Any:
        """The precision of the backbone's activations."""
        if self.config.precision == "backbone":
            return contextlib.nullcontext()
        return torch.autocast(self.backbone.device.type, torch.bfloat16)


def _common(paths: Sequence[Path]) -> int | None:
    """The last step of which all these runs have a checkpoint; None where there is none, as each was trained by itself.

    0, the beginning, where one has none yet and the others have not let theirs go.
    """
    kept = [set(checkpoints(path)) for path in paths]
    if not all(kept):
        return 0 if all(len(steps) < KEPT for steps in kept) else None
    return max(set.intersection(*kept), default=None) if kept else None


@contextlib.contextmanager
def _caught(failed: dict[int, WorkbenchError], member: Member) -> Iterator[None]:
    """What goes wrong for one member is no reason for the others to stop."""
    try:
        yield
    except WorkbenchError as error:
        failed[member.number] = error


def _for_each(given: Any, count: int, what: str, kind: type) -> list[Any]:
    if isinstance(given, kind):
        return [given] * count
    if len(given) != count:
        raise WorkbenchError(f"{len(given)} {what} are given for {count} methods; give one, or one for each")
    return list(given)

"""The prompts that E9 is tried on: first those that write their steps, then those that answer at once, from many starts.

    runs/evidence/worked/tiny-llama/worked-sum/steps-3-1f0c52ab/         writes its steps, from the controlled prior
    runs/evidence/worked/tiny-llama/worked-sum/posterior-3-5b5d7e10/     answers at once, and starts where that ended

Every way to a prompt that answers at once reads the same number of positions while it trains, in all: what a posterior
cost before it was a start, the other starts get as further updates. As in study.py, a run's name ends in a mark of all
that it depends on, and an interrupted study goes on where it was. Judges nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from workbench.backbones.backbone import Backbone, load_backbone
from workbench.claims.statistics import lower_bound
from workbench.claims.study import Progress, StudyConfig, Trial, check_study
from workbench.errors import WorkbenchError
from workbench.methods import priors
from workbench.methods.generate import default_config, generate
from workbench.methods.priors import Prior
from workbench.methods.rows import Rows
from workbench.methods.soft_prompt import SoftPrompt
from workbench.tasks.encode import continuation_ids
from workbench.tasks.task import Task, load_task
from workbench.training.bank import fit_many
from workbench.training.batches import encode_for
from workbench.training.config import FitConfig
from workbench.training.evaluate import score_answers
from workbench.training.run import Run, write_json

POSTERIOR, OTHER = "posterior", "other-posterior"
"""Starts that are a trained prompt: of the same questions with the steps written out, and of another task."""
STEPS, ANOTHER = "steps", "another-task"
"""The runs that these come from."""
_BEFORE = {POSTERIOR: STEPS, OTHER: ANOTHER}


@dataclass(frozen=True)
class DistilConfig:
    """What is distilled, from which starts, and at what cost."""

    backbones: tuple[str, ...] = ("tiny-llama", "tiny-rwkv")
    """Frozen models."""
    tasks: tuple[str, ...] = ("worked-third", "worked-sum")
    """Worked arithmetic of the small world: families with the option `steps`. One backbone with one task is a cell."""
    starts: tuple[str, ...] = (POSTERIOR, OTHER, "fitted-gaussian", "isotropic", "vocabulary")
    """Where prompts that answer at once start: the posterior, the posterior of another task, or a prior of a study."""
    controlled: str = "fitted-gaussian"
    """The prior that both posteriors started from, with the same seed."""
    another: str = "find-person"
    """The task of the other posterior, trained for as many positions."""
    seeds: int = 5
    """How many seeds, counted up from the one in `fit`; a seed decides what is drawn and the order of the data."""
    tokens: int = 5
    """Vectors of every prompt; fewer than the tokens of the steps."""
    steps_updates: int = 250
    """Updates of the prompts that write their steps. `fit` has those of the prompts that start from them."""
    test_examples: int = 200
    """Examples of the test split that final quality is measured on, the same for all."""
    asked: int = 100
    """Of them, the questions that prompts which write their steps are asked."""
    together: int = 16
    """Prompts trained in one pass over the backbone."""
    fit: FitConfig = field(
        default_factory=lambda: FitConfig(
            steps=150,
            batch_size=8,
            learning_rate=0.03,
            schedule="constant",
            evaluate_every=25,
            validation_examples=64,
            keep="best",
            snapshot_every=0,
            checkpoint_every=50,
        )
    )
    """How each is trained; one rate throughout, so that every look is the end of a shorter training."""

    def __post_init__(self) -> None:
        check_study(
            self,
            ("backbones", "tasks", "starts"),
            ("tokens", "steps_updates", "test_examples", "asked", "together"),
        )
        if missing := [start for start in _BEFORE if start not in self.starts]:
            raise WorkbenchError(f"the starts have no {missing[0]}; E9 compares it with the others")
        if len(self.others) < 1:
            raise WorkbenchError(
                "the starts name posteriors only; add one to compare with, such as vocabulary"
            )
        if not self.fit.evaluate_every:
            raise WorkbenchError("E9 draws learning curves; set evaluate_every above 0")
        for name in (self.controlled, *self.others):
            self.prior(name)

    @property
    def others(self) -> tuple[str, ...]:
        """The starts that nothing was trained for."""
        return tuple(start for start in self.starts if start not in _BEFORE)

    def prior(self, name: str) -> Prior:
        """The prior behind a name, as studies of starts have it."""
        return StudyConfig(tokens=self.tokens).prior(name)

    @property
    def numbers(self) -> range:
        """The seeds."""
        return range(self.fit.seed, self.fit.seed + self.seeds)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, every prior with its settings."""
        described = {
            name: self.prior(name).describe() for name in {self.controlled: 0, **dict.fromkeys(self.others)}
        }
        return {**asdict(self), "fit": self.fit.to_json(), "priors": described}

    def quick(self) -> DistilConfig:
        """One cell, two seeds, a few updates."""
        fit = replace(
            self.fit, steps=4, batch_size=2, evaluate_every=2, validation_examples=4, checkpoint_every=4
        )
        small: dict[str, Any] = {"seeds": 2, "steps_updates": 4, "test_examples": 8, "asked": 4, "fit": fit}
        return replace(self, backbones=self.backbones[:1], tasks=self.tasks[-1:], **small)


@dataclass(frozen=True)
class Distilled:
    """All prompts of one backbone and task.

    Trials name as their prior the start, or STEPS and ANOTHER for the runs before. positions: by that name, what one
    example has (prompt, question and answer; mean over the train split); updates: how many there were; asked: by seed,
    the share of questions whose last written word is the answer, of the prompt that writes its steps. guess: nats an
    answer token, and most_frequent the share right, of the best answers that know no question. steps_tokens: of the
    steps alone.
    """

    backbone: str
    task: str
    trials: tuple[Trial, ...]
    positions: dict[str, float]
    updates: dict[str, int]
    asked: dict[int, float]
    zero_shot: dict[str, float]
    guess: float
    most_frequent: float
    steps_tokens: float
    device: str

    @property
    def name(self) -> str:
        return f"{self.backbone}/{self.task}"

    def of(self, start: str) -> list[Trial]:
        """One start's trials, by seed."""
        return sorted((t for t in self.trials if t.prior == start), key=lambda t: t.seed)

    def values(self, start: str, number: str) -> NDArray[np.float64]:
        """(seeds,) of a number of one start's trials."""
        return np.array([getattr(trial, number) for trial in self.of(start)])

    def cost(self, start: str) -> float:
        """Positions of an example times updates, with those of the run before: what every start has alike."""
        before = _BEFORE.get(start)
        return self.positions[start] * self.updates[start] + (self.cost(before) if before else 0)

    def common(self, config: DistilConfig) -> dict[str, Any]:
        """`learnt_low`: lower end of the one-sided 95% t interval, over seeds, of how far the final test loss lies below
        a guess that knows no question, mean over starts; `steps_low` the same of how much more often the answer after
        the prompt's own steps is right than the most frequent one; `diverged`: how many did not train to the end."""
        gains = self.guess - np.mean([self.values(start, "loss") for start in config.starts], axis=0)
        asked = np.array([self.asked[seed] for seed in config.numbers])
        return {
            "zero_shot": self.zero_shot,
            "guess": self.guess,
            "most_frequent": self.most_frequent,
            "learnt_low": lower_bound(gains),
            "steps_low": lower_bound(asked - self.most_frequent),
            "diverged": sum(trial.left not in ("finished", "converged") for trial in self.trials),
            "steps_tokens": self.steps_tokens,
            "steps_right": float(asked.mean()),
            "starts": {start: self._of_start(start) for start in (STEPS, ANOTHER, *config.starts)},
        }

    def _of_start(self, start: str) -> dict[str, Any]:
        loss = self.values(start, "loss")
        return {
            "updates": self.updates[start],
            "positions": self.cost(start),
            "loss": float(loss.mean()),
            "loss_spread": float(loss.std(ddof=1)),
            "accuracy": float(self.values(start, "accuracy").mean()),
            "moved": float(self.values(start, "moved").mean()),
        }

    def told(self, trial: Trial) -> dict[str, Any]:
        """The numbers of one prompt; its loss and accuracy are of the task that it was trained on."""
        return {
            "backbone": self.backbone,
            "task": self.task,
            "start": trial.prior,
            "loss": trial.loss,
            "accuracy": trial.accuracy,
            **({"right": self.asked[trial.seed]} if trial.prior == STEPS else {}),
            "updates": self.updates[trial.prior],
            "moved": trial.moved,
            "left": trial.left,
            "seconds": trial.seconds,
        }


def run_distilling(
    config: DistilConfig,
    folder: Path,
    device: str = "auto",
    report: Callable[[Progress], None] = lambda progress: None,
) -> Iterator[Distilled]:
    """Train what is not trained yet, and give the cells, one after another; arguments as in `study.run_study`."""
    counts = [0, 0]
    works = [
        _Work(config, folder, backbone, task, counts, report)
        for backbone in (load_backbone(name, device=device) for name in config.backbones)
        for task in config.tasks
    ]
    counts[1] = sum(plan.fit.steps for work in works for plan in work.plans if "loss" not in plan.facts)
    for work in works:
        yield work.cell()


@dataclass(frozen=True)
class _Plan:
    """One prompt to be trained: `name` is its start, or the run before."""

    name: str
    seed: int
    task: Task
    prior: Prior
    fit: FitConfig
    path: Path

    @property
    def facts(self) -> dict[str, Any]:
        """Its score, once there is one, and its seconds so far."""
        file = self.path / "study.json"
        return json.loads(file.read_text()) if file.is_file() else {}


class _Work:
    """One cell in the making; `counts` are the updates done and left of the whole study."""

    def __init__(
        self,
        config: DistilConfig,
        folder: Path,
        backbone: Backbone,
        task: str,
        counts: list[int],
        report: Callable[[Progress], None],
    ):
        self.config, self.backbone, self.name = config, backbone, task
        self.counts, self.report = counts, report
        self.home = Path(folder) / "worked" / backbone.name.replace("/", "_") / task
        try:
            self.direct, self.worked = load_task(task), load_task(task, steps=True)
            self.worked[0]
        except WorkbenchError as error:
            raise WorkbenchError(
                f"{task} writes no steps; name a family with them, such as worked-sum"
            ) from error
        self.another = load_task(config.another)

    @cached_property
    def positions(self) -> dict[str, float]:
        """Of one example of the train split, mean, with the prompt; by start and run before."""
        direct, worked, other = (
            float(np.mean([self.config.tokens + len(e.ids) - 1 for e in self._encoded(task, "train")]))
            for task in (self.direct, self.worked, self.another)
        )
        return {STEPS: worked, ANOTHER: other, **dict.fromkeys(self.config.starts, direct)}

    @cached_property
    def updates(self) -> dict[str, int]:
        """Of each start and run before, so that no start reads fewer positions in all than the posterior."""
        before = self.config.steps_updates
        read = before * self.positions[STEPS]
        more = math.ceil(read / self.positions[POSTERIOR])
        return {
            STEPS: before,
            ANOTHER: math.ceil(read / self.positions[ANOTHER]),
            **dict.fromkeys(_BEFORE, self.config.fit.steps),
            **dict.fromkeys(self.config.others, self.config.fit.steps + more),
        }

    @cached_property
    def plans(self) -> list[_Plan]:
        """The runs before, then all others."""
        config, found = self.config, {}
        controlled = config.prior(config.controlled)
        for seed in config.numbers:
            found[STEPS, seed] = self._plan(STEPS, seed, self.worked, controlled)
            found[ANOTHER, seed] = self._plan(ANOTHER, seed, self.another, controlled)
        for seed in config.numbers:
            for start in config.starts:
                before = found.get((_BEFORE.get(start, ""), seed))
                prior = priors.Posterior(run=str(before.path)) if before else config.prior(start)
                found[start, seed] = self._plan(start, seed, self.direct, prior)
        return list(found.values())

    def _plan(self, name: str, seed: int, task: Task, prior: Prior) -> _Plan:
        fit = replace(self.config.fit, seed=seed, steps=self.updates[name])
        depends = {
            "prior": prior.describe(),
            "task": task.to_config(),
            "tokens": self.config.tokens,
            "test_examples": self.config.test_examples,
            "asked": self.config.asked,
            "fit": fit.to_json(),
            "read": self._read,
        }
        mark = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:8]
        return _Plan(name, seed, task, prior, fit, self.home / f"{name}-{seed}-{mark}")

    @cached_property
    def _read(self) -> str:
        """A mark of the backbone's embeddings and of what is read."""
        read = hashlib.sha256(self.backbone.vocabulary().float().cpu().numpy().tobytes())
        for task in (self.direct, self.worked, self.another):
            for example in task.examples("test", n=self.config.test_examples):
                read.update(example.text.encode())
        return read.hexdigest()

    def cell(self) -> Distilled:
        for before in (True, False):
            waiting = [
                plan
                for plan in self.plans
                if (plan.name in _BEFORE.values()) == before and "loss" not in plan.facts
            ]
            for first in range(0, len(waiting), self.config.together):
                self._train(waiting[first : first + self.config.together])
        answers = [e.answer.strip() for e in self.direct.examples("train")]
        test = self.direct.examples("test", n=self.config.test_examples, seed=0)
        with torch.no_grad():
            zero_shot = score_answers(self.backbone, self._rows(self.direct))
        return Distilled(
            self.backbone.name,
            self.name,
            tuple(self._trial(plan) for plan in self.plans),
            self.positions,
            self.updates,
            {plan.seed: plan.facts["right"] for plan in self.plans if plan.name == STEPS},
            zero_shot,
            *_guess(
                answers,
                [e.answer.strip() for e in test],
                sum(r.answer_tokens for r in self._rows(self.direct)),
            ),
            float(
                np.mean(
                    [len(continuation_ids(self.backbone.tokenizer, " " + e.fields["steps"])) for e in test]
                )
            ),
            str(self.backbone.device),
        )

    def _train(self, plans: Sequence[_Plan]) -> None:
        """Train some prompts to the end and score them; if interrupted, keep what is done and how long it took."""
        paths, began = [plan.path for plan in plans], time.perf_counter()
        spent = [plan.facts.get("seconds", 0.0) for plan in plans]
        whole = sum(plan.fit.steps for plan in plans)

        def seconds(member: int) -> float:
            return spent[member] + (time.perf_counter() - began) * plans[member].fit.steps / whole

        methods = [
            SoftPrompt(self.backbone, tokens=self.config.tokens, prior=plan.prior, seed=plan.seed)
            for plan in plans
        ]
        left: dict[int, str] = {}
        at: dict[int, int] = {}
        before = self.counts[1]
        resume = any((path / "config.json").is_file() for path in paths)
        try:
            bank = fit_many(
                self.backbone, methods, [p.task for p in plans], [p.fit for p in plans], paths, resume
            )
            for step in bank:
                left |= step.left
                at |= {member: done.index for member, done in step.steps.items()}
                at |= {member: plans[member].fit.steps for member in step.left}
                self.counts[0] += len(step.steps)
                self.counts[1] = before - sum(at.values())
                self.report(Progress(self.counts[0], self.counts[1], f"{self.backbone.name} {self.name}"))
            for member, (plan, method) in enumerate(zip(plans, methods, strict=True)):
                with torch.no_grad():
                    score = score_answers(self.backbone, self._rows(plan.task), method.injection())
                right = {"right": self._asked(method)} if plan.name == STEPS else {}
                facts = {**score, **right, "left": left[member], "seconds": seconds(member)}
                write_json(plan.path / "study.json", facts)
        finally:
            for member, plan in enumerate(plans):
                if (plan.path / "config.json").is_file() and "loss" not in plan.facts:
                    write_json(plan.path / "study.json", {"seconds": seconds(member)})

    def _asked(self, method: SoftPrompt) -> float:
        """The share of questions whose last written word is the answer."""
        examples = self.worked.examples("test", n=self.config.test_examples, seed=0)[: self.config.asked]
        room = max(len(continuation_ids(self.backbone.tokenizer, e.answer)) for e in examples) + 2
        written = generate(
            self.backbone, [e.prompt for e in examples], method, default_config(method, max_new_tokens=room)
        )
        return _end_right(written, [e.answer for e in examples])

    def _trial(self, plan: _Plan) -> Trial:
        run, facts = Run(plan.path), plan.facts
        kept = run.snapshots()
        drawn, trained = (torch.from_numpy(run.snapshot(step)["embeddings"]) for step in (0, max(kept)))
        if (run.path / "method" / "method.json").is_file():
            trained = run.load_method(self.backbone).snapshot()["embeddings"]
        looks = tuple((m["step"], m["validation"]["loss"]) for m in run.metrics() if m.get("validation"))
        scores = facts["loss"], facts["accuracy"], facts["left"]
        return Trial(plan.name, plan.seed, drawn, trained, *scores, looks, facts["seconds"])

    def _encoded(self, task: Task, split: str, n: int | None = None) -> list[Any]:
        """Examples of a split, chosen as training's looks choose theirs."""
        examples = task.examples(split, n=n, seed=0)
        return [encode_for(self.backbone, e, self.config.fit.text, self.config.tokens) for e in examples]

    def _rows(self, task: Task) -> list[Rows]:
        """The test examples of a task, of like length together."""
        encoded = sorted(self._encoded(task, "test", self.config.test_examples), key=lambda e: len(e.ids))
        return [Rows.collate(encoded[i : i + 32], self.backbone.device) for i in range(0, len(encoded), 32)]


def _end_right(written: Sequence[str], answers: Sequence[str]) -> float:
    """The share of texts whose last word is the answer's last; a text without a word is wrong."""
    return float(np.mean([w.split()[-1:] == a.split()[-1:] for w, a in zip(written, answers, strict=True)]))


def _guess(known: Sequence[str], asked: Sequence[str], tokens: int) -> tuple[float, float]:
    """Nats a token of `tokens`, and the share right, of guessing `asked` by how often each answer was among the known.

    Frequencies have one added to each answer (Laplace), so that one never seen costs no infinity.
    """
    counts = Counter(known)
    kinds = len(set(known) | set(asked))
    nats = -sum(math.log((counts[answer] + 1) / (len(known) + kinds)) for answer in asked)
    (often, _), *_ = counts.most_common(1)
    return nats / tokens, sum(answer == often for answer in asked) / len(asked)

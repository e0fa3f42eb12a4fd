"""The prompts that a claim is tried on: every backbone, task, prior and seed, trained many at a time.

    runs/evidence/tiny-llama/find-person/vocabulary-3-1f0c52ab/     a run, and study.json: its score, and its seconds
    runs/evidence/tiny-llama/find-person/layer 3/vocabulary-3-…/    the same, of prompts that stand before layer 3

The name's last part stands for everything that the run depends on, so two claims with the same settings share their
runs, other settings never meet, and a study that was interrupted goes on where it was. Judges nothing.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.backbones.backbone import Backbone, load_backbone
from workbench.claims.space import Space
from workbench.claims.statistics import lower_bound
from workbench.errors import WorkbenchError, unknown
from workbench.methods import priors
from workbench.methods.deep_prompt import INPUT, DeepPrompt
from workbench.methods.method import Method
from workbench.methods.priors import Prior
from workbench.methods.rows import Rows
from workbench.methods.soft_prompt import SoftPrompt
from workbench.tasks.task import Task, load_task
from workbench.training.bank import fit_many
from workbench.training.batches import encode_for
from workbench.training.config import FitConfig
from workbench.training.evaluate import score_answers
from workbench.training.run import Run, write_json

SEVEN = (
    "isotropic",
    "xavier",
    "fitted-gaussian",
    "gaussian-exclusion",
    "gaussian-interpolation",
    "vocabulary",
    "shell-4",
)
"""The priors that claims compare: the paper's that draw without training, random tokens, and one that is far away."""


def check_study(study: Any, lists: Sequence[str], counts: Sequence[str] = ()) -> None:
    """Refuse a study whose lists name something twice or nothing, that has one seed, or whose counts are below 1."""
    for name in lists:
        named = getattr(study, name)
        if not named or len(set(named)) < len(named):
            raise WorkbenchError(f"{name} of a study are {named}; name each once, and one at least")
    if study.seeds < 2:
        raise WorkbenchError(f"seeds is {study.seeds}; a spread over seeds needs 2 or more")
    for name in counts:
        if getattr(study, name) < 1:
            raise WorkbenchError(f"{name} is {getattr(study, name)}; it must be at least 1")


@dataclass(frozen=True)
class StudyConfig:
    """What is trained, and how, before a claim is judged by it."""

    backbones: tuple[str, ...] = ("tiny-llama", "tiny-rwkv")
    """Frozen models."""
    tasks: tuple[str, ...] = ("reading", "order-2", "find-person")
    """Tasks of the small world: language, arithmetic, and one that prompts learn well. One backbone with one task is a
    cell. (Of the arithmetic, adding has nothing left that a prompt could teach these backbones; putting in order has.)"""
    places: tuple[str, ...] = (INPUT,)
    """Where the prompts stand: before the input, or, as "layer 2", before what a layer reads (from 0). With several, a
    cell is one of them too."""
    priors: tuple[str, ...] = SEVEN
    """Where prompts start; shell-4 is the shell of radius 4, which is 4 times √width."""
    seeds: int = 8
    """How many seeds, counted up from the one in `fit`; a seed decides what is drawn and the order of the data."""
    tokens: int = 20
    """Vectors of a prompt; the paper's 20."""
    between: tuple[str, str] = ("reading", "order-2")
    """The two tasks whose texts gaussian-interpolation lies between; gaussian-reading is the Gaussian of one of them."""
    points: int = 1024
    """Of each of the two, that its Gaussian is fitted to."""
    test_examples: int = 200
    """Examples of the test split that final quality is measured on, the same for all."""
    together: int = 16
    """Prompts trained in one pass over the backbone."""
    fit: FitConfig = field(
        default_factory=lambda: FitConfig(
            steps=150,
            batch_size=8,
            learning_rate=0.01,
            evaluate_every=0,
            keep="last",
            snapshot_every=0,
            checkpoint_every=50,
        )
    )
    """How each is trained. Before a layer the learning rate is multiplied by `Space.scale` (ours): Adam moves every
    number by about the learning rate, and what a layer reads is larger than an embedding."""

    def __post_init__(self) -> None:
        check_study(
            self,
            ("backbones", "tasks", "places", "priors"),
            ("tokens", "points", "test_examples", "together"),
        )
        for name in self.priors:
            self.prior(name)
        for place in self.places:
            layer_of(place)

    def prior(self, name: str) -> Prior:
        """The prior behind a name, with the study's settings."""
        if name.startswith("shell-"):
            try:
                return priors.Shell(radius=float(name.removeprefix("shell-")))
            except ValueError:
                raise WorkbenchError(f"{name!r} is no shell; write its radius, as in shell-4") from None
        known: dict[str, Callable[[], Prior]] = {
            "isotropic": priors.Isotropic,
            "xavier": lambda: priors.Xavier(tokens=self.tokens),
            "fitted-gaussian": priors.FittedGaussian,
            "gaussian-exclusion": priors.GaussianExclusion,
            "gaussian-interpolation": lambda: priors.GaussianInterpolation(*self.between, points=self.points),
            "vocabulary": priors.Vocabulary,
            **{
                f"gaussian-{task}": partial(priors.FittedGaussian, task, points=self.points)
                for task in self.between
            },
        }
        if name not in known:
            raise unknown("prior of a study", name, [*known, "shell-4"])
        return known[name]()

    @property
    def numbers(self) -> range:
        """The seeds."""
        return range(self.fit.seed, self.fit.seed + self.seeds)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, every prior with its settings."""
        described = {name: self.prior(name).describe() for name in self.priors}
        return {**asdict(self), "fit": self.fit.to_json(), "priors": described}

    def quick(self) -> StudyConfig:
        """The smallest study of the same priors: one cell, two seeds, a few steps."""
        fit = replace(
            self.fit,
            steps=4,
            batch_size=2,
            evaluate_every=min(self.fit.evaluate_every, 2),
            validation_examples=4,
            checkpoint_every=4,
        )
        return replace(
            self,
            backbones=self.backbones[:1],
            tasks=self.tasks[-1:],
            places=self.places[-1:],
            seeds=2,
            tokens=4,
            points=128,
            test_examples=8,
            fit=fit,
        )


def layer_of(place: str) -> int | None:
    """The layer of a place, None for the input."""
    if place == INPUT:
        return None
    word, _, number = place.partition(" ")
    if word != "layer" or not number.isdecimal():
        raise WorkbenchError(f'{place!r} is no place for a prompt; write input, or "layer 2"')
    return int(number)


@dataclass(frozen=True)
class Trial:
    """One trained prompt.

    drawn, trained: (P, d) before the first step and after the last. loss: nats an answer token of the test examples;
    accuracy: the share of their answers whose every token is the likeliest. left: how training ended, "finished" if
    all went well. looks: (step, nats a token) on the validation split, where it was looked at. seconds: its share of
    the time that its bank took.
    """

    prior: str
    seed: int
    drawn: Tensor
    trained: Tensor
    loss: float
    accuracy: float
    left: str
    looks: tuple[tuple[int, float], ...]
    seconds: float

    @property
    def moved(self) -> float:
        """How far it went: rms of the change over rms of the start."""
        return float((self.trained - self.drawn).norm() / self.drawn.norm())


@dataclass(frozen=True)
class Cell:
    """All prompts of one backbone and task, and of one place.

    space: of the vectors there. zero_shot: loss and accuracy on the test examples without a prompt; zero_shot_validation: loss on the examples that
    training looks at.
    """

    backbone: str
    task: str
    space: Space
    zero_shot: dict[str, float]
    zero_shot_validation: float
    trials: tuple[Trial, ...]
    device: str
    place: str = INPUT

    @property
    def name(self) -> str:
        return f"{self.backbone}/{self.task}" + (f"/{self.place}" if self.place != INPUT else "")

    def of(self, prior: str) -> list[Trial]:
        """One prior's trials, by seed."""
        return sorted((t for t in self.trials if t.prior == prior), key=lambda t: t.seed)

    def table(self, priors: Sequence[str], value: Callable[[Trial], float]) -> NDArray[np.float64]:
        """(priors, seeds) of a number of each trial."""
        return np.array([[value(trial) for trial in self.of(prior)] for prior in priors])

    def gain(self, trial: Trial) -> float:
        """How far the prompt lowered the test loss below no prompt at all, in nats a token."""
        return self.zero_shot["loss"] - trial.loss

    def common(self, config: StudyConfig) -> dict[str, Any]:
        """What the cells of every claim say: whether anything was learnt, and how each prior's prompts moved and ended.

        `learnt_low`: lower end of the one-sided 95% t interval, over seeds, of the gain, mean over priors. `diverged`:
        how many prompts did not train to the end.
        """
        gains = self.table(config.priors, self.gain)
        return {
            "zero_shot": self.zero_shot,
            "zero_shot_validation": self.zero_shot_validation,
            "gain": float(gains.mean()),
            "learnt_low": lower_bound(gains.mean(0)),
            "diverged": sum(trial.left not in ("finished", "converged") for trial in self.trials),
            "priors": {prior: _of_prior(self.of(prior)) for prior in config.priors},
        }

    def told(self, trial: Trial) -> dict[str, Any]:
        """The numbers of one prompt."""
        return {
            "backbone": self.backbone,
            "task": self.task,
            **({"place": self.place} if self.place != INPUT else {}),
            "prior": trial.prior,
            "loss": trial.loss,
            "accuracy": trial.accuracy,
            "gain": self.gain(trial),
            "moved": trial.moved,
            "left": trial.left,
            "seconds": trial.seconds,
        }


def _of_prior(trials: Sequence[Trial]) -> dict[str, float]:
    losses = np.array([trial.loss for trial in trials])
    return {
        "loss": float(losses.mean()),
        "loss_spread": float(losses.std(ddof=1)),
        "accuracy": float(np.mean([trial.accuracy for trial in trials])),
        "moved": float(np.mean([trial.moved for trial in trials])),
    }


@dataclass(frozen=True)
class Progress:
    """Updates of single prompts, or what else `unit` says: done in this go, and left; and the cell at hand."""

    done: int
    left: int
    where: str
    unit: str = "update"


def run_study(
    config: StudyConfig,
    folder: Path,
    device: str = "auto",
    report: Callable[[Progress], None] = lambda progress: None,
) -> Iterator[Cell]:
    """Train what is not trained yet, and give the cells, one after another.

    Args:
        folder: where the runs are kept.
        device: where the backbones run.
        report: called as it goes on.
    """
    tasks = {name: load_task(name) for name in config.tasks}
    trials = len(config.priors) * config.seeds
    cells = len(config.backbones) * len(config.places) * len(tasks)
    counts = [0, cells * trials * config.fit.steps]
    for name in config.backbones:
        backbone = load_backbone(name, device=device)
        for place in config.places:
            space = Space(backbone, layer_of(place))
            for task in tasks.values():
                yield _Work(config, folder, backbone, task, place, space, counts, report).cell()


class _Work:
    """One cell in the making; `counts` are the updates done and left of the whole study."""

    def __init__(
        self,
        config: StudyConfig,
        folder: Path,
        backbone: Backbone,
        task: Task,
        place: str,
        space: Space,
        counts: list[int],
        report: Callable[[Progress], None],
    ):
        self.config, self.backbone, self.task, self.place, self.space = config, backbone, task, place, space
        self.counts, self.report = counts, report
        self.home = Path(folder) / backbone.name.replace("/", "_") / task.name
        if place != INPUT:
            self.home /= place
        self.fit = replace(config.fit, learning_rate=config.fit.learning_rate * space.scale)
        self.test = self._rows("test", config.test_examples)
        self.priors = {name: config.prior(name) for name in config.priors}
        read = hashlib.sha256(space.tokens.numpy().tobytes())
        for split in task.splits:
            for example in task.examples(split, n=config.test_examples):
                read.update(example.text.encode())
        self.read = read.hexdigest()

    def cell(self) -> Cell:
        chosen = [(prior, seed) for seed in self.config.numbers for prior in self.priors]
        waiting = []
        for prior, seed in chosen:
            if "loss" in self._facts(self._path(prior, seed)):
                self.counts[1] -= self.config.fit.steps
            else:
                waiting.append((prior, seed))
        self._tell()
        for first in range(0, len(waiting), self.config.together):
            self._train(waiting[first : first + self.config.together])
        with torch.no_grad():
            zero_shot = score_answers(self.backbone, self.test)
            looked = self._rows("validation", self.config.fit.validation_examples)
            validation = score_answers(self.backbone, looked)["loss"]
        trials = tuple(self._trial(prior, seed) for prior, seed in chosen)
        return Cell(
            self.backbone.name,
            self.task.name,
            self.space,
            zero_shot,
            validation,
            trials,
            str(self.backbone.device),
            self.place,
        )

    def _train(self, chosen: Sequence[tuple[str, int]]) -> None:
        """Train some prompts to the end and score them; if interrupted, keep what is done and how long it took."""
        paths = [self._path(prior, seed) for prior, seed in chosen]
        seconds = [self._facts(path).get("seconds", 0.0) for path in paths]
        left: dict[int, str] = {}
        at: dict[int, int] = {}  # the last update of each, also of those that were done before
        before = self.counts[1]
        clock = time.perf_counter()

        def share(members: Sequence[int]) -> None:
            nonlocal clock
            now = time.perf_counter()
            for member in members:
                seconds[member] += (now - clock) / len(members)
            clock = now

        methods = [self._method(self.priors[prior], seed) for prior, seed in chosen]
        share(range(len(chosen)))
        configs = [replace(self.fit, seed=seed) for _, seed in chosen]
        try:
            resumed = any((path / "config.json").is_file() for path in paths)
            for step in fit_many(self.backbone, methods, self.task, configs, paths, resume=resumed):
                share([*step.steps, *(member for member in step.left if member not in step.steps)])
                left |= step.left
                at |= {member: done.index for member, done in step.steps.items()}
                at |= dict.fromkeys(step.left, self.config.fit.steps)
                self.counts[0] += len(step.steps)
                self.counts[1] = before - sum(at.values())
                self._tell()
            for member, (path, method) in enumerate(zip(paths, methods, strict=True)):
                with torch.no_grad():
                    score = score_answers(self.backbone, self.test, method.injection())
                share([member])
                write_json(path / "study.json", {**score, "left": left[member], "seconds": seconds[member]})
        finally:
            for path, spent in zip(paths, seconds, strict=True):
                if (path / "config.json").is_file() and "loss" not in self._facts(path):
                    write_json(path / "study.json", {"seconds": spent})

    def _method(self, prior: Prior, seed: int) -> Method:
        of: dict[str, Any] = {"tokens": self.config.tokens, "prior": prior, "seed": seed}
        if self.space.layer is None:
            return SoftPrompt(self.backbone, **of)
        return DeepPrompt(self.backbone, layers=(self.space.layer,), **of)

    def _trial(self, prior: str, seed: int) -> Trial:
        run = Run(self._path(prior, seed))
        facts, kept = self._facts(run.path), run.snapshots()
        key = "embeddings" if self.place == INPUT else self.place
        drawn, trained = (torch.from_numpy(run.snapshot(step)[key]) for step in (0, max(kept)))
        if (run.path / "method" / "method.json").is_file():
            trained = run.load_method(self.backbone).snapshot()[key]
        looks = tuple((m["step"], m["validation"]["loss"]) for m in run.metrics() if m.get("validation"))
        return Trial(
            prior, seed, drawn, trained, facts["loss"], facts["accuracy"], facts["left"], looks, facts["seconds"]
        )  # fmt: skip

    def _rows(self, split: str, count: int) -> list[Rows]:
        """Encoded examples of a split, chosen as training's looks choose theirs, of like length together."""
        text = self.config.fit.text
        examples = self.task.examples(split, n=count, seed=0)
        encoded = [encode_for(self.backbone, example, text, self.config.tokens) for example in examples]
        encoded.sort(key=lambda e: len(e.ids))
        size = 32
        return [
            Rows.collate(encoded[i : i + size], self.backbone.device) for i in range(0, len(encoded), size)
        ]

    def _path(self, prior: str, seed: int) -> Path:
        depends = {
            "prior": self.priors[prior].describe(),
            "tokens": self.config.tokens,
            "test_examples": self.config.test_examples,
            "fit": {**self.fit.to_json(), "seed": seed},
            "read": self.read,
        }
        mark = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:8]
        return self.home / f"{prior}-{seed}-{mark}"

    @staticmethod
    def _facts(path: Path) -> dict[str, Any]:
        file = path / "study.json"
        return json.loads(file.read_text()) if file.is_file() else {}

    def _tell(self) -> None:
        done, left = self.counts
        self.report(Progress(done, left, f"{self.backbone.name} {self.task.name}"))

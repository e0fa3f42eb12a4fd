"""Memory: what methods keep of a story's prompt, and what that costs on the rest of the story; the study of P1 and P2.

    run_maps       clauses met by their number and distance, of plain backbones (P1)
    run_memory     methods trained on stories, each swept over its strength on other stories (P2)

Stories are read under teacher forcing, as `backbones/score.py` does: a clause is met where every token of the due word is the
likeliest. Trials are kept (`kept.py`), trained methods in run directories, so that what was interrupted goes on. Judges nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from workbench.backbones.backbone import Backbone, load_backbone
from workbench.backbones.score import (
    CLAUSES,
    StoryRow,
    StoryScores,
    distance_bin,
    map_cells,
    story_rows,
    story_scores,
)
from workbench.claims.kept import Kept, keep
from workbench.claims.statistics import mean
from workbench.claims.study import Progress
from workbench.errors import WorkbenchError
from workbench.methods.apply import answer_logits
from workbench.methods.initial_state import InitialState
from workbench.methods.injection import NOTHING, Injection
from workbench.methods.lora import LoRA
from workbench.methods.method import Method
from workbench.methods.pointer_cache import PointerCache
from workbench.methods.prompt_bias import PromptBias
from workbench.methods.rereading import Rereading
from workbench.methods.rows import Rows
from workbench.methods.synthetic_gradient import SyntheticGradient
from workbench.tasks.encode import Encoded, TextConfig
from workbench.tasks.task import load_task
from workbench.tasks.world.sample import Split
from workbench.tasks.world.stories import shortest
from workbench.training.config import FitConfig
from workbench.training.fit import fit
from workbench.training.run import Run

Floats = NDArray[np.float64]

PLAIN, TOKENS, STATE = "plain", "tokens", "state"
BASELINES = ("prompt-bias", "pointer-cache", "lora", "initial-state", "gradient", "gradient, 3 steps")
"""Beside the plain backbone; none of them adds tokens to the context."""
UNTRAINED = ("error", "error, decorrelated", "gradient", "gradient, 3 steps")
TRAINED = (TOKENS, STATE, "lora", "initial-state", "prompt-bias", "pointer-cache")
METHODS = (*TRAINED, *UNTRAINED)
STRENGTHS: Mapping[str, tuple[float, ...]] = {
    TOKENS: (0.25, 0.5, 0.75, 1.0, 1.25, 1.5),
    STATE: (0.5, 1.0, 1.5, 2.0),
    "lora": (0.5, 0.75, 1.0, 1.25),
    "initial-state": (1.0,),
    "prompt-bias": (0.5, 1.0, 2.0, 4.0, 8.0),
    "pointer-cache": (0.5, 1.0, 2.0, 4.0, 8.0),
    "error": (0.03, 0.1, 0.3, 1.0),
    "error, decorrelated": (1.0, 3.0, 6.0, 10.0),
    "gradient": (0.03, 0.1, 0.3, 1.0),
    "gradient, 3 steps": (0.03, 0.1, 0.3),
}
"""By what each method's effect is multiplied in its sweep; of what is not trained, the step size itself."""

EVERY = (25, 50, 100)
"""Tokens after which a prompt is read again, where that is tried."""
HARD = 0.7
"""Cells in which the plain backbone meets less than this share are where memory is measured."""


@dataclass(frozen=True)
class Seeds:
    """Seeds of stories, the same for every study here."""

    seeds: int = 5
    """How many seeds, counted up from `seed`; a seed has its own stories, and its own start and order of data if it trains."""
    seed: int = 0
    """The first of them."""

    def __post_init__(self) -> None:
        if self.seeds < 2:
            raise WorkbenchError(f"seeds is {self.seeds}; an interval over seeds needs two or more")

    @property
    def numbers(self) -> range:
        """The seeds."""
        return range(self.seed, self.seed + self.seeds)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return dict(json.loads(json.dumps(asdict(self))))


@dataclass(frozen=True, eq=False)
class StoriesCell:
    """All that was found with one backbone; `Kept.prior` names what was tried."""

    backbone: str
    trials: tuple[Kept, ...]
    device: str

    @property
    def name(self) -> str:
        return self.backbone

    def facts(self, tried: str) -> list[dict[str, Any]]:
        """The facts of what was tried, seed by seed."""
        return [t.facts for t in sorted(self.trials, key=lambda t: t.seed) if t.prior == tried]


@dataclass(frozen=True)
class MemoryConfig(Seeds):
    """What is trained, and on which stories it is tried."""

    seed: int = 5
    """The first of them; those before were tried while the method was made."""
    backbones: tuple[str, ...] = ("tiny-rwkv",)
    """Recurrent backbones."""
    steps: int = 300
    """Updates of everything that is trained; a bias and a cache, of one and two numbers, take a quarter of them."""
    align_steps: int = 1000
    """Updates before those, on the same stories, in which the keys of "tokens" alone are trained."""
    batch_size: int = 8
    """Stories in an update."""
    longest: int = 160
    """Most words of a story that is trained on, but for those whose clauses need more."""
    emphasis: float = 6.0
    """Weight in the loss of a story's tokens that stand once in its prompt, for everything that is trained."""
    hidden: int = 43
    """Width of the synthesiser of "tokens"; what else is trained has about as many parameters."""
    rates: tuple[tuple[str, float], ...] = (
        (TOKENS, 0.015),
        (STATE, 0.003),
        ("lora", 0.003),
        ("initial-state", 0.03),
        ("prompt-bias", 0.05),
        ("pointer-cache", 0.05),
    )
    """Peak learning rates."""
    stories: int = 10
    """Stories that memory and price are measured on, for each of three numbers of clauses."""
    cases: int = 64
    """Clauses of each number on the map, about."""

    def __post_init__(self) -> None:
        super().__post_init__()
        known = dict(self.rates)
        object.__setattr__(self, "rates", tuple((name, known[name]) for name in known))
        if missing := [name for name in TRAINED if name not in known]:
            raise WorkbenchError(
                f"rates have no learning rate for {missing[0]}; name one for each of {', '.join(TRAINED)}"
            )

    def quick(self) -> MemoryConfig:
        """Two seeds, two updates, two stories."""
        return replace(
            self, seeds=2, steps=2, align_steps=1, batch_size=2, longest=40, hidden=4, stories=2, cases=16
        )


@dataclass(frozen=True, eq=False)
class MemoryCell(StoriesCell):
    """All that was found with one backbone. Of a trial, the prior is the method's name, and facts are `_trial`'s."""

    def at(self, method: str, price: float) -> Floats:
        """(seeds,) the most memory at that price or less; the plain backbone's where no strength is so cheap."""
        return self.best([facts["curve"] for facts in self.facts(method)], price)

    def best(self, curves: Sequence[Sequence[Mapping[str, float]]], price: float) -> Floats:
        """The same, of any curves over strengths, one for each of the first seeds."""
        plain = [facts["curve"][0]["memory"] for facts in self.facts(PLAIN)]
        found = []
        for least, curve in zip(plain, curves, strict=False):
            found.append(max([least, *(p["memory"] for p in curve if p["price"] <= price)]))
        return np.array(found)

    def common(self, config: MemoryConfig) -> dict[str, Any]:
        """How many clauses memory is measured on, seed by seed."""
        return {"hard": [facts["hard"] for facts in self.facts(PLAIN)]}

    def told(self, trial: Kept) -> dict[str, Any]:
        """The numbers of one method."""
        head = {"backbone": self.backbone, "method": trial.prior}
        return {**head, **trial.facts, "seconds": trial.seconds}


def run_memory(
    config: MemoryConfig,
    folder: Path,
    device: str = "auto",
    report: Callable[[Progress], None] = lambda progress: None,
) -> Iterator[MemoryCell]:
    """Train and try what is not there yet; arguments as in `study.run_study`."""
    names = (PLAIN, *METHODS)
    done, left = 0, len(config.backbones) * config.seeds * len(names)
    for name in config.backbones:
        backbone = load_backbone(name, device=device)
        home = Path(folder) / "memory" / backbone.name.replace("/", "_")
        trials = []
        for seed in config.numbers:
            for method in names:
                make = partial(_trial, config, backbone, method, seed, home)
                trial, new = keep(home, method, seed, depends_on(config, backbone, method), make)
                trials.append(trial)
                done, left = done + new, left - 1
                report(Progress(done, left, f"{backbone.name} {method}, seed {seed}", "method"))
        yield MemoryCell(backbone.name, tuple(trials), str(backbone.device))


def train(
    config: MemoryConfig,
    backbone: Backbone,
    name: str,
    seed: int,
    run: Path,
    teacher: SyntheticGradient | None = None,
    **fields: Any,
) -> tuple[Method, float]:
    """A method trained on stories, in a run directory that is gone on with, and the seconds that its updates took.

    teacher: of a synthetic gradient that matches first. fields: of the method's configuration, other than the study's own.
    """
    steps = config.steps if name not in ("prompt-bias", "pointer-cache") else max(1, config.steps // 4)
    rate = dict(config.rates)[name]
    task = load_task("stories", n=steps * config.batch_size, seed=100 + seed, longest=config.longest)
    method = make(config, backbone, name, seed, **fields)
    before = 0
    if isinstance(method, SyntheticGradient):
        method.teacher, before = teacher, method.config.align_steps
    settings = FitConfig(
        steps=before + steps,
        schedule="linear" if before else "cosine",  # after a half-cosine's first stage little would be left
        batch_size=config.batch_size,
        learning_rate=rate,
        emphasis=config.emphasis,
        evaluate_every=max(1, (before + steps) // 8),
        validation_examples=16,
        keep="last",
        snapshot_every=0,
        checkpoint_every=100,
        seed=seed,
        text=TextConfig(train_eos=False),
    )
    for _ in fit(backbone, method, task, settings, run_dir=run, resume=(run / "config.json").is_file()):
        pass
    return method, sum(line["seconds"] for line in Run(run).metrics())


def make(config: MemoryConfig, backbone: Backbone, name: str, seed: int, **fields: Any) -> Method:
    """A method of the study before it is trained; LoRA's rank and the state's width give it the parameters of "tokens"."""
    if name == TOKENS:
        first = {"align_steps": config.align_steps, **fields}
        return SyntheticGradient(backbone, hidden=config.hidden, seed=seed, **first)
    if name in ("lora", STATE):
        budget = SyntheticGradient(backbone, hidden=config.hidden).parameters_trained

        def sized(size: int) -> Method:
            if name == "lora":
                return LoRA(backbone, rank=size, alpha=float(size), seed=seed)
            first = {"match_steps": config.steps // 4, **fields}
            return SyntheticGradient(backbone, source="state", hidden=size, seed=seed, **first)

        one, two = sized(1).parameters_trained, sized(2).parameters_trained
        return sized(max(1, 1 + (budget - one) // (two - one)))
    if name == "initial-state":
        return InitialState(backbone, seed=seed)
    if name == "prompt-bias":
        return PromptBias(backbone)
    return PointerCache(backbone)


def told(
    backbone: Backbone,
    rows: Sequence[StoryRow],
    injection: Injection = NOTHING,
    rereading: Rereading | None = None,
    batch_tokens: int = 4096,
) -> StoryScores:
    """Clauses met and loss on the rest of stories, with an injection, or with their prompts read again."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    found: dict[int, list[tuple[int, float]]] = {}
    while order:
        count = max(1, batch_tokens // len(rows[order[min(7, len(order) - 1)]].ids))
        part, order = order[:count], order[count:]
        batch = Rows.collate([Encoded(tuple(rows[i].ids), rows[i].start, 0) for i in part], backbone.device)
        own = None
        if rereading is not None:
            batch, own = rereading.rows(batch)
        with torch.no_grad():
            logits, targets = answer_logits(backbone, batch, injection)
        if own is not None:
            logits, targets = logits[own], targets[own]
        nats = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none").tolist()
        pairs = iter(zip(logits.argmax(-1).tolist(), nats, strict=True))
        for i in part:
            found[i] = [next(pairs) for _ in range(len(rows[i].ids) - rows[i].start)]
    return story_scores(rows, [found[i] for i in range(len(rows))])


@lru_cache(maxsize=8)
def hard_cells(backbone: Backbone, cases: int, seed: int) -> frozenset[tuple[int, int]]:
    """The cells of the map, (clauses, tokens after the prompt), in which the plain backbone meets less than `HARD`."""
    scores = told(backbone, story_rows(backbone.tokenizer, map_cells(cases), "train", seed))
    return frozenset((int(c), int(d)) for c, d, share, n in scores.forgetting() if share < HARD and n >= 10)


def memory(scores: StoryScores, hard: frozenset[tuple[int, int]]) -> tuple[float, int]:
    """The share of clauses met in the hard cells, and how many fell due in them."""
    met = [r.met for r in scores.recalls if (r.clauses, distance_bin(r.distance)) in hard]
    return sum(met) / max(1, len(met)), len(met)


def tried_on(config: MemoryConfig, backbone: Backbone, seed: int, split: Split = "train") -> list[StoryRow]:
    """The stories of a seed on which memory and price are measured."""
    cells = [
        (clauses, max(shortest(clauses), length))
        for clauses in CLAUSES[-3:]
        for length in [60 + 160 * i // max(1, config.stories - 1) for i in range(config.stories)]
    ]
    return story_rows(backbone.tokenizer, cells, split, 1000 + seed)


def run_of(config: MemoryConfig, home: Path, name: str, seed: int) -> Path:
    """The run directory of a method that is trained; `fit` goes on with it only if all else is the same, too."""
    width = f"-{config.hidden}" if name == TOKENS else ""
    return home / "runs" / f"{name}-{seed}-{config.steps}{width}"


def depends_on(config: MemoryConfig, backbone: Backbone, method: str) -> bytes:
    """All that a trial depends on, but for its seed."""
    facts = {**config.to_json(), "backbone": backbone.describe(), "strengths": STRENGTHS.get(method)}
    for name in ("seeds", "seed", "backbones", *(() if method in TRAINED else ("steps", "hidden", "rates"))):
        facts.pop(name)
    if method != TOKENS:
        facts.pop("align_steps")
    if method in TRAINED:
        facts["rates"] = dict(config.rates)[method]
    if method in TRAINED and method != TOKENS:
        del facts["hidden"]  # of the synthesiser; it gives the others their sizes
        facts["method"] = make(config, backbone, method, 0).config
    return json.dumps(facts, sort_keys=True, default=str).encode()


def _trial(config: MemoryConfig, backbone: Backbone, name: str, seed: int, home: Path) -> dict[str, Any]:
    """The facts of one method and seed.

    parameters, training_seconds; hard: clauses that memory is measured on; curve: for each strength memory, price, and nats of
    the rest; map: [clauses, tokens, share met, cases] to 800 tokens; held_out: memory and price in sentences that training does
    not know; and of ProSG `looks`, what it measured of itself while it was trained.
    """
    hard = hard_cells(backbone, 6 * config.cases, 500 + seed)
    rows, held_out = (tried_on(config, backbone, seed, split) for split in ("train", "test"))
    plain, plain_held_out = told(backbone, rows), told(backbone, held_out)
    method: Method | None = None
    facts: dict[str, Any] = {"parameters": 0, "training_seconds": 0.0}
    if name in TRAINED:
        run = run_of(config, home, name, seed)
        method, facts["training_seconds"] = train(config, backbone, name, seed, run)
        facts["parameters"] = method.parameters_trained
        looks = [
            {"step": line["step"], **line["validation"]}
            for line in Run(run).metrics()
            if line.get("validation")
        ]
        facts["looks"] = looks

    def point(strength: float) -> dict[str, float]:
        injection = at_strength(backbone, name, method, strength)
        scores, far = told(backbone, rows, injection), told(backbone, held_out, injection)
        share, _ = memory(scores, hard)
        return {
            "strength": strength,
            "memory": share,
            "price": scores.nats() - plain.nats(),
            "nats": scores.nats(),
            "held_out_memory": memory(far, hard)[0],
            "held_out_price": far.nats() - plain_held_out.nats(),
        }

    if name == PLAIN:
        points = [
            {"strength": 0.0, "memory": memory(plain, hard)[0], "price": 0.0, "nats": plain.nats(),
             "held_out_memory": memory(plain_held_out, hard)[0], "held_out_price": 0.0},
        ]  # fmt: skip
        facts["rereading"] = _rereading(backbone, rows, hard, plain)
    else:
        points = [point(strength) for strength in STRENGTHS[name]]
    best = max(points, key=lambda p: p["memory"] if p["price"] <= 0.02 else -p["price"])["strength"]
    cells = story_rows(backbone.tokenizer, map_cells(config.cases), "train", 2000 + seed)
    # made anew: an injection has the strength that its method has when it is read with, and here the last of the sweep
    whole = told(backbone, cells, at_strength(backbone, name, method, best))
    facts |= {
        "hard": memory(plain, hard)[1],
        "hard_cells": sorted(hard),
        "curve": points,
        "map_strength": best,
        "map": whole.forgetting(),
        "map_nats": whole.nats(),
    }
    return facts


def at_strength(backbone: Backbone, name: str, method: Method | None, strength: float) -> Injection:
    """What a method of the study puts into the model at a strength; of what is not trained that is the step size."""
    if name == PLAIN:
        return NOTHING
    if isinstance(method, LoRA):
        return Injection(view=method.merged(strength))
    if isinstance(method, (SyntheticGradient, PromptBias, PointerCache)):
        method.strength = strength
        return method.injection()
    if method is not None:
        return method.injection()
    source = "error" if name.startswith("error") else "gradient"
    ridge = {"ridge": 0.0} if "decorrelated" not in name else {}
    steps = 3 if name.endswith("3 steps") else 1
    return SyntheticGradient(backbone, source=source, step_size=strength, steps=steps, **ridge).injection()  # type: ignore[arg-type]


def _rereading(
    backbone: Backbone, rows: Sequence[StoryRow], hard: frozenset[tuple[int, int]], plain: StoryScores
) -> list[dict[str, float]]:
    """Memory and price with the prompt read again, and tokens read in all for each token of the story."""
    found = []
    for every in EVERY:
        rereading = Rereading(backbone, every)
        scores = told(backbone, rows, rereading=rereading)
        lengths = [
            (len(rereading.row(Encoded(tuple(r.ids), r.start, 0)).row.ids) - r.start, len(r.ids) - r.start)
            for r in rows
        ]
        found.append({
            "every": every,
            "memory": memory(scores, hard)[0],
            "price": scores.nats() - plain.nats(),
            "tokens": sum(a for a, _ in lengths) / sum(b for _, b in lengths),
        })  # fmt: skip
    return found


def map_of_seeds(facts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The map of all seeds: for each cell that two seeds or more have the mean share, its interval, and the cases of all."""
    seen: dict[tuple[int, int], list[tuple[float, int]]] = {}
    for one in facts:
        for clauses, tokens, met, count in one["map"]:
            seen.setdefault((int(clauses), int(tokens)), []).append((met, int(count)))
    found = {
        cell: (mean([met for met, _ in each]), each) for cell, each in sorted(seen.items()) if len(each) > 1
    }
    return [
        {
            "clauses": clauses,
            "tokens": tokens,
            "effect": estimate.effect,
            "interval": estimate.interval,
            "cases": sum(count for _, count in each),
        }
        for (clauses, tokens), (estimate, each) in found.items()
    ]


def beyond(facts: Mapping[str, Any], tokens: int) -> float:
    """The share of clauses met in the cells of a trial's map from the bin on that so many tokens after the prompt are in."""
    nearest = distance_bin(tokens)
    cells = [(met, count) for _, least, met, count in facts["map"] if least >= nearest]
    return sum(met * count for met, count in cells) / max(1, sum(count for _, count in cells))


@dataclass(frozen=True)
class MapsConfig(Seeds):
    """On which stories the maps of P1 are measured."""

    backbones: tuple[str, ...] = ("tiny-rwkv",)
    """Recurrent backbones."""
    attention: str = "tiny-llama"
    """The attention backbone that stands beside each of them."""
    cases: int = 320
    """Clauses of each number on the map, about."""

    def quick(self) -> MapsConfig:
        """Two seeds of few stories."""
        return replace(self, seeds=2, cases=32)


@dataclass(frozen=True, eq=False)
class MapsCell(StoriesCell):
    """The maps of a recurrent backbone (the prior of a trial is the backbone's name) and of the attention backbone."""

    def common(self, config: MapsConfig) -> dict[str, Any]:
        return {}

    def told(self, trial: Kept) -> dict[str, Any]:
        """The numbers of one backbone's stories."""
        return {"backbone": trial.prior, **trial.facts, "seconds": trial.seconds}


def run_maps(
    config: MapsConfig,
    folder: Path,
    device: str = "auto",
    report: Callable[[Progress], None] = lambda progress: None,
) -> Iterator[MapsCell]:
    """Read what is not read yet; arguments as in `study.run_study`."""
    done, left = 0, 2 * len(config.backbones) * config.seeds
    for name in config.backbones:
        trials = []
        for beside in (name, config.attention):
            backbone = load_backbone(beside, device=device)
            home = Path(folder) / "maps" / backbone.name.replace("/", "_")
            for seed in config.numbers:
                depends = json.dumps(
                    [config.cases, backbone.describe()], sort_keys=True, default=str
                ).encode()
                trial, new = keep(
                    home, backbone.name, seed, depends, partial(_map, backbone, config.cases, seed)
                )
                trials.append(trial)
                done, left = done + new, left - 1
                report(Progress(done, left, f"{backbone.name}, seed {seed}", "map"))
        yield MapsCell(name, tuple(trials), str(backbone.device))


def _map(backbone: Backbone, cases: int, seed: int) -> dict[str, Any]:
    """The map of clauses met, and the same of clauses for which two values fit."""
    started = time.perf_counter()
    scores = told(backbone, story_rows(backbone.tokenizer, map_cells(cases), "train", 3000 + seed))
    return {
        "map": scores.forgetting(),
        "of_two": scores.forgetting(fitting=2),
        "met": scores.share(),
        "nats": scores.nats(),
        "read_seconds": time.perf_counter() - started,
    }

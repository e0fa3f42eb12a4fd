"""The hidden states that E6 is tried on: texts of several tasks, read as they are and as controls read them.

    trained         the backbone reads the texts
    random          a backbone of the same architecture with random weights reads them (`untrained.py`)
    shuffled        the backbone reads the same texts, the words of each in random order

Of every way of reading and every seed, the numbers of all layers are kept (`kept.py`), and an interrupted study goes on
where it was. Judges nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.analysis.clusters import measure_layers
from workbench.analysis.trace import trace
from workbench.analysis.trace_places import OUTPUT
from workbench.backbones.backbone import Backbone, load_backbone
from workbench.backbones.untrained import untrained
from workbench.claims.domains import Segment
from workbench.claims.kept import Kept, keep
from workbench.claims.study import Progress, check_study
from workbench.errors import WorkbenchError
from workbench.methods.priors.normal import Normal
from workbench.tasks.task import load_task

TRAINED, RANDOM, SHUFFLED = READINGS = ("trained", "random", "shuffled")
WORDS = "layer 0"
"""What it reads is the tokens' embeddings, so that nothing but the words is known there."""
MEASURES = ("silhouette", "purity", "probe", "hdbscan", "separation")
"""Of `clusters.py`, beside D."""
_PARTS = 4  # of a task's texts: two to lay the line, two to be laid on it
_RIDGE = 1e-3

Floats = NDArray[np.float64]
Pair = tuple[str, str]


@dataclass(frozen=True)
class ClustersConfig:
    """Which texts are read, and by what."""

    backbones: tuple[str, ...] = ("tiny-llama", "tiny-rwkv")
    """Frozen models."""
    language: tuple[str, ...] = ("reading", "cloze", "running")
    """Tasks that are close: questions about a text, a word left out of a text, running text."""
    arithmetic: tuple[str, ...] = ("order-2", "add-2")
    """Tasks that are distant from those."""
    seeds: int = 8
    """How many seeds, counted up from `seed`; a seed has texts, an order of words and random weights of its own."""
    seed: int = 0
    """The first of them."""
    texts: int = 200
    """Of each task and seed, from its test split: half of them lay the line between two tasks, half are laid on it."""
    rows: int = 600
    """Tokens that the measures beside D are taken of."""

    def __post_init__(self) -> None:
        check_study(self, ("backbones", "language", "arithmetic"), ("rows",))
        if len(self.language) < 2 or set(self.language) & set(self.arithmetic):
            raise WorkbenchError(
                "E6 compares two tasks or more that are close, and others that are distant from them; name two in "
                "language, and none of them in arithmetic"
            )
        if self.texts < 4 * _PARTS:
            raise WorkbenchError(f"texts is {self.texts}; four parts of four texts need {4 * _PARTS} or more")

    @property
    def tasks(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.language, *self.arithmetic)

    @property
    def distant(self) -> tuple[Pair, ...]:
        """Pairs of tasks that are said to be apart."""
        return tuple(product(self.language, self.arithmetic))

    @property
    def close(self) -> tuple[Pair, ...]:
        """Pairs of tasks that are said to share a cluster."""
        return tuple(combinations(self.language, 2))

    @property
    def numbers(self) -> range:
        """The seeds."""
        return range(self.seed, self.seed + self.seeds)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    def quick(self) -> ClustersConfig:
        """One backbone, three tasks, two seeds, a few texts."""
        return replace(
            self,
            backbones=self.backbones[:1],
            language=self.language[:2],
            arithmetic=self.arithmetic[:1],
            seeds=2,
            texts=4 * _PARTS,
            rows=60,
        )


@dataclass(frozen=True)
class ClustersCell:
    """All that was read by one backbone, in one place.

    Of a trial, the prior is the way of reading, and facts are the numbers of this place, see `clusters_of`.
    words: by the same, those of `WORDS`.
    """

    backbone: str
    place: str
    trials: tuple[Kept, ...]
    words: tuple[Kept, ...]
    device: str

    @property
    def name(self) -> str:
        return f"{self.backbone}/{self.place}"

    def values(self, reading: str, *path: str, words: bool = False) -> Floats:
        """(seeds,) of a number of one way of reading, here or of the words alone; NaN for what is not known."""
        found = []
        for trial in sorted(self.words if words else self.trials, key=lambda trial: trial.seed):
            if trial.prior == reading:
                value: Any = trial.facts
                for key in path:
                    value = value[key]
                found.append(np.nan if value is None else value)
        return np.array(found, np.float64)

    def common(self, config: ClustersConfig) -> dict[str, Any]:
        """How many tokens of each task were read, mean over seeds."""
        return {"tokens": {task: float(self.values(TRAINED, "tokens", task).mean()) for task in config.tasks}}

    def told(self, trial: Kept) -> dict[str, Any]:
        """The numbers of one way of reading."""
        head = {"backbone": self.backbone, "place": self.place, "reading": trial.prior}
        return {**head, **trial.facts, "seconds": trial.seconds}


def run_clusters(
    config: ClustersConfig,
    folder: Path,
    device: str = "auto",
    report: Callable[[Progress], None] = lambda progress: None,
) -> Iterator[ClustersCell]:
    """Read what is not read yet, and give the cells, one after another; arguments as in `study.run_study`."""
    each = len(config.tasks) * config.texts
    done, left = 0, len(config.backbones) * len(READINGS) * config.seeds * each
    for name in config.backbones:
        backbone = load_backbone(name, device=device)
        home = Path(folder) / "clusters" / backbone.name.replace("/", "_")
        trials = []
        for seed in config.numbers:
            texts = texts_of(config, seed)
            for reading in READINGS:
                read = partial(_read, config, backbone, texts, reading, seed)
                trial, new = keep(home, reading, seed, _depends(config, backbone, texts), read)
                trials.append(trial)
                done, left = done + each * new, left - each
                report(Progress(done, left, f"{backbone.name} {reading}", "text"))
        for place in (*(f"layer {i}" for i in range(1, backbone.num_layers)), OUTPUT):
            here, words = (
                tuple(
                    replace(t, facts=t.facts[where], seconds=t.seconds / backbone.num_layers) for t in trials
                )
                for where in (place, WORDS)
            )
            yield ClustersCell(backbone.name, place, here, words, str(backbone.device))


def texts_of(config: ClustersConfig, seed: int) -> dict[str, list[str]]:
    """New texts for each seed, question and answer as one, by task."""
    return {
        task: [e.text for e in load_task(task, split="test", n=config.texts, seed=1 + seed)]
        for task in config.tasks
    }


def shuffled_words(text: str, dice: np.random.Generator) -> str:
    """The words of a text in random order."""
    return " ".join(dice.permutation(text.split()))


@dataclass(frozen=True, eq=False)
class Tokens:
    """Which token each of n rows of hidden states is of: its task, the number of its text within the task, its id."""

    task: NDArray[np.object_]
    text: NDArray[np.int64]
    token: NDArray[np.int64]

    def where(self, rows: NDArray[np.bool_]) -> Tokens:
        """Some of them."""
        return Tokens(self.task[rows], self.text[rows], self.token[rows])


def clusters_of(states: NDArray[Any], of: Tokens, config: ClustersConfig, seed: int = 0) -> dict[str, Any]:
    """What is apart in one place, of states (n, d).

    Returns:
        tokens: of each task; pairs: for each two tasks, "one/other", D along the line of the means (`d`), along Fisher's
        axis (`fisher`), of the same words in both (`same_words`), and the share of tokens on their own side of the
        middle (`told_apart`); control: D of a task's texts and other texts of it; measures: of `clusters.py`, between
        language and arithmetic (`distant`) and among the language tasks (`close`).
    """
    points = torch.from_numpy(np.asarray(states))
    part, dice = of.text % _PARTS, np.random.default_rng(seed)
    fit, fresh = (
        {name: np.flatnonzero((of.task == name) & (part // 2 == half)) for name in config.tasks}
        for half in (0, 1)
    )
    normals = {name: Normal(points[fit[name]], _RIDGE) for name in config.tasks}
    pairs, control = {}, {}
    for one, other in combinations(config.tasks, 2):
        laid = points[fresh[one]], points[fresh[other]]
        line, best = (Segment.between(normals[one], normals[other], plain=plain) for plain in (True, False))
        alike = [_alike(half[one], half[other], of.token, dice) for half in (fit, fresh)]
        pairs[f"{one}/{other}"] = {
            "d": line.deviations(*laid),
            "fisher": best.deviations(*laid),
            "told_apart": line.told_apart(*laid),
            "same_words": _deviations(*(points[rows] for both in alike for rows in both)),
        }
    for name in config.tasks:
        control[name] = _deviations(*(points[(of.task == name) & (part == i)] for i in range(_PARTS)))
    language = np.isin(of.task, config.language)
    return {
        "tokens": {name: int((of.task == name).sum()) for name in config.tasks},
        "pairs": pairs,
        "control": control,
        "measures": {
            "distant": _measures(states, np.where(language, "language", "arithmetic"), of, config, seed),
            "close": _measures(states[language], of.task[language], of.where(language), config, seed),
        },
    }


def _deviations(fit_one: Tensor, fit_other: Tensor, one: Tensor, other: Tensor) -> float:
    """D of fresh points along the line through the means of others; NaN where there are too few of either."""
    if min(map(len, (fit_one, fit_other, one, other))) < 2:
        return float("nan")
    start, step = fit_one.double().mean(0), fit_other.double().mean(0) - fit_one.double().mean(0)
    return Segment(start, step / (step @ step), step).deviations(one, other)


def _alike(
    one: NDArray[np.intp], other: NDArray[np.intp], token: NDArray[np.int64], dice: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Of the rows of two tasks as many as can be, drawn at random, with the same tokens in both, each as often."""
    kept: tuple[list[NDArray[np.intp]], list[NDArray[np.intp]]] = ([], [])
    for word in np.intersect1d(token[one], token[other]):
        rows = [of[token[of] == word] for of in (one, other)]
        count = min(map(len, rows))
        for found, of in zip(kept, rows, strict=True):
            found.append(dice.permutation(of)[:count])
    first, second = (np.concatenate([np.empty(0, np.intp), *found]) for found in kept)
    return first, second


def _measures(
    states: NDArray[Any], group: NDArray[Any], of: Tokens, config: ClustersConfig, seed: int
) -> dict[str, dict[str, float]]:
    """Value and chance of each of MEASURES, of groups (n,) that tasks belong to."""
    texts = [f"{task} {text}" for task, text in zip(of.task, of.text, strict=True)]
    table = measure_layers({"": states}, group, texts, MEASURES, rows=config.rows, draws=0, seed=seed)
    return {str(row.measure): {"value": row.value, "chance": row.chance} for row in table.itertuples()}


def _read(
    config: ClustersConfig, backbone: Backbone, texts: Mapping[str, Sequence[str]], reading: str, seed: int
) -> dict[str, Any]:
    """The numbers of every place, read in one way."""
    if reading == SHUFFLED:
        dice = np.random.default_rng(seed)
        texts = {task: [shuffled_words(text, dice) for text in given] for task, given in texts.items()}
    seen = trace(untrained(backbone, seed) if reading == RANDOM else backbone, texts)
    of = Tokens(
        seen.rows["task"].to_numpy(),
        seen.rows["text"].to_numpy() % config.texts,
        seen.rows["token_id"].to_numpy(),
    )
    return {place: clusters_of(seen[place], of, config, seed) for place in seen.places}


def _depends(config: ClustersConfig, backbone: Backbone, texts: Mapping[str, Sequence[str]]) -> bytes:
    words = json.dumps([texts, config.language, config.arithmetic, config.rows])
    weights = backbone.vocabulary().float().cpu().numpy().tobytes()
    return hashlib.sha256(words.encode() + weights).digest()

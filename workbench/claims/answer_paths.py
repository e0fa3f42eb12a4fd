"""The paths that E5 is tried on: answers as they are written, and walks at random behind the same questions.

    sampled         answers at temperature 1, and the states of their tokens as they are written
    walks, others   as many tokens as the answer has, drawn from the vocabulary; and once more, other ones
    local           tokens that all come from the few nearest to one: a path that is known to be local
    greedy          the likeliest answers
    shuffled        the sampled answers' words in random order
    random          sampled answers and walks, as a backbone with random weights reads them (`untrained.py`)

Of every seed the numbers of all places are kept (`kept.py`), and an interrupted study goes on where it was. Judges
nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from workbench.analysis.surroundings import EMBEDDINGS
from workbench.analysis.trace import trace
from workbench.analysis.trace_places import OUTPUT
from workbench.analysis.trajectories import localisation, measure_paths
from workbench.analysis.walks import answers, paths, read_behind, vocabulary
from workbench.backbones.backbone import Backbone, load_backbone
from workbench.backbones.untrained import untrained
from workbench.claims.kept import Kept, keep
from workbench.claims.study import Progress, check_study
from workbench.methods.generate import GenerateConfig
from workbench.tasks.task import load_task

SAMPLED = "sampled"
_NEAR = 10  # tokens that a local path is drawn from
_WAYS = 8  # that the questions of one seed are gone on from

Floats = NDArray[np.float64]
Paths = list[NDArray[Any]]


@dataclass(frozen=True)
class PathsConfig:
    """Which answers are written."""

    backbones: tuple[str, ...] = ("tiny-llama", "tiny-rwkv")
    """Frozen models."""
    tasks: tuple[str, ...] = ("stories", "running", "order-3")
    """Tasks whose answers have more than a few tokens: a story, running text, numbers in order."""
    seeds: int = 8
    """How many seeds, counted up from `seed`; a seed has questions, answers and walks of its own."""
    seed: int = 0
    """The first of them."""
    questions: int = 50
    """Of each task and seed, from its test split."""
    tokens: int = 48
    """The most that an answer has."""

    def __post_init__(self) -> None:
        check_study(self, ("backbones", "tasks"), ("questions", "tokens"))

    @property
    def numbers(self) -> range:
        """The seeds."""
        return range(self.seed, self.seed + self.seeds)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    def quick(self) -> PathsConfig:
        """One backbone and task, two seeds, a few short answers."""
        return replace(
            self, backbones=self.backbones[:1], tasks=self.tasks[-1:], seeds=2, questions=8, tokens=8
        )


@dataclass(frozen=True)
class PathsCell:
    """The answers of one backbone to one task, in one place.

    Of a trial, the prior is "sampled", and facts are the numbers of this place, see `paths_of`.
    """

    backbone: str
    task: str
    place: str
    trials: tuple[Kept, ...]
    device: str

    @property
    def name(self) -> str:
        return f"{self.backbone}/{self.task}/{self.place}"

    def values(self, *path: str) -> Floats:
        """(seeds,) of a number; NaN for what is not known."""
        found = []
        for trial in sorted(self.trials, key=lambda trial: trial.seed):
            value: Any = trial.facts
            for key in path:
                value = value[key]
            found.append(np.nan if value is None else value)
        return np.array(found, np.float64)

    def common(self, config: PathsConfig) -> dict[str, Any]:
        """`tokens`: median of an answer's tokens, mean over seeds; `paths`: answers of two tokens or more, of all."""
        return {
            "tokens": float(self.values("tokens").mean()),
            "paths": float(self.values("paths").mean() / config.questions),
        }

    def told(self, trial: Kept) -> dict[str, Any]:
        """The numbers of one seed."""
        head = {"backbone": self.backbone, "task": self.task, "place": self.place}
        return {**head, **trial.facts, "seconds": trial.seconds}


def run_paths(
    config: PathsConfig,
    folder: Path,
    device: str = "auto",
    report: Callable[[Progress], None] = lambda progress: None,
) -> Iterator[PathsCell]:
    """Write what is not written yet, and give the cells, one after another; arguments as in `study.run_study`."""
    each = config.questions * _WAYS
    done, left = 0, len(config.backbones) * len(config.tasks) * config.seeds * each
    for name in config.backbones:
        backbone = load_backbone(name, device=device)
        places = (EMBEDDINGS, *(f"layer {i}" for i in range(1, backbone.num_layers)), OUTPUT)
        for task in config.tasks:
            home = Path(folder) / "paths" / backbone.name.replace("/", "_") / task
            trials = []
            for seed in config.numbers:
                given = load_task(task, split="test", n=config.questions, seed=1 + seed)
                prompts = [example.prompt for example in given]
                depends = json.dumps([prompts, config.tokens]).encode()
                depends += backbone.vocabulary().float().cpu().numpy().tobytes()
                write = partial(_write, config, backbone, prompts, places, seed)
                trial, new = keep(home, SAMPLED, seed, depends, write)
                trials.append(trial)
                done, left = done + each * new, left - each
                report(Progress(done, left, f"{backbone.name} {task}", "text"))
            for place in places:
                here = (replace(t, facts=t.facts[place], seconds=t.seconds / len(places)) for t in trials)
                yield PathsCell(backbone.name, task, place, tuple(here), str(backbone.device))


def paths_of(ways: Mapping[str, Paths], seed: int = 0) -> dict[str, Any]:
    """What is local in one place.

    Args:
        ways: paths (T, d) of each of the ways in the module's head, and "random walks" for what the backbone with random
            weights makes of the walks.

    Returns:
        tokens: median of the answers' lengths; paths: answers of two tokens or more; spread, step: localisation of the
        answers against the walks, with its interval over texts; others, shuffled_steps: the same of their spread
        against other answers, and of their steps against those in another order; walks, local, greedy, shuffled,
        random: of the spread of each of these against walks; size: spread and step of the answers and the walks.
    """
    of = partial(localisation, draws=200, seed=seed)
    walks, written = ways["walks"], ways[SAMPLED]
    table = measure_paths({"": written}, {"": walks}, draws=0).set_index(["reference", "measure"]).value
    return {
        "tokens": float(np.median([len(path) for path in written])),
        "paths": sum(len(path) > 1 for path in written),
        "spread": of(written, walks)._asdict(),
        "step": of(written, walks, of="step")._asdict(),
        "others": of(written, "others").value,
        "shuffled_steps": of(written, "shuffled", of="step").value,
        "walks": of(ways["others"], walks).value,
        **{way: of(ways[way], walks).value for way in ("local", "greedy", "shuffled")},
        "random": of(ways["random"], ways["random walks"]).value,
        "size": {
            f"{who} {measure}": float(table[reference, measure])
            for who, reference in (("answers", ""), ("walks", "vocabulary"))
            for measure in ("spread", "step")
        },
    }


def _write(
    config: PathsConfig, backbone: Backbone, prompts: Sequence[str], places: Sequence[str], seed: int
) -> dict[str, Any]:
    """The numbers of every place, of one seed."""
    dice = np.random.default_rng(seed)
    warm = GenerateConfig(max_new_tokens=config.tokens, temperature=1.0, seed=seed)
    sampled, greedy = (
        trace(backbone, prompts, places, "answer", generate=how)
        for how in (warm, replace(warm, temperature=0.0))
    )
    written, words = answers(sampled), vocabulary(backbone)
    walks, others = ([dice.choice(words, len(answer)) for answer in written] for _ in range(2))
    local = [dice.choice(near(backbone, words, dice.choice(words)), len(answer)) for answer in written]
    mixed = [dice.permutation(answer) for answer in written]
    blank = untrained(backbone, seed)

    def read(by: Backbone, tokens: Sequence[NDArray[np.int64]]) -> dict[str, Paths]:
        return paths(read_behind(by, prompts, tokens, places, warm.text))

    ways = {
        SAMPLED: paths(sampled),
        "greedy": paths(greedy),
        "walks": read(backbone, walks),
        "others": read(backbone, others),
        "local": read(backbone, local),
        "shuffled": read(backbone, mixed),
        "random": read(blank, written),
        "random walks": read(blank, walks),
    }
    return {place: paths_of({way: there[place] for way, there in ways.items()}, seed) for place in places}


def near(backbone: Backbone, words: NDArray[np.int64], token: int) -> NDArray[np.int64]:
    """Those of the words whose embeddings are nearest to a token's, itself among them."""
    table = backbone.vocabulary().float().cpu()
    distance = torch.cdist(table[[int(token)]], table[torch.from_numpy(words)])[0]
    return words[distance.topk(min(_NEAR, len(words)), largest=False).indices.numpy()]

"""What ProSG's memory rests on, and where it does harm: trained methods of the study of P2, cut down or misled.

    ablate     ranks, matrices and layers of the change, of methods as they were trained
    run_retrained    trained anew with one thing otherwise, on some of the seeds
    run_longer    baselines that are trained for as many updates as "tokens"
    run_bundled    the synthesiser that comes with a backbone
    run_costs    seconds a token of a text that is written: plain, with "tokens", and with the prompt read again
    mislead    a clause that contradicts another, a text that has nothing to do with the prompt, a second prompt, too large a step

Stories are those that P2 is measured on (`memory.tried_on`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from workbench.backbones.backbone import Backbone, load_backbone
from workbench.backbones.linear_outputs import LowRank
from workbench.backbones.score import StoryRow, story_rows
from workbench.claims.kept import keep
from workbench.claims.memory import (
    EVERY,
    STATE,
    STRENGTHS,
    TOKENS,
    MemoryConfig,
    at_strength,
    depends_on,
    hard_cells,
    memory,
    run_of,
    told,
    train,
    tried_on,
)
from workbench.data import SYNTHESISERS
from workbench.methods.generate import GenerateConfig, generate
from workbench.methods.injection import NOTHING, Injection
from workbench.methods.method import Method, load_method
from workbench.methods.rows import Rows
from workbench.methods.synthetic_gradient import SyntheticGradient, bundled_synthesiser
from workbench.tasks import world
from workbench.tasks.encode import continuation_ids
from workbench.tasks.world.lexicon import VALUE_SETS
from workbench.tasks.world.phrases import KINDS, PROHIBITIONS
from workbench.tasks.world.sample import Split
from workbench.tasks.world.stories import CLOSING
from workbench.training.run import Run

SPLITS: tuple[Split, ...] = ("train", "test")
RANKS = (1, 2, 4, 8, 16)
LARGE = (2.0, 3.0, 5.0)
WRITTEN, ROUNDS = 4, 5
"""Stories that are written to see what a token costs, and how often."""
RETRAINED: Mapping[str, Mapping[str, Any]] = {
    "keys not aligned": {"align_steps": 0},
    "matched first": {"match_steps": 75},
    "keys as they are": {"align_steps": 0, "ridge": 0.0, "step_size": 0.3},
}
"""What is trained otherwise: fields of the configuration."""
TAUGHT: Mapping[str, Mapping[str, Any]] = {
    "state, taught": {"match_steps": 150},
    "state, taught, rank 16": {"match_steps": 150, "rank": 16},
}
"""The source "state" with the trained "tokens" as teacher in half of its updates."""
LONGER = ("lora",)
"""Baselines that are trained once more for as many updates as "tokens", which has a stage of its own before theirs."""
LONG_SEEDS = 3
"""The first seeds, of which that is done."""
SEEDS = 1
"""How many seeds things are trained otherwise for: one says what is large, not how sure it is."""


def run_limits(config: MemoryConfig, name: str, folder: Path, device: str = "auto") -> list[dict[str, Any]]:
    """`ablate` and `mislead` of the methods that `run_memory` has trained with "tokens", seed by seed."""
    backbone = load_backbone(name, device=device)
    home = Path(folder) / "memory" / backbone.name.replace("/", "_")
    found = []
    for seed in config.numbers:

        def make(seed: int = seed) -> dict[str, Any]:
            method = load_method(run_of(config, home, TOKENS, seed), backbone)
            assert isinstance(method, SyntheticGradient)
            return {
                "ablations": ablate(config, backbone, method, seed),
                "harm": mislead(config, backbone, method, seed),
            }

        depends = depends_on(config, backbone, TOKENS) + repr((RANKS, LARGE)).encode()
        found.append(keep(home, "limits", seed, depends, make)[0].facts)
    return found


def run_retrained(
    config: MemoryConfig, name: str, folder: Path, device: str = "auto"
) -> dict[str, list[dict[str, Any]]]:
    """`RETRAINED`, of the first seeds: for each the curve of memory and price over strengths, and the cosines at the end."""
    backbone = load_backbone(name, device=device)
    home = Path(folder) / "memory" / backbone.name.replace("/", "_")
    found: dict[str, list[dict[str, Any]]] = {}
    for change, fields in {**RETRAINED, **TAUGHT}.items():
        for seed in config.numbers[:SEEDS]:

            def make(
                seed: int = seed, change: str = change, fields: Mapping[str, Any] = fields
            ) -> dict[str, Any]:
                of, teacher = (STATE, TOKENS) if change in TAUGHT else (TOKENS, None)
                run = home / "runs" / f"{of}, {change}-{seed}-{config.steps}-{config.hidden}"
                taught_by = load_method(run_of(config, home, teacher, seed), backbone) if teacher else None
                assert taught_by is None or isinstance(taught_by, SyntheticGradient)
                method, seconds = train(config, backbone, of, seed, run, taught_by, **fields)
                curve = _curve(config, backbone, method, seed)
                looks = [line["validation"] for line in Run(run).metrics() if line.get("validation")]
                cosines = {key: value for key, value in looks[-1].items() if key.startswith("cosine")}
                return {"curve": curve, "cosines": cosines, "training_seconds": seconds}

            depends = depends_on(config, backbone, TOKENS) + repr(sorted(fields.items())).encode()
            found.setdefault(change, []).append(keep(home, change, seed, depends, make)[0].facts)
    return found


def run_longer(
    config: MemoryConfig, name: str, folder: Path, device: str = "auto"
) -> dict[str, list[dict[str, Any]]]:
    """`LONGER`, of the first seeds: the curve of memory and price, and the seconds of training.

    Each update has stories of its own, where "tokens" has a story several times: what favours the baseline is left to it.
    """
    backbone = load_backbone(name, device=device)
    home = Path(folder) / "memory" / backbone.name.replace("/", "_")
    longer = replace(config, steps=config.align_steps + config.steps)
    found: dict[str, list[dict[str, Any]]] = {}
    for of in LONGER:
        for seed in config.numbers[:LONG_SEEDS]:

            def make(seed: int = seed, of: str = of) -> dict[str, Any]:
                method, seconds = train(longer, backbone, of, seed, run_of(longer, home, of, seed))
                return {"curve": _curve(config, backbone, method, seed, of=of), "training_seconds": seconds}

            found.setdefault(of, []).append(
                keep(home, f"{of}, longer", seed, depends_on(longer, backbone, of), make)[0].facts
            )
    return found


def run_bundled(config: MemoryConfig, name: str, folder: Path, device: str = "auto") -> list[dict[str, Any]]:
    """The curve of the synthesiser that comes with a backbone, trained for longer (`make synthesiser`), seed by seed."""
    backbone = load_backbone(name, device=device)
    home, weights = Path(folder) / "memory" / backbone.name.replace("/", "_"), SYNTHESISERS / backbone.name
    if not weights.is_dir():
        return []
    depends = depends_on(config, backbone, TOKENS) + (weights / "method.safetensors").read_bytes()
    found = []
    for seed in config.numbers:

        def make(seed: int = seed) -> dict[str, Any]:
            method = bundled_synthesiser(backbone)
            curves = {split: _curve(config, backbone, method, seed, split) for split in SPLITS}
            return {split: {str(p.pop("strength")): p for p in curve} for split, curve in curves.items()}

        found.append(keep(home, "bundled", seed, depends, make)[0].facts)
    return found


def run_costs(
    config: MemoryConfig, name: str, folder: Path, device: str = "auto"
) -> list[dict[str, dict[str, float]]]:
    """Seconds a token of stories that are written one by one, all of `generate` counted, over those of the plain backbone.

    `every`: with the prompt read again behind so many tokens; "tokens": with the trained synthesiser. Rounds take turns, and
    the median of their ratios counts.
    """
    backbone = load_backbone(name, device=device)
    home = Path(folder) / "memory" / backbone.name.replace("/", "_")
    found = []
    for seed in config.numbers:

        def make(seed: int = seed) -> dict[str, dict[str, float]]:
            method = load_method(run_of(config, home, TOKENS, seed), backbone)
            rows = tried_on(config, backbone, seed)[-WRITTEN:]
            prompts = [str(backbone.tokenizer.decode(row.ids[1 : row.start])) for row in rows]

            def seconds(method: Method | None = None, every: int = 0) -> float:
                settings = GenerateConfig(max_new_tokens=200, reread_every=every, batch_size=1)
                started = time.perf_counter()
                texts = generate(backbone, prompts, method, settings)
                tokens = sum(len(continuation_ids(backbone.tokenizer, f" {text}")) for text in texts)
                return (time.perf_counter() - started) / tokens

            rounds = []
            for _ in range(ROUNDS):
                bare = seconds()
                again = {str(every): seconds(every=every) / bare for every in EVERY}
                rounds.append({TOKENS: seconds(method) / bare, **again})
            return {"over_plain": {key: median(one[key] for one in rounds) for key in rounds[0]}}

        depends = depends_on(config, backbone, TOKENS) + repr((WRITTEN, ROUNDS, EVERY)).encode()
        found.append(keep(home, "costs", seed, depends, make)[0].facts)
    return found


def _curve(
    config: MemoryConfig,
    backbone: Backbone,
    method: Method,
    seed: int,
    split: Split = "train",
    of: str = TOKENS,
) -> list[dict[str, float]]:
    """Memory and price of a trained method by strength."""
    rows, hard = (
        tried_on(config, backbone, seed, split),
        hard_cells(backbone, 6 * config.cases, 500 + seed),
    )
    plain, curve = told(backbone, rows).nats(), []
    for strength in STRENGTHS[of]:
        scores = told(backbone, rows, at_strength(backbone, of, method, strength))
        share, price = memory(scores, hard)[0], scores.nats() - plain
        curve.append({"strength": strength, "memory": share, "price": price})
    return curve


def ablate(config: MemoryConfig, backbone: Backbone, method: SyntheticGradient, seed: int) -> dict[str, Any]:
    """Memory and price of a trained method whose change is cut to a rank, or is that of some matrices or layers alone."""
    rows, hard = tried_on(config, backbone, seed), hard_cells(backbone, 6 * config.cases, 500 + seed)
    plain = told(backbone, rows).nats()

    def measured(injection: Injection) -> dict[str, float]:
        scores = told(backbone, rows, injection)
        return {"memory": memory(scores, hard)[0], "price": scores.nats() - plain}

    found = {"whole": measured(method.injection())}
    for rank in RANKS:
        found[f"rank {rank}"] = measured(with_rank(backbone, method, rank).injection())
    for name in dict.fromkeys(w.within for w in method.writers):
        found[f"{name} alone"] = measured(only(method, {w.name for w in method.writers if w.within == name}))
    for layer in dict.fromkeys(w.layer for w in method.writers):
        found[f"without layer {layer}"] = measured(
            only(method, {w.name for w in method.writers if w.layer != layer})
        )
    return found


def with_rank(backbone: Backbone, method: SyntheticGradient, rank: int) -> SyntheticGradient:
    """The same trained method, its changes cut to a rank."""
    made = SyntheticGradient(backbone, replace(method.config, rank=rank))
    made.load_state_dict(method.state_dict())
    return made


def only(method: SyntheticGradient, names: set[str]) -> Injection:
    """The method's change of the named matrices; the others stay as they are."""

    def changes(rows: Rows) -> Mapping[str, LowRank]:
        return {name: change for name, change in method.changes(rows).items() if name in names}

    return Injection(view=method.view, weight_changes=changes)


def mislead(config: MemoryConfig, backbone: Backbone, method: SyntheticGradient, seed: int) -> dict[str, Any]:
    """What the method does where its prompt is not to be followed to the letter, beside the plain backbone.

    contradiction: of clauses that another one at the prompt's end contradicts, the share told as the first and as the last
        demands.
    unrelated: nats a token of running text behind a story's prompt.
    second_prompt: share of the clauses met of a second story, whose prompt follows the first story.
    large_step: by strength memory and nats of the rest.
    """
    rows = tried_on(config, backbone, seed)
    sides = {"plain": NOTHING, "prosg": method.injection()}
    twice = [contradicted(backbone, row, Random(1000 * seed + i)) for i, row in enumerate(rows)]
    pairs = [pair for pair in twice if pair is not None]
    unrelated = [
        behind(backbone, row, text) for row, text in zip(rows, _running(len(rows), seed), strict=True)
    ]
    second = [followed(a, b) for a, b in zip(rows, _short(config, backbone, seed), strict=False)]

    def by_side(score: Callable[[Injection], Any]) -> dict[str, Any]:
        return {side: score(injection) for side, injection in sides.items()}

    def share(rows: Sequence[StoryRow]) -> Callable[[Injection], float]:
        return lambda injection: told(backbone, rows, injection).share()

    found: dict[str, Any] = {
        "contradiction": {
            "first": by_side(share([first for first, _ in pairs])),
            "last": by_side(share([last for _, last in pairs])),
            "cases": len(pairs),
        },
        "unrelated": by_side(lambda injection: told(backbone, unrelated, injection).nats()),
        "second_prompt": by_side(share(second)),
        "large_step": {},
    }
    hard = hard_cells(backbone, 6 * config.cases, 500 + seed)
    for strength in LARGE:
        method.strength = strength
        scores = told(backbone, rows, method.injection())
        found["large_step"][str(strength)] = {"memory": memory(scores, hard)[0], "nats": scores.nats()}
    method.strength = 1.0
    return found


def contradicted(backbone: Backbone, row: StoryRow, dice: Random) -> tuple[StoryRow, StoryRow] | None:
    """The story's prompt with a further clause "kind : other ." at its end, for one of its kinds.

    Twice: once with the word that the first demands at the due place, once with the one that the last demands; only that place
    counts. None where no clause of the story can be contradicted so.
    """
    demanded = [(d, b, e) for d, b, e in row.due if d.kind not in PROHIBITIONS]
    text = str(backbone.tokenizer.decode(row.ids[: row.start], skip_special_tokens=True)).split()
    able = [
        (d, b, e)
        for d, b, e in demanded
        if f"{d.kind} : {d.answer} ." in " ".join(text) or f"{d.kind} : {d.answer} not" in " ".join(text)
    ]
    if not able:
        return None
    due, begin, end = dice.choice(able)
    other = dice.choice([v for v in VALUE_SETS[KINDS[due.kind]] if v not in text])
    closing = continuation_ids(backbone.tokenizer, f" {CLOSING}")
    if row.ids[row.start - len(closing) : row.start] != closing:
        return None
    more = continuation_ids(backbone.tokenizer, f" {due.kind} : {other} .")
    prompt = [*row.ids[: row.start - len(closing)], *more, *closing]
    story, at = row.ids[row.start :], begin - row.start
    made = []
    for word in (story[at : end - row.start], continuation_ids(backbone.tokenizer, f" {other}")):
        whole = [*prompt, *story[:at], *word]  # what follows a due word is of no matter to it
        place = len(prompt) + at
        made.append(StoryRow(whole, len(prompt), [(due, place, place + len(word))], row.clauses + 1))
    return made[0], made[1]


def behind(backbone: Backbone, row: StoryRow, text: str) -> StoryRow:
    """The story's prompt, and behind it another text in which nothing falls due."""
    ids = continuation_ids(backbone.tokenizer, f" {text}")
    return StoryRow([*row.ids[: row.start], *ids], row.start, [], row.clauses)


def followed(one: StoryRow, other: StoryRow) -> StoryRow:
    """A story, and behind it a second prompt with its story; only what the second demands falls due."""
    shift = len(one.ids) - 1
    due = [(d, begin + shift, end + shift) for d, begin, end in other.due]
    return StoryRow([*one.ids, *other.ids[1:]], one.start, due, other.clauses)


def _running(count: int, seed: int) -> list[str]:
    return [sample.text for sample in world.samples("running", "train", count, 5000 + seed)]


def _short(config: MemoryConfig, backbone: Backbone, seed: int) -> list[StoryRow]:
    """Stories of four clauses to follow others."""
    return story_rows(backbone.tokenizer, [(4, 60)] * (3 * config.stories), "train", 6000 + seed)

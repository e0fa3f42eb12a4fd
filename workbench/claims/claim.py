"""Claim: what is tried and measured, cell by cell, and `reproduce`, which runs it and writes its evidence.

An evidence file, data/evidence/E1.json:

    claim       its name
    rule        the rule that judged, all of it, with its `file` and the hash of its last `commit`
    command     the command line that makes this file again
    config      the study: for prompts backbones, tasks, priors, seeds, training
    versions    of what computed it, the code's commit and the device
    seeds       for each seed, the numbers of every trial that was made with it: of a prompt, say
    effect      of the cell that supports the claim least, as the rule defines it
    interval    [low, high], 95%, of the weakest true effect (`statistics.weakest`)
    verdict     "holds", "does not hold" or "undecided", and `reason`
    seconds     that all its trials took to train and score, and the measuring; also those that another claim trained
    cells       for each cell its effect, interval, verdict, reason, and what else was measured
    overall     numbers over all cells, where a claim has such

Knows no claim by name; they put themselves into `CLAIMS`.
"""

from __future__ import annotations

import importlib.util
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Protocol

import workbench
from workbench.claims.kept import plain
from workbench.claims.rule import RULES, load_rule
from workbench.claims.statistics import Estimate, weakest
from workbench.claims.study import Progress, StudyConfig, run_study
from workbench.data import EVIDENCE
from workbench.errors import WorkbenchError, unknown
from workbench.training.run import plain_errors, write_json

RUNS = Path("runs/evidence")
CLAIMS: dict[str, type[Claim]] = {}
"""Every claim by its name; a subclass of `Claim` puts itself here."""


class Study(Protocol):
    """The settings of what a claim tries: a frozen dataclass, which is also the options of the command line."""

    @property
    def numbers(self) -> range:
        """The seeds."""
        ...

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON."""
        ...

    def quick(self) -> Study:
        """The smallest of its kind."""
        ...


class Tried(Protocol):
    """A cell, as the evidence needs it; `study.Cell` is one."""

    @property
    def name(self) -> str:
        """Where in `cells` of the evidence it stands."""
        ...

    @property
    def device(self) -> str:
        """Where its backbone ran."""
        ...

    @property
    def trials(self) -> Sequence[Any]:
        """Each with a `seed`, a `prior` (its name among those of one seed) and its `seconds`."""
        ...

    def common(self, config: Any) -> dict[str, Any]:
        """Numbers of the cell, whatever the claim."""
        ...

    def told(self, trial: Any) -> dict[str, Any]:
        """The numbers of one trial."""
        ...


@dataclass(frozen=True)
class Measured:
    """What a claim found in one cell.

    estimate: the effect as the rule defines it; None where there is none to measure.
    numbers: as JSON; the rule's conditions name some of them.
    trials: further numbers of each trial, by prior and seed.
    """

    estimate: Estimate | None
    numbers: dict[str, Any]
    trials: Mapping[tuple[str, int], dict[str, Any]] = field(default_factory=dict)


class Claim:
    """Base of every claim: `name`, its study in `settings`, and `measure` for a cell.

    Its study trains prompts (`study.run_study`) unless it says otherwise in `cells`; then `settings` gives another
    `Study`, and the cells are whatever `measure` understands.
    """

    name: ClassVar[str]

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        CLAIMS[cls.name] = cls

    @classmethod
    def settings(cls) -> Any:
        """The `Study` that the claim is judged by."""
        return StudyConfig()

    def check(self, config: Any) -> None:
        """Refuse a study that the claim cannot be measured in."""

    def cells(
        self, config: Any, runs: Path, device: str, report: Callable[[Progress], None]
    ) -> Iterable[Tried]:
        """What is tried, one cell after another; see `run_study`."""
        return run_study(config, runs, device, report)

    def measure(self, cell: Any, config: Any) -> Measured:
        """The effect in one cell, and everything that is worth knowing beside it."""
        raise NotImplementedError

    def overall(self, cells: Sequence[Any], config: Any) -> dict[str, Any]:
        """Numbers over all cells, beside the verdict."""
        return {}


def reproduce(
    name: str,
    config: Study | None = None,
    out: Path = EVIDENCE,
    runs: Path = RUNS,
    rules: Path = RULES,
    command: str = "",
    device: str = "auto",
    report: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Any]:
    """Try a claim, and write `<out>/<name>.json`.

    >>> evidence = reproduce("E1")
    >>> evidence["verdict"], evidence["effect"], evidence["interval"]

    Args:
        name: of the claim.
        config: another study than the claim's own; its result is no evidence, and goes to another folder.
        out: folder of the file.
        runs: folder that trained prompts are kept in, and found again.
        rules: folder of the rules.
        command: what to put into the file as the command that made it.
        device, report: see `study.run_study`.

    Raises:
        WorkbenchError: no such claim; a rule that is missing or not committed; SciPy missing; another study than the
            claim's own for the folder of evidence.
    """
    if name not in CLAIMS:
        raise unknown("claim", name, CLAIMS)
    claim, rule = CLAIMS[name](), load_rule(name, rules)
    own = config in (None, claim.settings())
    config = config or claim.settings()
    claim.check(config)
    if not own and Path(out).resolve() == EVIDENCE.resolve():
        raise WorkbenchError(
            f"these are not the settings that {name} is judged by, and {EVIDENCE} is for evidence only; "
            "name another folder, such as --out runs/trial"
        )
    if importlib.util.find_spec("scipy") is None:
        raise WorkbenchError("claims need SciPy, which is not installed; pip install -e '.[lab]'")
    try:
        commit: str | None = rule.commit()  # now, before hours of work
    except WorkbenchError:
        if own:
            raise
        commit = None

    measured: dict[str, Measured] = {}
    cells: list[Tried] = []
    clock = 0.0
    for cell in claim.cells(config, runs, device, report):
        started = time.perf_counter()
        found = claim.measure(cell, config)
        measured[cell.name] = Measured(found.estimate, {**cell.common(config), **found.numbers}, found.trials)
        cells.append(cell)
        clock += time.perf_counter() - started

    judged: dict[str, dict[str, Any]] = {}
    able: list[Estimate] = []
    for place, found in measured.items():
        interval = list(found.estimate.interval) if found.estimate else None
        verdict, reason = rule.verdict(interval, found.numbers)
        can_test = rule.obstacle(interval, found.numbers) is None
        if can_test and found.estimate:
            able.append(found.estimate)
        effect = found.estimate.effect if found.estimate else None
        head = {
            "effect": effect,
            "interval": interval,
            "verdict": verdict,
            "reason": reason,
            "can_test": can_test,
        }
        judged[place] = {**head, **found.numbers}
    whole = weakest(able, rule.facts["side"]) if able else None
    interval = list(whole.interval) if whole else None
    verdict, reason = rule.together(interval, list(judged.values()))
    evidence = {
        "claim": name,
        "rule": {"file": f"data/evidence/rules/{rule.path.name}", "commit": commit, **rule.facts},
        "command": command or f"workbench reproduce {name}",
        "config": config.to_json(),
        "versions": _versions(cells),
        "seeds": [_seed(seed, cells, measured) for seed in config.numbers],
        "effect": whole.effect if whole else None,
        "interval": interval,
        "verdict": verdict,
        "reason": reason,
        "seconds": clock + sum(trial.seconds for cell in cells for trial in cell.trials),
        "cells": judged,
    }
    if overall := claim.overall(cells, config):
        evidence["overall"] = overall
    evidence = plain(evidence)
    with plain_errors(Path(out)):
        Path(out).mkdir(parents=True, exist_ok=True)
        write_json(Path(out) / f"{name}.json", evidence)
    return evidence


def _seed(seed: int, cells: Sequence[Tried], measured: Mapping[str, Measured]) -> dict[str, Any]:
    """The numbers of every trial of one seed."""
    trials = [
        {**cell.told(trial), **measured[cell.name].trials.get((trial.prior, seed), {})}
        for cell in cells
        for trial in cell.trials
        if trial.seed == seed
    ]
    return {"seed": seed, "trials": trials}


def _versions(cells: Sequence[Tried]) -> dict[str, Any]:
    packages = ("torch", "transformers", "numpy", "scipy")
    return {
        "workbench": workbench.__version__,
        "code": _code(),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
        "device": cells[0].device,
    }


def _code() -> str | None:
    """The commit of the code, with "-dirty" where files differ from it; None outside a clone."""
    words = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(words, cwd=Path(__file__).parent, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None

"""`workbench reproduce`: a claim tried on the bundled backbones, and its evidence as JSON; or the list of claims."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import tyro

from workbench.claims import CLAIMS, StudyConfig, load_rule, reproduce
from workbench.claims.claim import RUNS
from workbench.claims.study import Progress
from workbench.data import EVIDENCE
from workbench.errors import WorkbenchError, unknown
from workbench.tables import table


@dataclass(frozen=True)
class Reproduce:
    """Try a claim: train its prompts, measure, and write what was found, with the verdict of the rule that was there
    before.

    Without a name, lists the claims, and the verdicts where there is evidence. Trained prompts are kept, so an
    interrupted command goes on where it was. Settings other than the claim's own are for trials: their result goes to
    another folder than data/evidence.
    """

    claim: Annotated[str | None, tyro.conf.Positional] = None
    """E1, E2, …; none lists them."""
    out: Path = EVIDENCE
    """The folder of the JSON file."""
    runs: Path = RUNS
    """The folder that keeps the trained prompts."""
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """A trial of a few steps on one cell, to see that everything works; written to runs/evidence-quick unless told."""
    device: str = "auto"
    """auto takes a GPU where there is one."""
    study: StudyConfig = field(default_factory=StudyConfig)
    said: Annotated[str, tyro.conf.Suppress, tyro.conf.Fixed] = ""
    """The command line itself, for the file."""

    @classmethod
    def defaults(cls, words: Sequence[str]) -> Reproduce:
        """The study of the named claim, or its quick form."""
        name = next((word for word in words if word in CLAIMS), None)
        if name is None:
            if words and not words[0].startswith("-"):
                raise unknown("claim", words[0], CLAIMS)
            return cls()
        study, said = CLAIMS[name].settings(), shlex.join(["workbench", "reproduce", *words])
        if "--quick" in words:
            return cls(study=study.quick(), out=RUNS.with_name("evidence-quick"), said=said)
        return cls(study=study, said=said)

    def run(self) -> int:
        """Prints a line for each cell, and the verdict."""
        if self.claim is None:
            print(table([("claim", "verdict", "effect", "95%", "what it says"), *map(_line, CLAIMS)]))
            return 0
        from transformers.utils import logging

        logging.disable_progress_bar()  # stderr has one bar, the command's own
        with _bar() as report:
            try:
                found = reproduce(
                    self.claim,
                    self.study,
                    self.out,
                    self.runs,
                    command=self.said,
                    device=self.device,
                    report=report,
                )
            except KeyboardInterrupt:
                raise KeyboardInterrupt(f"in the middle; nothing is lost, go on with: {self.said}") from None
        cells = found["cells"]
        rows = [(name, *_numbers(cell), cell["reason"]) for name, cell in cells.items()]
        print(table([("cell", "verdict", "effect", "95%", "why"), *rows]))
        print(f"{self.claim}: {found['rule']['sentence']} – {found['verdict']} ({found['reason']})")
        print(self.out / f"{self.claim}.json")
        return 0


def command(words: Sequence[str]) -> type[Reproduce]:
    """The command, with the settings of the named claim's own kind of study for options."""
    name = next((word for word in words if word in CLAIMS), None)
    kind = type(CLAIMS[name].settings()) if name else StudyConfig
    if kind is StudyConfig:
        return Reproduce
    return cast(
        "type[Reproduce]",
        make_dataclass(
            "Reproduce",
            [("study", kind, field(default_factory=kind))],
            bases=(Reproduce,),
            namespace={"__doc__": Reproduce.__doc__},
            frozen=True,
        ),
    )


def _line(name: str) -> tuple[str, ...]:
    """A claim in the list."""
    path = EVIDENCE / f"{name}.json"
    says = load_rule(name).facts["sentence"]
    if not path.is_file():
        return name, "not tried", "", "", says
    try:
        return name, *_numbers(json.loads(path.read_text(encoding="utf-8"))), says
    except (ValueError, KeyError) as error:
        raise WorkbenchError(
            f"the file {path} is damaged; make it again with `workbench reproduce {name}`"
        ) from error


def _numbers(facts: dict[str, Any]) -> tuple[str, str, str]:
    """Verdict, effect and interval as people read them."""
    if facts["effect"] is None:
        return facts["verdict"], "", ""
    ends = ("?" if end is None else f"{end:.3g}" for end in facts["interval"])
    return facts["verdict"], f"{facts['effect']:.3g}", "{} to {}".format(*ends)


@contextmanager
def _bar() -> Iterator[Any]:
    """A bar over what is done of a study, on stderr, with the time that is left."""
    from tqdm import tqdm

    live = sys.stderr.isatty()
    bars: list[tqdm] = []

    def report(progress: Progress) -> None:
        if not bars:  # there is something to show
            bars.append(
                tqdm(unit=progress.unit, file=sys.stderr, dynamic_ncols=live, mininterval=0.1 if live else 10)
            )
        (bar,) = bars
        bar.total = progress.done + progress.left
        bar.set_postfix_str(progress.where, refresh=False)
        bar.update(progress.done - bar.n)

    try:
        yield report
    finally:
        for bar in bars:
            bar.close()

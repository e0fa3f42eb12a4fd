"""`workbench train-many`: every prior with every seed and learning rate, in one bank. Trains nothing by itself."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from workbench.cli.options import BackboneOptions, TaskOptions
from workbench.cli.progress import Progress
from workbench.cli.train import PromptOptions
from workbench.errors import WorkbenchError
from workbench.training.config import FitConfig


@dataclass(frozen=True)
class TrainMany:
    """Train many prompts at once on a frozen language model: every prior with every seed and learning rate.

    Each is what `workbench train` would have made of it alone, and gets a run directory of its own below the folder,
    named after what sets it apart. A bank that was interrupted goes on with the same command and `--resume`.
    """

    folder: Annotated[Path, tyro.conf.arg(name="runs")]
    """The folder to write the runs to, such as runs/study."""
    backbone: BackboneOptions
    task: TaskOptions
    prompt: PromptOptions = field(default_factory=PromptOptions)
    fit: FitConfig = field(default_factory=FitConfig)
    priors: tuple[str, ...] = ()
    """Where prompts start: names, with settings behind a colon, as in `--priors vocabulary isotropic:std=0.1`, and
    commas between them. None: --prior alone."""
    seeds: int = 4
    """How many seeds, from --prompt-seed and --seed on: each decides what is drawn and the order of the examples."""
    learning_rates: tuple[float, ...] = ()
    """Peak learning rates to try each with. None: --learning-rate alone."""
    rows_at_once: int | None = None
    """Most rows in one pass, where memory is short."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on with the runs in the folder."""
    detach: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Return at once, and train in a process of its own that outlives this shell."""

    @classmethod
    def defaults(cls, words: Sequence[str]) -> TrainMany:
        """Nothing stands in for backbone and task."""
        return cls(tyro.MISSING, BackboneOptions(tyro.MISSING), TaskOptions(tyro.MISSING))

    def members(self) -> dict[str, tuple[PromptOptions, FitConfig]]:
        """The name of each run, its prompt and how it is trained."""
        if self.seeds < 1:
            raise WorkbenchError(f"--seeds is {self.seeds}; give at least 1")
        found: dict[str, tuple[PromptOptions, FitConfig]] = {}
        rates = self.learning_rates or (self.fit.learning_rate,)
        for text, rate, seed in itertools.product(self.priors or (None,), rates, range(self.seeds)):
            prior = self.prompt.prior if text is None else _words(text)
            prompt = replace(self.prompt, prior=prior, prompt_seed=self.prompt.prompt_seed + seed)
            fit = replace(self.fit, learning_rate=rate, seed=self.fit.seed + seed)
            parts = ["-".join(prior), f"lr{rate:g}" if len(rates) > 1 else "", f"seed{fit.seed}"]
            name = "-".join(part for part in parts if part).replace("/", "_").replace("=", "")
            if name in found:
                raise WorkbenchError(f"{name} would be trained twice; name each prior and rate once")
            found[name] = prompt, fit
        return found

    def run(self) -> int:
        """Trains all to the end, or until Ctrl-C; prints a line for each."""
        from workbench.tables import table
        from workbench.training.bank import fit_many
        from workbench.training.run import Run

        members = self.members()
        if self.detach:
            return self._detach(members)
        task, backbone = self.task.load(), self.backbone.load()
        methods = [prompt.make(backbone) for prompt, _ in members.values()]
        paths = [self.folder / name for name in members]
        configs = [fit for _, fit in members.values()]
        steps = fit_many(backbone, methods, task, configs, paths, self.resume, self.rows_at_once)
        with Progress(len(members) * self.fit.steps) as progress:
            try:
                done = dict.fromkeys(range(len(members)), 0)
                for step in steps:
                    done |= {n: s.index for n, s in step.steps.items()}
                    done |= dict.fromkeys(step.left, self.fit.steps)
                    if step.steps:
                        mean = sum(s.loss for s in step.steps.values()) / len(step.steps)
                        progress.step(sum(done.values()), mean)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    f"after {progress.index} updates; nothing is lost, go on with the same command and --resume"
                ) from None
        rows = [("run", "state", "kept step", "validation loss")]
        for path in paths:
            run = Run(path)
            status = run.status
            looks = {m["step"]: m["validation"]["loss"] for m in run.metrics() if m.get("validation")}
            loss = looks.get(status.get("kept_step"))
            shown = "" if loss is None else f"{loss:.4f}"
            rows.append((path.name, status["state"], str(status.get("kept_step", "")), shown))
        print(table(rows))
        return 0 if all(row[1] == "finished" for row in rows[1:]) else 1

    def _detach(self, members: Mapping[str, tuple[PromptOptions, FitConfig]]) -> int:
        """Has it done by a job, and says how to follow, pause and stop it."""
        from workbench.training.job import Job, JobConfig

        if self.rows_at_once is not None:
            raise WorkbenchError("--rows-at-once does not go with --detach; leave one of them out")
        paths, where = [self.folder / name for name in members], self.backbone
        if self.resume:
            job = Job.attach(paths, detached=True)
            if job.state == "finished":
                raise WorkbenchError(
                    f"all runs in {self.folder} are finished; there is nothing to go on with"
                )
        else:
            task = self.task.load().to_config()
            configs = [
                JobConfig(
                    str(where.backbone),
                    task,
                    prompt.method,
                    prompt.settings(),
                    fit,
                    where.device,
                    where.dtype,
                )
                for prompt, fit in members.values()
            ]
            job = Job(configs, paths, detached=True)
        job.start()
        folder, one = shlex.quote(str(self.folder)), shlex.quote(str(paths[0]))
        print(
            f"{len(paths)} runs in {self.folder} are trained in process {job.run.holder}, which goes on when this shell ends\n"
            f"  workbench runs {folder}     how far they are\n"
            f"  workbench pause {one}     holds them all, and `workbench resume {one}` lets them go on\n"
            f"  workbench stop {one}     ends them all after the step at hand, with a checkpoint"
        )
        return 0


def _words(text: str) -> tuple[str, ...]:
    """`isotropic:std=0.1` as --prior takes it: the name, then each setting."""
    name, _, settings = text.partition(":")
    return name, *(setting for setting in settings.split(",") if setting)

"""`workbench train`: fit, with a progress bar, and a way back for a run that was cut short; or a job of its own."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from workbench.cli.options import BackboneOptions, TaskOptions, settings, value_of
from workbench.cli.progress import Progress
from workbench.errors import WorkbenchError, unknown
from workbench.training.config import FitConfig

if TYPE_CHECKING:
    from workbench.backbones.backbone import Backbone
    from workbench.methods.method import Method
    from workbench.training.job import Job
    from workbench.training.member import Step


@dataclass(frozen=True)
class PromptOptions:
    """What is trained, before it is."""

    method: str = "soft-prompt"
    """soft-prompt, deep-prompt, prefix, p-tuning, initial-state or lora."""
    tokens: int = 20
    """How many vectors (at each place, for a deep prompt)."""
    prior: tuple[str, ...] = ("vocabulary",)
    """Where the vectors start: a prior's name, then its settings, as in `--prior isotropic std=0.1` or
    `--prior text text="answer with one word"`."""
    prompt_seed: int = 0
    """Seed of the draw from the prior."""
    method_settings: tuple[str, ...] = ()
    """What else the method takes, as in `--method deep-prompt --method-settings form=cut` or `--method p-tuning
    --method-settings encoder=lstm hidden=256`."""

    def make(self, backbone: Backbone) -> Method:
        """The untrained method.

        Raises:
            WorkbenchError: no such method, or an option or a setting that it does not take.
        """
        from workbench.methods.method import METHODS, configured

        config = configured(self.method, self.settings())
        return METHODS[self.method].from_config(backbone, config)

    def settings(self) -> dict[str, Any]:
        """The fields of the method's configuration that are said. Raises as `make`."""
        import workbench.methods  # noqa: F401 - the room registers its methods
        from workbench.methods.method import METHODS

        if self.method not in METHODS:
            raise unknown("method", self.method, METHODS)
        more = settings(self.method_settings, f"the method {self.method}")
        known = {f.name for f in fields(METHODS[self.method].Config)}
        for option, default in (("tokens", PromptOptions.tokens), ("prior", PromptOptions.prior)):
            if option not in known and getattr(self, option) != default:
                raise WorkbenchError(f"the method {self.method} has no {option}; leave --{option} out")
        usual = {"tokens": self.tokens, "prior": self.description(), "seed": self.prompt_seed}
        return {**{name: value for name, value in usual.items() if name in known}, **more}

    def description(self) -> dict[str, Any]:
        """The prior as it describes itself."""
        if not self.prior:
            raise WorkbenchError("--prior needs a name, such as vocabulary")
        return {"name": self.prior[0], **settings(self.prior[1:], "the prior")}


@dataclass(frozen=True)
class Train:
    """Train a prompt on a frozen language model.

    The run directory takes everything: configuration, metrics (one line a step), snapshots of the prompt,
    checkpoints and the trained prompt. A run that was interrupted, or killed, goes on with
    `workbench train --run DIRECTORY --resume`, which needs no other option, and ends as if nothing had happened.
    """

    run_dir: Annotated[Path, tyro.conf.arg(name="run")]
    """The directory to write, such as runs/first; it must be new or empty, but for --resume."""
    backbone: BackboneOptions
    task: TaskOptions
    prompt: PromptOptions = field(default_factory=PromptOptions)
    fit: FitConfig = field(default_factory=FitConfig)
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on with the run that is in the directory. Options may be given again, and must then be the same."""
    detach: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Return at once, and train in a process of its own that outlives this shell."""
    questions: int = 0
    """With --detach: unseen questions asked after training, with and without the prompt; in answers.json."""

    @classmethod
    def defaults(cls, words: Sequence[str]) -> Train:
        """Nothing stands in for backbone and task."""
        return cls(tyro.MISSING, BackboneOptions(tyro.MISSING), TaskOptions(tyro.MISSING))

    def run(self) -> int:
        """Trains to the end, or until Ctrl-C; or has it done."""
        from workbench.training.fit import fit
        from workbench.training.job import Job, JobConfig

        if self.detach:
            if self.resume:
                raise WorkbenchError(
                    "--resume --detach goes on as the directory says; give no other option but --run"
                )
            where = self.backbone
            config = JobConfig(
                str(where.backbone),
                self.task.load().to_config(),
                self.prompt.method,
                self.prompt.settings(),
                self.fit,
                where.device,
                where.dtype,
                self.questions,
            )
            return announce(Job(config, self.run_dir, detached=True), self.run_dir)
        if self.questions:
            raise WorkbenchError("--questions goes with --detach; otherwise ask with `workbench evaluate`")
        task, backbone = self.task.load(), self.backbone.load()
        method = self.prompt.make(backbone)
        steps = fit(backbone, method, task, self.fit, run_dir=self.run_dir, resume=self.resume)
        return follow(steps, self.fit.steps, self.run_dir)


@dataclass(frozen=True)
class Resume:
    """Go on with a run from its directory alone; to change anything, start a new run."""

    run_dir: Annotated[Path, tyro.conf.arg(name="run")]
    """The directory of the run."""
    device: str = "auto"
    """Where it runs."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on."""
    detach: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Return at once, and train in a process of its own that outlives this shell."""

    def run(self) -> int:
        """Trains to the end, or until Ctrl-C; or has it done."""
        from workbench.training.fit import resume
        from workbench.training.job import Job
        from workbench.training.run import Run

        if self.detach:
            job = Job.attach(self.run_dir, detached=True)
            job.configs = [replace(config, device=self.device) for config in job.configs]
            return announce(job, self.run_dir)
        steps = Run(self.run_dir).config["fit"]["steps"]
        return follow(resume(self.run_dir, self.device), steps, self.run_dir)


def train(words: Sequence[str]) -> type[Train] | type[Resume]:
    """The command behind the words: with --resume and no backbone the directory says it all."""
    alone = "--resume" in words and value_of(words, "--backbone") is None
    return Resume if alone and not {"-h", "--help"} & set(words) else Train


def follow(steps: Iterator[Step], total: int, run_dir: Path) -> int:
    """Shows the steps as they are done; the run's directory and what came out at the end."""
    from workbench.training.run import Run

    with Progress(total) as progress:
        try:
            for step in steps:
                progress.step(step.index, step.loss, step.validation)
        except KeyboardInterrupt:
            again = f"workbench train --run {shlex.quote(str(run_dir))} --resume"
            raise KeyboardInterrupt(
                f"after step {progress.index}; nothing is lost, go on with: {again}"
            ) from None
    status = Run(run_dir).status
    print(
        f"{run_dir}: {status['state']} after {status['step']} steps, kept is the prompt of step {status['kept_step']}"
    )
    return 0


def announce(job: Job, run_dir: Path) -> int:
    """Starts a job in a process of its own, and says how to follow, pause and stop it."""
    job.start()
    where = shlex.quote(str(run_dir))
    print(
        f"{run_dir} is trained in process {job.run.holder}, which goes on when this shell ends\n"
        f"  workbench runs {where}     how far it is\n"
        f"  workbench pause {where}    holds it, and `workbench resume {where}` lets it go on\n"
        f"  workbench stop {where}     ends it after the step at hand, with a checkpoint"
    )
    return 0

"""What the panel of notebook 02 asks for, as the jobs of a study and back. Owns no widget.

A study is one prompt for each prior, learning rate and seed; they train as one bank, and each has a run of its own:

    runs/priors/0001-tiny-llama-find-person/00, 01, …
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workbench.errors import WorkbenchError, unknown
from workbench.training.config import FitConfig
from workbench.training.job import JobConfig
from workbench.training.run import Run

if TYPE_CHECKING:
    from workbench.methods.priors import Prior
    from workbench.training.cost import Cost


@dataclass(frozen=True)
class StudySettings:
    """What the form asks for."""

    backbone: str = field(default="tiny-llama", metadata={"label": "Backbone"})
    """A bundled name, a folder, or a Hub id."""
    task: str = field(default="find-person", metadata={"label": "Task"})
    """A task of the small world, or a file."""
    method: Literal["soft-prompt", "deep-prompt"] = "soft-prompt"
    """Vectors before the input alone, or before layers too."""
    layers: tuple[int | Literal["input"], ...] = ()
    """A deep prompt's places: input, and layers from 0, or from the end, as -1. None for the paper's."""
    tokens: int = field(default=10, metadata={"label": "Prompt length", "min": 1, "max": 500})
    """Vectors at each place."""
    learning_rates: tuple[float, ...] = (0.03,)
    """Step sizes of the optimiser at their height; several are compared."""
    seeds: int = field(default=3, metadata={"min": 1, "max": 50})
    """Prompts for each prior and learning rate, which differ in their draws and in the order of the data."""
    steps: int = field(default=100, metadata={"min": 1, "max": 100_000})
    """Steps of training; each reads one batch."""
    priors: tuple[str, ...] = ("vocabulary", "fitted-gaussian", "shell")
    """Where prompts start; each is compared with the others."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.priors:
            raise WorkbenchError("priors is empty; tick at least one")
        if not self.learning_rates or not all(rate > 0 for rate in self.learning_rates):
            raise WorkbenchError(
                "learning rates must be above zero, and at least one; write them as 0.03, 0.003"
            )
        if self.layers and self.method != "deep-prompt":
            raise WorkbenchError(
                "layers are places of a deep prompt; choose that method, or leave layers empty"
            )


def offered() -> dict[str, Prior]:
    """The priors that need no file, no other run and no words, by the names that the form shows."""
    from workbench.methods import priors

    return {
        "vocabulary": priors.Vocabulary(),
        "fitted-gaussian": priors.FittedGaussian(),
        "gaussian-exclusion": priors.GaussianExclusion(),
        "gaussian-interpolation": priors.GaussianInterpolation("reading", "order-2"),
        "shell": priors.Shell(radius=4.0),
        "isotropic": priors.Isotropic(),
        "xavier": priors.Xavier(),
        "knn": priors.KNN(),
        "vae": priors.VAE(),
    }


def configs_of(settings: StudySettings, priors: Mapping[str, Prior]) -> list[JobConfig]:
    """One job for each learning rate, prior and seed, in this order.

    Raises:
        WorkbenchError: a prior that is not among `priors`.
    """
    for name in settings.priors:
        if name not in priors:
            raise unknown("prior of this panel", name, priors)
    steps = settings.steps
    fit = FitConfig(steps=steps, evaluate_every=max(1, steps // 8), snapshot_every=max(1, steps // 25))
    shape: dict[str, Any] = {"tokens": settings.tokens}
    if settings.method == "deep-prompt" and settings.layers:
        shape["layers"] = settings.layers
    return [
        JobConfig(
            settings.backbone,
            settings.task,
            settings.method,
            {**shape, "prior": priors[name].describe(), "seed": seed},
            replace(fit, learning_rate=rate, seed=seed),
        )
        for rate, name, seed in product(settings.learning_rates, settings.priors, range(settings.seeds))
    ]


def settings_of(configs: Sequence[JobConfig], priors: Mapping[str, Prior]) -> StudySettings:
    """What the form said when these jobs were started; a prior that it does not offer goes by its own name."""
    from workbench.methods.priors import from_description

    first = configs[0]
    layers = first.settings.get("layers", ()) if first.method == "deep-prompt" else ()
    used = [from_description(dict(config.settings["prior"])) for config in configs]
    names = [next((name for name, prior in priors.items() if prior == own), own.name) for own in used]
    return StudySettings(
        backbone=first.backbone,
        task=str(first.task_config["task"]),
        method=first.method,  # type: ignore[arg-type]
        layers=tuple(layers),
        tokens=first.settings.get("tokens", StudySettings.tokens),
        learning_rates=tuple(dict.fromkeys(config.fit.learning_rate for config in configs)),
        seeds=len({config.fit.seed for config in configs}),
        steps=first.fit.steps,
        priors=tuple(dict.fromkeys(names)),
    )


def cost_of(settings: StudySettings, priors: Mapping[str, Prior]) -> Cost:
    """What a study by these settings would cost, from a few steps of all its prompts."""
    from workbench.tasks.task import Task
    from workbench.training.cost import estimate
    from workbench.training.work import shared_backbone

    configs = [config.checked() for config in configs_of(settings, priors)]
    backbone = shared_backbone(configs[0].backbone, configs[0].device, configs[0].dtype)
    methods = [config.make(backbone) for config in configs]
    return estimate(
        backbone, methods, Task.from_config(configs[0].task_config), [config.fit for config in configs]
    )


def newest_paths(folder: Path) -> list[Path]:
    """The runs of the study in `folder` to look at: the newest that is at work, or else the newest; none, where there is none."""
    studies: dict[Path, list[Path]] = {}
    for config in sorted(folder.glob("[0-9]*-*/[0-9]*/config.json")):
        studies.setdefault(config.parent.parent, []).append(config.parent)
    at_work = [study for study, runs in studies.items() if any(Run(run).holder is not None for run in runs)]
    newest = max(at_work, default=max(studies, default=None))
    return studies[newest] if newest else []

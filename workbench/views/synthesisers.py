"""The second panel of notebook 04: a synthesiser of one's own is trained, and its changes grow like the true gradient, or do not.

What it shares with other panels is in `training_panel.py`. A run of it can be chosen as ProSG in `forgetting_steps.py` at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import ipywidgets as w

from workbench.errors import WorkbenchError
from workbench.tasks.encode import TextConfig
from workbench.tasks.world.stories import LONGEST, MOST_CLAUSES, shortest
from workbench.training.config import FitConfig
from workbench.training.job import Job, JobConfig
from workbench.training.run import Run
from workbench.views.form import Form
from workbench.views.matching_curves import MatchingCurves
from workbench.views.panel import bundled
from workbench.views.status import METRICS
from workbench.views.telling import KIND
from workbench.views.theme import Theme
from workbench.views.training_panel import TrainingPanel
from workbench.views.work import new_path, newest_path

if TYPE_CHECKING:
    from workbench.training.cost import Cost

#: Prompts that the cosine to the true gradient and the loss are measured on.
VALIDATION = 16

#: What a word that the prompt says, once, counts for in the loss.
EMPHASIS = 6.0


@dataclass(frozen=True)
class SynthesiserSettings:
    """What the form asks for."""

    backbone: str = field(default="tiny-rwkv", metadata={"label": "Backbone"})
    """A bundled name, a folder, or a Hub id; it stays as it is."""
    source: Literal["tokens", "state"] = "tokens"
    """tokens: a correction of the error of each token of the prompt. state: from the state after the prompt alone, as the paper says;
    recurrent backbones only."""
    clauses: int = field(default=6, metadata={"min": 1, "max": MOST_CLAUSES})
    """Clauses of each story's prompt."""
    length: int = field(default=90, metadata={"label": "Words of a story", "min": 20, "max": LONGEST})
    """About so many; a synthesiser is trained on short stories and asked about long ones."""
    align_steps: int = field(default=250, metadata={"label": "Steps for keys", "min": 0, "max": 100_000})
    """Of "tokens": so many updates come first, in which each token's key learns to find where a text says it again."""
    steps: int = field(default=150, metadata={"min": 1, "max": 100_000})
    """Updates; each reads one batch."""
    learning_rate: float = field(default=0.015, metadata={"label": "Learning rate", "min": 0.0})
    """Step size of the optimiser at its height."""
    file: str = field(default="", metadata={"label": "Your own prompts"})
    """A JSONL with prompts, clauses and answers instead of stories, see wb.load_prompts."""
    rank: int = field(default=0, metadata={"min": 0})
    """The rank of each matrix's change; 0: as many as the prompt has tokens, from the state 4."""
    hidden: int = field(default=64, metadata={"min": 1})
    """Width of the synthesiser's hidden layer."""
    match_steps: int = field(default=0, metadata={"label": "Steps of matching", "min": 0})
    """So many updates first match the true gradient of the prompt, before the answer is learnt."""
    batch_size: int = field(default=8, metadata={"label": "Stories in a batch", "min": 1})
    """Stories read at once."""
    seed: int = field(default=0, metadata={"min": 0})
    """Of the order of stories, and of the start."""

    def __post_init__(self) -> None:
        least = shortest(self.clauses)
        if not self.file and self.length < least:
            raise WorkbenchError(
                f"length is {self.length}; a story of {self.clauses} clauses has {least} words or more"
            )
        if self.file and not Path(self.file).is_file():
            raise WorkbenchError(
                f"file is {self.file!r}, which is not there; give a path from where this notebook is"
            )

    @property
    def job(self) -> JobConfig:
        """The training that it stands for."""
        task: dict[str, Any] = (
            {"task": self.file, "preset": "clauses"}
            if self.file
            else {"task": "stories", "clauses": self.clauses, "length": self.length}
        )
        names = ("source", "rank", "hidden", "match_steps", "seed")
        method = {name: getattr(self, name) for name in names}
        first = method["align_steps"] = self.align_steps if self.source == "tokens" else 0
        fit = FitConfig(
            steps=first + self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            evaluate_every=max(1, (first + self.steps) // 10),
            validation_examples=VALIDATION,
            snapshot_every=max(1, (first + self.steps) // 10),
            seed=self.seed,
            schedule="linear",
            emphasis=EMPHASIS,
            text=TextConfig(train_eos=bool(self.file)),
        )
        return JobConfig(self.backbone, task, KIND, method, fit)

    @classmethod
    def of(cls, job: JobConfig) -> SynthesiserSettings:
        """What the form said when a job was started."""
        task, method, fit = job.task_config, job.settings, job.fit
        own = task["task"] if task.get("preset") == "clauses" else ""
        stories = {} if own else {name: task[name] for name in ("clauses", "length") if task.get(name)}
        names = ["source", "rank", "hidden", "match_steps"]
        if method.get("source") == "tokens":  # another source has no keys, whatever the form said
            names.append("align_steps")
        kept = {name: method[name] for name in names if name in method}
        return cls(
            backbone=job.backbone,
            file=str(own),
            steps=fit.steps - int(method.get("align_steps", 0)),
            batch_size=fit.batch_size,
            learning_rate=fit.learning_rate,
            seed=fit.seed,
            **stories,
            **kept,
        )


class Synthesisers(TrainingPanel):
    """A panel that trains a synthesiser and shows how it learns: `Synthesisers("runs/synthesisers")`.

    Args:
        folder: where runs are written; the newest that lies there is shown at once.
        backbones: what the form offers, names or paths.
        settings: what the form starts with, the fields of `SynthesiserSettings`.
    """

    def __init__(
        self,
        folder: str | Path = "runs/synthesisers",
        backbones: Sequence[str] | None = None,
        theme: Theme = "light",
        **settings: Any,
    ) -> None:
        names = tuple(backbones or sorted(bundled(), reverse=True))
        self.form: Form[SynthesiserSettings] = Form(
            SynthesiserSettings(**{"backbone": names[0]} | settings),
            {"backbone": names},
            shown=(
                "backbone",
                "source",
                "clauses",
                "length",
                "align_steps",
                "steps",
                "learning_rate",
                "file",
            ),
        )
        self.curves = MatchingCurves(None, theme)
        self._drawn: tuple[Any, ...] = ()
        super().__init__(folder, theme)

    @property
    def run(self) -> Run | None:
        """The run that is shown, once its directory is there."""
        return next(iter(self.runs), None)

    def _job(self, settings: SynthesiserSettings) -> Job:
        return Job(settings.job, new_path(self.folder, settings.backbone, settings.source))

    def _asked(self, job: Job) -> SynthesiserSettings:
        return SynthesiserSettings.of(job.config)

    def _newest_paths(self) -> list[Path]:
        path = newest_path(self.folder)
        return [path] if path else []

    def _cost(self, settings: SynthesiserSettings) -> Cost:
        from workbench.tasks.task import Task
        from workbench.training.cost import estimate
        from workbench.training.work import shared_backbone

        config = settings.job.checked()
        backbone = shared_backbone(config.backbone, config.device, config.dtype)
        return estimate(backbone, config.make(backbone), Task.from_config(config.task_config), config.fit)

    def _body(self) -> list[w.Widget]:
        return [self.curves.widget()]

    def _draw(self, runs: list[Run]) -> bool:
        run = next(iter(runs), None)
        file = run.path / METRICS if run else None
        drawn = (run and run.path, file.stat().st_size if file and file.exists() else 0)
        if drawn == self._drawn:
            return False
        self.curves.run = run
        self.curves.update()
        self._drawn = drawn
        return True

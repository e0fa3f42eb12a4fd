"""How a method is trained: `FitConfig`, the one dataclass behind the Python call, the command line and the form."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from workbench.errors import WorkbenchError, unknown
from workbench.tasks.encode import TextConfig

Optimizer = Literal["adamw", "adam", "sgd"]
Schedule = Literal["constant", "linear", "cosine"]
Precision = Literal["backbone", "bfloat16"]
Keep = Literal["best", "last"]

SHARED = ("precision", "gradient_checkpointing")
"""Settings of the pass over the backbone, which the members of a bank share."""


@dataclass(frozen=True)
class FitConfig:
    """How a method is trained. A step is one update of the method."""

    steps: int = 200
    """Number of updates."""
    batch_size: int = 16
    """Examples run at once."""
    accumulation: int = 1
    """Batches in one update; the loss is the mean over the answer tokens of all of them together."""
    learning_rate: float = 0.01
    """Peak learning rate. Prompts want far more than weights do: 1e-3 to 0.3."""
    optimizer: Optimizer = "adamw"
    """AdamW, Adam or SGD with momentum 0.9, as torch has them."""
    weight_decay: float = 0.0
    """AdamW's weight decay; 0 leaves a prompt where its loss puts it."""
    schedule: Schedule = "cosine"
    """How the learning rate falls after the warm-up: not at all, to zero in a line, or as a half cosine."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises from zero."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 for no limit."""
    pull: float = 0.0
    """How strongly the prior pulls: this times the vectors' negative log density under it is added to the loss that is
    minimised (a MAP estimate; ours). 0, as in the paper: the prior is only where they start."""
    emphasis: float = 1.0
    """Weight in the loss of an answer's tokens that stand exactly once in the question, as what has to be remembered from it
    does (ours); all others weigh 1."""
    precision: Precision = "backbone"
    """The type of the backbone's activations: as loaded, or bfloat16 autocast. The method itself is float32."""
    gradient_checkpointing: bool = False
    """Keep only each layer's input and compute its insides again for the gradient: less memory, more time, same bits."""
    evaluate_every: int = 25
    """Steps between looks at the validation split; 0 for never."""
    validation_examples: int = 64
    """Validation examples in one look."""
    patience: int = 0
    """Stop after so many looks without a better validation loss; 0 for never."""
    keep: Keep = "best"
    """Which state becomes the trained method: the one with the best validation loss, or the last."""
    snapshot_every: int = 10
    """Steps between kept copies of what is trained, for drawing; 0 for only the first and the last."""
    checkpoint_every: int = 25
    """Steps between checkpoints; one is also written when a run is stopped."""
    seed: int = 0
    """Seed of the order of the examples."""
    trackers: tuple[str, ...] = ()
    """🤗 Accelerate trackers to report to as well: "tensorboard", "wandb", … where installed."""
    text: TextConfig = field(default_factory=TextConfig)
    """How examples become tokens."""

    def __post_init__(self) -> None:
        for name, kind in (
            ("optimizer", Optimizer),
            ("schedule", Schedule),
            ("precision", Precision),
            ("keep", Keep),
        ):
            if getattr(self, name) not in get_args(kind):
                raise unknown(name, getattr(self, name), get_args(kind))
        for name in ("steps", "batch_size", "accumulation"):
            if getattr(self, name) < 1:
                raise WorkbenchError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("evaluate_every", "patience", "snapshot_every", "weight_decay", "clip", "pull"):
            if getattr(self, name) < 0:
                raise WorkbenchError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if self.checkpoint_every < 1 or self.validation_examples < 1:
            raise WorkbenchError("checkpoint_every and validation_examples must be at least 1")
        if self.learning_rate <= 0:
            raise WorkbenchError(f"learning_rate is {self.learning_rate}; it must be above 0")
        if not self.emphasis > 0:
            raise WorkbenchError(f"emphasis is {self.emphasis}; it is a weight, above 0, and 1 for none")
        if not 0 <= self.warmup < 1:
            raise WorkbenchError(f"warmup is {self.warmup}; it is a share of the steps, from 0 to below 1")
        if self.patience and not self.evaluate_every:
            raise WorkbenchError(
                "patience counts looks at the validation split; set evaluate_every above 0 as well"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; `from_json` reads it back."""
        return {**dataclasses.asdict(self), "trackers": list(self.trackers)}

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> FitConfig:
        """The configuration that `to_json` wrote."""
        facts = dict(facts)
        return cls(
            **{
                **facts,
                "text": TextConfig(**facts.get("text", {})),
                "trackers": tuple(facts.get("trackers", ())),
            }
        )


def schedule_factor(config: FitConfig, step: int) -> float:
    """Share of the peak learning rate at an update.

    Linear warm-up, then constant, linear or half-cosine decay, as transformers' schedulers of those names.

    Args:
        config: steps, warmup and schedule.
        step: the update, from 1.

    >>> schedule_factor(FitConfig(steps=100, warmup=0.1, schedule="linear"), 5)
    0.5
    """
    import math

    warm = round(config.warmup * config.steps)
    if step <= warm:
        return step / warm
    done = (step - warm - 1) / max(config.steps - warm, 1)
    return {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[
        config.schedule
    ]

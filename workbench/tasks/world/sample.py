"""The sample: one question of the small world with its answer, and the family that makes such samples.

It also holds the one way in which the small world draws its dice. It never holds a family's text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, get_args

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class Sample:
    """What a model reads and what it should write: lower-case words with one space between tokens."""

    prompt: str
    """What the model reads."""
    answer: str
    """What it should write; joined to the prompt by one space."""
    choices: tuple[str, ...] = ()
    """The label words, where the answer is one of few."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """What else the family knows about the sample (clauses, passage, question …)."""

    @property
    def text(self) -> str:
        """Prompt and answer as one document."""
        return f"{self.prompt} {self.answer}"


@dataclass(frozen=True)
class Family:
    """A named source of samples: `make(rng, split, **options)` gives the sample that the dice decide."""

    name: str
    group: str
    """The kind of task that it belongs to: stories, reading, arithmetic, relations …"""
    metric: str
    """A name in `workbench.tasks.metrics.METRICS`."""
    make: Callable[..., Sample]
    """`make(rng, split, **options) -> Sample`."""


def rng(family: str, split: str, seed: int, index: int) -> Random:
    """Dice for one sample, the same on every machine: seeded by a hash of the four arguments."""
    digest = hashlib.sha256(f"{family}/{split}/{seed}/{index}".encode()).digest()
    return Random(int.from_bytes(digest[:16], "big"))

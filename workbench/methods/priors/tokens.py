"""Priors made of tokens: random ones, those of a text, those of the class labels. They have no density.

In a deeper space a random token is what the layer reads of it alone; a text or label is read whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError
from workbench.methods.priors.points import Data, check_layer, read_texts, read_tokens, width_of
from workbench.methods.priors.prior import Distribution, Prior, repeated
from workbench.tasks.encode import continuation_ids
from workbench.tasks.task import Task, load_task

_LOOKED_THROUGH = 1000  # examples whose choices are gathered


@dataclass(frozen=True)
class Vocabulary(Prior):
    """The vectors of tokens drawn at random, without replacement (ours; PEFT's SAMPLE_VOCAB is its kin).

    More vectors than there are tokens are drawn with replacement.
    """

    name: ClassVar[str] = "vocabulary"

    def fit(self, backbone: Backbone, layer: int | None = None) -> RandomTokens:
        return RandomTokens(self, backbone, layer)


class RandomTokens(Distribution):
    """The vectors of random tokens; read when they are drawn, so that nothing is kept of a large vocabulary."""

    def __init__(self, prior: Prior, backbone: Backbone, layer: int | None):
        super().__init__(prior, width_of(backbone, layer), layer, {"points": backbone.vocabulary_size})
        self.backbone = backbone

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        size = self.backbone.vocabulary_size
        if n <= size:
            ids = torch.randperm(size, generator=generator)[:n]
        else:
            ids = torch.randint(size, (n,), generator=generator)
        return read_tokens(self.backbone, self.layer, ids)


@dataclass(frozen=True)
class Text(Prior):
    """The vectors of a text's tokens, repeated or cut to the number drawn, as PEFT's TEXT does."""

    name: ClassVar[str] = "text"

    text: str = ""
    """Any words; a hand-written instruction is a good start."""

    def fit(self, backbone: Backbone, layer: int | None = None) -> Listed:
        ids = backbone.tokenizer(self.text, add_special_tokens=False)["input_ids"]
        if not ids:
            raise WorkbenchError("the text prior has no tokens; give it a text of at least one word")
        return Listed(self, backbone, layer, [ids])


@dataclass(frozen=True)
class Labels(Prior):
    """The vectors of the class labels' tokens, label after label, repeated or cut to the number drawn (ours).

    A label is tokenised as it follows a prompt, after a space. Lester et al. 2021 (arXiv 2104.08691, section 2.1)
    take the mean over a label's tokens, and random tokens once labels run out.
    """

    name: ClassVar[str] = "labels"

    words: tuple[str, ...] = ()
    """The labels; where there are none, they come from `data`."""
    data: Data = None
    """A task of few choices, by name or `Task.to_config()`: its choices, in the order in which they are met."""

    def __post_init__(self) -> None:
        words = self.words
        object.__setattr__(self, "words", (words,) if isinstance(words, str) else tuple(words))

    def fit(self, backbone: Backbone, layer: int | None = None) -> Listed:
        check_layer(backbone, layer)
        words = self.words or self._choices()
        labels = [ids for word in words if (ids := continuation_ids(backbone.tokenizer, " " + word.strip()))]
        return Listed(self, backbone, layer, labels, {"labels": list(words)})

    def _choices(self) -> tuple[str, ...]:
        if self.data is None:
            raise WorkbenchError(
                "the labels prior has no labels; give words=, or data= with a task of few choices"
            )
        task = load_task(self.data) if isinstance(self.data, str) else Task.from_config(self.data)
        met = {word: None for example in task.examples()[:_LOOKED_THROUGH] for word in example.choices}
        if not met:
            raise WorkbenchError(
                f"the examples of {task.name} name no choices; give the labels prior its words="
            )
        return tuple(met)


class Listed(Distribution):
    """Vectors in a fixed order: those of the tokens of some texts. Nothing in it is random."""

    def __init__(
        self,
        prior: Prior,
        backbone: Backbone,
        layer: int | None,
        texts: list[list[int]],
        facts: dict[str, list[str]] | None = None,
    ):
        self.vectors = read_texts(backbone, layer, texts)
        facts = facts or {}
        super().__init__(prior, self.vectors.shape[1], layer, {**facts, "points": len(self.vectors)})

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        return repeated(self.vectors, n)

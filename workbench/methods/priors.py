"""Where a prompt's embeddings start: priors over vectors in the space that the layers read.

A prior is a small frozen dataclass; `fit` gives it what it needs of a backbone, `sample` draws from it, and
`describe` says what it is. Nothing here trains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError, unknown


class Prior(Protocol):
    """Where prompt vectors come from."""

    def sample(self, tokens: int, backbone: Backbone, generator: torch.Generator) -> Tensor:
        """Draw (tokens, width) float32 start vectors on the CPU, the same for the same generator state."""
        ...

    def describe(self) -> dict[str, Any]:
        """Name and settings, as JSON."""
        ...


@dataclass(frozen=True)
class Isotropic:
    """Every coordinate normal with mean 0 (arXiv 2412.18582, its first prior).

    std: standard deviation; the paper's 0.02 by default.
    """

    std: float = 0.02

    def sample(self, tokens: int, backbone: Backbone, generator: torch.Generator) -> Tensor:
        return torch.randn(tokens, backbone.width, generator=generator) * self.std

    def describe(self) -> dict[str, Any]:
        return {"name": "isotropic", "std": self.std}


@dataclass(frozen=True)
class Vocabulary:
    """The embeddings of tokens drawn at random, without replacement (ours; PEFT's SAMPLE_VOCAB is its kin)."""

    def sample(self, tokens: int, backbone: Backbone, generator: torch.Generator) -> Tensor:
        size = backbone.vocabulary_size
        if tokens <= size:
            ids = torch.randperm(size, generator=generator)[:tokens]
        else:
            ids = torch.randint(size, (tokens,), generator=generator)
        return backbone.embed(ids).detach().float().cpu()

    def describe(self) -> dict[str, Any]:
        return {"name": "vocabulary"}


@dataclass(frozen=True)
class Text:
    """The embeddings of a text's tokens, repeated or cut to the prompt's length, as PEFT's TEXT does.

    text: any words; a hand-written instruction is a good start.
    """

    text: str = ""

    def sample(self, tokens: int, backbone: Backbone, generator: torch.Generator) -> Tensor:
        ids = backbone.tokenizer(self.text, add_special_tokens=False)["input_ids"]
        if not ids:
            raise WorkbenchError("the text prior has no tokens; give it a text of at least one word")
        repeated = (ids * (tokens // len(ids) + 1))[:tokens]
        return backbone.embed(torch.tensor(repeated)).detach().float().cpu()

    def describe(self) -> dict[str, Any]:
        return {"name": "text", "text": self.text}


PRIORS: dict[str, type] = {"isotropic": Isotropic, "vocabulary": Vocabulary, "text": Text}


def from_description(description: dict[str, Any]) -> Prior:
    """The prior that `describe` described."""
    settings = dict(description)
    name = settings.pop("name", "")
    if name not in PRIORS:
        raise unknown("prior", name, PRIORS)
    return PRIORS[name](**settings)

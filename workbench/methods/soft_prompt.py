"""Prompt tuning: vectors before the input are all that is trained (Lester et al. 2021, arXiv 2104.08691).

Holds the method only; where its vectors start is a prior (`priors`), how they enter a model is `apply.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError
from workbench.methods import priors
from workbench.methods.injection import Injection
from workbench.methods.method import Method


@dataclass(frozen=True)
class SoftPromptConfig:
    """What a soft prompt is before it is trained."""

    tokens: int = 20
    """Number of vectors; the paper on embedding priors (arXiv 2412.18582) uses 20."""
    prior: dict[str, Any] = field(default_factory=lambda: {"name": "vocabulary"})
    """Where the vectors start, as a prior describes itself."""
    seed: int = 0
    """Seed of the draw from the prior."""

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise WorkbenchError(
                f"a soft prompt of {self.tokens} tokens cannot be trained; give tokens=1 or more"
            )
        priors.from_description(self.prior)


class SoftPrompt(Method):
    """P trained vectors in the input.

    >>> method = wb.SoftPrompt(backbone, tokens=20, prior=wb.priors.Isotropic())

    Args:
        backbone: the model to be prompted; its width is the length of a vector.
        config: a whole configuration, or the fields of one as keywords:
        tokens, prior, seed: see `SoftPromptConfig`; `prior` is a prior object or its description.

    Attributes:
        embeddings: (P, width) float32, whatever the backbone's type; the trained parameter.
    """

    kind = "soft-prompt"
    Config = SoftPromptConfig

    def __init__(
        self,
        backbone: Backbone,
        config: SoftPromptConfig | None = None,
        *,
        tokens: int = 20,
        prior: priors.Prior | dict[str, Any] | None = None,
        seed: int = 0,
    ):
        if config is None:
            start = prior or priors.Vocabulary()
            config = SoftPromptConfig(tokens, start if isinstance(start, dict) else start.describe(), seed)
        super().__init__(backbone, config)
        vectors = self.draw(backbone, config.tokens)
        self.embeddings = nn.Parameter(vectors)

    def injection(self) -> Injection:
        """The vectors, for every row alike."""
        return Injection(input_embeddings=self.embeddings[None])

    def drawn(self) -> dict[int | None, Tensor]:
        """The vectors, among input embeddings."""
        return {None: self.embeddings}

    def snapshot(self) -> dict[str, Tensor]:
        """`embeddings` (P, width)."""
        return {"embeddings": self.embeddings.detach().cpu().clone()}

    @property
    def prompt_length(self) -> int:
        """P."""
        return self.config.tokens

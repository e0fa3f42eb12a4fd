"""Xavier's uniform, for a prompt of a given length. It reads no data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from workbench.backbones.backbone import Backbone
from workbench.methods.priors.points import width_of
from workbench.methods.priors.prior import Distribution, Prior


@dataclass(frozen=True)
class Xavier(Prior):
    """Every coordinate uniform in ±√(6 / (tokens + width)) (arXiv 2412.18582; Glorot and Bengio 2010, eq. 16).

    The bound is that of a (tokens, width) matrix, so it belongs to a prompt's length and is a setting here: the
    distribution of a vector does not change with how many are drawn.
    """

    name: ClassVar[str] = "xavier"

    tokens: int = 20
    """Length of the prompt whose matrix it is; the paper's 20."""

    def __post_init__(self) -> None:
        self.check("tokens", self.tokens >= 1, "the number of the prompt's tokens, 1 or more")

    def fit(self, backbone: Backbone, layer: int | None = None) -> CenteredUniform:
        width = width_of(backbone, layer)
        return CenteredUniform(self, width, layer, math.sqrt(6 / (self.tokens + width)))


class CenteredUniform(Distribution):
    """Uniform in the cube of half-width `bound`; outside it the log density is -inf, and its gradient is 0."""

    has_log_prob = True

    def __init__(self, prior: Prior, width: int, layer: int | None, bound: float):
        super().__init__(prior, width, layer, {"bound": bound, "std": bound / math.sqrt(3)})
        self.bound = bound

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        return (torch.rand(n, self.width, generator=generator) * 2 - 1) * self.bound

    def _log_prob(self, e: Tensor) -> Tensor:
        density = 0.0 * e.sum(-1) - self.width * math.log(
            2 * self.bound
        )  # of e, so that a gradient can be asked
        return density.masked_fill((e.abs() > self.bound).any(-1), -math.inf)

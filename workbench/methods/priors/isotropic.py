"""The isotropic Gaussian, which knows nothing but the width. It reads no data."""

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
class Isotropic(Prior):
    """Every coordinate normal with mean 0: e ~ N(0, std²·I) (arXiv 2412.18582, its first prior)."""

    name: ClassVar[str] = "isotropic"

    std: float = 0.02
    """Standard deviation of a coordinate; the paper's 0.02."""

    def __post_init__(self) -> None:
        self.check("std", self.std > 0, "a standard deviation above zero")

    def fit(self, backbone: Backbone, layer: int | None = None) -> IsotropicNormal:
        return IsotropicNormal(self, width_of(backbone, layer), layer, self.std)


class IsotropicNormal(Distribution):
    """N(0, std²·I)."""

    has_log_prob = True

    def __init__(self, prior: Prior, width: int, layer: int | None, std: float):
        super().__init__(prior, width, layer, {"radius": std * math.sqrt(width)})
        self.std = std

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, self.width, generator=generator) * self.std

    def _log_prob(self, e: Tensor) -> Tensor:
        return -0.5 * (e / self.std).square().sum(-1) - self.width * math.log(
            self.std * math.sqrt(2 * math.pi)
        )

"""The shell: every direction of a fitted Gaussian, at one distance from its mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from workbench.backbones.backbone import Backbone
from workbench.methods.priors.gaussian import OfNormal
from workbench.methods.priors.normal import Normal
from workbench.methods.priors.prior import Distribution


@dataclass(frozen=True)
class Shell(OfNormal):
    """e = μ + radius · √width · F·u, u uniform on the unit sphere and F·Fᵀ = Σ (ours): what really is elsewhere.

    A Gaussian's own draws lie at a Mahalanobis distance of about √width, give or take 0.7; so at a radius of 2 a
    vector is twice as far from the mean as any of them, and as likely in every direction as they are. It has no
    density: all of it is on a surface.
    """

    name: ClassVar[str] = "shell"

    radius: float = 2.0
    """Mahalanobis distance from the mean, in units of √width: 1 is where the Gaussian's own draws lie."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(
            "radius", self.radius > 0, "a radius above zero, 1 being where the Gaussian's own draws lie"
        )

    def fit(self, backbone: Backbone, layer: int | None = None) -> OnShell:
        return OnShell(self, layer, self.normal(backbone, layer), self.radius)


class OnShell(Distribution):
    """Uniform directions under Σ at one Mahalanobis distance; `facts["radius"]` is that distance."""

    def __init__(self, prior: Shell, layer: int | None, normal: Normal, radius: float):
        self.normal, self.radius = normal, radius * math.sqrt(normal.width)
        super().__init__(prior, normal.width, layer, {**normal.facts, "radius": self.radius})

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        z = torch.randn(n, self.width, generator=generator)
        return self.normal.colored(self.radius * z / z.norm(dim=1, keepdim=True))

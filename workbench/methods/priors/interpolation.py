"""Gaussian interpolation: vectors on the way from one domain to another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from workbench.backbones.backbone import Backbone
from workbench.methods.priors.gaussian import name_of, prefixed
from workbench.methods.priors.normal import Normal, RidgeKind, check_kind
from workbench.methods.priors.points import Data, collect
from workbench.methods.priors.prior import Distribution, Prior


@dataclass(frozen=True)
class GaussianInterpolation(Prior):
    """e_i = α·x_i + (1 − α)·y_i, x_i from the Gaussian of one domain, y_i of the other, α ~ U[0, 1] (arXiv 2412.18582).

    α is drawn for each vector (ours; the paper does not say). Its density is an integral over α without a closed
    form, so it has no log_prob.
    """

    name: ClassVar[str] = "gaussian-interpolation"

    one: Data = None
    """What x comes from: a task by its name or by `Task.to_config()`, or None for the vocabulary."""
    other: Data = None
    """What y comes from."""
    points: int = 4096
    """The most points to fit each of the two to; see `FittedGaussian`."""
    seed: int = 0
    """Seed of the choice of points."""
    ridge: float = 1e-3
    """What is added to each covariance's diagonal; see `FittedGaussian`."""
    ridge_kind: RidgeKind = "relative"
    """"relative" or "absolute"; see `FittedGaussian`."""

    def __post_init__(self) -> None:
        self.check("points", self.points >= 2, "2 or more points")
        self.check("ridge", self.ridge >= 0, "a ridge of zero or more")
        check_kind(self.ridge_kind)

    def fit(self, backbone: Backbone, layer: int | None = None) -> Interpolated:
        one, other = (
            Normal(
                collect(backbone, layer, data, self.points, self.seed),
                self.ridge,
                self.ridge_kind,
                name_of(data),
            )
            for data in (self.one, self.other)
        )
        return Interpolated(self, layer, one, other)


class Interpolated(Distribution):
    """Draws between two Gaussians; its facts are those of both, with `one_` and `other_` before their names.

    `distance` is the Euclidean distance of the two means.
    """

    def __init__(self, prior: Prior, layer: int | None, one: Normal, other: Normal):
        self.one, self.other = one, other
        distance = {"distance": float((one.mean - other.mean).norm())}
        facts = {**prefixed("one", one.facts), **prefixed("other", other.facts), **distance}
        super().__init__(prior, one.width, layer, facts)

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        x = self.one.colored(torch.randn(n, self.width, generator=generator))
        y = self.other.colored(torch.randn(n, self.width, generator=generator))
        alpha = torch.rand(n, 1, generator=generator)
        return alpha * x + (1 - alpha) * y

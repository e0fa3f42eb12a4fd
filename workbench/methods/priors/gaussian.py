"""The fitted Gaussian, and the settings that every prior fitted to points shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from workbench.backbones.backbone import Backbone
from workbench.methods.priors.normal import Normal, RidgeKind, check_kind
from workbench.methods.priors.points import Data, collect
from workbench.methods.priors.prior import Distribution, Prior


@dataclass(frozen=True)
class OfPoints(Prior):
    """Base of the priors that are fitted to points of one data set."""

    data: Data = None
    """What the points come from: a task by its name or by `Task.to_config()`, or None for the vocabulary."""
    points: int = 4096
    """The most points to fit to. With `data=None` and no layer all token embeddings are taken, however many."""
    seed: int = 0
    """Seed of the choice of points, and of whatever is random in the fit."""

    def __post_init__(self) -> None:
        self.check("points", self.points >= 2, "2 or more points")

    def collect(self, backbone: Backbone, layer: int | None) -> Tensor:
        """The points: (n, width) float32 on the CPU."""
        return collect(backbone, layer, self.data, self.points, self.seed)

    @property
    def source(self) -> str:
        """What the points come from, in a word, for errors."""
        return name_of(self.data)


@dataclass(frozen=True)
class OfNormal(OfPoints):
    """Base of the priors that are made from a Gaussian fitted to points."""

    ridge: float = 1e-3
    """What is added to the covariance's diagonal, so that it can be inverted; see `ridge_kind`."""
    ridge_kind: RidgeKind = "relative"
    """"relative": ridge · tr(Σ) / width (ours). "absolute": the ridge itself; the paper's authors add 1e-3, which
    at a standard deviation of 0.02 is most of the diagonal."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("ridge", self.ridge >= 0, "a ridge of zero or more")
        check_kind(self.ridge_kind)

    def normal(self, backbone: Backbone, layer: int | None) -> Normal:
        """The Gaussian fitted to the points."""
        return Normal(self.collect(backbone, layer), self.ridge, self.ridge_kind, self.source)


@dataclass(frozen=True)
class FittedGaussian(OfNormal):
    """e ~ N(μ, Σ), fitted to token embeddings or to a layer's activations (arXiv 2412.18582, "structured")."""

    name: ClassVar[str] = "fitted-gaussian"

    def fit(self, backbone: Backbone, layer: int | None = None) -> FittedNormal:
        return FittedNormal(self, layer, self.normal(backbone, layer))


class FittedNormal(Distribution):
    """N(μ, Σ + ridge·I); the log density is that of the ridged covariance, exactly."""

    has_log_prob = True

    def __init__(self, prior: Prior, layer: int | None, normal: Normal):
        super().__init__(prior, normal.width, layer, dict(normal.facts))
        self.normal = normal

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        return self.normal.colored(torch.randn(n, self.width, generator=generator))

    def _log_prob(self, e: Tensor) -> Tensor:
        return self.normal.log_prob(self.normal.squared_distance(e)).to(e.dtype)


def name_of(data: Data) -> str:
    """A data set in a word."""
    if data is None:
        return "the vocabulary"
    return str(data if isinstance(data, str) else data.get("task", data))


def prefixed(prefix: str, facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of one of two parts."""
    return {f"{prefix}_{key}": value for key, value in facts.items()}

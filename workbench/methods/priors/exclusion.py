"""Gaussian exclusion: draws of a wider Gaussian, thinned where the fitted one is dense."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError
from workbench.methods.priors.gaussian import OfNormal
from workbench.methods.priors.normal import Normal
from workbench.methods.priors.prior import Distribution

_AT_ONCE = 2**24  # numbers in one round of proposals


@dataclass(frozen=True)
class GaussianExclusion(OfNormal):
    """x ~ N(μ, c_dim·Σ), c_dim = c^(2/width), kept with probability max(0, 1 − p(x) / p_wide(x)) (arXiv 2412.18582).

    In high dimension it is hardly elsewhere: at width 2048 nine draws in ten lie inside the ball that holds 99% of
    the plain Gaussian, so `Shell` is the prior for a region that data never visits.
    """

    name: ClassVar[str] = "gaussian-exclusion"

    c: float = 5.0
    """Ratio of the two densities at the mean; the paper's 5. Larger is wider."""
    tries: int = 10_000
    """The most proposals for each vector drawn; about 20 are needed at width 256, 50 at 2048."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(
            "c", self.c > 1, "a number above 1, as the wider Gaussian is that much thinner at the mean"
        )
        self.check("tries", self.tries >= 1, "1 or more")

    def fit(self, backbone: Backbone, layer: int | None = None) -> Excluded:
        return Excluded(self, layer, self.normal(backbone, layer))


class Excluded(Distribution):
    """The density (p_wide − p)₊ / acceptance_rate.

    Where p is above p_wide nothing is drawn: the log density is -inf there, with a gradient of 0.

    Attributes:
        acceptance_rate: in closed form, see `acceptance_rate`.
    """

    has_log_prob = True

    def __init__(self, prior: GaussianExclusion, layer: int | None, normal: Normal):
        self.normal, self.c, self.tries = normal, prior.c, prior.tries
        self.c_dim = prior.c ** (2 / normal.width)
        self.acceptance_rate = acceptance_rate(prior.c, normal.width)
        measured = {
            "c_dim": self.c_dim,
            "acceptance_rate": self.acceptance_rate,
            "excluded_radius": math.sqrt(_border(prior.c, normal.width)),
        }
        super().__init__(prior, normal.width, layer, {**normal.facts, **measured})

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        kept, missing, left = [torch.empty(0, self.width)], n, n * self.tries
        while missing > 0:
            if left == 0:
                raise WorkbenchError(
                    f"the prior gaussian-exclusion did not find {n} vectors in {n * self.tries} proposals, of which "
                    f"it accepts {self.acceptance_rate:.2%}; give more tries or a larger c"
                )
            size = min(
                left, max(1, _AT_ONCE // self.width), math.ceil(1.1 * missing / self.acceptance_rate) + 8
            )
            z = torch.randn(size, self.width, generator=generator)
            ratio = self._log_ratio(z.double().square().sum(1) * self.c_dim)
            chance = -torch.expm1(ratio.clamp(max=0))
            found = z[torch.rand(size, generator=generator, dtype=torch.float64) < chance][:missing]
            kept.append(self.normal.colored(found * math.sqrt(self.c_dim)))
            missing, left = missing - len(found), left - size
        return torch.cat(kept)

    def _log_prob(self, e: Tensor) -> Tensor:
        m = self.normal.squared_distance(e)
        wide = self.normal.log_prob(m / self.c_dim) - math.log(self.c)
        ratio = self._log_ratio(m)
        inside = ratio >= 0
        outside = torch.log(-torch.expm1(ratio.masked_fill(inside, -1.0)))
        return (wide + outside - math.log(self.acceptance_rate)).masked_fill(inside, -math.inf).to(e.dtype)

    def _log_ratio(self, m: Tensor) -> Tensor:
        """log p(x) − log p_wide(x) at squared Mahalanobis distances m; c_dim^(width/2) is c."""
        return math.log(self.c) - 0.5 * m * (1 - 1 / self.c_dim)


def acceptance_rate(c: float, width: int) -> float:
    """The part of proposals that is kept: P(a > t / c_dim) − P(a > t) (ours), the total variation of the two normals.

    a is χ² with `width` degrees of freedom, c_dim = c^(2/width), and t = 2·ln c · c_dim / (c_dim − 1) the squared
    Mahalanobis distance at which both densities are equal.

    >>> round(acceptance_rate(5.0, 256), 3)
    0.057
    """
    border = _border(c, width)
    return _beyond(border / c ** (2 / width), width) - _beyond(border, width)


def _border(c: float, width: int) -> float:
    c_dim = c ** (2 / width)
    return 2 * math.log(c) * c_dim / (c_dim - 1)


def _beyond(squared_radius: float, width: int) -> float:
    """P(χ² of `width` degrees > squared_radius)."""
    half = torch.tensor([width / 2, squared_radius / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))

"""A normal distribution fitted to points, at any width: mean, covariance with a ridge, and its factor.

Holds the arithmetic that the Gaussian priors share. Fewer points than dimensions give a covariance of which most
directions are empty; the ridge fills them, and `facts` says so. Knows no backbone and no prior.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from workbench.errors import WorkbenchError, unknown

RidgeKind = Literal["relative", "absolute"]
_CHUNK = 8192  # points at a time in float64
_EMPTY = 1e-12  # an eigenvalue below this part of the largest is rounding: points are float32


class Normal:
    """N(mean, covariance + ridge·I), the covariance that of points (divided by n - 1).

    Args:
        points: (n, width).
        ridge: what is added to the diagonal: `ridge` · tr(covariance) / width where the kind is "relative" (ours),
            `ridge` itself where it is "absolute" (the authors of arXiv 2412.18582 add 1e-3).
        kind: "relative" or "absolute".
        of: what the points are, for errors.

    Attributes:
        mean: (width,) float64.
        factor: (width, width) float64, lower triangular: factor · factorᵀ is the covariance with its ridge.
        facts: `points`, `total_variance` (the covariance's trace, without ridge), `rank` (directions that the points
            vary in), `effective_rank` (tr(Σ)² / tr(Σ²), the participation ratio), `singular` (without the ridge),
            `ridge` (as added), `ridge_share` (its part of the total variance, ridge included).

    Raises:
        WorkbenchError: fewer than two points, points that are all the same, or a ridge too small for the rank.

    >>> Normal(torch.randn(1000, 2048), ridge=1e-3).facts["rank"]
    999
    """

    def __init__(self, points: Tensor, ridge: float, kind: RidgeKind = "relative", of: str = "the data"):
        n, width = points.shape
        if n < 2:
            raise WorkbenchError(f"{of} gave {n} points, too few for a covariance; give more data")
        if not bool(torch.isfinite(points).all()):
            raise WorkbenchError(f"{of} gave points that are not finite; look at the layer and its type")
        self.mean = sum(chunk.double().sum(0) for chunk in points.split(_CHUNK)) / n
        covariance = torch.zeros(width, width, dtype=torch.float64)
        for chunk in points.split(_CHUNK):
            centered = chunk.double() - self.mean
            covariance.addmm_(centered.T, centered)
        covariance /= n - 1
        trace = float(covariance.diagonal().sum())
        if trace <= 0:
            raise WorkbenchError(f"the {n} points of {of} are all the same; give data that varies")
        if n <= width:  # the same eigenvalues, in a smaller matrix
            centered = points.double() - self.mean
            eigenvalues = torch.linalg.eigvalsh(centered @ centered.T / (n - 1))
        else:
            eigenvalues = torch.linalg.eigvalsh(covariance)
        rank = int((eigenvalues > _EMPTY * eigenvalues.max()).sum())
        added = ridge * trace / width if kind == "relative" else ridge
        self.facts: dict[str, Any] = {
            "points": n,
            "total_variance": trace,
            "rank": rank,
            "effective_rank": trace**2 / float(covariance.square().sum()),
            "singular": rank < width,
            "ridge": added,
            "ridge_share": added * width / (trace + added * width),
        }
        covariance.diagonal().add_(added)
        self.factor, failed = torch.linalg.cholesky_ex(covariance)
        if int(failed) or (rank < width and added <= _EMPTY * float(eigenvalues.max())):
            raise WorkbenchError(
                f"the covariance of the {n} points of {of} has rank {rank} of {width} and cannot be used with "
                f"a ridge of {added:.2g}; give a larger ridge or more points"
            )
        self.width = width
        self.log_volume = float(self.factor.diagonal().log().sum())
        self._single = self.factor.float()
        self._elsewhere: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def colored(self, z: Tensor) -> Tensor:
        """(n, width) in the standard normal's coordinates to (n, width) float32 in the space of the points."""
        return self.mean.float() + z @ self._single.T

    def squared_distance(self, e: Tensor) -> Tensor:
        """(…, width) to (…): squared Mahalanobis distance from the mean, ridge included; on e's device."""
        mean, factor = self._on(e.device)
        centered = (e.to(mean.dtype) - mean).reshape(-1, self.width)
        white = torch.linalg.solve_triangular(factor, centered.T, upper=False)
        return white.square().sum(0).reshape(e.shape[:-1])

    def log_prob(self, squared_distance: Tensor) -> Tensor:
        """Log density in nats at a squared distance."""
        return -0.5 * squared_distance - self.log_volume - 0.5 * self.width * math.log(2 * math.pi)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and factor on a device, in float64 (float32 on Apple's, which has no other)."""
        if device not in self._elsewhere:
            kind = torch.float32 if device.type == "mps" else torch.float64
            self._elsewhere[device] = self.mean.to(device, kind), self.factor.to(device, kind)
        return self._elsewhere[device]


def check_kind(kind: str) -> None:
    """Refuse a ridge that is neither relative nor absolute."""
    if kind not in get_args(RidgeKind):
        raise unknown("kind of ridge", kind, get_args(RidgeKind))

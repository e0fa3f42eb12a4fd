"""Low density by neighbours: candidates of a fitted Gaussian, of which the one farthest from the points is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError
from workbench.methods.priors.gaussian import OfNormal
from workbench.methods.priors.normal import Normal
from workbench.methods.priors.prior import Distribution

_AT_ONCE = 2**24  # numbers in one block of candidates, or of distances
_MEASURED = 256  # vectors whose distances are taken for the facts


@dataclass(frozen=True)
class KNN(OfNormal):
    """Where points are sparse: of some draws of the fitted Gaussian, the one with the farthest k-th neighbour (ours).

    The authors of arXiv 2412.18582 planned a prior of this kind and dropped it. It has no closed density.
    """

    name: ClassVar[str] = "knn"

    k: int = 8
    """Which neighbour's Euclidean distance says how dense a place is."""
    candidates: int = 32
    """Draws of the Gaussian for each vector kept; 1 is the Gaussian itself."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("k", self.k >= 1, "1 or more")
        self.check("candidates", self.candidates >= 1, "1 or more")

    def fit(self, backbone: Backbone, layer: int | None = None) -> Sparse:
        points = self.collect(backbone, layer)
        if len(points) <= self.k:
            raise WorkbenchError(
                f"the prior knn asks for neighbour {self.k} and {self.source} gave {len(points)} points; "
                "give a smaller k or more points"
            )
        return Sparse(self, layer, points)


class Sparse(Distribution):
    """The farthest of a few candidates, for each vector.

    Facts: those of the Gaussian, and the median distance to the k-th neighbour of the points themselves
    (`distance_of_points`), of the Gaussian's draws (`distance_of_gaussian`) and of what is kept
    (`distance_of_draws`).
    """

    def __init__(self, prior: KNN, layer: int | None, points: Tensor):
        self.points, self.k, self.candidates = points, prior.k, prior.candidates
        self.normal = Normal(points, prior.ridge, prior.ridge_kind, prior.source)
        super().__init__(prior, points.shape[1], layer)
        dice = torch.Generator().manual_seed(prior.seed)
        some = points[torch.randperm(len(points), generator=dice)[:_MEASURED]]
        plain = self.normal.colored(torch.randn(_MEASURED, self.width, generator=dice))
        self.facts = {
            **self.normal.facts,
            "distance_of_points": float(
                kth_distance(some, points, prior.k + 1).median()
            ),  # each is its own first
            "distance_of_gaussian": float(kth_distance(plain, points, prior.k).median()),
            "distance_of_draws": float(kth_distance(self._draw(_MEASURED, dice), points, prior.k).median()),
        }

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        kept = [torch.empty(0, self.width)]
        block = max(1, _AT_ONCE // (self.candidates * self.width))
        for start in range(0, n, block):
            rows = min(block, n - start)
            drawn = self.normal.colored(torch.randn(rows * self.candidates, self.width, generator=generator))
            far = kth_distance(drawn, self.points, self.k).reshape(rows, self.candidates).argmax(1)
            kept.append(drawn.reshape(rows, self.candidates, -1)[torch.arange(rows), far])
        return torch.cat(kept)


def kth_distance(x: Tensor, points: Tensor, k: int) -> Tensor:
    """(m, width), (n, width) to (m,): Euclidean distance of each x to its k-th nearest point, k from 1."""
    center = points.mean(0)  # distances come from a matrix product, which is exact near the origin only
    x, points = x - center, points - center
    block = max(1, _AT_ONCE // len(points))
    return torch.cat([torch.cdist(part, points).kthvalue(k, dim=1).values for part in x.split(block)])

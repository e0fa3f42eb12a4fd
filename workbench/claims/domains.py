"""Two domains in one space of a backbone: whether their clusters are apart, and what lies between. Judges nothing.

The clusters are the Gaussians that the prior gaussian-interpolation draws between. Whether they are apart is asked with
fresh texts: other examples of the two tasks, new for every seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.backbones.backbone import Backbone
from workbench.methods.priors import GaussianInterpolation
from workbench.methods.priors.normal import Normal
from workbench.methods.priors.points import collect
from workbench.tasks.task import load_task

Floats = NDArray[np.float64]
_WITHIN = 0.95  # of the domains' own points lie no farther across


@dataclass(frozen=True)
class Segment:
    """The way from one cluster's mean to another's.

    start: (d,) the first mean, float64. axis: (d,) with axis · (second mean − start) = 1. step: (d,) from mean to mean.
    """

    start: Tensor
    axis: Tensor
    step: Tensor

    @classmethod
    def between(cls, one: Normal, other: Normal, plain: bool = False) -> Segment:
        """Along Fisher's linear discriminant, S⁻¹ · (μ_other − μ_one), S the mean of the two covariances (Fisher 1936,
        Annals of Eugenics 7:179); plain: along the line of the means.

        >>> Segment.between(one, other).along(one.mean[None])
        array([0.])
        """
        step = other.mean - one.mean
        axis = step
        if not plain:
            covariance = (one.factor @ one.factor.T + other.factor @ other.factor.T) / 2
            axis = torch.linalg.solve(covariance, step)
        return cls(one.mean, axis / (axis @ step), step)

    def along(self, vectors: Tensor) -> Floats:
        """(n, d) to (n,): 0 where the first mean is, 1 where the second is."""
        return ((vectors.double() - self.start) @ self.axis).numpy()

    def across(self, vectors: Tensor) -> Floats:
        """(n, d) to (n,): Euclidean length of what is left of a vector once it is taken back along the step."""
        there = vectors.double() - self.start
        return (there - (there @ self.axis)[:, None] * self.step).norm(dim=1).numpy()

    def told_apart(self, one: Tensor, other: Tensor) -> float:
        """The share of points (n, d) of either domain on its own side of the middle, mean of the two; by chance 0.5."""
        return float(((self.along(one) < 0.5).mean() + (self.along(other) > 0.5).mean()) / 2)

    def deviations(self, one: Tensor, other: Tensor) -> float:
        """How many standard deviations lie between points (n, d) of either domain along the segment.

        Ashman, Bird and Zepf 1994 (Astronomical Journal 108:2348), D: the difference of the means over the root of the
        mean of the two variances, negative where they are the wrong way round. From 2 on, a mixture of two equal normal
        clusters has two humps. 0 where the segment has no length.
        """
        if not self.step.any():
            return 0.0
        here, there = self.along(one), self.along(other)
        return float((there.mean() - here.mean()) / np.sqrt((here.var(ddof=1) + there.var(ddof=1)) / 2))


class Domains:
    """The clusters of two tasks in one space.

    Args:
        backbone, layer: the space; None is that of input embeddings.
        prior: whose two domains these are.
        seeds: for each, both domains are read anew.
    """

    def __init__(self, backbone: Backbone, layer: int | None, prior: GaussianInterpolation, seeds: range):
        self.backbone, self.layer, self.prior, self.seeds = backbone, layer, prior, seeds
        there = prior.fit(backbone, layer)
        self.segment = Segment.between(there.one, there.other)
        self.plain = Segment.between(there.one, there.other, plain=True)
        self.fresh = {seed: (self._read(0, "test", seed), self._read(1, "test", seed)) for seed in seeds}

    @cached_property
    def edge(self) -> float:
        """How far across the segment 95% of the domains' own fresh points lie at most."""
        points = torch.cat([part for both in self.fresh.values() for part in both])
        return float(np.quantile(self.segment.across(points), _WITHIN))

    def between(self, vectors: Tensor) -> NDArray[np.bool_]:
        """(n, d) to (n,): not beyond either mean along the segment, nor farther across than the edge."""
        along = self.segment.along(vectors)
        return (along >= 0) & (along <= 1) & (self.segment.across(vectors) <= self.edge)

    @cached_property
    def apart(self) -> Floats:
        """(seeds,): the share of fresh points that the segment's middle tells apart."""
        return np.array([self.segment.told_apart(*both) for both in self.fresh.values()])

    @cached_property
    def control(self) -> Floats:
        """(seeds,): the same of two clusters that are none: texts of the first domain, and other texts of it."""
        found = []
        for seed in self.seeds:
            one, other = (self._normal(self._read(0, "train", more)) for more in self._others(seed))
            told = Segment.between(one, other).told_apart(
                *(self._read(0, "test", more) for more in self._others(seed))
            )
            found.append(told)
        return np.array(found)

    def _others(self, seed: int) -> tuple[int, int]:
        """Seeds of examples that nothing else has."""
        first = 1000 + 2 * (seed - self.seeds.start)
        return first, first + 1

    def _normal(self, points: Tensor) -> Normal:
        return Normal(points, self.prior.ridge, self.prior.ridge_kind)

    def _read(self, which: int, split: str, seed: int) -> Tensor:
        """Points of a domain, from examples made with another seed than the prior's."""
        name = str((self.prior.one, self.prior.other)[which])
        task = load_task(name, split=split, seed=1 + seed)
        return collect(self.backbone, self.layer, task.to_config(), self.prior.points, seed)

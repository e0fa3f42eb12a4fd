"""Where vectors lie among the tokens of a backbone: axes, radii, distances. Measures; draws nothing."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.backbones.backbone import Backbone
from workbench.methods.priors import FittedGaussian
from workbench.methods.priors.normal import Normal

Floats = NDArray[np.float64]
_CHUNK = 1024  # tokens whose distances to all others are taken at once


class Space:
    """The space of input embeddings, or of what a layer reads, as the vocabulary fills it.

    Attributes:
        backbone, layer: whose space it is; layer None is that of input embeddings.
        tokens: (V, d) float32, every token's embedding, or what the layer reads of tokens alone (some, of a large
            vocabulary).
        normal: the Gaussian fitted to them, ridge and all, as the priors fit it.
    """

    def __init__(self, backbone: Backbone, layer: int | None = None):
        prior = FittedGaussian()
        self.backbone, self.layer = backbone, layer
        self.tokens: Tensor = prior.collect(backbone, layer)
        self.normal = Normal(self.tokens, prior.ridge, prior.ridge_kind, prior.source)

    def radius(self, vectors: Tensor) -> Floats:
        """(n, d) to (n,): Mahalanobis distance from the tokens' mean, over √d; about 1 for the Gaussian's own draws."""
        return (self.normal.squared_distance(vectors).sqrt() / math.sqrt(self.normal.width)).double().numpy()

    def distance(self, vectors: Tensor) -> Floats:
        """(n, d) to (n,): Euclidean distance to the nearest token, over the tokens' own mean distance to another."""
        return (torch.cdist(vectors.float(), self.tokens).min(1).values / self.spacing).double().numpy()

    @cached_property
    def scale(self) -> float:
        """Rms of the tokens here over that of their embeddings; 1 for input embeddings."""
        embeddings = self.tokens if self.layer is None else self.backbone.vocabulary()
        return float(self.tokens.square().mean().sqrt() / embeddings.float().square().mean().sqrt())

    @cached_property
    def spacing(self) -> float:
        """Mean distance of a token to the nearest other one."""
        total = 0.0
        for start in range(0, len(self.tokens), _CHUNK):
            block = torch.cdist(self.tokens[start : start + _CHUNK], self.tokens)
            block[torch.arange(len(block)), start + torch.arange(len(block))] = torch.inf
            total += float(block.min(1).values.double().sum())
        return total / len(self.tokens)

    @cached_property
    def edge(self) -> float:
        """The largest radius of any token: what lies beyond it is where no text ever is."""
        return float(self.radius(self.tokens).max())

    def features(self, prompts: Tensor) -> dict[str, Floats]:
        """(n, P, d), n prompts of P vectors each, to what says where each lies (ours): moments in the tokens' axes.

        `mean`: (n, d) mean of the P vectors on each principal axis of the vocabulary; `spread`: (n, d) log rms there,
        about the tokens' mean; `length`: (n, 1) log mean norm; `token`: (n, 1) log distance to the nearest token, mean
        over the vectors, over the spacing (with a thousandth added, as a token's own is zero).

        Moments, and not the vectors: a prompt is a sample of a distribution, and the nearest neighbour of a wide
        Gaussian's point is a narrow Gaussian's near the centre (hubness; Radovanović et al. 2010, JMLR 11:2487), so
        neighbours among raw vectors would hand every prompt to the narrowest prior.
        """
        n, count, width = prompts.shape
        flat = prompts.reshape(-1, width)
        placed = ((flat.double() - self.normal.mean) @ self._axes).reshape(n, count, width)
        token = self.distance(flat).reshape(n, count)
        norm = flat.double().norm(dim=1).reshape(n, count)
        return {
            "mean": placed.mean(1).numpy(),
            "spread": placed.square().mean(1).sqrt().clamp(min=1e-12).log().numpy(),
            "length": norm.mean(1, keepdim=True).clamp(min=1e-12).log().numpy(),
            "token": np.log(token + 1e-3).mean(1, keepdims=True),
        }

    @cached_property
    def _axes(self) -> Tensor:
        """(d, d) principal axes as columns."""
        centred = self.tokens.double() - self.normal.mean
        return torch.linalg.eigh(centred.T @ centred)[1]

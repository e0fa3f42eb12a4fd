"""The posterior of another run: start where a trained prompt ended."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError
from workbench.methods.priors.points import read_vectors
from workbench.methods.priors.prior import Distribution, Prior, repeated


@dataclass(frozen=True)
class Posterior(Prior):
    """The trained vectors of a run, repeated or cut to the number drawn, with or without noise (ours).

    In a deeper space they are what the layer reads of the trained prompt alone, which in a causal model is what it
    reads of it before any text.
    """

    name: ClassVar[str] = "posterior"

    run: str = ""
    """The folder of a run, or of a method saved by `Method.save`; a relative path is from the working directory."""
    noise: float = 0.0
    """Standard deviation of what is added to every coordinate, normal, in the vectors' own units; 0 is none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "run", str(self.run))
        self.check("noise", self.noise >= 0, "a standard deviation of zero or more")

    def fit(self, backbone: Backbone, layer: int | None = None) -> AroundVectors:
        from workbench.methods.method import (  # methods draw from priors, so not at the top
            load_method,
            read_facts,
        )

        if not self.run:
            raise WorkbenchError("the posterior prior has no run; give run= the folder of a finished run")
        folder = Path(self.run)
        if not (folder / "method.json").is_file() and (folder / "method" / "method.json").is_file():
            folder = folder / "method"
        facts = read_facts(folder)
        width = facts["backbone"]["width"]
        if width != backbone.width:
            raise WorkbenchError(
                f"the run in {folder} trained vectors of width {width}, but {backbone.name} reads width "
                f"{backbone.width}; give a run on a backbone of that width"
            )
        trained = load_method(folder, backbone).snapshot().get("embeddings")
        if trained is None:
            raise WorkbenchError(
                f"the method in {folder} ({facts['kind']}) has no input embeddings to start from; give the run "
                "of a soft prompt"
            )
        vectors = read_vectors(backbone, layer, trained)
        return AroundVectors(self, layer, vectors, self.noise, str(facts["backbone"]["name"]))


class AroundVectors(Distribution):
    """Vector i of a list, plus noise.

    With noise the log density of a vector is that of a random place in the list: the mean of the vectors' normals.
    Without noise there is none.
    """

    def __init__(self, prior: Prior, layer: int | None, vectors: Tensor, noise: float, backbone: str):
        self.vectors, self.noise = vectors, noise
        self.has_log_prob = noise > 0
        norm = float(vectors.norm(dim=1).mean())
        facts = {"points": len(vectors), "trained_on": backbone, "mean_norm": norm}
        super().__init__(prior, vectors.shape[1], layer, facts)

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        listed = repeated(self.vectors, n)
        if self.noise == 0:
            return listed
        return listed + self.noise * torch.randn(n, self.width, generator=generator)

    def _log_prob(self, e: Tensor) -> Tensor:
        vectors = self.vectors.to(e.device, e.dtype)
        squared = ((e[..., None, :] - vectors) / self.noise).square().sum(-1)
        volume = self.width * math.log(self.noise * math.sqrt(2 * math.pi)) + math.log(len(vectors))
        return torch.logsumexp(-0.5 * squared, dim=-1) - volume

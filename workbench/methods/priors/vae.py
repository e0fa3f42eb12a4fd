"""A small variational autoencoder as a prior: fitted to points in seconds, and honest about its own collapse."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import silu

from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError, unknown
from workbench.methods.priors.gaussian import OfPoints
from workbench.methods.priors.prior import Distribution

Error = Literal["best", "sum", "mean"]
_ACTIVE = 0.01  # Burda et al. 2016 (arXiv 1509.00519), section 5.2
COLLAPSED = 0.1
"""Of the points' variance: a VAE whose draws keep less has collapsed (ours)."""
_FLOOR = (
    0.01  # of the points' variance: points that repeat would else be learnt by heart, with holes between them
)
_MEASURED = 2048  # draws whose variance is taken


@dataclass(frozen=True)
class VAE(OfPoints):
    """Samples of the decoder of a VAE trained on the points (arXiv 2412.18582, whose own collapsed).

    Encoder and decoder have one hidden layer each. The loss is the error of what is decoded (`error`) plus
    kl_weight · KL. A draw is the decoder's mean. No density: it would be an integral over the latent.
    """

    name: ClassVar[str] = "vae"

    latent: int = 16
    """Width of the latent, standard normal."""
    hidden: int = 128
    """Width of both hidden layers."""
    steps: int = 600
    """Steps of Adam, each on 256 points."""
    learning_rate: float = 1e-2
    """Of Adam; falls to zero in a straight line."""
    kl_weight: float = 1.0
    """Weight of the KL term; 1 is the evidence bound, much more makes it collapse."""
    error: Error = "best"
    """How the mean squared error a coordinate, of points scaled to an rms of 1, counts against the KL term.

    "best": width/2 · log(error + floor), the decoder's noise being the best one at each step (Rybkin et al. 2021,
    arXiv 2006.13202; the floor, a hundredth of the points' variance, is ours), which keeps a wide input from drowning
    the KL term, or the KL the input. "sum": width/2 · error, a noise fixed at the points' own rms. "mean": the error
    itself, as a plain mean squared error has it: the KL term then weighs width/2 times as much as in "sum"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for setting in ("latent", "hidden", "steps"):
            self.check(setting, getattr(self, setting) >= 1, "1 or more")
        self.check("learning_rate", self.learning_rate > 0, "a learning rate above zero")
        self.check("kl_weight", self.kl_weight >= 0, "a weight of zero or more")
        if self.error not in get_args(Error):
            raise unknown("error of a VAE", self.error, get_args(Error))

    def fit(self, backbone: Backbone, layer: int | None = None) -> Decoded:
        return Decoded(self, layer, self.collect(backbone, layer))


class Decoded(Distribution):
    """The decoder of a trained VAE.

    Facts: `points`; `active_units`, the latent units whose mean varies by more than 0.01 over the points (Burda et
    al. 2016); `variance_kept`, the total variance of draws over that of the points; `variance_explained`, the part
    of it that a point's own code gives back; `kl` in nats a point; `collapsed`, no active unit or less than a tenth
    of the variance kept (ours).
    """

    def __init__(self, prior: VAE, layer: int | None, points: Tensor):
        n, width = points.shape
        self.latent = prior.latent
        self.center = points.mean(0)
        self.scale = float((points - self.center).square().mean().sqrt())
        if n < 2 or not self.scale > 0 or not math.isfinite(self.scale):
            raise WorkbenchError(
                f"the {n} points of {prior.source} do not vary, or are not finite; give the prior vae other data"
            )
        x = (points - self.center) / self.scale
        dice = torch.Generator().manual_seed(prior.seed)
        self.encoder = _layers(width, prior.hidden, 2 * prior.latent, dice)
        self.decoder = _layers(prior.latent, prior.hidden, width, dice)
        with torch.enable_grad():
            self._train(prior, x, dice)
        for weight in (*self.encoder, *self.decoder):
            weight.requires_grad_(False)
        super().__init__(prior, width, layer, self._measure(points, x, dice))

    def _train(self, prior: VAE, x: Tensor, dice: torch.Generator) -> None:
        width = x.shape[1]
        optimiser = torch.optim.Adam([*self.encoder, *self.decoder], lr=prior.learning_rate)
        for step in range(prior.steps):
            optimiser.param_groups[0]["lr"] = prior.learning_rate * (1 - step / prior.steps)
            batch = x[torch.randint(len(x), (256,), generator=dice)]
            mean, log_std = _through(self.encoder, batch).chunk(2, dim=1)
            z = mean + log_std.exp() * torch.randn(mean.shape, generator=dice)
            error = (_through(self.decoder, z) - batch).square().mean()
            loss = _counted(error, prior.error, width) + prior.kl_weight * _kl(mean, log_std).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    def _measure(self, points: Tensor, x: Tensor, dice: torch.Generator) -> dict[str, Any]:
        mean, log_std = _through(self.encoder, x).chunk(2, dim=1)
        active = int((mean.var(0) > _ACTIVE).sum())
        draws = self._decode(torch.randn(_MEASURED, self.latent, generator=dice))
        total = float(points.var(0).sum())
        kept = float(draws.var(0).sum()) / total
        return {
            "points": len(points),
            "active_units": active,
            "variance_kept": kept,
            "variance_explained": 1 - float((_through(self.decoder, mean) - x).square().mean()),
            "kl": float(_kl(mean, log_std).mean()),
            "collapsed": active == 0 or kept < COLLAPSED,
        }

    def _decode(self, z: Tensor) -> Tensor:
        return self.center + self.scale * _through(self.decoder, z)

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        return self._decode(torch.randn(n, self.latent, generator=generator))


def _layers(inputs: int, hidden: int, outputs: int, dice: torch.Generator) -> list[Tensor]:
    """Two matrices and their biases, from the given dice alone: other threads use torch's own."""
    matrices = [
        torch.randn(a, b, generator=dice) * (gain / a) ** 0.5
        for a, b, gain in ((inputs, hidden, 2.0), (hidden, outputs, 0.1))
    ]
    weights = [matrices[0], torch.zeros(hidden), matrices[1], torch.zeros(outputs)]
    return [weight.requires_grad_(True) for weight in weights]


def _through(weights: list[Tensor], x: Tensor) -> Tensor:
    first, bias, second, last = weights
    return silu(x @ first + bias) @ second + last


def _counted(error: Tensor, how: Error, width: int) -> Tensor:
    """A mean squared error a coordinate as the loss has it; see `VAE.error`."""
    if how == "best":
        return 0.5 * width * torch.log(error + _FLOOR)
    return 0.5 * width * error if how == "sum" else error


def _kl(mean: Tensor, log_std: Tensor) -> Tensor:
    """(B,): KL of N(mean, std²) to the standard normal, in nats (Kingma and Welling 2014, appendix B)."""
    return 0.5 * (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).sum(1)

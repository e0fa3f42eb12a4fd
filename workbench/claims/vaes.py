"""The VAEs that a claim is tried on: every backbone, data set, place, variant and seed, each fitted and measured.

What each said of itself is kept (`kept.py`), so an interrupted study goes on where it was. Trains no prompt, judges
nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.backbones.backbone import load_backbone
from workbench.claims.kept import Kept, keep
from workbench.claims.study import Progress, check_study, layer_of
from workbench.errors import WorkbenchError, unknown
from workbench.methods.priors import VAE
from workbench.methods.priors.points import collect
from workbench.methods.priors.vae import Decoded

DEFAULT, FORCED = "default", "kl-10000"
_SAID = ("variance_kept", "variance_explained", "active_units", "kl")


@dataclass(frozen=True)
class VAEsConfig:
    """Which VAEs are fitted, and to what."""

    backbones: tuple[str, ...] = ("tiny-llama", "tiny-rwkv")
    """Frozen models."""
    data: tuple[str, ...] = ("reading", "order-2", "running")
    """Tasks whose texts are read: questions about a text, arithmetic (the paper's two kinds of task), running text."""
    places: tuple[str, ...] = ("input", "layer 1", "layer 3")
    """Whose vectors: input embeddings, or what a layer reads (from 0)."""
    variants: tuple[str, ...] = (DEFAULT, "kl-10", FORCED, "latent-2", "latent-64", "sum", "mean")
    """default is `VAE()`; the others differ from it in one setting: kl-10 in the weight of the KL term, latent-2 in the
    latent's width, sum and mean in how the error counts."""
    seeds: int = 5
    """How many seeds, counted up from `seed`; a seed decides which points are taken, and the fit."""
    seed: int = 0
    """The first of them."""
    points: int = VAE.points
    """The most points of a data set."""
    steps: int = VAE.steps
    """Steps of each fit."""

    def __post_init__(self) -> None:
        check_study(self, ("backbones", "data", "places", "variants"))
        for place in self.places:
            layer_of(place)
        for variant in self.variants:
            self.vae(variant, self.data[0], self.seed)

    def vae(self, variant: str, data: str, seed: int) -> VAE:
        """The prior behind a variant's name."""
        plain = VAE(data=data, points=self.points, seed=seed, steps=self.steps)
        word, _, number = variant.partition("-")
        try:
            if word == "kl":
                return replace(plain, kl_weight=float(number))
            if word == "latent":
                return replace(plain, latent=int(number))
        except ValueError:
            raise WorkbenchError(
                f"{variant!r} is no variant of a VAE; write its number, as in kl-10"
            ) from None
        if variant in ("sum", "mean"):
            return replace(plain, error="sum" if variant == "sum" else "mean")
        if variant != DEFAULT:
            raise unknown("variant of a VAE", variant, (DEFAULT, "kl-10", "latent-2", "sum", "mean"))
        return plain

    @property
    def numbers(self) -> range:
        """The seeds."""
        return range(self.seed, self.seed + self.seeds)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, every variant with its settings."""
        described = {name: self.vae(name, self.data[0], self.seed).describe() for name in self.variants}
        for settings in described.values():
            del settings["data"], settings["seed"]
        return {**asdict(self), "variants": described}

    def quick(self) -> VAEsConfig:
        """One cell, two seeds, a few steps."""
        return replace(
            self,
            backbones=self.backbones[:1],
            data=self.data[:1],
            places=self.places[-1:],
            seeds=2,
            points=300,
            steps=20,
        )


@dataclass(frozen=True)
class VAECell:
    """All VAEs of one backbone, data set and place.

    Of a trial, the prior is the variant's name; facts are what the VAE said of itself (`Decoded.facts`) and `linear`,
    the share of its points' variance that their first principal axes hold, as many as the latent is wide.
    """

    backbone: str
    data: str
    place: str
    trials: tuple[Kept, ...]
    device: str

    @property
    def name(self) -> str:
        return f"{self.backbone}/{self.data}/{self.place}"

    def of(self, variant: str) -> list[Kept]:
        """One variant's fits, by seed."""
        return sorted((fit for fit in self.trials if fit.prior == variant), key=lambda fit: fit.seed)

    def values(self, variant: str, fact: str) -> np.ndarray:
        """(seeds,) of a fact; NaN for what is not known."""
        return np.array(
            [math.nan if (value := f.facts[fact]) is None else float(value) for f in self.of(variant)]
        )

    def common(self, config: VAEsConfig) -> dict[str, Any]:
        """`broken`: how many fits said something that is not finite; and each variant's means over seeds."""
        return {
            "broken": sum(value is None for fit in self.trials for value in fit.facts.values()),
            "variants": {
                variant: {
                    "collapsed": float(self.values(variant, "collapsed").mean()),
                    **{fact: float(self.values(variant, fact).mean()) for fact in (*_SAID, "linear")},
                }
                for variant in config.variants
            },
        }

    def told(self, trial: Kept) -> dict[str, Any]:
        """The numbers of one fit."""
        return {
            "backbone": self.backbone,
            "data": self.data,
            "place": self.place,
            "variant": trial.prior,
            **trial.facts,
            "seconds": trial.seconds,
        }


def run_vaes(
    config: VAEsConfig,
    folder: Path,
    device: str = "auto",
    report: Callable[[Progress], None] = lambda progress: None,
) -> Iterator[VAECell]:
    """Fit what is not fitted yet, and give the cells, one after another; arguments as in `study.run_study`."""
    cells = len(config.backbones) * len(config.data) * len(config.places)
    done, left = 0, cells * len(config.variants) * config.seeds * config.steps
    for name in config.backbones:
        backbone = load_backbone(name, device=device)
        for data in config.data:
            for place in config.places:
                home = Path(folder) / "vae" / backbone.name.replace("/", "_") / data / place
                fits: list[Kept] = []
                for seed in config.numbers:
                    points = collect(backbone, layer_of(place), data, config.points, seed)
                    for variant in config.variants:
                        fit, new = _fit(config.vae(variant, data, seed), variant, points, home)
                        fits.append(fit)
                        done, left = done + config.steps * new, left - config.steps
                        report(Progress(done, left, f"{backbone.name} {data} {place}"))
                yield VAECell(backbone.name, data, place, tuple(fits), str(backbone.device))


def _fit(vae: VAE, variant: str, points: Tensor, home: Path) -> tuple[Kept, bool]:
    """A fit, kept or new, and whether it is new."""
    depends = json.dumps(vae.describe(), sort_keys=True).encode() + points.numpy().tobytes()
    return keep(
        home,
        variant,
        vae.seed,
        depends,
        lambda: Decoded(vae, None, points).facts | {"linear": _linear(points, vae.latent)},
    )


def _linear(points: Tensor, axes: int) -> float:
    """The share of the variance of points (n, d) that lies on their first principal axes."""
    centred = points.double() - points.double().mean(0)
    along = torch.linalg.eigvalsh(centred.T @ centred)
    return float(along[-axes:].sum() / along.sum())

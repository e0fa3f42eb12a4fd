"""Priors: where prompt vectors start, as objects to choose, draw and compare with where they end.

    prior = wb.priors.FittedGaussian(data="reading")    # a Prior: settings only, JSON both ways
    there = prior.fit(backbone, layer=2)                # a Distribution: one backbone, one space
    there.sample(20, generator)                         # (20, width) float32
    there.log_prob(e)                                   # where there is a density: a MAP pull is made of it
    there.describe()                                    # settings, and what was measured while fitting

A space is that of input embeddings (`layer=None`) or of what a block reads. A prior of `data` is fitted to points:
tokens of a task's texts, or of the vocabulary. Nothing pulls vectors back to their prior unless a method is asked to.

    prior.py            Prior, Distribution, PRIORS, from_description
    points.py           vectors of a space, collected from data
    normal.py           a Gaussian fitted to points: ridge, factor, rank
    isotropic.py        Isotropic               density
    xavier.py           Xavier                  density
    gaussian.py         FittedGaussian          density
    exclusion.py        GaussianExclusion       density
    shell.py            Shell
    interpolation.py    GaussianInterpolation
    vae.py              VAE
    knn.py              KNN
    tokens.py           Vocabulary, Text, Labels
    posterior.py        Posterior               density, where there is noise
"""

from workbench.methods.priors.exclusion import GaussianExclusion
from workbench.methods.priors.gaussian import FittedGaussian
from workbench.methods.priors.interpolation import GaussianInterpolation
from workbench.methods.priors.isotropic import Isotropic
from workbench.methods.priors.knn import KNN
from workbench.methods.priors.points import Data, collect
from workbench.methods.priors.posterior import Posterior
from workbench.methods.priors.prior import PRIORS, Distribution, Prior, from_description
from workbench.methods.priors.shell import Shell
from workbench.methods.priors.tokens import Labels, Text, Vocabulary
from workbench.methods.priors.vae import VAE
from workbench.methods.priors.xavier import Xavier

__all__ = [
    "KNN",
    "PRIORS",
    "VAE",
    "Data",
    "Distribution",
    "FittedGaussian",
    "GaussianExclusion",
    "GaussianInterpolation",
    "Isotropic",
    "Labels",
    "Posterior",
    "Prior",
    "Shell",
    "Text",
    "Vocabulary",
    "Xavier",
    "collect",
    "from_description",
]

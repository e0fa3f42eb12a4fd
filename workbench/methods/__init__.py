"""Everything that is trained, and every place where it may touch a model. Importing the room registers its methods."""

from workbench.methods import priors, soft_prompt

__all__ = ["priors", "soft_prompt"]

"""Everything that is trained, and every place where it may touch a model. Importing the room registers its methods."""

from workbench.methods import (
    deep_prompt,
    initial_state,
    lora,
    p_tuning,
    pointer_cache,
    prefix_prompt,
    priors,
    prompt_bias,
    soft_prompt,
    synthetic_gradient,
)

__all__ = [
    "deep_prompt",
    "initial_state",
    "lora",
    "p_tuning",
    "pointer_cache",
    "prefix_prompt",
    "priors",
    "prompt_bias",
    "soft_prompt",
    "synthetic_gradient",
]

"""An untrained backbone: the architecture and tokenizer of another, with weights that were drawn and never trained.

What a model does that its untrained twin does as well comes from the words and the architecture, and was not learnt.
"""

from __future__ import annotations

import copy

import torch

from workbench.backbones.backbone import Backbone


def untrained(backbone: Backbone, seed: int = 0) -> Backbone:
    """The same configuration, device and type with random weights, as transformers draws them for it.

    Args:
        backbone: it is left as it is.
        seed: of the weights; nothing else draws from it.

    >>> untrained(load_backbone("tiny-llama"), seed=1)
    """
    model = backbone.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = type(model)(copy.deepcopy(model.config))
    return Backbone(
        made.to(device=backbone.device, dtype=backbone.dtype),
        copy.deepcopy(backbone.tokenizer),
        f"{backbone.name} (random weights {seed})",
    )

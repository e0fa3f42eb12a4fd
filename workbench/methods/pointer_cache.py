"""A pointer cache over the prompt: the continuous cache of Grave, Joulin and Usunier (2017, arXiv 1612.04426), there alone.

Theirs holds the last thousands of tokens; this one holds those of the instruction, so that it is a way to remember a prompt
and nothing else. Holds the method only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workbench.backbones.backbone import Backbone
from workbench.backbones.layer_inputs import seeing
from workbench.errors import WorkbenchError
from workbench.methods.injection import Injection, LogitChange
from workbench.methods.method import Method
from workbench.methods.prompt_tokens import PromptTokens
from workbench.methods.rows import Rows


@dataclass(frozen=True)
class PointerCacheConfig:
    """What a pointer cache is before it is trained."""

    share: float = 0.05
    """λ, the share of the cache in the mixture."""
    sharpness: float = 20.0
    """θ, by which cosines are multiplied: 0 takes every token of the prompt alike, a large one the nearest alone."""

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise WorkbenchError(
                f"the cache's share is {self.share}; it is a part of the whole, above 0 and below 1"
            )
        if not self.sharpness > 0:
            raise WorkbenchError(f"sharpness is {self.sharpness}; give a number above 0")


class PointerCache(Method):
    """p(w) = (1 - λ) p_model(w) + λ p_cache(w), p_cache(w) ∝ Σ_i [w = x_{i+1}] exp(θ cos(h_t, h_i)), over the instruction x.

    >>> method = wb.PointerCache(backbone, share=0.2)

    h is what the last block gives, its mean over channels taken out (the paper has the plain product of an LSTM's outputs). As a
    cosine, because a residual stream has no scale of its own: it is read through a norm, whose gain belongs to the head; so
    θ means the same for every backbone, and a token with a long vector is not pointed at for that (ours). A row whose
    instruction has a single token has nothing to point at, and is the plain model's.

    Args:
        backbone: the model that reads the prompts.
        config: a whole configuration, or the fields of one as keywords, see `PointerCacheConfig`.

    Attributes:
        share_logit: () float32; λ is its sigmoid. Trained.
        log_sharpness: () float32; θ is its exponential. Trained.
        strength: by what the odds λ / (1 - λ) are multiplied, 1.0; may be set, to sweep it. At 0 it is the plain model.
    """

    kind = "pointer-cache"
    Config = PointerCacheConfig

    def __init__(self, backbone: Backbone, config: PointerCacheConfig | None = None, **fields: Any):
        config = config or PointerCacheConfig(**fields)
        super().__init__(backbone, config)
        self.backbone = backbone
        self.share_logit = nn.Parameter(torch.tensor(math.log(config.share / (1 - config.share))))
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(config.sharpness)))
        self.strength = 1.0
        if backbone.dtype == torch.float64:
            self.double()
        self.to(backbone.device)

    def injection(self) -> Injection:
        """What a look into each row's prompt makes of its logits."""
        return Injection(logit_changes=self.changes)

    def changes(self, rows: Rows) -> LogitChange:
        """The cache of each row's instruction, read by the backbone as it is.

        The logits that it gives are the model's where the cache has nothing, and higher elsewhere by the nats by which the mixture
        is above (1 - λ) p_model: their softmax is the mixture.
        """
        tokens = PromptTokens.of(rows, after=1)
        keys = _direction(_read(self.backbone, rows, tokens))
        odds = self.share_logit + (math.log(self.strength) if self.strength else -math.inf)
        sharpness = self.log_sharpness.exp()

        def change(logits: Tensor, numbers: Tensor, hidden: Tensor) -> Tensor:
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            real = tokens.real[numbers]
            each = torch.arange(len(numbers), device=numbers.device)
            cosines = (_direction(hidden) @ keys.flatten(0, 1).T).unflatten(1, keys.shape[:2])[each, numbers]
            scores = (sharpness * cosines.to(logits)).masked_fill(~real, torch.finfo(logits.dtype).min)
            pointed = tokens.total(scores.softmax(1), numbers).clamp(min=torch.finfo(logits.dtype).tiny)
            model = logits.gather(1, tokens.ids[numbers]) - logits.logsumexp(1, keepdim=True)
            above = odds + pointed.log() - model  # log of λ p_cache over (1 - λ) p_model
            return tokens.add(logits, torch.logaddexp(above, torch.zeros_like(above)), numbers)

        return change

    @torch.no_grad()
    def snapshot(self) -> dict[str, Tensor]:
        """`share` and `sharpness`, λ and θ, each (1,)."""
        found = {"share": self.share_logit.sigmoid(), "sharpness": self.log_sharpness.exp()}
        return {name: value.cpu().reshape(1) for name, value in found.items()}

    @property
    def prompt_length(self) -> int:
        """0: a cache takes no position."""
        return 0


def _direction(hidden: Tensor) -> Tensor:
    """Vectors (…, width) less their mean over channels, of length 1, in float32 or float64."""
    hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    return torch.nn.functional.normalize(hidden - hidden.mean(-1, keepdim=True), dim=-1)


@torch.no_grad()
def _read(backbone: Backbone, rows: Rows, following: PromptTokens) -> Tensor:
    """(B, T, width): what the last block gives before each of the following tokens; at pads anything."""
    size = following.ids.shape[1]
    real = following.real.clone()
    real[:, 0] = True  # a run reads at least one token
    above: list[Tensor] = []

    def look(layer: int, hidden: Tensor) -> None:
        if layer == backbone.num_layers:
            above.append(torch.nn.functional.pad(hidden, (0, 0, 0, size - hidden.shape[1])))

    each = torch.arange(len(rows), device=rows.ids.device)
    for part in [each] if backbone.layouts.right_padding else each.split(1):
        mask = real[part, : int(real[part].sum(1).max())]
        positions = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
        last = positions == mask.sum(1, keepdim=True) - 1  # no logits are wanted, and a head takes no fewer
        with seeing(look):
            backbone.runner(backbone.embed(rows.ids[part, : mask.shape[1]]), mask, positions, keep=last)
    return torch.cat(above)

"""Prefix tuning: trained keys and values before the tokens in every layer (Li and Liang 2021, arXiv 2101.00190).

Without the MLP it is P-tuning v2 (Liu et al. 2022, arXiv 2110.07602); with it, the prefix is what an MLP makes of
trained embeddings, as both papers do for small data. Attention backbones only: `start.py` refuses the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError
from workbench.methods import priors
from workbench.methods.apply import try_out
from workbench.methods.injection import Injection
from workbench.methods.method import Method, described, remembered


@dataclass(frozen=True)
class PrefixPromptConfig:
    """What a prefix is before it is trained."""

    tokens: int = 20
    """Number of positions that have keys and values in every layer."""
    mlp: bool = False
    """Whether an MLP makes the prefix from trained embeddings (a reparametrisation that is dropped when it is saved for
    PEFT's plain prefix)."""
    hidden: int = 512
    """Width inside the MLP."""
    prior: dict[str, Any] = field(default_factory=lambda: {"name": "vocabulary"})
    """What the backbone reads to have the first keys and values (ours: a prefix starts as that of a real prompt); with
    the MLP, where its embeddings start."""
    seed: int = 0
    """Seed of the draw from the prior, and of the MLP."""

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.hidden < 1:
            raise WorkbenchError("tokens and hidden of a prefix must be at least 1")
        priors.from_description(self.prior)


class PrefixPrompt(Method):
    """Trained keys and values, before the tokens in every layer.

    >>> method = wb.PrefixPrompt(backbone, tokens=20)

    Args:
        backbone: an attention backbone.
        config: a whole configuration, or the fields of one as keywords, see `PrefixPromptConfig`.

    Attributes:
        layers: without the MLP, for each layer (2, heads, P, head size) float32: keys and values, trained.
        embeddings, mlp: with it, (P, width) float32 and the network.

    Raises:
        WorkbenchError: a backbone with recurrent layers.
    """

    kind = "prefix"
    Config = PrefixPromptConfig

    def __init__(self, backbone: Backbone, config: PrefixPromptConfig | None = None, **fields: Any):
        config = config or PrefixPromptConfig(**described(fields))
        super().__init__(backbone, config)
        if backbone.kind != "attention":
            raise WorkbenchError(
                f"{backbone.name} ({backbone.kind}) has layers without keys and values, so it takes no prefix; "
                "use a soft prompt" + (", or an initial state" if backbone.kind == "recurrent" else "")
            )
        start = self.draw(backbone, config.tokens)
        read = [(layer.keys, layer.values) for layer in remembered(backbone, start).layers]
        self.shapes = [(k.shape[1], k.shape[3]) for k, _ in read]  # heads, head size
        if config.mlp:
            self.embeddings = nn.Parameter(start)
            sizes = [2 * heads * size for heads, size in self.shapes]
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed)
                self.mlp = nn.Sequential(
                    nn.Linear(backbone.width, config.hidden), nn.Tanh(), nn.Linear(config.hidden, sum(sizes))
                ).to(start.device)
        else:
            self.layers = nn.ParameterList([torch.stack([k[0], v[0]]).float() for k, v in read])
        try_out(backbone, self.injection())

    def injection(self) -> Injection:
        """The keys and values, for every row alike."""
        if not self.config.mlp:
            return Injection(keys_values=[(kv[0][None], kv[1][None]) for kv in self.layers])
        pairs = []
        parts = self.mlp(self.embeddings).split([2 * heads * size for heads, size in self.shapes], dim=-1)
        for part, (heads, size) in zip(parts, self.shapes, strict=True):
            kv = part.view(self.config.tokens, 2, heads, size).permute(1, 2, 0, 3)
            pairs.append((kv[0][None], kv[1][None]))
        return Injection(keys_values=pairs)

    def snapshot(self) -> dict[str, Tensor]:
        """`layer 0`, … (P, 2 · heads · head size): each position's keys and values in one row."""
        with torch.no_grad():
            pairs = self.injection().keys_values or ()
            return {
                f"layer {n}": torch.stack([k[0], v[0]]).permute(2, 0, 1, 3).flatten(1).cpu().clone()
                for n, (k, v) in enumerate(pairs)
            }

    @property
    def prompt_length(self) -> int:
        """P."""
        return self.config.tokens

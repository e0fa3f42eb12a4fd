"""LoRA through PEFT: low-rank changes of a backbone's own matrices (Hu et al. 2021, arXiv 2106.09685), the baseline.

Holds the method only. PEFT puts its layers into a view of the backbone, which shares every tensor that it does not
change; the backbone itself never has them, and letting the method go drops the view.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import peft
import torch
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as PEFT_S_CHOICE
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from workbench.backbones.backbone import Backbone
from workbench.backbones.linear_outputs import LowRank, fold, foldable
from workbench.errors import WorkbenchError, unknown
from workbench.methods.injection import Injection
from workbench.methods.method import MERGED, Method
from workbench.settings import check_settings

AUTO = "auto"
_ADAPTER = "default"  # its name inside PEFT


@dataclass(frozen=True)
class LoRAConfig:
    """What a LoRA is before it is trained; PEFT's defaults."""

    rank: int = 8
    """The rank of each matrix's change."""
    alpha: float = 8.0
    """The change is alpha / rank times the product of its two factors."""
    targets: str | tuple[str, ...] = AUTO
    """Linear layers of the blocks, by the end of their names: "q_proj", or "layers.0.mlp.up_proj" for a single one. "auto"
    is PEFT's choice for the architecture, or else all that it can change."""
    seed: int = 0
    """Seed of the first factor; the second starts at zero."""

    def __post_init__(self) -> None:
        if self.targets != AUTO:  # JSON gives a list, a shell one word
            named = (self.targets,) if isinstance(self.targets, str) else tuple(self.targets)
            object.__setattr__(self, "targets", named)
        check_settings(type(self), vars(self), "a LoRA")
        if self.rank < 1:
            raise WorkbenchError(f"a LoRA of rank {self.rank} changes nothing; give rank=1 or more")
        if not self.alpha > 0:
            raise WorkbenchError(
                f"alpha is {self.alpha}, which lets no change through; give a number above 0"
            )
        if not self.targets:
            raise WorkbenchError("targets are empty; name linear layers of the blocks, or leave them at auto")


class LoRA(Method):
    """W + alpha / rank · up · down in place of W, in chosen linear layers. Untrained it is the plain model.

    >>> method = wb.LoRA(backbone, rank=4, targets=("q_proj", "v_proj", "up_proj"))

    The backbone runs in eval mode, so there is no dropout.

    Args:
        backbone: the model that is changed, in a view of it.
        config: a whole configuration, or the fields of one as keywords, see `LoRAConfig`.

    Attributes:
        places: place ("layer 0 self_attn q_proj", …) to the name of that module in the model.
        down: place to (rank, in), started uniform within 1/√in, as PEFT does. Trained.
        up: place to (out, rank), started at zero. Trained. Both are float32, or float64 on a float64 backbone.
        backbone, view: the backbone as it is, and with the change.

    Raises:
        WorkbenchError: targets that the backbone does not have, that PEFT cannot change, or that the backbone does not
            call, so that a change would do nothing.
    """

    kind = "lora"
    Config = LoRAConfig

    def __init__(self, backbone: Backbone, config: LoRAConfig | None = None, **fields: Any):
        config = config or LoRAConfig(**fields)
        super().__init__(backbone, config)
        self.backbone = backbone
        self.places, self.view = _choose(backbone, config)
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        dice = torch.Generator().manual_seed(config.seed)
        for place, (down, up) in _factors(self.view, self.places).items():
            bound = 1 / math.sqrt(down.shape[1])
            with torch.no_grad():
                down.copy_(torch.empty(down.shape).uniform_(-bound, bound, generator=dice))
            self.down[place], self.up[place] = down, up

    def injection(self) -> Injection:
        """The view: the backbone with the change."""
        return Injection(view=self.view)

    @torch.no_grad()
    def merged(self, strength: float = 1.0) -> Backbone:
        """A backbone with the change, as it is now, in its matrices: one that other methods can be trained on.

        >>> wb.SyntheticGradient(lora.merged(), source="tokens")

        Args:
            strength: by what the change is multiplied.

        A view of the backbone that shares every tensor but the changed ones. Nothing of PEFT is in it, and nothing of it has a
        gradient.

        Raises:
            WorkbenchError: a changed layer that is no plain matrix (quantised, say).
        """
        merged = self.backbone.view()
        merged.name = self.backbone.name + MERGED
        changes = {}
        for place, name in self.places.items():
            layer = merged.model.get_submodule(name)
            if not foldable(layer):
                raise WorkbenchError(
                    f"{place} of {self.backbone.name} is a {type(layer).__name__}, no plain matrix that a change can be added "
                    "to; load the backbone without quantisation, or use the LoRA as a method"
                )
            up = self.up[place] * (strength * self.config.alpha / self.config.rank)
            changes[name] = LowRank(up[None], self.down[place][None])
        fold(merged.model, changes)
        return merged

    @torch.no_grad()
    def snapshot(self) -> dict[str, Tensor]:
        """For each place the singular values of its change, the largest first: (rank,), or fewer in a thin matrix."""
        found = {}
        for place, down in self.down.items():
            # up = Q R and downᵀ = P S, so up · down = Q (R Sᵀ) Pᵀ has the singular values of the small R Sᵀ
            r, s = (torch.linalg.qr(factor.float().cpu()).R for factor in (self.up[place], down.T))
            found[place] = torch.linalg.svdvals(r @ s.T) * self.config.alpha / self.config.rank
        return found

    @property
    def prompt_length(self) -> int:
        """0: a change of weights takes no position."""
        return 0


def linear_layers(backbone: Backbone) -> dict[str, str]:
    """The linear layers of the blocks: place ("layer 0 self_attn q_proj") to the module's name in the model."""
    names = {module: name for name, module in backbone.model.named_modules()}
    return {
        f"layer {index} {path.replace('.', ' ')}": names[module]
        for index, block in enumerate(backbone.layers)
        for path, module in block.named_modules()
        if isinstance(module, Conv1D) or hasattr(module, "in_features")
    }


def _choose(backbone: Backbone, config: LoRAConfig) -> tuple[dict[str, str], Backbone]:
    """The places that the configuration means, and a view of the backbone with PEFT's layers there."""
    have = linear_layers(backbone)
    if config.targets != AUTO:
        for target in config.targets:
            if not _named(have, [target]):
                known = {name.rpartition(".")[2] for name in have.values()}
                raise unknown(f"linear layer in the blocks of {backbone.name}", target, known)
        chosen = _named(have, config.targets)
        return chosen, _inject(backbone, chosen, config)
    usual = PEFT_S_CHOICE.get(backbone.model.config.model_type)
    chosen = (usual and _named(have, usual)) or have
    try:
        return chosen, _inject(backbone, chosen, config)
    except WorkbenchError:  # then all that can be changed
        alike: dict[str, dict[str, str]] = defaultdict(dict)
        for place, name in chosen.items():
            alike[name.rpartition(".")[2]][place] = name
        left: dict[str, str] = {}
        for part in alike.values():
            try:
                _inject(backbone, part, config)
                left |= part
            except WorkbenchError:
                continue
        if not left:
            raise
        chosen = {place: name for place, name in chosen.items() if place in left}
        return chosen, _inject(backbone, chosen, config)


def _named(have: Mapping[str, str], targets: str | Sequence[str]) -> dict[str, str]:
    """Those whose names end so or, where PEFT's choice is one pattern, match it."""
    if isinstance(targets, str):
        return {place: name for place, name in have.items() if re.fullmatch(targets, name)}
    ends = tuple("." + target for target in targets)
    return {place: name for place, name in have.items() if f".{name}".endswith(ends)}


def _inject(backbone: Backbone, places: Mapping[str, str], config: LoRAConfig) -> Backbone:
    """A view of the backbone in which PEFT's layers, still without effect, stand in the given places.

    Raises:
        WorkbenchError: a place that PEFT does not change, or that the backbone's forward does not call.
    """
    view = backbone.view()
    adapter = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # PEFT divides by the rank, and takes any number
        target_modules=list(places.values()),
        fan_in_fan_out=any(isinstance(view.model.get_submodule(name), Conv1D) for name in places.values()),
    )
    try:
        with torch.random.fork_rng(devices=[]):  # PEFT throws the dice of the whole process, and for nothing
            peft.inject_adapter_in_model(adapter, view.model, _ADAPTER)
    except (ValueError, NotImplementedError, ImportError) as error:
        text = " ".join(str(error).split())
        raise WorkbenchError(f"PEFT cannot change {backbone.name} there: {text[:240]}") from error
    untouched = [name for name in places.values() if not hasattr(view.model.get_submodule(name), "lora_A")]
    if untouched:  # it takes some names for a mixture's experts wherever they stand, as in Qwen3-Next
        raise WorkbenchError(
            f"PEFT changes something else in {backbone.name} ({type(backbone.model).__name__}) than {untouched[0]}; leave "
            "it out of the targets"
        )
    view.model.eval()
    for factor in (factor for pair in _factors(view, places).values() for factor in pair):
        if factor.dtype.itemsize < 4:  # small steps would be lost in bfloat16
            factor.data = factor.data.float()
    silent = _without_gradient(view, places)
    if silent:
        raise WorkbenchError(
            f"a run of {backbone.name} ({type(backbone.model).__name__}) does not call {silent[0]}, though it may read "
            "that weight, so a LoRA there would do nothing; leave it out of the targets"
        )
    return view


@torch.enable_grad()
def _without_gradient(view: Backbone, places: Mapping[str, str]) -> list[str]:
    """The places whose change no logit would feel, found by running a few tokens and going back."""
    ups = {place: up for place, (_, up) in _factors(view, places).items()}
    ids = torch.arange(min(8, view.vocabulary_size), device=view.device)[None]
    logits = view.runner(view.embed(ids), torch.ones_like(ids, dtype=torch.bool), ids).logits
    if not logits.requires_grad:
        return list(ups)
    found = torch.autograd.grad(logits.sum(), list(ups.values()), allow_unused=True)
    return [place for place, gradient in zip(ups, found, strict=True) if gradient is None]


def _factors(view: Backbone, places: Mapping[str, str]) -> dict[str, tuple[nn.Parameter, nn.Parameter]]:
    """The parameters that PEFT's layers use: place to (rank, in) and (out, rank)."""
    layers: dict[str, Any] = {place: view.model.get_submodule(name) for place, name in places.items()}
    return {
        place: (layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight)
        for place, layer in layers.items()
    }

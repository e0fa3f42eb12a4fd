"""The attention weights of a backbone, layer by layer, without a change in it.

Fused attention never makes the weights, so the model is run in a view of it whose attention is transformers' own "eager" form: the
same tensors, the same function to rounding, its weights written down by hooks on the view's modules. What an attention module is
is found by what it gives, a pair with (B, heads, T, S) second, not by its class.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError

_found: ContextVar[dict[int, Tensor] | None] = ContextVar("attention weights", default=None)


class AttentionWeights:
    """A view of a backbone whose attention weights can be seen.

    >>> weights = AttentionWeights(backbone)
    >>> with weights.kept() as found:
    ...     weights.view.runner(embeddings, mask, positions)
    >>> found[0]                                            # (B, heads, T, S), of layer 0

    Attributes:
        view: the backbone to run; the one that it was made of stays as it is.
        layers: those that have attention.

    Raises:
        WorkbenchError: a backbone whose layers give no attention weights.
    """

    def __init__(self, backbone: Backbone):
        self.view = backbone.view()
        name = f"{backbone.name} ({backbone.kind})"
        try:
            self.view.model.set_attn_implementation("eager")
        except (ValueError, NotImplementedError, AttributeError) as error:
            raise WorkbenchError(
                f"{name} cannot run the attention that shows its weights ({' '.join(str(error).split())[:120]}); "
                "leave attention_mass out"
            ) from error
        for index, layer in enumerate(self.view.layers):
            for module in layer.modules():
                module.register_forward_hook(_hook(index))
        self.layers = self._try()
        if not self.layers:
            raise WorkbenchError(
                f"{name} has no layer that shows attention weights; leave attention_mass out"
            )

    @contextmanager
    def kept(self) -> Iterator[dict[int, Tensor]]:
        """Within the block, each run of the view puts its weights here, by the layer."""
        found: dict[int, Tensor] = {}
        token = _found.set(found)
        try:
            yield found
        finally:
            _found.reset(token)

    @torch.no_grad()
    def _try(self) -> list[int]:
        embeddings = self.view.vocabulary()[:2][None]
        mask = torch.ones(1, 2, dtype=torch.bool, device=embeddings.device)
        with self.kept() as found:
            self.view.runner(embeddings, mask, torch.arange(2, device=embeddings.device)[None])
        return sorted(found)


def _hook(layer: int) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        found = _found.get()
        if found is None or not isinstance(output, tuple) or len(output) < 2:
            return
        weights = output[1]
        if isinstance(weights, Tensor) and weights.dim() == 4:
            found[layer] = weights

    return hook

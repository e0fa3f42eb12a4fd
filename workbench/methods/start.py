"""What stands before every row: a cache of K rows, made from the sites of an injection that come before all else.

    keys and values      are a cache
    a state              is a cache
    vectors at layers    are read once by the model, each from its layer on, and leave a cache behind

Made once for each run and then shared by the rows, as a prompt's own cache is. Where a backbone cannot go on
from such a cache exactly, the site is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.backbones import rwkv
from workbench.backbones.backbone import Backbone
from workbench.backbones.layer_inputs import reading
from workbench.errors import WorkbenchError
from workbench.methods.injection import Injection


@dataclass(frozen=True)
class Start:
    """A cache before the first token.

    cache: of K rows; never written to, `runner.expand` gives each user its own.
    columns: how many columns of an attention mask it stands for (its keys in layer 0).
    positions: position ids that it takes.
    widths: its keys in each layer, where they are not all `columns`.
    """

    cache: Any
    columns: int
    positions: int
    widths: tuple[int, ...] | None = None

    def mask(self, layer: int, mask: Tensor | None, hidden: Tensor) -> Tensor | None:
        """The attention mask of a layer whose cache is wider or narrower than layer 0's: the start is always seen."""
        assert self.widths is not None
        more, new = self.widths[layer] - self.columns, hidden.shape[1]
        if mask is None:  # left out by transformers: one new token sees all, and many see all before them
            if new == 1 or more == 0:
                return None
            ones = torch.ones(new, more + new, dtype=torch.bool, device=hidden.device)
            return ones.tril(more)[None, None]
        if more <= 0:
            return mask[..., -more:]
        seen = mask.new_ones(1) if mask.dtype == torch.bool else mask.new_zeros(1)
        return torch.cat([seen.expand(*mask.shape[:-1], more), mask], dim=-1)


def make_start(backbone: Backbone, injection: Injection) -> Start | None:
    """The cache that an injection's front sites amount to; None without such sites.

    Raises:
        WorkbenchError: a site that this backbone cannot serve.
    """
    sites = {
        "keys and values before the tokens": injection.keys_values,
        "vectors at layers": injection.layer_embeddings,
        "an initial state": injection.state,
    }
    asked = [name for name, site in sites.items() if site is not None]
    if not asked:
        return None
    if len(asked) > 1:
        raise WorkbenchError(f"{asked[0]} and {asked[1]} cannot be injected together; choose one of them")
    if not backbone.layouts.shared_prefix:
        raise WorkbenchError(
            f"{backbone.name} cannot be given {asked[0]}: several tokens behind a cache come out wrong in it "
            f"({type(backbone.model).__name__}); use a soft prompt"
        )
    if injection.state is not None:
        if not isinstance(injection.state, rwkv.State) or not backbone.runner.grows:
            raise WorkbenchError(f"{backbone.name} has no initial state to train; use an RWKV backbone")
        return Start(injection.state, 0, 0)
    if injection.keys_values is not None:
        _check_attention(backbone, asked[0])
        pairs = [(k.to(backbone.device, backbone.dtype), v.to(backbone.device, backbone.dtype))
                 for k, v in injection.keys_values]  # fmt: skip
        size = pairs[0][0].shape[2]
        return Start(backbone.runner.remember(pairs), size, size)
    assert injection.layer_embeddings is not None
    vectors = {
        layer: v.to(backbone.device, backbone.dtype)
        for layer, v in sorted(injection.layer_embeddings.items())
    }
    if backbone.kind == "recurrent":
        return _grown(backbone, vectors, injection.cut)
    _check_attention(backbone, asked[0])
    return _read_once(backbone, vectors, injection.cut)


def _check_attention(backbone: Backbone, what: str) -> None:
    if backbone.kind != "attention":
        raise WorkbenchError(
            f"{backbone.name} ({backbone.kind}) cannot be given {what}: its recurrent layers keep no keys and values; "
            "use a soft prompt"
        )


def _grown(backbone: Backbone, vectors: Mapping[int, Tensor], cut: bool) -> Start:
    """A recurrence reads each layer's vectors from that layer on; what it remembers of them is the start."""
    if not backbone.runner.grows:
        raise WorkbenchError(
            f"{backbone.name} ({type(backbone.model).__name__}) cannot be given vectors at layers: its layers all read "
            "as many positions as the first; use a soft prompt"
        )
    if cut:
        raise WorkbenchError(
            f"{backbone.name} is recurrent: a layer's vectors stay in its state and cannot be cut from its output; "
            "use the form in which the sequence stays longer"
        )

    def grow(layer: int, hidden: Tensor) -> Tensor:
        return torch.cat([vectors[layer], hidden], dim=1) if layer in vectors else hidden

    first = next(iter(vectors.values()))
    nothing = first.new_zeros(len(first), 0, first.shape[2])
    none = torch.ones(len(first), 0, dtype=torch.bool, device=first.device)
    with reading(grow):
        cache = backbone.runner(nothing, none, none.long(), use_cache=True).cache
    return Start(cache, 0, 0)


def _read_once(backbone: Backbone, vectors: Mapping[int, Tensor], cut: bool) -> Start:
    """Attention reads all vectors in one run, each hidden from the layers in which it does not stand.

    In the sequence the deepest layer's vectors come first, as each layer puts its own before what it is given. They
    see no token, so what they are in any layer is known beforehand, and the tokens need only their keys and values.
    """
    if backbone.model.config._attn_implementation not in ("sdpa", "eager"):
        raise WorkbenchError(
            "vectors at layers need attn_implementation='sdpa' or 'eager', which take a mask for each layer"
        )
    order = sorted(vectors, reverse=True)
    enters = torch.tensor([layer for layer in order for _ in range(vectors[layer].shape[1])])
    size = len(enters)
    place = {layer: slice(int((enters > layer).sum()), int((enters >= layer).sum())) for layer in order}
    like = vectors[order[0]]
    count = len(like)

    def stands(layer: int) -> Tensor:
        return (enters == layer if cut else enters <= layer).to(like.device)

    def put(layer: int, hidden: Tensor) -> Tensor:
        if layer not in vectors:
            return hidden
        at = place[layer]
        return torch.cat([hidden[:, : at.start], vectors[layer], hidden[:, at.stop :]], dim=1)

    def masks(layer: int, mask: Tensor | None, hidden: Tensor) -> Tensor:
        seen = torch.ones(size, size, dtype=torch.bool, device=like.device).tril() & stands(layer)[None]
        seen = (seen | torch.eye(size, dtype=torch.bool, device=like.device))[None, None]
        if mask is None or mask.dtype == torch.bool:
            return seen
        return torch.zeros_like(seen, dtype=mask.dtype).masked_fill(~seen, torch.finfo(mask.dtype).min)

    ones = torch.ones(count, size, dtype=torch.bool, device=like.device)
    keep = torch.zeros_like(ones)
    keep[:, -1] = True
    positions = torch.arange(size, device=like.device).expand(count, -1)
    with reading(put, masks=masks):
        nothing = like.new_zeros(count, size, like.shape[2])
        cache = backbone.runner(nothing, ones, positions, use_cache=True, keep=keep).cache
    if any(getattr(layer, "is_sliding", False) for layer in cache.layers):
        raise WorkbenchError(
            f"{backbone.name} has layers that see a window of the text only, where vectors at layers are lost; "
            "use a soft prompt or a backbone with full attention in every layer"
        )
    widths = []
    for index, layer in enumerate(cache.layers):
        here = stands(index).nonzero()[:, 0]
        layer.keys, layer.values = layer.keys.index_select(2, here), layer.values.index_select(2, here)
        widths.append(len(here))
    return Start(cache, widths[0], size, tuple(widths))

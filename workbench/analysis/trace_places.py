"""Places: where in a backbone a trace looks, by name. Names and reads them; runs nothing.

embeddings           what the embedding module returns for a token
layer 0, layer 1 …   what that block reads, as `surroundings.py` calls it
output               what the last block gives, before the final norm
state 0, state 1 …   what that layer of a recurrent backbone remembers after a token
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from workbench.analysis.surroundings import EMBEDDINGS
from workbench.backbones import rwkv
from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError, unknown

#: The last block's output.
OUTPUT = "output"

Layers = str | int | Sequence[str | int]
"""A name, a number (a layer; -1 is the last), "all" (every layer and the output), "states", or several of these."""


def place_names(backbone: Backbone, layers: Layers = "all") -> tuple[str, ...]:
    """The places asked for, each once: embeddings, layers in order, output, states in order.

    Raises:
        WorkbenchError: no such place, or a state that cannot be read.
    """
    asked = [layers] if isinstance(layers, str | int) else list(layers)
    inner = [f"layer {i}" for i in range(backbone.num_layers)]
    states = [f"state {i}" for i in range(backbone.num_layers)]
    known = [EMBEDDINGS, *inner, OUTPUT, *states]
    found: set[str] = set()
    for name in asked:
        if isinstance(name, int) and -len(inner) <= name < len(inner):
            found.add(inner[name])
        elif name == "all":
            found |= {*inner, OUTPUT}
        elif name == "states":
            found |= set(states)
        elif name in known:
            found.add(str(name))
        else:
            raise unknown(f"place in {backbone.name}", str(name), ["all", "states", *known])
    if not found:
        raise WorkbenchError("no layer is named; give layers='all', or names such as 'layer 0'")
    if found & set(states):
        _check_states(backbone)
    return tuple(name for name in known if name in found)


def layer_number(backbone: Backbone, place: str) -> int | None:
    """As `layer_inputs.Look` numbers it: 0 for "layer 0", the number of layers for "output"; None for the others."""
    if place == OUTPUT:
        return backbone.num_layers
    number = re.fullmatch(r"layer (\d+)", place)
    return int(number[1]) if number else None


def state_number(place: str) -> int | None:
    """0 for "state 0"; None for what is no state."""
    number = re.fullmatch(r"state (\d+)", place)
    return int(number[1]) if number else None


def state_vectors(state: rwkv.State, layer: int) -> Tensor:
    """(B, 2 A + 2 d): what one layer of RWKV remembers of each row, as `InitialState` trains it (ours).

    The weighted mean of the values, and the logarithm of its weight (A each: the same memory has many numerators,
    denominators and scales, but one mean and one weight), then the shifts of attention and feed-forward (d each).
    """
    one = state.layer(layer)
    mean, weight = one.numerator / one.denominator, one.denominator.log() + one.maximum
    return torch.cat([mean, weight, one.attention_shift.to(mean), one.feed_forward_shift.to(mean)], dim=-1)


def _check_states(backbone: Backbone) -> None:
    if backbone.kind == "attention":
        raise WorkbenchError(
            f"{backbone.name} is an attention model and has no recurrent state; trace its layers, or an RWKV backbone"
        )
    if not backbone.runner.grows or not backbone.layouts.decoding:
        raise WorkbenchError(
            f"the recurrent states of {backbone.name} ({type(backbone.model).__name__}) have no reader that is proven; "
            "trace its layers, or an RWKV backbone"
        )

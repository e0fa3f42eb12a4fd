"""Places: where in a backbone a trace looks, by name. Names and reads them; runs nothing.

embeddings           what the embedding module returns for a token
layer 0, layer 1 …   what that block reads, as `surroundings.py` calls it
output               what the last block gives, before the final norm
state 0, state 1 …   what that layer of a recurrent or hybrid backbone remembers after a token, see `states.py`
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Sequence

from workbench.analysis.surroundings import EMBEDDINGS
from workbench.backbones.backbone import Backbone
from workbench.backbones.states import check_layers, state_sizes
from workbench.errors import WorkbenchError, unknown

#: The last block's output.
OUTPUT = "output"

Layers = str | int | Sequence[str | int]
"""A name, a number (a layer; -1 is the last), "all" (every layer and the output), "states" (of every layer that has one), or
several of these."""


def place_names(backbone: Backbone, layers: Layers = "all") -> tuple[str, ...]:
    """The places asked for, each once: embeddings, layers in order, output, states in order.

    Raises:
        WorkbenchError: no such place, or a state that cannot be read.
    """
    inner = [f"layer {i}" for i in range(backbone.num_layers)]
    states = [f"state {i}" for i in range(backbone.num_layers)]
    known = [EMBEDDINGS, *inner, OUTPUT, *states]
    found: set[str] = set()
    for name in _listed(layers):
        if isinstance(name, int) and -len(inner) <= name < len(inner):
            found.add(inner[name])
        elif name == "all":
            found |= {*inner, OUTPUT}
        elif name == "states":
            found |= {states[layer] for layer in state_sizes(backbone)}
        elif name in known:
            found.add(str(name))
        else:
            raise unknown(f"place in {backbone.name}", str(name), ["all", "states", *known])
    if not found:
        raise WorkbenchError("no layer is named; give layers='all', or names such as 'layer 0'")
    named = [layer for layer, name in enumerate(states) if name in found]
    if named:
        check_layers(backbone, named)
    return tuple(name for name in known if name in found)


def _listed(layers: Layers) -> list[str | int]:
    """Names and numbers, of whatever type of integer."""
    try:
        asked = list(layers) if isinstance(layers, Iterable) and not isinstance(layers, str) else [layers]
        return [name if isinstance(name, str) else operator.index(name) for name in asked]
    except TypeError:
        raise WorkbenchError(
            f"layers is {layers!r}; give 'all', 'states', names such as 'layer 0', or numbers"
        ) from None


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

"""State that a model leaves on its modules, carried in its cache instead.

RecurrentGemma keeps what its recurrence remembers in attributes of its modules: the next run finds it, whichever thread
that is in, and no cache goes on from it. Here a run begins with what its cache remembers in those places, ends with what
they hold taken back into the cache, and leaves nothing behind. Found by looking, never by a class's name. The caller sees
to it that one run at a time is in here.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

Places = Mapping[int, Sequence[tuple[str, str]]]
"""Block from 0 to the (module, attribute) pairs of it in which a run leaves a tensor."""


def find(model: nn.Module, run: Callable[[], object]) -> Places:
    """Where `run` leaves tensors outside parameters and buffers.

    A block's number is the first one in its modules' names; what lies in no block has -1.
    """
    before = _left(model)
    run()
    found: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for name, attribute in sorted(_left(model) - before):
        number = re.search(r"\d+", name)
        found[int(number[0]) if number else -1].append((name, attribute))
    return dict(found)


def carries(places: Places, cache: Any) -> bool:
    """Whether a fresh cache of the model has room for what is left in these places."""
    return all(
        0 <= block < len(cache.layers) and hasattr(cache.layers[block], "recurrent_states")
        for block in places
    )


@contextmanager
def carried(model: nn.Module, places: Places, cache: Any | None) -> Iterator[None]:
    """Around one run: the places begin with the cache's states, and its states end with what they hold.

    Args:
        model: what is run within the block.
        places: as found.
        cache: a cache that `carries` them, written to; None where nothing was read and nothing is to be kept.
    """
    states: dict[tuple[str, str], Tensor] = {}
    if cache is not None:
        for block, names in places.items():
            known = cache.layers[block].recurrent_states
            states |= {name: known[i] for i, name in enumerate(names) if known.get(i) is not None}
    try:
        _fill(model, places, states)
        yield
        if cache is not None:
            for block, names in places.items():
                _keep(cache.layers[block], [getattr(model.get_submodule(name), key) for name, key in names])
    finally:
        _fill(model, places, {})


def _fill(model: nn.Module, places: Places, states: Mapping[tuple[str, str], Tensor]) -> None:
    for names in places.values():
        for name, attribute in names:
            setattr(model.get_submodule(name), attribute, states.get((name, attribute)))


def _keep(entry: Any, tensors: Sequence[Tensor]) -> None:
    """Put tensors into a `LinearAttentionLayer`, as its recurrent states from 0 on; its dicts may be another's, too."""
    numbers = range(len(tensors))
    entry.number_of_states = len(tensors)
    entry.conv_states, entry.conv_kernel_size = dict.fromkeys(numbers), dict.fromkeys(numbers)
    entry.recurrent_states = dict(enumerate(tensors))
    entry.is_conv_states_initialized = dict.fromkeys(numbers, False)
    entry.is_recurrent_states_initialized = dict.fromkeys(numbers, True)
    entry.has_previous_state = dict.fromkeys(numbers, True)
    entry.device, entry.dtype = tensors[0].device, tensors[0].dtype


def _left(model: nn.Module) -> set[tuple[str, str]]:
    """Tensors that hang on modules outside parameters and buffers, as (module, attribute)."""
    return {
        (name, key)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, Tensor)
    }

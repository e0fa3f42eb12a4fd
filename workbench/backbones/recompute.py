"""Layers run again in the backward pass instead of being remembered: gradient checkpointing, off unless asked for.

    with recomputing():                 # the forward pass; the backward may come after the block, in any thread
        logits, targets = answer_logits(...)

Of each layer only the input is kept, and its insides are computed again when its gradient is due (Chen et al. 2016,
arXiv 1604.06174, one segment a layer). Same bits, less memory, one forward pass more. transformers' own does it only
in train mode, where models drop out, and then drops the cache, and with it every prompt that lives in one; here a
layer's second run is handed the cache as it was before the first. `install` is called once, when a backbone is made;
recurrences of our own (`rwkv.forward`) call `run` themselves. It knows no method, and draws nothing: a layer that
drops out at random must not be recomputed.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar, copy_context
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import Cache

_on: ContextVar[bool] = ContextVar("recomputing", default=False)
_model: ContextVar[tuple[AbstractContextManager[Any], bool]] = ContextVar("lock, whether its cache is kept")


@contextmanager
def recomputing(on: bool = True) -> Iterator[None]:
    """Within the block, what a layer computes with gradients is not kept but computed again in the backward pass."""
    token = _on.set(on)
    try:
        yield
    finally:
        _on.reset(token)


@contextmanager
def model_run(lock: AbstractContextManager[Any], keeps_cache: bool) -> Iterator[None]:
    """Around a run of a model of transformers.

    Args:
        lock: held now, and again by each layer that is computed anew in the backward pass.
        keeps_cache: whether what the layers write into their caches is wanted; else it is let go layer by layer.
    """
    token = _model.set((lock, keeps_cache))
    try:
        with lock:
            yield
    finally:
        _model.reset(token)


def install(layers: Sequence[nn.Module]) -> None:
    """Have every layer of a model look whether it is to be recomputed, once.

    What is set is a partial of a bound method, which `copy.deepcopy` makes the copied layer's own.
    """
    for index, layer in enumerate(layers):
        if getattr(layer.forward, "func", None) is not run:
            layer.forward = functools.partial(run, layer.forward, index)


def run(forward: Callable[..., Any], index: int, *args: Any, **kwargs: Any) -> Any:
    """`forward(*args, **kwargs)` of layer `index`, from 0; within `recomputing` it will be run again for its gradient.

    `forward` changes nothing but the caches of transformers among its arguments.
    """
    if not (_on.get() and torch.is_grad_enabled()):
        return forward(*args, **kwargs)
    lock, keeps_cache = _model.get((nullcontext(), True))
    context = (
        copy_context()
    )  # the backward pass has other context variables, and hooks inside the layer read them
    first = [(args, kwargs) if keeps_cache else _before(index, args, kwargs)]

    def layer(*args: Any, **kwargs: Any) -> Any:
        if first:
            args, kwargs = first.pop()  # so that a cache that was written into is not held here
            return forward(*args, **kwargs)
        args, kwargs = _before(index, args, kwargs)
        with lock:
            return context.run(forward, *args, **kwargs)

    args, kwargs = _before(index, args, kwargs)
    return checkpoint(layer, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


def _before(
    index: int, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments, each cache among them as a copy that layer `index` may write into."""

    def own(value: Any) -> Any:
        return _cache_of(index, value) if isinstance(value, Cache) else value

    return tuple(own(value) for value in args), {name: own(value) for name, value in kwargs.items()}


def _cache_of(index: int, cache: Cache) -> Cache:
    """The same cache with an entry of its own for layer `index`, if it has one yet."""
    made = copy.copy(cache)
    made.layers = list(cache.layers)
    if index < len(made.layers):
        entry = made.layers[index] = copy.copy(made.layers[index])
        for name, value in vars(entry).items():
            if isinstance(value, dict):  # states, written in place where keys and values are replaced
                states = {k: v.clone() if isinstance(v, Tensor) else v for k, v in value.items()}
                setattr(entry, name, states)
    return made

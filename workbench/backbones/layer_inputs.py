"""What each layer reads, seen and changed from outside: one hook a layer, which does nothing unless asked.

    with reading(edit):                 # edit(layer, hidden) -> hidden, (B, T, width) in and out
        backbone.runner(...)

The hooks are put on once, when a backbone is made, and look into a context variable: two jobs in two threads
on one model do not meet, and outside `reading` the model is what it was. Recurrences of our own
(`rwkv.forward`) have no hooks and call `edited` themselves. It knows no method and no prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn

Edit = Callable[[int, Tensor], Tensor]
"""(layer from 0, hidden (B, T, width)) to the hidden states that the layer reads instead."""

_edits: ContextVar[tuple[Edit, ...]] = ContextVar("layer inputs", default=())


@contextmanager
def reading(*edits: Edit) -> Iterator[None]:
    """Within the block, every layer reads what the edits make of its input, one after another."""
    token = _edits.set((*_edits.get(), *edits))
    try:
        yield
    finally:
        _edits.reset(token)


def edited(layer: int, hidden: Tensor) -> Tensor:
    """What a layer reads now."""
    for edit in _edits.get():
        hidden = edit(layer, hidden)
    return hidden


def install(layers: Sequence[nn.Module]) -> None:
    """Put the hook on every layer of a model, once."""
    for index, layer in enumerate(layers):
        if not any(getattr(hook, "of_workbench", False) for hook in layer._forward_pre_hooks.values()):
            layer.register_forward_pre_hook(_hook(index), with_kwargs=True)


def _hook(index: int) -> Callable[..., Any]:
    def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not _edits.get():
            return None
        if args:
            return (edited(index, args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": edited(index, kwargs["hidden_states"])}

    hook.of_workbench = True  # type: ignore[attr-defined]
    return hook

"""What each layer reads, seen and changed from outside: one hook a layer, which does nothing unless asked.

    with reading(edit):                 # edit(layer, hidden) -> hidden, (B, T, width) in and out; what the last one gives, too
        backbone.runner(...)
    with reading(masks=change):         # change(layer, mask or None, hidden) -> the attention mask of that layer
        backbone.runner(...)
    with seeing(look):                  # look(layer, hidden): what each layer reads, and what the last one gives
        backbone.runner(...)

The hooks are put on once, when a backbone is made, and look into a context variable: two jobs in two threads
on one model do not meet, and outside `reading` the model is what it was. Recurrences of our own
(`rwkv.forward`) have no hooks and call `edited` themselves. It knows no method and no prompt.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn

Edit = Callable[[int, Tensor], Tensor]
"""(layer from 0, hidden (B, T, width)) to the hidden states that the layer reads instead; layer L of L layers is what the last
one gives, before any norm."""

MaskEdit = Callable[[int, Tensor | None, Tensor], Tensor | None]
"""(layer from 0, what transformers gives it as attention mask, hidden) to the mask that it takes instead."""

Look = Callable[[int, Tensor], None]
"""(layer from 0, the hidden states that it reads), and what the last layer gives, as in `Edit`."""

_looks: ContextVar[tuple[Look, ...]] = ContextVar("who looks at layers", default=())
_edits: ContextVar[tuple[Edit, ...]] = ContextVar("layer inputs", default=())
_masks: ContextVar[MaskEdit | None] = ContextVar("layer masks", default=None)


@contextmanager
def reading(*edits: Edit, masks: MaskEdit | None = None) -> Iterator[None]:
    """Within the block, every layer reads what the edits make of its input, one after another.

    `masks` changes the layers' attention masks instead of an outer block's `masks`, if it is given.
    """
    token = _edits.set((*_edits.get(), *edits))
    before = _masks.set(masks or _masks.get())
    try:
        yield
    finally:
        _edits.reset(token)
        _masks.reset(before)


@contextmanager
def seeing(look: Look) -> Iterator[None]:
    """Within the block, `look` is shown what every layer reads after all edits, and last what the last one gives."""
    token = _looks.set((*_looks.get(), look))
    try:
        yield
    finally:
        _looks.reset(token)


def edited(layer: int, hidden: Tensor) -> Tensor:
    """What a layer reads now, shown to whoever looks."""
    for edit in _edits.get():
        hidden = edit(layer, hidden)
    for look in _looks.get():
        look(layer, hidden)
    return hidden


def install(layers: Sequence[nn.Module]) -> None:
    """Put the hooks on the layers of a model, once."""
    last = layers[-1]
    if not any(getattr(hook, "of_workbench", False) for hook in last._forward_hooks.values()):
        last.register_forward_hook(_last_hook(len(layers)))
    for index, layer in enumerate(layers):
        if not any(getattr(hook, "of_workbench", False) for hook in layer._forward_pre_hooks.values()):
            # GPT-2 hands the mask over by position, others by name
            names = list(inspect.signature(type(layer).forward).parameters)[1:]
            place = names.index("attention_mask") if "attention_mask" in names else len(names)
            layer.register_forward_pre_hook(_hook(index, place), with_kwargs=True)


def _last_hook(count: int) -> Callable[..., Any]:
    """The hook on what the last of `count` layers gives."""

    def hook(layer: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if not _edits.get() and not _looks.get():
            return None
        if isinstance(output, tuple):
            return (edited(count, output[0]), *output[1:])
        return edited(count, output)

    hook.of_workbench = True  # type: ignore[attr-defined]
    return hook


def _hook(index: int, place: int) -> Callable[..., Any]:
    """The hook of layer `index`, whose attention mask is its argument number `place`."""

    def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        masks = _masks.get()
        if not _edits.get() and not _looks.get() and masks is None:
            return None
        if args:
            args = (edited(index, args[0]), *args[1:])
            hidden = args[0]
        else:
            hidden = edited(index, kwargs["hidden_states"])
            kwargs = {**kwargs, "hidden_states": hidden}
        if masks is not None and len(args) > place:
            args = (*args[:place], masks(index, args[place], hidden), *args[place + 1 :])
        elif masks is not None:
            kwargs = {**kwargs, "attention_mask": masks(index, kwargs.get("attention_mask"), hidden)}
        return args, kwargs

    hook.of_workbench = True  # type: ignore[attr-defined]
    return hook

"""What chosen linear layers give, seen and changed from outside: hooks that do nothing unless asked.

    install(view.model, names)          # once, on a view of a backbone that is one's own
    with editing(edit):                 # edit(name, input, output) -> output, (B, T, in) and (B, T, out)
        view.runner(...)
    with editing(changed(changes)):     # a low-rank change of each matrix, each row its own
        view.runner(...)

No weight is ever written: a change is added to what its layer gives. The hooks look into a context variable, so two
threads on one model do not meet. It knows no method, and not where changes come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from workbench.errors import WorkbenchError

Edit = Callable[[str, Tensor, Tensor], Tensor]
"""(name of the layer in its model, input (B, T, in), output (B, T, out)) to what it gives instead."""

_edits: ContextVar[tuple[Edit, ...]] = ContextVar("outputs of linear layers", default=())
_order: ContextVar[Tensor | None] = ContextVar("order of positions inside a recurrence", default=None)


class LowRank(NamedTuple):
    """A change of one matrix for each of B rows: up · down, of rank r."""

    up: Tensor
    """(B, out, r)"""
    down: Tensor
    """(B, r, in)"""

    def select(self, rows: Tensor) -> LowRank:
        """The changes of the named rows."""
        return LowRank(self.up[rows], self.down[rows])

    def dense(self) -> Tensor:
        """(B, out, in)"""
        return self.up @ self.down

    def __call__(self, x: Tensor) -> Tensor:
        """What the change adds for inputs (B, T, in): (B, T, out)."""
        down, up = self.down.transpose(1, 2).to(x.dtype), self.up.transpose(1, 2).to(x.dtype)
        return x @ down @ up


Changes = Mapping[str, LowRank]
"""Name of a linear layer in its model to the change of its matrix."""


@contextmanager
def editing(*edits: Edit) -> Iterator[None]:
    """Within the block, the installed layers give what the edits make of their outputs, one after another."""
    token = _edits.set((*_edits.get(), *edits))
    try:
        yield
    finally:
        _edits.reset(token)


def changed(changes: Changes, gate: Tensor | None = None) -> Edit:
    """The edit by which each matrix is changed.

    Args:
        changes: of B rows each, or of one row that stands for all.
        gate: (B, T) bool, the positions that read the changed matrix; None: all of them.
    """

    def edit(name: str, x: Tensor, output: Tensor) -> Tensor:
        change = changes.get(name)
        if change is None:
            return output
        added = change(x)
        if gate is not None:
            order = _order.get()
            here = gate if order is None else gate.gather(1, order)
            added = torch.where(here[..., None], added, added.new_zeros(()))
        return output + added

    return edit


@contextmanager
def reordered(order: Tensor | None) -> Iterator[None]:
    """Within the block, position t of a layer's input is the caller's position `order[:, t]` (B, T)."""
    token = _order.set(order)
    try:
        yield
    finally:
        _order.reset(token)


def install(model: nn.Module, names: Iterable[str]) -> None:
    """Put the hooks on the named layers, once."""
    for name in names:
        layer = model.get_submodule(name)
        if not any(map(_is_ours, layer._forward_hooks.values())):
            layer.register_forward_hook(_hook(name))


def _hook(name: str) -> Callable[..., Any]:
    def hook(layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        edits = _edits.get()
        if not edits:
            return None
        for edit in edits:
            output = edit(name, args[0], output)
        return output

    return hook


def _is_ours(hook: Any) -> bool:
    """Whether it stands in this file: other hooks, of `layer_inputs` among them, are not ours to count or take off."""
    return getattr(hook, "__module__", None) == __name__


def fold(model: nn.Module, changes: Changes) -> None:
    """Put matrices with their changes (of one row) in place of the named layers' own, in a model that is one's own.

    What was there is left as it is: a new tensor takes its place, and every other tensor stays shared. The model's hooks are
    taken off: nothing is left to be added, and a token of one row feels each call.

    Raises:
        WorkbenchError: a layer whose weight is not a plain matrix.
    """
    for name, change in changes.items():
        layer: Any = model.get_submodule(name)
        if not foldable(layer):
            raise WorkbenchError(
                f"the matrix of {name} is a {type(layer).__name__}, into which no change can be folded; "
                "generate with factors"
            )
        whole = change.dense()[0].to(layer.weight.dtype)
        whole = layer.weight.detach() + (whole.T if _is_turned(layer) else whole)
        layer.weight = nn.Parameter(whole, requires_grad=False)
    for module in model.modules():
        for number in [n for n, hook in module._forward_hooks.items() if _is_ours(hook)]:
            del module._forward_hooks[number]


def foldable(layer: Any) -> bool:
    """Whether a layer's matrix is a tensor of floats that it multiplies by."""
    return (type(layer) is nn.Linear or _is_turned(layer)) and bool(layer.weight.is_floating_point())


def sizes(layer: nn.Module) -> tuple[int, int] | None:
    """(in, out) of a layer that multiplies by a matrix; None for any other module."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    weight: Any = layer.weight if _is_turned(layer) else None
    return None if weight is None else (int(weight.shape[0]), int(weight.shape[1]))


def _is_turned(layer: nn.Module) -> bool:
    """Whether it is GPT-2's, whose matrix stands as (in, out)."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(layer, Conv1D)

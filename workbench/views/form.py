"""A small form made from a dataclass: one control a field. Knows nothing of what the values are for.

A field's `metadata` may hold `label`, `help`, `width`, `choices`, `min` and `max`; its type chooses the control.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_type_hints

import ipywidgets as w

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


class Form(Generic[T]):
    """The controls for one dataclass instance; `.value` is the instance that they stand for now."""

    def __init__(self, value: T, choices: Mapping[str, Sequence[Any]] | None = None) -> None:
        self._start = value
        types = get_type_hints(type(value))
        self.controls: dict[str, w.Widget] = {}
        for field in fields(value):
            options = {"choices": choices[field.name]} if choices and field.name in choices else {}
            control = _control(types[field.name], getattr(value, field.name), {**field.metadata, **options})
            control.description = field.metadata.get("label", field.name.replace("_", " "))
            control.style = {"description_width": "auto"}
            control.layout.width = field.metadata.get("width", "130px")
            self.controls[field.name] = control
        self.box = w.HBox(list(self.controls.values()), layout={"flex_flow": "row wrap"})
        self.box.add_class("wb-form")

    @property
    def value(self) -> T:
        """A new instance with what the controls show; the dataclass's own checks run."""
        shown = {name: control.value for name, control in self.controls.items()}
        return replace(self._start, **shown)

    @value.setter
    def value(self, new: T) -> None:
        for name, control in self.controls.items():
            value = getattr(new, name)
            if isinstance(control, w.Dropdown) and value not in control.options:
                control.options = (value, *control.options)
            control.value = value

    def set_disabled(self, disabled: bool) -> None:
        """Greys every control out, or gives it back."""
        for control in self.controls.values():
            control.disabled = disabled

    def observe(self, call: Callable[[Any], None]) -> None:
        """Calls `call` whenever a control changes."""
        for control in self.controls.values():
            control.observe(call, names="value")


def _control(kind: Any, value: Any, metadata: dict[str, Any]) -> w.Widget:
    tooltip = metadata.get("help", "")
    choices = metadata.get("choices")
    if choices is not None:
        options = list(choices)
        if value not in options:
            options.insert(0, value)
        return w.Dropdown(options=options, value=value, tooltip=tooltip)
    if kind is bool:
        return w.Checkbox(value=value, indent=False, tooltip=tooltip)
    if kind is int:
        return w.BoundedIntText(
            value=value, min=metadata.get("min", 0), max=metadata.get("max", 10**9), tooltip=tooltip
        )
    if kind is float:
        return w.BoundedFloatText(
            value=value,
            min=metadata.get("min", 0.0),
            max=metadata.get("max", 1e9),
            step=None,
            tooltip=tooltip,
        )
    if kind is str:
        return w.Text(value=value, tooltip=tooltip)
    raise TypeError(f"a form has no control for {kind}")

"""Settings that people give by name, in a shell or in JSON, held against the dataclass that they are fields of.

Makes no configuration and reads no text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from workbench.errors import WorkbenchError, unknown


def check_settings(kind: type, settings: Mapping[str, Any], of: str) -> None:
    """Stops at a setting that the dataclass `kind` does not have, or whose value is not of its type.

    Args:
        of: what they are settings of, in words: "the method lora".

    Raises:
        WorkbenchError: names the setting, its value and what is wanted.
    """
    names, types = [field.name for field in fields(kind)], get_type_hints(kind)
    for name, value in settings.items():
        if name not in names:
            if not names:
                raise WorkbenchError(f"{of} has no settings; leave {name!r} out")
            raise unknown(f"setting of {of}", name, names)
        if not fits(value, types[name]):
            raise WorkbenchError(f"{name} of {of} is {value!r}; it must be {wanted(types[name])}")


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type, as JSON has it: a list is a tuple, a whole number a float; True is no number.

    >>> fits(["input", -3], tuple[int | Literal["input"], ...]), fits("abc", int), fits(True, int)
    (True, False, False)

    Of a Literal only the type is looked at: the dataclass knows what the words are, and which was meant. One word may
    stand for a tuple of text.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return any(type(value) is type(part) for part in parts)
    if origin in (tuple, list):
        if not isinstance(value, tuple | list):
            return isinstance(value, str) and set(parts) <= {str, Ellipsis}
        kinds = [parts[0]] * len(value) if origin is list or parts[-1] is Ellipsis else parts
        return len(value) == len(kinds) and all(map(fits, value, kinds))
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if kind is Any:
        return True
    kind = {dict: Mapping}.get(origin or kind, origin or kind)
    return isinstance(value, kind) if isinstance(kind, type) else True


def wanted(kind: Any) -> str:
    """A type in words."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(wanted(part) for part in parts)
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if origin in (tuple, list):
        return f"a list, each of it {wanted(parts[0])}"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", NoneType: "null"}
    names |= {dict: 'a JSON object, as {"name": "value"}'}
    return names.get(origin or kind) or str(getattr(kind, "__name__", kind))

"""What a dataclass says of its fields, and their values as text and back. Knows no widget.

label, docs, options    what a field is called, its help, and the choices that its type leaves
written, read, wanted   a value as one would type it, the way back, and what is asked for in words
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import json
import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import Field
from decimal import Decimal
from functools import cache
from itertools import pairwise
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin


def label(field: Field[Any]) -> str:
    """A field's name as people read it, "Learning rate"; or what its metadata call it."""
    return field.metadata.get("label") or field.name.replace("_", " ").capitalize()


@cache
def docs(cls: type) -> dict[str, str]:
    """The docstring below each field of a class, those of inherited fields too; none where there is no source."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):  # made in a shell, or built in
            continue
        for field, text in pairwise(getattr(tree.body[0], "body", ())):
            if not (isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)):
                continue
            if isinstance(field.target, ast.Name) and isinstance(text.value, ast.Constant):
                found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def options(kind: Any) -> list[Any] | None:
    """The values of a Literal, or of a union of such and None; None for types with no such list."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    if get_origin(kind) not in (Union, UnionType):
        return None
    parts = [[None] if part is NoneType else options(part) for part in get_args(kind)]
    return None if None in parts else [value for part in parts for value in part or ()]


# Text and back

_ITEM = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[^,]*?)\s*(?:,|\Z)')


def written(value: Any, kind: Any = None) -> str:
    """A value as one would type it.

    >>> written(0.00003), written(0.5), written(("input", -3, -1)), written(None), written(("a, b", "c"))
    ('3e-5', '0.5', 'input, -3, -1', '', '"a, b", c')

    Args:
        value: of a type that `read` knows.
        kind: its type; in a union one word and a tuple of one word are told apart by a comma.
    """
    if value is None:
        return ""
    if isinstance(value, float):
        exact = Decimal(repr(float(value)))
        return f"{exact:e}" if 0 < abs(value) < 0.01 else str(value)
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple | list):
        alone = len(value) == 1 and get_origin(kind) in (Union, UnionType)
        return ", ".join(_item(written(part)) for part in value) + "," * alone
    return str(value)


def _item(text: str) -> str:
    plain = text and text == text.strip() and text.isprintable() and not set(text) & {",", '"'}
    return text if plain else json.dumps(text, ensure_ascii=False)


def read(kind: Any, text: str) -> Any:
    """What a text says, as a value of a type. Raises ValueError where it says none.

    >>> read(float, "3e-5"), read(tuple[int | Literal["input"], ...], "input, -3"), read(int | None, "")
    (3e-05, ('input', -3), None)

    In a union text without letters is None, text with a comma a tuple, and text in braces a dict.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _read_union(parts, text)
    if origin is Literal:
        return {written(value): value for value in parts}[text.strip()] if _among(parts, text) else _refuse()
    if origin is tuple:
        items = [match for match in _ITEM.findall(text) if match]
        plain = [json.loads(item) if item.startswith('"') else item for item in items]
        kinds = [parts[0]] * len(plain) if parts[-1] is Ellipsis else parts
        return tuple(read(*pair) for pair in zip(kinds, plain, strict=True))
    if dict in (kind, origin):
        found = json.loads(text)
        return found if isinstance(found, dict) else _refuse()
    if kind is float:
        number = float(text)
        return number if math.isfinite(number) else _refuse()
    return kind(text)


def _read_union(parts: Sequence[Any], text: str) -> Any:
    if NoneType in parts and not text.strip():
        return None
    kinds = {get_origin(part) or part: part for part in parts if part is not NoneType}
    several = kinds.pop(tuple, None)
    if several and ("," in text or str not in kinds):
        return read(several, text)
    if dict in kinds and text.strip().startswith("{"):
        return read(kinds[dict], text)
    for part in sorted(
        kinds.values(), key=lambda part: part is str
    ):  # any text is a str, so that is tried last
        with contextlib.suppress(ValueError):
            return read(part, text)
    raise ValueError(text)


def _among(values: Sequence[Any], text: str) -> bool:
    return text.strip() in map(written, values)


def _refuse() -> Any:
    raise ValueError


def wanted(kind: Any) -> str:
    """What a text must say to be of a type, in words. Raises TypeError for a type that cannot be typed."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        named = [wanted(part) for part in parts if part is not NoneType]
        return " or ".join(named + ["nothing"] * (NoneType in parts))
    if origin is Literal:
        return " or ".join(map(written, parts))
    if origin is tuple and parts[-1] is Ellipsis:
        return f"{wanted(parts[0])}, or several with commas between them"
    if origin is tuple:
        return f"{len(parts)} values with a comma between them ({', '.join(map(wanted, parts))})"
    if dict in (kind, origin):
        return 'a JSON object, as {"name": "value"}'
    names = {int: "a whole number", float: "a number", str: "text"}
    if kind not in names:
        raise TypeError(f"a form has no control for {kind}")
    return names[kind]


# Two of a kind

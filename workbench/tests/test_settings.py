"""Settings given by name are held against the types of their fields: what is right passes, what is wrong is named."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import workbench.methods  # noqa: F401 - the room registers its methods
from workbench.errors import WorkbenchError
from workbench.methods.method import METHODS, configured
from workbench.methods.priors import PRIORS, from_description
from workbench.settings import check_settings, fits
from workbench.training.job import JobConfig


@dataclass(frozen=True)
class Every:
    """A field of each type that configurations have."""

    whole: int = 0
    number: float = 0.0
    flag: bool = False
    text: str = ""
    choice: Literal["a", "b"] = "a"
    places: tuple[int | Literal["input"], ...] = ()
    either: str | tuple[str, ...] = ()
    maybe: float | None = None
    pair: tuple[int, str] = (0, "")
    facts: dict[str, Any] | None = None


RIGHT: dict[str, list[Any]] = {
    "whole": [3, -1],
    "number": [3, 0.5],
    "flag": [True],
    "text": ["", "3"],
    "choice": ["a", "no such word, which the dataclass itself says"],
    "places": [[], ["input", -1], (0,)],
    "either": ["x", ["x", "y"]],
    "maybe": [None, 1],
    "pair": [[1, "x"]],
    "facts": [None, {"a": [1]}],
}
WRONG: dict[str, list[Any]] = {
    "whole": ["abc", 0.5, True, None, [1]],
    "number": ["abc", True, None],
    "flag": [1, "true", None],
    "text": [3, None, ["x"]],
    "choice": [3, None],
    "places": ["input", [0.5], 3, [None]],
    "either": [3, [3]],
    "maybe": ["abc", True],
    "pair": [[1], ["x", 1], [1, "x", 2]],
    "facts": ["abc", [1]],
}


def test_what_is_of_its_type_passes_and_what_is_not_is_named() -> None:
    """Protects whoever mistypes a setting from a traceback: the sentence names it, its value, and what is wanted."""
    assert set(RIGHT) == set(WRONG) == {field.name for field in fields(Every)}
    for name, values in RIGHT.items():
        for value in values:
            check_settings(Every, {name: value}, "the test")
    for name, values in WRONG.items():
        for value in values:
            with pytest.raises(WorkbenchError) as error:
                check_settings(Every, {name: value}, "the test")
            assert str(error.value).startswith(f"{name} of the test is {value!r}; it must be ")
    with pytest.raises(WorkbenchError, match="did you mean 'whole'"):
        check_settings(Every, {"whol": 1}, "the test")


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=4)
)
def test_nothing_passes_for_a_number_but_a_number(value: Any) -> None:
    """Protects arithmetic on settings, whatever JSON holds."""
    assert fits(value, int) == (type(value) is int) and fits(value, float) == (type(value) in (int, float))
    assert fits(value, Any)


@pytest.mark.parametrize("kind", METHODS)
def test_no_setting_of_a_method_of_a_wrong_type_is_a_type_error(kind: str) -> None:
    """Protects every method, those to come too: each of its settings, given an object of no type that it has."""
    for field in fields(METHODS[kind].Config):
        for value in (object(), b"x"):
            with pytest.raises(WorkbenchError, match=f"^{field.name} of the method {kind} is "):
                configured(kind, {field.name: value} if field.name != "prior" else {"prior": 3})
    first = fields(METHODS[kind].Config)[0].name
    with pytest.raises(WorkbenchError, match=f"^{first} of the method {kind} is .* it must be "):
        JobConfig("tiny-llama", "reading", kind, {first: {"no": "number"}}).checked()


@pytest.mark.parametrize("name", PRIORS)
def test_no_setting_of_a_prior_of_a_wrong_type_is_a_type_error(name: str) -> None:
    for field in fields(PRIORS[name]):
        with pytest.raises(WorkbenchError, match=f"^{field.name} of the prior {name} is "):
            from_description({"name": name, field.name: object()})

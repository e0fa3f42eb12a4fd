"""Committed notebooks are fit to be committed: small, thin, without outputs, and with a first and a last word.

Each rule is tried on a notebook that breaks it, and must say so.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
MOST_BYTES, MOST_LINES = 50_000, 15


def faults(text: str) -> list[str]:
    """What is wrong with the text of a notebook file; nothing, where it may be committed."""
    import nbformat

    found = []
    if len(text.encode()) >= MOST_BYTES:
        found.append("too large")
    notebook = json.loads(text)
    nbformat.validate(notebook)
    cells, metadata = notebook["cells"], notebook["metadata"]
    if "widgets" in metadata:
        found.append("widget state")
    if metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("another kernel")
    found += _of_first(cells[0]) + _of_last(cells[-1])
    for cell in cells:
        if cell["cell_type"] == "code":
            found += _of_code(cell)
    return found


def _of_first(cell: dict[str, Any]) -> list[str]:
    title, _, text = "".join(cell["source"]).partition("\n")
    if cell["cell_type"] != "markdown" or not title.startswith("# "):
        return ["no title first"]
    sentences = [part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part]
    return [] if 2 <= len(sentences) <= 4 else [f"{len(sentences)} sentences first, not about three"]


def _of_last(cell: dict[str, Any]) -> list[str]:
    title, _, text = "".join(cell["source"]).partition("\n")
    good = cell["cell_type"] == "markdown" and title == "## What to try next" and text.strip()
    return [] if good else ["no “What to try next” last"]


def _of_code(cell: dict[str, Any]) -> list[str]:
    found, source = [], "".join(cell["source"])
    if cell["outputs"]:
        found.append("outputs")
    if cell["execution_count"] is not None:
        found.append("an execution count")
    if len(source.splitlines()) > MOST_LINES:
        found.append("a long cell")
    person = cell["metadata"].get("workbench", {})
    if not set(person) <= {"small", "full"}:
        found.append("a size that nobody runs")
    for code in (source, *person.values()):
        try:
            tree = ast.parse(code)
        except SyntaxError:  # also a magic, or a shell command
            found.append("not plain Python")
            continue
        if any(
            isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda))
            for n in ast.walk(tree)
        ):
            found.append("a definition")
        if tree.body and ast.unparse(tree.body[-1]).endswith(".figure()"):
            found.append("a bare figure, light on a dark page; show its view")
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_is_small_and_thin(path: Path) -> None:
    """Protects the repository (a saved figure carries five megabytes) and the rooms (logic is in the library)."""
    assert faults(path.read_text(encoding="utf-8")) == []


def test_there_is_a_map_and_names_are_numbered_in_reading_order() -> None:
    """The overview is the first; a name says where a notebook stands."""
    assert NOTEBOOKS[0].name == "00_overview.ipynb"
    numbers = [int(re.fullmatch(r"(\d\d)_[a-z0-9_]+", path.stem)[1]) for path in NOTEBOOKS]  # type: ignore[index]
    assert len(set(numbers)) == len(numbers)


def _code(notebook: dict[str, Any]) -> dict[str, Any]:
    return next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")


BROKEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "too large": lambda n: n["metadata"].update(much="x" * MOST_BYTES),
    "widget state": lambda n: n["metadata"].update(widgets={}),
    "another kernel": lambda n: n["metadata"]["kernelspec"].update(name="mine"),
    "no title first": lambda n: n["cells"].pop(0),
    "1 sentences first, not about three": lambda n: n["cells"][0].update(source="# Title\n\nOne."),
    "6 sentences first, not about three": lambda n: n["cells"][0].update(source="# Title\n\n" + "One. " * 6),
    "no “What to try next” last": lambda n: n["cells"].pop(),
    "outputs": lambda n: _code(n).update(outputs=[{"output_type": "stream", "name": "stdout", "text": "x"}]),
    "an execution count": lambda n: _code(n).update(execution_count=1),
    "a long cell": lambda n: _code(n).update(source="a = 1\n" * (MOST_LINES + 1)),
    "not plain Python": lambda n: _code(n).update(source="!pip install this"),
    "a definition": lambda n: _code(n).update(source="async def run():\n    pass"),
    "a bare figure, light on a dark page; show its view": lambda n: _code(n).update(
        source="Forgetting().figure()"
    ),
    "a size that nobody runs": lambda n: _code(n)["metadata"].update(workbench={"tiny": "a = 1"}),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_each_rule_finds_a_notebook_that_breaks_it(fault: str) -> None:
    """Protects the rules themselves: this notebook keeps all but one."""
    notebook = json.loads(NOTEBOOKS[0].read_text(encoding="utf-8"))
    BROKEN[fault](notebook)
    assert faults(json.dumps(notebook)) == [fault]


def test_what_stands_for_a_person_is_held_to_the_same_rules() -> None:
    """Code in a cell's metadata is code."""
    notebook = json.loads(NOTEBOOKS[0].read_text(encoding="utf-8"))
    _code(notebook)["metadata"]["workbench"] = {"small": "def run(): pass"}
    assert faults(json.dumps(notebook)) == ["a definition"]

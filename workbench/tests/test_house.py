"""The house itself: what is installed, with which versions, how fast it is imported, which way imports point."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
LINES = (ROOT / "constraints.txt").read_text().splitlines()
PINS = dict(line.lower().replace("_", "-").split("==") for line in LINES if line and not line.startswith("#"))
DIRECT = [
    requirement
    for text in [*PROJECT["dependencies"], *(text for extra in EXTRAS.values() for text in extra)]
    if (requirement := Requirement(text)).name != PROJECT["name"]
]
PACKAGE_DATA: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"][
    "setuptools"
]["package-data"]
HEAVY = (
    "torch",
    "transformers",
    "plotly",
    "sklearn",
    "scipy",
    "pandas",
    "datasets",
    "umap",
    "ipywidgets",
    "accelerate",
    "peft",
)


def test_what_is_no_python_is_installed_as_well() -> None:
    """Protects an installed wheel: setuptools leaves out scripts and styles that no pattern names."""
    package = ROOT / "workbench"
    beside = {
        path
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and not path.name.startswith(".")
    }
    named = {path for pattern in PACKAGE_DATA["workbench"] for path in package.glob(pattern)}
    assert {path.name for path in beside} >= {"run_table.js", "run_table.css"}
    assert beside == named


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
def test_constraints_pin_every_direct_dependency_within_its_range(requirement: Requirement) -> None:
    """`make lab` installs with both files, so a pin outside the range would make it impossible to install."""
    pin = PINS.get(requirement.name.lower().replace("_", "-"))
    assert pin is not None, f"constraints.txt has no {requirement.name}; run `make lock`"
    assert requirement.specifier.contains(Version(pin))
    assert any(part.operator == "<" for part in requirement.specifier), "a range has an upper end"


def test_constraints_are_public_versions_that_any_build_of_torch_can_meet() -> None:
    """`torch==2.13.0+cpu` would keep a GPU machine on the CPU; nvidia wheels would keep a CPU machine from installing."""
    for line in LINES:
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line), line
    assert not [name for name in PINS if re.match(r"(nvidia|cuda|triton)\b", name)]


def test_ranges_that_the_project_promises() -> None:
    """The versions that the issue names are those that are asked for."""
    ranges = {requirement.name: requirement.specifier for requirement in DIRECT}
    assert ranges["torch"] == SpecifierSet(">=2.11,<2.14")
    assert ranges["transformers"] == SpecifierSet(">=5.17,<6")


def test_conda_gives_the_same_python_packages_and_pins() -> None:
    """A conda user gets what a `make` user gets."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, last = environment["dependencies"]
    named = {requirement.name: requirement for requirement in map(Requirement, conda)}
    assert set(named) == {"python", "pip"}, (
        "everything else comes from pip, so that it is pinned in one place"
    )
    assert named["python"].specifier == SpecifierSet(PROJECT["requires-python"])
    constraint, package = last["pip"]
    assert constraint == "-c constraints.txt"
    assert package == f"-e .[{','.join(EXTRAS)}]"


def test_make_looks_for_the_python_that_the_project_asks_for() -> None:
    """The Makefile's probe and pyproject.toml name the same range."""
    low, high = re.search(r"not \((.*?)\) <= sys.version_info\[:2\] < \((.*?)\)", _makefile()).groups()  # type: ignore[union-attr]
    asked = f">={low.replace(', ', '.')},<{high.replace(', ', '.')}"
    assert SpecifierSet(asked) == SpecifierSet(PROJECT["requires-python"])


def test_make_installs_only_extras_that_exist() -> None:
    """A mistyped extra is a warning to pip, and then a missing package."""
    asked = set(re.findall(r"\.installed-(\w+)", _makefile()))
    assert asked == set(EXTRAS)


def test_import_is_light() -> None:
    """`import workbench` and `--help` answer at once: what is heavy is imported when it is first used."""
    loaded = _python("import sys, workbench; print(*sys.modules)").stdout.split()
    assert not set(HEAVY) & set(loaded)
    timed = [_python("import workbench", "-X", "importtime").stderr.splitlines()[-1] for _ in range(3)]
    seconds = min(int(line.split("|")[1]) / 1e6 for line in timed if line.endswith(" workbench"))
    assert seconds < 1.0


def test_what_is_promised_lazily_is_there() -> None:
    """A lazy name that points nowhere is found out here, not by a user's first line."""
    import workbench

    missing = [name for name in dir(workbench) if not hasattr(workbench, name)]
    assert not missing


ROOMS = [
    "tasks",
    "backbones",
    "methods",
    "training",
    "analysis",
    "claims",
    "views",
    "cli",
]  # from the ground up


def test_imports_point_downwards() -> None:
    """A lower room that imports a higher one could not be understood, or tested, without it."""
    wrong = []
    for path in (ROOT / "workbench").rglob("*.py"):
        room = path.relative_to(ROOT / "workbench").parts[0].removesuffix(".py")
        if room not in ROOMS:
            continue
        for imported in _rooms_imported(path):
            if imported in ROOMS and ROOMS.index(imported) > ROOMS.index(room):
                wrong.append(f"{path.relative_to(ROOT)} imports {imported}")
    assert not wrong


def test_only_views_draw() -> None:
    """plotly and ipywidgets stay in one room, so that everything else runs without a notebook."""
    outside = [p for p in (ROOT / "workbench").rglob("*.py") if not {"views", "tests"} & set(p.parts)]
    drawing = [
        p.name
        for p in outside
        if re.search(r"^\s*(?:import|from) (?:plotly|ipywidgets)\b", p.read_text(), re.M)
    ]
    assert not drawing


def test_every_file_says_what_it_holds() -> None:
    """The first thing in a file that is not empty is its docstring."""
    silent = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "workbench").rglob("*.py")
        if (text := path.read_text(encoding="utf-8")) and not ast.get_docstring(ast.parse(text))
    ]
    assert not silent


def _makefile() -> str:
    return (ROOT / "Makefile").read_text()


def _python(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )


def _rooms_imported(path: Path) -> set[str]:
    """The rooms that a file imports, anywhere in it, but for types only."""
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("workbench."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "workbench":
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {n.name.split(".")[1] for n in node.names if n.name.startswith("workbench.")}
    return found

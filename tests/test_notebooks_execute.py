"""Every committed notebook: runs from top to bottom without a browser, and is fit to be committed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT

nbformat = pytest.importorskip("nbformat")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
names = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_notebooks() -> None:
    assert [path.name for path in NOTEBOOKS][:1] == ["01_first_prompt.ipynb"]


@names
def test_a_notebook_runs_from_top_to_bottom(path: Path, notebooks: Path) -> None:
    """Protects whoever opens it on a server without a page, or presses Run All before anything is trained."""
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(path, as_version=4)
    folder = str(notebooks / "notebooks")
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "stream", f"printed by a cell: {output.text[:300]}"


@names
def test_a_notebook_is_small_and_holds_no_output(path: Path) -> None:
    """Protects the repository: a saved figure carries five megabytes of JavaScript."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 50_000
    assert "widgets" not in notebook.metadata
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None


@names
def test_a_notebook_is_thin(path: Path) -> None:
    """Protects the rooms: a notebook chooses and shows, the library does the work."""
    cells = nbformat.read(path, as_version=4).cells
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")
    assert cells[-1].cell_type == "markdown" and "next" in cells[-1].source
    for cell in (cell for cell in cells if cell.cell_type == "code"):
        lines = cell.source.splitlines()
        assert len(lines) <= 15
        assert not [
            line for line in lines if line.lstrip().startswith(("def ", "class ", "async def ", "!", "%"))
        ]

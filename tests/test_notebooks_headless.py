"""The first tier: every notebook runs from top to bottom without a browser, with small settings, on both kernels."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from tests.conftest import NOTEBOOKS, copy_notebooks
from tests.kernels import EARLIER, INSTALLED, OTHER, fetch_other
from workbench.views.report import WIDGET, execute

SECONDS = 300


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path: Path, kernel: str, tmp_path: Path) -> None:
    """Protects whoever runs it on a server without a page; what a person would press is pressed by code."""
    copy_notebooks(tmp_path, kernel)
    notebook = nbformat.read(tmp_path / "notebooks" / path.name, as_version=4)
    execute(notebook, tmp_path / "notebooks", "small", kernel, SECONDS)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    for output in (output for cell in code for output in cell.outputs):
        assert output.output_type != "stream", f"printed by a cell: {output.text[:300]}"
        assert WIDGET not in output.data, "a widget that has no still"


def test_a_notebook_that_fails_is_found_out(tmp_path: Path, kernelspecs: Path) -> None:
    """The same with a broken cell: also where it stands for a person."""
    for where in ("source", "person"):
        cell = nbformat.v4.new_code_cell("1 / 0" if where == "source" else "1")
        cell.metadata["workbench"] = {"small": "1 / 0"} if where == "person" else {}
        notebook = nbformat.v4.new_notebook(cells=[cell])
        with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
            execute(notebook, tmp_path, "small", INSTALLED, SECONDS)
        assert len(notebook.cells) == 1, "what stands for a person stays out of the notebook"


def test_the_kernels_are_two_versions_of_ipykernel(tmp_path: Path, kernelspecs: Path) -> None:
    """Protects the second half of every other test: that it is not the same kernel twice."""
    fetch_other(kernelspecs)
    found = {}
    for kernel in (INSTALLED, EARLIER):
        cell = nbformat.v4.new_code_cell("import ipykernel; ipykernel.__version__")
        execute(nbformat.v4.new_notebook(cells=[cell]), tmp_path, "small", kernel, SECONDS)
        found[kernel] = cell.outputs[0].data["text/plain"].strip("'")
    assert found[EARLIER] == OTHER
    assert found[INSTALLED].split(".")[:2] != OTHER.split(".")[:2]

"""The second tier and the third: every notebook in a real JupyterLab in a real browser, on two versions of ipykernel.

Run all, do what a person does there (walks.py), save, reload: no error in an output, in a panel, or in the console.
With WORKBENCH_SCREENSHOTS=docs/images a picture of each is kept: `make screenshots`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="Playwright for Python is not installed")

from tests.conftest import NOTEBOOKS
from tests.kernels import INSTALLED, ROOT
from tests.lab import Lab
from tests.person import Person
from tests.walks import PICTURES, WALKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_as_a_person_uses_it(
    path: Path, kernel: str, place: Path, lab: Lab, person: Person, tmp_path: Path
) -> None:
    person.open((place / "notebooks" / path.name).relative_to(lab.folder))
    person.run_all()
    person.sees_no_error()
    if path.stem in WALKS:
        WALKS[path.stem](person)
    picture = tmp_path / f"{path.stem}.png"
    person.takes_picture(picture, *PICTURES.get(path.stem, ()))
    if kernel == INSTALLED and (folder := os.environ.get("WORKBENCH_SCREENSHOTS")):
        shutil.copy(picture, ROOT / folder / picture.name)
    person.save()
    person.sees_no_error()
    person.reload()
    person.page.wait_for_timeout(2000)  # time for what goes wrong to do so
    person.sees_no_error()


@pytest.mark.parametrize("kernel", [INSTALLED])  # what is tested is the person
def test_an_error_on_the_page_is_seen(place: Path, lab: Lab, person: Person) -> None:
    """The same walk over a notebook that is broken: in an output, and in the page's own JavaScript."""
    import nbformat

    broken = place / "notebooks/broken.ipynb"
    cells = [
        nbformat.v4.new_code_cell("1 / 0"),
        nbformat.v4.new_code_cell("from IPython.display import Javascript\nJavascript('nothing.such()')"),
    ]
    like = nbformat.read(place / "notebooks" / NOTEBOOKS[0].name, as_version=4)
    for number, cell in enumerate(cells):
        nbformat.write(
            nbformat.v4.new_notebook(cells=[cell], metadata=like.metadata), broken.with_stem(f"{number}")
        )
        person.open((broken.with_stem(f"{number}")).relative_to(lab.folder))
        person.run_all()
        with pytest.raises(AssertionError):
            person.sees_no_error()
        person.console.clear()

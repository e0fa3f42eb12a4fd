"""What the end-to-end tests stand on: the kernels, a JupyterLab that serves copies of the notebooks, a browser."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernels import EARLIER, INSTALLED, ROOT, fetch_other, write_kernels
from tests.lab import Lab, running_lab

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.person import Person

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER_ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",  # WebGL without a GPU, for figures of very many points
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="session")
def kernelspecs(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Path]:
    """The cache of other versions; while this is in use, Jupyter finds the kernelspecs of tests/kernels.py."""
    home, cache = tmp_path_factory.mktemp("kernelspecs"), pytestconfig.cache.mkdir("kernels")  # type: ignore[union-attr]
    write_kernels(home, cache / EARLIER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(home))
        yield cache


@pytest.fixture(params=[INSTALLED, EARLIER])
def kernel(request: pytest.FixtureRequest, kernelspecs: Path) -> str:
    """The name of a kernelspec; the test runs once on each."""
    if request.param == EARLIER:
        fetch_other(kernelspecs)
    return str(request.param)


@pytest.fixture(
    scope="module"
)  # while it is open an event loop runs in this thread, which others would trip over
def browser() -> Iterator[Browser]:
    """A browser to drive; without one the test is skipped, or fails where WORKBENCH_REQUIRE_BROWSER=1."""
    refuse = pytest.fail if os.environ.get("WORKBENCH_REQUIRE_BROWSER") == "1" else pytest.skip
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        refuse("Playwright for Python is not installed")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        refuse(f"no browser was found ({', '.join(BROWSERS)}); on Debian: apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=BROWSER_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab(kernelspecs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab over an empty folder, until the last test ends."""
    with running_lab(tmp_path_factory.mktemp("served"), tmp_path_factory.mktemp("jupyter")) as lab:
        yield lab


@pytest.fixture
def place(lab: Lab, kernel: str, request: pytest.FixtureRequest) -> Path:
    """A folder of the lab's with a copy of `notebooks/`, each on the kernel; runs may be written beside it."""
    folder = lab.folder / f"{len(list(lab.folder.iterdir())):02d}"
    copy_notebooks(folder, kernel)
    return folder


def copy_notebooks(folder: Path, kernel: str) -> None:
    """Copies `notebooks/` into a folder, with the kernelspec of that name."""
    (folder / "notebooks").mkdir(parents=True)
    for path in NOTEBOOKS:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        notebook["metadata"]["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
        (folder / "notebooks" / path.name).write_text(json.dumps(notebook), encoding="utf-8")


@pytest.fixture
def person(lab: Lab, browser: Browser, tmp_path: Path) -> Iterator[Person]:
    """Somebody with an empty page; what the page showed last is kept as a picture."""
    with _somebody(lab, browser, tmp_path / "last.png") as person:
        yield person
    lab.end_kernels()


@pytest.fixture
def colleague(lab: Lab, browser: Browser, tmp_path: Path, person: Person) -> Iterator[Person]:
    """Somebody else with a page of their own, in the same JupyterLab."""
    with _somebody(lab, browser, tmp_path / "last-of-colleague.png") as colleague:
        yield colleague


@contextmanager
def _somebody(lab: Lab, browser: Browser, picture: Path) -> Iterator[Person]:
    from tests.person import PATIENCE, Person

    page = browser.new_page(viewport={"width": 1400, "height": 1500})
    page.set_default_timeout(PATIENCE)
    yield Person(page, lab)
    page.screenshot(path=picture)  # pytest keeps the folders of its last three runs
    page.close()

"""`make report`: one site of all notebooks that opens without Jupyter and without a network, figures alive."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest

from tests.conftest import NOTEBOOKS, copy_notebooks
from tests.kernels import INSTALLED
from workbench.views import report

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of all notebooks, made with small settings."""
    folder = tmp_path_factory.mktemp("report")
    copy_notebooks(folder, INSTALLED)
    assert report.report(folder / "notebooks", folder / "reports", "small") == []
    return folder / "reports"


def test_a_notebook_that_fails_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    """The site says which one failed, and its page shows how far it came."""
    for name, code in {"1_good": "6 * 7", "2_bad": "1 / 0"}.items():
        cells = [nbformat.v4.new_markdown_cell(f"# {name}\n\nA test."), nbformat.v4.new_code_cell(code)]
        (tmp_path / "in").mkdir(exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "in" / f"{name}.ipynb")
    assert report.report(tmp_path / "in", tmp_path / "out", "small") == ["2_bad.ipynb"]
    assert "42" in (tmp_path / "out/1_good.html").read_text()
    assert "ZeroDivisionError" in (tmp_path / "out/2_bad.html").read_text()
    assert "2_bad.ipynb" in (tmp_path / "out/index.html").read_text()


def test_every_notebook_has_a_page_and_figures_answer_the_pointer(site: Path, browser: Browser) -> None:
    """Protects whoever is sent the folder: nothing is asked of a network, no script fails, hover works."""
    page = browser.new_page()
    asked: list[str] = []
    faults: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    for path in NOTEBOOKS:
        page.goto((site / "index.html").as_uri())
        page.locator(f"a[href='{path.stem}.html']").click()
        page.wait_for_url(f"**/{path.stem}.html")
        page.wait_for_timeout(1500)  # or the pointer is there before the figure listens
        figure = page.locator(".js-plotly-plot").first
        point = figure.locator(".scatterlayer .points path").first
        if point.count():
            point.scroll_into_view_if_needed()
            point.hover(force=True)
            figure.locator(".hoverlayer :is(.hovertext, .legend)").first.wait_for()
    assert page.locator(".wb-panel .js-plotly-plot").count() >= 2, (
        "the panel of the last notebook shows its figures"
    )
    page.goto((site / "01_first_prompt.html").as_uri())
    answers = page.locator(".jp-RenderedHTMLCommon .wb-answers tbody")
    assert answers.locator("td").first.evaluate("cell => getComputedStyle(cell).textAlign") == "left"
    rows = answers.locator("tr:not(.wb-gained, .wb-lost)").all()
    stripes = {row.evaluate("row => getComputedStyle(row).backgroundColor") for row in rows}
    assert stripes <= {"rgba(0, 0, 0, 0)"}, "Jupyter's own rules stripe the answers"
    page.close()
    assert not faults
    assert not [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]

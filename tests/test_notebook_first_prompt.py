"""The first notebook in a real JupyterLab in a real browser: press the button, see it train, reload, still see it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import BROWSER_ARGUMENTS, ROOT, Lab

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
expect = sync_api.expect

NOTEBOOK = "notebooks/01_first_prompt.ipynb"
#: Generous, because a machine that runs this may be doing other work; nothing below waits this long when all is well.
PATIENCE = 300_000

#: Enough that it still trains when Pause is pressed, on a quick machine and in a slow browser.
STEPS = 200

#: The number of points in a trace of one of the panel's figures, and the length of its line as drawn.
POINTS = """([figure, trace]) => {
  const plot = document.querySelectorAll('.wb-panel .js-plotly-plot')[figure];
  return plot && plot.data && plot.data[trace] && plot.data[trace].x ? plot.data[trace].x.length : 0;
}"""
DRAWN = """() => (document.querySelector('.wb-panel .js-plotly-plot .scatterlayer .js-line')?.getAttribute('d') ?? '').length"""
LOSS, MOVEMENT = (0, 1), (1, 4)


@pytest.fixture
def page(lab: Lab, browser_path: str, tmp_path: Path) -> Iterator[sync_api.Page]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=BROWSER_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1400, "height": 1500})
        page.set_default_timeout(PATIENCE)
        yield page
        page.screenshot(path=tmp_path / "last.png")  # pytest keeps the folders of its last three runs
        browser.close()


def test_train_pause_reload_resume_and_read_the_answers(lab: Lab, page: sync_api.Page) -> None:
    page.goto(lab.page(NOTEBOOK))
    run_all(page)
    panel = page.locator(".wb-panel")
    expect(panel.get_by_text("press Train")).to_be_visible(timeout=PATIENCE)
    expect(panel.get_by_text("are answered here")).to_be_visible()

    panel.get_by_label("Steps").fill(str(STEPS))
    panel.get_by_label("Steps").press("Tab")
    panel.get_by_role("button", name="Train").click()
    wait_for_points(page, LOSS, 5)
    few = page.evaluate(DRAWN)
    wait_for_points(page, LOSS, 12)
    assert page.evaluate(DRAWN) > few, "the curve's line did not grow"
    wait_for_points(page, MOVEMENT, 10)

    panel.get_by_role("button", name="Pause").click()
    expect(panel.get_by_text("Paused at step")).to_be_visible(timeout=PATIENCE)
    held = int(re.findall(r"Paused at step (\d+)", panel.inner_text())[0])
    wait_for_points(page, LOSS, held)  # the figure may be drawn a little later than the sentence
    page.wait_for_timeout(1500)
    assert page.evaluate(POINTS, LOSS) == held, "the training went on while it was paused"

    save_and_reload(page)
    expect(panel.get_by_text(f"Paused at step {held}")).to_be_visible(timeout=PATIENCE)
    wait_for_points(page, LOSS, held)  # a bare FigureWidget would show the empty figure that it began with

    panel.get_by_role("button", name="Resume").click()
    wait_for_points(page, LOSS, held + 3)
    expect(panel.get_by_text(f"Finished: step {STEPS} of {STEPS}")).to_be_visible(timeout=3 * PATIENCE)
    expect(panel.locator(".wb-answers tbody tr")).to_have_count(12)
    for heading in ("no prompt", "hand-written", "trained"):
        expect(panel.locator(".wb-answers th", has_text=re.compile(f"^{heading}"))).to_be_visible()
    assert page.evaluate(POINTS, LOSS) == STEPS
    no_errors(page)
    keep_screenshot(page)

    save_and_reload(page)
    expect(panel.locator(".wb-answers tbody tr")).to_have_count(12, timeout=PATIENCE)
    wait_for_points(page, LOSS, STEPS)
    no_errors(page)


def run_all(page: sync_api.Page) -> None:
    """Runs every cell, once the kernel can."""
    expect(page.locator(".jp-Notebook .jp-CodeCell").first).to_be_visible(timeout=PATIENCE)
    expect(page.locator("#jp-main-statusbar").get_by_text("| Idle")).to_be_visible(timeout=PATIENCE)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    # On a slow machine JupyterLab asks for the kernel although it has started the one that the notebook names.
    select = page.locator(".jp-Dialog").get_by_role("button", name="Select", exact=False).last
    expect(select.or_(page.locator(".wb-panel"))).to_be_visible(timeout=PATIENCE)
    if select.is_visible():
        select.click()


def save_and_reload(page: sync_api.Page) -> None:
    page.locator(".jp-Notebook").click(position={"x": 5, "y": 5})
    page.keyboard.press("Control+s")
    expect(page.locator(".jp-mod-current.lm-TabBar-tab.jp-mod-dirty")).to_have_count(0)
    page.wait_for_timeout(1000)
    page.reload()


def wait_for_points(page: sync_api.Page, trace: tuple[int, int], least: int) -> None:
    page.wait_for_function(
        f"([where, least]) => ({POINTS})(where) >= least", arg=[list(trace), least], timeout=PATIENCE
    )


def no_errors(page: sync_api.Page) -> None:
    for output in (
        "[data-mime-type='application/vnd.jupyter.error']",
        "[data-mime-type='application/vnd.jupyter.stderr']",
    ):
        assert page.locator(output).all_inner_texts() == []
    assert page.locator(".wb-error").all_inner_texts() == []


def keep_screenshot(page: sync_api.Page) -> None:
    """The picture for the README, only when it is asked for: `make screenshots`."""
    if folder := os.environ.get("WORKBENCH_SCREENSHOTS"):
        path = ROOT / folder / "01_first_prompt.png"
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        page.set_viewport_size({"width": 1400, "height": 2400})  # the whole panel, so that nothing scrolls
        page.mouse.move(0, 0)
        page.wait_for_timeout(1000)
        page.locator(".wb-panel").screenshot(path=path)

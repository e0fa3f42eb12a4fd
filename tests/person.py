"""A person in front of JupyterLab: opens a notebook, runs it, saves, reloads, and looks for anything that went wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from playwright.sync_api import ConsoleMessage, Locator, Page, expect

from tests.lab import Lab

#: Milliseconds. Generous, because a machine that runs this may do other work; nothing waits this long when all is well.
PATIENCE = 120_000
expect.set_options(
    timeout=PATIENCE / 4
)  # Playwright's own five seconds are little on a machine that does other work

#: What JupyterLab itself writes to the console where all is well, and why that is no fault of a notebook.
HARMLESS = re.compile(
    r"favicon"  # it has none on some pages
    r"|/lab/api/workspaces/"  # asks for a workspace that has not been saved yet
)

ERRORS = (
    "[data-mime-type='application/vnd.jupyter.error']",
    "[data-mime-type='application/vnd.jupyter.stderr']",
    ".wb-error",
    ".jupyter-widgets-view-error",
)

#: Where an element is on the page, without what is empty below its last cell.
CLIP = """element => {
  const box = element.getBoundingClientRect(), cells = [...element.querySelectorAll('.jp-Cell')];
  const end = Math.min(box.bottom, Math.max(...cells.map(cell => cell.getBoundingClientRect().bottom)) + 12);
  return {x: box.left, y: box.top, width: box.width, height: (cells.length ? end : box.bottom) - box.top};
}"""


class Person:
    """Works on one page. `console` holds the errors that it wrote."""

    def __init__(self, page: Page, lab: Lab) -> None:
        self.page, self.lab = page, lab
        self.console: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.console.append(f"uncaught: {error}"))

    def _heard(self, message: ConsoleMessage) -> None:
        text = f"{message.text} ({(message.location or {}).get('url', '')})"
        if message.type == "error" and not HARMLESS.search(text):
            self.console.append(text)

    def open(self, notebook: Path) -> None:
        """Opens a notebook that lies below the lab's folder, in a workspace of its own."""
        self.notebook = notebook
        self.page.goto(self.lab.page(notebook))

    def run_all(self) -> None:
        """Runs every cell, and waits until the last has run, or one has failed; the notebook is saved then."""
        page = self.page
        expect(page.locator(".jp-Notebook .jp-CodeCell").first).to_be_visible(timeout=PATIENCE)
        idle = self._status("Idle")
        with suppress(AssertionError):
            expect(idle).to_be_visible(timeout=PATIENCE / 4)
        if (
            not idle.is_visible()
        ):  # JupyterLab sometimes misses the kernel that it has started; a person reloads then
            self.reload()
            expect(idle).to_be_visible(timeout=PATIENCE)
            self.console.clear()  # what it said of the kernel that it missed is no fault of the notebook
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        # On a slow machine JupyterLab asks for the kernel although it has started the one that the notebook names.
        select = page.locator(".jp-Dialog").get_by_role("button", name="Select", exact=False).last
        for _ in range(PATIENCE // 500):
            page.wait_for_timeout(500)
            if select.is_visible():
                select.click()
            self.save()
            failed = any(
                output["output_type"] == "error" for cell in self.cells() for output in cell["outputs"]
            )
            if failed or all(cell["execution_count"] for cell in self.cells() if cell["source"]):
                return
        raise AssertionError("some cells never ran")

    def _status(self, state: str) -> Locator:
        return self.page.locator("#jp-main-statusbar").get_by_text(f"| {state}")

    def save(self) -> None:
        """Saves, and waits until it is saved."""
        dirty = self.page.locator(".jp-mod-current.lm-TabBar-tab.jp-mod-dirty")
        # On a slow machine JupyterLab's own saving and this one cross, and it asks which is to stay.
        overwrite = self.page.locator(".jp-Dialog").get_by_role("button", name="Overwrite")
        for _ in range(PATIENCE // 5000):
            if overwrite.is_visible():
                overwrite.click()
            self.page.locator(".jp-mod-current.lm-TabBar-tab").first.click()
            self.page.keyboard.press("Control+s")
            self.page.wait_for_timeout(500)
            with suppress(AssertionError):
                return expect(dirty).to_have_count(0)  # five seconds
        raise AssertionError("the notebook could not be saved")

    def restarts_the_kernel(self) -> None:
        """From the menu; waits until the new one is there."""
        self.page.get_by_role("menuitem", name="Kernel", exact=True).click()
        self.page.locator(".lm-Menu [data-command='kernelmenu:restart']").click()
        with self.page.expect_response(lambda answer: answer.url.split("?")[0].endswith("/restart")):
            self.page.locator(".jp-Dialog .jp-mod-accept").click()
        expect(self._status("Idle")).to_be_visible(timeout=PATIENCE)

    def runs_the_cell(self, text: str) -> None:
        """Runs the first code cell with this text in it again, and waits until it has run."""
        cell = self.page.locator(".jp-CodeCell", has=self.page.locator(".jp-InputArea", has_text=text)).first
        cell.scroll_into_view_if_needed()
        cell.locator(".jp-InputPrompt").click()
        prompt = cell.locator(".jp-InputPrompt").inner_text()
        self.page.keyboard.press("Control+Enter")
        expect(cell.locator(".jp-InputPrompt")).not_to_have_text(prompt)
        expect(cell.locator(".jp-InputPrompt")).not_to_have_text("[*]:", timeout=PATIENCE)

    def reload(self) -> None:
        """Reloads the page, and waits for the notebook."""
        self.page.reload()
        expect(self.page.locator(".jp-Notebook .jp-CodeCell").first).to_be_visible(timeout=PATIENCE)

    @contextmanager
    def opens_report(self, name: str) -> Iterator[Page]:
        """A page that the notebook has saved in `reports`, beside the notebook until the block ends."""
        path = (self.lab.folder / self.notebook).parents[1] / "reports" / name
        opened = self.page.context.browser.new_page()  # type: ignore[union-attr]
        opened.goto(path.as_uri())
        yield opened
        opened.close()

    def cells(self) -> list[dict[str, Any]]:
        """The code cells, as they were last saved."""
        path = self.lab.folder / self.notebook
        for _ in range(PATIENCE // 500):
            if text := path.read_text(encoding="utf-8"):  # it is empty for a moment when it is saved again
                return [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
            self.page.wait_for_timeout(500)
        raise AssertionError(f"{path.name} was never saved whole")

    def sees_no_error(self) -> None:
        """Nothing red: not in an output on the page or in the saved file, not in a panel, not in the console."""
        for place in ERRORS:
            assert self.page.locator(place).all_inner_texts() == [], place
        assert self.page.get_by_text("Error displaying widget").count() == 0
        for output in (output for cell in self.cells() for output in cell["outputs"]):
            assert output["output_type"] != "error", output
            assert output.get("name") != "stderr", output
        assert not self.console, self.console

    def takes_picture(self, path: Path, of: str = ".jp-Notebook", height: int = 2400) -> None:
        """A picture of a part of the page, down to the last cell in it, on a page so high that nothing scrolls."""
        path.parent.mkdir(parents=True, exist_ok=True)
        before = self.page.viewport_size
        self.page.set_viewport_size({"width": 1400, "height": height})
        self.page.mouse.move(0, 0)
        self.page.locator(".jp-WindowedPanel-outer").first.evaluate("panel => { panel.scrollTop = 0; }")
        self.page.wait_for_timeout(1000)
        clip = self.page.locator(of).first.evaluate(CLIP)
        self.page.screenshot(path=path, clip=clip)
        if before:
            self.page.set_viewport_size(before)

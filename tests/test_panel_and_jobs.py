"""Panels and the jobs behind them, as people use both: two at once, two notebooks, a mistake, a failure, a restart.

The pages are notebooks that the tests write, on the installed ipykernel; nothing here depends on which it is.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="Playwright for Python is not installed")

from playwright.sync_api import Locator, expect

from tests.kernels import INSTALLED
from tests.lab import Lab
from tests.person import PATIENCE, Person
from tests.test_live_figure import write

#: Enough that a run still trains when somebody has found the button.
STEPS = 120

pytestmark = pytest.mark.parametrize("kernel", [INSTALLED])


def test_two_panels_train_at_once_and_a_second_notebook_holds_one(
    place: Path, kernel: str, lab: Lab, person: Person, colleague: Person
) -> None:
    """Protects runs that share a backbone, and whoever looks at a run from elsewhere: one pauses what another started.

    Both runs have the same settings, so they end with the same losses, whatever the other one did meanwhile.
    """
    write(place / "two.ipynb", kernel, panels("one", "other"))
    person.open((place / "two.ipynb").relative_to(lab.folder))
    person.run_all()
    one, other = (person.page.locator(".wb-panel").nth(n) for n in (0, 1))
    press(one, "Train")
    press(other, "Train")
    says(one, "Training: step")
    says(other, "Training: step")
    press(one, "Pause")
    says(one, "Paused at step")

    write(place / "second.ipynb", kernel, panels("one"))
    colleague.open((place / "second.ipynb").relative_to(lab.folder))
    colleague.run_all()
    there = colleague.page.locator(".wb-panel")
    held = re.findall(r"Paused at step \d+", one.inner_text())[0]
    says(there, held)
    press(there, "Resume")
    says(one, "Training: step")
    press(there, "Pause")
    says(one, "Paused at step")
    press(one, "Resume")
    for panel in (one, other, there):
        says(panel, f"Finished: step {STEPS} of {STEPS}")
        expect(panel.locator(".wb-answers tbody tr")).to_have_count(12, timeout=PATIENCE)
    assert losses(place / "one") == losses(place / "other")
    person.sees_no_error()
    colleague.sees_no_error()


def test_a_mistake_a_failure_and_a_restart_in_the_middle(
    place: Path, kernel: str, lab: Lab, person: Person
) -> None:
    """Protects whoever is in trouble: it is said at the field, in a sentence, or in a word, and one can go on."""
    write(place / "trouble.ipynb", kernel, panels("runs"))
    person.open((place / "trouble.ipynb").relative_to(lab.folder))
    person.run_all()
    page, panel = person.page, person.page.locator(".wb-panel")

    wrong = panel.locator(".wb-field.wb-wrong")
    fill(panel, "Learning rate", "quick")
    expect(wrong).to_have_count(1)
    expect(wrong.get_by_label("Learning rate")).to_have_value("quick")
    expect(wrong.get_by_role("alert")).to_contain_text("quick")
    fill(panel, "Learning rate", "1e38")
    expect(wrong).to_have_count(0)

    press(panel, "Train")
    says(panel, "Failed")
    fault = panel.locator(".wb-error")
    expect(fault).to_contain_text("became nan")
    expect(fault.locator("pre")).to_be_hidden()
    fault.locator("summary").click()
    expect(fault.locator("pre")).to_be_visible()
    expect(fault.locator("pre")).to_contain_text("Traceback")

    fill(panel, "Learning rate", "0.03")
    press(panel, "Train")
    page.wait_for_function(
        "Number(/Training: step (\\d+)/.exec(document.querySelector('.wb-panel').innerText)?.[1]) >= 10",
        timeout=PATIENCE,
    )
    person.restarts_the_kernel()
    page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Shift+Enter")
    says(panel, "Interrupted at step")
    press(panel, "Resume")
    says(panel, f"Finished: step {STEPS} of {STEPS}")
    expect(panel.locator(".wb-answers tbody tr")).to_have_count(12, timeout=PATIENCE)
    losses(place / "runs")
    person.save()
    person.sees_no_error()


def panels(*folders: str) -> str:
    """A cell that shows the first panel over each of these folders."""
    made = [f'FirstPrompt("{f}", ["tiny-llama"], ["find-person"], steps={STEPS}).widget()' for f in folders]
    # Two jobs and two pages share a small machine's cores: a job that has one thread waits for no other of its own.
    alone = 'import os; os.environ["OMP_NUM_THREADS"] = "1"'
    lines = [alone, "import ipywidgets", "from workbench.views import FirstPrompt"]
    return "\n".join([*lines, f"ipywidgets.VBox([{', '.join(made)}])"])


def press(panel: Locator, button: str) -> None:
    panel.get_by_role("button", name=button).click()


def says(panel: Locator, text: str) -> None:
    expect(panel.locator(".wb-status")).to_contain_text(text, timeout=PATIENCE)


def fill(panel: Locator, field: str, text: str) -> None:
    panel.get_by_label(field).fill(text)
    panel.get_by_label(field).press("Tab")


def losses(folder: Path) -> list[float]:
    """The losses of the newest run in a folder, of which each step has exactly one."""
    run = max(path.parent for path in folder.glob("*/metrics.jsonl"))
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    return [record["loss"] for record in records]

"""The run browser on a real page: 500 runs appear, a person finds two of them by keyboard, compares, and reloads."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="Playwright for Python is not installed")

from playwright.sync_api import expect

from tests.heartbeat import held_up
from tests.lab import Lab
from tests.person import PATIENCE, Person
from tests.test_live_figure import HEART, HELD_UP, TRIES, write
from workbench.tests.run_folders import many_runs

TRACES = "document.querySelector('.wb-compare .js-plotly-plot').data"
BROWSER = 'from workbench.views import RunBrowser\nbrowser = RunBrowser("runs")\nbrowser'


def test_500_runs_are_found_compared_and_still_there_after_a_reload(
    place: Path, kernel: str, lab: Lab, person: Person, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects the browser as a person uses it, and the kernel: reading 500 runs never holds it up."""
    page, runs, away = person.page, place / "runs", place / "away"
    write(place / "browse.ipynb", kernel, HEART, BROWSER)
    person.open((place / "browse.ipynb").relative_to(lab.folder))
    person.run_all()
    expect(page.get_by_text("There is no folder")).to_be_visible(timeout=PATIENCE)
    many_runs(away, 500)
    rows, held = page.locator(".wb-runs tbody tr"), float("inf")
    for _ in range(TRIES):
        since = time.time()
        away.rename(runs)
        expect(rows).to_have_count(500, timeout=PATIENCE)
        page.wait_for_timeout(1500)
        late, signs = held_up(place / "heart.jsonl", since)
        assert signs >= 2, "the heart does not beat"
        held = min(held, late)
        if held <= HELD_UP:
            break
        runs.rename(away)
        expect(page.get_by_text("There is no folder")).to_be_visible(timeout=PATIENCE)
    with capsys.disabled():
        print(f"\n{kernel}: reading 500 runs held the kernel up for {held:.3f} s at most")
    assert held <= HELD_UP

    page.get_by_label("Filter runs").fill("run-000 FINISHED")
    expect(rows).to_have_count(10)
    page.get_by_label("Select run-0004").focus()
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    expect(page.locator(".wb-runs .wb-said")).to_contain_text("2 selected")
    expect(page.locator(".wb-differences")).to_contain_text("fit.learning_rate", timeout=PATIENCE)
    lines = page.locator(".wb-compare .js-plotly-plot .scatterlayer .js-line")
    expect(lines.first).to_be_visible(timeout=PATIENCE)
    for traces in (
        18,
        3,
        18,
    ):  # the same figure takes the traces of two groups, of one run, and of two groups again
        page.wait_for_function(f"{TRACES}.length === {traces}", timeout=PATIENCE)
        assert page.evaluate(f"{TRACES}.filter(trace => trace.x.length > 1).length") == {18: 6, 3: 3}[traces]
        page.keyboard.press("Space")
    page.keyboard.press("Space")
    page.wait_for_function(f"{TRACES}.length === 18", timeout=PATIENCE)
    page.get_by_role("button", name="val. score").click()
    expect(rows).to_have_count(10)
    assert page.locator(".wb-compare").evaluate("e => e.scrollWidth <= 920"), "wider than 900 pixels"
    person.save()
    person.sees_no_error()
    person.reload()
    expect(page.locator(".wb-differences")).to_contain_text("fit.learning_rate", timeout=PATIENCE)
    expect(lines.first).to_be_visible(timeout=PATIENCE)
    person.sees_no_error()

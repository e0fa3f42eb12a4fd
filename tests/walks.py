"""What a person does in each notebook beyond running it: press, wait, pause, reload. One function a notebook."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.person import PATIENCE, Person

#: Enough that it still trains when Pause is pressed, on a quick machine and in a slow browser.
STEPS = 120

#: The number of points in a trace of one of the panel's figures, and the length of its line as drawn.
POINTS = """([figure, trace]) => {
  const plot = document.querySelectorAll('.wb-panel .js-plotly-plot')[figure];
  return plot && plot.data && plot.data[trace] && plot.data[trace].x ? plot.data[trace].x.length : 0;
}"""
DRAWN = """() => (document.querySelector('.wb-panel .js-plotly-plot .scatterlayer .js-line')?.getAttribute('d') ?? '').length"""
LOSS, MOVEMENT = (0, 1), (1, 4)


def first_prompt(person: Person) -> None:
    """Train, pause, reload, see it held, resume, read the answers, reload, still see them."""
    page, panel = person.page, person.page.locator(".wb-panel")
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

    person.save()
    person.reload()
    expect(panel.get_by_text(f"Paused at step {held}")).to_be_visible(timeout=PATIENCE)
    wait_for_points(page, LOSS, held)  # a bare FigureWidget would show the empty figure that it began with

    panel.get_by_role("button", name="Resume").click()
    wait_for_points(page, LOSS, held + 3)
    expect(panel.get_by_text(f"Finished: step {STEPS} of {STEPS}")).to_be_visible(timeout=3 * PATIENCE)
    expect(panel.locator(".wb-answers tbody tr")).to_have_count(12)
    for heading in ("no prompt", "hand-written", "trained"):
        expect(panel.locator(".wb-answers th", has_text=re.compile(f"^{heading}"))).to_be_visible()
    assert page.evaluate(POINTS, LOSS) == STEPS
    person.sees_no_error()

    person.save()
    person.reload()
    expect(panel.locator(".wb-answers tbody tr")).to_have_count(12, timeout=PATIENCE)
    wait_for_points(page, LOSS, STEPS)


def overview(person: Person) -> None:
    """The notebooks are listed, and the figure answers the pointer."""
    page = person.page
    expect(page.get_by_role("link", name="Your first prompt").first).to_be_visible()
    figure = page.locator(".jp-OutputArea .js-plotly-plot").first
    figure.scroll_into_view_if_needed()
    figure.locator(".scatterlayer .points path").first.hover(force=True)
    expect(figure.locator(".hoverlayer .hovertext").first).to_be_visible()


def wait_for_points(page: Page, trace: tuple[int, int], least: int) -> None:
    page.wait_for_function(
        f"([where, least]) => ({POINTS})(where) >= least", arg=[list(trace), least], timeout=PATIENCE
    )


WALKS: dict[str, Callable[[Person], None]] = {"00_overview": overview, "01_first_prompt": first_prompt}

#: What the picture of a notebook shows, where that is not the whole page.
PICTURES: dict[str, tuple[str]] = {"01_first_prompt": (".wb-panel",)}

"""What a person does in each notebook beyond running it: press, wait, pause, reload. One function a notebook."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

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


#: The circles of a map, group by group: where they are in the figure's unit, and in pixels of the window.
CIRCLES = """number => {
  const plot = document.querySelectorAll('.wb-panel .js-plotly-plot')[number];
  if (!plot || !plot._fullLayout || !plot._fullLayout.xaxis) return [];
  const box = plot.getBoundingClientRect(), {xaxis, yaxis} = plot._fullLayout;
  return plot.data.filter(trace => trace.customdata && trace.mode === 'markers').map(trace =>
    Array.from(trace.x, (x, i) => ({x, y: trace.y[i],
      left: box.left + xaxis._offset + xaxis.l2p(x), top: box.top + yaxis._offset + yaxis.l2p(trace.y[i])})));
}"""
MAP = ".wb-panel .js-plotly-plot >> nth=0"


def prior_and_posterior(person: Person) -> None:
    """See two priors drawn, train them, walk back to the start, brush a vector, compare, and take the map away."""
    page, panel = person.page, person.page.locator(".wb-panel")
    title = page.locator(MAP).locator(".gtitle")
    expect(title).to_contain_text("step 0", timeout=PATIENCE)
    drawn = len(page.evaluate(CIRCLES, 0))
    panel.get_by_label("fitted-gaussian").uncheck()
    for name, value in (("Steps", "12"), ("Seeds", "2"), ("Prompt length", "4")):
        panel.get_by_label(name, exact=True).fill(value)
        panel.get_by_label(name, exact=True).press("Tab")
    panel.get_by_role("button", name="Draw").click()
    page.wait_for_function(
        f"{drawn} > ({CIRCLES})(0).length && ({CIRCLES})(0)[0]?.length === 8", timeout=PATIENCE
    )
    start = page.evaluate(CIRCLES, 0)

    panel.get_by_role("button", name="Train").click()
    expect(panel.get_by_text("Finished: step 12 of 12")).to_be_visible(timeout=3 * PATIENCE)
    expect(title).to_contain_text("step 12", timeout=PATIENCE)
    end = page.evaluate(CIRCLES, 0)
    assert [len(group) for group in end] == [8, 8] and end != start, "no circle moved"

    handle = panel.locator(".wb-controls .noUi-handle").first
    handle.scroll_into_view_if_needed()
    spot = handle.bounding_box()
    assert spot is not None
    page.mouse.move(spot["x"] + spot["width"] / 2, spot["y"] + spot["height"] / 2)
    page.mouse.down()
    page.mouse.move(spot["x"] - 600, spot["y"], steps=8)
    page.mouse.up()
    expect(title).to_contain_text("step 0", timeout=PATIENCE)
    page.wait_for_function(f"({CIRCLES})(0)[0]?.[0]?.x === {start[0][0]['x']}", timeout=PATIENCE)
    assert page.evaluate(CIRCLES, 0)[1][2]["x"] == start[1][2]["x"], "the start is not where it was drawn"

    expect(panel.get_by_text("Draw around some circles on")).to_be_visible()
    brush(page, 0, (1, 2))
    rows = panel.locator(".wb-listing tbody tr")
    brushed = rows.filter(has_text="vocabulary ·").or_(rows.filter(has_text="shell ·"))
    expect(brushed.first).to_be_visible(timeout=PATIENCE)
    moved = brushed.first.locator("td").nth(5)
    expect(moved).to_have_text("0")
    handle.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(moved).not_to_have_text("0", timeout=PATIENCE)

    panel.get_by_label("a second map beside it").check()
    expect(panel.get_by_text("Second map:")).to_be_visible(timeout=PATIENCE)
    page.wait_for_function(f"({CIRCLES})(1).length === 2", timeout=PATIENCE)
    panel.get_by_label("a second map beside it").uncheck()
    expect(panel.get_by_text("Second map:")).to_be_hidden(timeout=PATIENCE)

    page.locator(MAP).scroll_into_view_if_needed()
    page.locator(MAP).hover()
    with page.expect_download() as picture:
        page.locator(MAP).locator(".modebar-btn[data-title*='png' i]").click(force=True)
    assert picture.value.path().read_bytes().startswith(b"\x89PNG")
    person.runs_the_cell("panel.landscape.save")
    opened = page.context.browser.new_page()  # type: ignore[union-attr]
    opened.goto(
        (person.lab.folder / person.notebook).parents[1].joinpath("reports/prior_posterior.html").as_uri()
    )
    shown = re.findall(r"step \d+", title.text_content() or "")[0]
    assert shown != "step 0"
    expect(opened.locator(".gtitle")).to_contain_text(shown)
    opened.locator(".slider-rail-touch-rect").click(position={"x": 6, "y": 10})  # near its beginning
    expect(opened.locator(".gtitle")).not_to_contain_text(shown)
    opened.close()
    person.sees_no_error()

    person.save()
    person.reload()
    expect(panel.get_by_text("Finished: step 12 of 12")).to_be_visible(timeout=PATIENCE)
    page.wait_for_function(f"({CIRCLES})(0).length === 2", timeout=PATIENCE)


def brush(page: Page, number: int, which: tuple[int, int]) -> None:
    """Draws around one circle of a map with the mouse: `which` is its group and its number."""
    page.locator(".wb-panel .js-plotly-plot").nth(number).scroll_into_view_if_needed()
    circle = page.evaluate(CIRCLES, number)[which[0]][which[1]]
    x, y = circle["left"], circle["top"]
    page.mouse.move(x - 14, y - 14)
    page.mouse.down()
    for across, down in ((0, -16), (14, -14), (16, 0), (14, 14), (0, 16), (-14, 14), (-16, 0), (-14, -14)):
        page.mouse.move(x + across, y + down, steps=3)
    page.mouse.up()


WALKS: dict[str, Callable[[Person], None]] = {
    "00_overview": overview,
    "01_first_prompt": first_prompt,
    "02_prior_and_posterior": prior_and_posterior,
}

#: What the picture of a notebook shows, where that is not the whole page, and how high the page must be for it.
PICTURES: dict[str, tuple[Any, ...]] = {
    "01_first_prompt": (".wb-panel",),
    "02_prior_and_posterior": (".wb-panel", 3200),
}

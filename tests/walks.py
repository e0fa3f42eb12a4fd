"""What a person does in each notebook beyond running it: press, wait, pause, reload. One function a notebook."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Locator, Page, expect

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
    drag(page, handle, -600)
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
    shown = re.findall(r"step \d+", title.text_content() or "")[0]
    assert shown != "step 0"
    with person.opens_report("prior_posterior.html") as opened:
        expect(opened.locator(".gtitle")).to_contain_text(shown)
        _slide_to_the_beginning(opened)
        expect(opened.locator(".gtitle")).to_contain_text("step 0;")
    person.sees_no_error()

    person.save()
    person.reload()
    expect(panel.get_by_text("Finished: step 12 of 12")).to_be_visible(timeout=PATIENCE)
    page.wait_for_function(f"({CIRCLES})(0).length === 2", timeout=PATIENCE)


def drag(page: Page, handle: Locator, across: float) -> None:
    """Drags a slider's handle with the mouse, so many pixels to the right."""
    handle.scroll_into_view_if_needed()
    spot = handle.bounding_box()
    assert spot is not None
    page.mouse.move(spot["x"] + spot["width"] / 2, spot["y"] + spot["height"] / 2)
    page.mouse.down()
    page.mouse.move(spot["x"] + across, spot["y"] + spot["height"] / 2, steps=8)
    page.mouse.up()


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


#: The points of the map of activations: their texts as a pointer is told, and where they are in pixels of the window.
SEEN = """() => {
  const plot = document.querySelectorAll('.wb-panel .js-plotly-plot')[0];
  if (!plot || !plot.data || !plot.data[0] || !plot._fullLayout || !plot._fullLayout.xaxis) return [];
  const box = plot.getBoundingClientRect(), {xaxis, yaxis} = plot._fullLayout;
  return plot.data.filter(trace => trace.type === 'scattergl').flatMap(trace => Array.from(trace.x, (x, i) => ({
    text: trace.text[i], left: box.left + xaxis._offset + xaxis.l2p(x),
    top: box.top + yaxis._offset + yaxis.l2p(trace.y[i])})));
}"""


def activation_space(person: Person) -> None:
    """Trace, change the layer, lasso a cluster and read it, keep it, scrub a generation to its end, take both away."""
    page, panel = person.page, person.page.locator(".wb-panel")
    expect(panel.get_by_text("Choose what to read, and press Trace")).to_be_visible(timeout=PATIENCE)
    panel.get_by_label("Texts of each task").fill("25")
    panel.get_by_label("Texts of each task").press("Tab")
    panel.locator(".wb-buttons button", has_text="Trace").click()
    expect(panel.get_by_text(re.compile(r"Traced: .* of 100 texts"))).to_be_visible(timeout=PATIENCE)
    page.wait_for_function(f"({SEEN})().length === 100", timeout=PATIENCE)
    expect(panel.locator(".wb-numbers tbody tr")).to_have_count(6, timeout=PATIENCE)
    probe = panel.locator(".wb-numbers tr", has_text="linear probe").inner_text()

    title = page.locator(MAP).locator(".gtitle")
    expect(title).to_contain_text("layer 2", timeout=PATIENCE)
    handle = panel.locator(".wb-controls .noUi-handle").first
    handle.focus()
    page.keyboard.press("ArrowLeft")
    expect(title).to_contain_text("layer 1", timeout=PATIENCE)
    expect(panel.locator(".wb-numbers tr", has_text="linear probe")).not_to_have_text(probe, timeout=PATIENCE)

    expect(panel.get_by_text("Draw around some points on")).to_be_visible(timeout=PATIENCE)
    page.locator(MAP).scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    points = page.evaluate(SEEN)
    sums = [point for point in points if point["text"].startswith("add-2")]
    assert len(sums) == 25
    lasso(page, sums)
    expect(page.locator(MAP).locator(".selectionlayer path")).to_have_count(
        0, timeout=PATIENCE
    )  # the points stand out instead
    rows = panel.locator(".wb-listing tbody tr", has_text="answer :")
    expect(rows.first).to_contain_text("add-2", timeout=PATIENCE)
    inside = [point for point in points if _in_box(point, sums)]
    expect(panel.get_by_text(re.compile(rf"^{len(inside)} texts with {len(inside)} points"))).to_be_visible(
        timeout=PATIENCE
    )
    panel.get_by_placeholder("a name for them").fill("sums")
    panel.get_by_role("button", name="Keep").click()
    expect(panel.get_by_text(f"Kept {len(inside)} texts as “sums”")).to_be_visible(timeout=PATIENCE)

    page.locator(MAP).scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    points = page.evaluate(SEEN)
    none = {"left": points[0]["left"], "top": max(point["top"] for point in points) + 2 * ROOM}
    lasso(page, [none])
    expect(panel.get_by_text("Draw around some points on")).to_be_visible(timeout=PATIENCE)
    page.wait_for_function(f"({CHOSEN})() === null", timeout=PATIENCE)
    panel.get_by_role("button", name="Write on").click()
    walk = panel.locator(".js-plotly-plot").nth(1)
    expect(walk.locator(".gtitle")).to_contain_text("in layer 1", timeout=PATIENCE)
    scrubber = panel.locator(".wb-controls .noUi-handle").nth(1)
    scrubber.scroll_into_view_if_needed()
    scrubber.focus()
    page.keyboard.press("Home")
    page.wait_for_function(f"({PATH})() === 1", timeout=PATIENCE)
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"({PATH})() === 2", timeout=PATIENCE)
    tokens = int(re.findall(r"(\d+) tokens?,", walk.inner_text())[0])
    assert tokens > 3
    drag(page, scrubber, 600)
    page.wait_for_function(f"({PATH})() === {tokens + 1}", timeout=PATIENCE)

    page.locator(MAP).scroll_into_view_if_needed()
    page.locator(MAP).hover()
    with page.expect_download() as picture:
        page.locator(MAP).locator(".modebar-btn[data-title*='png' i]").click(force=True)
    assert picture.value.path().read_bytes().startswith(b"\x89PNG")
    person.runs_the_cell("panel.map.save")
    with person.opens_report("activation_space.html") as opened:
        expect(opened.locator(".gtitle")).to_contain_text("layer 1", timeout=PATIENCE)
        _slide_to_the_beginning(opened)
        expect(opened.locator(".gtitle")).to_contain_text("layer 0", timeout=PATIENCE)
    with person.opens_report("generation.html") as opened:
        expect(opened.locator(".slider-rail-touch-rect")).to_be_visible(timeout=PATIENCE)
    person.sees_no_error()

    person.save()
    person.reload()
    expect(panel.get_by_text(re.compile(r"Traced: .* of 100 texts"))).to_be_visible(timeout=PATIENCE)
    page.wait_for_function(f"({SEEN})().length === 100", timeout=PATIENCE)
    page.wait_for_function(f"({PATH})() === {tokens + 1}", timeout=PATIENCE)


#: Which points of the map stand out, null where all look alike.
CHOSEN = "() => document.querySelector('.wb-panel .js-plotly-plot').data[0].selectedpoints ?? null"

#: Places on the path of what was written, in the first map of the walk: the last token read, and those written so far.
PATH = """() => {
  const plot = document.querySelectorAll('.wb-panel .js-plotly-plot')[1];
  const paths = (plot?.data ?? []).filter(trace => trace.meta === 'moves' && trace.mode === 'lines+markers');
  return paths[1]?.x?.length ?? 0;
}"""

#: Pixels between what is drawn round and the line around it.
ROOM = 9


def lasso(page: Page, points: list[dict[str, Any]]) -> None:
    """Draws around points of a map with the mouse, along the box that holds them."""
    left, top, right, bottom = _box(points)
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top + 2)):
        page.mouse.move(x, y, steps=6)
    page.mouse.up()


def _slide_to_the_beginning(opened: Page) -> None:
    """Presses a saved page's slider near its beginning, once plotly, which draws it first, has brought the steps."""
    opened.wait_for_function("document.querySelector('.js-plotly-plot')._transitionData._frames.length > 1")
    opened.locator(".slider-rail-touch-rect").click(position={"x": 6, "y": 10})


def _box(points: list[dict[str, Any]]) -> tuple[float, float, float, float]:
    across, down = [point["left"] for point in points], [point["top"] for point in points]
    return min(across) - ROOM, min(down) - ROOM, max(across) + ROOM, max(down) + ROOM


def _in_box(point: dict[str, Any], points: list[dict[str, Any]]) -> bool:
    left, top, right, bottom = _box(points)
    return bool(left < point["left"] < right and top < point["top"] < bottom)


#: Columns of each heat map of clauses that stands in the first figure.
COLUMNS = """() => {
  const plot = document.querySelectorAll('.wb-panel .js-plotly-plot')[0];
  return (plot?.data ?? []).filter(trace => trace.type === 'heatmap').map(trace => trace.x.length);
}"""
#: Keeps what `COLUMNS` says after every drawing.
WATCH = f"""() => {{
  window.drawnColumns = [];
  const plot = document.querySelectorAll('.wb-panel .js-plotly-plot')[0];
  plot.on('plotly_afterplot', () => window.drawnColumns.push(({COLUMNS})()));
}}"""
MATCHING = (4, 0)


def _settled(page: Page) -> list[int]:
    """What `COLUMNS` says once no drawing comes any more."""
    page.wait_for_function(f"({COLUMNS})()[0] > 20", timeout=PATIENCE)
    before, now = [], page.evaluate(COLUMNS)
    while before != now:
        page.wait_for_timeout(1500)
        before, now = now, page.evaluate(COLUMNS)
    return list(now)


def forgetting_and_prosg(person: Person) -> None:
    """See the map of clauses fill, switch ProSG on, read the prompt again, train ten steps, switch to that, take it away."""
    page, panel, training = (
        person.page,
        person.page.locator(".wb-panel").first,
        person.page.locator(".wb-panel").nth(1),
    )
    expect(panel.get_by_text("press Generate").first).to_be_visible(timeout=PATIENCE)
    expect(panel.locator(".wb-chips .jupyter-widget-tag-close")).to_have_count(8)
    # a long text, as a short one may be written between two drawings
    panel.get_by_label("Example").select_option("12 clauses")
    expect(panel.locator(".wb-chips .jupyter-widget-tag-close")).to_have_count(12)
    page.evaluate(WATCH)
    panel.get_by_role("button", name="Generate").click()
    expect(panel.get_by_text("Written: 1 text ")).to_be_visible(timeout=PATIENCE)
    filled = {drawn[0] for drawn in page.evaluate("window.drawnColumns") if drawn} | {*_settled(page)}
    assert len(filled) > 1, f"it was drawn at {filled} tokens, not while it filled"

    panel.get_by_label("Example").select_option("4 clauses")
    expect(panel.locator(".wb-chips .jupyter-widget-tag-close")).to_have_count(4)
    panel.get_by_role("button", name="Generate").click()
    expect(panel.get_by_text("0002-tiny-rwkv")).to_be_visible(timeout=PATIENCE)
    whole = _settled(page)
    assert len(whole) == 1 and whole[0] < max(filled)

    panel.get_by_label("ProSG").select_option("error (nothing trained)")
    expect(panel.get_by_text("Written: 2 texts")).to_be_visible(timeout=PATIENCE)
    page.wait_for_function(f"({COLUMNS})().length === 2 && ({COLUMNS})()[0] === {whole[0]}", timeout=PATIENCE)
    curves = panel.locator(".js-plotly-plot").nth(1)
    expect(curves.locator(".legendtext")).to_have_text(["plain", "ProSG, error (nothing trained) × 1"])
    expect(panel.locator(".wb-text .wb-due").first).to_be_visible()
    expect(panel.locator(".js-plotly-plot").nth(2).locator(".bars .point").first).to_be_visible(
        timeout=PATIENCE
    )

    drag(page, panel.locator(".wb-controls .noUi-handle").nth(1), 60)
    page.wait_for_function(f"({COLUMNS})().length === 3", timeout=PATIENCE)
    expect(panel.get_by_text("Written: 3 texts")).to_be_visible(timeout=PATIENCE)
    expect(panel.get_by_text("Read again behind token")).to_be_visible(timeout=PATIENCE)
    behind = int(re.findall(r"Read again behind token (\d+)", panel.inner_text())[0])
    assert 0 < behind < whole[0]

    for name, value in (
        ("Steps for keys", "4"),
        ("Steps", "10"),
        ("Clauses", "2"),
        ("Words of a story", "32"),
    ):
        training.get_by_label(name, exact=True).fill(value)
        training.get_by_label(name, exact=True).press("Tab")
    training.get_by_role("button", name="Train").click()
    expect(training.get_by_text("Finished: step 14 of 14")).to_be_visible(timeout=3 * PATIENCE)
    wait_for_points(page, MATCHING, 10)
    option = panel.get_by_label("ProSG").locator("option", has_text="0001-tiny-rwkv-tokens")
    expect(option).to_be_attached(timeout=PATIENCE)
    panel.get_by_label("ProSG").select_option("0001-tiny-rwkv-tokens")
    expect(panel.get_by_text("Written: 4 texts")).to_be_visible(timeout=PATIENCE)
    expect(curves.locator(".legendtext").nth(1)).to_have_text(
        "ProSG, 0001-tiny-rwkv-tokens × 1", timeout=PATIENCE
    )

    person.runs_the_cell("panel.clauses.save")
    with person.opens_report("clauses.html") as opened:
        expect(opened.locator(".annotation-text", has_text=f"read again behind {behind}")).to_be_visible()
    person.sees_no_error()

    person.save()
    person.reload()
    expect(panel.get_by_text("Written: 4 texts")).to_be_visible(timeout=PATIENCE)
    page.wait_for_function(f"({COLUMNS})().length === 3 && ({COLUMNS})()[0] === {whole[0]}", timeout=PATIENCE)


WALKS: dict[str, Callable[[Person], None]] = {
    "00_overview": overview,
    "01_first_prompt": first_prompt,
    "02_prior_and_posterior": prior_and_posterior,
    "03_activation_space": activation_space,
    "04_forgetting_and_prosg": forgetting_and_prosg,
}

#: What the picture of a notebook shows, where that is not the whole page, and how high the page must be for it.
PICTURES: dict[str, tuple[Any, ...]] = {
    "01_first_prompt": (".wb-panel",),
    "02_prior_and_posterior": (".wb-panel", 3200),
    "03_activation_space": (".wb-panel", 3200),
    "04_forgetting_and_prosg": (".wb-panel", 3600),
}

"""JupyterLab is turned dark while notebooks are open: papers, letters and figures follow, and all can be read.

What is measured is what the browser shows: the colours that it computes for every letter and what lies behind it, and
for a figure, which the page turns with a filter, the pixels of its picture.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright", reason="Playwright for Python is not installed")

from playwright.sync_api import Locator, expect

from tests.kernels import INSTALLED
from tests.lab import Lab
from tests.person import PATIENCE, Person
from tests.walks import LOSS, wait_for_points
from workbench.views.check import contrast
from workbench.views.theme import INK, turned

#: The least contrast of letters to their paper (WCAG 2.2, 1.4.3).
LETTERS = 4.5

#: Of each piece of text outside figures: the text, its colour, and the colour that all backgrounds behind it make.
TEXTS = """root => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
  const add = colour => { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); };
  const seen = () => '#' + [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3)
    .map(part => part.toString(16).padStart(2, '0')).join('');
  const walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT), found = [];
  while (walk.nextNode()) {
    const text = walk.currentNode.data.trim(), element = walk.currentNode.parentElement;
    if (!text || element.closest('.js-plotly-plot, style, script, :disabled, [hidden]') || !element.checkVisibility()) continue;
    const behind = [];
    for (let at = element; at; at = at.parentElement) behind.unshift(getComputedStyle(at).backgroundColor);
    behind.forEach(add);
    const paper = seen();
    add(getComputedStyle(element).color);
    found.push([text.slice(0, 40), seen(), paper]);
  }
  return found;
}"""

#: The colour that most pixels of a PNG have.
COMMONEST = """async png => {
  const picture = await createImageBitmap(await (await fetch('data:image/png;base64,' + png)).blob());
  const canvas = new OffscreenCanvas(picture.width, picture.height).getContext('2d');
  canvas.drawImage(picture, 0, 0);
  const pixels = new Uint32Array(canvas.getImageData(0, 0, picture.width, picture.height).data.buffer);
  const counts = new Map();
  pixels.forEach(pixel => counts.set(pixel, (counts.get(pixel) ?? 0) + 1));
  const [pixel] = [...counts].reduce((most, one) => one[1] > most[1] ? one : most);
  return '#' + [pixel & 255, pixel >> 8 & 255, pixel >> 16 & 255].map(part => part.toString(16).padStart(2, '0')).join('');
}"""

#: The colours of a figure's letters before the page turns them.
FILLS = """figure => [...new Set([...figure.querySelectorAll('svg text, svg tspan')].filter(text => text.textContent.trim())
  .map(text => '#' + getComputedStyle(text).fill.match(/\\d+/g).slice(0, 3)
    .map(part => (+part).toString(16).padStart(2, '0')).join('')))]"""


@pytest.fixture
def dark(person: Person) -> Iterator[Any]:
    """Turns JupyterLab dark; it is light again for the next test."""

    def turn(theme: str) -> None:
        person.page.get_by_role("menuitem", name="Settings", exact=True).click()
        for name in ("Theme", theme):
            person.page.locator(".lm-Menu-itemLabel").get_by_text(name, exact=True).click()
        light = str(theme == "JupyterLab Light").lower()
        expect(person.page.locator("body")).to_have_attribute("data-jp-theme-light", light, timeout=PATIENCE)

    yield lambda: turn("JupyterLab Dark")
    turn("JupyterLab Light")


@pytest.mark.parametrize("kernel", [INSTALLED], indirect=True)
def test_notebooks_follow_jupyterlab_into_the_dark(
    place: Path, lab: Lab, person: Person, dark: Any, tmp_path: Path
) -> None:
    """Protects whoever works at night, from a white figure on a black page and from grey letters on grey."""
    page = person.page
    person.open((place / "notebooks/01_first_prompt.ipynb").relative_to(lab.folder))
    person.run_all()
    panel = page.locator(".wb-panel")
    panel.get_by_label("Steps").fill("20")
    panel.get_by_label("Steps").press("Tab")
    panel.get_by_role("button", name="Train").click()
    expect(panel.get_by_text("Finished: step 20 of 20")).to_be_visible(timeout=PATIENCE)
    wait_for_points(page, LOSS, 20)
    assert paper_of(person, panel.locator(".js-plotly-plot").first) == INK["light"]["paper"]
    dark()
    is_dark_and_readable(person, figures=2)
    person.takes_picture(tmp_path / "01_first_prompt.png", ".wb-panel")

    person.open((place / "notebooks/00_overview.ipynb").relative_to(lab.folder))
    person.run_all()
    expect(page.locator(".jp-OutputArea .js-plotly-plot")).to_be_visible(timeout=PATIENCE)
    is_dark_and_readable(person, figures=1)
    person.takes_picture(tmp_path / "00_overview.png")


def is_dark_and_readable(person: Person, figures: int) -> None:
    outputs = person.page.locator(".jp-OutputArea-output")
    texts = [text for output in outputs.all() for text in output.evaluate(TEXTS)]
    assert len(texts) > 20
    light = [text for text in texts if contrast(text[2], "#000000") > contrast(text[2], "#ffffff")]
    faint = [(*text, round(contrast(*text[1:]), 2)) for text in texts if contrast(*text[1:]) < LETTERS]
    assert not light, "on paper that stayed light"
    assert not faint

    drawn = outputs.locator(".js-plotly-plot")
    assert drawn.count() == figures
    for figure in drawn.all():
        paper = paper_of(person, figure)
        assert paper == INK["dark"]["paper"]
        fills = figure.evaluate(FILLS)
        assert fills and not [fill for fill in fills if contrast(turned(fill), paper) < LETTERS], fills


def paper_of(person: Person, figure: Locator) -> str:
    """The colour that most of a figure has on the page."""
    figure.scroll_into_view_if_needed()
    picture = base64.b64encode(figure.screenshot()).decode()
    return str(person.page.evaluate(COMMONEST, picture))

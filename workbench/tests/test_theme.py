"""The looks: colours that everyone can tell apart on light and dark paper, and figures in which nothing is hidden."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import ipywidgets
import numpy as np
import plotly.graph_objects as go
import pytest

from workbench import views
from workbench.analysis.projection import fit_projection
from workbench.tests import run_folders
from workbench.tests.run_folders import write_run
from workbench.training.run import Run
from workbench.views.check import FAINTEST, SMALLEST, check_figure, contrast
from workbench.views.curves import Curves
from workbench.views.landscape import Landscape
from workbench.views.report import FIGURE, WIDGET
from workbench.views.theme import COLOURWAY, CSS, INK, Theme, colours, empty_note, heading, template, turned
from workbench.views.view import View

THEMES: tuple[Theme, ...] = get_args(Theme)

#: The least distance in CIELAB between two colours of one figure, for every kind of sight.
APART = 26.0

# How colours are seen: Machado, Oliveira and Fernandes 2009, table 1 at severity 1.0, on linear RGB.
SIGHTS = {
    "all three cones": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
# IEC 61966-2-1 (sRGB, D65) to XYZ.
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def lab(colour: str, sight: str = "all three cones") -> np.ndarray:
    """L*, a*, b* (CIE 1976) of "#rrggbb" as it is seen."""
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    seen = np.clip(SIGHTS[sight] @ linear, 0, 1)
    t = (XYZ @ seen) / XYZ.sum(1)
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def distance(one: str, other: str, sight: str = "all three cones") -> float:
    return float(np.linalg.norm(lab(one, sight) - lab(other, sight)))


def test_the_ruler_itself() -> None:
    """Protects the two tests below: known values of CIELAB, and a pair that is famous for being confused."""
    assert lab("#ffffff") == pytest.approx([100, 0, 0], abs=0.02)
    assert lab("#ff0000") == pytest.approx([53.24, 80.09, 67.20], abs=0.05)
    assert contrast("#000000", "#ffffff") == pytest.approx(21) and contrast("#777777", "#ffffff") < 4.5
    red, green = "#c83c28", "#6e6400"
    assert distance(red, green) > 40 and distance(red, green, "deuteranopia") < APART / 2


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("sight", SIGHTS)
def test_colours_are_told_apart_by_everyone(theme: Theme, sight: str) -> None:
    """Protects readers who see no red, no green or no blue: every pair of a figure's colours, on both papers."""
    near = {
        pair: round(d, 1) for pair in combinations(colours(theme), 2) if (d := distance(*pair, sight)) < APART
    }
    assert not near
    ink = INK[theme]
    assert distance(ink["first"], ink["second"], sight) > 2 * APART
    for line in (ink["first"], ink["second"]):
        assert distance(line, ink["quiet"], sight) > 15, "the data stand out from the quiet cloud"


@pytest.mark.parametrize("theme", THEMES)
def test_lines_and_letters_stand_out_from_the_paper(theme: Theme) -> None:
    """Protects a thin line and a small letter, on both papers (WCAG 2.2: 3 for lines, 4.5 for letters)."""
    paper = INK[theme]["paper"]
    assert {c: round(contrast(c, paper), 2) for c in colours(theme) if contrast(c, paper) < FAINTEST} == {}
    assert contrast(INK[theme]["quiet"], paper) >= 4.5 and contrast(INK[theme]["text"], paper) >= 7


def test_dark_is_what_the_browser_makes_of_light() -> None:
    """Protects a dark picture beside a dark page: the arithmetic of `turned` is that of the rule in `CSS`."""
    amount, angle = re.search(r"invert\(([\d.]+)%\) hue-rotate\((\d+)deg\)", CSS).groups()  # type: ignore[union-attr]
    assert angle == "180"
    share = float(amount) / 100
    for grey in (0, 51, 128, 255):  # what has no hue is inverted alone
        wanted = round(grey * (1 - share) + (255 - grey) * share)
        assert turned(f"#{grey:02x}{grey:02x}{grey:02x}") == f"#{wanted:02x}{wanted:02x}{wanted:02x}"
    # W3C Filter Effects 1, feColorMatrix hueRotate: the luminance coefficients, cos -1 and sin 0
    lumas = np.array([0.213, 0.715, 0.072])
    rotate = 2 * np.tile(lumas, (3, 1)) - np.eye(3)
    for colour in COLOURWAY:
        light = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        wanted = np.clip(rotate @ (light * (1 - share) + (255 - light) * share), 0, 255).round().astype(int)
        assert turned(colour) == "#" + "".join(f"{part:02x}" for part in wanted)
    assert turned(INK["light"]["paper"]) == INK["dark"]["paper"] == "#111111", "JupyterLab's own dark paper"


def test_what_follows_jupyterlab_and_what_does_not() -> None:
    """Protects dark figures from being turned light, and the HTML beside the figures from staying behind."""
    assert CSS.count('body[data-jp-theme-light="false"]') == 2
    for name, colour in INK["dark"].items():
        assert f"--wb-{name}: {colour}" in CSS and f"--wb-{name}: {INK['light'][name]}" in CSS
    turned_here = next(line for line in CSS.splitlines() if "filter:" in line)
    assert ".js-plotly-plot:is(.wb-light *, .wb-light):not(.wb-dark)" in turned_here
    for theme in THEMES:
        alone = Curves(None, theme).widget()
        assert f"wb-{theme}" in alone._dom_classes and CSS in alone._css


@pytest.mark.parametrize("theme", THEMES)
def test_the_template_is_what_figures_begin_with(theme: Theme) -> None:
    figure = go.Figure(go.Scatter(x=[0, 1], y=[0, 1]), layout={"template": template(theme)})
    assert figure.layout.template.layout.paper_bgcolor == INK[theme]["paper"]
    assert tuple(figure.layout.template.layout.colorway) == colours(theme)
    assert INK[theme]["quiet"] in str(heading("one", "two", theme)["text"])
    assert empty_note("nothing", theme)["font"] == {"size": 13, "color": INK[theme]["quiet"]}


# What check_figure finds


def good(**layout: Any) -> go.Figure:
    figure = go.Figure(layout={"template": template(), "width": 900, "height": 400})
    figure.add_scatter(x=[0, 1], y=[0, 1], name="one", mode="lines")
    figure.add_scatter(x=[0, 1], y=[1, 0], name="two", mode="lines")
    figure.update_layout(
        title=heading("A title", "and what it says"),
        xaxis_title_text="step",
        yaxis_title_text="loss (nats per token)",
    )
    return figure.update_layout(**layout)


def test_nothing_is_found_in_a_good_figure() -> None:
    assert check_figure(good()) == []
    assert check_figure(good(legend={"orientation": "v", "x": 1.02, "y": 1, "yanchor": "top"})) == []
    assert check_figure(good(width=None)) == []
    assert check_figure(go.Figure(go.Table(), layout={"template": template(), "width": 900})) == []


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ({"yaxis_title_text": ""}, "yaxis has no title"),
        ({"xaxis_tickfont_size": SMALLEST - 1}, "letters of 10 px"),
        ({"title_text": "x<span style='font-size:9px'>y</span>"}, "letters of 9 px"),
        ({"legend": {"x": 0.5, "y": 0.5, "yanchor": "bottom"}}, "the legend lies on the data"),
        ({"legend": {"y": 1.15}}, "the title and the legend overlap"),
        ({"margin_t": 20}, "the title lies on the data"),
        ({"width": 60}, "the title is cut off at the edge"),
        ({"height": 190}, "the title of yaxis is longer than the axis"),
        ({"annotations": [{"text": "a note", "xref": "paper", "yref": "paper", "x": 0, "y": 1.0, "showarrow": False,
                           "yanchor": "bottom"}]}, "legend"),
        ({"plot_bgcolor": COLOURWAY[0]}, None),
    ],
)  # fmt: skip
def test_every_fault_is_found(fault: dict[str, Any], found: str | None) -> None:
    """Protects the test of all views: what it looks for, it finds."""
    figure = good(**fault)
    if found is None:
        figure.data[0].line.color, found = COLOURWAY[0], "too faint"
    assert any(found in sentence for sentence in check_figure(figure)), check_figure(figure)


def test_axes_that_show_no_numbers_need_no_title_and_second_axes_do() -> None:
    """Protects small multiples: the shared axis has one title; and each panel of its own has its own."""
    figure = good()
    figure.add_scatter(x=[0, 1], y=[0, 1], yaxis="y2", showlegend=False)
    figure.update_layout(yaxis2={"overlaying": "y", "side": "right"})
    assert check_figure(figure) == ["yaxis2 has no title"]
    figure.update_layout(yaxis2_showticklabels=False)
    assert check_figure(figure) == []
    space = go.Figure(go.Scatter3d(x=[0], y=[0], z=[0]), layout={"template": template(), "width": 900})
    assert check_figure(space) == [f"scene.{s}axis has no title" for s in "xyz"]


# Every view


def subclasses(kind: type) -> Iterator[type]:
    for below in kind.__subclasses__():
        yield below
        yield from subclasses(below)


for module in pkgutil.iter_modules(views.__path__, views.__name__ + "."):
    importlib.import_module(module.name)
#: Every view that can be made, whether the room's front names it or not.
VIEWS = sorted(
    {v for v in subclasses(View) if not inspect.isabstract(v) and v.__module__.startswith(views.__name__)},
    key=lambda view: view.__name__,
)


#: Of the vectors of the backbone that the runs name; some views load it.
WIDTH = run_folders.CONFIG["backbone"]["width"]


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    """What views are made of: a run with everything, another that differs in its seed, their folder, and a frame."""
    runs = [
        write_run(tmp_path / f"runs/{seed}", snapshots=True, width=WIDTH, fit__seed=seed) for seed in (0, 1)
    ]
    for run in runs:
        write_answers(run)
    dice = np.random.default_rng(1)
    words = tuple(f"word{i}" for i in range(60))
    spread = np.linspace(3, 0.1, WIDTH)
    rows = np.concatenate([dice.normal(size=(60, WIDTH)) * spread, dice.normal(size=(4, WIDTH))])
    frame = fit_projection(rows, words=words, parts=(60, 4))
    landscape = Landscape(runs)
    landscape.brushed = {(runs[0].path, 1), (runs[1].path, 3)}
    landscape.look()
    return {"run": runs[0], "runs": runs, "frame": frame, "landscape": landscape}


def write_answers(run: Run) -> None:
    ways = {"zero_shot": "the", "hand_written": "a", "trained": "oslo"}
    row: dict[str, Any] = {"question": "norway ->", "expected": "oslo"}
    for way, text in ways.items():
        row |= {way: text, f"{way}_score": float(text == "oslo")}
    answers = {"backbone": "tiny-llama", "task": "find-person", "metric": "exact_match", "questions": 1}
    answers |= {"hand_prompt": "spain -> madrid", "rows": [row]}
    answers |= {"scores": {way: row[f"{way}_score"] for way in ways}}
    (run.path / "answers.json").write_text(json.dumps(answers))


def made(view: type[View], theme: Theme, given: dict[str, Any]) -> Iterator[View]:
    """A view with nothing, with all that is given, and with one run where it takes several."""
    wanted = inspect.signature(view).parameters
    fitting = {name: value for name, value in given.items() if name in wanted}
    ways = [{}, fitting, *([{**fitting, "runs": given["run"]}] if "runs" in wanted else [])]
    for arguments in ways:
        if all(name in arguments or p.default is not p.empty for name, p in wanted.items()):
            drawn = view(**arguments, theme=theme)
            yield drawn
            getattr(drawn, "close", lambda: None)()  # one that follows a folder ends its thread


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.__name__)
@pytest.mark.parametrize("theme", THEMES)
def test_every_view_can_be_read(
    view: type[View], theme: Theme, given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects every figure, empty and full: titled axes, letters of a size, and nothing on top of anything else."""
    monkeypatch.chdir(tmp_path)
    tried = 0
    for drawn in made(view, theme, given):
        assert check_figure(drawn.figure()) == [], vars(drawn)
        tried += 1
    assert tried


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.__name__)
def test_every_view_follows_the_theme_of_the_page_as_the_last_line_of_a_cell(
    view: type[View], given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects dark pages: what a cell shows stands within the class that the theme's rule turns, or in the page's ink."""
    monkeypatch.chdir(tmp_path)
    for drawn in made(view, "light", given):
        shown = drawn._repr_mimebundle_()
        assert FIGURE not in shown, "a bare figure is light on every page"
        if WIDGET in shown:
            widget = ipywidgets.widget_serialization["from_json"](
                f"IPY_MODEL_{shown[WIDGET]['model_id']}", None
            )
            assert widget is drawn.widget() and "wb-light" in widget._dom_classes
        else:
            assert "wb-light" in shown["text/html"] or "var(--jp-content-font-color1" in shown["text/html"]

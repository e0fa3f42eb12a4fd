"""Saving a view: what is written, that it needs nothing from elsewhere, and what is said where it cannot be done."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs

from workbench.errors import WorkbenchError
from workbench.tests.run_folders import write_run
from workbench.views import AnswersBeside, Curves, Drift, Movement, View
from workbench.views import view as view_module
from workbench.views.page import figure_part, page
from workbench.views.picture import find_browser, picture

needs_browser = pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome on this machine")


@pytest.fixture
def views(tmp_path: Path) -> list[View]:
    runs = [write_run(tmp_path / f"r{i}", fit__seed=i, snapshots=True) for i in range(2)]
    return [Curves(runs[0]), Curves(runs), Drift(runs), Movement(), AnswersBeside(runs)]


def test_a_saved_page_asks_for_nothing_from_elsewhere(views: list[View], tmp_path: Path) -> None:
    """Protects a page that is opened on a train: the library stands in it, once, and no address does."""
    library = get_plotlyjs()
    for view in views:
        text = view.save(tmp_path / "new/folder/x.html").read_text(encoding="utf-8")
        assert text.count(library) == (0 if isinstance(view, AnswersBeside) else 1)
        assert not re.findall(r"https?://(?!www\.w3\.org)[^\s\"'<]*", text.replace(library, ""))
        assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=", text.replace(library, ""))


def test_a_page_of_many_figures_holds_the_library_once_and_keeps_sliders() -> None:
    slider = {"steps": [{"label": "1", "method": "restyle", "args": ["visible", [True]]}]}
    figure = go.Figure(go.Scatter(y=[1, 2]), layout={"sliders": [slider], "title": {"text": "</script><b>x"}})
    text = page("a <title>", [figure_part(figure), figure_part(figure), "<p>table</p>"], heading=True)
    assert text.count(get_plotlyjs()) == 1 and "a &lt;title&gt;" in text
    assert text.replace(get_plotlyjs(), "").count('"sliders":[') == 2
    assert "</script><b>x" not in text
    assert get_plotlyjs() not in page("table", ["<p>table</p>"])


def test_a_saved_table_is_the_data(views: list[View], tmp_path: Path) -> None:
    for view in views[:3]:
        table = pd.read_csv(view.save(tmp_path / "x.csv"))
        assert list(table.columns) == list(view.data().columns) and len(table) == len(view.data())


@needs_browser
@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_picture_has_the_size_of_its_figure(views: list[View], tmp_path: Path, kind: str) -> None:
    content = views[1].save(tmp_path / f"x.{kind}").read_bytes()
    if kind == "png":
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
        size = [int.from_bytes(content[16 + 4 * i : 20 + 4 * i], "big") for i in range(2)]
        assert size == [1720, 1280], "twice 860 by 640"
    else:
        assert content.startswith(b"<svg") and b"How the prompts learn" in content


def test_a_picture_without_a_browser_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("workbench.views.picture.PLACES", ())
    with pytest.raises(WorkbenchError, match=r"none was found; install one .* or name it in BROWSER_PATH"):
        Curves().save(tmp_path / "x.png")
    assert not list(tmp_path.glob("*x.png*"))


def test_a_browser_that_draws_nothing_is_said_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "browser"
    broken.write_text("#!/bin/sh\necho it is broken >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("BROWSER_PATH", str(broken))
    with pytest.raises(WorkbenchError, match=r"did not draw the \.png \(it is broken\)"):
        picture(go.Figure(), "png")


def test_a_failed_save_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects an older picture: a save happens whole or not at all."""
    target = tmp_path / "x.png"
    target.write_bytes(b"older")

    def fails(*_: Any) -> bytes:
        raise WorkbenchError("no")

    monkeypatch.setattr(view_module, "picture", fails)
    with pytest.raises(WorkbenchError):
        Curves().save(target)
    assert target.read_bytes() == b"older" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(WorkbenchError, match="cannot be written"):
        Curves().save(target / "below/x.csv")

"""The map of the workbench, and what its page becomes without Jupyter: from files alone, and never a number by hand."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import ipywidgets as w
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from workbench.data import BACKBONES, EVIDENCE
from workbench.errors import WorkbenchError
from workbench.training.run import Run
from workbench.views import Cards, Claims, Forgetting, Installed, LiveFigure, Notebooks, Runs
from workbench.views import overview as module
from workbench.views.still import still

NOTEBOOKS = BACKBONES.parent.parent / "notebooks"


def make_run(path: Path, step: int = 3) -> Run:
    config = {
        "backbone": {"name": "tiny-llama"},
        "task": {"task": "reading"},
        "method": {"kind": "soft-prompt", "config": {"tokens": 2}},
        "fit": {"steps": 9},
    }
    run = Run.create(path, config)
    for number in range(1, step + 1):
        look = {"validation": {"loss": 1.0, "token_f1": number / 10}} if number == 2 else {}
        run.append_metrics({"step": number, "loss": 3.0 / number, "seconds": 0.1} | look)
    run.write_status(state="stopped", step=step, steps=9)
    return run


# The listings


def test_notebooks_are_described_by_their_own_words(tmp_path: Path) -> None:
    """Protects the map from growing old: a new notebook is on it, and its name leads to it."""
    cell = {"cell_type": "markdown", "source": ["# <New>\n", "\n", "One thing. Another! A third?"]}
    (tmp_path / "02_new.ipynb").write_text(json.dumps({"cells": [cell]}))
    (tmp_path / "01_none.ipynb").write_text(json.dumps({"cells": []}))
    view = Notebooks(tmp_path)
    assert view.data().to_numpy().tolist() == [
        ["01_none.ipynb", "01_none", ""],
        ["02_new.ipynb", "<New>", "One thing. Another!"],
    ]
    html = view.table_html()
    assert "&lt;New&gt;</a>" in html and "<New>" not in html and '02_new.ipynb"' in html
    assert len(Notebooks(NOTEBOOKS).data()) == len(list(NOTEBOOKS.glob("*.ipynb")))


def test_a_damaged_notebook_is_named(tmp_path: Path) -> None:
    (tmp_path / "00_cut.ipynb").write_text("{")
    with pytest.raises(WorkbenchError, match=r"00_cut\.ipynb"):
        Notebooks(tmp_path).data()


def test_installed_tells_the_versions_and_what_was_not_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects whoever reports a fault: versions as they are, and where they differ from those of the tests."""
    table = Installed().data().set_index("package")
    for package in ("torch", "plotly", "ipykernel"):
        assert table.loc[package, "version"] == metadata.version(package)
    assert "pytest" not in table.index and "prompt-workbench" not in table.index
    monkeypatch.setattr(module, "_tested", lambda: {"torch": "1.0", "plotly": metadata.version("plotly")})
    monkeypatch.setattr(module, "_named", lambda: ["torch", "plotly", "no-such-package"])
    lines = dict(Installed().shown().to_numpy().tolist())
    assert lines["missing"] == "no-such-package"
    assert "tested: 1.0" in lines["not as tested"] and "plotly" not in lines["not as tested"]


def test_cards_and_forgetting_say_what_the_cards_say() -> None:
    """Protects the numbers: each is one of a card's, none is made here."""
    cards = {path.parent.name: json.loads(path.read_text()) for path in BACKBONES.glob("*/card.json")}
    table = Cards().data().set_index("backbone")
    assert {name: card["met"] for name, card in cards.items()} == table["met"].to_dict()
    cells = Forgetting().data()
    for name, card in cards.items():
        for fitting, key in (("any", "forgetting"), ("two", "forgetting_of_two")):
            mine = cells[(cells["backbone"] == name) & (cells["fitting"] == fitting)]
            assert mine[["clauses", "distance", "met", "cases"]].to_numpy().tolist() == [
                c for c in card[key] if c[3]
            ]


def test_forgetting_draws_every_cell_where_a_guess_meets_half() -> None:
    """One line a backbone and number of clauses; few cases are hollow; nothing stands where it hides data."""
    view = Forgetting()
    table = view.data().query("fitting == 'two'")
    figure = view.figure()
    drawn = [
        (trace.name, x, round(y / 100, 9), n)
        for trace in figure.data
        for x, y, n in zip(trace.x, trace.y, trace.customdata, strict=True)
    ]
    assert sorted(drawn) == sorted(
        zip(table["clauses"].astype(str), table["distance"], table["met"], table["cases"], strict=True)
    )
    for trace in figure.data:
        assert [symbol == "circle-open" for symbol in trace.marker.symbol] == [
            n < 30 for n in trace.customdata
        ]
    assert figure.layout.xaxis.title.text and figure.layout.yaxis.title.text
    assert len({trace.line.color for trace in figure.data}) == table["clauses"].nunique()


def test_runs_are_listed_newest_first_and_counted(tmp_path: Path) -> None:
    """Protects the list from a folder with hundreds of runs: the newest are shown, and how many there are is said."""
    assert "no runs yet" in Runs(tmp_path / "none").table_html()
    make_run(tmp_path / "study/a")
    view = Runs(tmp_path)
    (row,) = view.data().to_dict("records")
    assert row | {"started": ""} == {
        "run": "study/a",
        "backbone": "tiny-llama",
        "task": "reading",
        "method": "soft-prompt",
        "state": "stopped",
        "step": 3,
        "steps": 9,
        "loss": 1.0,
        "measure": "token_f1",
        "score": 0.2,
        "started": "",
        "note": "",
    }
    assert (
        "stopped, step 3 of 9" in view.table_html()
        and "token f1 20%" in view.table_html()
        and not view.note()
    )
    for number in range(module.MOST_RUNS):
        make_run(tmp_path / f"b{number}", 0)
    assert len(view.data()) == module.MOST_RUNS and f"of {module.MOST_RUNS + 1} runs" in view.note()
    assert pd.isna(view.data()["loss"]).all() or "step 0 of 9" in view.table_html()


def test_claims_stand_beside_their_evidence(tmp_path: Path) -> None:
    """Protects the verdict: it is the file's, and a claim without evidence is not tried."""
    rules = sorted(path.stem for path in (EVIDENCE / "rules").glob("*.json"))
    assert Claims().data()["claim"].tolist() == rules
    (tmp_path / "rules").mkdir()
    for name in rules[:2]:
        (tmp_path / "rules" / f"{name}.json").write_text((EVIDENCE / "rules" / f"{name}.json").read_text())
    found: dict[str, Any] = {"effect": 0.62, "interval": [0.55, None], "verdict": "holds", "reason": "why"}
    (tmp_path / f"{rules[0]}.json").write_text(json.dumps(found))
    first, second = Claims(tmp_path).data().to_dict("records")
    assert (first["verdict"], first["effect"], first["low"]) == ("holds", 0.62, 0.55)
    assert second["verdict"] == "not tried" and pd.isna(second["effect"])
    shown = Claims(tmp_path).shown()
    assert shown["95% interval"].tolist() == ["0.55 to ∞", ""] and shown["effect"].tolist() == ["0.62", ""]
    assert rules[1] in Claims(tmp_path).note()


def test_every_view_of_the_map_saves_itself_and_has_an_empty_state(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    (empty / "rules").mkdir(parents=True)
    pairs = [
        (Notebooks(NOTEBOOKS), Notebooks(empty)),
        (Cards(), Cards(empty)),
        (Forgetting(theme="dark"), Forgetting(empty)),
        (Claims(theme="dark"), Claims(empty)),
        (Installed(), None),
    ]
    make_run(tmp_path / "runs/a")
    pairs.append((Runs(tmp_path / "runs"), Runs(empty)))
    for full, none in pairs:
        name = type(full).__name__
        assert len(pd.read_csv(full.save(tmp_path / f"{name}.csv"))) == len(full.data()) > 0
        assert "<" in full.save(tmp_path / f"{name}.html").read_text()
        assert full.figure().data
        if none is not None:
            assert not len(none.data()) and none.figure().layout.annotations and not none.figure().data
        full.update()


def test_the_map_loads_no_model() -> None:
    """Protects the second that it opens in: transformers alone takes longer to import, and plotly's widget as long."""
    import subprocess

    code = "import sys; from workbench.views import Cards, Claims, Forgetting, Installed, Notebooks, Runs\n"
    code += f"views = [Notebooks({str(NOTEBOOKS)!r}), Installed(), Cards(), Runs('.'), Claims()]\n"
    code += "[view.table_html() for view in views]; Forgetting().figure()\nprint([name for name in ('transformers', 'workbench.views.live') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Widgets that stand still


def test_a_panel_stands_still_with_all_that_it_shows() -> None:
    """Protects the report: text, values and figures are there, in their boxes, and nothing is alive but the figure."""
    live = LiveFigure(go.Figure(go.Scatter(x=[1], y=[2])))
    live.draw(
        go.Figure(go.Scatter(x=np.arange(3.0), y=[2.0, 3.0, 4.0]))
    )  # waits for its turn; the still does not
    panel = w.VBox(
        [
            w.HTML("<b>as it is</b>", layout={"display": "none"}),
            w.HBox([w.Label("<x>"), w.Button(description="Train")]),
            w.Dropdown(options=[("Tiny Llama", "tiny-llama")], description="Backbone"),
            w.Tab([w.IntText(7, description="Steps")], titles=["More"]),
            live,
        ]
    ).add_class("wb-panel")
    html = still(panel)
    assert html.startswith('<div class="wb-panel" style="display:flex')
    assert "<b>as it is</b>" in html and "display:none" in html and "&lt;x&gt;" in html
    assert "disabled>Train</button>" in html and "Backbone <b>Tiny Llama</b>" in html
    assert "<h5>More</h5>" in html and "Steps <b>7</b>" in html
    assert "Plotly.newPlot" in html and len(live.data[0].x) == 3
    assert len(html) < 20_000, "plotly.js stands in the page once, not in every figure"


def test_what_cannot_stand_still_says_so() -> None:
    class Strange(w.DOMWidget):
        pass

    assert "Strange: only in Jupyter" in still(Strange())

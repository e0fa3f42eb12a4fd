"""Protects the map of a trace: points where their vectors are, what a pointer is told, and what is left out is said."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

import workbench as wb
from workbench.analysis.frames import moved
from workbench.analysis.projection import fit_projection
from workbench.analysis.trace import Trace
from workbench.analysis.trace_files import Part
from workbench.views.activation_map import ActivationMap
from workbench.views.check import check_figure
from workbench.views.cluster_numbers import ClusterNumbers
from workbench.views.generation_walk import BEFORE, GenerationWalk
from workbench.views.selected_texts import SelectedTexts
from workbench.views.traces import MOST_ROWS, Traces, hovers, spans

TASKS = ("reading", "running", "add-2")


@pytest.fixture(scope="module")
def backbone() -> wb.Backbone:
    return wb.load_backbone("tiny-llama", device="cpu")


@pytest.fixture(scope="module")
def texts() -> dict[str, list[wb.Example]]:
    return {name: list(wb.load_task(name).examples(n=12)) for name in TASKS}


@pytest.fixture(scope="module")
def trace(backbone: wb.Backbone, texts: dict[str, list[wb.Example]]) -> Trace:
    return wb.trace(backbone, texts)


@pytest.fixture(scope="module")
def prompted(backbone: wb.Backbone, texts: dict[str, list[wb.Example]]) -> Trace:
    method = wb.SoftPrompt(backbone, tokens=4, prior=wb.priors.Shell(radius=4))
    return wb.trace(backbone, texts, method=method)


def artificial(rows: int, like: Trace) -> Trace:
    """A trace of any size: three tasks, each token of its own text."""
    dice = np.random.default_rng(0)
    text, task = np.arange(rows), dice.integers(0, 3, rows)
    vectors = dice.normal(size=(3, 8))[task] * 3 + dice.normal(size=(rows, 8))
    columns = {name: np.zeros(rows, np.int64) for name in like.table.columns}
    columns |= {"text": text, "task": np.array(TASKS, object)[task], "token": np.full(rows, "word", object)}
    columns |= {"is_answer": np.zeros(rows, bool), "log_probability": np.zeros(rows)}
    said = [{"text": i, "task": TASKS[t], "prompt": "a word", "answer": ""} for i, t in enumerate(task)]
    table = pa.table({name: columns[name] for name in like.rows.schema.names}, schema=like.rows.schema)
    table = table.replace_schema_metadata({"texts": json.dumps(said)})
    places = ("layer 0", "layer 1")
    arrays = {p: torch.from_numpy((vectors + 0.1 * i).astype(np.float32)) for i, p in enumerate(places)}
    return Trace({**like.settings, "places": list(places)}, [Part(table, arrays)])


def test_points_are_where_their_vectors_are(trace: Trace, prompted: Trace) -> None:
    """Of the trace that fits the map, and of one that is placed on it, layer by layer."""
    view = ActivationMap({"none": trace, "prompt": prompted}, colour="run")
    for place in trace.places:
        view.place = place
        table = view.data()
        alone, own = fit_projection(trace[place]), table[table["run"] == "none"]
        assert list(own["row"]) == list(range(len(trace)))
        apart = np.linalg.norm(own[["x", "y"]].to_numpy()[:40] - own[["x", "y"]].to_numpy()[40:80], axis=1)
        np.testing.assert_allclose(
            apart, np.linalg.norm(alone.points[:40] - alone.points[40:80], axis=1), rtol=2e-3, atol=1e-3
        )
        other = table[table["run"] == "prompt"]
        frame = view.traces.frames[place]  # type: ignore[union-attr]
        np.testing.assert_allclose(
            other[["x", "y"]], frame.place(prompted[place]).points, rtol=1e-4, atol=1e-3
        )
    assert not table[table["run"] == "none"]["off"].any(), "what the map was fitted to is on it"


def test_the_layer_slider_moves_points_less_than_maps_on_their_own(trace: Trace) -> None:
    """The number behind "points do not jump for no reason": the movement between adjacent layers, aligned or not."""
    view = ActivationMap(trace)
    frames = view.traces.frames  # type: ignore[union-attr]
    alone = {place: fit_projection(trace[place]) for place in trace.places}
    together = [moved(frames[a], frames[b]) for a, b in pairwise(trace.places)]
    apart = [moved(alone[a], alone[b]) for a, b in pairwise(trace.places)]
    assert all(one <= other + 1e-6 for one, other in zip(together, apart, strict=True))
    assert np.mean(together) < 0.85 * np.mean(apart), (together, apart)


@pytest.mark.parametrize("kind", ["pca", "umap", "tsne"])
def test_a_layer_whose_vectors_are_all_the_same_is_shown_and_said(
    backbone: wb.Backbone, texts: dict[str, list[wb.Example]], kind: str, tmp_path: Path
) -> None:
    """Protects the last token of each text where all end alike: its embedding is one, what layers make of it are many."""
    ends = {"running": texts["running"][:6], "stories": list(wb.load_task("stories").examples(n=6))}
    one = wb.trace(backbone, ends, positions="last")
    method = wb.SoftPrompt(backbone, tokens=4, prior=wb.priors.Shell(radius=4))
    two = wb.trace(backbone, ends, positions="last", method=method)
    assert (one["layer 0"] == one["layer 0"][0]).all(), "or else this tests nothing"
    for given, who in ((one, ""), ({"a < b": one, "prompt": two}, " of a &lt; b")):
        view = ActivationMap(given, "layer 0", kind=kind, cache=tmp_path)
        assert not view.data()[["x", "y"]].to_numpy().any() and not view.data()["off"].any()
        for place in one.places:
            view.place = place
            assert np.isfinite(view.data()[["x", "y"]].to_numpy()).all()
            said, alike = str(view.figure().layout.title.text).replace("<br>", " "), place == "layer 0"
            assert (f"all vectors{who} are the same here, so the map is one point" in said) == alike
            assert check_figure(view.figure()) == []
        assert len(view.animated().frames) == len(one.places)
        view.place = "layer 0"
        figure = view.figure()
        assert tuple(figure.layout.xaxis.range) == tuple(figure.layout.yaxis.range) == (-1, 1)
        assert "variance" not in figure.layout.title.text and "distances" not in figure.layout.title.text


def test_colours_say_what_their_names_say(trace: Trace, prompted: Trace) -> None:
    traces = Traces({"none": trace, "prompt": prompted})
    for colour in ("task", "token", "run", "correctness"):
        scores = {"none": [1.0, 0.0, float("nan")] * 12}
        view = ActivationMap(traces, colour=colour, scores=scores)  # type: ignore[arg-type]
        of, names = view._classes()
        table = traces.rows
        if colour == "correctness":
            wanted = np.where(table["run"] == "prompt", 2, np.array([0, 1, 2])[table["text"] % 3])
            assert (of == wanted).all()
        else:
            labels = table[colour].astype(str).str.strip()
            for number, (name, _) in enumerate(names[:-1]):
                assert set(labels[of == number]) == {name}
        assert check_figure(view.figure()) == []
    along = ActivationMap(traces, colour="position")
    values, style = along._values()
    assert (values == traces.rows["index"]).all() and style["showscale"]
    with pytest.raises(wb.WorkbenchError, match="colour"):
        ActivationMap(traces, colour="colour").figure()  # type: ignore[arg-type]


def test_a_pointer_is_told_the_text_with_the_token_marked(backbone: wb.Backbone, trace: Trace) -> None:
    """Every token of every text is found where it stands; what is not certain is not marked."""
    table = trace.table
    marks = spans(trace, table)
    whole = {text["text"]: text["prompt"] + text["answer"] for text in trace.texts}
    assert (marks[:, 0] >= 0).mean() > 0.99
    for row in range(0, len(table), 7):
        start, end = marks[row]
        assert whole[table["text"][row]][start:end] == table["token"][row].strip()
    first = table[table["text"] == 0].index
    assert (np.diff(marks[first][:, 0]) > 0).all(), "tokens of a text follow one another"
    said = hovers(trace, table, np.array([3]))[0]
    assert "reading · text 0" in said and f"<b>[{table['token'][3].strip()}]</b>" in said
    some = wb.trace(backbone, ["the old king sang the old song"], positions=[2])
    assert (spans(some, some.table) == -1).all(), "either of two tokens of one kind"
    markup = wb.trace(backbone, ["a <b>bold</b> text"])
    assert not any("<b>bold" in hover for hover in hovers(markup, markup.table, np.arange(len(markup))))


def test_what_is_drawn_round_is_a_table_of_texts_in_any_layer(trace: Trace) -> None:
    view = ActivationMap(trace, place="layer 1")
    table = SelectedTexts(view)
    assert not len(table.data()) and "Draw around" in table.table_html()
    points = view.traces.at("layer 1").points  # type: ignore[union-attr]
    x, y = points[5]
    view.brushed = view.inside([np.array([[x - 1e-3, y - 1e-3], [x + 1e-3, y - 1e-3], [x, y + 1e-3]])])
    assert 5 in view.brushed
    found = table.data()
    assert set(found["text"]) == set(trace.table["text"].to_numpy()[view.brushed])
    assert found["points"].sum() == len(view.brushed)
    text = trace.texts[int(found["text"][0])]
    assert found["prompt"][0] == text["prompt"] and found["answer"][0] == text["answer"]
    view.place = "layer 3"
    assert table.data().equals(found), "the same points in another layer"
    drawn = view.figure().data[0]
    own = drawn.text[list(drawn.selectedpoints)]
    assert sorted(own) == sorted(view.traces.rows["hover"].iloc[view.brushed])  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("rows", "drawn"), [(MOST_ROWS["pca"], MOST_ROWS["pca"]), (200_000, MOST_ROWS["pca"])]
)
def test_very_many_points_are_thinned_and_say_so(rows: int, drawn: int, trace: Trace) -> None:
    """Protects a page from 200,000 points; 50,000 are all drawn, without a word."""
    view = ActivationMap(artificial(rows, trace))
    figure = view.figure()
    assert sum(len(part.x) for part in figure.data if part.type == "scattergl") == drawn == len(view.data())
    said = str(figure.layout.title.text).replace("<br>", " ")
    assert (f"thinned: {drawn:,} of {rows:,} rows are drawn" in said) == (drawn < rows)
    view.place = "layer 1"
    assert (view.data()["row"] == view.traces.kept["no prompt"]).all()  # type: ignore[union-attr]
    tasks = view.data()["task"].value_counts(normalize=True)
    np.testing.assert_allclose(tasks, 1 / 3, atol=0.02)


def test_a_page_has_a_slider_over_the_layers(trace: Trace, tmp_path: Path) -> None:
    view = ActivationMap(trace, place="layer 1")
    moving = view.animated()
    assert [frame.name for frame in moving.frames] == list(trace.places)
    assert moving.layout.sliders[0].active == trace.places.index("layer 1")
    view.place = "output"
    np.testing.assert_array_equal(moving.frames[-1].data[0].x, view.figure().data[0].x)
    assert "after its last layer" in moving.frames[-1].layout.title.text
    assert view.save(tmp_path / "map.html").stat().st_size > 1_000_000
    assert len(pd.read_csv(view.save(tmp_path / "map.csv"))) == len(trace)
    for wrong in ({"place": "layer 9"}, {"kind": "map"}):
        with pytest.raises(wb.WorkbenchError, match="is called"):
            ActivationMap(trace, **wrong).figure()  # type: ignore[arg-type]


def test_numbers_are_measured_once_and_kept(
    trace: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numbers of a layer come with intervals and shuffled tasks, and from the folder the next time."""
    view = ClusterNumbers(trace, "layer 2", tmp_path)
    view.pending = True
    assert not len(view.shown()) and "being measured" in view.note()
    view.pending = False
    table = view.data()
    probe = table[table["measure"] == "probe"].iloc[0]
    assert probe["low"] <= probe["value"] <= probe["high"] and probe["chance_high"] < probe["value"]
    assert len(list(tmp_path.iterdir())) == 1 and view.known("layer 2") and not view.known("layer 1")
    monkeypatch.setattr("workbench.analysis.clusters_kept.measure_layers", None)
    again = ClusterNumbers(trace, "layer 2", tmp_path)
    pd.testing.assert_frame_equal(again.data(), table)
    with pytest.raises(TypeError):  # another layer is another key
        ClusterNumbers(trace, "layer 1", tmp_path).data()
    damaged = next(tmp_path.iterdir())
    damaged.write_text("{")
    with pytest.raises(TypeError):  # and a damaged file is measured anew
        ClusterNumbers(trace, "layer 2", tmp_path).data()


def test_one_task_has_no_clusters_and_is_told_so(backbone: wb.Backbone) -> None:
    alone = wb.trace(backbone, {"one": ["a text", "another"]}, layers=0)
    view = ClusterNumbers(alone, "layer 0")
    assert not len(view.data()) and "two tasks or more" in view.table_html()


def test_a_walk_grows_token_by_token(backbone: wb.Backbone, trace: Trace, tmp_path: Path) -> None:
    """Path, text and probabilities are those of the trace; what is still to come is not on the path."""
    prompt, config = wb.load_task("stories").examples(n=1)[0].prompt, wb.GenerateConfig(max_new_tokens=9)
    method = wb.SoftPrompt(backbone, tokens=3)
    walks = {
        "none": wb.trace(backbone, [prompt], generate=config),
        "prompt": wb.trace(backbone, [prompt], generate=config, method=method),
    }
    frame = Traces({"all": trace}).frames["layer 2"]
    view = GenerationWalk(frame, walks, "layer 2", step=4)
    table = view.data()
    own = table[table["walk"] == "none"]
    seen = walks["none"].table.iloc[-len(own) :]
    assert view.last == own["step"].max() == 9 and (own["step"] == 0).sum() == BEFORE
    np.testing.assert_allclose(own["probability"], np.exp(seen["log_probability"]), rtol=1e-5)
    np.testing.assert_allclose(
        own[["x", "y"]], frame.place(walks["none"]["layer 2"][-len(own) :]).points, rtol=1e-5
    )
    figure = view.figure()
    assert check_figure(figure) == []
    paths = [
        part
        for part in figure.data
        if part.meta == "moves" and "mode" in part and part.mode == "lines+markers"
    ]
    assert [len(part.x) for part in paths] == [BEFORE, 1 + 4] * 2
    bars = [part for part in figure.data if part.type == "bar"]
    assert [int((np.array(part.marker.opacity) < 0.2).sum()) for part in bars] == [9 - 4] * 2
    ranges = [figure.layout[f"xaxis{n}"].range for n in ("", "2")]
    assert ranges[0] == ranges[1], "side by side on one frame"
    moving = view.animated()
    assert [frame.name for frame in moving.frames] == [str(step) for step in range(10)]
    assert view.save(tmp_path / "walk.html").exists()
    assert check_figure(GenerationWalk().figure()) == [] and not len(GenerationWalk().data())

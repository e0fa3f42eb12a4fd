"""Protects the map of prompts: points where their vectors are, in a frame that stands still, and nothing that it hides."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import workbench as wb
from workbench.analysis.projection import ProjectionConfig
from workbench.training.job import JobConfig
from workbench.training.preview import Preview
from workbench.training.run import Run
from workbench.views.brushed import Brushed
from workbench.views.check import check_figure
from workbench.views.landscape import Landscape, joined
from workbench.views.live import outline
from workbench.views.maps import within
from workbench.views.shift import Shift

TOKENS, STEPS = 3, (0, 2, 4)


@pytest.fixture(scope="module")
def backbone() -> wb.Backbone:
    return wb.load_backbone("tiny-llama", device="cpu")


@pytest.fixture(scope="module")
def runs(backbone: wb.Backbone, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Vocabulary and shell with two seeds each; soft prompts trained for a few steps."""
    folder, task = tmp_path_factory.mktemp("study"), wb.load_task("find-person")
    fit = wb.FitConfig(steps=4, batch_size=2, evaluate_every=0, snapshot_every=2, learning_rate=0.05)
    methods: list[wb.Method] = [
        wb.SoftPrompt(backbone, tokens=TOKENS, prior=prior, seed=seed)
        for prior in (wb.priors.Vocabulary(), wb.priors.Shell(radius=4))
        for seed in (0, 1)
    ]
    for _ in wb.fit_many(backbone, methods, task, fit, folder):
        pass
    return [Run(path) for path in sorted(folder.iterdir())]


@pytest.fixture(scope="module")
def deep(backbone: wb.Backbone, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("deep") / "run"
    method = wb.DeepPrompt(backbone, tokens=TOKENS, layers=("input", 2))
    fit = wb.FitConfig(steps=2, batch_size=2, evaluate_every=0, snapshot_every=1)
    for _ in wb.fit(backbone, method, wb.load_task("find-person"), fit, folder):
        pass
    return Run(folder)


def test_every_point_is_where_its_vector_is(backbone: wb.Backbone, runs: list[Run]) -> None:
    view = Landscape(runs, backbone=backbone)
    table, frame = view.data(), view.frame()
    assert frame is not None and len(table) == len(runs) * len(STEPS) * TOKENS
    for run in (runs[0], runs[3]):
        own = table[(table["run"] == run.name) & (table["step"] == 4)]
        vectors = run.snapshot(4)["embeddings"]
        np.testing.assert_allclose(own[["x", "y"]], frame.place(vectors).points, rtol=1e-5)
        start = run.snapshot(0)["embeddings"]
        np.testing.assert_allclose(own["moved"], np.linalg.norm(vectors - start, axis=1), rtol=1e-5)
        far = torch.cdist(torch.from_numpy(vectors), backbone.vocabulary().float())
        words = [backbone.tokenizer.decode([int(i)]).strip() for i in far.argmin(1)]
        assert list(own["nearest"]) == words
        np.testing.assert_allclose(own["nearest_distance"], far.min(1).values, rtol=1e-3)


def test_the_frame_stands_still_while_prompts_move_and_more_is_trained(
    backbone: wb.Backbone, runs: list[Run]
) -> None:
    """Protects what a movement on the map means: a start is where it was, whatever the step, and whatever came since."""
    view = Landscape(runs, backbone=backbone, step=0)
    view.figure()
    frame, before = view.frame(), view.shown(0)
    run = runs[1]
    run.write_snapshot(6, {"embeddings": torch.from_numpy(run.snapshot(4)["embeddings"]) + 3})
    try:
        view.step = 6
        figure = view.figure()
        assert view.frame() is frame
        for name, now in view.shown(0).items():
            np.testing.assert_array_equal(now.places, before[name].places)
        moved = view.shown()[view.groups()[1].name]
        assert moved.off.any() and "6" in figure.layout.title.text
        hollow = [symbol for trace in figure.data[-6:] for symbol in np.atleast_1d(trace.marker.symbol)]
        assert hollow.count("circle-open") == sum(int(now.off.sum()) for now in view.shown().values())
        assert f"({hollow.count('circle-open')} of 12)" in figure.layout.title.text
    finally:
        run.snapshots()[6].unlink()


def test_what_is_drawn_before_training_is_where_training_starts(
    backbone: wb.Backbone, runs: list[Run], tmp_path: Path
) -> None:
    """Protects the preview: same points in the same frame, so that nothing jumps when the runs are there."""
    previews = [
        Preview(
            JobConfig(
                "tiny-llama",
                "find-person",
                settings={
                    "tokens": TOKENS,
                    **{k: run.config["method"]["config"][k] for k in ("prior", "seed")},
                },
                fit=wb.FitConfig.from_json(run.config["fit"]),
            ),
            backbone,
            run.path,
        )
        for run in runs
    ]
    before, after = Landscape(previews, backbone=backbone), Landscape(runs, backbone=backbone)
    one, other = before.data(), after.data().query("step == 0").reset_index(drop=True)
    pd.testing.assert_frame_equal(one[["run", "vector", "x", "y"]], other[["run", "vector", "x", "y"]])
    assert check_figure(before.figure()) == []
    assert before.animated().layout.sliders == ()


@pytest.mark.parametrize("kind", ["pca", "tsne"])
def test_the_map_is_readable_and_made_once(
    kind: str, backbone: wb.Backbone, runs: list[Run], tmp_path: Path
) -> None:
    config = ProjectionConfig(kind, most=150)  # type: ignore[arg-type]
    view = Landscape(runs, backbone=backbone, projection=config, cache=tmp_path, tasks=("reading",))
    figure = view.figure()
    assert check_figure(figure) == []
    assert "150 of" in figure.layout.title.text, "a map that was thinned says so"
    (file,) = tmp_path.iterdir()
    made = file.stat().st_mtime_ns
    again = Landscape(runs, backbone=backbone, projection=config, cache=tmp_path)
    pd.testing.assert_frame_equal(again.data(), view.data())
    assert file.stat().st_mtime_ns == made
    for width in (438, 900):
        view.width = width
        assert check_figure(view.figure()) == []


def test_a_layer_has_its_own_map_with_the_tasks_in_it(backbone: wb.Backbone, deep: Run) -> None:
    view = Landscape(deep, place="layer 2", tasks=("reading", "order-2"), backbone=backbone)
    figure, frame = view.figure(), view.frame()
    assert frame is not None and len(frame.parts) == 4 and check_figure(figure) == []
    np.testing.assert_allclose(
        view.shown()[view.groups()[0].name].places, frame.place(deep.snapshot(2)["layer 2"]).points, rtol=1e-5
    )
    assert {trace.name for trace in figure.data} >= {"reading: activations", "order-2: activations"}
    assert "layer 2" in figure.layout.title.text


def test_what_cannot_be_shown_together_is_said(
    backbone: wb.Backbone, runs: list[Run], deep: Run, tmp_path: Path
) -> None:
    nothing = Landscape()
    assert not len(nothing.data()) and nothing.figure().layout.annotations and nothing.steps() == []
    both = Landscape([*runs, deep], place="layer 2", backbone=backbone)
    assert [group.runs for group in both.groups()] == [(deep,)], "soft prompts have nothing in a layer"
    none = Landscape(runs, place="layer 2", backbone=backbone)
    assert "layer 2" in none.figure().layout.annotations[0].text
    other = json.loads(deep.config_path.read_text())
    other["backbone"]["name"] = "tiny-rwkv"
    (tmp_path / "config.json").write_text(json.dumps(other))
    with pytest.raises(wb.WorkbenchError, match="tiny-llama and tiny-rwkv"):
        Landscape([*runs, Run(tmp_path)]).data()


def test_a_saved_page_walks_through_the_steps(backbone: wb.Backbone, runs: list[Run], tmp_path: Path) -> None:
    """Protects the slider without Jupyter: a frame a snapshot, each with the points of its step."""
    view = Landscape(runs, backbone=backbone)
    moving = view.animated()
    assert [frame.name for frame in moving.frames] == [str(step) for step in STEPS]
    assert [step.label for step in moving.layout.sliders[0].steps] == [str(step) for step in STEPS]
    for frame in moving.frames:
        view.step = int(frame.name)
        for drawn, wanted in zip(frame.data, view.figure().data[-len(frame.data) :], strict=True):
            np.testing.assert_array_equal(drawn.x, wanted.x)
    page = view.save(tmp_path / "map.html").read_text()
    assert "<script src" not in page and '"sliders":[{' in page and '"method":"animate"' in page


def test_brushed_vectors_have_a_path_and_a_row(backbone: wb.Backbone, runs: list[Run]) -> None:
    """Protects the brush: of what was drawn round, these vectors and no others, also with a group left out."""
    view = Landscape(runs, backbone=backbone)
    last = len(view.figure().data) - 1
    group = view.groups()[1]
    now = view.shown()[group.name]
    chosen = [(group.runs[0].path, 1), (group.runs[1].path, 2)]
    spots = now.places[[now.keys.index(key) for key in chosen]]
    drawn = [spot + 1e-3 * np.array([[-1, -1], [1, -1], [0, 1]]) for spot in spots.astype(float)]
    view.brushed = view.inside(drawn)
    assert view.brushed == set(chosen)
    expected, _ = joined([view.paths(chosen)[key] for key in now.keys if key in view.brushed])
    np.testing.assert_array_equal(view.figure().data[last - 2].x, expected)
    assert view.figure().data[last].selectedpoints == tuple(now.keys.index(key) for key in chosen)
    table = Brushed(view).data()
    assert list(zip(table["run"], table["vector"], strict=True)) == [
        (group.runs[0].name, 1),
        (group.runs[1].name, 2),
    ]
    full = view.data().query("step == 4 and run == @group.runs[1].name and vector == 2").iloc[0]
    assert table["moved"].iloc[1] == pytest.approx(full["moved"], rel=1e-5)
    assert table["nearest"].iloc[1].split()[0] == full["nearest"]
    view.only = (view.groups()[0].name,)
    assert view.inside(drawn) == set(), "what is not drawn cannot be drawn round"
    view.brushed = set()
    assert not len(Brushed(view).data()) and "Draw around" in Brushed(view).table_html()


def test_inside_is_inside_a_crooked_outline() -> None:
    """Protects the lasso: a horseshoe holds its arms and not what stands between them; a box is an outline too."""
    horseshoe = np.array([[0, 0], [5, 0], [5, 4], [4, 4], [4, 1], [1, 1], [1, 4], [0, 4]], float)
    places = np.array([[0.5, 3], [2.5, 3], [4.5, 3], [2.5, 0.5], [6, 2], [np.nan, 1]], np.float32)
    assert within(places, [horseshoe]).tolist() == [True, False, True, True, False, False]
    box = outline({"type": "rect", "x0": 2, "x1": 3, "y0": 3.5, "y1": 2.5})
    assert within(places, [horseshoe, box]).tolist() == [True, True, True, True, False, False]
    assert not within(places, []).any()


def test_starts_and_ends_are_compared_as_samples(runs: list[Run]) -> None:
    table = Shift(runs).data()
    assert list(table["runs"]) == [2, 2] and (table["energy_distance"] > 0).all()
    assert len(Shift(runs[:1]).shown()) == 1 and "—" in set(Shift(runs[:1]).shown().iloc[0])
    assert not len(Shift().data())

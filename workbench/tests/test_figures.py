"""Protects the figures of the paper's list: each made from its name, right in its numbers, readable on either paper."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from sklearn.metrics import pairwise_distances

import workbench as wb
from workbench.analysis.projection import ProjectionConfig, fit_projection
from workbench.analysis.surroundings import Surroundings
from workbench.errors import WorkbenchError
from workbench.tests.run_folders import write_run
from workbench.training.work import shared_backbone
from workbench.views import LayerActivations, PriorSamples, SentencePaths, figure
from workbench.views.check import check_figure
from workbench.views.cloud import MOST_POINTS, SHARES, cloud_traces, hills, outline, written
from workbench.views.figures import NAMES
from workbench.views.maps import apart, axis_title, spans
from workbench.views.sentence_paths import WALK
from workbench.views.theme import Theme, template

LLAMA, RWKV = "tiny-llama", "tiny-rwkv"
SENTENCE = "the old king gave a sword to tina ."

# The ground that they stand on


def two_hills(n: int) -> np.ndarray:
    dice = np.random.default_rng(0)
    return np.concatenate([dice.normal(size=(n, 2)), dice.normal(size=(n, 2)) * 0.1 + [8, 0]])


def test_the_lines_of_the_hills_hold_the_shares_that_they_say() -> None:
    """Protects what is read off the ground: within the line of 50% lie half of the points, of narrow hills too."""
    points = two_hills(4000)
    columns, rows, depth = hills(points)
    at = depth[
        np.abs(rows[:, None] - points[:, 1]).argmin(0), np.abs(columns[:, None] - points[:, 0]).argmin(0)
    ]
    for share in SHARES:
        assert abs((at >= 1 - share).mean() - share) < 0.06
    narrow = np.abs(columns - 8) < 0.5
    assert depth[:, narrow].max() > 0.95 > depth[:, ~narrow].max(), "the densest place is the narrow hill's"
    cell = columns[1] - columns[0]
    reached = columns[(depth > 0.1).any(0) & (columns > 5)]
    assert np.ptp(reached) < 6 * 0.1 + 6 * cell, "a narrow hill is not drawn as wide as a wide one"


def test_a_large_vocabulary_weighs_no_more_than_a_small_one() -> None:
    few, many = (go.Figure(cloud_traces(two_hills(n), ["word"] * 2 * n)).to_json() for n in (1000, 50_000))
    assert len(many) < 1.2 * len(few)


def test_points_that_are_left_out_are_said() -> None:
    shown = cloud_traces(two_hills(MOST_POINTS), ["word"] * 2 * MOST_POINTS)
    assert f"{MOST_POINTS:,} of {2 * MOST_POINTS:,}" in shown[1].name and len(shown[1].x) == MOST_POINTS
    assert [trace.name for trace in cloud_traces(two_hills(20))] == ["vocabulary"], "few points are no hills"
    assert cloud_traces(np.zeros((0, 2))) == []
    figure = go.Figure(
        shown, layout={"template": template(), "xaxis_title_text": "x", "yaxis_title_text": "y"}
    )
    assert check_figure(figure) == []


def test_words_that_are_written_are_whole_and_far_apart() -> None:
    places = np.array([[0, 0], [0.1, 0], [5, 0], [0, 5], [9, 9]], float)
    assert set(written(["aaa", "bbb", "ccc", "ddd", "##e"], places, 3)) < {0, 1, 2, 3}
    assert len({0, 1} & set(written(["aaa", "bbb", "ccc", "ddd", "##e"], places, 3))) <= 1
    assert written(["a", "##"], places[:2]) == []


def test_a_point_that_many_share_and_a_straight_line_are_ground_as_well() -> None:
    """Protects a vocabulary of which half was never trained: all in one place, or all along one line."""
    for points in (np.zeros((500, 2)), np.linspace([0, 0], [1, 0], 500)):
        assert all(np.isfinite(part).all() for part in hills(points))


def test_a_line_around_three_in_four_goes_around_three_in_four() -> None:
    points = two_hills(2000)
    line = outline(points, "#000000")
    assert line.contours.value == 0.25 and line.contours.operation == ">"
    at = np.asarray(line.z)[
        np.abs(np.asarray(line.y)[:, None] - points[:, 1]).argmin(0),
        np.abs(np.asarray(line.x)[:, None] - points[:, 0]).argmin(0),
    ]
    assert abs((at > 0.25).mean() - 0.75) < 0.05


# What maps share


def test_labels_do_not_lie_on_one_another() -> None:
    ranges, room = [[0.0, 10.0], [0.0, 10.0]], (500.0, 500.0)
    points = np.array([[1, 1], [1.01, 1.01], [8, 8], [4, 4], [5, 4]])
    assert apart(points, ["one", "two", "three", "...", "far"], ranges, room) == [0, 2, 4]
    assert apart(points, ["one", "two", "three", "...", "far"], ranges, (50_000.0, 50_000.0)) == [0, 1, 2, 4]


def test_ranges_hold_all_that_is_on_the_map() -> None:
    x, y = spans(np.array([[0, 0], [2, 1]]), np.array([[-3, 5], [np.nan, 1]]), room=0)
    assert x == pytest.approx([-3, 2], abs=1e-5) and y == pytest.approx([0, 5], abs=1e-5)


# Sentences


def test_a_path_goes_through_its_own_tokens_in_their_order() -> None:
    """Protects what the arrows say: each end is the place of that token's own vector, and a step is its length."""
    view = SentencePaths(LLAMA, SENTENCE)
    backbone, frame = shared_backbone(LLAMA), view.frame
    assert frame is not None
    ids = backbone.tokenizer(SENTENCE, add_special_tokens=False)["input_ids"]
    vectors = backbone.vocabulary()[ids].numpy()
    table = view.data()
    text = table[table["path"] == "text 1"]
    assert list(text["token"]) == SENTENCE.split()
    np.testing.assert_allclose(text[["x", "y"]], frame.place(vectors).points, atol=1e-4)
    np.testing.assert_allclose(text["step"][1:], np.linalg.norm(np.diff(vectors, axis=0), axis=1), rtol=1e-4)
    assert not text["off"].any(), "tokens of the vocabulary are on its map"
    assert len(table[table["path"] == WALK]) == len(text)
    arrows = view.figure().data[[trace.legendgroup for trace in view.figure().data].index("text 1")]
    np.testing.assert_allclose(arrows.x, text["x"])
    assert set(arrows.marker.symbol) == {"arrow"} and arrows.marker.angleref == "previous"


def test_a_path_in_a_layer_is_what_the_layer_reads_of_the_whole_text() -> None:
    """Protects a path in depth from being one of tokens alone: a token's place depends on those before it."""
    view = SentencePaths(RWKV, [SENTENCE, "tina ."], task="reading", layer=2, walk=False)
    table = view.data()
    first, second = (table[table["path"] == name] for name in ("text 1", "text 2"))
    assert list(first["token"])[-2:] == list(second["token"]) == ["tina", "."]
    assert np.abs(first[["x", "y"]].to_numpy()[-2:] - second[["x", "y"]].to_numpy()).max() > 1
    frame = view.frame
    assert frame is not None
    np.testing.assert_array_equal(
        frame.vectors, Surroundings(shared_backbone(RWKV), "layer 2").activations("reading")
    )
    assert "reading: activations" in [trace.name for trace in view.figure().data]
    assert WALK not in set(table["path"])


def test_tokens_off_the_map_are_hollow_and_counted() -> None:
    view = SentencePaths(LLAMA, "wombat zebra quark" * 3, task="order-2", layer=1, walk=False)
    off = view.data()["off"]
    assert off.any() and f"{off.sum()} of the texts’ {len(off)} tokens are off the map" in str(
        view.figure().layout.title.text
    )
    arrows = next(t for t in view.figure().data if t.legendgroup == "text 1")
    assert [symbol.endswith("-open") for symbol in arrows.marker.symbol] == off.tolist()


def test_the_examples_of_a_task_are_texts_where_none_are_given() -> None:
    view = SentencePaths(LLAMA, task="order-2")
    examples = [example.text for example in wb.load_task("order-2").examples(n=2, seed=0)]
    table = view.data()
    for number, text in enumerate(examples, start=1):
        tokens = table[table["path"] == f"text {number}"]["token"]
        assert "".join(tokens) == text.replace(" ", "")


# Tasks in layers


def test_a_panel_shows_the_layer_that_it_names() -> None:
    """Protects small multiples from showing one layer twice, and tasks from changing colours."""
    view = LayerActivations(LLAMA, ("reading", "order-2"), layers=(0, 3), points=60)
    table = view.data()
    assert list(table["layer"].unique()) == [0, 3] and list(table["task"].unique()) == ["reading", "order-2"]
    for layer in (0, 3):
        around = Surroundings(shared_backbone(LLAMA), f"layer {layer}")
        vectors = np.concatenate([around.activations(task, 60) for task in ("reading", "order-2")])
        drawn = table[table["layer"] == layer]
        centred = vectors - vectors.mean(0)
        shown = np.square(drawn[["x", "y"]] - drawn[["x", "y"]].mean(axis=0)).to_numpy().sum()
        assert shown / np.square(centred).sum() == pytest.approx(drawn["explained"].iloc[0], rel=1e-3)
        far = pairwise_distances(vectors)
        np.fill_diagonal(far, np.inf)
        nearest = far <= far.min(1, keepdims=True) + 1e-4
        own = np.repeat([[0], [1]], 60, axis=0) == np.repeat([0, 1], 60)
        assert drawn["kept_together"].iloc[0] == pytest.approx(
            ((nearest & own).sum(1) / nearest.sum(1)).mean(), abs=0.01
        )
    notes = [note.text for note in view.figure().layout.annotations]
    assert [note.split("</b>")[0] for note in notes] == ["<b>layer 0", "<b>layer 3"]
    assert all("of the variance" in note for note in notes)


def test_panels_are_turned_so_that_points_stay_where_they_were() -> None:
    """Protects the eye: no other turn of a layer's map lies nearer to the map before it."""
    view = LayerActivations(LLAMA, ("reading", "order-2"), layers=(1, 2), points=60)
    before, after = (frame.points - frame.points.mean(0) for frame in view.frames.values())
    mirrors = [np.diag(signs) for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
    turns = [[[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]] for a in np.linspace(0, 6, 25)]
    gap = np.square(after - before).sum()
    assert all(
        np.square(after @ m @ np.array(t) - before).sum() >= gap * 0.999 for m in mirrors for t in turns
    )


def test_of_many_layers_evenly_chosen_ones_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.views.layer_activations.MOST_LAYERS", 2)
    view = LayerActivations(LLAMA, ("reading", "order-2"), points=30)
    assert view.layers == (0, 3) and "2 of 4 layers" in str(view.figure().layout.title.text)


# Priors


def test_draws_are_those_of_the_prior_and_their_numbers_are_right() -> None:
    """Protects the figure from drawing another prior's vectors under a name, and each number beside them."""
    shell = wb.priors.Shell(radius=3.0)
    view = PriorSamples(LLAMA, {"far": shell, "words": "vocabulary"}, n=30)
    table, backbone = view.data(), shared_backbone(LLAMA)
    drawn = shell.fit(backbone).sample(30, torch.Generator().manual_seed(0))
    far, words = (table[table["prior"] == name] for name in ("far", "words"))
    np.testing.assert_allclose(far["radius"], 3.0, rtol=1e-3)
    np.testing.assert_allclose(far["norm"], drawn.norm(dim=1), rtol=1e-4)
    gap = torch.cdist(drawn, backbone.vocabulary())
    np.testing.assert_allclose(far["nearest_distance"], gap.min(1).values, rtol=1e-3)
    named = [backbone.tokenizer.decode([int(i)]).strip() for i in gap.argmin(1)]
    assert list(far["nearest"]) == named
    assert far["off"].all() and not words["off"].any() and words["nearest_distance"].max() == 0
    title = str(view.figure().layout.title.text)
    assert "30 of 60 draws are off the map" in title
    marks = {
        trace.name: trace.marker.symbol for trace in view.figure().data if trace.name in ("far", "words")
    }
    assert set(marks["far"]) == {"circle-open"} and set(marks["words"]) == {"circle"}


def test_all_panels_have_one_map_and_one_scale() -> None:
    figure_ = PriorSamples(LLAMA, ("isotropic", "shell", "vocabulary"), n=10).figure()
    layout = figure_.layout
    assert len({tuple(layout[name].range) for name in ("xaxis", "xaxis2", "xaxis3")}) == 1
    x, y = layout.xaxis, layout.yaxis
    wide = (layout.width - layout.margin.l - layout.margin.r) * (x.domain[1] - x.domain[0])
    high = (layout.height - layout.margin.t - layout.margin.b) * (y.domain[1] - y.domain[0])
    assert wide / np.ptp(x.range) == pytest.approx(high / np.ptp(y.range), rel=0.01), (
        "a unit is as long on both axes"
    )


def test_priors_of_one_name_are_told_apart() -> None:
    fitted = wb.priors.FittedGaussian
    view = PriorSamples(None, [fitted(data="reading"), fitted(data="order-2"), "isotropic"])
    assert list(view.priors) == [
        "fitted-gaussian, data=reading",
        "fitted-gaussian, data=order-2",
        "isotropic",
    ]
    with pytest.raises(WorkbenchError, match="no prior is called 'isotrop'"):
        PriorSamples(None, "isotrop")


# From their names


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each figure can be made of, small."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [write_run(folder / str(seed), snapshots=True, width=192, fit__seed=seed) for seed in (0, 1)]
    return {
        "sentence paths over the token embeddings": {"backbone": LLAMA, "texts": [SENTENCE]},
        "sentence paths over the activations of a layer": {"backbone": RWKV, "task": "order-2", "layer": 1},
        "activations of tasks at each layer": {
            "backbone": LLAMA,
            "tasks": ("reading", "order-2"),
            "points": 60,
        },
        "prior and posterior beside the vocabulary": {"runs": runs},
        "prior and posterior beside the activations of tasks": {"runs": runs, "tasks": ("reading",)},
        "samples of each prior": {"backbone": LLAMA, "n": 20},
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_figure_of_the_list_is_made_from_one_cell(
    name: str, theme: Theme, settings: dict[str, Any]
) -> None:
    """Protects the promise of the list: each name gives a view with numbers, that can be read on either paper."""
    view = figure(name, **settings[name], theme=theme)
    assert len(view.data()) and check_figure(view.figure()) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_says_what_it_needs(name: str, settings: dict[str, Any]) -> None:
    for group in NAMES[name].needs:
        given = {key: value for key, value in settings[name].items() if key not in group}
        with pytest.raises(WorkbenchError, match=f"needs {' or '.join(f'{one}=' for one in group)};"):
            figure(name, **given)
    with pytest.raises(WorkbenchError, match=r"no setting of the figure .* is called 'colour'"):
        figure(name, **settings[name], colour="red")


def test_a_figure_that_is_not_there_is_answered_with_the_nearest() -> None:
    with pytest.raises(WorkbenchError, match="did you mean 'samples of each prior'"):
        figure("samples of every prior")
    with pytest.raises(WorkbenchError, match="'layer'"):
        figure("sentence paths over the token embeddings", backbone=LLAMA, texts="the king", layer=1)


def test_a_long_note_is_broken_into_lines() -> None:
    """Protects the page of 900 pixels: what was thinned is said, and is not cut off at the edge."""
    for view in (
        PriorSamples(LLAMA, "isotropic", n=5, projection=ProjectionConfig(most=200)),
        SentencePaths(LLAMA, SENTENCE, projection=ProjectionConfig(most=200), width=640),
        LayerActivations(LLAMA, "reading", points=60, projection=ProjectionConfig(most=20), width=640),
    ):
        shown = view.figure()
        assert check_figure(shown) == [] and " of " in str(shown.layout.title.text)
        assert str(view._below()[-1]) in str(shown.layout.title.text)


def test_axes_of_a_map_without_a_unit_say_so() -> None:
    frame = fit_projection(np.random.default_rng(0).normal(size=(20, 4)))
    assert axis_title(frame, 1).startswith("PC 2 (") and axis_title(frame, 1).endswith("% of the variance)")
    bent = replace(frame, config=ProjectionConfig("tsne"), explained=None)
    assert axis_title(bent, 0) == "t-SNE 1 (no unit)"


def test_a_figure_is_a_file(tmp_path: Path) -> None:
    view = figure("samples of each prior", backbone=LLAMA, n=5)
    page = view.save(tmp_path / "priors.html").read_text()
    assert "gaussian-exclusion" in page and "plotly" in page.lower()
    assert view.save(tmp_path / "priors.csv").read_text().startswith("prior,vector,x,y")

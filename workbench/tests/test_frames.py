"""Protects the layer slider: maps of one layer after another in which points move because the layers differ."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from workbench.analysis.frames import Frames, moved
from workbench.analysis.projection import ProjectionConfig, align, fit_projection
from workbench.errors import WorkbenchError

Layers = dict[str, np.ndarray]


def turning(count: int = 300, width: int = 12) -> Layers:
    """Four groups, the same in each layer but for a random rotation, a growing scale, and a little noise."""
    dice = np.random.default_rng(0)
    groups = dice.normal(size=(4, width)) * 4
    rows = groups[np.arange(count) % 4] + dice.normal(size=(count, width))
    layers = {}
    for number in range(4):
        turn, _ = np.linalg.qr(dice.normal(size=(width, width)))
        noise = 0.1 * dice.normal(size=rows.shape)
        layers[f"layer {number}"] = (2.0**number * (rows + noise) @ turn).astype(np.float32)
    return layers


def steps(maps: dict[str, object]) -> list[float]:
    return [moved(one, other) for one, other in pairwise(maps.values())]  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "most"), [("pca", 0.1), ("umap", 0.5)])
def test_points_stay_where_they_were(kind: str, most: float) -> None:
    """Layers that differ by a rotation alone: fitted apart points fly across the map, as frames they hardly move."""
    layers, config = turning(), ProjectionConfig(kind)  # type: ignore[arg-type]
    apart = steps({name: fit_projection(rows, config) for name, rows in layers.items()})
    together = steps(dict(Frames(list(layers), layers.__getitem__, config)))
    assert max(together) < most < max(apart), (together, apart)
    assert np.mean(together) < np.mean(apart) / 2


def test_distances_within_a_layer_are_those_of_its_own_map() -> None:
    """Turning must not bend: what is near on a layer's own map is as near as before."""
    layers = turning(60)
    frame = Frames(list(layers), layers.__getitem__)["layer 3"]
    alone = fit_projection(layers["layer 3"])
    for one in (3, 17):
        np.testing.assert_allclose(
            np.linalg.norm(frame.points - frame.points[one], axis=1),
            np.linalg.norm(alone.points - alone.points[one], axis=1),
            rtol=1e-3,
            atol=1e-3,
        )
    np.testing.assert_allclose(frame.place(layers["layer 3"][:5]).points, frame.points[:5], atol=1e-3)


def test_a_map_is_fitted_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those before it are fitted first; another process takes them all from the folder."""
    layers, asked = turning(40), list[str]()

    def rows(name: str) -> np.ndarray:
        asked.append(name)
        return layers[name]

    frames = Frames(list(layers), rows, ProjectionConfig("umap"), {"of": "test"}, tmp_path)
    assert frames.ready == ()
    third = frames["layer 2"]
    assert asked == ["layer 0", "layer 1", "layer 2"] and frames.ready == ("layer 0", "layer 1", "layer 2")
    assert frames["layer 2"] is third and len(asked) == 3
    monkeypatch.setattr("workbench.analysis.projection._fit", None)
    again = Frames(list(layers), rows, ProjectionConfig("umap"), {"of": "test"}, tmp_path)["layer 2"]
    np.testing.assert_array_equal(again.points, third.points)
    with pytest.raises(TypeError):
        frames["layer 3"]  # which was never asked for, and cannot be fitted now
    with pytest.raises(WorkbenchError, match="layer 9"):
        frames["layer 9"]


@pytest.mark.parametrize("kind", ["pca", "umap", "tsne"])
def test_a_layer_where_all_rows_are_the_same_is_one_point_and_turns_no_other(
    kind: str, tmp_path: Path
) -> None:
    """Protects the last tokens of texts that end alike: the first layer, and one in between, have nothing to map."""
    layers = turning(40)
    layers["layer 0"] = np.ones_like(layers["layer 0"])
    layers["layer 2"] = np.full_like(layers["layer 2"], 7)
    config = ProjectionConfig(kind, perplexity=10)  # type: ignore[arg-type]
    frames = dict(Frames(list(layers), layers.__getitem__, config, cache=tmp_path))
    for name, frame in frames.items():
        assert frame.points.shape == (40, 2) and np.isfinite(frame.points).all(), name
        assert frame.alike == (name in ("layer 0", "layer 2"))
        assert frame.alike == (not frame.points.any())
    first = frames["layer 1"]
    alone = fit_projection(layers["layer 1"], config, {"place": "layer 1"})
    np.testing.assert_array_equal(first.points, alone.points)  # it starts afresh
    start = first if kind == "umap" else None
    wanted = align(fit_projection(layers["layer 3"], config, after=start), first)
    np.testing.assert_allclose(
        frames["layer 3"].points, wanted.points, atol=1e-4
    )  # goes on from the last map
    assert len(list(tmp_path.iterdir())) == 2, "maps of one point are not kept"
    again = dict(Frames(list(layers), layers.__getitem__, config, cache=tmp_path))
    for name, frame in frames.items():
        np.testing.assert_array_equal(again[name].points, frame.points)


@pytest.mark.parametrize("kind", ["pca", "umap", "tsne"])
def test_a_layer_of_two_vectors_and_their_copies_is_a_map_to_go_on_from(kind: str) -> None:
    """Protects answers of yes or no: along the second axis of their map there is nothing."""
    layers = turning(12)
    layers["layer 0"] = np.zeros((12, 12), np.float32)
    layers["layer 0"][::2, 3] = 4
    frames = Frames(list(layers), layers.__getitem__, ProjectionConfig(kind))  # type: ignore[arg-type]
    assert all(np.isfinite(frame.points).all() for frame in frames.values())
    assert not any(frame.alike for frame in frames.values())


def test_how_far_points_go() -> None:
    """0 for the same map at any scale; √2 for places that have nothing to do with one another, in the mean."""
    rows = np.random.default_rng(1).normal(size=(4000, 2)).astype(np.float32)
    one, larger = fit_projection(rows), fit_projection(3 * rows)
    assert moved(one, one) == 0 and moved(one, larger) == pytest.approx(0, abs=1e-5)
    other = fit_projection(np.random.default_rng(2).normal(size=(4000, 2)).astype(np.float32))
    assert moved(one, other) == pytest.approx(2**0.5, abs=0.05)

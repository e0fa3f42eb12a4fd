"""Maps: what is near stays near, what is far off is said to be, and the same is always at the same place.

Compared with closed forms, with scikit-learn and with umap-learn; everything is seeded and small.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.manifold import trustworthiness
from sklearn.neighbors import NearestNeighbors

from workbench.analysis.projection import OFF_MAP, Projection, ProjectionConfig, align, fit_projection
from workbench.errors import WorkbenchError

KINDS = ("pca", "umap", "tsne")
WIDTH, EACH = 20, 60
#: Far apart along the first two axes.
MIDDLES = np.zeros((3, WIDTH))
MIDDLES[1, 0] = MIDDLES[2, 1] = 30


def clusters(seed: int = 0, each: int = EACH) -> np.ndarray:
    """(3 · each, WIDTH): three groups, one after the other."""
    noise = np.random.default_rng(seed).normal(size=(3 * each, WIDTH))
    return (np.repeat(MIDDLES, each, axis=0) + noise).astype(np.float32)


@cache
def fitted(kind: str) -> Projection:
    return fit_projection(clusters(), ProjectionConfig(kind, reduce=10, perplexity=10))


# Fitting


def test_pca_is_that_of_scikit_learn_with_its_signs_fixed() -> None:
    """Protects the axes, their shares and the way up: mirrored data give the mirrored map, not another one."""
    from sklearn.decomposition import PCA

    rows, frame = clusters(), fitted("pca")
    peer = PCA(2).fit(rows)
    np.testing.assert_allclose(np.abs(frame.points), np.abs(peer.transform(rows)), atol=1e-4)
    np.testing.assert_allclose(frame.explained, peer.explained_variance_ratio_, rtol=1e-4)
    assert (frame.axes[np.arange(2), np.abs(frame.axes).argmax(1)] > 0).all()
    np.testing.assert_allclose(fit_projection(-rows).axes, frame.axes, atol=1e-4)


def test_umap_is_that_of_umap_learn_on_the_same_neighbours() -> None:
    """Protects the settings that are handed on: its class gives the same bits for the same start and neighbours."""
    from umap import UMAP

    rows = clusters()
    config = ProjectionConfig("umap", neighbours=7, reduce=WIDTH, seed=3)
    frame = fit_projection(rows, config)
    centred = rows - rows.mean(0)
    start = fit_projection(rows).points
    apart, index = NearestNeighbors(n_neighbors=7, algorithm="brute").fit(centred).kneighbors(centred)
    knn = (index, apart.astype(np.float32), None)
    with pytest.warns(UserWarning, match="knn_search_index"):
        peer = UMAP(7, init=start, random_state=3, n_jobs=1, precomputed_knn=knn).fit_transform(centred)
    np.testing.assert_allclose(frame.points, peer, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_stay_neighbours_and_a_fit_is_the_same_again(kind: str) -> None:
    rows, frame = clusters(), fitted(kind)
    assert frame.points.shape == (len(rows), 2) and frame.total == len(rows) == len(frame.kept)
    group = np.arange(len(rows)) // EACH
    near = NearestNeighbors(n_neighbors=5).fit(frame.points).kneighbors(return_distance=False)
    assert (group[near] == group[:, None]).mean() > 0.99
    assert trustworthiness(rows, frame.points) > (0.75 if kind == "pca" else 0.85)
    again = fit_projection(rows, frame.config)
    np.testing.assert_array_equal(again.points, frame.points)
    assert again.key == frame.key


@pytest.mark.parametrize("kind", KINDS)
def test_a_notebook_hears_nothing_while_a_map_is_made(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Protects a quiet cell, where umap-learn says that a seed costs threads, and that so few rows are few."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ImportWarning)  # which Python keeps to itself
        fit_projection(clusters()[:12], ProjectionConfig(kind, reduce=5)).place(clusters())
    assert capfd.readouterr() == ("", "")


def test_what_was_thinned_and_reduced_is_said_in_numbers_that_are_true() -> None:
    rows = clusters()
    frame = fit_projection(rows, ProjectionConfig("umap", reduce=5, most=100))
    kept = rows[frame.kept]
    values = np.linalg.svd(kept - kept.mean(0), compute_uv=False) ** 2
    share = values[:5].sum() / values.sum()
    assert frame.note == f"100 of 180 rows; 5 of 20 directions keep {share:.0%} of the variance"
    assert fitted("pca").note == ""
    np.testing.assert_array_equal(frame.vectors, kept)


def test_small_parts_are_kept_whole_and_parts_can_be_told_apart() -> None:
    """Protects a prior beside a huge vocabulary: where prompts start must be on the map that is fitted to it."""
    rows = clusters(each=200)
    frame = fit_projection(rows, ProjectionConfig(most=100), words=["word"] * 570, parts=(570, 10, 20))
    assert len(frame.points) == 100 and frame.total == 600
    for number, (size, start) in enumerate(((70, 0), (10, 570), (20, 580))):
        kept, points = frame.part(number)
        assert len(kept) == size and len(set(kept)) == size
        np.testing.assert_allclose(points, frame.place(rows[start + kept]).points, atol=1e-4)
    assert not frame.place(rows[570:]).distance.any()
    assert frame.words.count("word") == 70
    with pytest.raises(WorkbenchError, match="no part 3"):
        frame.part(3)


# Placing


@pytest.mark.parametrize("kind", KINDS)
def test_a_fitted_row_is_at_its_own_place_whatever_its_company(kind: str) -> None:
    frame, rows = fitted(kind), clusters()
    placed = frame.place(rows.reshape(3, EACH, WIDTH))
    assert placed.points.shape == (3, EACH, 2) and placed.distance.shape == placed.off.shape == (3, EACH)
    np.testing.assert_allclose(placed.points.reshape(-1, 2), frame.points, atol=1e-4)
    assert not placed.distance.any() and not placed.off.any()
    alone = frame.place(clusters(1)[7]).points
    np.testing.assert_allclose(alone, frame.place(clusters(1)).points[7], rtol=1e-4, atol=1e-5)


def test_a_point_far_off_lands_on_a_cluster_and_is_flagged() -> None:
    """The trap of every such map: a vector like nothing that was fitted is shown amid a cluster, and must say so."""
    rows, frame = clusters(), fitted("umap")
    far = (MIDDLES[1] + 500 * np.eye(WIDTH)[5]).astype(np.float32)  # in a direction that no row goes
    place = frame.place(far).points
    gaps = np.linalg.norm(frame.points - place, axis=1).reshape(3, EACH).min(1)
    assert gaps[1] < 0.1 * gaps[[0, 2]].min(), "the trap is there: it looks like one of the second group"
    for kind in KINDS:
        placed = fitted(kind).place(far)
        assert placed.off and placed.distance > 50
    alone = NearestNeighbors(n_neighbors=2).fit(rows)
    spacing = np.median(alone.kneighbors(rows)[0][:, 1])
    assert frame.spacing == pytest.approx(spacing, rel=1e-5)
    assert frame.place(far).distance == pytest.approx(
        alone.kneighbors(far[None], 1)[0][0, 0] / spacing, rel=1e-5
    )


def test_what_stands_out_beyond_the_reduced_space_is_seen() -> None:
    """Protects the distance in the original space: the map is of one direction, the vector is off in another."""
    rows = np.zeros((200, 60), np.float32)
    rows[:, 0] = np.random.default_rng(0).normal(size=200)
    placed = fit_projection(rows + 1e-3 * clusters(each=67)[:200, :1]).place(rows[:1] + 9 * np.eye(60)[40])
    assert placed.off.all()


@pytest.mark.parametrize("kind", ["pca", "umap"])
def test_of_further_draws_about_as_many_are_off_as_the_quantile_says(kind: str) -> None:
    """Protects the limit: what comes from where the fitted rows came from is at home, but for 1 in 100."""
    frame = fit_projection(clusters(0, 300), ProjectionConfig(kind))
    off = frame.place(clusters(1, 500)).off.mean()
    assert 0.1 * (1 - OFF_MAP) < off < 4 * (1 - OFF_MAP)


def test_a_placed_point_moves_without_jumps() -> None:
    """Protects the reading of a path: over a way in small steps no step on the map is a jump."""
    frame, rows = fitted("umap"), clusters()
    way = rows[0] + np.linspace(0, 1, 4001)[:, None] * (rows[EACH] - rows[0])
    points = frame.place(way).points
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    assert steps.max() < 0.05 * np.linalg.norm(points[-1] - points[0])
    np.testing.assert_allclose(points[[0, -1]], frame.points[[0, EACH]], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_that_is_not_finite_is_nowhere_and_off(kind: str) -> None:
    """Protects the view of a run that diverged."""
    vectors = clusters()[:3].copy()
    vectors[0, 0], vectors[1, 1] = np.nan, np.inf
    placed = fitted(kind).place(vectors)
    np.testing.assert_array_equal(placed.off, [True, True, False])
    assert np.isnan(placed.points[:2]).all() and np.isfinite(placed.points[2]).all()


def test_a_plane_shows_the_share_of_a_movement_that_lies_in_it() -> None:
    frame, rows = fitted("pca"), clusters()[:5]
    other = np.linalg.svd(frame.axes)[2][-1]  # at a right angle to both axes
    assert frame.share_seen(rows, rows + frame.axes[0]) == pytest.approx(1, abs=1e-5)
    assert frame.share_seen(rows, rows + other) == pytest.approx(0, abs=1e-5)
    assert frame.share_seen(rows, rows + 3 * frame.axes[1] + 4 * other) == pytest.approx(9 / 25, abs=1e-4)
    assert frame.share_seen(rows, rows) == 1
    with pytest.raises(WorkbenchError, match="ask this of a PCA map"):
        fitted("umap").share_seen(rows, rows)


def test_the_nearest_word_is_that_of_a_row_that_has_one() -> None:
    rows = np.eye(6, dtype=np.float32) * [1, 2, 3, 4, 5, 6]
    frame = fit_projection(rows, words=["a", "b", "c"])
    assert frame.nearest(rows * 1.01) == ["a", "b", "c", "a", "a", "a"]
    assert frame.nearest([[0.3, 0.2, 0.9, 0, 0, 9]], "cosine") == ["c"]
    assert fit_projection(rows).nearest(rows[:2]) == ["", ""]


# Aligning


@settings(max_examples=25, deadline=None)
@given(
    angle=st.floats(0, 2 * np.pi),
    mirror=st.booleans(),
    shift=hnp.arrays(np.float32, 2, elements=st.floats(-50, 50, width=32)),
    kind=st.sampled_from(KINDS),
)
def test_a_turned_mirrored_and_moved_copy_is_brought_back(
    angle: float, mirror: bool, shift: np.ndarray, kind: str
) -> None:
    frame = fitted(kind)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag(
        [1, -1 if mirror else 1]
    )
    copy = replace(frame, points=(frame.points @ turn + shift).astype(np.float32))
    if frame.linear:
        copy = replace(
            copy, axes=(turn.T @ frame.axes).astype(np.float32), offset=frame.offset @ turn + shift
        )
    back = align(copy, frame)
    np.testing.assert_allclose(back.points, frame.points, atol=1e-3)
    further = clusters(5)[:9]
    np.testing.assert_allclose(back.place(further).points, frame.place(further).points, atol=1e-3)


def test_aligning_uses_the_rows_in_common_keeps_lengths_and_the_shares_of_the_axes() -> None:
    """Protects a layer slider: another layer's map, of other thinned rows, turns but keeps its own distances."""
    rows = clusters()
    turned = (
        rows @ np.linalg.qr(np.random.default_rng(3).normal(size=(WIDTH, WIDTH)))[0] * 2
    )  # "another layer"
    first = fit_projection(rows, ProjectionConfig(most=150))
    second = fit_projection(turned, ProjectionConfig(most=140, seed=1))
    assert not np.array_equal(first.kept, second.kept)
    moved = align(second, first)
    _, i, j = np.intersect1d(moved.kept, first.kept, return_indices=True)
    centred = [p - p.mean(0) for p in (moved.points[i], first.points[j])]
    np.testing.assert_allclose(centred[0], 2 * centred[1], atol=2.5)  # noise moves a plane a little
    before, after = (
        np.linalg.norm(p[:20, None] - p[None, :20], axis=-1) for p in (second.points, moved.points)
    )
    np.testing.assert_allclose(after, before, atol=1e-3)
    np.testing.assert_allclose(moved.place(turned[moved.kept]).points, moved.points, atol=1e-2)
    whole = second.vectors.var(0).sum()
    np.testing.assert_allclose(moved.explained, moved.points.var(0) / whole, rtol=1e-3)


def test_maps_that_cannot_be_aligned_are_refused() -> None:
    frame, rows = fitted("pca"), clusters()
    with pytest.raises(WorkbenchError, match="fit both to the same rows"):
        align(fit_projection(rows[:-1]), frame)
    with pytest.raises(WorkbenchError, match="rows in common"):
        align(
            fit_projection(rows, ProjectionConfig(most=4, seed=1)),
            fit_projection(rows, ProjectionConfig(most=4)),
        )


# Keeping


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_map_places_as_it_did(kind: str, tmp_path: Path) -> None:
    frame = replace(fitted(kind), words=("a\nb", "", *["x"] * (3 * EACH - 2)))
    again = Projection.load(frame.save(tmp_path / "made" / "map.safetensors"))
    further = clusters(9)[:6]
    for mine, other in zip(frame.place(further), again.place(further), strict=True):
        np.testing.assert_array_equal(mine, other)
    for name in ("config", "key", "total", "parts", "words", "note", "spacing", "limit"):
        assert getattr(again, name) == getattr(frame, name), name
    assert [p.name for p in (tmp_path / "made").iterdir()] == ["map.safetensors"]


def test_the_cache_answers_only_for_the_same_key_settings_and_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects against a stale map: one number of the data, one setting or one word of the key makes it another."""
    from workbench.analysis import projection

    made: list[int] = []
    fit = projection._fit
    monkeypatch.setattr(projection, "_fit", lambda *args: made.append(1) or fit(*args))
    rows, key = clusters(), {"backbone": "a", "layer": 2}

    def ask(data=rows, config=None, key=key, **more) -> Projection:
        return fit_projection(data, config, key, tmp_path, **more)

    first = ask()
    same = ask(words=["word"], config=ProjectionConfig(neighbours=9))  # which PCA does not read
    assert len(made) == 1 and same.words[0] == "word" and same.config.neighbours == 9
    np.testing.assert_array_equal(same.points, first.points)
    np.testing.assert_array_equal(same.vectors, rows)
    changed = rows.copy()
    changed[17, 3] += 1e-4
    for number, other in enumerate(
        (
            lambda: ask(changed),
            lambda: ask(config=ProjectionConfig(most=90)),
            lambda: ask(key=key | {"layer": 3}),
            lambda: ask(parts=(100, 80)),
            lambda: ask(rows.reshape(-1, 2 * WIDTH)),
        )
    ):
        other()
        other()
        assert len(made) == number + 2
    assert len(list(tmp_path.iterdir())) == 6, "one file a key, and nothing beside"


def test_a_damaged_map_is_made_anew_from_the_cache_and_said_in_one_sentence_elsewhere(tmp_path: Path) -> None:
    first = fit_projection(clusters(), cache=tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for broken in (b"", b"no map", whole[: len(whole) // 2]):
        file.write_bytes(broken)
        with pytest.raises(WorkbenchError, match="not a readable map"):
            Projection.load(file)
        np.testing.assert_array_equal(fit_projection(clusters(), cache=tmp_path).points, first.points)
        assert file.read_bytes() == whole


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kind": "mds"}, "no projection is called 'mds'"),
        ({"kind": "tsne", "dimensions": 4}, "at most 3"),
        ({"dimensions": 0}, "dimensions is 0"),
        ({"neighbours": 1}, "neighbours is 1"),
        ({"perplexity": float("nan")}, "perplexity is nan"),
        ({"reduce": 1}, "reduce is 1"),
        ({"most": 3}, "4 or more"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_wrong_settings_are_said(wrong: dict, said: str) -> None:
    with pytest.raises(WorkbenchError, match=said):
        ProjectionConfig(**wrong)


@pytest.mark.parametrize(
    ("vectors", "more", "said"),
    [
        (np.zeros(5), {}, "no table"),
        (np.ones((9, 4)), {}, "all 9 vectors are the same"),
        (np.eye(3), {}, "too few or too narrow"),
        (np.arange(9)[:, None], {}, "too few or too narrow"),
        (np.diag([1, np.nan, 1, 1]), {}, "row 1 of the vectors is not finite"),
        (np.eye(6), {"parts": (2, 3)}, "do not add up"),
        (np.eye(6), {"words": ["a"] * 7}, "7 words"),
        (np.eye(6), {"key": {"a": object()}}, "key of a map"),
    ],
)
def test_wrong_rows_are_said(vectors: np.ndarray, more: dict, said: str) -> None:
    with pytest.raises(WorkbenchError, match=said):
        fit_projection(vectors, **more)


@pytest.mark.parametrize("kind", KINDS)
def test_few_rows_narrow_rows_and_copies_make_a_map_all_the_same(kind: str) -> None:
    """Protects a first look at little: five vectors, fewer than every default asks for, of which two are copies."""
    rows = np.array([[0, 0], [0, 0], [1, 0], [0, 2], [3, 3]], np.float32)
    frame = fit_projection(rows, ProjectionConfig(kind))
    assert np.isfinite(frame.points).all()
    placed = frame.place([[0, 0], [40, 40]])
    np.testing.assert_array_equal(placed.off, [False, True])
    assert np.isfinite(placed.points).all()
    if kind == "umap":
        assert "4 neighbours, all that there are" in frame.note


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("distinct", [2, 3])
def test_copies_of_two_or_three_vectors_stay_together_and_apart_from_the_rest(
    kind: str, distinct: int
) -> None:
    """Protects the last tokens of texts, yes or no: of so few UMAP makes one cloud, in which yes lies amid no."""
    group = np.arange(12) % distinct
    rows = np.eye(distinct, 9, dtype=np.float32)[group] * 5
    frame = fit_projection(rows, ProjectionConfig(kind, reduce=5))
    apart = np.linalg.norm(frame.points[:, None] - frame.points, axis=-1)
    np.testing.assert_allclose(apart, (group[:, None] != group) * 5 * 2**0.5, atol=1e-4)
    assert frame.note == ("" if kind == "pca" else f"{distinct} different vectors, placed as by PCA")
    assert not frame.place(rows).off.any() and np.isfinite(frame.place(rows + 1).points).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("distinct", [2, 3, 4])
def test_vectors_on_a_line_make_a_map_and_so_do_those_that_start_from_it(kind: str, distinct: int) -> None:
    """Protects from an axis of the start without any spread, by which umap-learn divides."""
    rows = np.zeros((12, 2), np.float32)
    rows[:, 0] = 4 * (np.arange(12) % distinct)
    frame = fit_projection(rows, ProjectionConfig(kind))
    assert np.isfinite(frame.points).all() and np.ptp(frame.points, axis=0).max() > 0
    np.testing.assert_array_equal(fit_projection(rows, frame.config).points, frame.points)
    flat = replace(frame, points=frame.points * np.float32([1, 0]))
    for before in (frame, flat, replace(frame, points=frame.points * np.float32([1, np.nan]))):
        after = fit_projection(clusters()[:12], frame.config, after=before)
        assert np.isfinite(after.points).all()
        assert np.ptp(after.points, axis=0).min() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_that_are_all_the_same_have_one_place_where_that_is_allowed(
    kind: str, tmp_path: Path
) -> None:
    """Their map says so, is not kept, survives being saved, and is nothing that another map starts from."""
    rows, config = np.full((12, 9), 3, np.float32), ProjectionConfig(kind, most=10, reduce=5)
    with pytest.raises(WorkbenchError, match="all 10 vectors are the same"):
        fit_projection(rows, config, cache=tmp_path)
    frame = fit_projection(rows, config, {"of": "test"}, tmp_path, ["word"], allow_alike=True)
    assert frame.alike and not list(tmp_path.iterdir())
    assert frame.points.shape == (10, 2) and not frame.points.any()
    assert frame.note == "10 of 12 rows; all vectors are the same" and frame.words[0] == "word"
    placed = frame.place(rows[:2] + np.array([[0], [1]]))
    assert not placed.points.any()
    np.testing.assert_array_equal(placed.off, [False, True])
    again = Projection.load(frame.save(tmp_path / "map.safetensors"))
    assert again.alike and again.key == frame.key and not again.place(rows).points.any()
    other = clusters(each=4)[:, :9]
    alone = fit_projection(other, config)
    assert not alone.alike
    np.testing.assert_array_equal(fit_projection(other, config, after=frame).points, alone.points)


def test_a_kept_map_with_points_that_are_nowhere_is_made_anew(tmp_path: Path) -> None:
    first = fit_projection(clusters(), cache=tmp_path)
    (file,) = tmp_path.iterdir()
    replace(first, points=first.points * [1, np.nan]).save(file)
    with pytest.raises(WorkbenchError, match="some of its points are nowhere"):
        Projection.load(file)
    np.testing.assert_array_equal(fit_projection(clusters(), cache=tmp_path).points, first.points)

"""Protects the figures of the paper's list: each made from its name, right in its numbers, readable on either paper."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from workbench.views.check import check_figure
from workbench.views.cloud import MOST_POINTS, SHARES, cloud_traces, hills, written
from workbench.views.theme import template

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

"""Protects what layers have in common: the numbers of `compare_layers`, each in its cell, on light and dark paper."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch

import workbench as wb
from workbench.analysis.clusters import compare_layers
from workbench.analysis.trace import Trace
from workbench.analysis.trace_files import Part
from workbench.views.check import FAINTEST, check_figure, contrast
from workbench.views.layer_alignment import _PRINTED, _TURN, LayerAlignment
from workbench.views.theme import INK, Theme


@pytest.fixture(scope="module")
def trace() -> Trace:
    texts = {name: wb.load_task(name).examples(n=8) for name in ("reading", "add-2")}
    return wb.trace(wb.load_backbone("tiny-llama", device="cpu"), texts, ["embeddings", "all"], "mean")


def with_places(like: Trace, arrays: dict[str, np.ndarray]) -> Trace:
    """The same rows, with other vectors in other places."""
    rows = like.rows.replace_schema_metadata({"texts": "[]"})
    part = Part(rows, {name: torch.from_numpy(array) for name, array in arrays.items()})
    return Trace({**like.settings, "places": list(arrays)}, [part])


def printed(figure: go.Figure) -> dict[tuple[int, int], str]:
    """(row, column) to the number that stands there."""
    texts = [one for one in figure.data if one.type == "scatter"]
    return {(y, x): said for one in texts for x, y, said in zip(one.x, one.y, one.text, strict=True)}


def heads(figure: go.Figure) -> str:
    """The title and what stands below it, as one line."""
    return str(figure.layout.title.text).replace("<br>", " ")


def test_each_number_stands_in_its_cell(trace: Trace, tmp_path: Path) -> None:
    """The table is that of `compare_layers`; a cell, its mirror image and the hover say the same; labels are all there."""
    view = LayerAlignment({"first": trace, "second": trace})
    states = {place: trace[place] for place in trace.places}
    expected = compare_layers(states, list(trace.table["text"]), list(trace.table["task"]))
    pd.testing.assert_frame_equal(view.data(), expected)
    figure, places = view.figure(), list(trace.places)
    for axis in (figure.layout.xaxis, figure.layout.yaxis):
        assert list(axis.ticktext) == places == ["embeddings", *(f"layer {i}" for i in range(4)), "output"]
    heat, numbers = figure.data[0], printed(figure)
    assert len(numbers) == len(places) ** 2 and (heat.zmin, heat.zmax) == (0, 1)
    for row in expected.itertuples():
        i, j = places.index(row.layer), places.index(row.other)
        for at in ((i, j), (j, i)):
            assert heat.z[at] == row.value and numbers[at] == f"{row.value:.2f}"
            said = heat.text[at[0]][at[1]]
            assert f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]" in said and row.layer in said
    assert (np.diag(heat.z) == 1).all() and "16 rows of 16 texts" in heads(figure)
    assert len(pd.read_csv(view.save(tmp_path / "alike.csv"))) == 15


@pytest.mark.parametrize("count", [2, 12, _PRINTED, _PRINTED + 1])
@pytest.mark.parametrize("theme", get_args(Theme))
def test_any_number_of_layers_can_be_read(trace: Trace, count: int, theme: Theme) -> None:
    """Widths may differ; cells are square; of too many layers the numbers are told by the hover alone."""
    dice = np.random.default_rng(0)
    arrays = {f"state {i}": dice.normal(size=(len(trace), 3 + i)) for i in range(count)}
    figure = LayerAlignment(with_places(trace, arrays), theme).figure()
    assert check_figure(figure) == [] and len(figure.data[0].z) == count
    assert len(printed(figure)) == (count**2 if count <= _PRINTED else 0)
    size, margin = figure.layout, figure.layout.margin
    wide, high = size.width - margin.l - margin.r, size.height - margin.t - margin.b
    assert wide == pytest.approx(high, abs=1) and wide / count >= 11


@pytest.mark.parametrize("theme", get_args(Theme))
def test_numbers_stand_out_from_their_cells(theme: Theme) -> None:
    """Protects the number at which letters turn: on either side of it they can be read."""
    ink = INK[theme]
    ends = [np.array([int(ink[name][i : i + 2], 16) for i in (1, 3, 5)]) for name in ("grid", "first")]
    for value in np.linspace(0, 1, 101):
        mixed = ((1 - value) * ends[0] + value * ends[1]).round().astype(int)
        cell = "#" + "".join(f"{part:02x}" for part in mixed)
        assert contrast(ink["paper" if value >= _TURN[theme] else "text"], cell) > FAINTEST


def test_what_is_alike_in_all_rows_or_in_rows_of_a_text_is_said(trace: Trace) -> None:
    """A layer of one vector has no alignment; several rows a text raise it."""
    dice = np.random.default_rng(0)
    arrays = {name: dice.normal(size=(len(trace), 4)) for name in ("layer 1", "output")}
    view = LayerAlignment(with_places(trace, {"layer 0": np.ones((len(trace), 4)), **arrays}))
    assert np.isnan(view.matrix().loc["layer 0"]).all() and view.matrix().loc["output", "output"] == 1
    figure = view.figure()
    assert printed(figure)[0, 1] == "—" and "all rows of a layer are the same" in heads(figure)
    every = wb.trace(wb.load_backbone("tiny-llama", device="cpu"), ["some words here"] * 4, [0, 1])
    said = heads(LayerAlignment(every).figure())
    assert "raises it" in said and "raises it" not in heads(figure)


def test_another_trace_is_compared_when_it_is_updated(trace: Trace) -> None:
    """Protects a view that is kept: its numbers are those of the trace that it has now."""
    view = LayerAlignment()
    assert view.data().empty
    view.trace = trace
    view.update()
    assert len(view.data()) == len(LayerAlignment(trace).data()) > 0


def test_without_two_layers_or_four_rows_there_is_a_sentence(trace: Trace) -> None:
    """Nothing, one layer, three texts: an empty table and what to do."""
    few = wb.trace(wb.load_backbone("tiny-llama", device="cpu"), ["a", "b", "c"], positions="mean")
    one = with_places(trace, {"layer 0": np.ones((len(trace), 4))})
    for given, said in ((None, "Trace two layers"), (one, "Trace two layers"), (few, "give four or more")):
        view = LayerAlignment(given)
        assert not len(view.data()) and said in view.figure().layout.annotations[0].text
        assert check_figure(view.figure()) == []

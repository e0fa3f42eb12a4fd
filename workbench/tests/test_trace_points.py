"""Protects the points of a trace of all tokens: those that the model would have given for these positions alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import workbench as wb
from workbench.analysis.trace_points import POINTS, points_of
from workbench.tests import zoo


@pytest.fixture(scope="module")
def backbone() -> wb.Backbone:
    return zoo.backbone("llama")


TEXTS = {
    task: list(wb.load_task(task).examples(n=5)) for task in ("find-person", "second-word", "smaller-number")
}


@pytest.mark.parametrize("points", POINTS)
@pytest.mark.parametrize("generate", [None, wb.GenerateConfig(max_new_tokens=4)])
def test_points_are_those_of_a_trace_of_their_positions(
    backbone: wb.Backbone, points: str, generate: wb.GenerateConfig | None, tmp_path: Path
) -> None:
    """Row by row: the table, the vectors and the texts, from memory and from a folder of several parts."""
    shared = {"layers": ("embeddings", 1, "output"), "generate": generate}
    asked = wb.trace(backbone, TEXTS, positions=points, **shared)  # type: ignore[arg-type]
    whole = wb.trace(backbone, TEXTS, positions="all", folder=tmp_path / "whole", **shared)  # type: ignore[arg-type]
    found = points_of(whole, points)  # type: ignore[arg-type]
    assert (
        found.settings["positions"] == points and found.texts == asked.texts and found.places == asked.places
    )
    pd.testing.assert_frame_equal(found.table, asked.table, rtol=1e-4)
    for place in asked.places:
        np.testing.assert_allclose(found[place], asked[place], rtol=1e-4, atol=1e-5)
    assert points_of(found, points) is found  # type: ignore[arg-type]


def test_what_a_trace_does_not_hold_is_refused(backbone: wb.Backbone) -> None:
    last = wb.trace(backbone, TEXTS, positions="last", layers=0)
    with pytest.raises(wb.WorkbenchError, match="last tokens only"):
        points_of(last, "mean")
    with pytest.raises(wb.WorkbenchError, match="did you mean 'last'"):
        points_of(last, "lost")  # type: ignore[arg-type]
    plain = wb.trace(backbone, ["no answer"], layers=0)
    with pytest.raises(wb.WorkbenchError, match="no text of this trace has an answer"):
        points_of(plain, "answer")

"""Protects the numbers of answers' paths: those of `measure_paths`, and a sentence where there is no path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import workbench as wb
from workbench.analysis.trace import Trace
from workbench.analysis.trajectories import localisation, measure_paths
from workbench.analysis.walks import paths, random_walks
from workbench.tasks.task import Example
from workbench.views.check import check_figure
from workbench.views.path_numbers import READ, PathNumbers

PLACES = ("embeddings", "layer 2")
TASKS = ("stories", "running")
CONFIG = wb.GenerateConfig(max_new_tokens=6, temperature=1.0)


@pytest.fixture(scope="module")
def backbone() -> wb.Backbone:
    return wb.load_backbone("tiny-llama", device="cpu")


@pytest.fixture(scope="module")
def seen(backbone: wb.Backbone) -> Trace:
    texts = {name: wb.load_task(name).examples(n=6) for name in TASKS}
    return wb.trace(backbone, texts, PLACES, generate=CONFIG)


@pytest.fixture(scope="module")
def walks(backbone: wb.Backbone, seen: Trace) -> Trace:
    return random_walks(backbone, seen)


def test_numbers_are_those_of_the_paths_of_answers(
    backbone: wb.Backbone, seen: Trace, walks: Trace, tmp_path: Path
) -> None:
    """Of all tokens the answers' alone, task by task, against all three references; a trace of answers says the same."""
    view = PathNumbers(seen, walks)
    table, inside = seen.table, seen.table["is_answer"]
    answer = [np.flatnonzero(inside & (table["text"] == text)) for text in range(len(seen.texts))]
    own = {place: [seen[place][rows] for rows in answer] for place in PLACES}
    tasks = [text["task"] for text in seen.texts]
    expected = measure_paths(own, paths(walks), tasks)
    pd.testing.assert_frame_equal(view.data(), expected)
    shown = view.shown()
    assert list(shown["layer"]) == list(PLACES) and list(shown)[1:] == [head for *_, head in READ]
    found = localisation(own["layer 2"], paths(walks)["layer 2"], tasks, "step")
    wanted = f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]".replace("-", "−")
    assert shown.loc[1, "step, random walks"] == wanted
    assert "12 of 12 answers that the model wrote" in view.note() and "1 where a path stays" in view.note()
    assert check_figure(view.figure()) == [] and "random walks" in view.table_html()
    kept = PathNumbers()
    assert kept.data().empty
    kept.trace = seen
    kept.update()
    assert len(kept.data()) > 0, "of the trace that it has now"
    assert len(pd.read_csv(view.save(tmp_path / "paths.csv"))) == len(expected)
    answers = wb.trace(
        backbone, {n: wb.load_task(n).examples(n=6) for n in TASKS}, PLACES, "answer", generate=CONFIG
    )
    np.testing.assert_allclose(PathNumbers(answers, walks).data()["value"], expected["value"], rtol=1e-3)


def test_without_walks_there_are_the_other_two(seen: Trace) -> None:
    """And how to have them."""
    view = PathNumbers({"one": seen})
    assert list(view.shown())[1:] == [head for reference, _, head in READ if reference != "vocabulary"]
    assert "walks=random_walks" in view.note() and check_figure(view.figure()) == []


def test_answers_that_were_given_have_paths_where_they_are_long(backbone: wb.Backbone) -> None:
    """One of two tokens or more of each text counts, no interval of few is made up, and no walk is offered behind a reading."""
    texts = [Example("one two", " three four five"), Example("six", " seven eight"), Example("no", "")]
    view = PathNumbers(wb.trace(backbone, texts, PLACES))
    assert (view.data()["texts"] == 2).all() and "2 of 2 answers that the model read" in view.note()
    assert "fewer than four paths" in view.note() and "random_walks" not in view.note()
    assert not view.shown()["step, shuffled"].str.contains(r"\[").any()


@pytest.mark.parametrize(
    ("answer", "positions", "said"),
    [
        ("1", "all", "has two tokens, so there is no path: trace with “Answers: written”"),
        ("1", "answer", "give texts whose answers are longer"),
        ("", "all", "No text of this trace has an answer"),
        (" three four", "mean", "trace all tokens"),
        (" three four", [-1], "trace all tokens"),
    ],
)
def test_where_there_is_no_path_a_sentence_says_what_to_do(
    backbone: wb.Backbone, answer: str, positions: Any, said: str
) -> None:
    """Nothing raises: the default tasks have answers of a word."""
    view = PathNumbers(wb.trace(backbone, [Example("one two", answer)] * 5, PLACES, positions))
    assert not len(view.data()) and not len(view.shown()) and said in view.note()
    assert said in view.table_html() and check_figure(view.figure()) == []


def test_nothing_is_nothing() -> None:
    """The empty state of the notebook before anything is traced."""
    view = PathNumbers()
    assert not len(view.data()) and view.note() == "" and PathNumbers.nothing in view.table_html()


def test_walks_in_other_layers_are_left_out(seen: Trace, backbone: wb.Backbone) -> None:
    """A layer that was not walked in has the other two references, and a dash."""
    some = random_walks(backbone, wb.trace(backbone, ["a b", "c d"] * 4, "layer 2", generate=CONFIG))
    shown = PathNumbers(seen, some).shown().set_index("layer")["spread, random walks"]
    assert shown["embeddings"] == "—" and shown["layer 2"] != "—"

"""Views without a browser: what they show follows from the run's directory, and a live figure loses nothing.

Every test trains nothing; the directories are written by the same class that training writes them with.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch

from workbench.analysis.projection import Projection, ProjectionConfig, fit_projection
from workbench.errors import WorkbenchError
from workbench.training.answers import write_answers
from workbench.training.job import JobConfig
from workbench.training.run import Run
from workbench.views import Answers, Curves, LiveFigure, Movement
from workbench.views.live import INTERVAL, PATIENCE
from workbench.views.status import Moment, Stage, fault_html, moment, seconds_text, status_html
from workbench.views.work import Settings, config_of, new_path, newest_path, settings_of

WIDTH, WORDS, TOKENS = 12, 60, 4


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run of 40 steps with a look at validation each tenth and a snapshot each twentieth."""
    config = {
        "backbone": {"name": "tiny-llama"},
        "task": {"task": "find-person"},
        "method": {"kind": "soft-prompt", "config": {"tokens": TOKENS}},
        "fit": {"steps": 80, "learning_rate": 0.05},
    }
    made = Run.create(tmp_path / "0001-tiny-llama-find-person", config)
    dice = np.random.default_rng(0)
    start = dice.normal(size=(TOKENS, WIDTH)).astype(np.float32)
    for step in range(1, 41):
        line: dict[str, Any] = {
            "step": step,
            "loss": 3.0 / step,
            "tokens": 20,
            "seconds": 0.5,
            "learning_rate": 0.05,
        }
        if step % 10 == 0:
            line["validation"] = {"loss": 1.0, "accuracy": step / 100}
        made.append_metrics(line)
    for step in (0, 20, 40):
        made.write_snapshot(step, {"embeddings": torch.tensor(start + step / 40)})
    made.write_status(state="running", step=40, steps=80)
    return made


@pytest.fixture
def frame() -> Projection:
    return frame_of(WORDS)


def frame_of(count: int, most: int = 30_000) -> Projection:
    """A plane of so many words and the first vectors of `run`."""
    dice = np.random.default_rng(1)
    vocabulary = dice.normal(size=(count, WIDTH)) * np.linspace(3, 0.1, WIDTH)
    start = np.random.default_rng(0).normal(size=(TOKENS, WIDTH))
    words = [f"word{i}" for i in range(count)]
    rows = np.concatenate([vocabulary, start])
    return fit_projection(rows, ProjectionConfig(most=most), words=words, parts=(count, TOKENS))


def shown(figure: go.FigureWidget) -> int:
    """Points in the state that a page gets when it asks for the widget."""
    return len(figure.get_state()["_widget_data"][0]["x"])


def answer(figure: LiveFigure) -> None:
    """What the browser sends when it has drawn."""
    figure.set_state(
        {"_js2py_traceDeltas": {"trace_deltas": [], "trace_edit_id": figure._last_trace_edit_id}}
    )


def line(points: int) -> go.Figure:
    return go.Figure(
        go.Scatter(x=np.arange(points), y=np.arange(points) * 2.0), layout={"title": {"text": f"{points}"}}
    )


# The live figure


def test_a_reloaded_page_gets_the_newest_figure_not_the_first() -> None:
    """Protects the page reload: the state that a page asks for holds what was drawn last."""
    live = LiveFigure(line(1))
    live.draw(line(50))
    live.flush()
    assert shown(live) == 50
    assert live.get_state()["_widget_layout"]["title"]["text"] == "50"


def test_a_bare_figure_widget_would_show_its_first_figure() -> None:
    """The fault that LiveFigure is for is still there; when plotly mends it, this fails and the wrapper may shrink."""
    bare = go.FigureWidget(line(1))
    with bare.batch_update():
        bare.data[0].x = bare.data[0].y = np.arange(50)
    assert shown(bare) == 1


def test_the_browser_hears_of_a_figure_when_it_is_complete() -> None:
    """Protects the first display on a slow machine: the message that makes the widget known holds its traces."""

    class Told(LiveFigure):
        states: ClassVar[list[Any]] = []

        def get_state(self, key: Any = None, drop_defaults: bool = False) -> Any:
            state = super().get_state(key=key, drop_defaults=drop_defaults)
            if key is None:
                self.states.append(state)
            return state

    figure = Told(line(7))
    assert figure.comm is not None
    assert len(Told.states[0]["_widget_data"][0]["x"]) == 7
    assert Told.states[0]["_widget_layout"]["title"]["text"] == "7"


def test_no_drawing_is_lost_between_threads_and_few_are_sent() -> None:
    """Protects the lock and the limit: four threads draw 400 figures; the last one shows, at five a second."""
    live = LiveFigure(line(1))
    sent = []
    live.observe(lambda change: sent.append(change["new"]), names="_py2js_update")
    faults, begun = [], time.monotonic()

    def work(first: int) -> None:
        try:
            for points in range(first, first + 100):
                live.draw(line(points))
                answer(live)
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(100 * i + 2,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    live.draw(line(777))
    answer(live)
    time.sleep(INTERVAL * 2)
    seconds = time.monotonic() - begun
    assert not faults
    assert len(live.data[0].x) == 777, "the newest figure was not drawn"
    assert (
        len(live.get_state()["_widget_data"][0]["x"]["buffer"]) if isinstance(live.data[0].x, dict) else True
    )
    drawn = sum(message is not None for message in sent)
    assert 1 <= drawn <= seconds / INTERVAL + 2, f"{drawn} drawings in {seconds:.1f} s"


def test_a_slow_browser_is_waited_for_but_not_for_ever() -> None:
    """Protects the buttons on a slow machine: the next drawing goes out when the last one was answered, or after 2 s."""
    live = LiveFigure(line(1))
    live.draw(line(2))
    live.flush()  # or a busy machine starts the thread only when the next one has taken its place
    live.draw(line(3))
    time.sleep(INTERVAL * 2)
    assert len(live.data[0].x) == 2, "sent before the browser had drawn the last one"
    answer(live)
    time.sleep(INTERVAL)
    assert len(live.data[0].x) == 3
    live.draw(line(4))
    time.sleep(PATIENCE + INTERVAL)
    assert len(live.data[0].x) == 4, "a page that is closed holds the figure up"


def test_what_a_drawing_leaves_out_disappears() -> None:
    """Protects the empty state: its note must go when data comes."""
    empty = line(0).update_layout(annotations=[{"text": "nothing yet"}])
    live = LiveFigure(empty)
    live.draw(line(3))
    live.flush()
    assert not live.layout.annotations
    assert not live.get_state()["_widget_layout"].get("annotations")


def test_a_live_figure_takes_other_traces_and_goes_on_with_them() -> None:
    """Protects a panel that turns to other runs: the same widget, and a page that asks gets the new traces and axes."""
    live = LiveFigure(line(2))
    other = go.Figure([go.Bar(x=[1], y=[1]), go.Scatter(x=[1, 2], y=[3, 4], yaxis="y2")])
    other.update_layout(yaxis2={"title": {"text": "second"}, "overlaying": "y"})
    for figure in (other, line(3), other):
        live.draw(figure)
        live.flush()
        state = live.get_state()
        assert [t["type"] for t in state["_widget_data"]] == [t.type for t in figure.data]
        assert len({t["uid"] for t in state["_widget_data"]}) == len(figure.data)
    assert state["_widget_layout"]["yaxis2"]["title"]["text"] == "second"
    live.draw(go.Figure(other).update_traces(x=[7, 8], selector={"type": "scatter"}))
    live.flush()
    assert list(live.data[1].x) == [7, 8]


# The views


def test_curves_show_every_step_and_every_look(run: Run) -> None:
    table = Curves(run).data()
    assert list(table["step"]) == list(range(1, 41))
    assert table["validation accuracy"].dropna().tolist() == [0.1, 0.2, 0.3, 0.4]
    figure = Curves(run).figure()
    assert [len(trace.x) for trace in figure.data] == [40, 40, 4]
    assert list(figure.data[2].y) == [10, 20, 30, 40]


def test_movement_shows_each_vector_from_its_start_to_now(run: Run, frame: Projection) -> None:
    view = Movement(run, frame)
    table = view.data()
    assert len(table) == 3 * TOKENS
    last = table[table["step"] == 40]
    assert np.allclose(last["moved"], np.sqrt(WIDTH), atol=1e-4)  # every entry moved by one
    words, _, trail, start, now = view.figure().data
    assert len(words.x) == WORDS and len(start.x) == len(now.x) == TOKENS
    assert len(trail.x) == TOKENS * (3 + 1), "three points and a gap a vector"
    np.testing.assert_allclose(now.x, last["x"])


def test_movement_draws_what_is_off_the_map_hollow_and_counts_it(run: Run, frame: Projection) -> None:
    """Protects the reading of a plane: what is like no word and no start must not look like its neighbours there."""
    far = np.array(run.snapshot(40)["embeddings"])
    far[1] += 100
    run.write_snapshot(60, {"embeddings": torch.from_numpy(far)})
    view = Movement(run, frame)
    table = view.data()
    assert not table.loc[table["step"] == 0, "off"].any(), "the map was fitted to the start"
    last = table[table["step"] == 60]
    assert last["off"].iloc[1] and last["distance"].iloc[1] > last["distance"].drop(last.index[1]).max()
    figure = view.figure()
    symbols = np.array(figure.data[-1].marker.symbol)
    np.testing.assert_array_equal(symbols == "circle-open", last["off"])
    assert f"{last['off'].sum()} of {TOKENS} off the map" in figure.layout.title.text


def test_a_huge_vocabulary_is_thinned_and_the_figure_says_so(run: Run) -> None:
    frame = frame_of(500, most=100)
    view = Movement(run, frame)
    words, *_ = view.figure().data
    assert len(words.x) == 100 - TOKENS and words.name == f"{100 - TOKENS} of 500 words"
    assert not view.data().query("step == 0")["off"].any(), "no start was thinned away"


def test_new_snapshots_are_seen_and_old_ones_not_read_again(run: Run, frame: Projection) -> None:
    view = Movement(run, frame)
    view.data()
    (run.path / "snapshots/step-00000020.safetensors").write_bytes(b"")  # would fail if it were read again
    run.write_snapshot(60, {"embeddings": torch.zeros(TOKENS, WIDTH)})
    assert sorted(set(view.data()["step"])) == [0, 20, 40, 60]


def evaluations() -> dict[str, SimpleNamespace]:
    def one(predictions: list[str]) -> SimpleNamespace:
        scores = [float(p == a) for p, a in zip(predictions, ["oslo", "<paris>"], strict=True)]
        rows = [
            {"question": q, "answer": a, "prediction": p, "score": s}
            for q, a, p, s in zip(
                ["norway ->", "france ->"], ["oslo", "<paris>"], predictions, scores, strict=True
            )
        ]
        return SimpleNamespace(metrics={"exact_match": sum(scores) / 2}, rows=rows)

    return {
        "zero_shot": one(["the", "the"]),
        "hand_written": one(["oslo", "a"]),
        "trained": one(["oslo", "<paris>"]),
    }


def test_answers_stand_side_by_side_and_the_changed_ones_are_marked(run: Run) -> None:
    write_answers(run, "tiny-llama", "capital-of", evaluations(), "spain -> madrid", "exact_match")
    view = Answers(run)
    assert view.data()["trained"].tolist() == ["oslo", "<paris>"]
    assert view.data()["hand_written_score"].tolist() == [1, 0]
    html = view.table_html()
    assert html.count("wb-gained'") == 2 and "&lt;paris&gt;" in html and "<paris>" not in html
    assert ">100%<" in html and ">50%<" in html and ">0%<" in html
    assert view.figure().data[0].cells.values[4] == ["✓ oslo", "✓ <paris>"]


def test_every_view_has_an_empty_state_a_table_and_a_page(
    run: Run, frame: Projection, tmp_path: Path
) -> None:
    write_answers(run, "tiny-llama", "capital-of", evaluations(), None, "exact_match")
    for full, empty in (
        (Curves(run, "dark"), Curves(None)),
        (Movement(run, frame, "dark"), Movement()),
        (Answers(run, "dark"), Answers()),
    ):
        assert len(full.data()) and not len(empty.data())
        assert set(empty.data().columns) <= set(full.data().columns)
        assert empty.figure().layout.annotations and not full.figure().layout.annotations
        name = type(full).__name__
        table = pd.read_csv(full.save(tmp_path / f"{name}.csv"))
        assert len(table) == len(full.data())
        assert "<" in full.save(tmp_path / f"{name}.html").read_text()


def test_saving_under_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match=r"end it in \.html"):
        Curves().save(tmp_path / "curves.pdf")


def test_a_live_view_follows_its_run(run: Run) -> None:
    """Protects the polling: what is appended to the run is on the widget after `update`."""
    view = Curves(run)
    view.widget()
    run.append_metrics({"step": 41, "loss": 0.5, "seconds": 0.5})
    view.update()
    view.widget().flush()
    assert len(view.widget().data[0].x) == 41


# Where a piece of work stands


def test_a_run_whose_kernel_ended_can_be_told_from_one_that_trains(run: Run) -> None:
    """Protects the panel after a restart: a directory that says `running` and that nobody writes is interrupted."""
    assert moment([run]) == Moment("interrupted", 40, 80, 0.075)
    lock = run.lock()
    now = moment([run])
    assert now.stage == "training" and now.seconds_left == pytest.approx(20)
    run.write_status(state="running", step=40, steps=80, stage="answering", note="answering 3 questions")
    assert moment([run]) == Moment("answering", 40, 80, 0.075, note="answering 3 questions")
    run.write_status(state="paused", step=40, steps=80)
    assert moment([run]).stage == "paused"
    lock.release()
    assert moment([run]).stage == "interrupted"
    run.write_status(state="failed", step=40, steps=80, error="the loss became nan at step 41")
    assert moment([run]).error == "the loss became nan at step 41"


def test_settings_and_the_newest_run_are_found_again(run: Run) -> None:
    settings = settings_of(JobConfig.from_json(run.config))
    assert settings == Settings("tiny-llama", "find-person", TOKENS, 0.05, 80)
    assert settings_of(config_of(settings)) == settings
    assert newest_path(run.path.parent) == run.path
    assert new_path(run.path.parent, "tiny-llama", "find-person").name == "0002-tiny-llama-find-person"
    assert new_path(run.path.parent, "org/a.b", "/data/my rows.jsonl").name == "0002-a-my-rows"
    assert newest_path(run.path.parent / "none") is None


def test_a_failure_is_one_sentence_with_the_traceback_folded_away() -> None:
    html = fault_html("no task is called 'x<y'", "Traceback …")
    assert "x&lt;y" in html and html.index("<details>") > html.index("no task") and "open" not in html
    assert "wb-error" in status_html(Moment("failed", error="it broke"), None)


def test_every_stage_has_its_sentence() -> None:
    stages = get_args(Stage)
    sentences = {
        stage: status_html(Moment(stage, 3, 9, 0.5, 75.0, "reading"), Path("runs/x")) for stage in stages
    }
    assert len(set(sentences.values())) == len(stages)
    assert "about 75 s left" in sentences["training"]
    assert [seconds_text(s) for s in (8, 150, 4200 + 3600)] == ["8 s", "2 min", "2 h 10 min"]


def test_the_answers_file_is_json_that_others_can_read(run: Run) -> None:
    path = write_answers(run, "tiny-llama", "capital-of", evaluations(), "p", "exact_match")
    assert json.loads(path.read_text())["scores"] == {"zero_shot": 0.0, "hand_written": 0.5, "trained": 1.0}

"""The panel of notebook 03 without a browser: it traces, keeps, trains, fits and writes for real, and is found again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import ipywidgets as w
import numpy as np
import pytest

import workbench as wb
from workbench.training.job import Job
from workbench.views.activation_space import ActivationSpace
from workbench.views.selection import Selection, kept_priors, metric_of
from workbench.views.tracing import ASKED, Traced, TraceSettings, Tracing, trained_runs

TASKS = ("find-person", "second-word", "smaller-number")


@pytest.fixture
def backbone(small_llama: str) -> str:
    return small_llama


def panel_in(folder: Path, backbone: str, **settings: object) -> ActivationSpace:
    given = {"texts": 8, "written": 4} | settings
    return ActivationSpace(folder / "space", [backbone], TASKS, **given)  # type: ignore[arg-type]


def until(true: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def pressed(within: w.Box, text: str) -> w.Button:
    """The button that says this, however deep."""
    for child in within.children:
        if isinstance(child, w.Button) and child.description == text:
            return child
        if isinstance(child, w.Box) and (found := pressed(child, text)) is not None:
            return found
    return None  # type: ignore[return-value]


def traced_in(folder: Path, backbone: str, **settings: object) -> ActivationSpace:
    panel = panel_in(folder, backbone, **settings)
    panel.trace()
    assert panel.wait(120) and not panel.form.errors and "wb-error" not in panel._status.value
    return panel


def draw_round(panel: ActivationSpace, run: str, texts: range) -> None:
    """What the page sends when an outline was drawn, around the points of some texts and no others."""
    table = panel.map.data()
    wanted = table[(table["run"] == run) & table["text"].isin(texts)]
    outlines = [
        np.array([[x - 1e-4, y - 1e-4], [x + 1e-4, y - 1e-4], [x, y + 1e-4]])
        for x, y in wanted[["x", "y"]].to_numpy()
    ]
    panel._brush(outlines)
    panel.refresh()


def test_texts_are_traced_looked_at_and_found_again(backbone: str, tmp_path: Path) -> None:
    """Protects the way from the button to the picture, the numbers beside it, and the cell that is run again."""
    panel = panel_in(tmp_path, backbone)
    assert "press Trace" in panel._status.value and panel._end.disabled and panel._go_on.disabled
    busy = time.thread_time()
    panel._trace.click()
    assert time.thread_time() - busy < 0.1, "a callback must return at once: the page waits for it"
    assert panel.wait(120)
    assert "of 24 texts" in panel._status.value
    assert list(panel._place.options) == [(p, p) for p in ("layer 0", "layer 1", "layer 2", "output")]
    assert panel._place.value == panel.map.shown == "layer 2" and panel._points.value == "mean"
    assert len(panel.map.data()) == 24 and len(panel.numbers.data()) == 6 and not panel.numbers.pending
    assert "linear probe" in panel.numbers.widget().value
    panel.map.widget().flush()
    before = [*panel.map.widget().data[0].x]
    panel._place.value = "output"
    until(lambda: "after its last layer" in str(panel.map._heading()["text"]) and panel.map.place == "output")
    until(lambda: (panel.map.widget().flush(), [*panel.map.widget().data[0].x] != before)[1])
    panel._points.value = "all"
    until(lambda: len(panel.map.data()) == len(panel.traced.trace("00")))  # type: ignore[union-attr, arg-type]
    panel._colour.value = "correctness"
    until(lambda: "answered right" in {trace.name for trace in panel.map.figure().data})
    until(lambda: panel.map.scores != {} and panel._drawn[2][4])
    scores = panel.map.scores["no prompt"]
    assert len(scores) == 24 and set(scores) <= {0.0, 1.0}

    again = panel_in(tmp_path, backbone, texts=99)
    assert "moved to a newer cell" in panel._status.value and again.form.value.texts == 8
    assert again.wait(60) and len(again.map.data()) == 24 and "of 24 texts" in again._status.value
    again.close()


def test_a_trace_that_was_stopped_goes_on_and_loses_nothing(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects an evening's trace: stopped or cut short, by a button or with its kernel, it ends as if uninterrupted."""
    monkeypatch.setattr("workbench.analysis.trace._TEXTS", 4)
    heard = Tracing._heard

    def slowly(work: Tracing, progress: object) -> None:
        heard(work, progress)  # type: ignore[arg-type]
        time.sleep(0.2)

    monkeypatch.setattr(Tracing, "_heard", slowly)
    panel = panel_in(tmp_path, backbone, texts=40)
    panel.trace()
    until(lambda: "Tracing: text" in panel._status.value)
    assert panel.form.disabled and panel._trace.disabled and not panel._end.disabled
    until(lambda: "left" in panel._status.value)
    panel._trace.click()
    assert panel._fault is None or "being traced" in str(panel._fault)
    panel._end.click()
    panel.wait(60)
    assert "Stopped after" in panel._status.value and "nothing is lost" in panel._status.value
    assert panel.traced is not None
    part = panel.traced.trace("00")
    assert part is not None and 0 < len(part.texts) < 120
    assert len(panel.map.data()) == len(part.texts), "what is done can be looked at"
    panel.close()
    ActivationSpace._works.clear()  # as in a kernel that was started anew
    later = panel_in(tmp_path, backbone)
    assert "Interrupted after" in later._status.value and not later._go_on.disabled
    monkeypatch.setattr(Tracing, "_heard", heard)
    later._colour.value = "correctness"
    until(lambda: later.map.scores != {})
    assert len(later.map.scores["no prompt"]) == len(part.texts)
    later._go_on.click()
    later.wait(120)
    until(lambda: len(later.map.data()) == 120)
    until(lambda: len(later.map.scores.get("no prompt", ())) == 120)
    later.wait(60)
    assert later.numbers.data()["texts"].eq(120).all() and "index" not in later._status.value
    whole = later.traced.trace("00")  # type: ignore[union-attr]
    assert whole is not None and whole.complete and len(whole.texts) == 120
    loaded = wb.load_backbone(backbone)
    texts = {task: list(wb.load_task(task).examples(n=40)) for task in TASKS}
    np.testing.assert_allclose(whole["layer 1"], wb.trace(loaded, texts)["layer 1"], rtol=1e-4, atol=1e-5)
    later.close()


def test_what_is_wrong_is_said_at_its_field(backbone: str, tmp_path: Path) -> None:
    """Found at once or only when it is tried; of what cannot be traced nothing is left."""
    panel = panel_in(tmp_path, backbone)
    for field, wrong, said in (
        ("tasks", (), "tick one"),
        ("files", ("nowhere.jsonl",), "nowhere.jsonl"),
        ("layers", (), "write all"),
    ):
        panel.form.controls[field].value = wrong
        assert said in panel.form.errors[field]
        panel._trace.click()
        assert said in panel._status.value
        panel.form.controls[field].value = getattr(TraceSettings(tasks=TASKS), field)
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "a"}\n' * 4)
    for field, wrong, said in (("layers", (9,), "layer 9|'9'"), ("files", (str(bad),), "answer")):
        before = panel.form.value
        panel.form.controls[field].value = wrong
        panel.trace()
        until(lambda: bool(panel.form.errors))
        assert any(part in panel.form.errors[field] for part in said.split("|")), panel.form.errors
        note = panel.form._rows[field].children[-1]
        until(lambda note=note: "wb-wrong-text" in note.value)  # type: ignore[misc]
        assert not list((tmp_path / "space").glob(f"*/{ASKED}"))
        panel.form.value = before
        assert not panel.form.errors
    for button, said in (
        ("Keep", "no name"),
        ("Train a prompt on it", "no selection is kept yet"),
        ("Trace it with the prompt", "no selection is kept yet"),
        ("Fit a prior to it", "no selection is kept yet"),
        ("Write on", "trace some texts first"),
    ):
        panel._fault = None
        pressed(panel.widget(), button).click()
        panel.wait(20)
        assert said in panel._status.value, button
    other = wb.JobConfig("tiny-rwkv", "find-person").to_json()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_text(json.dumps(other))
    with pytest.raises(wb.WorkbenchError, match="tiny-rwkv"):
        replace(TraceSettings(backbone), run=str(tmp_path / "other")).look()
    panel.close()


def test_what_was_traced_is_shown_when_what_it_was_made_of_has_moved(backbone: str, tmp_path: Path) -> None:
    """Protects the cell that is run again a month later: a file of one's own is elsewhere, or what is kept is damaged."""
    own = tmp_path / "own.jsonl"
    own.write_text("".join(json.dumps({"prompt": f"a b {n}", "answer": "c"}) + "\n" for n in range(4)))
    panel = panel_in(tmp_path, backbone, files=(str(own),))
    panel.trace()
    panel.wait(60)
    rows = len(panel.map.data())
    panel.close()
    own.rename(tmp_path / "moved.jsonl")
    ActivationSpace._works.clear()
    later = panel_in(tmp_path, backbone)
    later.wait(60)
    assert len(later.map.data()) == rows and "own.jsonl" in later.form.errors["files"]
    later.close()
    assert later.traced is not None
    (later.traced.home / ASKED).write_text("{")
    anew = panel_in(tmp_path, backbone)
    assert "no readable traces" in anew._status.value and not anew._trace.disabled
    anew.trace()
    anew.wait(60)
    assert len(anew.map.data()) == 24
    anew.close()


def test_runs_of_one_name_are_told_apart(backbone: str, tmp_path: Path) -> None:
    """Protects a walk: two notebooks number their runs from one, and neither's text stands for the other's."""
    panel = traced_in(tmp_path, backbone)
    for folder in ("first", "second"):
        config = wb.JobConfig(backbone, "find-person", settings={"tokens": 2}, fit=wb.FitConfig(steps=1))
        assert Job(config, tmp_path / folder / "0001").start().wait() == "finished"
    panel._looked = -1e9
    panel.refresh()
    assert {label for label, _ in panel._with.options} == {"no prompt", "first/0001", "second/0001"}
    for folder in ("first", "second"):
        panel._with.value = str((tmp_path / folder / "0001").resolve())
        panel.write()
        panel.wait(60)
        assert panel._fault is None and [*panel.walk.walks] == ["no prompt", "0001"]
    panel.close()


def test_a_selection_is_kept_trained_on_traced_and_fitted(backbone: str, tmp_path: Path) -> None:
    """The three things to do with texts that were drawn round, each for real, and what others make of the results."""
    panel = traced_in(tmp_path, backbone)
    draw_round(panel, "no prompt", range(6))
    assert panel.chosen() == [("no prompt", text) for text in range(6)]
    panel._name.value = "first six"
    panel.keep()
    panel.wait(60)
    assert panel._kept.value.endswith("first-six.jsonl") and "Kept 6 texts" in panel._acted.value
    own = wb.load_task("find-person").examples(n=8)
    kept = Selection(Path(panel._kept.value))
    assert [(task, e.text) for task, e in kept.texts] == [("find-person", own[i].text) for i in range(6)]
    assert wb.load_task(panel._kept.value).splits == ("train", "validation", "test")
    draw_round(panel, "no prompt", range(3, 12))
    panel.keep()
    panel.wait(60)
    assert "another name" in panel._status.value, "other texts do not overwrite it"

    panel._place.value = "layer 1"
    panel.fit_prior()
    panel.wait(60)
    assert "in layer 1" in panel._acted.value
    prior = panel.priors["first-six"]
    loaded = wb.load_backbone(backbone)
    head = len(loaded.tokenizer("").input_ids)
    tokens = sum(len(loaded.tokenizer(e.text).input_ids) - head for _, e in kept.texts)
    assert prior.fit(loaded, 1).facts["points"] == tokens, "all of its tokens, and no others"
    config = wb.JobConfig(
        backbone, "find-person", settings={"tokens": 2, "prior": prior.describe()}, fit=wb.FitConfig(steps=2)
    )
    assert Job(config, tmp_path / "from-prior").start().wait() == "finished"

    panel._fault = None
    panel.train()
    panel.wait(300)
    until(lambda: "Finished: step 100 of 100" in panel._acted.value)
    (path,) = (tmp_path / "space/prompts").iterdir()
    assert wb.Run(path).config["task"]["task"] == str(kept.path)
    assert path in trained_runs(tmp_path, backbone)
    panel._looked = -1e9
    panel.refresh()
    panel._with.value = str(path)
    panel.trace_selection()
    panel.wait(120)
    label = f"{path.name}, first-six"
    table = panel.map.data()
    assert (table["run"] == label).sum() == 6 and (table["run"] == "no prompt").sum() == 24
    method = wb.Run(path).load_method(loaded)
    wanted = wb.trace(loaded, {"find-person": [e for _, e in kept.texts]}, positions="mean", method=method)
    frame = panel.map.traces.frames["layer 1"]  # type: ignore[union-attr]
    np.testing.assert_allclose(
        table[table["run"] == label][["x", "y"]], frame.place(wanted["layer 1"]).points, rtol=1e-3, atol=1e-3
    )
    draw_round(panel, label, range(4))
    assert {run for run, _ in panel.chosen()} >= {label}

    panel.write()
    panel.wait(60)
    assert [*panel.walk.walks] == ["no prompt", path.name] and panel.walk.last >= 1
    panel._step.value = 1
    until(lambda: panel.walk.step == 1)
    again = panel_in(tmp_path, backbone)
    again.wait(60)
    assert [*again.walk.walks] == ["no prompt", path.name], "found again after a reload"
    assert [*again.map.traces.traces] == ["no prompt", label]  # type: ignore[union-attr]
    again.close()


def test_answers_that_are_written_are_traced_and_scored(backbone: str, tmp_path: Path) -> None:
    """The model's own answers, with own files beside tasks of the same name, and only the points that were asked for."""
    own = tmp_path / "second-word.jsonl"
    own.write_text("".join(json.dumps({"prompt": f"{i} is", "answer": str(i)}) + "\n" for i in range(20)))
    panel = traced_in(
        tmp_path, backbone, answers="written", files=(str(own),), tokens="answer", layers=(0, -1), texts=4
    )
    trace = panel.traced.trace("00")  # type: ignore[union-attr]
    assert trace is not None and set(trace.table["step"]) == {1, 2, 3, 4}
    assert set(trace.table["task"]) == {*TASKS, str(own)}
    assert panel._points.options == (("the tokens of answers", "answer"),)
    panel.traced.score("00")  # type: ignore[union-attr]
    assert len(panel.traced.scores("00") or ()) == 16  # type: ignore[union-attr]
    panel.close()


def test_scores_are_those_of_the_answers(tmp_path: Path) -> None:
    """Against `evaluate`, and nan where a task has no score for an answer."""
    settings = TraceSettings("tiny-llama", tasks=("find-person", "running"), texts=6)
    traced = Traced.begin(tmp_path / "0001-x", settings)
    work = Tracing(traced)
    work.start()
    work.join(120)
    assert work.error is None and traced.undone() is None
    traced.score("00")
    scores = traced.scores("00")
    assert scores is not None and np.isnan(scores[6:]).all() and metric_of("running") == "perplexity"
    said = wb.evaluate(
        wb.load_backbone("tiny-llama"), wb.load_task("find-person"), split="train", n=6, seed=0
    )
    assert scores[:6] == [row["score"] for row in said.rows]


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85", "\r\n"])
def test_texts_of_a_selection_may_hold_any_end_of_a_line(end: str, tmp_path: Path) -> None:
    """Web text has U+2028 inside; a line of the file ends at its newline alone."""
    examples = [wb.Example(f"{n}{end}and one is", f" {n}{end}more") for n in range(3)]
    kept = Selection.keep(tmp_path, "broken lines", examples, ["a"] * 3)
    assert [(task, one.prompt, one.answer) for task, one in kept.texts] == [
        ("a", one.prompt, one.answer) for one in examples
    ]


def test_what_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    examples = [wb.Example("one and one is", " two")] * 3
    for name, given, said in (
        ("", examples, "no name"),
        ("few", examples[:2], "3 or more"),
        ("mute", [*examples, wb.Example("a text", "")], "no answer"),
    ):
        with pytest.raises(wb.WorkbenchError, match=said):
            Selection.keep(tmp_path, name, given, ["a task"] * len(given))
    kept = Selection.keep(tmp_path, " late  answers ", examples, ["a"] * 3)
    assert (
        kept.name == "late-answers" and Selection.keep(tmp_path, "late answers", examples, ["a"] * 3) == kept
    )
    (tmp_path / "late-answers.prior.json").write_text("{")
    with pytest.raises(wb.WorkbenchError, match="damaged"):
        kept_priors(tmp_path)

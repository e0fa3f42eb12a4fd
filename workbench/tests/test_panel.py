"""The first panel without a browser: its buttons train for real, on a small random model, and it finds its run again."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from workbench.tests import zoo
from workbench.training.job import Job
from workbench.views import Curves, FirstPrompt
from workbench.views.tail import last_records
from workbench.views.work import Settings, config_of


@pytest.fixture
def backbone(small_llama: str) -> str:
    return small_llama


def until(true: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def steps(panel: FirstPrompt) -> list[int]:
    return [line["step"] for line in panel.run.metrics()] if panel.run else []


def test_train_then_find_the_run_again(backbone: str, tmp_path: Path) -> None:
    """Protects the button, and the cell that is run again: a new panel shows what the old one trained."""
    panel = FirstPrompt(tmp_path, backbones=[backbone], tasks=["find-person"], tokens=3, steps=6)
    assert "press Train" in panel._status.value and not len(panel.answers.data())
    busy = time.thread_time()
    panel._train.click()
    assert time.thread_time() - busy < 0.1, "a callback must return at once: the page waits for it"
    assert panel.form.controls["task"].disabled and panel._train.disabled
    assert panel.wait(300)
    assert "Finished: step 6 of 6" in panel._status.value
    assert steps(panel) == [1, 2, 3, 4, 5, 6]
    assert len(panel.answers.data()) == 40 and "wb-answers" in panel.answers.widget().value
    assert len(panel.movement.data()) == 3 * 7, "three vectors, at the start and after each of six steps"
    for view in (panel.curves, panel.movement):
        view.widget().flush()
    assert len(panel.curves.widget().data[0].x) == 6 and len(panel.movement.widget().data[-1].x) == 3

    again = FirstPrompt(tmp_path, backbones=[backbone], tasks=["find-person"])
    assert "moved to a newer cell" in panel._status.value
    assert again.form.value.steps == 6 and again.form.value.tokens == 3
    assert "Finished: step 6 of 6" in again._status.value
    assert len(again.curves.widget().data[0].x) == 6
    again.close()


def test_pause_stop_and_go_on(backbone: str, tmp_path: Path) -> None:
    """Protects the other buttons: held steps stay held, a stopped run is asked and can go on, no step is lost.

    The later panel has nothing but the directory, as after the kernel was started anew.
    """
    panel = FirstPrompt(tmp_path, backbones=[backbone], tasks=["find-person"], tokens=2, steps=4000)
    panel.train()
    until(lambda: len(steps(panel)) >= 2)
    panel.pause()
    until(lambda: "Paused at step" in panel._status.value)
    held = len(steps(panel))
    time.sleep(0.5)
    assert len(steps(panel)) == held
    assert panel._hold.description == "Resume" and not panel._hold.disabled
    panel._hold.click()
    until(lambda: len(steps(panel)) > held)
    panel._end.click()
    assert panel.wait(300)
    assert "Stopped at step" in panel._status.value and len(panel.answers.data()) == 40

    later = FirstPrompt(tmp_path, backbones=[backbone], tasks=["find-person"])
    before = len(steps(later))
    assert later._hold.description == "Resume" and "Stopped at step" in later._status.value
    later._hold.click()
    until(lambda: len(steps(later)) > before + 1)
    later.stop()
    assert later.wait(300)
    assert steps(later) == list(range(1, len(steps(later)) + 1))
    assert later._drawn[-1] == (later.path / "answers.json").stat().st_mtime_ns, (
        "the newer answers are not shown"
    )
    later.close()


def test_a_run_of_another_kernel_is_shown_and_obeys(backbone: str, tmp_path: Path) -> None:
    """Protects the second notebook: what is at work elsewhere is held, let go and stopped from here."""
    config = config_of(Settings(backbone=backbone, task="find-person", tokens=2, steps=4000))
    job = Job(config, tmp_path / "0001-elsewhere", detached=True).start()
    panel = FirstPrompt(tmp_path, backbones=[backbone], tasks=["find-person"])
    assert panel._train.disabled and panel.form.value.steps == 4000
    until(lambda: "Training: step" in panel._status.value)
    panel._hold.click()
    until(lambda: "Paused at step" in panel._status.value)
    panel._hold.click()
    until(lambda: "Training: step" in panel._status.value)
    panel._end.click()
    assert panel.wait(300) and job.state == "stopped"
    assert "Stopped at step" in panel._status.value and len(panel.answers.data()) == 40
    panel.close()


def test_a_failure_is_said_on_the_panel_and_the_next_try_works(backbone: str, tmp_path: Path) -> None:
    """Protects the reader: one sentence, the traceback folded away, and the form free again."""
    panel = FirstPrompt(tmp_path, backbones=["tiny-lama", backbone], tasks=["find-person"], tokens=2, steps=2)
    panel.train()
    assert panel.wait(120)
    shown = panel._status.value
    assert "tiny-lama" in shown and "<details><summary>Where it happened" in shown and "Failed" in shown
    assert not panel._train.disabled and panel._end.disabled
    panel.form.controls["backbone"].value = backbone
    panel.train()
    assert panel.wait(300)
    assert "Finished: step 2 of 2" in panel._status.value and "wb-error" not in panel._status.value
    panel.close()


def test_a_run_that_failed_says_so_on_a_new_panel(backbone: str, tmp_path: Path) -> None:
    """Protects the reload: the sentence and the folded traceback come from the run's directory."""
    (tmp_path / "data").mkdir()
    for split in ("train", "validation"):
        (tmp_path / "data" / f"{split}.jsonl").write_text('{"prompt": "a?", "answer": "b"}\n' * 8)
    task = str(tmp_path / "data")
    old = FirstPrompt(tmp_path, backbones=[backbone], tasks=[task], tokens=2, steps=2)
    old.train()
    assert old.wait(120)
    panel = FirstPrompt(tmp_path, backbones=[backbone], tasks=[task])
    shown = panel._status.value
    assert "no test split" in shown and "<details><summary>Where it happened" in shown
    assert not panel._train.disabled
    panel.close()


def test_the_cost_is_said_before_the_start(backbone: str, tmp_path: Path) -> None:
    """Estimate names parameters, tokens and time below the form, and leaves neither a run nor a line behind a change."""
    panel = FirstPrompt(tmp_path, backbones=[backbone], tasks=["find-person"], tokens=3, steps=6)
    busy = time.thread_time()
    panel._ask.click()
    assert time.thread_time() - busy < 0.1
    until(lambda: "tokens a step" in panel.form.cost.value)
    assert f"{3 * zoo.backbone('llama').width} parameters" in panel.form.cost.value
    assert not list(tmp_path.iterdir())
    panel.form.controls["tokens"].value = 4
    assert panel.form.cost.value == ""
    panel.form.controls["task"].widget.options = ("nowhere", *panel.form.controls["task"].widget.options)
    panel.form.controls["task"].value = "nowhere"
    panel._ask.click()
    until(lambda: "nowhere" in panel._status.value)
    assert panel.form.cost.value == ""
    panel.close()


def test_the_end_of_the_metrics_is_read_without_the_rest(tmp_path: Path) -> None:
    """Protects the panel of a long run: the last records and no others, whatever is still being written."""
    path = tmp_path / "metrics.jsonl"
    assert last_records(path, 3) == []
    for count, filler in ((0, 0), (2, 0), (3, 9), (400, 0), (400, 300), (60, 9000)):
        records = [{"step": step, "text": "x" * filler} for step in range(count)]
        for rest in ("", '{"step": 99'):
            path.write_text("".join(json.dumps(record) + "\n" for record in records) + rest)
            assert last_records(path, 3) == records[-3:]


def test_a_press_draws_no_figure(backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the kernel, whose loop waits for a callback: figures are made in the panel's own thread alone."""
    panel = FirstPrompt(tmp_path, backbones=[backbone], tasks=["find-person"], tokens=2, steps=3)
    drawn, update = set(), Curves.update
    monkeypatch.setattr(Curves, "update", lambda view: (drawn.add(threading.get_ident()), update(view)))
    with panel._drawing:  # nor does a callback wait for a drawing
        press = threading.Thread(target=panel._train.click, daemon=True)
        press.start()
        press.join(20)
        assert not press.is_alive() and "Getting ready" in panel._status.value
    until(lambda: bool(drawn))
    assert press.ident not in drawn
    panel.wait(300)
    panel.close()

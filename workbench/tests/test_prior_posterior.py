"""The panel of notebook 02 without a browser: priors are drawn, trained as one bank for real, and found again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import workbench as wb
from workbench.training.config import FitConfig
from workbench.training.cost import estimate
from workbench.training.job import Job
from workbench.views.landscape import Landscape
from workbench.views.prior_posterior import EVERY, PriorPosterior
from workbench.views.study import StudySettings, configs_of, newest_paths, offered, settings_of

PRIORS = {"words": wb.priors.Vocabulary(), "near zero": wb.priors.Isotropic()}


@pytest.fixture
def backbone(small_llama: str) -> str:
    return small_llama


def panel_in(folder: Path, backbone: str, **settings: object) -> PriorPosterior:
    return PriorPosterior(
        folder,
        PRIORS,
        [backbone],
        ["find-person"],
        around=("reading",),
        **{"tokens": 3, "seeds": 2, "steps": 6} | settings,  # type: ignore[arg-type]
    )


def until(true: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def brush(view: Landscape, x: float, y: float) -> None:
    """What the page sends when a place was drawn round."""
    path = f"M{x - 1e-3},{y - 1e-3}L{x + 1e-3},{y - 1e-3}L{x},{y + 1e-3}Z"
    drawn = [{"type": "path", "path": path, "xref": "x", "yref": "y"}]
    view.widget().set_state(
        {"_js2py_relayout": {"relayout_data": {"selections": drawn}, "source_view_id": "1"}}
    )


def title(view: Landscape) -> str:
    view.widget().flush()
    return str(view.widget().layout.title.text)


def test_priors_are_seen_then_trained_and_followed_and_found_again(backbone: str, tmp_path: Path) -> None:
    """Protects the whole way: draw, train as one bank, walk, brush, choose, and a panel that is made anew."""
    panel = panel_in(tmp_path, backbone)
    until(lambda: len(panel.previews) == 4)
    panel.refresh()
    assert "step 0" in title(panel.landscape)
    drawn = panel.landscape.data()
    assert len(drawn) == 4 * 3 and not list(tmp_path.glob("[0d]*")), "nothing is written before training"
    panel.form.value = replace(panel.form.value, tokens=2, seeds=1)
    panel.draw_priors()
    until(lambda: len(panel.previews) == 2)
    panel.refresh()
    assert len(panel.landscape.data()) == 2 * 2, "what was drawn before is still shown"
    panel.form.value = replace(panel.form.value, tokens=3, seeds=2)

    busy = time.thread_time()
    panel._train.click()
    assert time.thread_time() - busy < 0.1, "a callback must return at once: the page waits for it"
    assert panel.wait(300) and "Finished: step 6 of 6" in panel._status.value
    assert [run.config["job"]["bank"] for run in panel.runs] == [["00", "01", "02", "03"]] * 4
    table = panel.landscape.data()
    starts = table[table["step"] == 0].reset_index(drop=True)
    np.testing.assert_array_equal(starts[["x", "y"]], drawn[["x", "y"]])
    assert (table[table["step"] == 6]["moved"] > 0).all()
    assert (panel._step.max, panel._step.value) == (6, 6) and "step 6" in title(panel.landscape)

    panel._step.value = 2
    until(lambda: "step 2" in title(panel.landscape))
    at = table.query("step == 2").iloc[4]
    brush(panel.landscape, at["x"], at["y"])
    assert [*panel.table.data()[["run", "vector"]].iloc[0]] == [*at[["run", "vector"]]]
    assert not panel.landscape.widget().layout.selections
    until(lambda: at["group"] in panel.table.widget().value)
    brush(panel.landscape, at["x"] + 1e3, at["y"])
    until(lambda: "Draw around" in panel.table.widget().value)

    panel._measures.value = next(value for name, value in panel._measures.options if name == EVERY)
    until(lambda: len(panel.drift.widget().data) == 13 * 2 * 3)
    panel._two.value = True
    panel._who_2.value = panel._who_2.options[1][1]
    until(
        lambda: panel.beside.only == (panel._who_2.value,) and panel.beside.widget() in panel._maps.children
    )
    panel._ticks["reading"].value = True
    until(lambda: "reading: activations" in {trace.name for trace in panel.landscape.widget().data})
    assert len(panel.shift.data()) == 2

    again = panel_in(tmp_path, backbone, seeds=5, steps=99)
    assert "moved to a newer cell" in panel._status.value
    assert again.form.value == StudySettings(
        backbone, "find-person", tokens=3, seeds=2, steps=6, priors=tuple(PRIORS)
    )
    again.refresh()
    assert "step 6" in title(again.landscape) and len(again.runs) == 4
    again.close()


def test_a_study_can_be_held_stopped_and_gone_on_with(backbone: str, tmp_path: Path) -> None:
    """Protects the buttons for all runs at once; the later panel has nothing but the directories."""
    panel = panel_in(tmp_path, backbone, steps=4000, seeds=1)
    panel.train()
    until(lambda: bool(panel.runs) and len(panel.runs[0].metrics()) >= 2)
    panel.pause()
    until(lambda: "Paused at step" in panel._status.value)
    assert {run.state for run in panel.runs} == {"paused"}
    panel.close()
    later = panel_in(tmp_path, backbone)
    assert later._hold.description == "Resume" and later.form.disabled
    later.resume()
    until(lambda: "Training: step" in later._status.value)
    later.stop()
    until(lambda: "Stopped at step" in later._status.value)
    assert {Job.attach(path).state for path in newest_paths(tmp_path)} == {"stopped"}
    later.close()


def test_what_is_wrong_is_said_in_the_panel(backbone: str, tmp_path: Path) -> None:
    panel = panel_in(tmp_path, backbone)
    for tick in panel.form.controls["priors"]._ticks.values():  # type: ignore[attr-defined]
        tick.value = False
    panel._train.click()
    assert "priors is empty" in panel._status.value and not panel.paths
    panel.form.value = replace(StudySettings(backbone, "find-person"), priors=("words",), task="no-such-task")
    panel._train.click()
    until(lambda: "no-such-task" in panel._status.value)
    panel.close()


def test_the_form_says_what_was_started() -> None:
    """Protects a page opened a week later: settings to jobs and back, for every prior that is offered."""
    priors = offered()
    settings = StudySettings(
        "tiny-rwkv", "reading", "deep-prompt", ("input", -1), 5, (0.1, 0.01), 2, 50, tuple(priors)
    )
    configs = [config.checked() for config in configs_of(settings, priors)]
    assert len(configs) == 2 * 2 * len(priors)
    assert settings_of(configs, priors) == settings
    assert settings_of(configs[:2], {}).priors == ("vocabulary",), (
        "a prior that is not offered goes by its own name"
    )
    with pytest.raises(wb.WorkbenchError, match="mine"):
        configs_of(replace(settings, priors=("mine",)), priors)
    for wrong in ({"layers": (1,)}, {"learning_rates": ()}, {"learning_rates": (0.1, -1.0)}, {"priors": ()}):
        with pytest.raises(wb.WorkbenchError):
            StudySettings(**wrong)  # type: ignore[arg-type]


def test_the_cost_of_a_study_is_that_of_all_its_prompts(backbone: str) -> None:
    loaded, task = wb.load_backbone(backbone), wb.load_task("find-person")
    methods = [wb.SoftPrompt(loaded, tokens=3, seed=seed) for seed in range(3)]
    before = [method.snapshot()["embeddings"].clone() for method in methods]
    config = FitConfig(steps=40, batch_size=2, evaluate_every=20)
    many, one = estimate(loaded, methods, task, config), estimate(loaded, methods[0], task, config)
    assert many.parameters == 3 * one.parameters and many.tokens_per_step > 2 * one.tokens_per_step
    assert all(
        (method.snapshot()["embeddings"] == b).all() for method, b in zip(methods, before, strict=True)
    )


def test_what_cannot_be_drawn_is_said_until_something_else_is_asked_for(
    backbone: str, tmp_path: Path
) -> None:
    """Protects whoever names a task of their own wrongly: the sentence stays, and goes when the tick is taken back."""
    panel = PriorPosterior(
        tmp_path, PRIORS, [backbone], ["find-person"], around=("no-such-task",), tokens=2, seeds=1
    )
    until(lambda: len(panel.previews) == 2 and "step 0" in title(panel.landscape))
    panel._ticks["no-such-task"].value = True
    until(lambda: "no-such-task" in panel._status.value)
    for _ in range(3):
        panel.refresh()
        assert "no-such-task" in panel._status.value and "Choose what to train" in panel._status.value
    panel._ticks["no-such-task"].value = False
    until(lambda: "no-such-task" not in panel._status.value)
    panel.close()

"""Jobs: in threads and processes, paused, stopped, handed over, killed; whatever happens, the bits are the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import workbench as wb
from workbench.backbones.backbone import Backbone, load_backbone
from workbench.errors import WorkbenchError
from workbench.tests import zoo
from workbench.training.config import FitConfig
from workbench.training.fit import fit, resume
from workbench.training.job import Job, JobConfig
from workbench.training.run import Lock, Run
from workbench.training.work import shared_backbone

LONG = FitConfig(
    steps=180,
    batch_size=4,
    learning_rate=0.05,
    evaluate_every=60,
    validation_examples=4,
    snapshot_every=60,
    checkpoint_every=20,
)
"""Some seconds: long enough to be caught in the middle."""


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> JobConfig:
    """A small Llama and sixty short questions, as files that a process can load."""
    folder = tmp_path_factory.mktemp("given")
    zoo.make_model("llama").save_pretrained(folder / "small-llama")  # type: ignore[operator]
    zoo.tokenizer().save_pretrained(folder / "small-llama")
    rows = [{"prompt": f"item {i % 7} of {i}?", "answer": ["red", "blue", "green"][i % 3]} for i in range(60)]
    (folder / "colours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    place = str(folder / "small-llama"), str(folder / "colours.jsonl")
    return JobConfig(*place, settings={"tokens": 3}, fit=LONG, device="cpu")


@pytest.fixture(scope="module")
def whole(asked: JobConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a loop that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    backbone = load_backbone(asked.backbone, device="cpu")
    method = wb.SoftPrompt(backbone, tokens=3)
    for _ in fit(backbone, method, wb.load_task(str(asked.task)), LONG, folder):
        pass
    return folder


def until(true: Callable[[], Any], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def steps(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def assert_same(folder: Path, whole: Path) -> None:
    """Every step once, and the same bits."""
    assert Run(folder).state == "finished", (Run(folder).status, Run(folder).details)
    told = [
        [{k: v for k, v in line.items() if k != "seconds"} for line in Run(path).metrics()]
        for path in (folder, whole)
    ]
    assert told[0] == told[1]
    for name in ("method/method.safetensors", "snapshots/step-00000120.safetensors"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


# What a job is


@given(
    tokens=st.integers(1, 99),
    steps=st.integers(1, 999),
    questions=st.integers(0, 99),
    device=st.sampled_from(["auto", "cpu"]),
    task=st.sampled_from(["reading", {"task": "reading", "n": 5, "shots": 2}]),
)
def test_what_is_asked_for_goes_through_json(tokens, steps, questions, device, task) -> None:  # type: ignore[no-untyped-def]
    """Protects every restart: what is read back is what was asked for."""
    config = JobConfig(
        "tiny-llama",
        task,
        "deep-prompt",
        {"tokens": tokens},
        FitConfig(steps=steps),
        device,
        "auto",
        questions,
    )
    again = JobConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert again.to_json() == config.to_json()
    assert replace(again, task=task) == config


def test_it_loads_trains_and_asks_and_says_so(asked: JobConfig, tmp_path: Path) -> None:
    """Protects panels: the directory alone says which stage it is in, and holds all that was asked for."""
    config = JobConfig(
        asked.backbone,
        "find-person",
        settings={"tokens": 2, "prior": wb.priors.Isotropic()},
        fit=FitConfig(steps=4, batch_size=2, evaluate_every=0),
        questions=3,
    )
    job = Job(config, tmp_path / "run")
    assert job.state == "ready"
    job.start()
    assert job.state == "running" and Run(tmp_path / "run").config["method"]["config"]["tokens"] == 2
    assert [run.path for run in Run.list(tmp_path)] == [job.run_dir], "it is a run from the first moment"
    seen = []
    while job.state == "running":
        status = job.run.status
        seen.append((status.get("stage"), status.get("note", "")))
        time.sleep(0.002)
    assert job.wait(60) == "finished", job.details
    stages = [stage for i, (stage, _) in enumerate(seen) if i == 0 or stage != seen[i - 1][0]]
    assert [s for s in stages if s] == ["loading", "training", "answering"], stages
    assert any(note.startswith("answering 3 unseen questions: trained") for _, note in seen)
    answers = json.loads((job.run_dir / "answers.json").read_text())
    assert answers["questions"] == 3 and set(answers["scores"]) == {"zero_shot", "hand_written", "trained"}
    assert set(job.run.status) == {"state", "step", "steps", "kept_step"}
    assert JobConfig.from_json(job.run.config) == job.config == Job.attach(job.run_dir).config
    assert "versions" in job.run.config and job.error is None and job.details is None


def test_resume_from_a_shell_takes_up_what_a_job_had_not_begun(asked: JobConfig, tmp_path: Path) -> None:
    """Protects a run whose kernel ended while the backbone was loading."""
    config = replace(asked, fit=FitConfig(steps=3, batch_size=2, evaluate_every=0))
    run = Run.create(tmp_path / "run", config.checked().to_json())
    run.write_status(state="running", step=0, steps=3, stage="loading")
    assert run.state == "interrupted"
    assert [step.index for step in resume(run.path, device="cpu")] == [1, 2, 3]
    assert run.state == "finished" and "versions" in run.config and run.config["job"]["device"] == "cpu"


# Orders, from anywhere


def test_paused_stopped_and_resumed_from_elsewhere(asked: JobConfig, whole: Path, tmp_path: Path) -> None:
    """Protects the second notebook: whoever has the directory holds, ends and goes on with the run."""
    Job(asked, tmp_path / "run").start()
    there = Job.attach(tmp_path / "run")
    until(lambda: steps(there.run_dir) >= 5)
    there.pause()
    until(lambda: there.state == "paused")
    held = steps(there.run_dir)
    time.sleep(0.2)
    assert steps(there.run_dir) == held < LONG.steps and there.run.status["step"] == held
    there.resume()
    until(lambda: steps(there.run_dir) > held)
    there.stop()
    assert there.wait(60) == "stopped"
    done = steps(there.run_dir)
    assert there.run.status == {"state": "stopped", "step": done, "steps": LONG.steps}
    assert f"step-{done:08d}" in os.listdir(there.run_dir / "checkpoints"), "no step is lost"
    there.pause()  # nobody is at work, so nothing happens, now or later
    there.resume()
    assert there.wait(60) == "finished"
    assert_same(there.run_dir, whole)
    there.resume()
    assert there.state == "finished", "there is nothing to go on with"


def test_a_stop_before_the_first_step_and_one_while_it_asks(asked: JobConfig, tmp_path: Path) -> None:
    """Protects the button: while it loads nothing is trained any more; while it asks, no answers are written."""
    config = replace(asked, fit=FitConfig(steps=2, batch_size=2, evaluate_every=0), questions=6)
    job = Job(config, tmp_path / "run").start()
    job.stop()
    assert job.wait(60) == "stopped" and steps(job.run_dir) == 0
    job.resume()
    until(lambda: job.run.status.get("stage") == "answering")
    job.stop()
    assert job.wait(60) == "stopped" and not (job.run_dir / "answers.json").exists()
    assert (job.run_dir / "method" / "method.json").is_file(), "what was trained is kept"
    job.resume()
    assert job.wait(60) == "finished" and (job.run_dir / "answers.json").is_file()


def test_a_stop_while_it_trains_still_asks(asked: JobConfig, tmp_path: Path) -> None:
    """Protects the panel: the prompt as it is then is asked, and the run can go on."""
    job = Job(replace(asked, questions=2), tmp_path / "run").start()
    until(lambda: steps(job.run_dir) >= 3)
    job.stop()
    assert job.wait(60) == "stopped" and 3 <= steps(job.run_dir) < LONG.steps
    assert json.loads((job.run_dir / "answers.json").read_text())["questions"] == 2


def test_a_loop_takes_no_orders_and_its_run_can_become_a_job(
    asked: JobConfig, whole: Path, tmp_path: Path
) -> None:
    """Protects against an order that nobody reads: it is refused, with where to give it."""
    backbone = shared_backbone(asked.backbone, "cpu")
    method = wb.SoftPrompt(backbone, tokens=3)
    loop = fit(backbone, method, wb.load_task(str(asked.task)), LONG, tmp_path / "run")
    next(loop)
    job = Job.attach(tmp_path / "run")
    assert job.state == "running"
    with pytest.raises(WorkbenchError, match=rf"process {os.getpid()}\), which takes no orders"):
        job.stop()
    with pytest.raises(WorkbenchError, match="being written by another job"):
        job.start()
    loop.close()  # type: ignore[attr-defined]
    job.resume()
    assert job.wait(60) == "finished", job.details
    assert_same(job.run_dir, whole)


def test_looking_for_orders_costs_nothing(tmp_path: Path) -> None:
    """Protects the step: it takes milliseconds, and the look some hundredths of one."""
    run = Run.create(tmp_path / "run", {"fit": {"steps": 1}})
    run.write_order("pause")
    started = time.perf_counter()
    assert {run.order()[0] for _ in range(200)} == {"pause"}
    assert (time.perf_counter() - started) / 200 < 1e-3
    (tmp_path / "run" / "control.json").write_text("{")
    assert run.order()[0] == "go", "what no writer of ours has left is no order"


# Processes


def test_handed_over_in_the_middle_and_killed(asked: JobConfig, whole: Path, tmp_path: Path) -> None:
    """Protects `detach` and a crash: the process goes on where the thread was, and what it leaves goes on to the end.

    The directory is nobody's at no moment of the first, and says at once that it is after the second.
    """
    job = Job(asked, tmp_path / "run").start()
    until(lambda: steps(job.run_dir) >= 10)
    looked: list[str] = []
    seen = threading.Event()

    def look() -> None:
        while not seen.is_set():
            looked.append(job.state)

    looker = threading.Thread(target=look)
    looker.start()
    job.pause()
    until(lambda: job.state == "paused")
    job.detach()
    held = steps(job.run_dir)
    assert 10 <= held < LONG.steps, "the thread has let go in the middle"
    assert not [thread for thread in threading.enumerate() if thread.name == "job run"]
    until(lambda: job.state == "paused" and job.run.holder != os.getpid())
    assert steps(job.run_dir) == held, "what was paused stays so"
    job.resume()
    until(lambda: steps(job.run_dir) >= held + 10)
    seen.set()
    looker.join()
    assert set(looked) == {"running", "paused"}
    process = job.run.holder
    assert process
    os.kill(process, signal.SIGKILL)
    assert job.wait(60) == "interrupted", (job.state, (job.run_dir / "output.txt").read_text())
    assert job.run.status["state"] == "running", "it had no time to say anything"
    there = Job.attach(job.run_dir)
    there.resume()
    assert there.wait(60) == "finished", there.details
    assert_same(job.run_dir, whole)


def test_a_process_is_held_and_ended_from_elsewhere(asked: JobConfig, whole: Path, tmp_path: Path) -> None:
    """Protects what a machine does that goes down: a polite end leaves a checkpoint of the very last step."""
    job = Job(asked, tmp_path / "run", detached=True).start()
    there = Job.attach(job.run_dir)
    with pytest.raises(WorkbenchError, match="being written by another job"):
        there.start()
    until(lambda: steps(job.run_dir) >= 10)
    process = there.run.holder
    assert process not in (None, os.getpid())
    assert os.getsid(process) != os.getsid(0), "Ctrl-C in this terminal does not reach it"
    there.pause()
    until(lambda: there.state == "paused")
    os.kill(process, signal.SIGTERM)
    assert there.wait(60) == "stopped"
    assert f"step-{steps(job.run_dir):08d}" in os.listdir(job.run_dir / "checkpoints")
    there.resume()
    assert there.wait(60) == "finished", there.details
    assert_same(job.run_dir, whole)


def test_two_processes_outlive_the_kernel_that_started_them(
    asked: JobConfig, whole: Path, tmp_path: Path
) -> None:
    """Protects a run over night: whoever started it may end, and two at once do not disturb each other."""
    code = (
        "import json, sys, workbench as wb\n"
        "config = wb.JobConfig.from_json(json.loads(sys.argv[1]))\n"
        "for folder in sys.argv[2:]: wb.Job(config, folder, detached=True).start()\n"
    )
    folders = [tmp_path / "one", tmp_path / "two"]
    words = [sys.executable, "-c", code, json.dumps(asked.to_json()), *map(str, folders)]
    subprocess.run(words, check=True, timeout=120)
    for folder in folders:
        assert Job.attach(folder).wait(120) == "finished", (folder / "output.txt").read_text()
        assert_same(folder, whole)


# Two at once, and the lock


def test_two_threads_share_a_backbone(asked: JobConfig, whole: Path, tmp_path: Path) -> None:
    """Protects contract 2: each ends as if it were alone, on one model in memory."""
    jobs = [Job(asked, tmp_path / name).start() for name in ("one", "two")]
    with pytest.raises(WorkbenchError, match="already holds a run"):
        Job(asked, tmp_path / "one").start()
    assert [job.wait(120) for job in jobs] == ["finished"] * 2
    for job in jobs:
        assert_same(job.run_dir, whole)
    assert shared_backbone(asked.backbone, "cpu") is shared_backbone(asked.backbone, "cpu")


def test_a_backbone_that_was_written_anew_is_loaded_anew(asked: JobConfig, tmp_path: Path) -> None:
    """Protects against yesterday's weights under today's name."""
    folder = shutil.copytree(asked.backbone, tmp_path / "model")
    before = shared_backbone(str(folder), "cpu")
    zoo.make_model("llama", seed=1).save_pretrained(folder)  # type: ignore[operator]
    assert not torch.equal(before.vocabulary(), shared_backbone(str(folder), "cpu").vocabulary())


def test_looking_never_keeps_a_writer_out(tmp_path: Path) -> None:
    """Protects the start: panels look five times a second who holds the run, and must not be taken for a writer."""
    (tmp_path / "run").mkdir()
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            Lock.holder(tmp_path / "run")

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(40):
            lock = Lock(tmp_path / "run")
            assert Lock.holder(tmp_path / "run") == os.getpid()
            lock.release()
            lock.release()
        lock = Lock(tmp_path / "run")
        with pytest.raises(WorkbenchError, match=f"process {os.getpid()}"):
            Lock(tmp_path / "run")
        lock.release()
    finally:
        ended.set()
        for looker in lookers:
            looker.join()
    assert Lock.holder(tmp_path / "run") is None


# What goes wrong


def test_a_failure_says_why_after_a_restart_too(tmp_path: Path) -> None:
    """Protects the reader: the sentence and the traceback are in the directory, and a later success takes them away."""
    backbone = Backbone(zoo.make_model("llama"), zoo.tokenizer(), "poisoned")  # type: ignore[arg-type]
    assert backbone.layouts.shared_prefix  # probed before the damage
    weight: torch.Tensor = backbone.model.get_input_embeddings().weight  # type: ignore[operator, assignment]
    broken = zoo.tokenizer().convert_tokens_to_ids("~")
    good = weight[broken].clone()
    rows = [{"prompt": f"item {i}{'~' if i == 17 else '?'}", "answer": "red"} for i in range(40)]
    (tmp_path / "signs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with torch.no_grad():
        weight[broken] = torch.nan
    config = JobConfig(
        "poisoned",
        str(tmp_path / "signs.jsonl"),
        settings={"tokens": 3},
        fit=FitConfig(steps=40, batch_size=4, evaluate_every=0, checkpoint_every=1, seed=7),
    )
    job = Job(config, tmp_path / "run", backbone=backbone).start()
    assert job.wait(60) == "failed"
    again = Job.attach(job.run_dir, backbone=backbone)
    assert again.state == "failed" and again.error == job.error
    assert "lower the learning rate" in str(again.error) and "the last good checkpoint" in str(again.error)
    assert "Traceback" in str(again.details) and "member.py" in str(again.details)
    with torch.no_grad():
        weight[broken] = good
    again.resume()
    assert again.wait(60) == "finished" and again.error is None and again.details is None


def test_what_shows_only_while_loading_ends_as_failed(asked: JobConfig, tmp_path: Path) -> None:
    """Protects whoever looks later: nobody was there to see it fail, so its directory says it."""
    folder = shutil.copytree(asked.backbone, tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"half")
    job = Job(replace(asked, backbone=str(folder)), tmp_path / "run").start()
    assert job.wait(60) == "failed"
    assert str(folder) in str(job.error) and "\n" not in str(job.error)
    assert "Traceback" in str(job.details)


def test_questions_that_cannot_be_asked_are_refused_before_training(asked: JobConfig, tmp_path: Path) -> None:
    """Protects an hour of training that would end in a failure."""
    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("train", "validation"):
        shutil.copy(str(asked.task), folder / f"{split}.jsonl")
    for task, said in (
        ({"task": str(folder)}, "no test split"),
        ({"task": str(asked.task), "metric": "perplexity"}, "perplexity"),
    ):
        job = Job(replace(asked, task=task, questions=2), tmp_path / said.replace(" ", "-")).start()
        assert job.wait(60) == "failed" and said in str(job.error) and not steps(job.run_dir)


BAD = [
    ({"backbone": "tiny-lama"}, "did you mean 'tiny-llama'"),
    ({"backbone": "nowhere/at/all"}, "there is no folder"),
    ({"task": "redaing"}, "did you mean 'reading'"),
    ({"task": {"task": "find-person", "shot": 3}}, "no option of the task find-person"),
    ({"method": "soft-promt"}, "did you mean 'soft-prompt'"),
    ({"settings": {"token": 3}}, "did you mean 'tokens'"),
    ({"settings": {"tokens": 0}}, "1 or more"),
    ({"settings": {"tokens": "many"}}, "tokens of the method soft-prompt is .many."),
    ({"settings": {"prior": {"name": "isotropc"}}}, "did you mean 'isotropic'"),
    ({"questions": -1}, "0 or more"),
    ({"folder": "full"}, "is not empty and holds no run"),
    ({"folder": "file/below"}, "cannot be written"),
    ({"given": True}, "the backbone given is small-llama"),
]


@pytest.mark.parametrize("detached", [False, True], ids=["thread", "process"])
@pytest.mark.parametrize(("wrong", "sentence"), BAD, ids=[sentence for _, sentence in BAD])
def test_bad_input_is_refused_at_once(
    wrong: dict[str, Any], sentence: str, detached: bool, asked: JobConfig, tmp_path: Path
) -> None:
    """One sentence in the caller's thread; no folder made, no thread or process begun, nothing touched."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    wrong = dict(wrong)
    folder = tmp_path / wrong.pop("folder", "new")
    given = zoo.backbone("llama") if wrong.pop("given", False) else None
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(WorkbenchError, match=sentence) as caught:
        Job(replace(asked, **wrong), folder, detached, given).start()
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(WorkbenchError, match="holds no run"):
        Job.attach(tmp_path / "new")

"""Jobs of several runs: one bank in the background, whose members are runs like any other, to the same bits."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from workbench.backbones.backbone import load_backbone
from workbench.errors import WorkbenchError
from workbench.tests import zoo
from workbench.tests.test_fit import poisoned
from workbench.tests.test_jobs import steps, until
from workbench.training.bank import fit_many
from workbench.training.checkpoint import checkpoints
from workbench.training.config import FitConfig
from workbench.training.fit import fit, resume
from workbench.training.job import Job, JobConfig
from workbench.training.member import Member
from workbench.training.run import Lock, Run
from workbench.training.work import shared_backbone

LONG = FitConfig(
    steps=90,
    batch_size=2,
    learning_rate=0.05,
    evaluate_every=30,
    validation_examples=4,
    snapshot_every=30,
    checkpoint_every=20,
)
"""Long enough to be caught in the middle."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama, a file of short questions, and one of longer ones of several lengths."""
    folder = tmp_path_factory.mktemp("given")
    zoo.make_model("llama").save_pretrained(folder / "small-llama")  # type: ignore[operator]
    zoo.tokenizer().save_pretrained(folder / "small-llama")
    for name, more in (("colours", ""), ("shades", "which of these few is the shade of ")):
        rows = [
            {"prompt": f"{more * (i * 7 % 6)}item {i % 7} of {i}?", "answer": ["red", "blue", "green"][i % 3]}
            for i in range(60)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def asked(place: Path) -> list[JobConfig]:
    """Four that differ in all that members may differ in; the second finishes early, the third converges early."""
    base = JobConfig(
        str(place / "small-llama"),
        str(place / "colours.jsonl"),
        settings={"tokens": 3},
        fit=LONG,
        device="cpu",
    )
    still = replace(LONG, learning_rate=1e-12, patience=2, evaluate_every=5, checkpoint_every=7)
    return [
        base,
        replace(
            base,
            task=str(place / "shades.jsonl"),
            settings={"tokens": 3, "seed": 1},
            fit=replace(LONG, seed=1, steps=33),
        ),
        replace(base, task=str(place / "shades.jsonl"), settings={"tokens": 3, "seed": 2}, fit=still),
        replace(
            base,
            task=str(place / "shades.jsonl"),
            settings={"tokens": 3, "prior": {"name": "isotropic", "std": 0.3}},
            fit=replace(LONG, learning_rate=0.01),
        ),
    ]


@pytest.fixture(scope="module")
def whole(asked: list[JobConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same bank in a loop that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    train(asked, folder)
    return folder


def train(asked: list[JobConfig], folder: Path) -> None:
    backbone = load_backbone(asked[0].backbone, device="cpu")
    known = {str(config.task): wb.load_task(str(config.task)) for config in asked}
    methods = [config.checked().make(backbone) for config in asked]
    tasks = [known[str(config.task)] for config in asked]
    list(fit_many(backbone, methods, tasks, [config.fit for config in asked], folder))


def told(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k != "seconds"} for line in Run(folder).metrics()]


def assert_same(folder: Path, whole: Path, members: int = 4) -> None:
    """Every member has every step once, and the same bits."""
    for name in [f"{n:02d}" for n in range(members)]:
        run = Run(folder / name)
        assert run.state == "finished", (run.status, run.details)
        assert told(run.path) == told(whole / name)
        one, other = (path / name / "method" / "method.safetensors" for path in (folder, whole))
        assert one.read_bytes() == other.read_bytes()


# Members are runs like any other


def test_members_are_runs_and_each_leaves_with_its_own_word(
    asked: list[JobConfig], whole: Path, tmp_path: Path
) -> None:
    """Protects every view: four directories, each with its own settings; who has finished says so while others go on."""
    job = Job(asked, tmp_path).start()
    assert [run.path for run in job.runs] == [tmp_path / f"0{n}" for n in range(4)] == job.run_dirs
    until(lambda: job.runs[1].state == "finished" == job.runs[2].state)
    assert job.state == "running" == job.runs[0].state
    assert job.wait(120) == "finished" and job.error is None and job.details is None
    assert_same(tmp_path, whole)
    assert steps(job.run_dirs[1]) == 33 and steps(job.run_dirs[2]) < 33, "one converged"
    for n, config in enumerate(asked):
        facts = job.runs[n].config
        assert facts["fit"]["seed"] == config.fit.seed and "versions" in facts
        assert facts["job"]["bank"] == ["00", "01", "02", "03"]
        assert facts["method"]["config"]["prior"]["name"] == ("isotropic" if n == 3 else "vocabulary")
        assert replace(JobConfig.from_json(facts), task=job.configs[n].task) == job.configs[n]
        assert Job.attach(job.run_dirs[n]).config == JobConfig.from_json(facts)
        assert {*job.runs[n].snapshots()} >= {0}


def test_a_bank_of_one_is_a_job(asked: list[JobConfig], tmp_path: Path) -> None:
    """Protects what there was before: the same bits as a loop of one, and no word of a bank."""
    short = replace(asked[0], fit=replace(LONG, steps=6, evaluate_every=3))
    job = Job([short], tmp_path / "bank").start()
    backbone = shared_backbone(short.backbone, "cpu")
    list(
        fit(
            backbone,
            short.checked().make(backbone),
            wb.load_task(str(short.task)),
            short.fit,
            tmp_path / "loop",
        )
    )
    assert job.wait(60) == "finished" and job.run_dirs == [tmp_path / "bank" / "00"]
    assert "bank" not in job.run.config["job"]
    assert told(job.run_dir) == told(tmp_path / "loop")


def test_the_bits_tell_who_trains_beside(asked: list[JobConfig], whole: Path, tmp_path: Path) -> None:
    """The tests below would see a bank that goes on with other members than it had, by the padding that they bring."""
    backbone = shared_backbone(asked[0].backbone, "cpu")
    task = wb.load_task(str(asked[0].task))
    for step in fit(backbone, asked[0].checked().make(backbone), task, LONG, tmp_path / "alone"):
        if step.index == 30:
            break
    alone = [line["loss"] for line in told(tmp_path / "alone")]
    beside = [line["loss"] for line in told(whole / "00")][:30]
    assert alone != beside and alone == pytest.approx(beside, abs=1e-3)


# Orders to any reach all; whatever happens, the bits are the same


def test_paused_stopped_and_handed_over_by_any_of_its_directories(
    asked: list[JobConfig], whole: Path, tmp_path: Path
) -> None:
    """Protects the second notebook: it has one of the runs, and holds, ends and goes on with the bank."""
    Job(asked, tmp_path).start()
    there = Job.attach(tmp_path / "03")
    assert there.run_dir == tmp_path / "03" and there.run_dirs[0] == tmp_path / "00"
    until(lambda: steps(there.run_dir) >= 5)
    there.pause()
    until(lambda: there.state == "paused")
    held = steps(there.run_dir)
    assert next(run.status["step"] for run in there.runs if run.state == "paused") == held < 90
    Job.attach(tmp_path / "01").resume()
    until(lambda: steps(there.run_dir) > held)
    Job.attach(tmp_path / "02").stop()
    assert there.wait(60) == "stopped" and steps(tmp_path / "00") == steps(there.run_dir) < 90
    there.resume()
    until(lambda: steps(there.run_dir) >= 40)
    there.pause()
    until(lambda: there.state == "paused")
    there.detach()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("job ")]
    until(lambda: there.state == "paused" and there.run.holder not in (None, os.getpid()))
    assert {Lock.holder(path) for path in there.run_dirs} == {there.run.holder}, "it holds all of them"
    with pytest.raises(WorkbenchError, match="being written by another job"):
        list(resume(tmp_path / "02", device="cpu"))
    Job.attach(tmp_path / "00").resume()
    assert there.wait(120) == "finished", (there.error, (tmp_path / "00" / "output.txt").read_text())
    assert_same(tmp_path, whole)


@pytest.mark.parametrize("at", [17, 36])
def test_killed_and_gone_on_with(asked: list[JobConfig], whole: Path, tmp_path: Path, at: int) -> None:
    """Protects a run over night: the members that are left go on from one moment, and those that had left stay out."""
    job = Job(asked, tmp_path, detached=True).start()
    until(lambda: steps(tmp_path / "00") >= at)
    process = job.run.holder
    assert process and process != os.getpid()
    os.kill(process, signal.SIGKILL)
    assert job.wait(60) == "interrupted"
    there = Job.attach(tmp_path / "01")
    there.resume()
    assert there.wait(120) == "finished", there.details
    assert_same(tmp_path, whole)


@pytest.mark.parametrize(
    ("while_it", "step", "kept"),
    [("keep", 40, [40, 33]), ("record", 18, [15, 15])],
    ids=["between two checkpoints", "after one has converged"],
)
def test_killed_where_members_part(
    while_it: str,
    step: int,
    kept: list[int],
    asked: list[JobConfig],
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Protects the bits: who had written its checkpoint goes back to where all are, and who had left is not missed.

    Otherwise rows would run beside those of other steps, or without some, which is in the last bits of all.
    """
    done = getattr(Member, while_it)

    def dying(member: Member, *facts: Any) -> None:
        if member.number == 3 and member.done == step:
            raise SystemExit  # as if killed: nothing is said, nothing more is written
        done(member, *facts)

    monkeypatch.setattr(Member, while_it, dying)
    monkeypatch.setattr(Member, "interrupt", lambda member, reason: member.release())
    with pytest.raises(SystemExit):
        train(asked, tmp_path)
    monkeypatch.undo()
    assert [max(checkpoints(tmp_path / name)) for name in ("00", "03")] == kept
    paths = [tmp_path / f"0{n}" for n in range(4)]
    with pytest.raises(WorkbenchError, match="holds no run"):
        Job.attach([*paths, tmp_path / "04"])
    job = Job.attach(paths)
    job.resume()
    with pytest.raises(WorkbenchError, match="01 was trained in one bank with others than those given"):
        Job.attach(paths[1:3])
    assert Job.attach(paths[2]).wait(120) == "finished", job.details
    assert_same(tmp_path, whole)


def test_two_banks_at_once(asked: list[JobConfig], whole: Path, tmp_path: Path) -> None:
    """Protects contract 2: each ends as if it were alone, one in a thread and one in a process; no run is in both."""
    jobs = [Job(asked, tmp_path / "one").start(), Job(asked, tmp_path / "two", detached=True).start()]
    with pytest.raises(WorkbenchError, match="already holds a run"):
        Job(asked[:2], [tmp_path / "three", tmp_path / "one" / "02"]).start()
    assert not (tmp_path / "three").exists()
    assert [job.wait(120) for job in jobs] == ["finished"] * 2, [job.error for job in jobs]
    for job in jobs:
        assert_same(job.run_dir.parent, whole)


# What goes wrong for one


def poisoned_bank(place: Path, folder: Path, questions: int = 0) -> tuple[list[JobConfig], Any]:
    """Three, of whom the second meets a broken sign; and the backbone on which it is broken."""
    rows = [{"prompt": f"item {i}{'~' if i == 17 else '?'}", "answer": "red"} for i in range(40)]
    (folder / "signs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    quick = replace(LONG, steps=25, evaluate_every=0, checkpoint_every=4)
    base = JobConfig(
        "poisoned", str(place / "colours.jsonl"), settings={"tokens": 3}, fit=quick, questions=questions
    )
    return [
        base,
        replace(base, task=str(folder / "signs.jsonl")),
        replace(base, fit=replace(quick, seed=2)),
    ], poisoned()


def test_a_member_that_diverges_leaves_and_the_others_go_on(place: Path, tmp_path: Path) -> None:
    """Protects the rest of a study, and the reader: the sentence and the traceback are in that member's directory alone.

    Resumed after a stop, it stays out; it is tried again when no other is left, and touches none of them.
    """
    configs, backbone = poisoned_bank(place, tmp_path)
    job = Job(configs, tmp_path / "bank", backbone=backbone).start()
    until(lambda: job.runs[1].state == "failed")
    job.pause()
    until(lambda: job.state != "running")
    assert job.state == "paused", "it should be caught before the others are done"
    job.stop()
    assert job.wait(60) == "stopped"
    Job.attach(job.run_dirs[1], backbone=backbone).resume()
    assert job.wait(60) == "failed"
    assert [run.state for run in job.runs] == ["finished", "failed", "finished"]
    said = job.runs[1].status["error"]
    assert "loss became nan" in said and job.error == f"01: {said}" and "\n" not in said
    assert "Traceback" in str(job.details) and "member.py" in str(job.details)
    assert job.runs[0].details is None and "error" not in job.runs[2].status
    list(fit_many(backbone, [c.make(backbone) for c in configs], [wb.load_task(str(c.task)) for c in configs],
                  [c.fit for c in configs], tmp_path / "loop"))  # fmt: skip
    for n in range(3):
        assert told(job.run_dirs[n]) == told(tmp_path / "loop" / f"0{n}")
    before = [(path / "status.json").stat().st_mtime_ns for path in job.run_dirs]
    good = backbone.model.get_input_embeddings().weight
    with torch.no_grad():
        good[good.isnan().any(1)] = 0.0
    job.resume()
    assert job.wait(60) == "finished" and job.error is None and job.details is None
    after = [(path / "status.json").stat().st_mtime_ns for path in job.run_dirs]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]


def test_all_that_diverge_say_so(place: Path, tmp_path: Path) -> None:
    """Protects against a quiet end, and against one member's sentence in another's directory."""
    configs, backbone = poisoned_bank(place, tmp_path)
    seeds = [replace(configs[1], fit=replace(configs[1].fit, steps=80, seed=n)) for n in range(3)]
    job = Job(seeds, tmp_path / "bank", backbone=backbone).start()
    assert job.wait(60) == "failed"
    for run in job.runs:
        assert f"at step {run.status['step'] + 1} " in run.status["error"] and run.details
        assert str(run.path) in run.status["error"] or "no checkpoint yet" in run.status["error"]
    assert str(job.error).count("loss became nan") == 3


def test_what_fails_for_all_is_said_once(asked: list[JobConfig], tmp_path: Path) -> None:
    """Protects the panel: a damaged backbone is one sentence, in every directory; mended, the bank begins."""
    model = shutil.copytree(asked[0].backbone, tmp_path / "model")
    whole = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(b"half")
    fit_ = replace(LONG, steps=2, evaluate_every=0)
    job = Job([replace(c, backbone=str(model), fit=fit_) for c in asked[:2]], tmp_path / "bank").start()
    assert job.wait(60) == "failed" and str(job.error).count(str(model)) == 1
    assert [run.status["error"] for run in job.runs] == [job.error] * 2
    (model / "model.safetensors").write_bytes(whole)
    job.resume()
    assert job.wait(60) == "finished"


def test_each_is_asked_its_own_questions(asked: list[JobConfig], tmp_path: Path) -> None:
    """Protects the answers beside each other: each member's prompt on its own task, whenever it left; a stop ends that."""
    quick = replace(LONG, steps=9, evaluate_every=0)
    counts = [2, 0, 3]
    configs = [
        replace(asked[0], fit=quick, questions=2),
        replace(asked[1], fit=replace(quick, steps=4)),
        replace(asked[3], fit=replace(quick, steps=3), questions=3),
    ]
    job = Job(configs, tmp_path / "bank").start()
    until(lambda: job.runs[0].status.get("stage") == "answering")
    job.stop()
    assert job.wait(60) == "stopped"
    assert [run.state for run in job.runs] == ["stopped", "finished", "stopped"]
    assert not [path for path in job.run_dirs if (path / "answers.json").exists()]
    methods = [(path / "method" / "method.safetensors").stat().st_mtime_ns for path in job.run_dirs]
    job.resume()
    assert job.wait(60) == "finished", job.details
    assert methods == [(path / "method" / "method.safetensors").stat().st_mtime_ns for path in job.run_dirs]
    for path, count, config in zip(job.run_dirs, counts, configs, strict=True):
        assert (path / "answers.json").is_file() == bool(count)
        if count:
            answers = json.loads((path / "answers.json").read_text())
            assert answers["questions"] == count and answers["task"] in str(config.task)


# What is refused

BAD: list[tuple[dict[str, Any], str]] = [
    ({"settings": {"tokens": 4}}, "tokens must be the same in all, not 3 and 4"),
    ({"backbone": "tiny-llama"}, "backbone must be the same in all"),
    ({"method": "prefix"}, "method must be the same in all, not soft-prompt and prefix"),
    ({"dtype": "bfloat16"}, "dtype must be the same"),
    ({"fit": replace(LONG, precision="bfloat16")}, "precision must be the same"),
    ({"fit": replace(LONG, gradient_checkpointing=True)}, "gradient_checkpointing must be the same"),
    ({"settings": {"prior": {"name": "isotropc"}}}, "did you mean 'isotropic'"),
    ({"folders": ["a", "a"]}, "1 different folders are given for 2 configs"),
    ({"folders": ["a"]}, "1 different folders are given for 2 configs"),
    ({"folders": ["a", "full"]}, "is not empty and holds no run"),
    ({"folders": ["a", "file/below"]}, "cannot be written"),
]


@pytest.mark.parametrize(("wrong", "sentence"), BAD, ids=[sentence for _, sentence in BAD])
def test_what_cannot_be_one_bank_is_refused_at_once(
    wrong: dict[str, Any], sentence: str, asked: list[JobConfig], tmp_path: Path
) -> None:
    """One sentence in the caller's thread; no run made, no thread begun, nobody kept out afterwards."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    wrong = dict(wrong)
    folders = [tmp_path / name for name in wrong.pop("folders", ["a", "b"])]
    with pytest.raises(WorkbenchError, match=sentence) as caught:
        Job([asked[0], replace(asked[0], **wrong)], folders).start()
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.name == "config.json"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("job ")]
    with pytest.raises(WorkbenchError, match="at least one config"):
        Job([], tmp_path / "new")


def test_a_bank_whose_runs_were_moved(asked: list[JobConfig], tmp_path: Path) -> None:
    """Protects whoever tidies up: all together may move; a run alone says what is missing, and goes on by itself."""
    quick = replace(LONG, steps=4, evaluate_every=0)
    configs = [replace(config, fit=quick) for config in asked[:2]]
    job = Job(configs, [tmp_path / "study" / "a" / "one", tmp_path / "study" / "two"]).start()
    job.stop()
    assert job.wait(60) == "stopped" and job.runs[0].config["job"]["bank"] == ["one", "../two"]
    moved = (tmp_path / "study").rename(tmp_path / "moved")
    there = Job.attach(moved / "two")
    assert there.run_dirs == [moved / "a" / "one", moved / "two"] and there.state == "stopped"
    shutil.copytree(moved / "two", tmp_path / "alone")
    (moved / "two").rename(moved / "best")
    for path, gone in (
        (moved / "a" / "one", "../two"),
        (moved / "best", "two"),
        (tmp_path / "alone", "a/one"),
    ):
        with pytest.raises(WorkbenchError, match=f"and {gone} is not there any more; put it back") as caught:
            Job.attach(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    shutil.copytree(moved / "best", moved / "two")
    with pytest.raises(WorkbenchError, match="had one of these names; give it that again"):
        Job.attach(moved / "best")
    assert Job.attach(moved / "two").state == "stopped"
    list(resume(moved / "best", device="cpu"))
    assert Run(moved / "best").state == "finished"

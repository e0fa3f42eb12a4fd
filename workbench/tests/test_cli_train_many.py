"""`workbench train-many`: the bank from a shell, each run as `workbench train` would have made it."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.cli import main
from workbench.errors import WorkbenchError
from workbench.tests import zoo
from workbench.training.job import Job
from workbench.training.run import Run

SHORT = "--steps 3 --batch-size 2 --evaluate-every 3 --validation-examples 2 --tokens 3"


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbone")
    zoo.make_model("llama").save_pretrained(folder)  # type: ignore[operator]
    zoo.tokenizer().save_pretrained(folder)
    return folder


def words(backbone: Path, runs: Path, more: str) -> list[str]:
    return ["--runs", str(runs), "--backbone", str(backbone), "--device", "cpu", "--task", "sentiment", "--examples", "8",
            *SHORT.split(), *more.split()]  # fmt: skip


def test_every_prior_with_every_seed_and_rate(backbone: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    """Each combination is a run of its own, named after what sets it apart, with its own settings in its config."""
    more = "--priors vocabulary isotropic:std=0.3 --seeds 2 --learning-rates 0.01 0.1"
    assert main(["train-many", *words(backbone, tmp_path / "study", more)]) == 0
    runs = {run.name: run for run in Run.list(tmp_path / "study")}
    assert len(runs) == 8 and all(run.status["state"] == "finished" for run in runs.values())
    run = runs["isotropic-std0.3-lr0.1-seed1"]
    assert run.config["fit"]["learning_rate"] == 0.1 and run.config["fit"]["seed"] == 1
    assert run.config["method"]["config"]["prior"] == {"name": "isotropic", "std": 0.3}
    assert run.config["method"]["config"]["seed"] == 1
    out = capsys.readouterr().out
    assert all(name in out for name in runs) and "validation loss" in out
    assert (
        main(["train-many", *words(backbone, tmp_path / "study", more), "--resume"]) == 0
    )  # nothing is left to do


def test_a_member_is_what_train_alone_makes_of_it(backbone: Path, tmp_path: Path) -> None:
    """The same losses as from `workbench train` with the same options."""
    assert main(["train-many", *words(backbone, tmp_path / "many", "--seeds 3")]) == 0
    alone = words(backbone, tmp_path / "alone", "--seed 2 --prompt-seed 2")
    assert main(["train", "--run", *alone[1:]]) == 0
    losses = [
        [m["loss"] for m in Run(p).metrics()]
        for p in (tmp_path / "many" / "vocabulary-seed2", tmp_path / "alone")
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("--seeds 0", "give at least 1"),
        ("--priors isotropc", "did you mean 'isotropic'"),
        ("--priors vocabulary vocabulary", "would be trained twice"),
        ("--method lora", "lora"),
    ],
)
def test_bad_input_is_one_sentence(backbone: Path, tmp_path: Path, capsys, more: str, sentence: str) -> None:  # type: ignore[no-untyped-def]
    """What cannot work is refused before any folder is made."""
    assert main(["train-many", *words(backbone, tmp_path / "study", more)]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "study").exists()
    with pytest.raises(WorkbenchError):
        Run(tmp_path / "study" / "00")


def test_all_in_a_process_of_its_own(backbone: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    """The same runs as without --detach; one order reaches all, and --resume takes up what it left."""
    more = words(backbone, tmp_path / "study", "--seeds 2 --rows-at-once 4")
    assert main(["train-many", *more, "--detach"]) == 2 and "--rows-at-once" in capsys.readouterr().err
    more = words(backbone, tmp_path / "study", "--seeds 2")
    assert main(["train-many", *more, "--detach"]) == 0
    out = capsys.readouterr().out
    first = tmp_path / "study" / "vocabulary-seed0"
    assert "2 runs in" in out and f"workbench pause {first}" in out
    assert main(["stop", str(first)]) == 0
    job = Job.attach(first)
    assert job.wait(60) == "stopped" and [run.name for run in job.runs] == [
        "vocabulary-seed0",
        "vocabulary-seed1",
    ]
    assert main(["train-many", *more, "--resume", "--detach"]) == 0
    assert job.wait(60) == "finished", job.error
    assert main(["train-many", *more, "--resume", "--detach"]) == 2
    assert "nothing to go on with" in capsys.readouterr().err

"""The command line as a process: a run that is killed and goes on, what is printed where, and the exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORKBENCH = Path(sys.executable).with_name("workbench")
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def workbench(*words: object, code: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Runs one command to its end, and expects its exit code."""
    done = subprocess.run(
        [WORKBENCH, *map(str, words)],
        input=stdin,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained Llama with a word tokenizer, saved as anybody would save one."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from workbench.tasks import world

    folder = tmp_path_factory.mktemp("backbone")
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    texts = [sample.text for sample in world.samples("reading", "train", 200, 0)]
    special = ["<unk>", "<bos>", "<eos>", "<pad>"]
    tokenizer.train_from_iterator(texts, trainers.WordLevelTrainer(vocab_size=500, special_tokens=special))
    names = {f"{name}_token": f"<{name}>" for name in ("unk", "bos", "eos", "pad")}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer.get_vocab()),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
        tie_word_embeddings=True,
        initializer_range=0.3,  # large enough for a prompt to move the outputs
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def recipe(backbone: Path) -> list[object]:
    """A training run of a few seconds."""
    task = ["--task", "reading", "--examples", 64, "--tokens", 5, "--prior", "isotropic", "std=0.5"]
    fit = ["--steps", 240, "--batch-size", 4, "--checkpoint-every", 20, "--evaluate-every", 60]
    return ["--backbone", backbone, *task, *fit, "--validation-examples", 8]


@pytest.fixture(scope="module")
def trained(recipe: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of the recipe, never interrupted."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    done = workbench("train", *recipe, "--run", run)
    assert str(run) in done.stdout
    assert "240/240" in done.stderr, "the bar ends at the last step"
    assert "step 60: loss" in done.stderr
    return run


def start(*words: object) -> subprocess.Popen[str]:
    """Starts a command that is going to be interrupted; it hears Ctrl-C even where a shell in the background does not."""

    def hear() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(
        [WORKBENCH, *map(str, words)], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, preexec_fn=hear
    )


def wait_for_steps(run: Path, process: subprocess.Popen[str], steps: int) -> None:
    """Returns as soon as so many steps are in the metrics file."""
    end = time.monotonic() + 600
    while time.monotonic() < end and process.poll() is None:
        metrics = run / "metrics.jsonl"
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= steps:
            return
        time.sleep(0.005)
    process.kill()
    pytest.fail(f"the run ended, or stood still, before step {steps}: {process.communicate()[1]}")


def steps_of(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_an_interrupted_run_goes_on_and_ends_the_same(
    how: signal.Signals, recipe: list[object], trained: Path, tmp_path: Path
) -> None:
    """Every step is in the metrics once, and the prompt has the bits of the run that was not interrupted."""
    run = tmp_path / "cut"
    process = start("train", *recipe, "--run", run)
    wait_for_steps(run, process, 50)
    process.send_signal(how)
    _, errors = process.communicate(timeout=300)
    assert len(steps_of(run)) < 240, "it was interrupted in the middle"
    assert not (run / "method").exists()
    if how is signal.SIGINT:
        assert process.returncode == 130
        assert f"workbench train --run {run} --resume" in errors
        assert "Traceback" not in errors
    workbench("train", "--run", run, "--resume")
    assert steps_of(run) == list(range(1, 241))
    for name in ("method/method.safetensors", "snapshots/step-00000120.safetensors"):
        assert (run / name).read_bytes() == (trained / name).read_bytes()


def test_a_detached_run_is_followed_paused_stopped_and_resumed(
    recipe: list[object], trained: Path, tmp_path: Path
) -> None:
    """It returns at once, takes orders from other shells, and ends with the bits of the run in the foreground."""
    run = tmp_path / "away"
    done = workbench("train", *recipe, "--run", run, "--detach", "--questions", 3)
    assert f"workbench pause {run}" in done.stdout and not (run / "method").exists()
    workbench("pause", run)  # it still reads its libraries, so it waits before the first step
    until_runs_say(run, "paused")
    workbench("stop", run)
    until_runs_say(run, "stopped")
    assert "is stopped; there is nothing to stop" in workbench("stop", run, code=2).stderr
    assert not (run / "method").exists()
    workbench("resume", run)
    until_runs_say(run, "finished")
    assert steps_of(run) == list(range(1, 241))
    name = "method/method.safetensors"
    assert (run / name).read_bytes() == (trained / name).read_bytes()
    assert json.loads((run / "answers.json").read_text())["questions"] == 3
    assert "is finished" in workbench("resume", run, code=2).stderr


def until_runs_say(run: Path, state: str) -> None:
    for _ in range(200):
        if f" {state} " in workbench("runs", run).stdout:
            return
        time.sleep(0.2)
    pytest.fail(f"never {state}: {workbench('runs', run).stdout}")


def test_resume_takes_the_same_options_again_and_no_others(recipe: list[object], trained: Path) -> None:
    """An option that would be ignored is refused."""
    workbench("train", *recipe, "--run", trained, "--resume")
    assert "steps" in workbench("train", *recipe, "--steps", 9, "--run", trained, "--resume", code=2).stderr
    workbench("train", "--run", trained, "--resume", "--steps", 9, code=2)


def test_evaluate_puts_no_prompt_and_one_by_hand_beside_the_trained(trained: Path, tmp_path: Path) -> None:
    """One table on stdout; every answer in a file where one is named."""
    answers = tmp_path / "answers.jsonl"
    done = workbench("evaluate", "--run", trained, "--n", 12, "--max-new-tokens", 8, "--answers", answers)
    lines = done.stdout.splitlines()
    assert "token_f1" in lines[0] and "perplexity" in lines[0]
    assert [line.split("  ")[0] for line in lines[1:]] == ["no prompt", "by hand", "trained"]
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    assert len(rows) == 36
    assert {"way", "question", "answer", "prediction", "score"} <= set(rows[0])
    losses = {
        line.split("  ")[0]: float(line.split()[lines[0].split().index("loss") - 5]) for line in lines[1:]
    }
    assert losses["trained"] < losses["no prompt"], "240 steps teach a prompt something"


def test_generate_answers_words_and_lines(trained: Path, backbone: Path) -> None:
    """A question on the command line, or one a line on the standard input; the same text both ways."""
    question = "anna has a dog . question : what does anna have ? answer :"
    one = workbench("generate", question, "--run", trained, "--max-new-tokens", 6).stdout
    two = workbench(
        "generate", "--run", trained, "--max-new-tokens", 6, stdin=f"{question}\n{question}\n"
    ).stdout
    assert one.strip()
    assert two == one * 2
    assert workbench("generate", question, "--backbone", backbone, "--max-new-tokens", 6).stdout != one


def test_lists(trained: Path) -> None:
    """Runs, tasks and backbones, one line each."""
    (line,) = workbench("runs", trained.parent).stdout.splitlines()[1:]
    assert str(trained) in line and "finished" in line and "240/240" in line
    tasks = workbench("tasks").stdout.splitlines()
    assert len(tasks) > 40 and any(line.startswith("reading ") for line in tasks)
    assert "reading" not in workbench("tasks", "--group", "arithmetic").stdout


def test_own_data_with_a_template(backbone: Path, tmp_path: Path) -> None:
    """A JSONL file of one's own is trained on, with a new line in its template."""
    data = tmp_path / "mine.jsonl"
    data.write_text("".join(json.dumps({"q": f"the dog {i}", "a": "anna"}) + "\n" for i in range(40)))
    words = ["--backbone", backbone, "--template", r"{q}\nanswer :", "--answer", "a", "--steps", 2]
    workbench("train", *words, "--task", data, "--run", tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["task"]["template"] == "{q}\nanswer :"


def test_what_the_user_can_put_right_is_one_sentence_and_code_2(
    backbone: Path, trained: Path, tmp_path: Path
) -> None:
    """No traceback, nothing overwritten, nothing on stdout; more of these in workbench/tests/test_cli.py."""
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    task = ["--backbone", backbone, "--task", "reading"]
    for words, said in {
        ("trian",): "did you mean 'train'",
        ("train", *task, "--prior", "isotropc", "--run", tmp_path / "x"): "did you mean 'isotropic'",
        ("train", *task, "--run", trained): "already holds a run",
    }.items():
        done = workbench(*words, code=2)
        assert said in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
        assert not done.stdout
    assert not (tmp_path / "x").exists()
    assert before == {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}

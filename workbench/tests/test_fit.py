"""Training: resume, interrupts, early stopping, bad numbers, bad folders. What a run directory promises."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError
from workbench.methods.apply import answer_logits
from workbench.methods.generate import GenerateConfig, default_config, generate
from workbench.methods.method import load_method
from workbench.methods.rows import Rows
from workbench.methods.soft_prompt import SoftPrompt
from workbench.tasks.encode import Encoded, TextConfig
from workbench.tasks.task import Task, load_task
from workbench.tests import zoo
from workbench.training.batches import Batches, EncodedExamples
from workbench.training.config import FitConfig, schedule_factor
from workbench.training.evaluate import compare, default_hand_prompt, evaluate
from workbench.training.fit import fit, resume
from workbench.training.member import Data
from workbench.training.run import Run

SHORT = FitConfig(
    steps=12,
    batch_size=4,
    learning_rate=0.05,
    evaluate_every=4,
    validation_examples=4,
    snapshot_every=5,
    checkpoint_every=3,
)


def poisoned() -> Backbone:
    """A backbone for which the sign "~" has a broken embedding, as in a damaged download."""
    backbone = Backbone(zoo.make_model("llama"), zoo.tokenizer(), "poisoned")  # type: ignore[arg-type]
    assert backbone.layouts.shared_prefix  # probed before the damage
    broken = zoo.tokenizer().convert_tokens_to_ids("~")
    with torch.no_grad():
        backbone.model.get_input_embeddings().weight[broken] = torch.nan  # type: ignore[operator, index]
    return backbone


@pytest.fixture
def late_poison(tmp_path: Path) -> Task:
    """Short questions; the damaged sign comes up after a few steps."""
    path = tmp_path / "signs.jsonl"
    rows = [{"prompt": f"item {i}{'~' if i == 17 else '?'}", "answer": "red"} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_task(path)


NO_LOOKS = FitConfig(steps=40, batch_size=4, evaluate_every=0, checkpoint_every=1, seed=7)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Sixty short questions whose answer is one of three words."""
    path = tmp_path_factory.mktemp("data") / "colours.jsonl"
    words = ["red", "blue", "green"]
    rows = [{"prompt": f"item {i % 7} of {i}?", "answer": words[i % 3]} for i in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_task(path)


def prompt(backbone: Backbone, seed: int = 0) -> SoftPrompt:
    return SoftPrompt(backbone, tokens=3, seed=seed)


def train(
    task: Task, folder: Path | None, config: FitConfig = SHORT, architecture: str = "llama"
) -> SoftPrompt:
    method = prompt(zoo.backbone(architecture))
    for _ in fit(zoo.backbone(architecture), method, task, config, folder):
        pass
    return method


def lines(folder: Path) -> list[dict]:  # type: ignore[type-arg]
    """Metrics without the clock."""
    return [{k: v for k, v in line.items() if k != "seconds"} for line in Run(folder).metrics()]


@pytest.mark.parametrize("architecture", ["llama", "rwkv"])
def test_training_learns(task: Task, architecture: str) -> None:
    """The loop lowers the loss, on an attention and on a recurrent backbone."""
    method = prompt(zoo.backbone(architecture))
    steps = list(
        fit(zoo.backbone(architecture), method, task, FitConfig(steps=25, batch_size=8, learning_rate=0.05))
    )
    assert steps[-1].loss < steps[0].loss - 0.1
    assert [s.index for s in steps] == list(range(1, 26))


@pytest.fixture(scope="module")
def whole(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run, with a copy of its folder as it was after every step."""
    home = tmp_path_factory.mktemp("whole")
    method = prompt(zoo.backbone("llama"))
    for step in fit(zoo.backbone("llama"), method, task, SHORT, home / "run"):
        shutil.copytree(home / "run", home / f"after-{step.index}")
    return home


@settings(max_examples=6)
@given(step=st.integers(1, 11), torn=st.booleans())
def test_killed_run_ends_with_the_same_bits(whole: Path, task: Task, step: int, torn: bool) -> None:
    """Contract 3: whatever a kill leaves behind, the resumed run has every step once and the same final prompt."""
    folder = whole / f"resumed-{step}-{torn}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole / f"after-{step}", folder)
    if torn:  # killed in the middle of a line and of a checkpoint
        with (folder / "metrics.jsonl").open("a") as file:
            file.write('{"step": 99, "lo')
        (folder / "checkpoints" / ".partial-1").mkdir()
        (folder / "checkpoints" / ".partial-1" / "method.safetensors").write_bytes(b"half")
    method = prompt(zoo.backbone("llama"), seed=7)  # where it starts must not matter …
    method.config = prompt(zoo.backbone("llama")).config  # … only that it was asked for alike
    if not list((folder / "checkpoints").glob("step-*")):
        method = prompt(zoo.backbone("llama"))
    for _ in fit(zoo.backbone("llama"), method, task, SHORT, folder, resume=True):
        pass
    assert lines(folder) == lines(whole / "run")
    for name in ("method/method.safetensors", "snapshots/step-00000012.safetensors"):
        assert (folder / name).read_bytes() == (whole / "run" / name).read_bytes()


def test_resume_test_sees_a_lost_optimizer(whole: Path, task: Task) -> None:
    """The test above would see a checkpoint without its optimiser."""
    folder = whole / "no-optimizer"
    shutil.copytree(whole / "after-6", folder)
    from workbench.training.checkpoint import Checkpoint, checkpoints

    kept = Checkpoint.load([*checkpoints(folder).values()][-1])
    kept.optimizer["state"] = {}
    kept.save(folder)
    for _ in fit(zoo.backbone("llama"), prompt(zoo.backbone("llama")), task, SHORT, folder, resume=True):
        pass
    assert lines(folder) != lines(whole / "run")


def test_leaving_the_loop_loses_nothing(task: Task, tmp_path: Path, whole: Path) -> None:
    """Breaking out at any step writes a checkpoint, and the run goes on to the same end."""
    for step in fit(zoo.backbone("llama"), prompt(zoo.backbone("llama")), task, SHORT, tmp_path / "run"):
        if step.index == 5:
            break
    assert Run(tmp_path / "run").status == {"state": "stopped", "step": 5, "steps": 12}
    rest = list(
        fit(zoo.backbone("llama"), prompt(zoo.backbone("llama")), task, SHORT, tmp_path / "run", resume=True)
    )
    assert rest[0].index == 6
    assert lines(tmp_path / "run") == lines(whole / "run")


def test_run_directory_holds_the_run(whole: Path) -> None:
    """Config, metrics, snapshots and the trained method can be read back without the objects that made them."""
    run = Run(whole / "run")
    assert run.status["state"] == "finished"
    assert list(run.snapshots()) == [0, 5, 10, 12]
    assert run.snapshot(0)["embeddings"].shape == (3, 32)
    assert run.config["fit"]["learning_rate"] == 0.05
    assert [m["step"] for m in run.metrics() if "validation" in m] == [4, 8, 12]
    kept = run.status["kept_step"]
    losses = {m["step"]: m["validation"]["loss"] for m in run.metrics() if "validation" in m}
    assert losses[kept] == min(losses.values())
    assert torch.equal(
        run.load_method(zoo.backbone("llama")).embeddings,
        load_method(run.path, zoo.backbone("llama")).embeddings,
    )  # type: ignore[union-attr, arg-type]
    assert [r.name for r in Run.list(whole) if r.name == "run"] == ["run"]


def test_resume_from_the_folder_alone(task: Task, tmp_path: Path) -> None:
    """`resume` rebuilds backbone, task and method from config.json."""
    model_folder = tmp_path / "backbone"
    zoo.make_model("llama").save_pretrained(model_folder)  # type: ignore[operator]
    zoo.tokenizer().save_pretrained(model_folder)
    from workbench.backbones.backbone import load_backbone

    backbone = load_backbone(model_folder, device="cpu")
    for step in fit(backbone, prompt(backbone), task, SHORT, tmp_path / "run"):
        if step.index == 4:
            break
    assert [s.index for s in resume(tmp_path / "run", device="cpu")] == list(range(5, 13))


def test_loss_that_is_not_finite_stops_with_the_step(late_poison: Task, tmp_path: Path) -> None:
    """A run that blows up names the step, and its last good checkpoint is a usable one."""
    backbone = poisoned()
    with pytest.raises(WorkbenchError, match=r"at step \d+ .* the last good checkpoint is") as caught:
        for _ in fit(backbone, prompt(backbone), late_poison, NO_LOOKS, tmp_path / "run"):
            pass
    from workbench.training.checkpoint import Checkpoint, checkpoints

    kept = Checkpoint.load([*checkpoints(tmp_path / "run").values()][-1])
    assert torch.isfinite(kept.method["embeddings"]).all()
    assert f"step {kept.step + 1} " in str(caught.value)


def test_accumulation_is_one_large_batch(task: Task) -> None:
    """Two batches of 4 accumulated give the update of their 8 rows: the mean is over answer tokens."""
    backbone = zoo.backbone("llama")
    batches = Batches(EncodedExamples(backbone, task.examples("train"), TextConfig(), 3), 4, seed=0)
    method = prompt(backbone)
    logits, targets = answer_logits(backbone, Rows.collate([*batches[0], *batches[1]]), method.injection())
    expected = torch.nn.functional.cross_entropy(logits, targets)
    config = FitConfig(steps=1, batch_size=4, accumulation=2, evaluate_every=0)
    (step,) = fit(backbone, prompt(backbone), task, config)
    assert step.loss == pytest.approx(float(expected.detach()), abs=1e-5)
    assert step.tokens == len(targets)


def test_patience_ends_a_run_that_stands_still(task: Task) -> None:
    """Early stopping counts looks without a better loss."""
    config = FitConfig(
        steps=200, batch_size=4, learning_rate=1e-12, evaluate_every=2, patience=3, validation_examples=4
    )
    steps = list(fit(zoo.backbone("llama"), prompt(zoo.backbone("llama")), task, config))
    assert len(steps) < 40


def test_order_is_a_function_of_seed_and_step(task: Task) -> None:
    """Any batch can be asked for first; an epoch holds every example once."""
    backbone = zoo.backbone("llama")

    def make(seed: int) -> Batches:
        return Batches(EncodedExamples(backbone, task.examples("train"), TextConfig(), 0), 8, seed)

    forward, backward = make(0), make(0)
    assert [forward[i] for i in range(12)] == [backward[i] for i in reversed(range(12))][::-1]
    epoch = [row.ids for i in range(forward.per_epoch) for row in forward[i]]
    assert len(set(epoch)) == len(epoch) == len(task.examples("train"))
    assert make(1)[0] != forward[0]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedules_are_those_of_transformers(schedule: str) -> None:
    """The learning rate follows transformers' scheduler of that name, one update after the other."""
    from transformers import get_scheduler

    config = FitConfig(steps=20, warmup=0.25, schedule=schedule)  # type: ignore[arg-type]
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    peer = get_scheduler(name, optimizer, num_warmup_steps=5, num_training_steps=20)
    for step in range(1, 21):
        expected = (
            peer.get_last_lr()[0] if step > 5 else step / 5
        )  # transformers' first update has a rate of zero
        assert schedule_factor(config, step) == pytest.approx(
            expected if step <= 5 else _later(peer, step), abs=1e-9
        )


def _later(peer, step: int) -> float:  # type: ignore[no-untyped-def]
    """The peer's factor when as many updates lie behind the warm-up."""
    return float(peer.lr_lambdas[0](step - 1))


def test_evaluation_and_its_neighbours(task: Task) -> None:
    """`compare` answers the same questions three ways, and each row can be read."""
    backbone = zoo.backbone("llama")
    found = compare(backbone, task, prompt(backbone), n=3)
    assert list(found) == ["zero-shot", "hand-written prompt", "soft-prompt"]
    assert [r["answer"] for r in found["zero-shot"].rows] == [r["answer"] for r in found["soft-prompt"].rows]
    assert (
        default_hand_prompt(load_task("capital-of")).count(" . ") >= 2
    )  # as the small world closes an example
    assert default_hand_prompt(task).endswith("\n\n")
    evaluation = evaluate(backbone, task, n=4)
    assert evaluation.metrics["examples"] == 4
    assert evaluation.metrics["perplexity"] == pytest.approx(
        torch.tensor(evaluation.metrics["loss"]).exp().item(), rel=1e-4
    )


def test_text_settings_go_with_the_method(task: Task, tmp_path: Path) -> None:
    """A prompt trained after BOS is saved, loaded, evaluated and generated with after BOS, without being told."""
    backbone = zoo.backbone("llama")
    after = TextConfig(prompt_position="after-bos", train_eos=False)
    train(task, tmp_path / "run", FitConfig(steps=2, batch_size=4, evaluate_every=0, text=after))
    method = load_method(tmp_path / "run", backbone)
    assert method.text == after
    told = GenerateConfig(max_new_tokens=6, text=after)
    untold = default_config(method, max_new_tokens=6)
    assert generate(backbone, ["a?"], method, untold) == generate(backbone, ["a?"], method, told)
    wrong = GenerateConfig(max_new_tokens=6)
    loss = evaluate(backbone, task, method, n=8, config=untold).metrics["loss"]
    assert loss != evaluate(backbone, task, method, n=8, config=wrong).metrics["loss"]


BAD = [
    (
        lambda t, d: fit(zoo.backbone("llama"), prompt(zoo.backbone("llama")), t, SHORT, d / "used"),
        "already holds a run",
    ),
    (
        lambda t, d: fit(
            zoo.backbone("llama"),
            prompt(zoo.backbone("llama")),
            t,
            FitConfig(steps=99),
            d / "used",
            resume=True,
        ),
        "same settings",
    ),
    (
        lambda t, d: fit(zoo.backbone("llama"), prompt(zoo.backbone("llama")), t, SHORT, d / "full"),
        "not empty",
    ),
    (
        lambda t, d: fit(
            zoo.backbone("llama"), prompt(zoo.backbone("llama")), t, SHORT, d / "no", resume=True
        ),
        "no run",
    ),
    (
        lambda t, d: fit(zoo.backbone("llama"), prompt(zoo.backbone("llama")), t, SHORT, "/proc/run"),
        "/proc/run cannot be written",
    ),
    (lambda t, d: Run(d / "nowhere"), "no run"),
    (lambda t, d: FitConfig(optimizer="adamv"), "did you mean 'adam' or 'adamw'"),  # type: ignore[arg-type]
    (lambda t, d: FitConfig(steps=0), "at least 1"),
    (lambda t, d: SoftPrompt(zoo.backbone("llama"), tokens=0), "1 or more"),
    (lambda t, d: SoftPrompt(zoo.backbone("llama"), prior={"name": "isotropc"}), "did you mean 'isotropic'"),
    (
        lambda t, d: fit(zoo.backbone("llama"), SoftPrompt(zoo.backbone("llama"), tokens=300), t, SHORT),
        "300.*256",
    ),
    (lambda t, d: train(t, None, FitConfig(trackers=("tensorbord",))), "did you mean 'tensorboard'"),
    (lambda t, d: load_method(d / "full", zoo.backbone("llama")), "holds no trained method"),
]


@pytest.mark.parametrize(("act", "sentence"), BAD, ids=[s for _, s in BAD])
def test_bad_input_is_one_sentence(task: Task, tmp_path: Path, act, sentence: str) -> None:  # type: ignore[no-untyped-def]
    """A mistake of the user gives one sentence, and nothing that was there is touched."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    train(task, tmp_path / "used", FitConfig(steps=1, batch_size=4, evaluate_every=0))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(WorkbenchError, match=sentence) as caught:
        act(task, tmp_path)
    assert "\n" not in str(caught.value)
    assert {p: p.read_bytes() for p in before} == before


def test_corrupt_checkpoint_is_refused(task: Task, tmp_path: Path) -> None:
    """A damaged checkpoint is named, left as it is, and the one before it can be used."""
    for step in fit(zoo.backbone("llama"), prompt(zoo.backbone("llama")), task, SHORT, tmp_path / "run"):
        if step.index == 7:
            break
    newest = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))[-1]
    file = newest / "method.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(WorkbenchError, match=r"is damaged .* delete that folder"):
        fit(zoo.backbone("llama"), prompt(zoo.backbone("llama")), task, SHORT, tmp_path / "run", resume=True)
    assert file.read_bytes() == bytes(data)
    shutil.rmtree(newest)
    rest = list(
        fit(zoo.backbone("llama"), prompt(zoo.backbone("llama")), task, SHORT, tmp_path / "run", resume=True)
    )
    assert rest[0].index == 7


def test_two_writers_are_refused(task: Task, tmp_path: Path) -> None:
    """A run that is being written cannot be written by a second job."""
    steps = fit(zoo.backbone("llama"), prompt(zoo.backbone("llama")), task, SHORT, tmp_path / "run")
    next(steps)
    with pytest.raises(WorkbenchError, match="being written by another job"):
        fit(zoo.backbone("llama"), prompt(zoo.backbone("llama")), task, SHORT, tmp_path / "run", resume=True)
    steps.close()  # type: ignore[attr-defined]


@pytest.mark.skipif(
    os.name != "posix" or not Path("/dev/full").exists(), reason="needs a device that is always full"
)
def test_full_disk_is_one_sentence(task: Task, tmp_path: Path) -> None:
    """A disk that fills up during a run stops it with a sentence; what was written stays."""
    steps = fit(zoo.backbone("llama"), prompt(zoo.backbone("llama")), task, SHORT, tmp_path / "run")
    next(steps)
    kept = (tmp_path / "run" / "metrics.jsonl").read_text()
    (tmp_path / "run" / "metrics.jsonl").unlink()
    (tmp_path / "run" / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(WorkbenchError, match=r"cannot be written .*no space left"):
        list(steps)
    assert kept.count("\n") == 1


def test_emphasis_weighs_what_the_question_says_once() -> None:
    """Protects training for memory: weights by hand, the loss that they make, and 1 as if there were none."""
    rows = Rows.collate([Encoded((1, 7, 8, 8, 7, 9, 8), 4, 0), Encoded((1, 5, 6, 6), 2, 0)])
    assert rows.weights(6.0).tolist() == [6.0, 1.0, 1.0, 1.0, 1.0]
    assert Rows.collate([Encoded((1, 5, 6, 5, 1), 3, 0)]).weights(4.0).tolist() == [4.0, 4.0]

    backbone, task = zoo.backbone("llama"), load_task("find-person", n=8)
    losses = {}
    for emphasis in (1.0, 5.0):
        config = FitConfig(steps=1, batch_size=4, evaluate_every=0, emphasis=emphasis)
        (step,) = fit(backbone, SoftPrompt(backbone, tokens=2), task, config)
        losses[emphasis] = step.loss
    batch = Rows.collate(Data(backbone).batches(task, FitConfig(batch_size=4), 2)[0])
    with torch.no_grad():
        logits, targets = answer_logits(backbone, batch, SoftPrompt(backbone, tokens=2).injection())
    nats, weights = torch.nn.functional.cross_entropy(logits, targets, reduction="none"), batch.weights(5.0)
    assert float(weights.max()) > 1 and losses[1.0] == pytest.approx(float(nats.mean()), rel=1e-5)
    assert losses[5.0] == pytest.approx(float((weights * nats).sum() / weights.sum()), rel=1e-5)
    with pytest.raises(WorkbenchError, match="emphasis is 0"):
        FitConfig(emphasis=0.0)

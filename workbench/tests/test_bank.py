"""The bank: K methods trained at once are what each would have been alone, and so are K methods that serve at once."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from workbench.backbones import recompute
from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError
from workbench.methods import priors
from workbench.methods.deep_prompt import DeepPrompt
from workbench.methods.generate import GenerateConfig, generate, stream
from workbench.methods.method import Method
from workbench.methods.prefix_prompt import PrefixPrompt
from workbench.methods.soft_prompt import SoftPrompt
from workbench.tasks.encode import TextConfig
from workbench.tasks.task import Task, load_task
from workbench.tests import zoo
from workbench.tests.methods_zoo import MAKERS
from workbench.tests.test_fit import poisoned
from workbench.training.bank import BankStep, fit_many
from workbench.training.config import FitConfig
from workbench.training.fit import fit
from workbench.training.run import Run

TOLERANCE = 1e-5
BASE = FitConfig(
    steps=4, batch_size=3, learning_rate=0.01, evaluate_every=2, validation_examples=4, checkpoint_every=1
)
CONFIGS = [  # what members may differ in
    BASE,
    replace(BASE, seed=1, learning_rate=0.003, clip=0.0),
    replace(BASE, seed=2, batch_size=2, clip=0.05, steps=3, schedule="constant"),
    replace(BASE, seed=3, optimizer="sgd", accumulation=2, keep="last"),
]  # fmt: skip

APART = ("lora", "synthetic-gradient", "prompt-bias", "pointer-cache")
"""Methods that run one at a time, as test_methods.py holds."""


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("sentiment", n=12)


def colours(folder: Path, poison: bool = False) -> Task:
    """Short questions, one of them, if asked for, with the sign whose embedding is broken in `poisoned`."""
    rows = [{"prompt": f"item {i}{'~' if poison and i == 9 else '?'}", "answer": ["red", "blue"][i % 2]}
            for i in range(24)]  # fmt: skip
    path = folder / f"colours-{poison}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_task(path)


def trained_alone(
    backbone: Backbone, make: Callable[[int], Method], tasks: Sequence[Task], configs: Sequence[FitConfig]
) -> tuple[list[Method], list[list[float]]]:
    methods = [make(n) for n in range(len(configs))]
    losses = [
        [step.loss for step in fit(backbone, method, task, config)]
        for method, task, config in zip(methods, tasks, configs, strict=True)
    ]
    return methods, losses


def losses_of(steps: Sequence[BankStep], count: int) -> list[list[float]]:
    return [[s.steps[n].loss for s in steps if n in s.steps] for n in range(count)]


def furthest(some: Sequence[Method], others: Sequence[Method]) -> float:
    """The largest difference of any trained number, over the size of the largest."""
    pairs = [(a, b) for m, o in zip(some, others, strict=True)
             for a, b in zip(m.parameters(), o.parameters(), strict=True)]  # fmt: skip
    size = max(float(b.detach().abs().max()) for _, b in pairs)
    return max(float((a - b).detach().abs().max()) for a, b in pairs) / size


@pytest.mark.parametrize("architecture", ["llama", "rwkv"])
@pytest.mark.parametrize("name", [name for name in MAKERS if not name.startswith(APART)])
def test_a_bank_trains_each_as_if_it_were_alone(
    task: Task, name: str, architecture: str, tmp_path: Path
) -> None:
    """Contract 4: other rates, clips, optimisers, batch sizes, lengths of training and tasks beside it change nothing.

    A bank that mixed up its members would be seen: what each learns differs by far more than the tolerance.
    """
    backbone = zoo.backbone(architecture)
    try:
        methods = [MAKERS[name](backbone, n) for n in range(4)]
    except WorkbenchError:
        pytest.skip("refused, as test_methods.py holds")
    tasks = [task, task, task, colours(tmp_path)]
    alone, expected = trained_alone(backbone, lambda n: MAKERS[name](backbone, n), tasks, CONFIGS)
    steps = list(fit_many(backbone, methods, tasks, CONFIGS))
    assert [n for s in steps for n in s.left] == [2, 0, 1, 3]
    assert {reason for s in steps for reason in s.left.values()} == {"finished"}
    for found, wanted in zip(losses_of(steps, 4), expected, strict=True):
        assert found == pytest.approx(wanted, abs=TOLERANCE * max(1.0, *wanted))
    assert furthest(methods, alone) < TOLERANCE
    assert furthest(methods, alone[1:] + alone[:1]) > 1000 * TOLERANCE


def test_a_bank_of_one_has_the_bits_of_fit(task: Task) -> None:
    """Where the arithmetic allows it, equal means equal: one member is `fit`, to the bit."""
    backbone = zoo.backbone("llama")
    alone, _ = trained_alone(backbone, lambda n: SoftPrompt(backbone, tokens=3, seed=n), [task], [BASE])
    method = SoftPrompt(backbone, tokens=3)
    for _ in fit_many(backbone, [method], task, BASE):
        pass
    assert furthest([method], alone) == 0.0


@pytest.mark.parametrize("architecture", ["llama", "rwkv"])
@pytest.mark.parametrize("make", [SoftPrompt, PrefixPrompt, DeepPrompt])
def test_training_with_gradient_checkpointing_has_the_same_bits(
    task: Task, make: type[Method], architecture: str
) -> None:
    """A setting for memory changes nothing else, for prompts in the input, in caches and in layers."""
    backbone = zoo.backbone(architecture)
    if backbone.kind == "recurrent" and make is PrefixPrompt:
        pytest.skip("refused there")
    trained = []
    for checkpointing in (False, True):
        methods = [make(backbone, tokens=3, seed=n) for n in range(2)]
        config = replace(BASE, gradient_checkpointing=checkpointing)
        with recomputed_layers() as again:
            list(fit_many(backbone, methods, task, config))
        trained.append((methods, again))
    assert furthest(trained[0][0], trained[1][0]) == 0.0
    assert trained[0][1] == [] and trained[1][1] != []  # it was really on


@contextlib.contextmanager
def recomputed_layers() -> Iterator[list[int]]:
    """A mark for each layer that is to be computed again."""
    found: list[int] = []
    before = recompute.checkpoint

    def noting(*args, **kwargs):  # type: ignore[no-untyped-def]
        found.append(1)
        return before(*args, **kwargs)

    recompute.checkpoint = noting  # type: ignore[assignment]
    try:
        yield found
    finally:
        recompute.checkpoint = before  # type: ignore[assignment]


@pytest.mark.parametrize("rows_at_once", [1, 4, 7])
def test_passes_of_any_size_give_the_same(task: Task, rows_at_once: int) -> None:
    """`rows_at_once` is for memory alone."""
    backbone = zoo.backbone("rwkv")
    whole = [SoftPrompt(backbone, tokens=3, seed=n) for n in range(4)]
    parts = [SoftPrompt(backbone, tokens=3, seed=n) for n in range(4)]
    list(fit_many(backbone, whole, task, CONFIGS))
    list(fit_many(backbone, parts, task, CONFIGS, rows_at_once=rows_at_once))
    assert furthest(parts, [SoftPrompt(backbone, tokens=3, seed=n) for n in range(4)]) > 100 * TOLERANCE
    assert furthest(parts, whole) < TOLERANCE


def test_a_member_that_diverges_leaves_and_the_others_go_on(tmp_path: Path) -> None:
    """One broken row of one member's data ends that member with its sentence, and moves no other."""
    backbone = poisoned()
    tasks = [colours(tmp_path), colours(tmp_path, poison=True), colours(tmp_path)]
    configs = [replace(BASE, steps=12, seed=n, evaluate_every=0) for n in range(3)]
    methods = [SoftPrompt(backbone, tokens=3, seed=n) for n in range(3)]
    steps = list(fit_many(backbone, methods, tasks, configs, tmp_path / "bank"))
    ((at, sentence),) = [(i, s.left[1]) for i, s in enumerate(steps) if 1 in s.left]
    assert f"loss became nan at step {at + 1} " in sentence and "lower the learning rate" in sentence
    status = Run(tmp_path / "bank" / "01").status
    assert status["state"] == "failed" and status["error"] == sentence and status["step"] == at
    assert torch.isfinite(methods[1].embeddings).all()  # type: ignore[arg-type, union-attr]
    rest = [0, 2]
    assert [Run(tmp_path / "bank" / f"0{n}").status["state"] for n in rest] == ["finished"] * 2
    alone = [SoftPrompt(backbone, tokens=3, seed=n) for n in rest]
    for n, method in zip(rest, alone, strict=True):
        list(fit(backbone, method, tasks[n], configs[n]))
    assert furthest([methods[n] for n in rest], alone) < 1e-4  # float32, twelve steps of Adam


def test_when_all_have_diverged_the_bank_says_so(tmp_path: Path) -> None:
    """Nothing trained is an error, not a quiet end."""
    backbone = poisoned()
    task = colours(tmp_path, poison=True)
    methods = [SoftPrompt(backbone, tokens=3, seed=n) for n in range(2)]
    with pytest.raises(WorkbenchError, match="loss became nan at step"):
        list(fit_many(backbone, methods, task, replace(BASE, steps=40, evaluate_every=0)))


def test_a_member_that_has_converged_leaves(task: Task) -> None:
    """Patience is each member's own."""
    backbone = zoo.backbone("llama")
    still = replace(BASE, steps=30, learning_rate=1e-12, patience=2)
    methods = [SoftPrompt(backbone, tokens=3, seed=n) for n in range(2)]
    steps = list(fit_many(backbone, methods, task, [still, replace(BASE, steps=12)]))
    left = {n: (reason, i) for i, s in enumerate(steps) for n, reason in s.left.items()}
    assert left[0][0] == "converged" and left[1][0] == "finished" and left[0][1] < left[1][1]


def test_a_bank_that_was_left_goes_on_to_the_same_bits(task: Task, tmp_path: Path) -> None:
    """Contract 3 for a bank, each member with a run directory of its own; one that was not begun yet begins."""
    backbone = zoo.backbone("llama")

    def prompts() -> list[Method]:
        return [SoftPrompt(backbone, tokens=3, seed=n) for n in range(4)]

    whole, parts, again = prompts(), prompts(), prompts()
    list(fit_many(backbone, whole, task, CONFIGS, tmp_path / "whole"))
    for step in fit_many(backbone, parts, task, CONFIGS, tmp_path / "parts"):
        if step.steps[0].index == 2:
            break
    assert [run.status["state"] for run in Run.list(tmp_path / "parts")] == ["stopped"] * 4
    rest = list(fit_many(backbone, again, task, CONFIGS, tmp_path / "parts", resume=True))
    assert {n: step.index for n, step in rest[0].steps.items()} == dict.fromkeys(range(4), 3)
    assert furthest(again, whole) == 0.0
    for n in range(4):
        a, b = Run(tmp_path / "whole" / f"0{n}"), Run(tmp_path / "parts" / f"0{n}")
        assert a.status == b.status and list(a.snapshots()) == list(b.snapshots())
        clockless = [[{**line, "seconds": 0} for line in run.metrics()] for run in (a, b)]
        assert clockless[0] == clockless[1]
        assert a.config["fit"]["seed"] == CONFIGS[n].seed
    more = [*prompts(), SoftPrompt(backbone, tokens=3, seed=9)]
    last = list(fit_many(backbone, more, task, [*CONFIGS, BASE], tmp_path / "parts", resume=True))
    assert set(last[0].left) == {0, 1, 2, 3} and set(last[0].steps) == {4}


def test_a_run_keeps_what_was_drawn_and_from_what(task: Task, tmp_path: Path) -> None:
    """The drawn prior stands beside the posterior, with what was measured when it was fitted, and the way between."""
    backbone = zoo.backbone("llama")
    kinds = [priors.FittedGaussian(), priors.Isotropic(0.3)]
    methods = [SoftPrompt(backbone, tokens=3, prior=prior) for prior in kinds]
    drawn = [method.embeddings.detach().clone() for method in methods]
    list(fit_many(backbone, methods, task, replace(BASE, snapshot_every=2, keep="last"), tmp_path))
    for n, prior in enumerate(kinds):
        run = Run(tmp_path / f"0{n}")
        (facts,) = run.config["priors"]
        assert {"name": facts["name"], **facts["settings"]} == prior.describe()
        assert "ridge_share" in facts or n == 1
        assert list(run.snapshots()) == [0, 2, 4]
        assert torch.equal(torch.tensor(run.snapshot(0)["embeddings"]), drawn[n])
        kept = run.load_method(backbone).embeddings  # type: ignore[union-attr]
        assert torch.equal(torch.tensor(run.snapshot(4)["embeddings"]), kept)  # type: ignore[arg-type]
        assert not torch.equal(kept, drawn[n])  # type: ignore[arg-type]


def soft(tokens: int = 3, seed: int = 0) -> SoftPrompt:
    return SoftPrompt(zoo.backbone("llama"), tokens=tokens, seed=seed)


BAD = [
    (lambda t, d: fit_many(zoo.backbone("llama"), [], t), "at least one method"),
    (lambda t, d: fit_many(zoo.backbone("llama"), [soft(3), soft(4)], t), "one shape"),
    (lambda t, d: fit_many(zoo.backbone("llama"), [soft(), PrefixPrompt(zoo.backbone("llama"), tokens=3)], t), "one shape"),
    (lambda t, d: fit_many(zoo.backbone("llama"), [soft(), soft()], [t, t, t]), "3 tasks are given for 2 methods"),
    (lambda t, d: fit_many(zoo.backbone("llama"), [soft(), soft()], t, [BASE]), "1 configs are given for 2 methods"),
    (lambda t, d: fit_many(zoo.backbone("llama"), [soft(), soft()], t, [BASE, replace(BASE, precision="bfloat16")]),
     "precision must be the same"),
    (lambda t, d: fit_many(zoo.backbone("llama"), [soft(), soft()], t, BASE, [d / "a", d / "a"]), "1 different run_dirs"),
    (lambda t, d: fit_many(zoo.backbone("llama"), [soft(), soft()], t, BASE, [d / "new", d / "used"]), "already holds a run"),
    (lambda t, d: fit_many(zoo.backbone("llama"), [soft(), soft()], t, BASE, resume=True), "needs the run directory"),
    (lambda t, d: fit_many(zoo.backbone("llama"), [soft(), soft()], t, replace(BASE, trackers=("tensorboard",))),
     "beside a run|not installed"),
]  # fmt: skip


@pytest.mark.parametrize(("act", "sentence"), BAD, ids=[s for _, s in BAD])
def test_bad_input_is_one_sentence(task: Task, tmp_path: Path, act, sentence: str) -> None:  # type: ignore[no-untyped-def]
    """A bank that cannot work is refused before the first step, and leaves no half-made folders."""
    list(fit(zoo.backbone("llama"), soft(), task, replace(BASE, steps=1), tmp_path / "used"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(WorkbenchError, match=sentence) as caught:
        act(task, tmp_path)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_same_method_twice_is_refused(task: Task) -> None:
    """Two members would fight over one set of numbers."""
    method = soft()
    with pytest.raises(WorkbenchError, match="stands twice"):
        fit_many(zoo.backbone("llama"), [method, method], task)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("architecture", ["llama", "rwkv", "falcon_h1"])
def test_each_row_is_written_by_its_own_method(architecture: str, temperature: float) -> None:
    """The bank serves: methods of any kinds and shapes, or none, row by row, each as alone; sampled text as well."""
    backbone = zoo.backbone(architecture)
    kinds = ["soft-prompt", "p-tuning"] + (["prefix", "deep-prompt"] if architecture == "llama" else [])
    methods: list[Method | None] = [MAKERS[kind](backbone, n) for n, kind in enumerate([*kinds, *kinds])]
    methods += [None, methods[0], SoftPrompt(backbone, tokens=7)]
    asked = [f"item {n} of {n * n}?" for n in range(len(methods))]
    config = GenerateConfig(max_new_tokens=5, temperature=temperature)
    before = [asked[0]] * len(asked)  # a row's dice are those of its number
    alone = [
        generate(backbone, [*before[:n], asked[n]], method, config)[-1] for n, method in enumerate(methods)
    ]
    assert generate(backbone, asked, methods=methods, config=config) == alone
    plain = generate(backbone, asked, config=config)
    assert sum(a != b for a, b in zip(plain, alone, strict=True)) > len(kinds)


def test_each_row_becomes_tokens_as_its_method_was_trained() -> None:
    """Without a config, a row is read with the text settings of its own method."""
    backbone = zoo.backbone("llama")
    methods = [soft(seed=n) for n in range(2)]
    methods[1].text = TextConfig(prompt_position="after-bos")
    alone = [generate(backbone, ["item?"], method)[0] for method in methods]
    assert generate(backbone, ["item?", "item?"], methods=methods) == alone
    assert generate(backbone, ["item?"], methods[1], GenerateConfig())[0] != alone[1]


def test_methods_and_prompts_must_match() -> None:
    """One method for each row, and not two ways of saying it."""
    backbone = zoo.backbone("llama")
    with pytest.raises(WorkbenchError, match="1 methods are given for 2 prompts"):
        generate(backbone, ["a", "b"], methods=[soft()])
    with pytest.raises(WorkbenchError, match="not both"):
        generate(backbone, ["a"], soft(), methods=[soft()])
    assert "".join(stream(backbone, "a", soft())) == generate(backbone, ["a"], methods=[soft()])[0]

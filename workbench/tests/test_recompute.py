"""Recomputed layers: the same gradients in less memory, for every method on every backbone, and only where asked."""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from workbench.backbones import recompute
from workbench.backbones.backbone import Backbone
from workbench.backbones.recompute import recomputing
from workbench.bench.memory import peak_memory
from workbench.methods.apply import Decoder, answer_logits
from workbench.methods.deep_prompt import DeepPrompt
from workbench.methods.initial_state import InitialState
from workbench.methods.method import Method
from workbench.methods.prefix_prompt import PrefixPrompt
from workbench.methods.rows import Rows
from workbench.methods.soft_prompt import SoftPrompt
from workbench.tasks.encode import Encoded
from workbench.tests import zoo
from workbench.tests.methods_zoo import MAKERS
from workbench.tests.test_methods import CHOSEN, ROWS, made

# with WORKBENCH_EVERY_ARCHITECTURE all of them, as in test_methods.py
every_method = pytest.mark.parametrize("name", MAKERS)
every_backbone = pytest.mark.parametrize("architecture", CHOSEN)


def gradients(
    backbone: Backbone, method: Method, rows: list[Encoded], again: bool, share: bool = True
) -> list[Tensor]:
    """The loss, then the gradient of every trained tensor; the backward pass is outside of the block."""
    with recomputing(again):
        logits, targets = answer_logits(backbone, Rows.collate(rows), method.injection(), share_prefix=share)
        loss = torch.nn.functional.cross_entropy(logits, targets)
    return [loss.detach(), *torch.autograd.grad(loss, list(method.parameters()))]


def same(found: list[Tensor], expected: list[Tensor]) -> bool:
    """To the bit."""
    return all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The layers that were run within `recomputing`, in order, first and second runs alike."""
    seen: list[int] = []
    checkpoint = recompute.checkpoint

    def counted(layer: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            seen.append(1)
            return layer(*args, **kwargs)

        return checkpoint(run, *args, **kwargs)

    monkeypatch.setattr(recompute, "checkpoint", counted)
    return seen


@pytest.mark.parametrize("share", [True, False])
@every_backbone
@every_method
def test_gradients_are_the_same_bits(architecture: str, name: str, share: bool, runs: list[int]) -> None:
    """Protects training: loss and gradients of every trained tensor, with the prompt in a cache and in every row."""
    backbone, method = zoo.backbone(architecture), made(architecture, name)
    expected = gradients(backbone, method, ROWS, False, share)
    assert not runs
    found = gradients(backbone, method, ROWS, True, share)
    assert same(found, expected)
    again = 0 if method.injection().logit_changes else backbone.num_layers - 1
    assert len(runs) >= backbone.num_layers + again, (
        "every layer ran twice (the first may have nothing to train; changes of the logits stand after the last)"
    )


@pytest.mark.parametrize("architecture", ["llama", "mamba2", "falcon_h1"])
def test_twice_through_one_graph(architecture: str) -> None:
    """Protects a second backward pass through one graph: it starts from the cache that the first started from."""
    backbone = zoo.backbone(architecture)
    method = SoftPrompt(backbone, tokens=4)
    parameters = list(method.parameters())
    with recomputing():
        logits, _ = answer_logits(backbone, Rows.collate(ROWS), method.injection())
    first, second = (
        torch.autograd.grad(logits[:, :9].sum(), parameters, retain_graph=True) for _ in range(2)
    )
    plain, _ = answer_logits(backbone, Rows.collate(ROWS), method.injection())
    assert same(list(first), list(torch.autograd.grad(plain[:, :9].sum(), parameters)))
    assert same(list(second), list(first))


@pytest.mark.parametrize(
    ("architecture", "name"), [("llama", "prefix"), ("llama", "soft-prompt"), ("mamba2", "soft-prompt")]
)
def test_a_cache_that_was_written_is_noticed(
    architecture: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shows that the tests above can fail: layers run again on the cache as the first run left it are wrong."""
    backbone, method = zoo.backbone(architecture), made(architecture, name)
    expected = gradients(backbone, method, ROWS, False)
    monkeypatch.setattr(recompute, "_before", lambda index, args, kwargs: (args, kwargs))
    try:
        found = gradients(backbone, method, ROWS, True)
    except RuntimeError:  # torch saw tensors of other shapes
        return
    assert not same(found, expected)


def test_states_written_in_place_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects recurrent caches: a copy of the entry alone, which shares its states, would give a wrong gradient."""
    backbone, method = zoo.backbone("mamba2"), made("mamba2", "soft-prompt")
    expected = gradients(backbone, method, ROWS, False)
    monkeypatch.setattr(recompute, "Tensor", ())  # nothing is cloned
    try:
        found = gradients(backbone, method, ROWS, True)
    except RuntimeError:  # torch saw that a tensor was written into
        return
    assert not same(found, expected)


def test_only_where_asked(runs: list[int]) -> None:
    """Protects jobs, evaluation and generation: not in another thread, not without gradients, not after the block."""
    backbone = zoo.backbone("llama")
    method = SoftPrompt(backbone, tokens=4)
    rows = Rows.collate(ROWS)
    plain = answer_logits(backbone, rows, method.injection())[0]
    inside, outside, found = threading.Event(), threading.Event(), []

    def other() -> None:
        inside.wait(60)
        found.append(answer_logits(backbone, rows, method.injection())[0])
        outside.set()

    thread = threading.Thread(target=other)
    thread.start()
    with recomputing():
        inside.set()
        outside.wait(60)
        with torch.no_grad():
            assert torch.equal(answer_logits(backbone, rows, method.injection())[0], plain)
            asked = [Encoded(row.ids, len(row.ids), 1) for row in ROWS]
            Decoder(backbone, Rows.collate(asked), method.injection())
        with recomputing(False):
            answer_logits(backbone, rows, method.injection())
        assert not runs
        logits = answer_logits(backbone, rows, method.injection())[0]
        assert len(runs) == 2 * backbone.num_layers, "the prompt alone, then the rows behind it"
    thread.join()
    answer_logits(backbone, rows, method.injection())
    assert len(runs) == 2 * backbone.num_layers
    assert torch.equal(found[0], plain) and torch.equal(logits, plain)


def test_the_backward_pass_may_run_in_another_thread() -> None:
    """Protects GPUs, where torch runs it in threads of its own, which have no context variables."""
    backbone = zoo.backbone("llama")
    method = DeepPrompt(backbone, tokens=3, layers=("input", 1, -1))
    expected = gradients(backbone, method, ROWS, False)
    with recomputing():
        logits, targets = answer_logits(backbone, Rows.collate(ROWS), method.injection())
        loss = torch.nn.functional.cross_entropy(logits, targets)
    thread = threading.Thread(target=loss.backward)
    thread.start()
    thread.join()
    found = [p.grad for p in method.parameters() if p.grad is not None]
    assert same(found, expected[1:])


def test_a_copied_model_recomputes_its_own_layers() -> None:
    """Protects views (LoRA): a copy's layers run the copy's weights, and installing twice changes nothing."""
    backbone = zoo.backbone("llama")
    method = SoftPrompt(backbone, tokens=4)
    expected = gradients(backbone, method, ROWS, False)
    copied = Backbone(copy.deepcopy(backbone.model), backbone.tokenizer, "small-copy")
    for layer in copied.layers:
        assert layer.forward.func is recompute.run and layer.forward.args[0].__self__ is layer
    assert same(gradients(copied, method, ROWS, True), expected)
    with torch.no_grad():
        copied.layers[1].mlp.up_proj.weight.mul_(2)
    changed = gradients(copied, method, ROWS, True)
    assert not same(changed, expected) and same(changed, gradients(copied, method, ROWS, False))
    assert same(gradients(backbone, method, ROWS, True), expected)


def test_a_model_that_keeps_state_in_its_modules_is_locked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects jobs: RecurrentGemma's layers write into their modules, so no second run meets another thread's."""
    backbone = zoo.backbone("recurrent_gemma")
    method = SoftPrompt(backbone, tokens=4)
    expected = gradients(backbone, method, ROWS, False)
    lock, held = backbone.runner.lock, []
    for layer in backbone.layers:
        forward = layer.forward

        def watched(*args: Any, forward: Callable[..., Any] = forward.args[0], **kwargs: Any) -> Any:
            held.append(lock.locked())
            return forward(*args, **kwargs)

        monkeypatch.setattr(layer, "forward", functools.partial(recompute.run, watched, forward.args[1]))
    found = gradients(backbone, method, ROWS, True)
    assert held == [True] * 2 * backbone.num_layers and not lock.locked()
    assert same(found, expected)


SIZES: dict[str, dict[str, Any]] = {
    "llama": {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256},
    "rwkv": {"attention_hidden_size": 64, "context_length": 256, "rescale_every": 0},
}


@functools.cache
def deep(architecture: str) -> Backbone:
    """Twelve layers of width 64."""
    config = AutoConfig.for_model(architecture, vocab_size=264, hidden_size=64, num_hidden_layers=12,
                                  intermediate_size=128, **SIZES[architecture])  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    return Backbone(model, zoo.tokenizer(), f"deep-{architecture}")


DEEP = ("input", 1, 6, -1)


@pytest.mark.parametrize(
    ("architecture", "share", "make"),
    [
        ("llama", True, lambda b: SoftPrompt(b, tokens=10)),
        ("llama", False, lambda b: SoftPrompt(b, tokens=10)),
        ("llama", True, lambda b: DeepPrompt(b, tokens=10, layers=DEEP)),
        ("llama", True, lambda b: DeepPrompt(b, tokens=10, layers=DEEP, form="cut")),
        ("llama", True, lambda b: PrefixPrompt(b, tokens=10)),
        ("rwkv", True, lambda b: SoftPrompt(b, tokens=10)),
        ("rwkv", True, lambda b: InitialState(b, tokens=4)),
    ],
)
def test_peak_memory_falls(architecture: str, share: bool, make: Callable[[Backbone], Method]) -> None:
    """What it is for: a step of 12 layers and four rows of a hundred tokens (0.18 to 0.22 of the plain step's peak)."""
    backbone = deep(architecture)
    method = make(backbone)
    rows = [
        Encoded((1, *(3 + (7 * i + j) % 250 for j in range(100 - 3 * i))), 80 - 3 * i, 1) for i in range(4)
    ]
    plain, again = (_peak(backbone, method, rows, on, share) for on in (False, True))
    assert again < 0.3 * plain


def test_a_cache_that_nobody_asked_for_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects long prompts in a cache: the keys and values of all rows are let go, layer by layer."""
    backbone = deep("llama")
    method = PrefixPrompt(backbone, tokens=200)
    rows = [Encoded((1, *range(3 + i, 13 + i)), 8, 1) for i in range(8)]

    def forward() -> None:
        with recomputing():
            answer_logits(backbone, Rows.collate(rows), method.injection())

    forward()
    lean = peak_memory(forward)
    model_run = recompute.model_run
    monkeypatch.setattr(recompute, "model_run", lambda lock, keeps_cache: model_run(lock, True))
    assert lean < 0.5 * peak_memory(forward)


def _peak(backbone: Backbone, method: Method, rows: list[Encoded], again: bool, share: bool = True) -> int:
    gradients(backbone, method, rows, again, share)  # the first call makes what is kept
    return peak_memory(lambda: gradients(backbone, method, rows, again, share))

"""The contracts for every method on every backbone: it equals a plain run of each row alone, or is refused with a reason.

`test_contracts.py` holds them for the soft prompt in full; here each further method goes through the same doors.
"""

from __future__ import annotations

import copy
import os
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from workbench.analysis.forgetting import forgetting
from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError
from workbench.methods import priors
from workbench.methods.apply import Decoder, answer_logits
from workbench.methods.deep_prompt import DeepPrompt
from workbench.methods.generate import GenerateConfig, generate, stream
from workbench.methods.initial_state import InitialState
from workbench.methods.injection import NOTHING, Injection, join
from workbench.methods.lora import LoRA
from workbench.methods.method import Method, load_method
from workbench.methods.p_tuning import PTuning
from workbench.methods.prefix_prompt import PrefixPrompt
from workbench.methods.rows import Rows
from workbench.methods.soft_prompt import SoftPrompt
from workbench.methods.synthetic_gradient import SyntheticGradient
from workbench.tasks.encode import Encoded
from workbench.tasks.task import load_task
from workbench.tests import zoo
from workbench.tests.methods_zoo import MAKERS, alone
from workbench.tests.test_contracts import TOLERANCE, distance
from workbench.training.config import FitConfig
from workbench.training.fit import fit

CHOSEN = zoo.ARCHITECTURES if os.environ.get("WORKBENCH_EVERY_ARCHITECTURE") else ("llama", "rwkv")
SERVED = {
    "attention": set(MAKERS) - {"initial-state"},
    "recurrent": {"soft-prompt", "deep-prompt", "deep-prompt, no input", "p-tuning", "p-tuning, LSTM", "initial-state", "lora", "synthetic-gradient", "synthetic-gradient, rank 1", "prompt-bias", "pointer-cache"},
    "hybrid": {"soft-prompt", "p-tuning", "p-tuning, LSTM", "lora", "prompt-bias", "pointer-cache"},
}  # fmt: skip
EVERYWHERE = {"soft-prompt", "p-tuning", "p-tuning, LSTM", "lora", "prompt-bias", "pointer-cache"}
NO_WRITERS = ("gemma3_text",)  # a norm stands between every matrix and the residual stream
WINDOWED = ("gemma3_text", "mistral")
ROWS = [
    Encoded((1, 40, 50, 60, 70), 3, 1),
    Encoded((1, 40, 51, 61, 71, 81, 91, 33), 4, 1),
    Encoded((1, 44, 52), 2, 1),
]

every_method = pytest.mark.parametrize("name", MAKERS)
every_backbone = pytest.mark.parametrize("architecture", CHOSEN)


def serves(architecture: str, name: str) -> bool:
    """Whether this method works on this backbone; elsewhere it must be refused."""
    kind = zoo.backbone(architecture).kind
    if name in EVERYWHERE:
        return True
    if name.startswith("synthetic-gradient"):
        return architecture not in NO_WRITERS
    if kind == "recurrent" and architecture != "rwkv":
        return False
    return name in SERVED[kind] and not (architecture in WINDOWED and name.startswith("deep"))


def made(architecture: str, name: str, seed: int = 0) -> Method:
    """The method; the test ends here, passed, where it is rightly refused."""
    if serves(architecture, name):
        return MAKERS[name](zoo.backbone(architecture), seed)
    with pytest.raises(WorkbenchError, match="small-") as refused:
        MAKERS[name](zoo.backbone(architecture), seed)
    assert "\n" not in str(refused.value)
    pytest.skip("refused, as it should be")


@every_backbone
@every_method
def test_a_row_is_what_it_is_alone(architecture: str, name: str) -> None:
    """Contract 1: shared prefix, whole rows, left-padded decoding give each row what a plain run of it alone gives.

    The plain run would see the method dropped, by far more than the tolerance.
    """
    backbone, method = zoo.backbone(architecture), made(architecture, name)
    with torch.no_grad():
        injection = method.injection()
        expected = torch.cat([alone(backbone, row, injection) for row in ROWS])
        plain = torch.cat([alone(backbone, row, NOTHING) for row in ROWS])
        assert distance(plain, expected) > 1000 * TOLERANCE
        for share in (True, False):
            logits, _ = answer_logits(backbone, Rows.collate(ROWS), injection, share_prefix=share)
            assert distance(logits, expected) < TOLERANCE
        asked = [Encoded(row.ids, len(row.ids), 1) for row in ROWS]
        decoder = Decoder(backbone, Rows.collate(asked), injection)
        first = decoder.next_logits()
        decoder.feed(torch.full((3,), 7))
        for found, later, row in zip(first, decoder.next_logits(), decoder.active, strict=True):
            fed = Encoded((*ROWS[row].ids, 7, 0), len(ROWS[row].ids), 1)
            both = alone(backbone, fed, injection)
            assert distance(torch.stack([found, later]), both) < TOLERANCE


@every_backbone
@every_method
def test_gradients_are_those_of_rows_alone(architecture: str, name: str) -> None:
    """Contract 1, for training: every trained tensor has the gradient of plain runs, and none is left without."""
    backbone, method = zoo.backbone(architecture), made(architecture, name)
    targets = torch.tensor([token for row in ROWS for token in row.ids[row.answer_start :]])

    def gradients(logits: torch.Tensor) -> list[torch.Tensor]:
        loss = torch.nn.functional.cross_entropy(logits, targets)
        return list(torch.autograd.grad(loss, list(method.parameters())))

    expected = gradients(torch.cat([alone(backbone, row, method.injection()) for row in ROWS]))
    found = gradients(answer_logits(backbone, Rows.collate(ROWS), method.injection())[0])
    size = sum(float(g.norm() ** 2) for g in expected) ** 0.5
    for (tensor, _), ours, theirs in zip(method.named_parameters(), found, expected, strict=True):
        assert float((ours - theirs).norm()) < 1e-4 * size, tensor
    assert all(bool(torch.isfinite(g).all()) for g in found) and size > 0
    assert all(p.grad is None for p in backbone.model.parameters())


@every_backbone
@every_method
def test_two_prompts_in_one_batch(architecture: str, name: str) -> None:
    """Contract 4, its ground: rows that name different prompts get each what their own gives.

    Two changes of weights or logits cannot share a run, and are refused.
    """
    backbone = zoo.backbone(architecture)
    injections = [made(architecture, name, seed).injection() for seed in (0, 1)]
    members = torch.tensor([1, 0, 1])
    if injections[0].apart:
        with pytest.raises(WorkbenchError, match="change weights or logits run one at a time"):
            join(injections, members)
        return
    with torch.no_grad():
        both = join(injections, members)
        expected = torch.cat([alone(backbone, r, injections[m]) for r, m in zip(ROWS, members, strict=True)])
        swapped = torch.cat(
            [alone(backbone, r, injections[1 - m]) for r, m in zip(ROWS, members, strict=True)]
        )
        assert distance(swapped, expected) > 1000 * TOLERANCE
        for share in (True, False):
            logits, _ = answer_logits(backbone, Rows.collate(ROWS), both, share_prefix=share)
            assert distance(logits, expected) < TOLERANCE
        decoder = Decoder(backbone, Rows.collate([Encoded(r.ids, len(r.ids), 1) for r in ROWS]), both)
        for logits, row in zip(decoder.next_logits(), decoder.active, strict=True):
            asked = Encoded((*ROWS[row].ids, 0), len(ROWS[row].ids), 1)
            assert distance(logits[None], alone(backbone, asked, injections[int(members[row])])) < TOLERANCE


@every_backbone
@every_method
def test_saved_and_loaded(architecture: str, name: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Contract 5: safetensors and JSON alone bring every tensor back, bit for bit."""
    backbone, method = zoo.backbone(architecture), made(architecture, name)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.5)
    folder = method.save(tmp_path / "method")
    assert sorted(p.suffix for p in folder.iterdir()) == [".json", ".safetensors"]
    again = load_method(folder, backbone)
    assert type(again) is type(method) and asdict(again.config) == asdict(method.config)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), method.parameters(), strict=True))
    assert again.prompt_length == method.prompt_length and again.snapshot().keys() == method.snapshot().keys()


@pytest.mark.parametrize("architecture", ["llama", "rwkv"])
@every_method
def test_a_resumed_run_is_bit_equal(architecture: str, name: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Contract 3: a run left in the middle and taken up again ends with the bits of one that was not."""
    backbone = zoo.backbone(architecture)
    task = load_task("sentiment", n=12)
    config = FitConfig(steps=4, batch_size=2, evaluate_every=2, validation_examples=2, checkpoint_every=1)
    whole, parts = made(architecture, name), made(architecture, name)
    losses = [step.loss for step in fit(backbone, whole, task, config, tmp_path / "whole")]
    for step in fit(backbone, parts, task, config, tmp_path / "parts"):
        if step.index == 2:
            break
    again = made(architecture, name)
    rest = [step.loss for step in fit(backbone, again, task, config, tmp_path / "parts", resume=True)]
    assert rest == losses[2:] and losses[-1] != losses[0]
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), whole.parameters(), strict=True))
    assert not torch.equal(next(iter(whole.parameters())), next(iter(made(architecture, name).parameters())))


@pytest.mark.parametrize("make", [SoftPrompt, DeepPrompt])
def test_the_prior_pulls_where_it_is_asked_to(make: type[Method]) -> None:
    """Protects the MAP estimate: λ adds λ e / σ² to an isotropic prior's gradient, so vectors stay nearer to its mean."""
    backbone = zoo.backbone("llama")
    task = load_task("sentiment", n=12)

    def trained(pull: float) -> Method:
        method = make(backbone, tokens=3, prior=priors.Isotropic(0.5))
        config = FitConfig(steps=3, batch_size=2, evaluate_every=0, optimizer="sgd", learning_rate=0.01, warmup=0,
                           clip=0, schedule="constant", pull=pull)  # fmt: skip
        for _ in fit(backbone, method, task, config):
            pass
        return method

    method = make(backbone, tokens=3, prior=priors.Isotropic(0.5))
    start = {layer: v.detach().clone() for layer, v in method.drawn().items()}
    gradients = torch.autograd.grad(method.log_prior(backbone), list(method.drawn().values()))
    for gradient, v in zip(gradients, start.values(), strict=True):
        torch.testing.assert_close(gradient, -v / 0.25)
    free, pulled = trained(0.0), trained(2.0)
    assert sum(float(v.detach().norm()) for v in pulled.drawn().values()) < 0.7 * sum(
        float(v.detach().norm()) for v in free.drawn().values()
    )
    with pytest.raises(WorkbenchError, match="no density"):
        fit(backbone, SoftPrompt(backbone, tokens=3), task, FitConfig(steps=1, pull=1.0))
    with pytest.raises(WorkbenchError, match="leave pull at 0"):
        fit(backbone, PrefixPrompt(backbone, tokens=3), task, FitConfig(steps=1, pull=1.0))


def test_forms_of_a_deep_prompt_differ() -> None:
    """Protects the comparison that the paper makes: the two forms are two things, except at the last layer."""
    backbone = zoo.backbone("llama")
    with torch.no_grad():
        for layers, same in (((0, 1), False), ((-1,), True)):
            found = [alone(backbone, ROWS[1], DeepPrompt(backbone, tokens=3, layers=layers, form=form).injection())
                     for form in ("longer", "cut")]  # fmt: skip
            assert (distance(*found) < TOLERANCE) == same


def test_a_prefix_starts_as_that_of_a_real_prompt() -> None:
    """Protects the prior of a prefix: before training it does what the soft prompt of the same draw does."""
    backbone = zoo.backbone("llama")
    prefix = PrefixPrompt(backbone, tokens=4, seed=3).injection()
    vectors = priors.Vocabulary().fit(backbone).sample(4, torch.Generator().manual_seed(3))
    soft = Injection(vectors[None])
    row = Encoded(ROWS[1].ids, ROWS[1].answer_start, 0)
    with torch.no_grad():
        assert distance(alone(backbone, row, prefix), alone(backbone, row, soft)) < TOLERANCE


def test_a_state_starts_as_that_of_a_read_prompt() -> None:
    """Protects the mean-and-weight form: before training it is the state after the vectors of its draw."""
    backbone = zoo.backbone("rwkv")
    state = InitialState(backbone, tokens=4, seed=3).injection()
    vectors = priors.Vocabulary().fit(backbone).sample(4, torch.Generator().manual_seed(3))
    row = Encoded(ROWS[1].ids, ROWS[1].answer_start, 0)
    with torch.no_grad():
        assert (
            distance(alone(backbone, row, state), alone(backbone, row, Injection(vectors[None]))) < TOLERANCE
        )


def test_bad_settings_name_what_is_wrong() -> None:
    """Protects users: layers that are not there, unknown forms, and empty prompts get one sentence."""
    backbone = zoo.backbone("llama")
    with pytest.raises(WorkbenchError, match="layers 0 to 2"):
        DeepPrompt(backbone, layers=(5,))
    with pytest.raises(WorkbenchError, match="each once"):
        DeepPrompt(backbone, layers=())
    with pytest.raises(WorkbenchError, match="form"):
        DeepPrompt(backbone, form="shorter")
    with pytest.raises(WorkbenchError, match="encoder"):
        PTuning(backbone, encoder="gru")
    with pytest.raises(WorkbenchError, match="at least 1"):
        PrefixPrompt(backbone, tokens=0)


def test_what_a_model_cannot_run_is_refused_when_the_method_is_made() -> None:
    """A model that builds its positions for as many columns as it sees (ALiBi) fails behind vectors of one layer alone:
    one sentence now, rather than a traceback at the first step."""
    config = AutoConfig.for_model("bloom", hidden_size=32, n_layer=3, n_head=4, vocab_size=264)
    backbone = Backbone(AutoModelForCausalLM.from_config(config).eval(), zoo.tokenizer(), "small-bloom")
    with pytest.raises(
        WorkbenchError, match=r"small-bloom \(BloomForCausalLM\) cannot be given this injection"
    ):
        DeepPrompt(backbone, tokens=3, layers=(0, 1))
    PrefixPrompt(backbone, tokens=3)


@pytest.mark.parametrize("name", ["lora", "synthetic-gradient"])
def test_a_method_with_a_view_is_run_on_its_own_backbone_alone(name: str, tmp_path: Path) -> None:
    """Protects what is written down: a method made for one backbone and given another would run its own in silence."""
    backbone, rows = zoo.backbone("llama"), Rows.collate(ROWS)
    method = MAKERS[name](zoo.backbone("rwkv"), 0)
    few, task = GenerateConfig(max_new_tokens=2), load_task("copy", n=8)
    for run in (
        lambda: answer_logits(backbone, rows, method.injection()),
        lambda: Decoder(backbone, rows, method.injection()),
        lambda: generate(backbone, ["a b c"], method, few),
        lambda: list(stream(backbone, "a b c", method, few)),
        lambda: forgetting(backbone, "a b . c d .", method=method, config=few),
        lambda: next(
            fit(backbone, method, task, FitConfig(steps=1, evaluate_every=0), run_dir=tmp_path / "run")
        ),
    ):
        with pytest.raises(WorkbenchError) as refused:
            run()
        assert "was made for small-rwkv, not for small-llama; make or load it" in str(refused.value)
    assert not (tmp_path / "run").exists(), "nothing is written down of it"
    other = Backbone(zoo.make_model("llama", seed=1), zoo.tokenizer(), "small-llama")  # type: ignore[arg-type]
    with pytest.raises(WorkbenchError, match="not for small-llama of other weights, type or device"):
        generate(other, ["a b c"], MAKERS[name](backbone, 0), few)


@pytest.mark.parametrize("name", ["lora", "synthetic-gradient"])
def test_a_method_with_a_view_is_run_on_all_that_is_its_backbone(name: str) -> None:
    """Protects what is legitimate: the backbone, its views and copies, itself loaded again, and copies of the method."""
    backbone = zoo.backbone("llama")
    loaded = Backbone(zoo.make_model("llama"), zoo.tokenizer(), "small-llama")  # type: ignore[arg-type]
    method = MAKERS[name](backbone, 0)
    with torch.no_grad():
        expected = answer_logits(backbone, Rows.collate(ROWS), method.injection())[0]
        for given in (backbone.view(), backbone.view().view(), copy.deepcopy(backbone), loaded, method.view):
            for one in (method, copy.deepcopy(method), MAKERS[name](backbone.view(), 0)):
                if given is method.view and one is not method:
                    continue
                found = answer_logits(given, Rows.collate(ROWS), one.injection())[0]
                assert distance(found, expected) < TOLERANCE
    asked = {"method": method, "continuation": " a b", "measures": ["influence", "attention_mass"]}
    seen, again = (forgetting(b, "a b . c d .", **asked) for b in (backbone, loaded))  # type: ignore[arg-type]
    assert (
        seen.text == again.text
        and seen.values["attention_mass"].shape == again.values["attention_mass"].shape
    )


def test_a_method_stands_on_what_was_merged_and_not_on_what_it_was_merged_into() -> None:
    """Protects stages: the merged backbone is one of its own, with weights that the plain one does not have."""
    backbone = zoo.backbone("llama")
    lora = MAKERS["lora"](backbone, 0)
    assert isinstance(lora, LoRA)
    merged = lora.merged()
    method = SyntheticGradient(merged, source="error")
    few = GenerateConfig(max_new_tokens=2)
    assert generate(merged, ["a b c"], method, few) == generate(merged.view(), ["a b c"], method, few)
    with pytest.raises(WorkbenchError, match="made for small-llama with a LoRA merged, not for small-llama;"):
        generate(backbone, ["a b c"], method, few)

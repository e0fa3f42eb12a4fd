"""Views of a backbone, which share every tensor and never write back, and LoRA, which lives in one."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from pathlib import Path

import pytest
import torch
from accelerate import dispatch_model
from torch import Tensor

from workbench.backbones.backbone import Backbone, load_backbone
from workbench.errors import WorkbenchError
from workbench.methods.apply import answer_logits
from workbench.methods.generate import GenerateConfig, generate
from workbench.methods.lora import LoRA, LoRAConfig, linear_layers
from workbench.methods.method import load_method
from workbench.methods.rows import Rows
from workbench.methods.soft_prompt import SoftPrompt
from workbench.methods.synthetic_gradient import SyntheticGradient
from workbench.tasks.encode import Encoded
from workbench.tasks.task import load_task
from workbench.tests import zoo
from workbench.tests.methods_zoo import changed
from workbench.tests.test_contracts import TOLERANCE, distance, fingerprint
from workbench.training.config import FitConfig
from workbench.training.fit import fit, resume

CHOSEN = zoo.ARCHITECTURES if os.environ.get("WORKBENCH_EVERY_ARCHITECTURE") else zoo.EVERY_COMMIT
ROWS = [Encoded((1, 15, 16, 17, 18), 2, 0), Encoded((1, 25, 26), 2, 0)]

every_backbone = pytest.mark.parametrize("architecture", CHOSEN)


def logits(backbone: Backbone) -> Tensor:
    """(B·T, V) of two rows; no method in sight."""
    with torch.no_grad():
        return answer_logits(backbone, Rows.collate(ROWS))[0]


def bytes_held() -> int:
    """Bytes in all tensors that are alive, shared ones counted once."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


@every_backbone
def test_a_view_is_the_same_model_over_the_same_tensors(architecture: str) -> None:
    """Protects memory and sense: bit-equal logits, no tensor of its own, nothing probed again, gone when let go."""
    backbone = zoo.backbone(architecture)
    expected, before = logits(backbone), bytes_held()
    view = backbone.view()
    assert bytes_held() == before
    assert torch.equal(logits(view), expected)
    pairs = zip(view.model.state_dict().values(), backbone.model.state_dict().values(), strict=True)
    assert all(a.data_ptr() == b.data_ptr() for a, b in pairs)
    assert not set(view.model.modules()) & set(backbone.model.modules())
    assert view.layouts is backbone.layouts and view.runner is not backbone.runner
    assert set(view.layers) <= set(view.model.modules()) and len(view.layers) == backbone.num_layers
    model = weakref.ref(view.model)
    del view
    gc.collect()
    assert model() is None


@every_backbone
def test_what_is_put_into_a_view_stays_there(architecture: str) -> None:
    """Protects contract 2: another module, tensor or order of layers in a view leaves the backbone's bits alone."""
    backbone = zoo.backbone(architecture)
    expected, weights = logits(backbone), fingerprint(backbone)
    view = backbone.view()
    name = next(iter(linear_layers(backbone).values()))
    layer = view.model.get_submodule(name)
    layer.weight = torch.nn.Parameter(-layer.weight.detach())
    assert distance(logits(view), expected) > 1000 * TOLERANCE
    other = backbone.view()
    other.model.set_submodule(name, torch.nn.Sequential(other.model.get_submodule(name), torch.nn.Tanh()))
    assert distance(logits(other), expected) > 1000 * TOLERANCE
    assert torch.equal(logits(backbone), expected) and fingerprint(backbone) == weights


def test_a_view_of_a_model_that_accelerate_has_dispatched(tmp_path: Path) -> None:
    """Protects `device_map`: its hooks are the view's own on one device, and weights on a disk are refused in a sentence."""
    hooked = Backbone(
        dispatch_model(zoo.make_model("llama"), {"": "cpu"}, force_hooks=True), zoo.tokenizer(), "hooked"
    )
    assert torch.equal(logits(hooked.view()), logits(zoo.backbone("llama")))
    method = changed(LoRA(hooked, rank=2), 0)
    assert distance(logits(method.view), logits(hooked)) > 1000 * TOLERANCE
    assert torch.equal(logits(hooked), logits(zoo.backbone("llama")))
    places = dict.fromkeys(("model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm", "lm_head",
                            "model.rotary_emb"), "cpu")  # fmt: skip
    spread = dispatch_model(
        zoo.make_model("llama"),
        {**places, "model.layers.2": "disk"},
        main_device="cpu",
        offload_dir=str(tmp_path),
    )
    with pytest.raises(WorkbenchError, match=r"the weights of far are spread \(cpu and offloaded\)"):
        LoRA(Backbone(spread, zoo.tokenizer(), "far"))


@every_backbone
def test_untrained_it_is_the_plain_model(architecture: str) -> None:
    """Protects the baseline's start: bit-equal logits; and every place that was chosen is felt once it is trained."""
    backbone = zoo.backbone(architecture)
    method = LoRA(backbone, rank=2)
    assert torch.equal(logits(method.view), logits(backbone))
    assert all(float(values.sum()) == 0 for values in method.snapshot().values())
    for place, up in method.up.items():
        with torch.no_grad():
            up.fill_(0.5)
        assert not torch.equal(logits(method.view), logits(backbone)), place
        with torch.no_grad():
            up.zero_()


@every_backbone
def test_frozen_model_stays_frozen(architecture: str) -> None:
    """Contract 2: training a LoRA, and writing with it, moves no bit of the backbone and gives it no gradient."""
    backbone = zoo.backbone(architecture)
    weights, plain = fingerprint(backbone), logits(backbone)
    method = LoRA(backbone, rank=2)
    optimizer = torch.optim.SGD(method.parameters(), 0.1)
    for _ in range(2):
        found, targets = answer_logits(backbone, Rows.collate(ROWS), method.injection())
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(found, targets).backward()
        optimizer.step()
    generate(backbone, ["some text"], method, GenerateConfig(max_new_tokens=3))
    assert distance(logits(method.view), plain) > 100 * TOLERANCE
    trained = {id(p) for p in method.parameters()}
    for model in (backbone.model, method.view.model):
        frozen = [p for p in model.parameters() if id(p) not in trained]
        assert frozen and all(p.grad is None and not p.requires_grad for p in frozen)
    assert not trained & {id(p) for p in backbone.model.parameters()}
    assert fingerprint(backbone) == weights and torch.equal(logits(backbone), plain)
    del method
    assert torch.equal(logits(backbone), plain)


@every_backbone
def test_two_threads_share_a_backbone(architecture: str) -> None:
    """Contract 2, for jobs: two LoRAs and the plain model, run at once, each get what they get alone."""
    backbone = zoo.backbone(architecture)
    views = [backbone, *(changed(LoRA(backbone, rank=2, seed=seed), seed).view for seed in (1, 2))]
    expected = [logits(view) for view in views]
    found: dict[int, list[Tensor]] = {}

    def run(i: int) -> None:
        found[i] = [logits(views[i]) for _ in range(6)]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(one, expected[i]) for i in range(3) for one in found[i])
    assert min(distance(expected[i], expected[i - 1]) for i in range(3)) > 1000 * TOLERANCE


def test_what_is_trained_is_what_the_view_uses() -> None:
    """Protects saving, resuming and moving: loading into the method, or casting it, is felt by the view."""
    backbone = zoo.backbone("llama")
    method, other = LoRA(backbone, rank=2), changed(LoRA(backbone, rank=2, seed=5), 5)
    method.load_state_dict(other.state_dict())
    assert torch.equal(logits(method.view), logits(other.view))
    method.to("cpu", torch.bfloat16)
    inside = dict(method.view.model.named_parameters())
    assert inside["model.layers.0.self_attn.q_proj.lora_A.default.weight"].dtype == torch.bfloat16
    assert next(iter(method.state_dict())) == "down.layer 0 self_attn q_proj"


def test_bfloat16_backbone_takes_a_float32_lora() -> None:
    """Factors stay float32 on a bfloat16 backbone, start without effect, and get float32 gradients."""
    backbone = Backbone(zoo.make_model("llama").to(torch.bfloat16), zoo.tokenizer(), "bf16")
    method = LoRA(backbone, rank=2)
    assert {p.dtype for p in method.parameters()} == {torch.float32}
    assert torch.equal(logits(method.view), logits(backbone))
    found, targets = answer_logits(backbone, Rows.collate(ROWS), changed(method, 0).injection())
    torch.nn.functional.cross_entropy(found.float(), targets).backward()
    assert all(bool(torch.isfinite(p.grad).all()) and float(p.grad.norm()) > 0 for p in method.parameters())


def test_the_seed_decides_and_no_other_dice_are_thrown() -> None:
    """Protects repeatability: the same seed is the same LoRA, another is another, and torch's global dice lie still."""
    backbone = zoo.backbone("llama")
    before = torch.get_rng_state()
    first, again, other = (LoRA(backbone, rank=2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    for place, down in first.down.items():
        assert torch.equal(down, again.down[place]) and not torch.equal(down, other.down[place])
        assert 0.5 < float(down.detach().abs().max()) * down.shape[1] ** 0.5 <= 1


def test_snapshots_hold_the_change_s_singular_values() -> None:
    """Protects what is drawn: they are those of alpha / rank · up · down, computed in full."""
    method = changed(LoRA(zoo.backbone("gpt2"), rank=3, alpha=5), 0)
    for place, values in method.snapshot().items():
        full = (method.up[place] @ method.down[place]).detach() * 5 / 3
        torch.testing.assert_close(values, torch.linalg.svdvals(full)[:3])


@every_backbone
def test_merged_it_is_a_backbone_of_its_own(architecture: str) -> None:
    """Protects a tuned backbone as the base of other methods: the LoRA's logits to rounding, nothing of PEFT, the change as it
    was when it was merged, all other tensors shared, and the backbone's own bits where they were."""
    backbone = zoo.backbone(architecture)
    weights, plain = fingerprint(backbone), logits(backbone)
    method = changed(LoRA(backbone, rank=2, alpha=5), 0)
    merged = method.merged()
    expected = logits(method.view)
    assert distance(expected, plain) > 1000 * TOLERANCE
    assert distance(logits(merged), expected) < TOLERANCE
    own, theirs = merged.model.state_dict(), backbone.model.state_dict()
    assert own.keys() == theirs.keys() and not any("lora" in name for name in own)
    apart = {name.removesuffix(".weight") for name in own if own[name].data_ptr() != theirs[name].data_ptr()}
    assert apart == set(method.places.values())
    kinds = [[type(m) for m in b.model.modules()] for b in (merged, backbone)]
    assert kinds[0] == kinds[1] and not hasattr(merged.model, "peft_config")
    assert not any(p.requires_grad for p in merged.model.parameters())
    assert set(merged.layers) <= set(merged.model.modules())
    assert merged.name == f"{backbone.name} with a LoRA merged" and backbone.name == f"small-{architecture}"
    with torch.no_grad():
        method.up[next(iter(method.places))].mul_(-1)
    assert distance(logits(merged), expected) < TOLERANCE < distance(logits(method.view), expected)
    del method
    assert fingerprint(backbone) == weights and torch.equal(logits(backbone), plain)


def test_another_method_stands_on_what_was_merged() -> None:
    """Protects stages: a method made for the merged backbone reads, writes and is trained under the changed weights."""
    backbone = zoo.backbone("llama")
    lora = changed(LoRA(backbone, rank=2), 0)
    merged = lora.merged()
    method = SoftPrompt(merged, tokens=3)
    with torch.no_grad():
        found, _ = answer_logits(merged, Rows.collate(ROWS), method.injection())
        beside, _ = answer_logits(lora.view, Rows.collate(ROWS), method.injection())
        apart, _ = answer_logits(backbone, Rows.collate(ROWS), method.injection())
    assert distance(found, beside) < TOLERANCE and distance(apart, beside) > 1000 * TOLERANCE
    again = LoRA(merged, rank=1)
    assert again.places == lora.places and torch.equal(logits(again.view), logits(merged))
    twice = changed(again, 1).merged()
    assert distance(logits(twice), logits(again.view)) < TOLERANCE


def test_a_method_is_not_loaded_without_the_lora_that_it_stands_on(tmp_path: Path) -> None:
    """Protects what stands on a merged backbone, which no name leads to: without the LoRA it is neither loaded nor resumed, and
    one sentence says how; with it, it is. Between plain backbones a name stays free, as a folder may be moved."""
    plain = load_backbone("tiny-rwkv", device="cpu")
    lora, task = changed(LoRA(plain, rank=2), 0), load_task("find-person", n=12)
    config = FitConfig(steps=2, batch_size=2, evaluate_every=0, checkpoint_every=1)
    merged = lora.merged()
    for _ in fit(merged, SyntheticGradient(merged, hidden=4), task, config, run_dir=tmp_path / "run"):
        break
    how = "with a LoRA merged, not for tiny-rwkv; load the LoRA onto that, merge it by `merged\\(\\)`, and "
    with pytest.raises(WorkbenchError, match=how + "go on by `fit`, with resume=True, on"):
        list(resume(tmp_path / "run", device="cpu"))
    method = SyntheticGradient(merged, hidden=4)
    assert len(list(fit(merged, method, task, config, run_dir=tmp_path / "run", resume=True))) == 1
    with pytest.raises(WorkbenchError, match=how + "load it onto"):
        load_method(tmp_path / "run", plain)
    twice = changed(LoRA(merged, rank=1), 1).merged()
    SoftPrompt(twice, tokens=2).save(tmp_path / "twice")
    with pytest.raises(WorkbenchError, match=f"{twice.name}, not for {merged.name};"):
        load_method(tmp_path / "twice", merged)
    moved = plain.view()
    moved.name = "elsewhere/tiny-rwkv"
    SoftPrompt(plain, tokens=2).save(tmp_path / "plain")
    again = changed(LoRA(moved, rank=2), 0).merged()
    for folder, backbone in (("run", merged), ("run", again), ("twice", twice), ("plain", moved)):
        load_method(tmp_path / folder, backbone)


def test_what_cannot_be_merged_is_refused() -> None:
    """Protects quantised backbones, whose matrices are no tensor of floats: one sentence, and nothing half merged."""
    backbone = zoo.backbone("llama").view()
    method = changed(LoRA(backbone, rank=2), 0)

    class Packed(torch.nn.Linear):
        """Stands for a layer that does not multiply by its weight as it is."""

    place, name = list(method.places.items())[-1]
    backbone.model.get_submodule(name).__class__ = Packed
    with pytest.raises(WorkbenchError, match=f"{place} of small-llama is a Packed, no plain matrix"):
        method.merged()


def test_targets() -> None:
    """Protects from a LoRA that does nothing: names mean what they end with, and what no run would feel is refused."""
    llama, mamba = zoo.backbone("llama"), zoo.backbone("mamba")
    assert set(LoRA(llama).places) == {
        f"layer {i} self_attn {n}" for i in range(3) for n in ("q_proj", "v_proj")
    }
    assert list(LoRA(llama, targets="layers.1.mlp.up_proj").places) == ["layer 1 mlp up_proj"]
    assert {p.split()[-1] for p in LoRA(mamba).places} == {"in_proj", "x_proj"}
    refused = {"dt_proj": "does not call layer 0 mixer dt_proj", "out_proj": "PEFT cannot change small-mamba",
               "x_prj": "did you mean 'x_proj'", "lm_head": "no linear layer in the blocks"}  # fmt: skip
    for target, said in refused.items():
        with pytest.raises(WorkbenchError, match=said) as caught:
            LoRA(mamba, targets=(target,))
        assert "\n" not in str(caught.value)
    qwen = zoo.backbone("qwen3_next")  # PEFT takes the MLP's names for those of a mixture's experts
    assert not {p for p in LoRA(qwen).places if " mlp " in p}
    with pytest.raises(WorkbenchError, match="PEFT changes something else"):
        LoRA(qwen, targets=("q_proj", "down_proj"))
    for wrong in ({"rank": 0}, {"rank": 2.5}, {"alpha": 0.0}, {"targets": ()}):
        with pytest.raises(WorkbenchError):
            LoRAConfig(**wrong)

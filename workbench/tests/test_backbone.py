"""Loading a backbone: what it says of itself, and the sentences for what cannot be loaded."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

from workbench.backbones.backbone import Backbone, load_backbone
from workbench.errors import WorkbenchError
from workbench.tests import zoo

KINDS = {
    "gpt2": "attention",
    "gpt_neox": "attention",
    "llama": "attention",
    "qwen3": "attention",
    "gemma3_text": "attention",
    "mistral": "attention",
    "rwkv": "recurrent",
    "mamba": "recurrent",
    "mamba2": "recurrent",
    "recurrent_gemma": "hybrid",
    "falcon_h1": "hybrid",
    "qwen3_next": "hybrid",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved backbone."""
    zoo.make_model("llama").save_pretrained(tmp_path / "model")  # type: ignore[operator]
    zoo.tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("architecture", zoo.ARCHITECTURES)
def test_backbone_knows_itself(architecture: str) -> None:
    """Kind, layers, width and context of every architecture, without a table of names in the library."""
    backbone = zoo.backbone(architecture)
    assert backbone.kind == KINDS[architecture]
    assert (backbone.num_layers, backbone.width) == (3, 32)
    assert backbone.context_length == (None if backbone.kind == "recurrent" else backbone.context_length)
    assert not any(p.requires_grad for p in backbone.model.parameters()) and not backbone.model.training


def test_state_is_counted() -> None:
    """What a row remembers: keys and values of every token, or RWKV-4's five vectors a layer, or both."""
    layers, width = 3, 32
    assert zoo.backbone("gpt2").state == {"fixed": 0, "per_token": 2 * layers * width}
    assert zoo.backbone("rwkv").state == {"fixed": 5 * layers * width, "per_token": 0}
    both = zoo.backbone("falcon_h1").state
    assert both["fixed"] > 0 and both["per_token"] > 0


def test_embeddings_are_what_the_layers_read() -> None:
    """Gemma's embedding module scales by the root of the width, and so do `embed` and `vocabulary`."""
    gemma, llama = zoo.backbone("gemma3_text"), zoo.backbone("llama")
    ids = torch.tensor([5, 6])
    weight = gemma.model.get_input_embeddings().weight[5:7]  # type: ignore[index]
    assert torch.allclose(gemma.embed(ids), weight * 32**0.5)
    assert torch.equal(llama.vocabulary()[5:7], llama.embed(ids))


def test_folder_loads_and_says_the_same(folder: Path) -> None:
    """A folder written by save_pretrained gives the logits of the model that was saved."""
    backbone = load_backbone(folder, device="cpu")
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(backbone.model(ids).logits, zoo.make_model("llama")(ids).logits)
    assert backbone.describe()["parameters"] == sum(p.numel() for p in zoo.make_model("llama").parameters())


def test_dtype_is_float32_on_the_cpu_and_can_be_chosen(folder: Path) -> None:
    """A bfloat16 checkpoint is computed in float32 on the CPU, unless asked otherwise."""
    zoo.make_model("llama").to(torch.bfloat16).save_pretrained(folder)  # type: ignore[operator]
    assert load_backbone(folder, device="cpu").dtype == torch.float32
    assert load_backbone(folder, device="cpu", dtype="bfloat16").dtype == torch.bfloat16


def test_transformers_options_pass_through(folder: Path) -> None:
    """Attention implementation and device map reach from_pretrained."""
    backbone = load_backbone(folder, attn_implementation="eager", device_map="cpu")
    assert backbone.model.config._attn_implementation == "eager"


def pickled(folder: Path) -> Path:
    model = zoo.make_model("llama")
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


def truncated(folder: Path) -> Path:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    return folder


def remote_code(folder: Path) -> Path:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text("raise SystemExit('ran')")
    return folder


BROKEN = [
    (lambda f: "tiny-lama", "no backbone is called 'tiny-lama'"),
    (lambda f: f.parent / "absent", "there is no folder"),
    (lambda f: f.parent, "holds no config.json"),
    (lambda f: pickled(f), "safetensors"),
    (lambda f: truncated(f), "damaged"),
    (lambda f: remote_code(f), "brings its own code"),
    (lambda f: "nobody/nothing", "neither bundled nor a folder"),
]


@pytest.mark.parametrize(("make", "sentence"), BROKEN, ids=[s for _, s in BROKEN])
def test_what_cannot_be_loaded_is_one_sentence(folder: Path, make, sentence: str) -> None:  # type: ignore[no-untyped-def]
    """Every way in which a backbone cannot be loaded names it and says what to do."""
    with pytest.raises(WorkbenchError, match=sentence) as caught:
        load_backbone(make(folder), device="cpu")
    assert "\n" not in str(caught.value)


def test_device_and_dtype_are_checked(folder: Path) -> None:
    """Unknown devices and types are refused by name."""
    with pytest.raises(WorkbenchError, match="'warp:9' is not available"):
        load_backbone(folder, device="warp:9")
    with pytest.raises(WorkbenchError, match="no dtype is called 'float31'"):
        load_backbone(folder, device="cpu", dtype="float31")
    with pytest.raises(
        WorkbenchError, match="no option of load_backbone is called 'attn_implementaton'; did you mean"
    ):
        load_backbone(folder, device="cpu", attn_implementaton="eager")


def test_model_without_blocks_is_refused() -> None:
    """A model whose layers cannot be found is refused, not guessed at."""
    model = zoo.make_model("llama")
    model.config.num_hidden_layers = 17  # type: ignore[union-attr]
    with pytest.raises(WorkbenchError, match="no list of its 17 layers"):
        Backbone(model, zoo.tokenizer(), "odd")  # type: ignore[arg-type]


def test_a_view_knows_what_it_is_a_view_of(folder: Path) -> None:
    """Views, copies and the same files stand for one another; other weights, types and architectures do not."""
    backbone = zoo.backbone("llama")
    view = backbone.view()
    again = view.view()
    assert backbone.origin is None and view.origin is backbone and again.origin is view
    copied, loaded = copy.deepcopy(view), load_backbone(folder, device="cpu")
    alike = [backbone, view, again, copied, loaded, loaded.view()]
    assert all(one.stands_for(other) for one in alike for other in alike)
    assert copied.origin is not None and copied.origin is not backbone
    other = Backbone(zoo.make_model("llama", seed=1), zoo.tokenizer(), "small-llama")  # type: ignore[arg-type]
    exact = load_backbone(folder, device="cpu", dtype="float64")
    for stranger in (other, exact, zoo.backbone("mistral"), zoo.backbone("rwkv")):
        for one in (stranger, stranger.view()):
            assert not any(a.stands_for(b) for two in alike for a, b in ((one, two), (two, one)))
    changed = (
        backbone.view()
    )  # a view may have weights of its own, and is then run for what it is a view of and no other view
    changed.model.lm_head.weight = torch.nn.Parameter(-changed.model.lm_head.weight, requires_grad=False)
    assert changed.stands_for(backbone) and not changed.view().stands_for(backbone)
    assert not view.stands_for(changed)

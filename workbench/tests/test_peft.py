"""PEFT's folders both ways: PEFT's own model and ours give the same logits, where PEFT's is right."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor

from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError
from workbench.methods.apply import Decoder, answer_logits
from workbench.methods.initial_state import InitialState
from workbench.methods.lora import LoRA
from workbench.methods.method import Method
from workbench.methods.p_tuning import PTuning
from workbench.methods.peft_format import load_peft, save_peft
from workbench.methods.prefix_prompt import PrefixPrompt
from workbench.methods.rows import Rows
from workbench.methods.soft_prompt import SoftPrompt
from workbench.tasks.encode import Encoded
from workbench.tests import zoo

MAKERS: dict[str, Any] = {
    "soft-prompt": lambda b: SoftPrompt(b, tokens=4),
    "p-tuning": lambda b: PTuning(b, tokens=4, hidden=8),
    "p-tuning, LSTM": lambda b: PTuning(b, tokens=4, hidden=8, encoder="lstm"),
    "prefix": lambda b: PrefixPrompt(b, tokens=4),
    "prefix, MLP": lambda b: PrefixPrompt(b, tokens=4, mlp=True, hidden=8),
}
CONFIGS: dict[str, Any] = {
    "prompt tuning": lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
    "p-tuning": lambda: peft.PromptEncoderConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=4, encoder_hidden_size=8
    ),
    "prefix tuning": lambda: peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
}
IDS = (1, 40, 50, 60, 70, 80)


def theirs(model: Any, ids: tuple[int, ...]) -> Tensor:
    """(T, V) logits of PEFT's model at the tokens of one row."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).logits[
            0, -len(ids) :
        ]


def ours(backbone: Backbone, method: Method, ids: tuple[int, ...]) -> Tensor:
    """(T - 1, V) logits at the tokens of one row but the last: what predicts its second token and all later ones."""
    row = Encoded(ids, 1, 0)
    with torch.no_grad():
        return answer_logits(backbone, Rows.collate([row, row]), method.injection())[0][: len(ids) - 1]


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("name", MAKERS)
def test_ours_serves_in_peft(name: str, architecture: str, tmp_path: Path) -> None:
    """Protects what is taken elsewhere: PEFT's model of our folder gives our logits; grouped heads included."""
    backbone = zoo.backbone(architecture)
    method = MAKERS[name](backbone)
    folder = save_peft(method, tmp_path)
    model = peft.PeftModel.from_pretrained(copy.deepcopy(backbone.model), folder)
    mine, other = ours(backbone, method, IDS), theirs(model, IDS)[:-1]
    assert float((mine - other).abs().max() / mine.abs().max()) < 1e-5
    again = ours(backbone, load_peft(folder, backbone), IDS)
    assert float((mine - again).abs().max() / mine.abs().max()) < 1e-6


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("name", CONFIGS)
def test_peft_s_serves_here(name: str, architecture: str, tmp_path: Path) -> None:
    """Protects people who come with a prompt that PEFT trained and saved."""
    backbone = zoo.backbone(architecture)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = peft.get_peft_model(copy.deepcopy(backbone.model), CONFIGS[name]()).eval()
    model.save_pretrained(tmp_path)
    method = load_peft(tmp_path, backbone)
    mine, other = ours(backbone, method, IDS), theirs(model, IDS)[:-1]
    assert float((mine - other).abs().max() / mine.abs().max()) < 1e-5


def test_left_padding_is_right_here_and_drifts_there(tmp_path: Path) -> None:
    """Protects the reason for explicit positions: a left-padded row behind a prompt is, in PEFT, another row."""
    backbone = zoo.backbone("llama")
    method = SoftPrompt(backbone, tokens=4)
    model = peft.PeftModel.from_pretrained(copy.deepcopy(backbone.model), save_peft(method, tmp_path))
    short, long = (1, 40, 50), (1, 61, 62, 63, 64, 65, 66, 67)
    with torch.no_grad():
        truth = theirs(model, short)[-1]
        decoder = Decoder(
            backbone, Rows.collate([Encoded(s, len(s), 0) for s in (short, long)]), method.injection()
        )
        mine = decoder.next_logits()[decoder.active.index(0)]
        pads = len(long) - len(short)
        ids = torch.tensor([[0] * pads + list(short), list(long)])
        mask = torch.tensor([[0] * pads + [1] * len(short), [1] * len(long)])
        padded = model(input_ids=ids, attention_mask=mask).logits[0, -1]
    size = truth.abs().max()
    assert float((mine - truth).abs().max() / size) < 1e-5
    assert float((padded - truth).abs().max() / size) > 1e-2


def test_what_peft_cannot_hold_or_we_cannot_read_is_refused(tmp_path: Path) -> None:
    """Protects folders and people: one sentence for a foreign method, adapter, width, or damaged file."""
    backbone = zoo.backbone("llama")
    with pytest.raises(WorkbenchError, match="no format for initial-state"):
        save_peft(InitialState(zoo.backbone("rwkv"), tokens=2), tmp_path)
    with pytest.raises(WorkbenchError, match="no adapter"):
        load_peft(tmp_path, backbone)
    folder = save_peft(SoftPrompt(backbone, tokens=2), tmp_path / "soft")
    facts = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**facts, "peft_type": "LOHA"}))
    with pytest.raises(WorkbenchError, match="LOHA"):
        load_peft(folder, backbone)
    (folder / "adapter_config.json").write_text(json.dumps(facts))
    (folder / "adapter_model.safetensors").write_bytes(b"not a tensor")
    with pytest.raises(WorkbenchError, match="damaged or missing"):
        load_peft(folder, backbone)


def train(method: LoRA, backbone: Backbone) -> LoRA:
    """A few steps, so that no factor is where it started."""
    optimizer = torch.optim.SGD(method.parameters(), 0.03)
    rows = Rows.collate([Encoded(IDS, 2, 0), Encoded(IDS[:4], 2, 0)])
    for _ in range(3):
        logits, targets = answer_logits(backbone, rows, method.injection())
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, targets).backward()
        optimizer.step()
    return method


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "rwkv", "mamba"])
def test_lora_serves_in_peft(architecture: str, tmp_path: Path) -> None:
    """Protects a baseline taken elsewhere: PEFT's model of our folder gives our logits, which are not the plain ones."""
    backbone = zoo.backbone(architecture)
    method = train(LoRA(backbone, rank=3, alpha=9, seed=2), backbone)
    folder = save_peft(method, tmp_path)
    model = peft.PeftModel.from_pretrained(copy.deepcopy(backbone.model), folder)
    mine, other = ours(backbone, method, IDS), theirs(model, IDS)[:-1]
    plain = ours(backbone, LoRA(backbone, rank=3), IDS)
    assert float((mine - plain).abs().max() / mine.abs().max()) > 1e-2
    assert float((mine - other).abs().max() / mine.abs().max()) < 1e-5
    again = load_peft(folder, backbone)
    assert isinstance(again, LoRA) and again.places == method.places
    assert torch.equal(ours(backbone, again, IDS), mine)


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("targets", [["q_proj", "down_proj"], "all-linear", ["layers.1.mlp.up_proj"]])
def test_peft_s_lora_serves_here(targets: Any, rslora: bool, tmp_path: Path) -> None:
    """Protects people who come with a LoRA that PEFT made, whichever way its layers and its scale were named."""
    backbone = zoo.backbone("llama")
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=6, target_modules=targets, use_rslora=rslora
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = peft.get_peft_model(copy.deepcopy(backbone.model), config).eval()
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path)
    method = load_peft(tmp_path, backbone)
    assert len(method.config.targets) <= 7
    mine, other = ours(backbone, method, IDS), theirs(model, IDS)[:-1]
    assert float((mine - other).abs().max() / mine.abs().max()) < 1e-5


def test_variants_of_lora_are_refused(tmp_path: Path) -> None:
    """Protects from a quiet half of an adapter: what is not two plain factors, or not this backbone's, is named."""
    llama = zoo.backbone("llama")
    variants = {"use_dora": {"use_dora": True}, "rank_pattern": {"rank_pattern": {"layers.0.self_attn.q_proj": 2}},
                "modules_to_save": {"modules_to_save": ["lm_head"]}, "bias": {"bias": "all"}}  # fmt: skip
    for name, fields in variants.items():
        config = peft.LoraConfig(task_type="CAUSAL_LM", **fields)
        peft.get_peft_model(copy.deepcopy(llama.model), config).save_pretrained(tmp_path / name)
        with pytest.raises(WorkbenchError, match=f"made with {name}="):
            load_peft(tmp_path / name, llama)
    folder = save_peft(LoRA(llama, rank=2), tmp_path / "plain")
    with pytest.raises(WorkbenchError, match="no linear layer in the blocks of small-rwkv"):
        load_peft(folder, zoo.backbone("rwkv"))
    facts = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**facts, "r": 3}))
    with pytest.raises(WorkbenchError, match="no factor A of shape"):
        load_peft(folder, llama)

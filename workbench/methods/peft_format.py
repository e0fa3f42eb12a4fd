"""PEFT's folders: prompt tuning, P-tuning, prefix tuning and LoRA, read and written as PEFT does.

    save_peft(method, folder)       adapter_config.json and adapter_model.safetensors, for PeftModel.from_pretrained
    load_peft(folder, backbone)     the method in such a folder

PEFT keeps what a reparametrisation made, not the network that made it, so P-tuning comes back as a soft prompt and a
prefix without its MLP. Its prompts stand before all tokens, and the loaded method's text settings say so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError, unknown
from workbench.methods.lora import LoRA, linear_layers
from workbench.methods.method import Method
from workbench.methods.p_tuning import PTuning
from workbench.methods.prefix_prompt import PrefixPrompt
from workbench.methods.soft_prompt import SoftPrompt

TYPES = {"soft-prompt": "PROMPT_TUNING", "p-tuning": "P_TUNING", "prefix": "PREFIX_TUNING", "lora": "LORA"}
"""Our kinds and PEFT's names for them."""
WEIGHTS = "adapter_model.safetensors"
_INSIDE = "base_model.model."  # before a module's name in PEFT's files
_UNDERSTOOD = {"peft_type", "task_type", "base_model_name_or_path", "inference_mode", "revision", "auto_mapping",
               "peft_version", "r", "lora_alpha", "use_rslora", "lora_dropout", "fan_in_fan_out", "target_modules",
               "exclude_modules", "layers_to_transform", "layers_pattern"}  # fmt: skip
"""What PEFT says of a LoRA that changes nothing here, or is heeded; of the modules, its tensors' names tell enough."""


def save_peft(method: Method, folder: str | Path) -> Path:
    """Write a trained method as PEFT 0.21 writes it; what was in the folder under those two names is replaced.

    Raises:
        WorkbenchError: a kind of method that PEFT does not know, or a prompt that does not stand before all tokens.
    """
    if method.kind not in TYPES:
        raise WorkbenchError(
            f"PEFT has no format for {method.kind}; save the method with its own save(folder)"
        )
    if method.kind in ("soft-prompt", "p-tuning") and method.text.prompt_position != "before-bos":
        raise WorkbenchError(
            f"the prompt stands {method.text.prompt_position}, but PEFT puts one before all tokens; train it with "
            "prompt_position='before-bos' to use it there"
        )
    facts, tensors = _lora_facts(method) if isinstance(method, LoRA) else _prompt_facts(method)
    facts |= {
        "peft_type": TYPES[method.kind],
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": method.made_for["name"],
        "inference_mode": True,
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, folder / WEIGHTS)
    (folder / "adapter_config.json").write_text(json.dumps(facts, indent=2) + "\n")
    return folder


def load_peft(folder: str | Path, backbone: Backbone) -> Method:
    """The method in a folder that PEFT (or `save_peft`) wrote, ready to be used or trained further.

    Raises:
        WorkbenchError: no adapter there, of a type that is not read, or made for another backbone.
    """
    folder = Path(folder)
    try:
        facts = json.loads((folder / "adapter_config.json").read_text())
        kind = facts["peft_type"]
    except (OSError, ValueError, KeyError) as error:
        raise WorkbenchError(f"{folder} holds no adapter of PEFT (adapter_config.json)") from error
    if kind not in TYPES.values():
        raise unknown("type of PEFT adapter", kind, TYPES.values())
    try:
        tensors = load_file(folder / WEIGHTS)
        found = tensors if kind == "LORA" else tensors["prompt_embeddings"].float()
    except Exception as error:  # safetensors raises its own types for missing, truncated and foreign files
        raise WorkbenchError(f"the file {folder / WEIGHTS} is damaged or missing") from error
    if isinstance(found, dict):
        return _lora(facts, found, backbone, folder)
    if kind == "PREFIX_TUNING":
        return _prefix(found, backbone, folder)
    if found.shape[1] != backbone.width:
        raise WorkbenchError(
            f"the prompt in {folder} has width {found.shape[1]}, but {backbone.name} reads width {backbone.width}"
        )
    soft = SoftPrompt(backbone, tokens=len(found))
    with torch.no_grad():
        soft.embeddings.copy_(found)
    return soft


def _prompt_facts(method: Method) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What PEFT's files say of a prompt, and its tensor."""
    facts: dict[str, Any] = {
        "num_virtual_tokens": method.prompt_length,
        "num_transformer_submodules": 1,
        "num_layers": method.made_for["layers"],
        "token_dim": method.made_for["width"],
    }
    if isinstance(method, PrefixPrompt):
        if len(set(method.shapes)) > 1:
            raise WorkbenchError(
                "PEFT's prefix has one shape for all layers, and those of this backbone differ"
            )
        heads, size = method.shapes[0]
        flat = torch.cat([part.to("cpu") for part in method.snapshot().values()], dim=1)
        facts |= {"num_attention_heads": heads, "token_dim": heads * size, "prefix_projection": False}
    else:
        flat = method.snapshot()["embeddings"]
        facts["num_attention_heads"] = 1
    if isinstance(method, PTuning):
        facts |= {"encoder_reparameterization_type": method.config.encoder.upper(),
                  "encoder_hidden_size": method.config.hidden}  # fmt: skip
    return facts, {"prompt_embeddings": flat.float()}


def _prefix(found: Tensor, backbone: Backbone, folder: Path) -> PrefixPrompt:
    """PEFT's (P, 2 · layers · heads · head size): keys and values, layer after layer."""
    method = PrefixPrompt(backbone, tokens=len(found))
    sizes = [2 * heads * size for heads, size in method.shapes]
    if found.shape[1] != sum(sizes):
        raise WorkbenchError(
            f"the prefix in {folder} has {found.shape[1]} numbers a token, but {backbone.name} needs {sum(sizes)}"
        )
    with torch.no_grad():
        for mine, part, (heads, size) in zip(
            method.layers, found.split(sizes, 1), method.shapes, strict=True
        ):
            mine.copy_(part.view(len(found), 2, heads, size).permute(1, 2, 0, 3))
    return method


def _lora_facts(method: LoRA) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What PEFT's files say of a LoRA, and its tensors."""
    layers = [method.view.model.get_submodule(name) for name in method.places.values()]
    facts = {
        "r": method.config.rank,
        "lora_alpha": method.config.alpha,
        "target_modules": list(method.places.values()),
        "fan_in_fan_out": any(getattr(layer, "fan_in_fan_out", False) for layer in layers),
        "bias": "none",
    }
    return facts, {
        f"{_INSIDE}{method.places[place]}.lora_{letter}.weight": factor
        for letter, factors in (("A", method.down), ("B", method.up))
        for place, factor in factors.items()
    }


def _lora(facts: dict[str, Any], tensors: dict[str, Tensor], backbone: Backbone, folder: Path) -> LoRA:
    """PEFT's LoRA where it is one pair of factors for each layer, all of one rank; its variants are refused."""
    plain = vars(peft.LoraConfig())
    for key, value in facts.items():
        if value and key not in _UNDERSTOOD and value != plain.get(key):
            raise WorkbenchError(
                f"the LoRA in {folder} was made with {key}={value!r}, and only plain LoRA is read here; use it with PEFT"
            )
    rank, alpha = facts.get("r", plain["r"]), facts.get("lora_alpha", plain["lora_alpha"])
    if facts.get("use_rslora"):  # which divides by the root of the rank
        alpha *= rank**0.5
    names = {key.removeprefix(_INSIDE).rpartition(".lora_")[0] for key in tensors}
    foreign = names - set(linear_layers(backbone).values())
    if foreign:
        raise WorkbenchError(
            f"the LoRA in {folder} changes {min(foreign)}, which is no linear layer in the blocks of {backbone.name}"
        )
    method = LoRA(backbone, rank=rank, alpha=alpha, targets=_shortest(names, backbone))
    with torch.no_grad():
        for place, name in method.places.items():
            for letter, factor in (("A", method.down[place]), ("B", method.up[place])):
                found = tensors.get(f"{_INSIDE}{name}.lora_{letter}.weight")
                if found is None or found.shape != factor.shape:
                    raise WorkbenchError(
                        f"the LoRA in {folder} has no factor {letter} of shape {tuple(factor.shape)} for {name}, as "
                        f"{backbone.name} needs it"
                    )
                factor.copy_(found)
    return method


def _shortest(names: set[str], backbone: Backbone) -> tuple[str, ...]:
    """The last parts of the names where they mean these layers and no other, else the names."""
    ends = {name.rpartition(".")[2] for name in names}
    meant = {name for name in linear_layers(backbone).values() if name.rpartition(".")[2] in ends}
    return tuple(sorted(ends if meant == names else names))

"""PEFT's folders: prompt tuning, P-tuning and prefix tuning, read and written without PEFT.

    save_peft(method, folder)       adapter_config.json and adapter_model.safetensors, for PeftModel.from_pretrained
    load_peft(folder, backbone)     the method in such a folder

PEFT keeps what a reparametrisation made, not the network that made it, so P-tuning comes back as a soft prompt and a
prefix without its MLP. Its prompts stand before all tokens, and the loaded method's text settings say so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError, unknown
from workbench.methods.method import Method
from workbench.methods.p_tuning import PTuning
from workbench.methods.prefix_prompt import PrefixPrompt
from workbench.methods.soft_prompt import SoftPrompt

TYPES = {"soft-prompt": "PROMPT_TUNING", "p-tuning": "P_TUNING", "prefix": "PREFIX_TUNING"}
"""Our kinds and PEFT's names for them."""
WEIGHTS = "adapter_model.safetensors"


def save_peft(method: Method, folder: str | Path) -> Path:
    """Write a trained prompt as PEFT 0.21 writes it; what was in the folder under those two names is replaced.

    Raises:
        WorkbenchError: a kind of method that PEFT does not know, or a prompt that does not stand before all tokens.
    """
    if method.kind not in TYPES:
        raise WorkbenchError(
            f"PEFT has no format for {method.kind}; save the method with its own save(folder)"
        )
    if method.kind != "prefix" and method.text.prompt_position != "before-bos":
        raise WorkbenchError(
            f"the prompt stands {method.text.prompt_position}, but PEFT puts one before all tokens; train it with "
            "prompt_position='before-bos' to use it there"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {
        "peft_type": TYPES[method.kind],
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": method.made_for["name"],
        "inference_mode": True,
        "num_virtual_tokens": method.prompt_length,
        "num_transformer_submodules": 1,
        "num_layers": method.made_for["layers"],
        "token_dim": method.made_for["width"],
    }
    with torch.no_grad():
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
    save_file({"prompt_embeddings": flat.float().contiguous()}, folder / WEIGHTS)
    (folder / "adapter_config.json").write_text(json.dumps(facts, indent=2) + "\n")
    return folder


def load_peft(folder: str | Path, backbone: Backbone) -> Method:
    """The prompt in a folder that PEFT (or `save_peft`) wrote, ready to be used or trained further.

    Raises:
        WorkbenchError: no adapter there, of a type that is not a prompt's, or made for another backbone.
    """
    folder = Path(folder)
    try:
        facts = json.loads((folder / "adapter_config.json").read_text())
        kind = facts["peft_type"]
    except (OSError, ValueError, KeyError) as error:
        raise WorkbenchError(f"{folder} holds no adapter of PEFT (adapter_config.json)") from error
    if kind not in TYPES.values():
        raise unknown("type of PEFT prompt", kind, TYPES.values())
    try:
        found = load_file(folder / WEIGHTS)["prompt_embeddings"].float()
    except Exception as error:  # safetensors raises its own types for missing, truncated and foreign files
        raise WorkbenchError(f"the file {folder / WEIGHTS} is damaged or missing") from error
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

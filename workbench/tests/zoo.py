"""Small random backbones of many architectures, for tests. Weights are scaled until a mistake shows.

At transformers' default initialisation a zeroed state or a pad let in moves logits by 1e-7, and a tolerance
of 1e-5 protects nothing; here such a mistake moves them by far more (`test_contracts.py` measures it).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from workbench.backbones.backbone import Backbone

EVERY_COMMIT = ("llama", "rwkv", "falcon_h1")
"""One attention, one recurrent and one hybrid architecture."""


def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, with BOS, EOS and PAD: any text round-trips, and BOS is put before a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", *alphabet])}
    core = Tokenizer(models.BPE(vocabulary, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )


_COMMON: dict[str, Any] = {"vocab_size": 264, "hidden_size": 32, "num_hidden_layers": 3}
_ATTENTION = {**_COMMON, "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 256}
_GROUPED = {**_ATTENTION, "num_key_value_heads": 2}
_SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": 264, "n_positions": 256, "n_embd": 32, "n_layer": 3, "n_head": 4},
    "gpt_neox": _ATTENTION,
    "llama": _GROUPED,
    "qwen3": {**_GROUPED, "head_dim": 8},
    "gemma3_text": {
        **_GROUPED,
        "head_dim": 8,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    },
    "mistral": {**_GROUPED, "sliding_window": 8},
    "rwkv": {
        **_COMMON,
        "attention_hidden_size": 32,
        "intermediate_size": 64,
        "context_length": 256,
        "rescale_every": 0,
    },
    "mamba": {**_COMMON, "state_size": 8},
    "mamba2": {
        **_COMMON,
        "state_size": 8,
        "num_heads": 8,
        "head_dim": 8,
        "expand": 2,
        "n_groups": 2,
        "chunk_size": 16,
    },
    "recurrent_gemma": {
        **_COMMON,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "intermediate_size": 64,
        "lru_width": 32,
        "attention_window_size": 8,
        "block_types": ("recurrent", "recurrent", "attention"),
    },
    "falcon_h1": {
        **_GROUPED,
        "mamba_d_ssm": 32,
        "mamba_n_heads": 4,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
        "mamba_chunk_size": 16,
        "mamba_n_groups": 1,
    },
    "qwen3_next": {
        **_GROUPED,
        "head_dim": 8,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "mlp_only_layers": [0, 1, 2],
    },
}
ARCHITECTURES = tuple(_SIZES)
WITHOUT_CACHE = "llama without a trusted cache"
"""No architecture: the backbone of Llama as one whose cache comes out wrong, whose rows are read again for each token."""

_CONVOLUTIONS = {"falcon_h1": 15.0, "qwen3_next": 6.0}
"""Where the convolutions begin so small that next to nothing enters the recurrent state, and it is forgotten within a token:
by how much they are scaled. The decay is slowed there as well."""


def make_model(architecture: str, scale: float = 6.0, seed: int = 0) -> torch.nn.Module:
    """A random model in float32 whose matrices are `scale` times transformers' initialisation."""
    config = transformers.AutoConfig.for_model(architecture, **_SIZES[architecture])
    config.bos_token_id, config.eos_token_id, config.pad_token_id = 1, 2, 0
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.dim() >= 2 and not any(
                    part in name for part in ("embed", "wte", "wpe", "conv", "A_log")
                ):
                    weight.mul_(scale)
                if architecture in _CONVOLUTIONS and "conv1d.weight" in name:
                    weight.mul_(_CONVOLUTIONS[architecture])
                if architecture in _CONVOLUTIONS and "A_log" in name:
                    weight.sub_(3.0)
                if architecture == "rwkv" and "embeddings" in name:
                    weight.normal_()
                if architecture == "rwkv" and ("time_decay" in name or "time_first" in name):
                    weight.uniform_(-2.0, 1.0)
    return model


@functools.cache
def backbone(architecture: str) -> Backbone:
    """The shared backbone of that architecture; frozen, so sharing is safe.

    RWKV, Mamba and RecurrentGemma in float64: with weights of this scale their exponentials cost float32 four of its
    digits, in a row alone as well.
    """
    if architecture == WITHOUT_CACHE:
        view = backbone("llama").view()
        wrong = ("left_padding", "decoding", "shared_prefix", "padding_after_prefix")
        view.layouts = dataclasses.replace(view.layouts, **dict.fromkeys(wrong, False))
        return view
    model = make_model(architecture)
    exact = model.double() if architecture in ("rwkv", "mamba", "recurrent_gemma") else model
    return Backbone(exact, tokenizer(), f"small-{architecture}")

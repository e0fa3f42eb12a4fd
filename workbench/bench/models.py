"""Random models and rows that ours and a peer run alike. Measures nothing."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from workbench.backbones.backbone import Backbone
from workbench.methods.rows import Rows


@dataclass(frozen=True)
class Shape:
    """A Llama with random weights, and rows for it: `tokens` a row, the last `answer` of which are the answer."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    prompt: int
    tokens: int
    answer: int
    batch: int
    key_heads: int = 0
    """Heads of keys and values; 0: as many as heads."""
    inner: int = 0
    """Width inside the MLP; 0: 4 times two thirds of the width."""
    dtype: torch.dtype = torch.float32
    device: str = "cpu"

    def __str__(self) -> str:
        answer = f" of which {self.answer} answer" if self.answer else ""
        return (
            f"{self.layers} layers, width {self.width}, vocabulary {self.vocabulary:,}, prompt {self.prompt}, "
            f"{self.tokens} tokens{answer}, batch {self.batch}, {str(self.dtype).removeprefix('torch.')}"
        )

    @property
    def suffix(self) -> str:
        """What sets the name of a measurement on the GPU apart."""
        return "" if self.device == "cpu" else ", Llama-3.2-1B"

    @property
    def tolerance(self) -> float:
        """How far two gradients of the same work may differ, as a share of their norm."""
        return 1e-4 if self.dtype == torch.float32 else 0.1


MEDIUM = Shape(6, 512, 8, 32_000, prompt=200, tokens=210, answer=80, batch=8)
"""A long prompt on a model of 38 M parameters."""

SMALL = Shape(4, 192, 3, 3_072, prompt=20, tokens=24, answer=4, batch=4)
"""A small prompt on a model of the bundled tiny-llama's shape."""


LARGE = Shape(
    16, 2048, 32, 128_256, prompt=20, tokens=256, answer=64, batch=8,
    key_heads=8, inner=8192, dtype=torch.bfloat16, device="cuda",
)  # fmt: skip
"""The shape of Llama-3.2-1B, with random weights, on a GPU."""


def shapes(on_cpu: Shape, on_gpu: Shape = LARGE) -> list[Shape]:
    """What is measured here: the one on the CPU, and where there is a GPU the other as well."""
    return [on_cpu, *([on_gpu] if torch.cuda.is_available() else [])]


class Work:
    """A model with its rows: `backbone` for us, and `fresh()` for a peer that wraps what it is given."""

    def __init__(self, shape: Shape):
        logging.set_verbosity_error()
        torch.manual_seed(0)
        self.shape = shape
        self.config = LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.key_heads or shape.heads,
            intermediate_size=shape.inner or 4 * shape.width * 2 // 3,
            max_position_embeddings=1024,
        )
        model: Any = LlamaForCausalLM(self.config)
        self.model = model.to(shape.device, shape.dtype).eval()
        self.backbone = Backbone(self.model, _NoTokenizer(), "llama")  # type: ignore[arg-type]
        assert self.backbone.layouts.shared_prefix  # probed now, not while something is timed

    def fresh(self) -> Any:
        """The same model once more, frozen."""
        with torch.device("meta"):
            model = LlamaForCausalLM(self.config)
        model.load_state_dict(
            self.model.state_dict(), assign=True
        )  # the same tensors: no second copy of the weights
        model.model.rotary_emb = copy.deepcopy(
            self.model.model.rotary_emb
        )  # its buffers are in no state dict
        return model.eval().requires_grad_(False)

    def ids(self, seed: int) -> Tensor:
        """(batch, tokens) random tokens."""
        dice = torch.Generator().manual_seed(seed)
        size = self.shape.batch, self.shape.tokens
        return torch.randint(3, self.shape.vocabulary, size, generator=dice).to(self.shape.device)

    def rows(self, ids: Tensor) -> Rows:
        """Rows of one length, with the answer at their end and the prompt before them."""
        lengths = torch.full((len(ids),), self.shape.tokens, device=ids.device)
        return Rows(ids, lengths, lengths - self.shape.answer, torch.zeros_like(lengths))

    def labels(self, ids: Tensor) -> Tensor:
        """(batch, tokens) what transformers calls labels: the answer, and -100 elsewhere."""
        labels = ids.clone()
        labels[:, : self.shape.tokens - self.shape.answer] = -100
        return labels

    @property
    def operations(self) -> float:
        """Multiplications and additions of matrices in one step over all rows: each weight of the layers takes two for
        each position forward and two back; attention itself and the head are left out."""
        shape = self.shape
        weights = sum(
            p.numel() for name, p in self.model.model.layers.named_parameters() if "norm" not in name
        )
        return 4.0 * weights * (shape.batch * (shape.tokens - 1) + shape.prompt)

    def targets(self, ids: Tensor) -> Tensor:
        """(N,) the answers' tokens."""
        return ids[:, self.shape.tokens - self.shape.answer :].flatten()


class _NoTokenizer:
    """Rows are ids already."""

    chat_template = None

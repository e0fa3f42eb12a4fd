"""Random models and rows that ours and a peer run alike. Measures nothing."""

from __future__ import annotations

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

    def __str__(self) -> str:
        answer = f" of which {self.answer} answer" if self.answer else ""
        return (
            f"{self.layers} layers, width {self.width}, vocabulary {self.vocabulary:,}, prompt {self.prompt}, "
            f"{self.tokens} tokens{answer}, batch {self.batch}, float32"
        )


MEDIUM = Shape(6, 512, 8, 32_000, prompt=200, tokens=210, answer=80, batch=8)
"""A long prompt on a model of 38 M parameters."""

SMALL = Shape(4, 192, 3, 3_072, prompt=20, tokens=24, answer=4, batch=4)
"""A small prompt on a model of the bundled tiny-llama's shape."""


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
            num_key_value_heads=shape.heads,
            intermediate_size=4 * shape.width * 2 // 3,
            max_position_embeddings=1024,
        )
        self.model = LlamaForCausalLM(self.config).eval()
        self.backbone = Backbone(self.model, _NoTokenizer(), "llama")  # type: ignore[arg-type]
        assert self.backbone.layouts.shared_prefix  # probed now, not while something is timed

    def fresh(self) -> Any:
        """The same model once more, frozen."""
        model = LlamaForCausalLM(self.config).eval().requires_grad_(False)
        model.load_state_dict(self.model.state_dict())
        return model

    def ids(self, seed: int) -> Tensor:
        """(batch, tokens) random tokens."""
        dice = torch.Generator().manual_seed(seed)
        return torch.randint(3, self.shape.vocabulary, (self.shape.batch, self.shape.tokens), generator=dice)

    def rows(self, ids: Tensor) -> Rows:
        """Rows of one length, with the answer at their end and the prompt before them."""
        lengths = torch.full((len(ids),), self.shape.tokens)
        return Rows(ids, lengths, lengths - self.shape.answer, torch.zeros_like(lengths))

    def labels(self, ids: Tensor) -> Tensor:
        """(batch, tokens) what transformers calls labels: the answer, and -100 elsewhere."""
        labels = ids.clone()
        labels[:, : self.shape.tokens - self.shape.answer] = -100
        return labels

    def targets(self, ids: Tensor) -> Tensor:
        """(N,) the answers' tokens."""
        return ids[:, self.shape.tokens - self.shape.answer :].flatten()


class _NoTokenizer:
    """Rows are ids already."""

    chat_template = None

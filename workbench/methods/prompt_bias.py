"""A bias on the prompt's own words: one number, added to the logit of every token that the instruction has (ours).

The plainest way to remember which words a prompt had, and none to remember what they were said of. Holds the method only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workbench.backbones.backbone import Backbone
from workbench.methods.injection import Injection, LogitChange
from workbench.methods.method import Method
from workbench.methods.prompt_tokens import PromptTokens
from workbench.methods.rows import Rows


@dataclass(frozen=True)
class PromptBiasConfig:
    """What a prompt's bias is before it is trained."""

    bias: float = 1.0
    """Nats added to the logit of each token of the prompt."""


class PromptBias(Method):
    """softmax(logits + bias · [the token stands in the row's instruction]), for every token of an answer.

    >>> method = wb.PromptBias(backbone, bias=2.0)

    A token counts once, however often it stands there; the tokenizer's special tokens do not count.

    Args:
        backbone: the model whose tokenizer is used.
        config: a whole configuration, or the fields of one as keywords, see `PromptBiasConfig`.

    Attributes:
        bias: () float32, in nats. Trained.
        strength: by what the bias is multiplied, 1.0; may be set, to sweep it. At 0 it is the plain model.
    """

    kind = "prompt-bias"
    Config = PromptBiasConfig

    def __init__(self, backbone: Backbone, config: PromptBiasConfig | None = None, **fields: Any):
        config = config or PromptBiasConfig(**fields)
        super().__init__(backbone, config)
        self.bias = nn.Parameter(torch.tensor(float(config.bias)))
        self.strength = 1.0
        self._special = sorted(set(backbone.tokenizer.all_special_ids))
        if backbone.dtype == torch.float64:
            self.double()
        self.to(backbone.device)

    def injection(self) -> Injection:
        """What the words of each row's prompt add to its logits."""
        return Injection(logit_changes=self.changes)

    def changes(self, rows: Rows) -> LogitChange:
        """The bias, for the instruction of each row."""
        tokens = PromptTokens.of(rows)
        words = ~torch.isin(tokens.ids, torch.tensor(self._special, device=tokens.ids.device))
        amounts = self.strength * self.bias * words

        def change(logits: Tensor, numbers: Tensor, hidden: Tensor) -> Tensor:
            return tokens.add(logits, amounts[numbers], numbers)

        return change

    @torch.no_grad()
    def snapshot(self) -> dict[str, Tensor]:
        """`bias` (1,), in nats."""
        return {"bias": self.bias.detach().cpu().reshape(1).clone()}

    @property
    def prompt_length(self) -> int:
        """0: a bias takes no position."""
        return 0

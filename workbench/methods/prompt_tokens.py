"""The tokens of instructions, so that something can be added to the logits of each. Trains nothing, runs no model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.methods.rows import Rows


@dataclass(frozen=True)
class PromptTokens:
    """Which tokens the instructions of B rows have.

    ids: (B, T).
    real: (B, T) bool, False at pads.
    first: (B, T) where in its row the same token stands first.
    """

    ids: Tensor
    real: Tensor
    first: Tensor

    @classmethod
    def of(cls, rows: Rows, after: int = 0) -> PromptTokens:
        """The tokens of each row before its answer, without its first `after`; T is at least 1."""
        end = max(int(rows.answer_start.max()), after + 1)
        ids = torch.nn.functional.pad(rows.ids, (0, 1))[:, after:end]  # a row may be all that is left out
        s = torch.arange(ids.shape[1], device=ids.device)
        real = s + after < rows.answer_start[:, None]
        same = (ids[:, :, None] == ids[:, None, :]) & real[:, None, :]
        return cls(ids, real, same.byte().argmax(2))  # of equals argmax takes the first

    @property
    def once(self) -> Tensor:
        """(B, T) bool, True at the first of equal tokens, False at the others and at pads."""
        return self.real & (self.first == torch.arange(self.ids.shape[1], device=self.ids.device))

    def total(self, amounts: Tensor, rows: Tensor) -> Tensor:
        """(N, T) amounts of the tokens of the named rows (N,), added up over equal tokens where the first of them stands."""
        return torch.zeros_like(amounts).scatter_add(1, self.first[rows], amounts)

    def add(self, logits: Tensor, amounts: Tensor, rows: Tensor) -> Tensor:
        """Logits (N, V) of the named rows (N,), with the amounts (N, T) that stand at `once` added to those of the tokens.

        In float32, or in float64 if they are.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        told = torch.where(self.once[rows], amounts.to(logits), logits.new_zeros(()))
        return logits.scatter_add(1, self.ids[rows], told)

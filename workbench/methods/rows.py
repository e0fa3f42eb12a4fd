"""A batch of encoded examples as tensors. Holds ids and positions of things, never embeddings or prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.tasks.encode import Encoded


@dataclass(frozen=True)
class Rows:
    """Token ids of B rows, padded on the right, and where things stand in them.

    ids: (B, T); what stands after a row's length is never read.
    lengths, answer_start, prompt_at: (B,); `prompt_at` is the token before which a trained prompt stands.
    """

    ids: Tensor
    lengths: Tensor
    answer_start: Tensor
    prompt_at: Tensor

    @classmethod
    def collate(cls, encoded: Sequence[Encoded], device: torch.device | str = "cpu") -> Rows:
        """Rows of any length, one for each example."""
        longest = max(len(e.ids) for e in encoded)
        ids = torch.tensor([[*e.ids, *[0] * (longest - len(e.ids))] for e in encoded], dtype=torch.long)
        lengths = torch.tensor([len(e.ids) for e in encoded])
        starts = torch.tensor([e.answer_start for e in encoded])
        places = torch.tensor([e.prompt_at for e in encoded])
        return cls(*(t.to(device) for t in (ids.reshape(len(encoded), longest), lengths, starts, places)))

    @classmethod
    def concat(cls, parts: Sequence[Rows]) -> Rows:
        """The rows of all parts, one after another."""
        if len(parts) == 1:
            return parts[0]
        longest = max(part.ids.shape[1] for part in parts)
        ids = [torch.nn.functional.pad(part.ids, (0, longest - part.ids.shape[1])) for part in parts]
        rest = ([getattr(part, name) for part in parts] for name in ("lengths", "answer_start", "prompt_at"))
        return cls(torch.cat(ids), *(torch.cat(tensors) for tensors in rest))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def answer_tokens(self) -> int:
        """Answer tokens in all rows together: what a mean over them divides by."""
        return int((self.lengths - self.answer_start).sum())

    def weights(self, emphasis: float) -> Tensor:
        """(N,) float32, for the answers' tokens row by row: `emphasis` for one that stands once in its row's question, else 1."""
        s = torch.arange(self.ids.shape[1], device=self.ids.device)[None]
        asked = torch.where(s < self.answer_start[:, None], self.ids, -1)[:, : int(self.answer_start.max())]
        once = torch.stack(
            [(ids[:, None] == own[None]).sum(1) == 1 for ids, own in zip(self.ids, asked, strict=True)]
        )
        answers = (s >= self.answer_start[:, None]) & (s < self.lengths[:, None])
        return torch.where(once, emphasis, 1.0)[answers]

    def without_last(self) -> Rows:
        """The rows without the last token of each: what a model has to read to predict every token after the first."""
        return Rows(self.ids[:, :-1], self.lengths - 1, self.answer_start, self.prompt_at)

    def without_instruction(self, first: int | None) -> Rows:
        """The rows from the last token of their instruction on, behind their first token where that is `first`."""
        kept = int(first is not None and bool((self.ids[:, 0] == first).all()))
        gone = (self.answer_start - 1 - kept).clamp(min=0)
        s = torch.arange(self.ids.shape[1] - int(gone.min()), device=self.ids.device)[None]
        source = torch.where(s < kept, s, s + gone[:, None]).clamp(max=self.ids.shape[1] - 1)
        return Rows(
            self.ids.gather(1, source), self.lengths - gone, self.answer_start - gone, 0 * self.prompt_at
        )

    def select(self, rows: Tensor) -> Rows:
        """The named rows, cut to the longest of them."""
        longest = int(self.lengths[rows].max())
        return Rows(
            self.ids[rows, :longest], self.lengths[rows], self.answer_start[rows], self.prompt_at[rows]
        )

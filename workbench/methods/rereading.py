"""The prompt read again while its answer is written: what is read, and when, in generation and in scoring alike (ours).

The plainest way not to forget a prompt: nothing is trained and no model is changed, but every reading takes time and room in the
context. It puts no token into a model; `generate.write` and `answer_logits` do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError
from workbench.methods.rows import Rows
from workbench.tasks.encode import Encoded, bos_ids, continuation_ids
from workbench.tasks.world import stories

_ENDS = (".", "!", "?")


class Reread(NamedTuple):
    """A row in whose answer the prompt is read again."""

    row: Encoded
    """What is read again stands among the answer's own tokens."""
    answer: tuple[int, ...]
    """The index in `row.ids` of each of the answer's own tokens."""


class Rereading:
    """When a prompt is read again, and in which tokens.

    >>> rereading = Rereading(backbone, every=50)
    >>> rows, own = rereading.rows(Rows.collate(encoded))
    >>> logits, targets = answer_logits(backbone, rows)
    >>> loss = cross_entropy(logits[own], targets[own])        # of the answer alone

    After `every` tokens of the answer the prompt is read again as soon as a sentence has ended, or at the latest after twice as
    many; then they are counted anew. A story's prompt is read again in the words that the small world's backbones know
    ("remember : … go on :"), any other as it is, without what the tokenizer puts before a text.

    Args:
        backbone: whose tokens and context these are.
        every: tokens of the answer, at least 1.
    """

    def __init__(self, backbone: Backbone, every: int):
        if every < 1:
            raise WorkbenchError(f"a prompt is to be read again every {every} tokens; give 1 or more")
        self.backbone, self.every = backbone, every
        self._bos = tuple(bos_ids(backbone.tokenizer))

    def words(self, question: Sequence[int]) -> tuple[int, ...]:
        """The tokens in which the prompt with these token ids is read again."""
        tokenizer = self.backbone.tokenizer
        reminder = stories.reminder(str(tokenizer.decode(list(question), skip_special_tokens=True)))
        if reminder is not None:
            return tuple(continuation_ids(tokenizer, f" {reminder}"))
        given = tuple(question)
        return given[len(self._bos) :] if given[: len(self._bos)] == self._bos else given

    def due(self, since: Sequence[int]) -> bool:
        """Whether the prompt is read again after these tokens of the answer, which were written since it was last read."""
        if len(since) < self.every:
            return False
        text = str(self.backbone.tokenizer.decode([since[-1]]))
        return len(since) >= 2 * self.every or text.rstrip().endswith(_ENDS)

    def room(self, question: Sequence[int], tokens: int) -> int:
        """The most tokens that readings add to an answer of so many tokens."""
        return (tokens - 1) // self.every * len(self.words(question))

    def row(self, encoded: Encoded) -> Reread:
        """A row with its answer, the prompt read again in it; not after its last token.

        Raises:
            WorkbenchError: a row that is then longer than the context.
        """
        ids, since, at = list(encoded.ids[: encoded.answer_start]), list[int](), list[int]()
        words = self.words(ids)
        for token in encoded.ids[encoded.answer_start :]:
            if self.due(since):
                ids += words
                since = []
            at.append(len(ids))
            ids.append(token)
            since.append(token)
        limit = self.backbone.context_length
        if limit is not None and len(ids) > limit:
            raise WorkbenchError(
                f"with the prompt read again every {self.every} tokens a row has {len(ids)} tokens, but {self.backbone.name} "
                f"reads {limit}; read it less often"
            )
        return Reread(Encoded(tuple(ids), encoded.answer_start, encoded.prompt_at), tuple(at))

    def rows(self, rows: Rows) -> tuple[Rows, Tensor]:
        """The same for a batch: its rows, and which of their answer tokens (N,), row by row, are the answers' own: bool."""
        places = zip(rows.ids.tolist(), rows.lengths.tolist(), rows.answer_start.tolist(), rows.prompt_at.tolist(),
                     strict=True)  # fmt: skip
        made = [self.row(Encoded(tuple(ids[:length]), start, at)) for ids, length, start, at in places]
        own = torch.zeros(sum(len(row.ids) - row.answer_start for row, _ in made), dtype=torch.bool)
        before = 0
        for row, answer in made:
            own[torch.tensor(answer, dtype=torch.long) - row.answer_start + before] = True
            before += len(row.ids) - row.answer_start
        return Rows.collate([row for row, _ in made], rows.ids.device), own.to(rows.ids.device)

"""The order of the examples: a pure function of seed and step, so that a resumed run needs no position to be saved.

Examples are taken in a new random order each epoch. A window of them is encoded at a time and sorted by
length, so that a batch holds rows of like length; the batches of a window come in random order.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence

from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError
from workbench.tasks.encode import Encoded, TextConfig, encode
from workbench.tasks.task import Example

_WINDOW = 16  # batches sorted by length together
_REMEMBERED = (
    8192  # encoded rows kept: small data is encoded once for all epochs and for all that train on it
)


class EncodedExamples:
    """Examples as the backbone will read them: looked up by index, never all at once.

    Args:
        backbone: its tokenizer and context length.
        examples: with their answers.
        text: how they become tokens.
        prompt_length: vectors of the method, which take room in the context.
    """

    def __init__(self, backbone: Backbone, examples: Sequence[Example], text: TextConfig, prompt_length: int):
        self._count = len(examples)

        @functools.lru_cache(_REMEMBERED)
        def encoded(index: int) -> Encoded:
            return encode_for(backbone, examples[index], text, prompt_length)

        self._encoded = encoded

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Encoded:
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._encoded(index)


class Batches:
    """Batch number i of a training run, for any i.

    Args:
        examples: the training examples, encoded when they are looked up.
        batch_size: examples in a batch. Fewer examples than that make one batch of all of them.
        seed: of the order.
    """

    def __init__(self, examples: EncodedExamples, batch_size: int, seed: int):
        if not len(examples):
            raise WorkbenchError(
                "the training split is empty; give a task with at least one training example"
            )
        self.examples, self.seed = examples, seed
        self.batch_size = min(batch_size, len(examples))
        self.per_epoch = len(examples) // self.batch_size
        self._window = functools.lru_cache(maxsize=2)(self._make_window)
        self._order = functools.lru_cache(maxsize=2)(self._make_order)

    def __getitem__(self, number: int) -> list[Encoded]:
        """Batch `number`, from 0; it has the same rows whatever was asked before."""
        epoch, place = divmod(number, self.per_epoch)
        window, offset = divmod(place, _WINDOW)
        return self._window(epoch, window)[offset]

    def _make_order(self, epoch: int) -> list[int]:
        order = list(range(len(self.examples)))
        random.Random(f"order {self.seed} {epoch}").shuffle(order)
        return order

    def _make_window(self, epoch: int, window: int) -> list[list[Encoded]]:
        size = self.batch_size
        batches = min(_WINDOW, self.per_epoch - window * _WINDOW)
        first = window * _WINDOW * size
        rows = [self.examples[i] for i in self._order(epoch)[first : first + batches * size]]
        rows.sort(key=lambda e: (len(e.ids), e.ids))
        cut = [rows[b * size : (b + 1) * size] for b in range(batches)]
        random.Random(f"window {self.seed} {epoch} {window}").shuffle(cut)
        return cut


def encode_for(backbone: Backbone, example: Example, text: TextConfig, prompt_length: int) -> Encoded:
    """An example as the backbone will read it, with its answer; an answer without tokens is refused."""
    encoded = encode(example, backbone.tokenizer, text, prompt_length, backbone.context_length)
    if encoded.answer_start >= len(encoded.ids):
        raise WorkbenchError(
            f"the example {example.prompt[:60]!r} has an empty answer; leave it out or train_eos"
        )
    if encoded.answer_start == 0 and prompt_length == 0:
        raise WorkbenchError(
            "an example has an empty question and the model no BOS token; nothing predicts its answer"
        )
    return encoded

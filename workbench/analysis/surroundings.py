"""What lies around prompt vectors in one space of a backbone: its vocabulary, and the activations of tasks.

    around = Surroundings(backbone, "embeddings")      # or "layer 2": what that layer reads
    around.vocabulary, around.words                    # (M, d), M texts
    around.activations("reading")                      # (n, d)

Reads a backbone and tasks, and keeps what it has read. Measures nothing and draws nothing.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.backbones.backbone import Backbone

#: The space of input embeddings, as a method's snapshot calls its vectors there.
EMBEDDINGS = "embeddings"

#: Tokens read one by one for the vocabulary of a layer; of a larger vocabulary so many are drawn.
MOST_WORDS = 4096


class Surroundings:
    """One space of a backbone, and what fills it.

    Args:
        backbone: the frozen model.
        place: "embeddings", or "layer 0" and so on, as a method's snapshot names the places of its vectors.

    Attributes:
        layer: None for input embeddings, or the block whose input the space is.

    Raises:
        WorkbenchError: no such place in this backbone.
    """

    def __init__(self, backbone: Backbone, place: str = EMBEDDINGS):
        from workbench.methods.priors.points import check_layer

        self.backbone, self.place, self.layer = backbone, place, layer_of(place)
        check_layer(backbone, self.layer)
        self._activations: dict[tuple[str, int, int], NDArray[np.float32]] = {}
        self._reading = threading.RLock()  # two views of one panel ask at once

    @property
    def vocabulary(self) -> NDArray[np.float32]:
        """(M, d): the embedding of every token; of a layer what it reads of each token alone, of at most 4,096."""
        with self._reading:
            return self._vocabulary

    @cached_property
    def _vocabulary(self) -> NDArray[np.float32]:
        import torch

        from workbench.methods.priors.points import read_tokens

        if self.layer is None:
            return self.backbone.vocabulary().float().cpu().numpy()
        return read_tokens(self.backbone, self.layer, torch.from_numpy(self.ids)).numpy()

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """(M,) the token of each row of `vocabulary`."""
        size = self.backbone.vocabulary_size
        if self.layer is None or size <= MOST_WORDS:
            return np.arange(size)
        return np.sort(np.random.default_rng(0).choice(size, MOST_WORDS, replace=False))

    @cached_property
    def words(self) -> tuple[str, ...]:
        """M texts: each token as it is read, without the space before it."""
        texts = (str(self.backbone.tokenizer.decode([int(token)])) for token in self.ids)
        return tuple(text.strip() or repr(text) for text in texts)

    def activations(self, task: str, points: int = 1000, seed: int = 0) -> NDArray[np.float32]:
        """(n, d) of tokens of a task's texts, n at most `points`; see `priors.points.collect` for which.

        task: a name or a file, as `load_task` takes it.
        """
        from workbench.methods.priors.points import collect

        with self._reading:
            key = (task, points, seed)
            if key not in self._activations:
                self._activations[key] = collect(self.backbone, self.layer, task, points, seed).numpy()
            return self._activations[key]


def layer_of(place: str) -> int | None:
    """ "layer 3" to 3, "embeddings" to None. Raises WorkbenchError for what names no space of vectors."""
    if place == EMBEDDINGS:
        return None
    if found := re.fullmatch(r"layer (\d+)", place):
        return int(found[1])
    raise WorkbenchError(
        f"{place!r} is not a space that vectors can be compared in; choose embeddings, or a layer such as 'layer 2'"
    )


def places_of(snapshot: dict[str, Any] | Sequence[str]) -> list[str]:
    """Of the names in a method's snapshot those that are spaces of vectors: embeddings first, then layers in order."""
    named = [name for name in snapshot if name == EMBEDDINGS or re.fullmatch(r"layer \d+", name)]
    return sorted(named, key=lambda name: -1 if name == EMBEDDINGS else int(name.split()[1]))

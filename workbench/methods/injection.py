"""What a method does to a model: an `Injection`, made of sites. Holds data only; `apply.py` puts it to work.

A method turns (backbone, batch) into an Injection and knows nothing of padding, positions, caches or loss.
Today there is one site, embeddings before or between the tokens; a site is added here, as a field with its
shape, and served once in `apply.py` for every method that uses it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Injection:
    """What a method puts into one run of a backbone.

    input_embeddings: (P, width), the same vectors for every row; they stand in the sequence where the row's
        `prompt_at` says. In the space of what the embedding module returns, in any float type. None: nothing.
    """

    input_embeddings: Tensor | None = None

    @property
    def length(self) -> int:
        """Positions that the injection adds to a row."""
        return 0 if self.input_embeddings is None else len(self.input_embeddings)


NOTHING = Injection()
"""The plain backbone."""

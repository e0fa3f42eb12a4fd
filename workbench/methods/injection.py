"""What methods do to a model: an `Injection`, made of sites. Holds data only; `apply.py` puts it to work.

A method turns a backbone into an Injection and knows nothing of padding, positions, caches or loss. Every
site has a leading dimension K: an injection carries K prompts of one shape (most often K is 1), and each row
of a batch names the one that it takes. A site is added here, as a field with its shape, and served once for
every method that uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from workbench.backbones.linear_outputs import Changes
from workbench.errors import WorkbenchError
from workbench.methods.rows import Rows

KeysValues = tuple[Tensor, Tensor]

LogitChange = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits (N, V), the number of each one's row (N,), what the last block gave there before any norm (N, width)) to the logits
that take their place."""


@dataclass(frozen=True)
class Injection:
    """What K prompts put into one run of a backbone. All sites are in the space that the model itself uses there.

    input_embeddings: (K, P, width), where the row's `prompt_at` says, as if they were embedded tokens.
    layer_embeddings: layer (from 0) to (K, P_l, width): what that layer reads before all else. They stay in the
        sequence from there on or, with `cut`, leave with that layer's output. A token keeps one position in all layers.
    keys_values: for each layer (keys, values), each (K, heads, P, head size), as a cache holds them: before all else.
    state: what a recurrent backbone remembers before the first token, a cache of K rows.
    view: the same backbone with other weights (a low-rank change, say), sharing all that is unchanged; K is 1. It is run in place
        of the backbone that is given, which is refused unless this is a view of it (`Backbone.stands_for`).
    weight_changes: of B rows, what each row's instruction makes of the weights: a change for each of them, see `linear_outputs`,
        whose hooks are in `view`. The instruction but for its last token is read under the weights as they are, its last token
        and all that follows under the changed ones. What stands from `answer_start` on is not looked at; K is 1.
    logit_changes: of B rows, what each row's instruction makes of the logits that predict its answer: those after the
        instruction's last token and after all that follows. What stands from `answer_start` on is not looked at; K is 1.
    forget: whether, with weight changes, the instruction but for its last token is then left out of what the model reads.
    members: (B,) which of the K each row takes; None where K is 1.
    """

    input_embeddings: Tensor | None = None
    layer_embeddings: Mapping[int, Tensor] | None = None
    cut: bool = False
    keys_values: Sequence[KeysValues] | None = None
    state: Any = None
    view: Any = None
    weight_changes: Callable[[Rows], Changes] | None = None
    logit_changes: Callable[[Rows], LogitChange] | None = None
    forget: bool = False
    members: Tensor | None = None

    @property
    def length(self) -> int:
        """Positions that the injection adds where the row's prompt stands."""
        return 0 if self.input_embeddings is None else self.input_embeddings.shape[1]

    @property
    def front(self) -> int:
        """Positions that it takes before all else."""
        deep = sum(v.shape[1] for v in (self.layer_embeddings or {}).values())
        return deep + (self.keys_values[0][0].shape[2] if self.keys_values else 0)

    def pick(self, rows: int) -> Tensor:
        """(B,) the prompt of each of `rows` rows."""
        return torch.zeros(rows, dtype=torch.long) if self.members is None else self.members

    @property
    def shape(self) -> tuple[Any, ...]:
        """What prompts must have in common to share a batch: sites, tokens and layers."""
        return (
            None if self.input_embeddings is None else tuple(self.input_embeddings.shape[1:]),
            {layer: tuple(v.shape[1:]) for layer, v in (self.layer_embeddings or {}).items()},
            self.cut,
            [tuple(k.shape[1:]) for k, _ in self.keys_values or ()],
            self.state is None,
            self.view is None,
            self.weight_changes is None,
            self.logit_changes is None,
        )

    @property
    def apart(self) -> bool:
        """Whether it takes a batch of its own: what changes weights or logits has K = 1."""
        return self.view is not None or self.logit_changes is not None

    def select(self, rows: Tensor) -> Injection:
        """The same for the named rows of the batch."""
        return self if self.members is None else replace(self, members=self.members[rows])


NOTHING = Injection()
"""The plain backbone."""


def join(injections: Sequence[Injection], members: Tensor) -> Injection:
    """Several injections of one shape (each of K = 1) as one of K; `members` (B,) names each row's.

    Raises:
        WorkbenchError: they differ in sites or shapes.
    """
    first = injections[0]
    if len(injections) == 1:
        return replace(first, members=members)
    if any(other.shape != first.shape for other in injections):
        raise WorkbenchError(
            "prompts of one batch need one shape, but these differ in tokens, layers or kind; "
            "train or run them apart"
        )
    if first.apart:
        raise WorkbenchError(
            "methods that change weights or logits run one at a time; give one of them a batch of its own"
        )

    def cat(get: Any, dim: int = 0) -> Tensor:
        return torch.cat([get(injection) for injection in injections], dim)

    return Injection(
        None if first.input_embeddings is None else cat(lambda i: i.input_embeddings),
        {layer: cat(lambda i, at=layer: i.layer_embeddings[at]) for layer in first.layer_embeddings}
        if first.layer_embeddings
        else None,
        first.cut,
        [(cat(lambda i, at=n: i.keys_values[at][0]), cat(lambda i, at=n: i.keys_values[at][1]))
         for n in range(len(first.keys_values))] if first.keys_values else None,
        type(first.state)(*(torch.cat(parts, 1) for parts in zip(*(i.state for i in injections), strict=True)))
        if first.state is not None
        else None,
        members=members,
    )  # fmt: skip

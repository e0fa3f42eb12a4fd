"""The watch of a trace: collects hidden states, states and probabilities while rows are read and written.

It sees what a `Decoder` runs, once, and keeps what was asked for. Chooses no tokens, pads nothing, writes no files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.analysis.surroundings import EMBEDDINGS
from workbench.analysis.trace_places import layer_number, state_number
from workbench.backbones.backbone import Backbone
from workbench.backbones.layer_inputs import seeing
from workbench.backbones.runner import Output
from workbench.backbones.states import read_state
from workbench.tasks.encode import Encoded

# logits that are turned into probabilities at a time; on a CPU so few that they stay in its cache
_SCORED, _SCORED_ON_CPU = 1 << 24, 1 << 20


class TraceWatch:
    """Sees B rows, see `apply.Watch`.

    Args:
        backbone: the model that is run.
        rows: as encoded.
        prompt: vectors that a method puts before `prompt_at`.
        places: names of `trace_places`.
        wanted: for each row the indices of its tokens to keep, those to be written among them.
        room: tokens that may be written.

    Attributes:
        tokens: of each row, its own and those written.
    """

    def __init__(
        self,
        backbone: Backbone,
        rows: Sequence[Encoded],
        prompt: int,
        places: Sequence[str],
        wanted: Sequence[Sequence[int]],
        room: int = 0,
    ):
        self.tokens = [list(row.ids) for row in rows]
        self._prompt_at, self._prompt = [row.prompt_at for row in rows], prompt
        self._layers = {
            number: place for place in places if (number := layer_number(backbone, place)) is not None
        }
        self._states = {place: number for place in places if (number := state_number(place)) is not None}
        self._backbone, self._embeddings = backbone, EMBEDDINGS in places
        device = backbone.device
        size = max(len(row.ids) for row in rows) + prompt + room
        ids = np.full((len(rows), size), -1)
        kept = np.zeros((len(rows), size), bool)
        for row, own in enumerate(self.tokens):
            ids[row, [self._place(row, i) for i in range(len(own))]] = own
            kept[row, [self._place(row, i) for i in wanted[row]]] = True
        self._ids, self._kept = torch.from_numpy(ids).to(device), torch.from_numpy(kept).to(device)
        self._read = torch.zeros(len(rows), dtype=torch.long, device=device)
        self._scores = torch.full(ids.shape, torch.nan, device=device)
        self._found: dict[str, list[Tensor]] = {place: [] for place in places if place != EMBEDDINGS}
        self._order: list[Tensor] = []

    def _place(self, row: int, index: int) -> int:
        """Where a token stands among all that its row reads."""
        return index + self._prompt * (index >= self._prompt_at[row])

    def ends(self, rows: Sequence[int], places: Tensor) -> Sequence[int]:
        """A state is looked at after each token that is wanted, so the read pauses there.

        And after every later one where several tokens behind a cache come out wrong.
        """
        if not self._states:
            return []
        wanted = self._wanted(torch.tensor(rows, device=places.device), places).any(0)
        if not self._backbone.layouts.shared_prefix:
            wanted = wanted.cumsum(0) > 0
        return [end for end in (wanted.nonzero()[:, 0] + 1).tolist() if end < places.shape[1]]

    def _wanted(self, rows: Tensor, places: Tensor) -> Tensor:
        """(B, T) of places (B, T): those to keep."""
        return self._kept[rows].gather(1, places.clamp(min=0)) & (places >= 0)

    def run(
        self, rows: Sequence[int], places: Tensor, last: Tensor, model: Callable[[Tensor], Output]
    ) -> Output:
        """One run of the model, looked into; see `apply.Watch.run`."""
        index = torch.tensor(rows, device=places.device)
        new = places >= self._read[index, None]  # a backbone without a cache reads a row again for each token
        self._read[index] = torch.maximum(self._read[index], places.amax(1) + 1)
        take = new & self._wanted(index, places)
        row, column = take.nonzero(as_tuple=True)
        flat = row * places.shape[1] + column

        def look(layer: int, hidden: Tensor) -> None:
            if layer in self._layers:
                self._found[self._layers[layer]].append(_kept(hidden.flatten(0, 1)[flat]))

        following = (places + 1).clamp(max=self._ids.shape[1] - 1)
        targets = self._ids[index].gather(1, following)
        scored = new & self._wanted(index, following) & (targets >= 0) & (following > places)
        keep = scored | last
        with seeing(look):
            output = model(keep)
        if len(flat):
            self._order.append(torch.stack([index[row], places[row, column]]).cpu())
        for place, number in self._states.items():  # what is kept stands in a run's last column, see `ends`
            self._found[place].append(_kept(read_state(self._backbone, output.cache, number)[row]))
        if bool(scored.any()):
            # the few rows that were kept for their next token are scored as well, since leaving them out copies the others
            all_scores = log_probabilities(output.logits, targets[keep].clamp(min=0))
            rows_at, columns_at = scored.nonzero(as_tuple=True)
            self._scores[index[rows_at], following[rows_at, columns_at]] = all_scores[scored[keep]]
            output = output._replace(logits=output.logits[last[keep]])
        return output

    def wrote(self, rows: Sequence[int], tokens: Tensor, logits: Tensor) -> None:
        """Note what was written, and how likely it was."""
        places = [self._place(row, len(self.tokens[row])) for row in rows]
        self._scores[list(rows), places] = log_probabilities(logits, tokens)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            self.tokens[row].append(token)

    def result(self) -> tuple[NDArray[np.int64], NDArray[np.float32], dict[str, Tensor]]:
        """What was read and kept, row by row and in order: (n, 2) row and index of the token, (n,) its log-probability
        in nats (NaN where nothing stands before it that the head was given), and place to (n, width) on the CPU."""
        seen = torch.cat(self._order, 1).numpy() if self._order else np.zeros((2, 0), np.int64)
        order = np.lexsort((seen[1], seen[0]))
        row, place = seen[:, order]
        starts = np.asarray(self._prompt_at)[row] + self._prompt
        index = np.where(place >= starts, place - self._prompt, place)
        pick = torch.from_numpy(order)
        sorted_already = bool((order == np.arange(len(order))).all())
        arrays = {}
        for name, parts in self._found.items():
            whole = torch.cat(parts) if len(parts) > 1 else parts[0]
            arrays[name] = whole if sorted_already else whole[pick]
        if self._embeddings:
            ids = [self.tokens[r][i] for r, i in zip(row, index, strict=True)]
            arrays[EMBEDDINGS] = _kept(self._backbone.embed(torch.tensor(ids, dtype=torch.long)))
        scores = self._scores.cpu().numpy()[row, place]
        return np.stack([row, index], 1), scores, arrays


def log_probabilities(logits: Tensor, tokens: Tensor) -> Tensor:
    """(N,) log-probability in nats of tokens (N,) under logits (N, V), float32; a few rows at a time."""
    most = _SCORED_ON_CPU if logits.device.type == "cpu" else _SCORED
    size = max(1, most // logits.shape[1])
    parts = zip(logits.split(size), tokens.split(size), strict=True)
    return torch.cat(
        [-torch.nn.functional.cross_entropy(part.float(), t, reduction="none") for part, t in parts]
    )


def _kept(vectors: Tensor) -> Tensor:
    return vectors.detach().to("cpu", torch.float32)

"""Points: vectors of one space of a backbone, collected from data. What the fitted priors are fitted to.

`collect` takes them from a task or from the vocabulary, `read` from given rows of tokens. A point is a token of
the text: what the tokenizer puts before a text (BOS) is read, so that the text is read as ever, and is no point;
neither is a pad. Knows no distribution and keeps nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from workbench.backbones.backbone import Backbone
from workbench.backbones.layer_inputs import reading
from workbench.errors import WorkbenchError
from workbench.tasks.encode import TextConfig, bos_ids, encode
from workbench.tasks.task import Task, load_task

Data = str | dict[str, Any] | None
"""A task by its name, or by `Task.to_config()`; None is the vocabulary."""

_SPREAD = 4  # so many times the points are looked through, that they come from more than the first few texts
_TOKENS = 8192  # in one run of the backbone, pads among them


def collect(backbone: Backbone, layer: int | None, data: Data, points: int, seed: int = 0) -> Tensor:
    """Vectors of one space, from data: (n, width) float32 on the CPU, the same for the same arguments.

    From a task: its own split's examples in an order drawn with `seed`, question and answer as one text, read until
    4 * points tokens are there (or all are); of these, `points` are drawn without replacement, so a token that occurs
    twice counts twice. From the vocabulary: for embeddings every token's, whatever `points` is; for a layer what it
    reads of a token alone, for `points` tokens drawn without replacement, or all.

    Args:
        backbone: the model.
        layer: None for input embeddings, or a block from 0, for what it reads.
        data: a task, or None for the vocabulary.
        points: the most vectors to collect.
        seed: of the examples' order and of the draws.

    Raises:
        WorkbenchError: no such layer or task, or a task without tokens.
    """
    check_layer(backbone, layer)
    dice = torch.Generator().manual_seed(seed)
    if data is None:
        if layer is None:
            return backbone.vocabulary().float().cpu()
        return read_tokens(backbone, layer, _some(backbone.vocabulary_size, points, dice))
    task = load_task(data) if isinstance(data, str) else Task.from_config(data)
    rows, places = _texts(backbone, task, points, dice)
    return read(backbone, layer, rows, places)


def read(
    backbone: Backbone, layer: int | None, rows: Sequence[Sequence[int]], places: Sequence[Sequence[int]]
) -> Tensor:
    """What stands at the places of rows of tokens, each row read by itself.

    Args:
        backbone: the model.
        layer: None for the tokens' embeddings, or a block, for what it reads there.
        rows: token ids; rows share a batch only where that is exact (`backbone.layouts`).
        places: for each row, the positions that are wanted.

    Returns:
        (n, width) float32 on the CPU, n the number of places, row by row.
    """
    check_layer(backbone, layer)
    if not any(map(len, places)):
        return torch.empty(0, width_of(backbone, layer))
    with torch.no_grad():
        if layer is None:
            chosen = [row[place] for row, wanted in zip(rows, places, strict=True) for place in wanted]
            return backbone.embed(torch.tensor(chosen, dtype=torch.long)).float().cpu()
        longest, limit = max(map(len, rows), default=0), backbone.context_length
        if limit is not None and longest > limit:
            raise WorkbenchError(
                f"a text of {longest} tokens does not fit into the {limit} that {backbone.name} reads; shorten it"
            )
        found: dict[int, Tensor] = {}
        for batch in _batches([len(row) for row in rows], backbone.layouts.right_padding):
            ids, mask = _padded([rows[b] for b in batch], backbone.device)
            hidden = _layer_input(backbone, layer, backbone.embed(ids), mask)
            for b, states in zip(batch, hidden, strict=True):
                found[b] = states[list(places[b])].float().cpu()
        return torch.cat([found[b] for b in range(len(rows))])


def read_tokens(backbone: Backbone, layer: int | None, ids: Tensor) -> Tensor:
    """(n,) tokens, each read alone, to (n, width) float32 on the CPU."""
    if layer is None:
        return read(backbone, None, [ids.tolist()], [range(len(ids))])
    return read(backbone, layer, ids[:, None].tolist(), [(0,)] * len(ids))


def read_texts(backbone: Backbone, layer: int | None, texts: Sequence[Sequence[int]]) -> Tensor:
    """Tokens of texts, each text read behind what the tokenizer puts before one: (n, width) for all its own tokens."""
    head = bos_ids(backbone.tokenizer)
    rows = [[*head, *ids] for ids in texts]
    return read(backbone, layer, rows, [range(len(head), len(row)) for row in rows])


def read_vectors(backbone: Backbone, layer: int | None, vectors: Tensor) -> Tensor:
    """Input embeddings (P, width), read as one row and alone: (P, width) float32 on the CPU, what the layer reads there.

    In a causal model these are also what it reads there with any text behind them.
    """
    check_layer(backbone, layer)
    if layer is None:
        return vectors.float().cpu()
    with torch.no_grad():
        row = vectors.to(backbone.device, backbone.dtype)[None]
        mask = torch.ones(row.shape[:2], dtype=torch.bool, device=row.device)
        return _layer_input(backbone, layer, row, mask)[0].float().cpu()


def check_layer(backbone: Backbone, layer: int | None) -> None:
    """Refuse a layer that the backbone does not have."""
    if layer is not None and not 0 <= layer < backbone.num_layers:
        raise WorkbenchError(
            f"{backbone.name} has no layer {layer}; give one from 0 to {backbone.num_layers - 1}, "
            "or None for the input embeddings"
        )


def width_of(backbone: Backbone, layer: int | None) -> int:
    """Length of a vector of that space; checks the layer."""
    check_layer(backbone, layer)
    if layer is None:
        return backbone.width
    return int(getattr(backbone.model.config.get_text_config(), "hidden_size", backbone.width))


def _some(size: int, most: int, dice: torch.Generator) -> Tensor:
    """Indices below `size` in rising order: all of them, or `most` drawn without replacement."""
    return torch.arange(size) if size <= most else torch.randperm(size, generator=dice)[:most].sort().values


def _texts(
    backbone: Backbone, task: Task, points: int, dice: torch.Generator
) -> tuple[list[tuple[int, ...]], list[list[int]]]:
    """Rows of tokens from a task's examples, and the places in them that are points."""
    head = len(bos_ids(backbone.tokenizer))
    examples, config = task.examples(), TextConfig(train_eos=False)
    rows: list[tuple[int, ...]] = []
    tokens: list[tuple[int, int]] = []
    for index in torch.randperm(len(examples), generator=dice).tolist():
        ids = encode(examples[index], backbone.tokenizer, config, context_length=backbone.context_length).ids
        tokens += [(len(rows), place) for place in range(head, len(ids))]
        rows.append(ids)
        if len(tokens) >= _SPREAD * points:
            break
    if not tokens:
        raise WorkbenchError(
            f"the split {task.split!r} of {task.name} has no tokens; give data with examples"
        )
    places: dict[int, list[int]] = defaultdict(list)
    for chosen in _some(len(tokens), points, dice).tolist():
        row, place = tokens[chosen]
        places[row].append(place)
    return [rows[r] for r in places], list(places.values())


def _batches(lengths: Sequence[int], ragged: bool) -> Iterator[list[int]]:
    """Row numbers that share a run: short rows first, of one length unless `ragged`."""
    batch: list[int] = []
    for b in sorted(range(len(lengths)), key=lambda b: lengths[b]):
        full = (len(batch) + 1) * lengths[b] > _TOKENS
        if batch and (full or (not ragged and lengths[b] != lengths[batch[0]])):
            yield batch
            batch = []
        batch.append(b)
    if batch:
        yield batch


def _padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of tokens as ids (B, T), padded on the right, and mask (B, T)."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return ids, torch.arange(longest, device=device)[None] < lengths[:, None]


def _layer_input(backbone: Backbone, layer: int, embeddings: Tensor, mask: Tensor) -> Tensor:
    """(B, T, width): what the layer reads of rows padded on the right."""
    first = torch.zeros_like(mask)  # the head is not looked at, so it gets one position
    first[0, 0] = True
    seen: list[Tensor] = []

    def look(index: int, hidden: Tensor) -> Tensor:
        if index == layer:
            seen.append(hidden.detach())
        return hidden

    with reading(look):
        backbone.runner(embeddings, mask, (mask.long().cumsum(1) - 1).clamp(min=0), keep=first)
    return seen[0]

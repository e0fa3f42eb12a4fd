"""Which ways of laying out a batch are exact for a backbone: found by trying, never by its class name.

Rows of different length can share a batch in several ways, and each is wrong for some architecture: left
pads enter a recurrent state, a cache is restarted when several tokens follow it, a cached token decodes
wrongly in a batch. `probe` runs each layout once, on a few random tokens, and compares it with every row
alone. Only layouts that pass are used. This file decides nothing about prompts or training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.backbones.runner import Runner

_LENGTHS = (11, 7, 10)  # rows of the probe; longer than the sliding windows of small test models
_DECODED = 3  # tokens fed one by one after a prefill


@dataclass(frozen=True)
class Layouts:
    """What may be done with a backbone without changing its logits (ours).

    right_padding: rows of different length, pads after them, in one run without a cache.
    left_padding: rows with pads before them, prefilled, then continued from the cache token by token.
    decoding: rows of equal length, prefilled, then continued from the cache token by token.
    shared_prefix: a prefix run once, its cache expanded to the rows, the rows padded on the right.
    padding_after_prefix: the same, the rows padded on the left, then continued token by token.
    """

    right_padding: bool
    left_padding: bool
    decoding: bool
    shared_prefix: bool
    padding_after_prefix: bool


def probe(runner: Runner, vocabulary: Tensor) -> Layouts:
    """Try every layout against rows run alone.

    A layout is exact when no logit at a real token moves by more than a small part of what a known mistake
    moves it by: letting one more token in at the start of the row. Measuring against a mistake makes the
    verdict independent of the scale of the weights.

    Args:
        runner: the model.
        vocabulary: (V, width) what the embedding module returns for each token.
    """
    device, dtype = vocabulary.device, vocabulary.dtype
    dice = torch.Generator().manual_seed(0)
    ids = [torch.randint(len(vocabulary), (n,), generator=dice).to(device) for n in _LENGTHS]
    with torch.no_grad():
        rows = [vocabulary[i] for i in ids]
        alone = [_alone(runner, row) for row in rows]
        intruder = [_alone(runner, torch.cat([vocabulary[:1], row]))[1:] for row in rows]
        mistake = min(float((a - b).abs().max()) for a, b in zip(alone, intruder, strict=True))
        tolerance = mistake * (1e-2 if dtype == torch.float32 or dtype == torch.float64 else 0.2)

        def exact(layout: Any) -> bool:
            try:
                found = layout(runner, rows)
            except (
                RuntimeError,
                ValueError,
                TypeError,
                AttributeError,
                NotImplementedError,
                IndexError,
                KeyError,
            ):
                return False  # a model that cannot run a layout cannot serve it
            return found is not None and all(
                bool(torch.isfinite(f).all()) and float((f - a[-len(f) :]).abs().max()) <= tolerance
                for f, a in zip(found, alone, strict=True)
            )

        return Layouts(
            right_padding=exact(_right_padding),
            left_padding=exact(_left_padding),
            decoding=exact(_decoding),
            shared_prefix=exact(_shared_prefix) and _shared_gradient(runner, rows[0]),
            padding_after_prefix=exact(_padding_after_prefix),
        )


def _alone(runner: Runner, row: Tensor) -> Tensor:
    """(T, V) logits of one row by itself."""
    mask = torch.ones(1, len(row), dtype=torch.bool, device=row.device)
    return runner(row[None], mask, _positions(mask)).logits[0].float()


def _positions(mask: Tensor) -> Tensor:
    """(B, T) position ids counted over real tokens; pads get 0."""
    return (mask.long().cumsum(1) - 1).clamp(min=0)


def _pad(rows: list[Tensor], left: bool) -> tuple[Tensor, Tensor]:
    """Rows to one (B, T, width) batch and its (B, T) mask. The pad is a real embedding, so that a leak shows."""
    longest = max(len(r) for r in rows)
    batch = rows[0][:1].expand(longest, -1).repeat(len(rows), 1, 1)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool, device=rows[0].device)
    for b, row in enumerate(rows):
        where = slice(longest - len(row), None) if left else slice(0, len(row))
        batch[b, where], mask[b, where] = row, True
    return batch, mask


def _right_padding(runner: Runner, rows: list[Tensor]) -> list[Tensor]:
    batch, mask = _pad(rows, left=False)
    logits = runner(batch, mask, _positions(mask)).logits.float()
    return [logits[b, : len(row)] for b, row in enumerate(rows)]


def _continue(
    runner: Runner, rows: list[Tensor], left: bool, prefix: Tensor | None = None
) -> list[Tensor] | None:
    """Prefill all but the last tokens of each row, then feed those one by one from the cache; behind a prefix's."""
    batch, mask = _pad([r[:-_DECODED] for r in rows], left)
    positions, cache = _positions(mask), None
    if prefix is not None:
        ones = torch.ones(1, len(prefix), dtype=torch.bool, device=prefix.device)
        cache = runner(prefix[None], ones, _positions(ones), use_cache=True).cache
        if cache is None:
            return None
        cache = runner.expand(cache, len(rows))
        mask, positions = torch.cat([ones.expand(len(rows), -1), mask], dim=1), positions + len(prefix)
    output = runner(batch, mask, positions, cache, use_cache=True)
    if output.cache is None:
        return None
    found = [output.logits[:, -1:]]
    order = torch.arange(len(rows), device=mask.device)
    for step in range(_DECODED):
        token = torch.stack([r[len(r) - _DECODED + step] for r in rows])[:, None]
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        cache = runner.select(output.cache, order)
        output = runner(token, mask, mask.long().sum(1, keepdim=True) - 1, cache, use_cache=True)
        found.append(output.logits)
    return list(torch.cat(found, dim=1).float())


def _left_padding(runner: Runner, rows: list[Tensor]) -> list[Tensor] | None:
    return _continue(runner, rows, left=True)


def _padding_after_prefix(runner: Runner, rows: list[Tensor]) -> list[Tensor] | None:
    """Each row's own first tokens as a prefix, the rest left-padded beside a longer row."""
    found = []
    for row in rows:
        pair = _continue(runner, [row[3:], rows[0]], left=True, prefix=row[:3])
        if pair is None:
            return None
        found.append(pair[0])
    return found


def _decoding(runner: Runner, rows: list[Tensor]) -> list[Tensor] | None:
    shortest = min(len(r) for r in rows)
    found = []
    for row in rows:  # each row as two equal ones, so that a model wrong only in a batch is caught
        pair = _continue(runner, [row, row.flip(0)], left=False)
        if pair is None:
            return None
        found.append(pair[0])
    return found if shortest > _DECODED else None


def _shared_prefix(runner: Runner, rows: list[Tensor]) -> list[Tensor] | None:
    """Each row's own first tokens as a prefix shared by two rows of different length."""
    found = []
    for row in rows:
        logits = _behind_prefix(runner, row[:4], row[4:])
        if logits is None:
            return None
        found.append(logits)
    return found


def _behind_prefix(runner: Runner, prefix: Tensor, rest: Tensor) -> Tensor | None:
    """(T, V) logits of `rest` behind a prefix whose cache it shares with a shorter row."""
    ones = torch.ones(1, len(prefix), dtype=torch.bool, device=prefix.device)
    cache = runner(prefix[None], ones, _positions(ones), use_cache=True).cache
    if cache is None:
        return None
    batch, mask = _pad([rest, rest.flip(0)[:2]], left=False)
    whole = torch.cat([ones.expand(2, -1), mask], dim=1)
    logits = runner(batch, whole, _positions(whole)[:, len(prefix) :], runner.expand(cache, 2)).logits
    return logits[0, : len(rest)].float()


def _shared_gradient(runner: Runner, row: Tensor) -> bool:
    """Whether the gradient reaches a shared prefix whole; caches that copy in place may lose it."""
    gradients = []
    with torch.enable_grad():
        for shared in (True, False):
            prefix = row[:4].detach().clone().requires_grad_(True)
            if shared:
                logits = _behind_prefix(runner, prefix, row[4:])
            else:
                logits = _alone(runner, torch.cat([prefix, row[4:]]))[4:]
            assert logits is not None
            try:
                gradients.append(torch.autograd.grad(logits.log_softmax(-1)[:, 0].sum(), prefix)[0].float())
            except RuntimeError:
                return False
    error, size = (gradients[0] - gradients[1]).norm(), gradients[1].norm()
    return (
        bool(error <= (1e-3 if row.dtype in (torch.float32, torch.float64) else 0.1) * size)
        and float(size) > 0
    )

"""Puts an injection into a backbone: padding, positions, caches and the answer's logits, written once.

Two ways in. `answer_logits` runs whole rows and returns the logits that predict their answers: training,
validation and perplexity. `Decoder` prefills rows and then feeds tokens: generation. Both use the cheapest
layout that is exact for the backbone (`backbones/layouts.py`); both give a row the same logits whatever its
neighbours are. Nothing here knows a method, and nothing is written into the model.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError
from workbench.methods.injection import NOTHING, Injection
from workbench.methods.rows import Rows


@dataclass(frozen=True)
class Assembled:
    """Rows with their prompts in place: embeddings (B, S, width), padded on the right, lengths (B,)."""

    embeddings: Tensor
    lengths: Tensor

    @property
    def mask(self) -> Tensor:
        """(B, S) bool, True at real positions."""
        return (
            torch.arange(self.embeddings.shape[1], device=self.lengths.device)[None] < self.lengths[:, None]
        )


def assemble(backbone: Backbone, injection: Injection, rows: Rows) -> Assembled:
    """Embed the tokens and put the prompt before token `prompt_at` of each row."""
    tokens = backbone.embed(rows.ids)
    prompt = _prompt(backbone, injection)
    if prompt is None:
        return Assembled(tokens, rows.lengths)
    size, batch = len(prompt), len(rows)
    prompt = prompt.expand(batch, *prompt.shape)
    place = int(rows.prompt_at[0])
    if bool((rows.prompt_at == place).all()):
        embeddings = torch.cat([tokens[:, :place], prompt, tokens[:, place:]], dim=1)
    else:  # position s holds token s, then prompt s - place, then token s - size
        s = torch.arange(tokens.shape[1] + size, device=tokens.device)[None]
        at = rows.prompt_at[:, None]
        source = torch.where(s < at, s + size, torch.where(s < at + size, s - at, s))
        both = torch.cat([prompt, tokens], dim=1)
        embeddings = both.gather(1, source[..., None].expand(-1, -1, tokens.shape[2]))
    check_context(backbone, int(rows.lengths.max()) + size, size)
    return Assembled(embeddings, rows.lengths + size)


def check_context(backbone: Backbone, needed: int, prompt: int) -> None:
    """Refuse rows that do not fit the backbone, with the two lengths."""
    limit = backbone.context_length
    if limit is not None and needed > limit:
        raise WorkbenchError(
            f"{needed} tokens are needed ({prompt} of them the prompt), but {backbone.name} reads {limit}; "
            "shorten the prompt, set max_tokens in the text settings, or generate fewer tokens"
        )


def answer_logits(
    backbone: Backbone,
    rows: Rows,
    injection: Injection = NOTHING,
    share_prefix: bool = True,
    keep_answers: bool = True,
) -> tuple[Tensor, Tensor]:
    """Logits that predict the answers, and the answers' tokens.

    The prompt is run once and its cache is shared by the rows where that is exact, and only the positions
    before answer tokens go through the head. Gradients reach the injection.

    Args:
        backbone: the frozen model.
        rows: B rows with their answers.
        injection: what the method puts in.
        share_prefix, keep_answers: switch a trick off, to measure or to test it.

    Returns:
        (N, V) logits and (N,) token ids, N the number of answer tokens, row by row.
    """
    s = torch.arange(rows.ids.shape[1], device=rows.ids.device)[None]
    answers = (s >= rows.answer_start[:, None]) & (s < rows.lengths[:, None])
    targets = rows.ids[answers]
    if not backbone.layouts.right_padding:
        return _one_by_one(backbone, rows, injection, keep_answers), targets
    if share_prefix and _prefix_is_shared(backbone, rows, injection):
        logits = _after_shared_prefix(backbone, rows, injection, answers, keep_answers)
    else:
        logits = _whole_rows(backbone, rows, injection, keep_answers)
    return logits, targets


def _prompt(backbone: Backbone, injection: Injection) -> Tensor | None:
    """(P, width) in the backbone's type, so that a float32 prompt serves a bfloat16 backbone."""
    if injection.input_embeddings is None or len(injection.input_embeddings) == 0:
        return None
    return injection.input_embeddings.to(backbone.device, backbone.dtype)


def _prefix_is_shared(backbone: Backbone, rows: Rows, injection: Injection) -> bool:
    place = int(rows.prompt_at[0])
    return (
        injection.length > 0
        and len(rows) > 1
        and backbone.layouts.shared_prefix
        and bool((rows.prompt_at == place).all())
        and bool((rows.answer_start > place).all())  # else the prompt's last vector predicts an answer
        and bool((rows.ids[:, :place] == rows.ids[:1, :place]).all())
    )


def _after_shared_prefix(
    backbone: Backbone, rows: Rows, injection: Injection, answers: Tensor, keep_answers: bool
) -> Tensor:
    place = int(rows.prompt_at[0])
    prompt = _prompt(backbone, injection)
    assert prompt is not None
    check_context(backbone, int(rows.lengths.max()) + len(prompt), len(prompt))
    prefix = torch.cat([backbone.embed(rows.ids[0, :place]), prompt])[None]
    ones = torch.ones(1, prefix.shape[1], dtype=torch.bool, device=prefix.device)
    last = torch.zeros_like(ones)
    last[:, -1] = True
    cache = backbone.runner(prefix, ones, _count(ones), use_cache=True, keep=last).cache
    cache = backbone.runner.expand(cache, len(rows))

    tokens = rows.ids[:, place:]
    real = torch.arange(tokens.shape[1], device=tokens.device)[None] < (rows.lengths - place)[:, None]
    mask = torch.cat([ones.expand(len(rows), -1), real], dim=1)
    positions = _count(mask)[:, prefix.shape[1] :]
    keep = torch.zeros_like(real)
    keep[:, :-1] = answers[:, place + 1 :]
    embeddings = backbone.embed(tokens)
    if keep_answers:
        return backbone.runner(embeddings, mask, positions, cache, keep=keep).logits
    return backbone.runner(embeddings, mask, positions, cache).logits[keep]


def _whole_rows(backbone: Backbone, rows: Rows, injection: Injection, keep_answers: bool) -> Tensor:
    whole = assemble(backbone, injection, rows)
    mask = whole.mask
    s = torch.arange(mask.shape[1], device=mask.device)[None]
    # an answer follows the prompt, so its first token stands at answer_start + P and is predicted just before
    keep = (s >= (rows.answer_start + injection.length - 1)[:, None]) & (s < (whole.lengths - 1)[:, None])
    if keep_answers:
        return backbone.runner(whole.embeddings, mask, _count(mask), keep=keep).logits
    return backbone.runner(whole.embeddings, mask, _count(mask)).logits[keep]


def _one_by_one(backbone: Backbone, rows: Rows, injection: Injection, keep_answers: bool) -> Tensor:
    each = torch.arange(len(rows), device=rows.ids.device)
    return torch.cat(
        [_whole_rows(backbone, rows.select(each[b : b + 1]), injection, keep_answers) for b in each]
    )


def _count(mask: Tensor) -> Tensor:
    """(B, S) position ids counted over real positions; pads get 0 or their predecessor's."""
    return (mask.long().cumsum(1) - 1).clamp(min=0)


class Decoder:
    """Rows read once, then continued token by token, each exactly as it would be alone.

    `next_logits` gives (B, V) for the rows still going, `feed` appends one token to each, `drop` lets
    finished rows go. Three layouts, by what is exact for the backbone: all rows left-padded over one cache;
    rows of equal length over a cache for each length; or every row read again for each token.
    """

    def __init__(self, backbone: Backbone, rows: Rows, injection: Injection = NOTHING):
        whole = assemble(backbone, injection, rows)
        layouts = backbone.layouts
        order = torch.arange(len(rows), device=whole.lengths.device)
        same = bool((whole.lengths == whole.lengths[0]).all())
        if layouts.left_padding or (layouts.decoding and same):
            groups = [order]
        elif layouts.decoding:
            by_length: dict[int, list[int]] = defaultdict(list)
            for row, length in enumerate(whole.lengths.tolist()):
                by_length[length].append(row)
            groups = [torch.tensor(rows, device=order.device) for rows in by_length.values()]
        else:
            groups = [order]
        cached = layouts.left_padding or layouts.decoding
        make = _CachedRows if cached else _RepeatedRows
        self.groups: list[_CachedRows | _RepeatedRows] = [
            make(backbone, whole.embeddings[g, : int(whole.lengths[g].max())], whole.lengths[g])
            for g in groups
        ]
        self.rows = [g.tolist() for g in groups]

    @property
    def active(self) -> list[int]:
        """Row numbers, in the order in which `next_logits` gives them."""
        return [row for rows in self.rows for row in rows]

    def next_logits(self) -> Tensor:
        """(len(active), V) logits of each row's next token, float32."""
        return torch.cat([group.logits for group in self.groups]).float()

    def feed(self, tokens: Tensor) -> None:
        """Append tokens (len(active),), in the order of `active`."""
        for group, part in zip(self.groups, tokens.split([len(r) for r in self.rows]), strict=True):
            group.feed(part)

    def drop(self, finished: set[int]) -> None:
        """Let these row numbers go."""
        kept_groups, kept_rows = [], []
        for group, rows in zip(self.groups, self.rows, strict=True):
            stay = [i for i, row in enumerate(rows) if row not in finished]
            if not stay:
                continue
            if len(stay) < len(rows):
                group.select(torch.tensor(stay, device=group.logits.device))
            kept_groups.append(group)
            kept_rows.append([rows[i] for i in stay])
        self.groups, self.rows = kept_groups, kept_rows


class _CachedRows:
    """Rows over one cache, padded on the left."""

    def __init__(self, backbone: Backbone, embeddings: Tensor, lengths: Tensor):
        self.backbone = backbone
        size = embeddings.shape[1]
        s = torch.arange(size, device=lengths.device)[None]
        shift = (size - lengths)[:, None]
        self.mask = s >= shift
        source = (s - shift).clamp(min=0)[..., None].expand(-1, -1, embeddings.shape[2])
        self.cache: Any = None
        self._run(embeddings.gather(1, source), _count(self.mask))

    def _run(self, embeddings: Tensor, positions: Tensor) -> None:
        keep = torch.zeros(embeddings.shape[:2], dtype=torch.bool, device=embeddings.device)
        keep[:, -1] = True
        output = self.backbone.runner(embeddings, self.mask, positions, self.cache, use_cache=True, keep=keep)
        self.logits, self.cache = output

    def feed(self, tokens: Tensor) -> None:
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
        self._run(self.backbone.embed(tokens[:, None]), self.mask.long().sum(1, keepdim=True) - 1)

    def select(self, rows: Tensor) -> None:
        self.mask, self.logits = self.mask[rows], self.logits[rows]
        self.cache = self.backbone.runner.select(self.cache, rows)


class _RepeatedRows:
    """Rows read again for each token, for backbones whose cache cannot be trusted."""

    def __init__(self, backbone: Backbone, embeddings: Tensor, lengths: Tensor):
        self.backbone, self.embeddings, self.lengths = backbone, embeddings, lengths
        self._run()

    def _run(self) -> None:
        mask = Assembled(self.embeddings, self.lengths).mask
        last = torch.arange(mask.shape[1], device=mask.device)[None] == (self.lengths - 1)[:, None]
        if self.backbone.layouts.right_padding:
            self.logits = self.backbone.runner(self.embeddings, mask, _count(mask), keep=last).logits
        else:
            parts = []
            for b, length in enumerate(self.lengths.tolist()):
                row = slice(b, b + 1), slice(0, length)
                parts.append(
                    self.backbone.runner(
                        self.embeddings[row], mask[row], _count(mask[row]), keep=last[row]
                    ).logits
                )
            self.logits = torch.cat(parts)

    def feed(self, tokens: Tensor) -> None:
        room = torch.zeros_like(self.embeddings[:, :1])
        self.embeddings = torch.cat([self.embeddings, room], dim=1)
        self.embeddings[torch.arange(len(tokens)), self.lengths] = self.backbone.embed(tokens)
        self.lengths = self.lengths + 1
        self._run()

    def select(self, rows: Tensor) -> None:
        self.embeddings, self.lengths, self.logits = (
            self.embeddings[rows],
            self.lengths[rows],
            self.logits[rows],
        )

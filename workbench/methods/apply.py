"""Puts an injection into a backbone: padding, positions, caches and the answer's logits, written once.

Two ways in. `answer_logits` runs whole rows and returns the logits that predict their answers: training,
validation and perplexity. `Decoder` prefills rows and then feeds tokens: generation. Both use the cheapest
layout that is exact for the backbone (`backbones/layouts.py`); both give a row the same logits whatever its
neighbours are. Nothing here knows a method, and nothing is written into the model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from workbench.backbones.backbone import Backbone
from workbench.backbones.layer_inputs import reading, seeing
from workbench.backbones.linear_outputs import Changes, changed, editing, fold, foldable
from workbench.backbones.runner import Output
from workbench.errors import WorkbenchError
from workbench.methods.injection import NOTHING, Injection, LogitChange
from workbench.methods.rows import Rows
from workbench.methods.start import Start, make_start


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
    size = prompt.shape[1]
    prompt = prompt.expand(len(rows), -1, -1) if len(prompt) == 1 else prompt[injection.pick(len(rows))]
    place = int(rows.prompt_at[0])
    if bool((rows.prompt_at == place).all()):
        embeddings = torch.cat([tokens[:, :place], prompt, tokens[:, place:]], dim=1)
    else:  # position s holds token s, then prompt s - place, then token s - size
        s = torch.arange(tokens.shape[1] + size, device=tokens.device)[None]
        at = rows.prompt_at[:, None]
        source = torch.where(s < at, s + size, torch.where(s < at + size, s - at, s))
        both = torch.cat([prompt, tokens], dim=1)
        embeddings = both.gather(1, source[..., None].expand(-1, -1, tokens.shape[2]))
    check_context(backbone, int(rows.lengths.max()) + size + injection.front, size + injection.front)
    return Assembled(embeddings, rows.lengths + size)


def given_to(backbone: Backbone, injection: Injection) -> Backbone:
    """The backbone that is run: the injection's own view where it has one, else the one that is given.

    Raises:
        WorkbenchError: a view of another backbone, which would be run in silence in place of the one that is given.
    """
    view: Backbone | None = injection.view
    if view is None:
        return backbone
    if not view.stands_for(backbone):
        other = " of other weights, type or device" if view.name == backbone.name else ""
        raise WorkbenchError(
            f"this method was made for {view.name}, not for {backbone.name}{other}; make or load it with the backbone that "
            "it is to run on"
        )
    return view


def check_context(backbone: Backbone, needed: int, prompt: int) -> None:
    """Refuse rows that do not fit the backbone, with the two lengths; `prompt` is what the method itself puts before them."""
    limit = backbone.context_length
    if limit is not None and needed > limit:
        trained = f" ({prompt} of them the trained prompt)" if prompt else ""
        raise WorkbenchError(
            f"{needed} tokens are needed{trained}, but {backbone.name} reads {limit}; "
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
    backbone = given_to(backbone, injection)
    rows, made = _instructed(backbone, rows, injection)
    s = torch.arange(rows.ids.shape[1], device=rows.ids.device)[None]
    answers = (s >= rows.answer_start[:, None]) & (s < rows.lengths[:, None])
    targets = rows.ids[answers]
    rows = rows.without_last()  # the last token of a row predicts nothing
    start = make_start(backbone, injection)
    if not backbone.layouts.right_padding:
        return _one_by_one(backbone, rows, injection, start, keep_answers, made), targets
    if share_prefix and _prefix_is_shared(backbone, rows, injection):
        logits = _after_shared_prefix(backbone, rows, injection, start, keep_answers, made)
    else:
        logits = _whole_rows(backbone, rows, injection, start, keep_answers, made)
    return logits, targets


@dataclass(frozen=True)
class _Made:
    """What the instructions of B rows make of the model, each for its own row.

    numbers: (B,) the rows' numbers, by which `logits` knows them.
    weights, logits: see `Injection.weight_changes` and `Injection.logit_changes`.
    """

    numbers: Tensor
    weights: Changes | None = None
    logits: LogitChange | None = None

    def select(self, rows: Tensor) -> _Made:
        """The same for the named rows."""
        weights = self.weights and {name: change.select(rows) for name, change in self.weights.items()}
        return replace(self, numbers=self.numbers[rows], weights=weights)

    def run(
        self, backbone: Backbone, model: Callable[[], Output], keep: Tensor, gate: Tensor | None = None
    ) -> Output:
        """A run of the rows that gives the logits (N, V) of the positions `keep` (B, T), under what was made of it.

        gate: (B, T) the positions at which that holds; None: all of them.
        """
        above: list[Tensor] = []

        def look(layer: int, hidden: Tensor) -> None:
            if layer == backbone.num_layers:
                above.append(hidden)

        with editing(*([] if self.weights is None else [changed(self.weights, gate)])):
            if self.logits is None:
                return model()
            with seeing(look):
                output = model()
        rows = self.numbers[keep.nonzero()[:, 0]]
        logits = self.logits(output.logits, rows, above[0][keep])
        if gate is not None and not bool((here := gate[keep]).all()):
            logits = torch.where(here[:, None], logits, output.logits)
        return output._replace(logits=logits)


def _instructed(backbone: Backbone, rows: Rows, injection: Injection) -> tuple[Rows, _Made]:
    """The rows as they are then read, and what their instructions make of the model."""
    made = _Made(
        torch.arange(len(rows), device=rows.ids.device),
        injection.weight_changes and injection.weight_changes(rows),
        injection.logit_changes and injection.logit_changes(rows),
    )
    if injection.forget:
        rows = rows.without_instruction(getattr(backbone.tokenizer, "bos_token_id", None))
    return rows, made


def try_out(backbone: Backbone, injection: Injection) -> None:
    """Run two short rows with an injection, so that what a backbone cannot do is refused before training.

    Raises:
        WorkbenchError: a site that it cannot serve, with the reason.
    """
    lengths = torch.tensor([3, 2], device=backbone.device)
    ids = torch.zeros(2, 3, dtype=torch.long, device=backbone.device)
    try:
        with torch.no_grad():
            answer_logits(backbone, Rows(ids, lengths, lengths - 1, torch.zeros_like(lengths)), injection)
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        raise WorkbenchError(
            f"{backbone.name} ({type(backbone.model).__name__}) cannot be given this injection ({reason}); "
            "use a soft prompt"
        ) from error


def _prompt(backbone: Backbone, injection: Injection) -> Tensor | None:
    """(K, P, width) in the backbone's type, so that a float32 prompt serves a bfloat16 backbone."""
    if injection.length == 0:
        return None
    assert injection.input_embeddings is not None
    return injection.input_embeddings.to(backbone.device, backbone.dtype)


def _run(backbone: Backbone, start: Start | None, *arguments: Any, **options: Any) -> Output:
    """A run behind a start, whose layers may remember different numbers of positions."""
    if start is None or start.widths is None:
        return backbone.runner(*arguments, **options)
    with reading(masks=start.mask):
        return backbone.runner(*arguments, **options)


def _behind(backbone: Backbone, cache: Any, injection: Injection, rows: int) -> Any:
    """A cache of the K prompts for the rows, each row its own prompt's."""
    if injection.members is None:
        return backbone.runner.expand(cache, rows)
    return backbone.runner.expand(cache, injection.members.to(backbone.device))


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
    backbone: Backbone,
    rows: Rows,
    injection: Injection,
    start: Start | None,
    keep_answers: bool,
    made: _Made,
) -> Tensor:
    place = int(rows.prompt_at[0])
    prompt = _prompt(backbone, injection)
    assert prompt is not None
    members, size = prompt.shape[:2]
    before = start.columns if start else 0
    taken = start.positions if start else 0
    check_context(backbone, int(rows.lengths.max()) + size + injection.front, size + injection.front)
    prefix = torch.cat([backbone.embed(rows.ids[0, :place]).expand(members, -1, -1), prompt], dim=1)
    seen = torch.ones(members, before + place + size, dtype=torch.bool, device=prefix.device)
    last = torch.zeros_like(seen[:, before:])
    last[:, -1] = True
    positions = taken + torch.arange(place + size, device=prefix.device).expand(members, -1)
    cache = (
        backbone.runner.expand(start.cache, torch.arange(members, device=prefix.device)) if start else None
    )
    cache = _run(backbone, start, prefix, seen, positions, cache, use_cache=True, keep=last).cache
    cache = _behind(backbone, cache, injection, len(rows))

    tokens = rows.ids[:, place:]
    real = torch.arange(tokens.shape[1], device=tokens.device)[None] < (rows.lengths - place)[:, None]
    mask = torch.cat([seen[:1].expand(len(rows), -1), real], dim=1)
    positions = _count(real) + taken + place + size
    s = torch.arange(place, rows.ids.shape[1], device=tokens.device)[None]
    keep = (s >= (rows.answer_start - 1)[:, None]) & real  # each predicts the token after it
    embeddings = backbone.embed(tokens)
    model = partial(_run, backbone, start, embeddings, mask, positions, cache)
    return _kept(backbone, model, keep, keep_answers, made)


def _whole_rows(
    backbone: Backbone,
    rows: Rows,
    injection: Injection,
    start: Start | None,
    keep_answers: bool,
    made: _Made,
) -> Tensor:
    whole = assemble(backbone, injection, rows)
    real = whole.mask
    s = torch.arange(real.shape[1], device=real.device)[None]
    # an answer follows the prompt, so its first token stands at answer_start + P and is predicted just before
    keep = (s >= (rows.answer_start + injection.length - 1)[:, None]) & real
    mask, positions, cache = _with_start(backbone, injection, start, real)
    model = partial(_run, backbone, start, whole.embeddings, mask, positions, cache)
    return _kept(backbone, model, keep, keep_answers, made)


def _kept(
    backbone: Backbone, model: Callable[..., Output], keep: Tensor, keep_answers: bool, made: _Made
) -> Tensor:
    """(N, V) logits of the positions `keep` (B, T), each of which predicts a token of an answer."""

    def run() -> Output:
        if keep_answers:
            return model(keep=keep)
        output = model()
        return output._replace(logits=output.logits[keep])

    return made.run(backbone, run, keep, keep).logits


def _with_start(
    backbone: Backbone, injection: Injection, start: Start | None, real: Tensor
) -> tuple[Tensor, Tensor, Any]:
    """Mask (B, columns + S), position ids (B, S) and cache for rows whose real positions are `real` (B, S)."""
    if start is None:
        return real, _count(real), None
    seen = torch.ones(len(real), start.columns, dtype=torch.bool, device=real.device)
    cache = _behind(backbone, start.cache, injection, len(real))
    return torch.cat([seen, real], dim=1), _count(real) + start.positions, cache


def _one_by_one(
    backbone: Backbone,
    rows: Rows,
    injection: Injection,
    start: Start | None,
    keep_answers: bool,
    made: _Made,
) -> Tensor:
    each = torch.arange(len(rows), device=rows.ids.device)
    return torch.cat(
        [
            _whole_rows(
                backbone,
                rows.select(one),
                injection.select(one),
                start,
                keep_answers,
                made.select(one),
            )
            for one in each.split(1)
        ]
    )


def _count(mask: Tensor) -> Tensor:
    """(B, S) position ids counted over real positions; pads get 0 or their predecessor's."""
    return (mask.long().cumsum(1) - 1).clamp(min=0)


class Watch(Protocol):
    """Who sees a decoder's runs of the model from inside.

    A row's place number counts what the model reads of it, its prompt among the tokens, from 0; pads have -1.
    """

    def ends(self, rows: Sequence[int], places: Tensor) -> Sequence[int]:
        """Columns before which the first read of `places` (B, T) is to pause, so that the cache can be looked at."""
        ...

    def run(
        self, rows: Sequence[int], places: Tensor, last: Tensor, model: Callable[[Tensor], Output]
    ) -> Output:
        """Run the model once, with the (B, T) positions whose logits are wanted, and look.

        What is returned has the logits of the positions `last` (B, T), as if they alone had been asked for.
        """
        ...

    def wrote(self, rows: Sequence[int], tokens: Tensor, logits: Tensor) -> None:
        """Tokens (B,) were chosen by logits (B, V), and are read next."""
        ...


class Decoder:
    """Rows read once, then continued token by token, each exactly as it would be alone.

    `next_logits` gives (B, V) for the rows still going, `feed` appends tokens to each, as many to one as to another, `drop` lets
    finished rows go. Three layouts, by what is exact for the backbone: all rows left-padded over one cache;
    rows of equal length over a cache for each length; or every row read again for each token.
    """

    def __init__(
        self, backbone: Backbone, rows: Rows, injection: Injection = NOTHING, watch: Watch | None = None
    ):
        backbone = given_to(backbone, injection)
        rows, made = _instructed(backbone, rows, injection)
        begins = rows.answer_start + injection.length - 1
        folded = None if made.weights is None else _folded(backbone, rows, made.weights)
        whole = assemble(backbone, injection, rows)
        layouts = backbone.layouts
        start = make_start(backbone, injection)
        if start is not None and not layouts.decoding:
            raise WorkbenchError(
                f"{backbone.name} cannot go on from a cache, so this method cannot generate with it"
            )
        order = torch.arange(len(rows), device=whole.lengths.device)
        same = bool((whole.lengths == whole.lengths[0]).all())
        padded = layouts.left_padding if start is None else layouts.padding_after_prefix
        if padded or (layouts.decoding and same):
            groups = [order]
        elif layouts.decoding:
            by_length: dict[int, list[int]] = defaultdict(list)
            for row, length in enumerate(whole.lengths.tolist()):
                by_length[length].append(row)
            groups = [torch.tensor(rows, device=order.device) for rows in by_length.values()]
        else:
            groups = [order]
        self.groups: list[_CachedRows | _RepeatedRows] = []
        for g in groups:
            embeddings, lengths = whole.embeddings[g, : int(whole.lengths[g].max())], whole.lengths[g]
            own, since = made.select(g), begins[g]
            if padded or layouts.decoding:
                part = injection.select(
                    g.to("cpu" if injection.members is None else injection.members.device)
                )
                self.groups.append(
                    _CachedRows(
                        backbone, embeddings, lengths, part, start, g.tolist(), watch, own, since, folded
                    )
                )
            else:
                self.groups.append(
                    _RepeatedRows(backbone, embeddings, lengths, g.tolist(), watch, own, since)
                )
        self.rows = [g.tolist() for g in groups]

    @property
    def active(self) -> list[int]:
        """Row numbers, in the order in which `next_logits` gives them."""
        return [row for rows in self.rows for row in rows]

    def next_logits(self) -> Tensor:
        """(len(active), V) logits of each row's next token, float32."""
        return torch.cat([group.logits for group in self.groups]).float()

    def feed(self, tokens: Tensor) -> None:
        """Append tokens (len(active),), or T to each row (len(active), T), in the order of `active`."""
        tokens = tokens if tokens.dim() == 2 else tokens[:, None]
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


def _folded(backbone: Backbone, rows: Rows, changes: Changes) -> Backbone | None:
    """The backbone with the changes in its matrices, where all rows have the same ones; None where they do not.

    A view that shares every tensor but those, and is let go with the decoder.
    """
    same = (rows.answer_start == rows.answer_start[0]).all() and (rows.ids == rows.ids[:1]).all()
    names = [backbone.model.get_submodule(name) for name in changes]
    if not (bool(same) and backbone.layouts.decoding and all(map(foldable, names))):
        return None
    view = backbone.view()
    fold(
        view.model,
        {name: change.select(torch.tensor([0], device=rows.ids.device)) for name, change in changes.items()},
    )
    return view


class _CachedRows:
    """Rows over one cache, padded on the left, behind the start if there is one.

    What their instructions make of the model holds from the place `begins` (B,) on; `folded` is the backbone with all changes in
    its weights, which what is fed is then read by.
    """

    def __init__(
        self,
        backbone: Backbone,
        embeddings: Tensor,
        lengths: Tensor,
        injection: Injection,
        start: Start | None,
        numbers: list[int],
        watch: Watch | None,
        made: _Made,
        begins: Tensor,
        folded: Backbone | None,
    ):
        self.backbone, self.start, self.numbers, self.watch = backbone, start, numbers, watch
        self.made = made
        self.begins: Tensor | None = begins
        size = embeddings.shape[1]
        s = torch.arange(size, device=lengths.device)[None]
        shift = (size - lengths)[:, None]
        source = (s - shift).clamp(min=0)[..., None].expand(-1, -1, embeddings.shape[2])
        mask, positions, self.cache = _with_start(backbone, injection, start, s >= shift)
        self.next_position, self.next_place = positions[:, -1:] + 1, lengths[:, None]
        embeddings, places = embeddings.gather(1, source), (s - shift).clamp(min=-1)
        ends = [] if watch is None else watch.ends(numbers, places)
        for first, end in pairwise([0, *ends, size]):
            self.mask = mask[:, : mask.shape[1] - size + end]
            self._run(embeddings[:, first:end], positions[:, first:end], places[:, first:end])
        self.begins = None  # all that is fed comes later
        if folded is not None:
            self.backbone, self.made = folded, replace(made, weights=None)

    def _run(self, embeddings: Tensor, positions: Tensor, places: Tensor) -> None:
        last = torch.zeros(embeddings.shape[:2], dtype=torch.bool, device=embeddings.device)
        last[:, -1] = True
        gate = None if self.begins is None else places >= self.begins[:, None]

        def model(keep: Tensor) -> Output:
            def run() -> Output:
                arguments = (embeddings, self.mask, positions, self.cache)
                return _run(self.backbone, self.start, *arguments, use_cache=True, keep=keep)

            return self.made.run(self.backbone, run, keep, gate)

        self.logits, self.cache = _seen(self.watch, self.numbers, places, last, model)

    def feed(self, tokens: Tensor) -> None:
        for part in [tokens] if self.backbone.layouts.shared_prefix else tokens.split(1, dim=1):
            ahead = torch.arange(part.shape[1], device=part.device)
            self.mask = torch.cat([self.mask, torch.ones_like(part, dtype=torch.bool)], dim=1)
            self._run(self.backbone.embed(part), self.next_position + ahead, self.next_place + ahead)
            self.next_position, self.next_place = (
                self.next_position + len(ahead),
                self.next_place + len(ahead),
            )

    def select(self, rows: Tensor) -> None:
        self.mask, self.logits = self.mask[rows], self.logits[rows]
        self.made = self.made.select(rows)
        self.next_position, self.next_place = self.next_position[rows], self.next_place[rows]
        self.numbers = [self.numbers[row] for row in rows.tolist()]
        self.cache = self.backbone.runner.select(self.cache, rows)


class _RepeatedRows:
    """Rows read again for each token, for backbones whose cache cannot be trusted."""

    def __init__(
        self,
        backbone: Backbone,
        embeddings: Tensor,
        lengths: Tensor,
        numbers: list[int],
        watch: Watch | None,
        made: _Made,
        begins: Tensor,
    ):
        self.backbone, self.embeddings, self.lengths = backbone, embeddings, lengths
        self.numbers, self.watch = numbers, watch
        self.made, self.begins = made, begins
        self._run()

    def _run(self) -> None:
        mask = Assembled(self.embeddings, self.lengths).mask
        s = torch.arange(mask.shape[1], device=mask.device)[None]
        last, places = s == (self.lengths - 1)[:, None], torch.where(mask, s, -1)
        gate = places >= self.begins[:, None]

        def logits(part: tuple[slice, slice]) -> Tensor:
            made = self.made.select(torch.arange(len(mask), device=mask.device)[part[0]])

            def model(keep: Tensor) -> Output:
                def run() -> Output:
                    arguments = (self.embeddings[part], mask[part], _count(mask[part]))
                    return self.backbone.runner(*arguments, keep=keep)

                return made.run(self.backbone, run, keep, gate[part])

            return _seen(self.watch, self.numbers[part[0]], places[part], last[part], model).logits

        if self.backbone.layouts.right_padding:
            self.logits = logits((slice(None), slice(None)))
        else:
            rows = enumerate(self.lengths.tolist())
            self.logits = torch.cat([logits((slice(b, b + 1), slice(0, length))) for b, length in rows])

    def feed(self, tokens: Tensor) -> None:
        places = self.lengths[:, None] + torch.arange(tokens.shape[1], device=tokens.device)
        new = self.backbone.embed(tokens)
        self.embeddings = torch.cat([self.embeddings, torch.zeros_like(new)], dim=1)
        self.embeddings[torch.arange(len(tokens), device=tokens.device)[:, None], places] = new
        self.lengths = self.lengths + tokens.shape[1]
        self._run()

    def select(self, rows: Tensor) -> None:
        self.embeddings, self.lengths, self.logits = (
            self.embeddings[rows],
            self.lengths[rows],
            self.logits[rows],
        )
        self.made, self.begins = self.made.select(rows), self.begins[rows]
        self.numbers = [self.numbers[row] for row in rows.tolist()]


def _seen(
    watch: Watch | None, rows: Sequence[int], places: Tensor, last: Tensor, model: Callable[[Tensor], Output]
) -> Output:
    """One run of the model for the logits of `last`, seen by the watch if there is one."""
    return model(last) if watch is None else watch.run(rows, places, last, model)

"""Generation with an injection: greedy or sampled, stop strings, streaming. Owns no padding: see `apply.Decoder`.

Every row has dice of its own, seeded by the configuration and the row's number, so a row's sampled text is
the same alone and in a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError
from workbench.methods.apply import Decoder, Watch, check_context, given_to
from workbench.methods.injection import NOTHING, Injection, join
from workbench.methods.method import Method
from workbench.methods.rereading import Rereading
from workbench.methods.rows import Rows
from workbench.tasks.encode import TextConfig, encode_question


@dataclass(frozen=True)
class GenerateConfig:
    """How text is generated."""

    max_new_tokens: int = 64
    """Most tokens to write."""
    temperature: float = 0.0
    """0 takes the most likely token (greedy); above 0 samples, the higher the more varied."""
    top_k: int = 0
    """Sample among the k most likely tokens; 0 for all."""
    top_p: float = 1.0
    """Sample among the most likely tokens that together have this probability."""
    stop: tuple[str, ...] = ()
    """Strings at which a text ends; they are not part of it."""
    seed: int = 0
    """Seed of the sampling."""
    beams: int = 1
    """Only 1: beam search is not offered."""
    batch_size: int = 32
    """Prompts read at once."""
    reread_every: int = 0
    """Read the prompt again each time that so many tokens were written, where the sentence ends (or after twice as many); 0:
    never. What is read again is no part of the text."""
    text: TextConfig = field(default_factory=TextConfig)
    """How prompts become tokens; the same as in training."""

    def __post_init__(self) -> None:
        if self.beams != 1:
            raise WorkbenchError(
                f"beams={self.beams} is not offered; use beams=1, greedy or with a temperature"
            )
        if self.max_new_tokens < 1 or self.batch_size < 1:
            raise WorkbenchError("max_new_tokens and batch_size must be at least 1")
        if self.reread_every < 0:
            raise WorkbenchError(f"reread_every is {self.reread_every}; it must be 0 or more")
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise WorkbenchError("temperature and top_k must be 0 or more, and top_p above 0 and at most 1")


def generate(
    backbone: Backbone,
    prompts: Sequence[str],
    method: Method | None = None,
    config: GenerateConfig | None = None,
    methods: Sequence[Method | None] | None = None,
) -> list[str]:
    """Continue each prompt.

    >>> wb.generate(backbone, ["…", "…"], methods=[for_names, for_dates])

    Args:
        backbone: the frozen model.
        prompts: texts; what the model was asked. One string is refused, so that it is not read as letters.
        method: a trained method for all prompts, or None for the plain backbone.
        config: how to generate; by default greedy, 64 tokens, and prompts become tokens as the method's did in training.
        methods: instead of `method`, one for each prompt (None: the plain backbone). Those of one kind and shape are
            served together, and each text is what its method would have written alone.

    Returns:
        The new text of each prompt, without the prompt, stop strings and special tokens.
    """
    if isinstance(prompts, str):
        raise WorkbenchError("generate takes a list of prompts; write [prompt], or use stream for one prompt")
    if methods is None:
        methods = [method] * len(prompts)
    elif method is not None:
        raise WorkbenchError("give one method for all prompts, or methods with one for each, not both")
    elif len(methods) != len(prompts):
        raise WorkbenchError(
            f"{len(methods)} methods are given for {len(prompts)} prompts; give one for each"
        )
    texts = [""] * len(prompts)
    for rows, together, settings in _served_together(methods, config):
        for start in range(0, len(rows), settings.batch_size):
            part = rows[start : start + settings.batch_size]
            asked = [(row, prompts[row], methods[row]) for row in part]
            for row, text, _ in write(backbone, asked, together, settings, streaming=False):
                texts[row] = text
    return texts


Served = dict[int, Injection]
"""The injection of each method (by `id`), made once for all of its rows."""


def _served_together(
    methods: Sequence[Method | None], config: GenerateConfig | None
) -> Iterator[tuple[list[int], Served, GenerateConfig]]:
    """Rows whose prompts have one shape and one way of becoming tokens, their injections, and how they are written."""
    with torch.no_grad():
        made: Served = {id(m): NOTHING if m is None else m.injection() for m in methods}
    groups: dict[str, tuple[list[int], GenerateConfig]] = {}
    for row, method in enumerate(methods):
        settings = config or default_config(method)
        injection = made[id(method)]
        alone = id(method) if injection.apart else None
        groups.setdefault(repr((injection.shape, alone, settings)), ([], settings))[0].append(row)
    for rows, settings in groups.values():
        yield rows, made, settings


def default_config(method: Method | None, **settings: Any) -> GenerateConfig:
    """How text is generated when nobody says: with the method's own text settings."""
    return GenerateConfig(text=TextConfig() if method is None else method.text, **settings)


def stream(
    backbone: Backbone, prompt: str, method: Method | None = None, config: GenerateConfig | None = None
) -> Iterator[str]:
    """The same text as `generate`, in pieces as it is written."""
    config = config or default_config(method)
    held_back = max((len(s) for s in config.stop), default=1) - 1
    shown = 0
    with torch.no_grad():
        made = {id(method): NOTHING if method is None else method.injection()}
    for _, text, done in write(backbone, [(0, prompt, method)], made, config, streaming=True):
        stable = len(text) if done else len(text.rstrip("\ufffd")) - held_back
        if stable > shown:
            yield text[shown:stable]
            shown = stable


@torch.no_grad()
def write(
    backbone: Backbone,
    asked: Sequence[tuple[int, str, Method | None]],
    made: Served,
    config: GenerateConfig,
    streaming: bool,
    watch: Watch | None = None,
) -> Iterator[tuple[int, str, bool]]:
    """(row, its text so far, whether it is finished): after every token when streaming, else once a row.

    `asked` holds each row's number, prompt and method; their injections have one shape. A watch sees all that is
    read, and for its sake the last token of a text is read as well, but not one that ends it.
    """
    numbers = [number for number, _, _ in asked]
    keys = list(dict.fromkeys(id(method) for _, _, method in asked))
    injection = made[keys[0]]
    if len(keys) > 1:
        injection = join([made[key] for key in keys], torch.tensor([keys.index(id(m)) for _, _, m in asked]))
    given_to(backbone, injection)
    # a prompt that is written into the weights is never cut to fit the context: it is refused below
    limit = backbone.context_length if injection.weight_changes is None else None
    encoded = [
        encode_question(
            p,
            backbone.tokenizer,
            config.text,
            injection.length,
            limit,
            config.max_new_tokens,
        )
        for _, p, _ in asked
    ]
    for number, question in zip(numbers, encoded, strict=True):
        if not question.ids and injection.length == 0:
            raise WorkbenchError(f"prompt {number} is empty and the model has no BOS token; write something")
    rereading = Rereading(backbone, config.reread_every) if config.reread_every else None
    if rereading is not None and watch is not None:
        raise WorkbenchError("a prompt that is read again cannot be traced; set reread_every=0")
    rows = Rows.collate(encoded, backbone.device)
    room = [config.max_new_tokens] * len(encoded)
    if rereading is not None:
        room = [room[i] + rereading.room(q.ids, config.max_new_tokens) for i, q in enumerate(encoded)]
    needed = max(len(question.ids) + more for question, more in zip(encoded, room, strict=True))
    check_context(backbone, needed + injection.length, injection.length)
    dice = [torch.Generator().manual_seed((config.seed << 20) + number) for number in numbers]
    ends = end_tokens(backbone)
    written: list[list[int]] = [[] for _ in asked]
    since = [0] * len(asked)  # how much of it there was when the prompt was last read
    waiting: list[list[int]] = [[] for _ in asked]  # tokens still to be read before the next is chosen
    decoder = Decoder(backbone, rows, injection, watch)
    while decoder.active:
        active = decoder.active
        turn = [at for at, row in enumerate(active) if not waiting[row]]
        logits = decoder.next_logits()
        if len(turn) < len(active):
            active, logits = [active[at] for at in turn], logits[turn]
        tokens = choose(logits, config, [dice[row] for row in active])
        if watch is not None:
            watch.wrote(active, tokens, logits)
        finished, ended = set(), set()
        for row, token in zip(active, tokens.tolist(), strict=True):
            waiting[row].append(token)
            done = token in ends
            if done:
                ended.add(row)
            else:
                written[row].append(token)
            done = done or len(written[row]) >= config.max_new_tokens
            if not (done or streaming or config.stop):
                continue  # decoding every row at every token would cost more than a small model
            text = str(backbone.tokenizer.decode(written[row], skip_special_tokens=True))
            stops = [at for s in config.stop if (at := text.find(s)) >= 0]
            if stops:
                text, done = text[: min(stops)], True
            if done:
                finished.add(row)
            if done or streaming:
                yield numbers[row], text, done
        decoder.drop(finished if watch is None else ended)
        if not decoder.active:
            return
        if rereading is not None:
            for row in decoder.active:
                if rereading.due(written[row][since[row] :]):
                    waiting[row] += rereading.words(encoded[row].ids)
                    since[row] = len(written[row])
        size = min(len(waiting[row]) for row in decoder.active)
        read = [waiting[row][:size] for row in decoder.active]
        decoder.feed(torch.tensor(read, device=tokens.device))
        for row in decoder.active:
            del waiting[row][:size]
        if watch is not None:
            decoder.drop(finished)


def choose(logits: Tensor, config: GenerateConfig, dice: Sequence[torch.Generator]) -> Tensor:
    """One token for each row.

    Args:
        logits: (B, V) float32.
        config: temperature, top_k and top_p, applied in that order, as transformers does.
        dice: B generators, one for each row; greedy choice does not touch them.

    Returns:
        (B,) token ids.
    """
    if config.temperature == 0:
        return logits.argmax(-1)
    order = (logits / config.temperature).sort(-1, descending=True)
    ranked = order.values
    if config.top_k:
        ranked[:, config.top_k :] = -torch.inf
    probabilities = ranked.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    probabilities = probabilities.masked_fill(before >= config.top_p, 0.0)
    throw = torch.stack([torch.rand((), generator=d) for d in dice]).to(logits.device)[:, None]
    cumulative = probabilities.cumsum(-1)
    rank = (cumulative <= throw * cumulative[:, -1:]).sum(-1, keepdim=True).clamp(max=logits.shape[1] - 1)
    return order.indices.gather(1, rank)[:, 0]


def end_tokens(backbone: Backbone) -> set[int]:
    """Every id that ends a text, by the generation config and the tokenizer."""
    ends: set[int] = set()
    for source in (getattr(backbone.model, "generation_config", None), backbone.tokenizer):
        found = getattr(source, "eos_token_id", None)
        ends.update([found] if isinstance(found, int) else found or [])
    return ends

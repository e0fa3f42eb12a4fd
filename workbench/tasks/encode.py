"""Encode: from text to token ids, once and the same way in training, evaluation and generation.

A question and its answer are tokenised apart, so the question's ids never depend on the answer, and no token spans
the boundary:

    ids      [BOS] q q q q q q a a a [EOS]
    prompt_at ^0 ^1   ^k       ^ answer_start

`prompt_at` is the index in `ids` before which a trained prompt stands: 0 (before BOS), after BOS, or at the marker.
The answer is tokenised as what it is, the middle of a text: tokenisers that put a space before every text
(SentencePiece style) do not get to put one into the answer. This module knows no tensor and no padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args
from weakref import WeakKeyDictionary

from workbench.errors import WorkbenchError, unknown
from workbench.tasks.task import Example

MARKER = "<prompt>"
PromptPosition = Literal["before-bos", "after-bos", "marker"]
Cut = Literal["start", "middle", "end"]


@dataclass(frozen=True)
class TextConfig:
    """How text becomes token ids."""

    prompt_position: PromptPosition = "before-bos"
    """Where a trained prompt stands: before the BOS token, after it (the same where the tokeniser has none), or at
    "<prompt>" in the template or question. With the other two positions a "<prompt>" in the text is taken out."""
    chat_template: bool = False
    """Give the question as the user's turn of the tokeniser's chat template, and the answer as the reply."""
    train_eos: bool = True
    """End the answer with the EOS token, so that the model learns to stop."""
    max_tokens: int | None = None
    """The most tokens of question and answer together, special tokens included and the trained prompt not; None: what
    the context holds."""
    cut: Cut = "start"
    """Which part of a question that is too long is dropped. The answer is never cut."""

    def __post_init__(self) -> None:
        if self.prompt_position not in get_args(PromptPosition):
            raise unknown("prompt position", self.prompt_position, get_args(PromptPosition))
        if self.cut not in get_args(Cut):
            raise unknown("way to cut", self.cut, get_args(Cut))
        if self.max_tokens is not None and self.max_tokens < 1:
            raise WorkbenchError(
                f"max_tokens is {self.max_tokens}; give a number above zero, or None for no limit"
            )


@dataclass(frozen=True)
class Encoded:
    """Token ids of one example; see the module's picture."""

    ids: tuple[int, ...]
    """Question, then answer, then EOS where it is trained."""
    answer_start: int
    """The index of the answer's first token; `len(ids)` where there is only a question."""
    prompt_at: int
    """The index in `ids` before which a trained prompt stands, 0 to `answer_start`."""


def encode(
    example: Example,
    tokenizer: Any,
    config: TextConfig = TextConfig(),
    prompt_length: int = 0,
    context_length: int | None = None,
) -> Encoded:
    """Question and answer as token ids.

    tokenizer: a transformers tokenizer. prompt_length: vectors of the trained prompt, which take room in the
    context. context_length: positions of the model, None where it has no limit.

    Raises WorkbenchError where prompt and answer alone do not fit, where the marker or the chat template is missing,
    and where EOS is to be trained and the tokenizer has none.
    """
    answer = example.answer.lstrip() if config.chat_template else example.answer  # a reply starts on its own
    tail = continuation_ids(tokenizer, answer)
    if config.train_eos:
        if tokenizer.eos_token_id is None:
            raise WorkbenchError(
                "train_eos is on and the tokenizer has no EOS token; set train_eos=False, or give it one"
            )
        tail = [*tail, tokenizer.eos_token_id]
    question = encode_question(example, tokenizer, config, prompt_length, context_length, room=len(tail))
    return Encoded((*question.ids, *tail), len(question.ids), question.prompt_at)


def encode_question(
    question: Example | str,
    tokenizer: Any,
    config: TextConfig = TextConfig(),
    prompt_length: int = 0,
    context_length: int | None = None,
    room: int = 0,
) -> Encoded:
    """The question alone, as `encode` has it; `room` tokens are kept free for an answer (such as max_new_tokens)."""
    text = question.prompt if isinstance(question, Example) else question
    budget = _Budget.of(config, prompt_length, context_length, room)
    texts = _at_marker(text, config)
    if config.chat_template:
        head, parts = [], _chat_parts(texts, tokenizer, config.cut, budget)
    else:
        head = bos_ids(tokenizer)
        parts = [_ids(tokenizer, texts[0]), *(continuation_ids(tokenizer, piece) for piece in texts[1:])]
        keep = None if budget.tokens is None else budget.tokens - len(head)
        parts = _cut(parts, keep, config.cut, budget.sentence)
    ids = [*head, *(token for part in parts for token in part)]
    if config.prompt_position == "marker":
        prompt_at = len(head) + len(parts[0])
    elif config.prompt_position == "after-bos":
        prompt_at = len(head) if not config.chat_template else int(ids[:1] == [tokenizer.bos_token_id])
    else:
        prompt_at = 0
    return Encoded(tuple(ids), len(ids), prompt_at)


def bos_ids(tokenizer: Any) -> list[int]:
    """The special tokens that the tokenizer itself puts before a text: [BOS] for most, [] for many."""
    with_special, plain = _fixed_ids(tokenizer, "a", special=True), _fixed_ids(tokenizer, "a")
    for start in range(len(with_special) - len(plain) + 1):
        if plain and with_special[start : start + len(plain)] == plain:
            return list(with_special[:start])
    return [token for token in with_special[:1] if token == tokenizer.bos_token_id]


def continuation_ids(tokenizer: Any, text: str) -> list[int]:
    """The ids of `text` in the middle of a longer text, where no tokenizer puts a space before it.

    An anchor goes before the text and its ids are taken off again; of several anchors the first counts whose ids
    are untouched by what follows and after which the text reads back.
    """
    if not text:
        return []
    readable: list[int] | None = None
    for anchor in _BEFORE_SPACE if text[0].isspace() else _BEFORE_WORD:
        before, whole = _fixed_ids(tokenizer, anchor), _ids(tokenizer, anchor + text)
        rest = whole[len(before) :]
        if not rest or whole[: len(before)] != before:
            continue
        if tokenizer.decode(whole, **_VERBATIM).endswith(text):
            return rest
        readable = readable or rest  # a tokenizer that loses something (case, unknown characters) anyway
    return readable or _ids(tokenizer, text)


# What the text is put after, best first. White space clings to white space and letters to letters: a text that begins
# with a space goes after a letter (some tokenizers make one piece of "\n "), any other after a newline.
_BEFORE_SPACE, _BEFORE_WORD = ("a", "1", ".", "\n"), ("\n", "1", ".", "a")
_VERBATIM = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}


def _ids(tokenizer: Any, text: str) -> list[int]:
    # verbose=False: a text longer than the model is cut here, so transformers' warning would be wrong
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) if text else []


_FIXED: WeakKeyDictionary[Any, dict[Any, list[int]]] = WeakKeyDictionary()


def _fixed_ids(tokenizer: Any, text: str, special: bool = False) -> list[int]:
    """The ids of one of this module's own texts, kept for each tokenizer: half the time of a short example."""
    known = _FIXED.setdefault(tokenizer, {})
    key = (
        text,
        special,
        tokenizer.bos_token_id,
        getattr(tokenizer, "add_bos_token", None),
    )  # may be set at any time
    if key not in known:
        known[key] = list(tokenizer(text)["input_ids"]) if special else _ids(tokenizer, text)
    return known[key]


@dataclass(frozen=True)
class _Budget:
    """How many tokens the question may have (None: any number), and what to say where that is not enough."""

    tokens: int | None
    sentence: str

    @classmethod
    def of(cls, config: TextConfig, prompt_length: int, context_length: int | None, room: int) -> _Budget:
        if context_length is not None and prompt_length >= context_length:
            raise WorkbenchError(
                f"a prompt of {prompt_length} tokens does not fit into the context of {context_length} tokens; "
                "use fewer prompt tokens"
            )
        in_context = None if context_length is None else context_length - prompt_length
        if config.max_tokens is not None and (in_context is None or config.max_tokens <= in_context):
            sentence = f"an answer of {room} tokens leaves no room for the question within max_tokens={config.max_tokens}"
            return cls(config.max_tokens - room, sentence + "; raise max_tokens, or shorten the answer")
        sentence = (
            f"a prompt of {prompt_length} tokens and an answer of {room} tokens leave no room for the question in the "
            f"context of {context_length} tokens; use fewer prompt tokens, or shorten the answer"
        )
        return cls(None if in_context is None else in_context - room, sentence)


def _at_marker(text: str, config: TextConfig) -> list[str]:
    """The text before and after the marker; the text alone, without any marker, where the prompt stands elsewhere."""
    if config.prompt_position != "marker":
        return [text.replace(MARKER, "")]
    parts = text.split(MARKER)
    if len(parts) != 2:
        found = "no" if len(parts) == 1 else f"{len(parts) - 1} times"
        raise WorkbenchError(
            f"prompt_position is 'marker' and the question has {found} {MARKER!r}: {text[:60]!r}; "
            "write it once in the template, or choose 'before-bos' or 'after-bos'"
        )
    return parts


def _cut(parts: list[list[int]], keep: int | None, how: Cut, sentence: str) -> list[list[int]]:
    """Parts of a question with `keep` tokens in all, less those dropped; the parts stay apart."""
    total = sum(map(len, parts))
    if keep is None or total <= keep:
        return parts
    if keep < 1:
        raise WorkbenchError(sentence)
    # tokens first … last-1 are dropped
    first = {"start": 0, "middle": keep - keep // 2, "end": keep}[how]
    last = first + total - keep
    kept, at = [], 0
    for part in parts:
        kept.append([token for i, token in enumerate(part, at) if not first <= i < last])
        at += len(part)
    return kept


def _chat_parts(texts: Sequence[str], tokenizer: Any, how: Cut, budget: _Budget) -> list[list[int]]:
    """The ids of the rendered chat, before and after the marker where there is one; only the user's text is cut."""
    if not getattr(tokenizer, "chat_template", None):
        raise WorkbenchError("chat_template is on and the tokenizer has none; set chat_template=False")

    def render(texts: Sequence[str]) -> list[list[int]]:
        turn = [{"role": "user", "content": MARKER.join(texts)}]
        whole = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        pieces = whole.split(MARKER) if len(texts) == 2 else [whole]
        return [_ids(tokenizer, pieces[0]), *(continuation_ids(tokenizer, piece) for piece in pieces[1:])]

    parts = render(texts)
    if budget.tokens is None or sum(map(len, parts)) <= budget.tokens:
        return parts
    content = [_ids(tokenizer, texts[0]), *(continuation_ids(tokenizer, text) for text in texts[1:])]
    keep = sum(map(len, content))
    # text that was cut may tokenise a little longer, so cut until it fits
    while (over := sum(map(len, parts)) - budget.tokens) > 0:
        keep -= over
        content = _cut(content, keep, how, budget.sentence)
        parts = render([tokenizer.decode(ids, **_VERBATIM) for ids in content])
    return parts

"""Text to token ids: one boundary between question and answer, on every kind of tokenizer that people have."""

# mypy: disable-error-code="arg-type,union-attr"
# (wrong arguments are what is tested here, and rows of keyword arguments)

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from workbench.backbones.tokenizer import train_tokenizer
from workbench.errors import WorkbenchError
from workbench.tasks.encode import MARKER, TextConfig, bos_ids, continuation_ids, encode, encode_question
from workbench.tasks.task import Example

WORDS = (
    "the red fox ran to rome and 1 2 34 567 lakes , then it slept . what ? answer : yes no question".split()
)
CORPUS = [" ".join(WORDS[i:] + WORDS[:i]) + "\nquestion : what ?\nanswer :" for i in range(len(WORDS))] * 3
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@cache
def tokenizer(kind: str, bos: bool = False) -> PreTrainedTokenizerFast:
    """A real tokenizer, trained here: bytes (GPT-2), unigram (T5, Gemma), llama (prepended ▁, byte fallback) or
    wordpiece (BERT, lower-casing)."""
    if kind == "world":  # the bundled backbones' own: bytes, BOS always
        return train_tokenizer(CORPUS, 400)
    special = ["<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>"]
    if kind == "bytes":
        t = Tokenizer(models.BPE())
        t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        t.train_from_iterator(
            CORPUS, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
        )
    elif kind == "unigram":
        t = Tokenizer(models.Unigram())
        t.pre_tokenizer, t.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        t.train_from_iterator(
            CORPUS, trainers.UnigramTrainer(vocab_size=150, special_tokens=special, unk_token="<unk>")
        )
    elif kind == "llama":
        t = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        t.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        fallback = [f"<0x{i:02X}>" for i in range(256)]
        spaced = [line.replace("\n", " ") for line in CORPUS]
        t.train_from_iterator(
            [word for line in spaced for word in (" " + line).replace(" ", " |").split("|")],
            trainers.BpeTrainer(vocab_size=500, special_tokens=special + fallback),
        )
    else:
        t = Tokenizer(models.WordPiece(unk_token="<unk>"))
        t.normalizer, t.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        t.decoder = decoders.WordPiece()
        t.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=150, special_tokens=special))
    if bos:
        t.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>",
            special_tokens=[("<s>", t.token_to_id("<s>")), ("</s>", t.token_to_id("</s>"))],
        )
    made = PreTrainedTokenizerFast(tokenizer_object=t, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    made.chat_template = CHATML
    return made


KINDS = ("bytes", "unigram", "llama", "wordpiece")
kinds = st.sampled_from(KINDS)
texts = st.lists(st.sampled_from([w for w in WORDS if w.isalnum()]), min_size=1, max_size=12).map(" ".join)


@given(kinds, st.booleans(), texts, texts, st.booleans())
def test_the_answer_reads_back_and_the_question_does_not_know_it(kind, bos, question, answer, train_eos):
    """decode(ids[answer_start:]) is the answer; the question's ids are the same with and without it."""
    t, config = tokenizer(kind, bos), TextConfig(train_eos=train_eos)
    e = encode(Example(question + " :", " " + answer), t, config)
    tail = list(e.ids[e.answer_start :])
    assert (tail[-1] == t.eos_token_id) == train_eos
    assert t.decode(tail[: len(tail) - train_eos]).strip() == answer
    asked = encode_question(question + " :", t, config)
    assert asked.ids == e.ids[: e.answer_start] and asked.answer_start == len(asked.ids) == e.answer_start
    assert (
        list(e.ids[:1]) == ([t.bos_token_id] if bos else list(e.ids[:1]))
        and e.ids.count(t.bos_token_id) == bos
    )


@given(st.text(min_size=1, max_size=20), st.sampled_from(["", " ", "\n", "  "]))
def test_any_text_reads_back_exactly_with_a_byte_level_tokenizer(answer, space):
    """Exactly, white space and all characters included: no anchor eats or adds a byte."""
    for t in (tokenizer("bytes"), tokenizer("world")):
        assert (
            t.decode(continuation_ids(t, space + answer), clean_up_tokenization_spaces=False)
            == space + answer
        )


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_is_tokenised_as_the_middle_of_a_text(kind):
    """ " rome" after "answer :" has the ids that it has in the whole text, and no space of the tokenizer's own; a
    tokenizer that puts ▁ before every text would otherwise train "▁ ▁rome"."""
    t = tokenizer(kind)
    plain = TextConfig(train_eos=False)
    whole = t("answer : rome", add_special_tokens=False)["input_ids"]
    assert list(encode(Example("answer :", " rome"), t, plain).ids) == whole
    for word in ("rome", "nd"):  # "and" is a token, and so must not be made of what stands before "nd"
        e = encode(Example("answer :\n", word), t, plain)
        pieces = t.convert_ids_to_tokens(list(e.ids[e.answer_start :]))
        assert "".join(piece.removeprefix("##") for piece in pieces) == word, (
            "no space of its own after a newline"
        )


def test_the_bundled_backbones_tokenizer_reads_answers_as_words():
    """An answer of one word is one token, as in the running text that it was trained on; every text opens with BOS."""
    t = tokenizer("world")
    e = encode(Example("the red fox ran to", " rome"), t)
    assert list(e.ids) == [*t("the red fox ran to rome")["input_ids"], t.eos_token_id]
    assert e.ids[0] == t.bos_token_id and len(e.ids) - e.answer_start == 2


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_are_those_that_the_tokenizer_puts_before_a_text(kind):
    """BOS is added if the tokenizer adds it; the EOS that it may add after a text is not part of a question."""
    assert bos_ids(tokenizer(kind, True)) == [tokenizer(kind).bos_token_id]
    assert bos_ids(tokenizer(kind, False)) == []


@settings(max_examples=80)
@given(
    kinds,
    st.booleans(),
    texts,
    texts,
    st.sampled_from(["start", "middle", "end"]),
    st.integers(1, 40),
    st.integers(0, 9),
)
def test_cutting_obeys_the_limits_and_never_touches_the_answer(
    kind, bos, question, answer, cut, limit, prompt
):
    """At most max_tokens ids, at most the context with the prompt; the kept question is the right end or both ends;
    where nothing of the question could stay, a sentence."""
    t, example = tokenizer(kind, bos), Example(question, " " + answer)
    full = encode(example, t)
    head, body, tail = bos_ids(t), list(full.ids[bos : full.answer_start]), full.ids[full.answer_start :]
    for e in (
        _try(example, t, TextConfig(max_tokens=limit, cut=cut)),
        _try(example, t, TextConfig(cut=cut), prompt, limit + prompt),
    ):
        keep = limit - len(head) - len(tail)
        if e is None:
            assert keep < len(body) and keep < 1
            continue
        assert len(e.ids) <= limit and e.ids[e.answer_start :] == tail
        kept, dropped = list(e.ids[bos : e.answer_start]), max(0, len(body) - keep)
        begin = {"start": 0, "middle": (keep + 1) // 2, "end": keep}[cut]
        assert kept == (body if not dropped else body[:begin] + body[begin + dropped :])


def _try(example, t, config, *lengths):
    try:
        return encode(example, t, config, *lengths)
    except WorkbenchError as error:
        if "no room for the question" not in str(error):
            raise
        return None


@given(kinds, st.booleans(), texts, texts)
def test_the_prompt_stands_where_the_config_says(kind, bos, before, after):
    """0; after BOS; and at the marker, whose own characters never become tokens."""
    t, marked = tokenizer(kind, bos), Example(f"{before}{MARKER} {after}", " yes")
    plain = encode(Example(f"{before} {after}", " yes"), t)
    assert plain.prompt_at == 0
    assert encode(marked, t).ids == plain.ids, "a marker that is not asked for is taken out"
    assert encode(marked, t, TextConfig(prompt_position="after-bos")).prompt_at == int(bos)
    at = encode(marked, t, TextConfig(prompt_position="marker"))
    assert at.ids[: at.prompt_at] == encode_question(before, t).ids
    assert t.decode(at.ids[at.prompt_at : at.answer_start]).strip() == after


def test_the_marker_stays_with_its_text_when_the_question_is_cut():
    """Cut from the start, the marker moves left with the tokens before it; it never falls out."""
    t = tokenizer("bytes")
    example = Example("fox " * 10 + MARKER + " what ?", " yes")
    full, config = (
        encode(example, t, TextConfig(prompt_position="marker")),
        TextConfig(prompt_position="marker", max_tokens=9),
    )
    e = encode(example, t, config)
    assert len(e.ids) == 9 and e.ids[e.prompt_at :] == full.ids[full.prompt_at :]


@pytest.mark.parametrize("question", ["no mark", f"{MARKER} twice {MARKER}"])
def test_a_marker_must_be_there_once(question):
    with pytest.raises(WorkbenchError, match="marker"):
        encode_question(question, tokenizer("bytes"), TextConfig(prompt_position="marker"))


@pytest.mark.parametrize("kind", ["bytes", "unigram", "llama"])
def test_a_chat_template_wraps_the_question_and_only_the_users_text_is_cut(kind):
    """The rendered chat is there in full, the reply starts without a space, and the limit holds."""
    t, example = tokenizer(kind), Example("the red fox ran to rome " * 4, " yes")
    config = TextConfig(chat_template=True, prompt_position="marker", max_tokens=None)
    e = encode(example, t, TextConfig(chat_template=True))
    turn = [{"role": "user", "content": example.prompt}]
    rendered = t.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    assert list(e.ids[: e.answer_start]) == t(rendered, add_special_tokens=False)["input_ids"]
    assert list(e.ids[e.answer_start : -1]) == continuation_ids(t, "yes")
    short = encode(example, t, TextConfig(chat_template=True, max_tokens=len(e.ids) - 7, cut="end"))
    assert len(short.ids) <= len(e.ids) - 7 and short.ids[short.answer_start :] == e.ids[e.answer_start :]
    text = t.decode(short.ids[: short.answer_start])
    assert text.startswith("<|im_start|>") and text.rstrip().endswith("assistant") and "the red fox" in text
    marked = encode_question(f"what ?{MARKER} yes", t, config)
    assert t.decode(marked.ids[: marked.prompt_at]).endswith("what ?") and 0 < marked.prompt_at < len(
        marked.ids
    )


def test_what_cannot_be_is_said_with_the_lengths():
    """A prompt longer than the context: the two lengths. No template, no EOS, unknown positions: a sentence."""
    t, example = tokenizer("bytes"), Example("what ?", " yes")
    with pytest.raises(WorkbenchError, match=r"prompt of 20 tokens .* context of 16 tokens"):
        encode(example, t, prompt_length=20, context_length=16)
    with pytest.raises(
        WorkbenchError, match=r"prompt of 14 tokens and an answer of 2 tokens .* context of 16 tokens"
    ):
        encode(example, t, prompt_length=14, context_length=16)
    bare = PreTrainedTokenizerFast(tokenizer_object=t.backend_tokenizer)
    with pytest.raises(WorkbenchError, match="EOS"):
        encode(example, bare)
    assert encode(example, bare, TextConfig(train_eos=False)).ids
    with pytest.raises(WorkbenchError, match="chat_template"):
        encode_question("what ?", bare, TextConfig(chat_template=True))
    with pytest.raises(WorkbenchError, match="did you mean 'after-bos'"):
        TextConfig(prompt_position="after_bos")
    with pytest.raises(WorkbenchError, match="'middle'"):
        TextConfig(cut="midle")
    with pytest.raises(WorkbenchError, match="above zero"):
        TextConfig(max_tokens=0)

"""ProSG beside the plain backbone: training a synthesiser, writing with the weights of one prompt, and with those of 32.

Times only; that both read and write the same tokens, and that the changed weights are in force, is compared before.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import RwkvConfig, RwkvForCausalLM

from workbench.backbones import rwkv
from workbench.backbones.backbone import Backbone, load_backbone
from workbench.bench.harness import Measurement, row
from workbench.bench.models import MEDIUM
from workbench.methods.apply import Decoder, answer_logits
from workbench.methods.generate import GenerateConfig, generate
from workbench.methods.injection import NOTHING, Injection
from workbench.methods.rows import Rows
from workbench.methods.synthetic_gradient import SyntheticGradient
from workbench.tasks.encode import Encoded, TextConfig, encode, encode_question
from workbench.tasks.task import Example, load_task

CLAUSES, TOKENS, BATCH = 6, 200, 8
PROMPTS, WRITTEN = 32, 64
TEXT, EVERY = 200, 50
"""Tokens of a whole text, and after how many of them its prompt is read again."""
RANKS = (16, 4)
COMPARED = 4  # tokens at which logits are compared
TOLERANCE = 1e-4  # of the largest logit


@row("prosg train")
def train() -> Sequence[Measurement]:
    """One update of a synthesiser, beside one of all the backbone's weights on the same stories, both by AdamW.

    The peer runs by our recurrence, with the head on the answers only: the fastest fine-tuning that there is here.
    """
    return [_train(backbone) for backbone in _backbones()]


def _train(backbone: Backbone, stories: int = BATCH, length: int = TOKENS) -> Measurement:
    text = TextConfig(train_eos=False)
    rows = Rows.collate([encode(one, backbone.tokenizer, text) for one in _stories(stories, length)])
    method = SyntheticGradient(backbone)
    tuned = copy.deepcopy(backbone)
    tuned.model.requires_grad_(True)
    ours = _Update(backbone, rows, list(method.parameters()), method.injection, 1e-3)
    peer = _Update(tuned, rows, list(tuned.model.parameters()), lambda: NOTHING, 1e-4)

    def check() -> None:
        """Before the first step both give the same logits where the change is taken back; then either learns."""
        with torch.no_grad():
            (plain, targets), (changed, same) = (answer_logits(*u.reads()) for u in (peer, ours))
            assert torch.equal(targets, same), "the answers differ"
            assert _apart(changed, plain) > 100 * TOLERANCE, "the weights are not changed"
            method.strength = 0.0
            assert _apart(answer_logits(*ours.reads())[0], plain) <= TOLERANCE, "the logits differ"
            method.strength = 1.0
        for update in (ours, peer):
            losses = [float(update()) for _ in range(3)]
            assert losses[-1] < losses[0], f"the loss goes from {losses[0]:.4f} to {losses[-1]:.4f}"

    trained, all_weights = (sum(p.numel() for p in u.parameters) for u in (ours, peer))
    return Measurement(
        f"prosg train, {backbone.name}",
        ours,
        peer,
        check=check,
        samples=7,
        notes=f"{_sizes(backbone)}; {len(rows)} stories with {CLAUSES} clauses, {int(rows.lengths.sum()):,} tokens of which "
        f"{rows.answer_tokens:,} answer; ours: a synthesiser of {trained:,} weights; peer: fine-tuning of all {all_weights:,}, "
        "same recurrence; both with AdamW",
        tokens=int(rows.lengths.sum()),
    )


class _Update:
    """One step of AdamW on the same rows again and again."""

    def __init__(
        self,
        backbone: Backbone,
        rows: Rows,
        parameters: Sequence[Tensor],
        injection: Callable[[], Injection],
        learning_rate: float,
    ):
        self.backbone, self.rows, self.parameters, self.injection = backbone, rows, parameters, injection
        self.optimizer = torch.optim.AdamW(parameters, lr=learning_rate)

    def reads(self) -> tuple[Backbone, Rows, Injection]:
        """What `answer_logits` is given."""
        return self.backbone, self.rows, self.injection()

    def __call__(self) -> Tensor:
        self.optimizer.zero_grad()
        logits, answers = answer_logits(*self.reads())
        loss = cross_entropy(logits, answers)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


@row("prosg folded")
def folded() -> Sequence[Measurement]:
    """One prompt, its change folded into the matrices: each token, what comes once before the first, and a whole text."""
    first, second = _backbones()
    return [*_one(first), *_one(second), _whole_text("folded", first, 1)]


def _one(backbone: Backbone) -> list[Measurement]:
    questions = _questions(backbone, 1)
    method = SyntheticGradient(backbone)
    once = Measurement(
        f"prosg folded, before the first token, {backbone.name}",
        lambda: _read(backbone, questions, method),
        lambda: _read(backbone, questions),
        notes=f"{_sizes(backbone)}; {_asked(questions)}; ours: the prompt read for its change, the change folded, the prompt read once "
        "more; peer: the plain backbone reads it",
        tokens=len(questions[0].ids),
    )
    return [_tokens("folded", backbone, questions), once]


@row("prosg rows")
def rows() -> Sequence[Measurement]:
    """32 prompts in a batch, each row with the factors of its own change: each token, and whole texts."""
    first, second = _backbones()
    made = [_tokens("rows", b, _questions(b, PROMPTS), RANKS) for b in (first, second)]
    return [*made, _whole_text("rows", first, PROMPTS, RANKS)]


def _tokens(
    name: str, backbone: Backbone, questions: Sequence[Encoded], ranks: Sequence[int] = ()
) -> Measurement:
    """What a token costs once the prompts are read; `ranks`, to which changes are cut in variants."""
    plain = _Writing(backbone, questions)
    ours, *cut = (
        _Writing(backbone, questions, SyntheticGradient(backbone, rank=rank)) for rank in (0, *ranks)
    )

    def check() -> None:
        for writing in (plain, ours, *cut):
            writing.check()
        for writing in (ours, *cut):
            assert _apart(writing.first, plain.first) > 100 * TOLERANCE, "the weights are not changed"

    return Measurement(
        f"prosg {name}, {backbone.name}",
        ours,
        plain,
        check=check,
        samples=7,
        notes=f"{_sizes(backbone)}; {_asked(questions)}, read before; {WRITTEN} new tokens each, greedy; ours: under the changed "
        "weights; peer: the plain backbone",
        variants={f"ours, rank {rank}": work for rank, work in zip(ranks, cut, strict=True)},
        tokens=len(questions) * WRITTEN,
    )


class _Writing:
    """Prompts that were read, from whose end texts are written greedily again and again: (B, WRITTEN) tokens."""

    def __init__(
        self, backbone: Backbone, questions: Sequence[Encoded], method: SyntheticGradient | None = None
    ):
        self.backbone, self.questions, self.method = backbone, questions, method
        self._decoder = _read(backbone, questions, method)
        self.first = self._decoder.next_logits()
        """(B, V) logits of the first token."""

    @torch.no_grad()
    def steps(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """So many times (B,) tokens, and the logits (B, V) that they were chosen by."""
        decoder = copy.copy(self._decoder)  # the recurrence writes into no state: what was read stays
        decoder.groups = [copy.copy(group) for group in decoder.groups]
        for step in range(count):
            logits = decoder.next_logits()
            tokens = logits.argmax(-1)
            yield tokens, logits
            if step < count - 1:
                decoder.feed(tokens)

    def __call__(self) -> Tensor:
        return torch.stack([tokens for tokens, _ in self.steps(WRITTEN)], 1)

    @torch.no_grad()
    def check(self) -> None:
        """Its logits are those of one reading of prompt and text, under the same weights."""
        tokens, logits = (torch.stack(made, 1) for made in zip(*self.steps(COMPARED), strict=True))
        whole = [
            Encoded((*q.ids, *own), len(q.ids), 0)
            for q, own in zip(self.questions, tokens.tolist(), strict=True)
        ]
        expected, _ = answer_logits(self.backbone, Rows.collate(whole), _injection(self.method))
        error = _apart(logits.flatten(0, 1), expected)
        assert error <= TOLERANCE, f"logits differ by {error:.1e} of the largest"


def _whole_text(name: str, backbone: Backbone, prompts: int, ranks: Sequence[int] = ()) -> Measurement:
    """All that `generate` does from prompts to texts."""
    asked = [story.prompt for story in _stories(prompts, TEXT)]
    config = GenerateConfig(max_new_tokens=TEXT)
    methods = {rank: SyntheticGradient(backbone, rank=rank) for rank in (0, *ranks)}

    def ours(rank: int = 0) -> list[str]:
        return generate(backbone, asked, methods[rank], config)

    def peer(again: int = 0) -> list[str]:
        return generate(backbone, asked, config=replace(config, reread_every=again))

    def check() -> None:
        read = backbone.tokenizer
        for texts, method in ((ours(), methods[0]), (peer(), None)):
            writing = _Writing(backbone, _questions(backbone, prompts), method)
            tokens = torch.stack([tokens for tokens, _ in writing.steps(TEXT)], 1)
            expected = [read.decode(own, skip_special_tokens=True) for own in tokens.tolist()]
            assert texts == expected, "the texts have other tokens"
        assert ours() != peer() and peer(EVERY) != peer(), (
            "a change of weights, or reading again, changes nothing"
        )

    variants: dict[str, Callable[[], Any]] = {f"ours, rank {rank}": lambda r=rank: ours(r) for rank in ranks}  # type: ignore[misc]
    return Measurement(
        f"prosg {name}, whole text, {backbone.name}",
        ours,
        peer,
        check=check,
        samples=5,
        notes=f"{_sizes(backbone)}; prompts: {prompts}, of {CLAUSES} clauses; {TEXT} new tokens each, greedy, all of generation counted; "
        "peer: the plain backbone",
        variants={**variants, f"plain, the prompt read again every {EVERY} tokens": lambda: peer(EVERY)},
        tokens=prompts * TEXT,
    )


def _backbones() -> tuple[Backbone, Backbone]:
    """tiny-rwkv, and a random one of the sizes of `MEDIUM`. Neither ends a text by itself."""
    return _tiny(), _random()


def _tiny() -> Backbone:
    tiny = load_backbone("tiny-rwkv", device="cpu").view()
    tiny.tokenizer = copy.deepcopy(tiny.tokenizer)
    tiny.tokenizer.eos_token = None
    tiny.model.generation_config.eos_token_id = None
    return tiny


def _random() -> Backbone:
    """An RWKV-4 with random weights behind the tokenizer of tiny-rwkv."""
    torch.manual_seed(0)
    config = RwkvConfig(
        vocab_size=MEDIUM.vocabulary,
        hidden_size=MEDIUM.width,
        num_hidden_layers=MEDIUM.layers,
        rescale_every=0,
        eos_token_id=None,
    )
    model = RwkvForCausalLM(config).eval()
    rwkv.init_weights(model, torch.Generator().manual_seed(0))
    with torch.no_grad():  # away from the zeros that training starts from
        for weight in model.parameters():
            weight += 0.02 * torch.randn(weight.shape)
    return Backbone(model, _tiny().tokenizer, "random RWKV")


def _sizes(backbone: Backbone) -> str:
    sizes = f"{backbone.num_layers} layers, width {backbone.width}, vocabulary {backbone.vocabulary_size:,}"
    return f"{sizes}, {str(backbone.dtype).removeprefix('torch.')}"


def _stories(count: int, length: int) -> Sequence[Example]:
    task = load_task("stories", n=count, split="test", clauses=CLAUSES, length=length)
    return [task[at] for at in range(count)]


def _questions(backbone: Backbone, count: int) -> list[Encoded]:
    return [encode_question(story, backbone.tokenizer) for story in _stories(count, TEXT)]


def _asked(questions: Sequence[Encoded]) -> str:
    sizes = sorted(len(question.ids) for question in questions)
    tokens = f"{sizes[0]} to {sizes[-1]}" if sizes[-1] > sizes[0] else f"{sizes[0]}"
    return f"prompts: {len(questions)}, of {CLAUSES} clauses, {tokens} tokens"


def _injection(method: SyntheticGradient | None) -> Injection:
    return NOTHING if method is None else method.injection()


@torch.no_grad()
def _read(
    backbone: Backbone, questions: Sequence[Encoded], method: SyntheticGradient | None = None
) -> Decoder:
    return Decoder(backbone, Rows.collate(questions), _injection(method))


def _apart(logits: Tensor, others: Tensor) -> float:
    """The largest difference, as a share of the largest number."""
    return float((logits - others).abs().max() / others.abs().max())

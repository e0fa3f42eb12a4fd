"""What an instruction adds to its own logits: the site of an injection, the bias on the prompt's words, the pointer cache.

That rows in a batch, in training and in generation get what a plain run of each alone gives, on every architecture, is
tested with all other methods in `test_methods.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from workbench.backbones.backbone import Backbone
from workbench.backbones.runner import Output
from workbench.errors import WorkbenchError
from workbench.methods.apply import Decoder, answer_logits
from workbench.methods.generate import GenerateConfig, generate
from workbench.methods.injection import NOTHING, Injection
from workbench.methods.pointer_cache import PointerCache
from workbench.methods.prompt_bias import PromptBias
from workbench.methods.rows import Rows
from workbench.tasks.encode import Encoded
from workbench.tasks.task import load_task
from workbench.tests import zoo
from workbench.tests.methods_zoo import MAKERS, alone
from workbench.tests.test_contracts import TOLERANCE, distance
from workbench.tests.test_methods import serves
from workbench.training.batches import encode_for
from workbench.training.config import FitConfig
from workbench.training.evaluate import score_answers
from workbench.training.fit import fit

ROWS = [
    Encoded((1, 40, 50, 40, 60, 70, 50, 90, 40), 6, 1),
    Encoded((1, 44, 52, 80, 44, 82, 83), 4, 1),
    Encoded((1, 45, 53, 53), 2, 1),
]
KINDS: dict[str, Callable[[Backbone], PromptBias | PointerCache]] = {
    "prompt-bias": lambda b: PromptBias(b, bias=2.0),
    "pointer-cache": lambda b: PointerCache(b, share=0.4, sharpness=5.0),
}
both_kinds = pytest.mark.parametrize("kind", KINDS)


def answers(backbone: Backbone, injection: Injection = NOTHING, rows: Sequence[Encoded] = ROWS) -> Tensor:
    with torch.no_grad():
        return answer_logits(backbone, Rows.collate(rows), injection)[0]


def test_a_bias_is_added_to_each_word_of_the_prompt_once() -> None:
    """Protects the baseline's meaning, to the bit: repeated words count once, BOS and words of the answer not at all."""
    backbone = zoo.backbone("llama")
    plain, found = answers(backbone), answers(backbone, PromptBias(backbone, bias=2.0).injection())
    words = [{40, 50, 60, 70}] * 3 + [{44, 52, 80}] * 3 + [{45}] * 2
    expected = plain.clone()
    for position, own in enumerate(words):
        for word in own:
            expected[position, word] += 2.0
    assert torch.equal(found, expected)


def mixture(backbone: Backbone, row: Encoded, share: float, sharpness: float, mistake: str = "") -> Tensor:
    """(answers, V) log-probabilities of model and cache by the paper's formula, term by term, through transformers alone."""
    given: list[Tensor] = []
    hook = backbone.layers[-1].register_forward_hook(
        lambda module, inputs, output: given.append(output[0] if isinstance(output, tuple) else output)
    )
    with torch.no_grad():
        logits = backbone.model(input_ids=torch.tensor([row.ids])).logits[0]
    hook.remove()
    hidden = given[0].reshape(len(row.ids), -1)
    if mistake != "as they are":
        hidden = hidden - hidden.mean(1, keepdim=True)
        hidden = hidden / hidden.square().sum(1, keepdim=True).sqrt()
    end = len(row.ids) if mistake == "the answer too" else row.answer_start
    found = []
    for t in range(row.answer_start - 1, len(row.ids) - 1):
        scores = torch.stack([sharpness * hidden[t] @ hidden[i] for i in range(end - 1)])
        weights = (scores - scores.max()).exp()
        cache = torch.zeros(logits.shape[1])
        for i in range(end - 1):
            word = row.ids[i if mistake == "the word itself" else i + 1]
            cache[word] += weights[i] / weights.sum()
        found.append(((1 - share) * logits[t].softmax(0) + share * cache).log())
    return torch.stack(found)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_pointer_cache_is_the_mixture_of_the_paper(architecture: str) -> None:
    """Protects the formula, and sees each way in which it could be misread."""
    backbone = zoo.backbone(architecture)
    method = PointerCache(backbone, share=0.4, sharpness=5.0)
    found = answers(backbone, method.injection()).log_softmax(1)
    expected = torch.cat([mixture(backbone, row, 0.4, 5.0) for row in ROWS])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for mistake in ("the word itself", "the answer too", "as they are"):
        wrong = torch.cat([mixture(backbone, row, 0.4, 5.0, mistake) for row in ROWS])
        assert float((found - wrong).abs().max()) > 1e-2, mistake
    assert {name: round(float(v), 5) for name, v in method.snapshot().items()} == {
        "share": 0.4, "sharpness": 5.0}  # fmt: skip


@both_kinds
@pytest.mark.parametrize("architecture", ["llama", "rwkv"])
def test_at_strength_0_it_is_the_plain_model(architecture: str, kind: str) -> None:
    """Protects the foot of every sweep: the plain logits to the bit, and gradients that are numbers."""
    backbone = zoo.backbone(architecture)
    method = KINDS[kind](backbone)
    assert not torch.equal(answers(backbone, method.injection()), answers(backbone))
    method.strength = 0.0
    assert torch.equal(answers(backbone, method.injection()), answers(backbone))
    logits, _ = answer_logits(backbone, Rows.collate(ROWS), method.injection())
    logits.logsumexp(1).sum().backward()
    assert all(float(p.grad) == 0 for p in method.parameters())


def test_strength_scales_the_bias_and_the_odds_of_the_cache() -> None:
    """Protects the sweep's axis: twice the strength is twice the bias; four times 1 : 4 is as much cache as model."""
    backbone = zoo.backbone("llama")
    bias, cache = PromptBias(backbone, bias=1.5), PointerCache(backbone, share=0.2)
    bias.strength, cache.strength = 2.0, 4.0
    for method, same in (
        (bias, PromptBias(backbone, bias=3.0)),
        (cache, PointerCache(backbone, share=0.5)),
    ):
        torch.testing.assert_close(answers(backbone, method.injection()), answers(backbone, same.injection()))


def test_a_sharp_cache_points_and_a_blunt_one_counts() -> None:
    """Protects θ: near 0 the cache has each word as often as it stands there, and a large one has the nearest place alone."""
    backbone = zoo.backbone("llama")
    row = ROWS[0]
    plain = answers(backbone, rows=[row]).softmax(1)
    for sharpness, share in ((1e-6, 0.5), (1e6, 0.5)):
        method = PointerCache(backbone, share=share, sharpness=sharpness)
        cache = (answers(backbone, method.injection(), [row]).softmax(1) - (1 - share) * plain) / share
        if sharpness < 1:
            counts = {40: 2 / 5, 50: 1 / 5, 60: 1 / 5, 70: 1 / 5}
            assert all(abs(float(p[word]) - count) < 1e-4 for p in cache for word, count in counts.items())
        else:
            assert bool(((cache.amax(1) - 1).abs() < 1e-4).all())


@both_kinds
@pytest.mark.parametrize("architecture", ["llama", "rwkv", "mamba2"])
def test_nothing_of_an_answer_leaks_in(architecture: str, kind: str) -> None:
    """Protects honesty: other answers, of other lengths, change nothing of what is made of an instruction, and one word more in it
    does."""
    backbone = zoo.backbone(architecture)
    method = KINDS[kind](backbone)
    dice = torch.Generator().manual_seed(0)
    logits = torch.randn(3, backbone.vocabulary_size, generator=dice, dtype=backbone.dtype)
    hidden = torch.randn(3, backbone.width, generator=dice, dtype=backbone.dtype)

    def made(rows: Sequence[Encoded]) -> Tensor:
        with torch.no_grad():
            return method.changes(Rows.collate(rows))(logits, torch.arange(3), hidden)

    expected = made(ROWS)
    others = [
        Encoded((*row.ids[: row.answer_start], 99, 98, 97, 96, 95, 94, 93), row.answer_start, 1)
        for row in ROWS
    ]
    questions = [Encoded(row.ids[: row.answer_start], row.answer_start, 1) for row in ROWS]
    for rows in (others, questions):
        torch.testing.assert_close(made(rows), expected)
    later = [Encoded(row.ids, row.answer_start + 1, 1) for row in others]
    assert float((made(later) - expected).abs().max()) > 0.1


@pytest.mark.parametrize("architecture", ["llama", "rwkv"])
def test_a_prompt_of_one_token_has_nothing_to_point_at(architecture: str) -> None:
    """Protects short prompts: such a row is the plain model's, alone, beside others, and when the model writes."""
    backbone = zoo.backbone(architecture)
    injection = PointerCache(backbone).injection()
    short = Encoded((1, 45, 53), 1, 0)
    assert torch.equal(answers(backbone, injection, [short]), answers(backbone, rows=[short]))
    together, plain = (answers(backbone, i, [short, ROWS[0]]) for i in (injection, NOTHING))
    assert torch.equal(together[:2], plain[:2]) and not torch.equal(together[2:], plain[2:])
    questions = Rows.collate([Encoded((1,), 1, 0)])
    with torch.no_grad():
        found, expected = (Decoder(backbone, questions, i).next_logits() for i in (injection, NOTHING))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", sorted(set(MAKERS) - set(KINDS)))
@pytest.mark.parametrize("architecture", ["llama", "rwkv"])
def test_it_stands_beside_every_other_site(architecture: str, name: str) -> None:
    """Protects the site for methods to come: with vectors, keys, a state or other weights in the same injection each row still gets
    what a plain run of it alone gives, whole and token by token."""
    if not serves(architecture, name):
        return
    backbone = zoo.backbone(architecture)
    with torch.no_grad():
        other = MAKERS[name](backbone, 0).injection()
        injection = replace(other, logit_changes=PointerCache(backbone, share=0.5).changes)
        expected = torch.cat([alone(backbone, row, injection) for row in ROWS])
        without = torch.cat([alone(backbone, row, other) for row in ROWS])
        assert distance(without, expected) > 1000 * TOLERANCE
        for share in (True, False):
            for keep in (True, False):
                found, _ = answer_logits(backbone, Rows.collate(ROWS), injection, share, keep)
                assert distance(found, expected) < TOLERANCE
        decoder = Decoder(backbone, Rows.collate([Encoded(r.ids, len(r.ids), 1) for r in ROWS]), injection)
        decoder.drop({1})
        decoder.feed(torch.tensor([7, 8]))
        for logits, row, token in zip(decoder.next_logits(), decoder.active, (7, 8), strict=True):
            fed = Encoded((*ROWS[row].ids, token, 0), len(ROWS[row].ids), 1)
            assert distance(logits, alone(backbone, fed, injection)[-1]) < TOLERANCE
        single = Decoder(backbone, Rows.collate([Encoded(ROWS[0].ids, len(ROWS[0].ids), 1)]), injection)
        single.feed(torch.tensor([7]))  # by folded weights, where there are changed ones
        assert distance(single.next_logits()[0], decoder.next_logits()[0]) < TOLERANCE


class Whole:
    """A watch that wants the logits of all that is read."""

    def __init__(self) -> None:
        self.logits: list[Tensor] = []

    def ends(self, rows: Sequence[int], places: Tensor) -> Sequence[int]:
        return []

    def run(
        self, rows: Sequence[int], places: Tensor, last: Tensor, model: Callable[[Tensor], Output]
    ) -> Output:
        output = model(places >= 0)
        self.logits += output.logits.split((places >= 0).sum(1).tolist())
        return output._replace(logits=output.logits[last[places >= 0]])

    def wrote(self, rows: Sequence[int], tokens: Tensor, logits: Tensor) -> None:
        raise AssertionError("nothing is written here")


@both_kinds
@pytest.mark.parametrize("layout", ["cache", "padded", "one by one"])
def test_only_the_answer_s_logits_are_changed(layout: str, kind: str) -> None:
    """Protects traces: the instruction's own words are as likely as they were, up to the one before the answer."""
    backbone = zoo.backbone("llama" if layout == "cache" else zoo.WITHOUT_CACHE)
    if layout == "one by one":
        backbone = backbone.view()
        backbone.layouts = replace(backbone.layouts, right_padding=False)
    injection = KINDS[kind](backbone).injection()
    questions = Rows.collate([Encoded(row.ids[:4], 4, 1) for row in ROWS])
    with torch.no_grad():
        plain, changed = Whole(), Whole()
        Decoder(backbone, questions, NOTHING, plain)
        decoder = Decoder(backbone, questions, injection, changed)
        assert len(plain.logits) == len(changed.logits) == 3
        for before, after, first in zip(plain.logits, changed.logits, decoder.next_logits(), strict=True):
            assert torch.equal(before[:3], after[:3])
            assert distance(after[3], before[3]) > 1000 * TOLERANCE
            assert torch.equal(after[3], first)


@both_kinds
def test_methods_of_several_prompts_are_served_apart(kind: str) -> None:
    """Protects `generate`: two of a kind in one call write what each writes alone, and the plain backbone its own."""
    backbone = zoo.backbone("llama")
    strong, weak = KINDS[kind](backbone), KINDS[kind](backbone)
    strong.strength, weak.strength = 8.0, 0.5
    config, prompts = GenerateConfig(max_new_tokens=12, temperature=1.0), ["the quick fox"] * 3
    order = (strong, None, weak)
    whole = [generate(backbone, prompts, method, config) for method in order]
    texts = generate(backbone, prompts, methods=order, config=config)
    for row in range(3):
        assert [made[row] for made in whole].index(texts[row]) == row
        assert len({made[row] for made in whole}) == 3


@both_kinds
def test_fit_finds_the_best_there_is(kind: str) -> None:
    """Protects the tuned baseline: after training, a step of any trained number to either side costs nats."""
    backbone = zoo.backbone("llama")
    task = load_task("copy", n=8)
    method = KINDS[kind](backbone)
    start = [float(p.detach()) for p in method.parameters()]
    config = FitConfig(steps=120, batch_size=8, learning_rate=0.2, evaluate_every=0, keep="last")
    losses = [step.loss for step in fit(backbone, method, task, config)]
    assert losses[-1] < losses[0] - 0.01
    assert all(abs(float(p.detach()) - s) > 0.1 for p, s in zip(method.parameters(), start, strict=True))
    rows = [Rows.collate([encode_for(backbone, e, config.text, 0) for e in task.examples("train")])]
    with torch.no_grad():
        best = score_answers(backbone, rows, method.injection())["loss"]
        for parameter in method.parameters():
            for step in (0.3, -0.3):
                parameter += step
                assert score_answers(backbone, rows, method.injection())["loss"] > best
                parameter -= step


def test_bad_settings_name_what_is_wrong() -> None:
    """Protects users: a share that is none and a sharpness without a logarithm get one sentence."""
    backbone = zoo.backbone("llama")
    for fields, said in (
        ({"share": 1.0}, "share is 1.0"),
        ({"share": 0.0}, "share is 0.0"),
        ({"sharpness": 0.0}, "sharpness is 0.0"),
    ):
        with pytest.raises(WorkbenchError, match=said) as caught:
            PointerCache(backbone, **fields)
        assert "\n" not in str(caught.value)

"""Generation: choices, stops, streaming, refusals."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import WorkbenchError
from workbench.methods.apply import check_context
from workbench.methods.generate import GenerateConfig, choose, generate, stream
from workbench.methods.soft_prompt import SoftPrompt
from workbench.methods.synthetic_gradient import SyntheticGradient
from workbench.tasks.encode import TextConfig
from workbench.tests import zoo


def dice(seed: int, rows: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + i) for i in range(rows)]


@pytest.mark.parametrize("architecture", ["llama", "rwkv"])
def test_greedy_text_is_that_of_transformers(architecture: str) -> None:
    """The plain backbone writes what transformers' own generate writes, token for token."""
    backbone = zoo.backbone(architecture)
    ids = backbone.tokenizer("the fox", return_tensors="pt")
    theirs = backbone.model.generate(
        **ids, max_new_tokens=8, do_sample=False, use_cache=architecture == "llama"
    )  # type: ignore[operator]
    expected = backbone.tokenizer.decode(theirs[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    assert generate(backbone, ["the fox"], config=GenerateConfig(max_new_tokens=8)) == [expected]


@given(seed=st.integers(0, 1000), top_k=st.integers(0, 6), top_p=st.floats(0.2, 1.0))
def test_sampling_stays_within_what_transformers_allows(seed: int, top_k: int, top_p: float) -> None:
    """Only tokens that transformers' warpers leave can be drawn."""
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = torch.randn(3, 12, generator=torch.Generator().manual_seed(seed))
    warpers = LogitsProcessorList([TemperatureLogitsWarper(0.7)])
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    allowed = warpers(torch.zeros(3, 1, dtype=torch.long), logits.clone()) > -torch.inf
    config = GenerateConfig(temperature=0.7, top_k=top_k, top_p=top_p)
    for throw in range(10):
        tokens = choose(logits.clone(), config, dice(throw * 100, 3))
        assert bool(allowed.gather(1, tokens[:, None]).all())


def test_sampling_draws_from_the_distribution() -> None:
    """Frequencies of 4,000 draws are the softmax at that temperature, within four standard errors."""
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    one = torch.Generator().manual_seed(0)
    config = GenerateConfig(temperature=0.5)
    drawn = torch.cat([choose(logits.clone(), config, [one]) for _ in range(4000)])
    share = torch.bincount(drawn, minlength=4) / 4000
    expected = (logits[0] / 0.5).softmax(-1)
    assert bool(((share - expected).abs() <= 4 * (expected * (1 - expected) / 4000).sqrt() + 1e-9).all())


def test_stop_string_ends_the_text() -> None:
    """The text ends before the stop string, even where that is in the middle of what was written."""
    backbone = zoo.backbone("llama")
    whole = generate(backbone, ["a fox"], config=GenerateConfig(max_new_tokens=12))[0]
    stop = whole[4:6]
    short = generate(backbone, ["a fox"], config=GenerateConfig(max_new_tokens=12, stop=(stop,)))[0]
    assert short == whole[: whole.index(stop)]


@pytest.mark.parametrize("stop", [(), ("e",), ("zz", "the")])
def test_streamed_pieces_are_the_text(stop: tuple[str, ...]) -> None:
    """Streaming gives the same text, and never a piece that has to be taken back."""
    backbone = zoo.backbone("rwkv")
    method = SoftPrompt(backbone, tokens=3)
    config = GenerateConfig(max_new_tokens=16, temperature=1.0, stop=stop, seed=3)
    assert "".join(stream(backbone, "one", method, config)) == generate(backbone, ["one"], method, config)[0]


def test_rows_that_end_early_leave_the_others_alone() -> None:
    """Rows with different ends give what each gives alone."""
    backbone = zoo.backbone("llama")
    texts = ["a", "bc d", "the quick fox", "zebra"]
    config = GenerateConfig(max_new_tokens=10, stop=("a", "q"), batch_size=4)
    assert generate(backbone, texts, config=config) == [
        generate(backbone, [t], config=config)[0] for t in texts
    ]


def test_marker_places_the_prompt() -> None:
    """A prompt in mid-text gives another answer than one before it."""
    backbone = zoo.backbone("llama")
    method = SoftPrompt(backbone, tokens=3, seed=2)
    middle = GenerateConfig(max_new_tokens=8, text=TextConfig(prompt_position="marker"))
    front = GenerateConfig(max_new_tokens=8)
    assert generate(backbone, ["one <prompt>two"], method, middle) != generate(
        backbone, ["one two"], method, front
    )


REFUSED = [
    (lambda b: GenerateConfig(beams=4), "beams=4 is not offered"),
    (lambda b: GenerateConfig(top_p=0.0), "top_p"),
    (lambda b: generate(b, "one prompt"), "takes a list"),
    (lambda b: generate(b, ["x"], config=GenerateConfig(max_new_tokens=300)), "256"),
    (lambda b: generate(b, ["x"], SoftPrompt(b, tokens=400)), "400.*256"),
]


@pytest.mark.parametrize(("act", "sentence"), REFUSED, ids=[s for _, s in REFUSED])
def test_refusals_say_what_to_do(act, sentence: str) -> None:  # type: ignore[no-untyped-def]
    """What cannot be done is refused in one sentence, with the numbers."""
    with pytest.raises(WorkbenchError, match=sentence):
        act(zoo.backbone("llama"))


def test_a_prompt_that_is_written_into_the_weights_is_not_cut() -> None:
    """A question that does not fit is cut for the plain backbone; what changes weights would lose clauses in silence."""
    few = GenerateConfig(max_new_tokens=6)
    llama, rwkv = zoo.backbone("llama"), zoo.backbone("rwkv")
    prompt = "hero : tom . " * 30
    method = SyntheticGradient(llama, source="error")
    assert generate(llama, [prompt], config=few)
    for write in (
        lambda: generate(llama, [prompt], method, few),
        lambda: list(stream(llama, prompt, method, few)),
    ):
        with pytest.raises(
            WorkbenchError, match=r"^397 tokens are needed, but small-llama reads 256; shorten"
        ):
            write()
    assert generate(
        llama, [prompt[:249]], method, few
    )  # with BOS and 6 tokens of an answer it fills the context
    with pytest.raises(WorkbenchError, match=r"^257 tokens are needed"):
        generate(llama, [prompt[:250]], method, few)
    assert generate(rwkv, [prompt], SyntheticGradient(rwkv, source="error"), few)


def test_a_trained_prompt_is_told_from_what_is_read() -> None:
    """The sentence counts the vectors of a method apart, and speaks of none where there are none."""
    for prompt, sentence in (
        (0, "^257 tokens are needed, but"),
        (4, r"needed \(4 of them the trained prompt\), but"),
    ):
        with pytest.raises(WorkbenchError, match=sentence):
            check_context(zoo.backbone("llama"), 257, prompt)
        check_context(zoo.backbone("llama"), 256, prompt)
        check_context(zoo.backbone("rwkv"), 10**6, prompt)

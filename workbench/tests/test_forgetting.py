"""Protects the measures of forgetting: closed forms, plain loops without a batch, and one text the same given and while written."""

from __future__ import annotations

import copy
import functools
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import workbench as wb
from workbench.analysis import clause_variants, forgetting_measures
from workbench.analysis.clause_probes import train_probes
from workbench.analysis.forgetting import COLUMNS, Forgetting, can_read_state, follow_forgetting, forgetting
from workbench.analysis.forgetting_measures import MEASURES, Steps
from workbench.backbones import rwkv
from workbench.backbones.backbone import Backbone
from workbench.backbones.states import read_state
from workbench.errors import WorkbenchError
from workbench.methods.generate import GenerateConfig
from workbench.methods.injection import NOTHING
from workbench.methods.method import Method
from workbench.tasks.checks import MustContain, MustNotContain, Verdict
from workbench.tasks.clauses import Clause, ClausePrompt, from_example, from_story
from workbench.tasks.encode import Encoded, TextConfig, continuation_ids, encode_question
from workbench.tasks.task import load_task
from workbench.tests import zoo
from workbench.tests.methods_zoo import MAKERS, alone

CHOSEN = zoo.ARCHITECTURES if os.environ.get("WORKBENCH_EVERY_ARCHITECTURE") else zoo.EVERY_COMMIT
TOLERANCE = 1e-5
FINE = 1e-7
"""Where all is float64."""
SINGLE = {"mamba", "mamba2", "recurrent_gemma", "falcon_h1", "qwen3_next"}
"""Architectures that compute in float32 whatever their weights are, of weights that are scaled."""
METHODS = (
    None,
    "soft-prompt",
    "deep-prompt",
    "prefix",
    "initial-state",
    "lora",
    "synthetic-gradient",
    "pointer-cache",
)
"""Of `MAKERS`, one for each site of an injection."""
every_backbone = pytest.mark.parametrize("architecture", CHOSEN)
PROMPT = from_story("write a story . hero : tom . pet : fox not owl . door : red . begin :")
CONTROL = from_story("write a story . pet : cat . hero : sam . dream : cook . begin :")
TEXT = " tom had a fox . it slept ."
FEW = GenerateConfig(max_new_tokens=9)


@functools.cache
def exact(architecture: str) -> Backbone:
    """The zoo's backbone in float64, as far as its own code goes along: an influence is a small difference of large logits."""
    model = zoo.make_model(architecture).double()
    return Backbone(model, zoo.tokenizer(), f"small-{architecture}")  # type: ignore[arg-type]


def fine(architecture: str) -> float:
    """How far one row may be from itself in a batch."""
    return 1e-4 if architecture in SINGLE else FINE


def distance(a: Any, b: Any) -> float:
    """Largest difference, of numbers above 1 as a share of the largest; where one is nan the other has to be."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape and bool((np.isnan(a) == np.isnan(b)).all())
    return float(np.nanmax(np.abs(a - b)) / max(1.0, np.nanmax(np.abs(b))))


def farthest(one: Forgetting, other: Forgetting) -> float:
    assert list(one.values) == list(other.values)
    return max(distance(one.values[name], other.values[name]) for name in one.values if name != "met")


def made(name: str | None, backbone: Backbone) -> Method | None:
    """The method of that name, or a skip where the backbone cannot serve it."""
    if name is None:
        return None
    try:
        method = MAKERS[name](backbone, 1)
        with torch.no_grad():
            forgetting(backbone, PROMPT, method=method, continuation=" a")
    except WorkbenchError as error:
        pytest.skip(str(error))
    return method


# --- the measures, against closed forms


def steps(**changes: Any) -> Steps:
    """Two tokens of a vocabulary of three; a single clause."""
    logits = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]).double().log()
    other = torch.tensor([[0.25, 0.25, 0.5], [0.2, 0.2, 0.6]]).double().log()
    flat = torch.zeros(2, 3, dtype=torch.float64)
    one = Steps(torch.tensor([0, 2]), logits + 7, other - 3, [flat], [Clause("a")], [other])
    return replace(one, **changes)


def test_divergences_have_their_closed_forms() -> None:
    """0.5·log 2 + 0.25·log 1 + 0.25·log 1/2 = log(2)/4; against the flat one log 3 - entropy. Constants of logits do not count."""
    entropies = [1.5 * math.log(2), -0.4 * math.log(0.2) - 0.6 * math.log(0.6)]
    flat = [math.log(3) - h for h in entropies]
    assert MEASURES["influence"](steps()) == pytest.approx([math.log(2) / 4, 0.0])
    assert MEASURES["clause_influence"](steps())[:, 0] == pytest.approx(flat)
    assert MEASURES["control_influence"](steps())[:, 0] == pytest.approx(
        flat
    )  # the control has the same entropies
    assert MEASURES["value_influence"](steps())[:, 0] == pytest.approx([math.log(2) / 4, 0.0])


def test_a_word_that_is_impossible_is_no_nan() -> None:
    logits = torch.tensor([[0.0, 0.0, -torch.inf]])
    same = steps(tokens=torch.tensor([0]), prompt=logits, alone=logits)
    assert MEASURES["influence"](same) == pytest.approx([0.0])
    finite = steps(tokens=torch.tensor([0]), prompt=logits, alone=torch.zeros(1, 3))
    assert MEASURES["influence"](finite) == pytest.approx([math.log(1.5)])


def test_tokens_have_their_probabilities_and_gains() -> None:
    assert MEASURES["log_probability"](steps()) == pytest.approx([math.log(0.5), math.log(0.6)])
    assert MEASURES["clause_gain"](steps())[:, 0] == pytest.approx([math.log(1.5), math.log(1.8)])
    restored = torch.tensor([torch.nan, math.log(0.9)], dtype=torch.float64)
    found = MEASURES["restoration"](steps(restored=restored))
    assert np.isnan(found[0]) and found[1] == pytest.approx(math.log(1.5))


def test_states_and_missing_controls() -> None:
    states = {0: torch.tensor([[1.0, 0.0], [0.0, 2.0]]), 2: torch.tensor([[3.0], [-3.0]])}
    first = {layer: vectors[0] for layer, vectors in states.items()}
    found = MEASURES["state_cosine"](steps(states=states, first_state=first))
    assert found == pytest.approx(np.array([[1.0, 1.0], [0.0, -1.0]]))
    other = {0: torch.tensor([[1.0, 0.0], [2.0, 0.0]]), 2: torch.tensor([[3.0], [5.0]])}
    found = MEASURES["clause_state"](steps(states=states, states_without=[other]))
    assert found == pytest.approx(np.array([[0.0], [1 - (0 - 1) / 2]])), (
        "the same, then right angles and opposite"
    )
    assert np.isnan(MEASURES["control_influence"](steps(swapped=[None]))).all()


def test_every_measure_says_what_it_is() -> None:
    for name, measure in MEASURES.items():
        assert measure.name == name and measure.label and len(measure.explain) > 20


# --- a given text, against rows read one at a time


def row_of(backbone: Backbone, prompt: str, tokens: Sequence[int], length: int = 0) -> Encoded:
    question = encode_question(prompt, backbone.tokenizer)
    return Encoded((*question.ids, *tokens), len(question.ids), question.prompt_at)


def read_alone(backbone: Backbone, method: Method | None, prompt: str, tokens: Sequence[int]) -> Tensor:
    """(T, V) log-probabilities of a text behind a prompt: one row, one run."""
    with torch.no_grad():
        injection = NOTHING if method is None else method.injection()
        if not prompt:  # nothing is written into the weights
            injection = replace(injection, weight_changes=None)
        return alone(backbone, row_of(backbone, prompt, tokens), injection).double().log_softmax(-1)


def kl(p: Tensor, q: Tensor) -> list[float]:
    """Word by word, as one reads the formula."""
    return [
        sum(float(a.exp() * (a - b)) for a, b in zip(left, right, strict=True))
        for left, right in zip(p, q, strict=True)
    ]


@every_backbone
@pytest.mark.parametrize("name", METHODS)
def test_a_batch_of_variants_is_what_each_is_alone(architecture: str, name: str | None) -> None:
    """All influences of a given text, with any method, against a run for each variant; and breaks are seen."""
    backbone = exact(architecture)
    method = made(name, backbone)
    seen = forgetting(backbone, PROMPT, method=method, continuation=TEXT, control=CONTROL)
    tokens = continuation_ids(backbone.tokenizer, TEXT)
    whole = read_alone(backbone, method, PROMPT.prompt, tokens)
    assert distance(seen.values["influence"], kl(whole, read_alone(backbone, method, "", tokens))) < fine(
        architecture
    )
    for clause in range(3):
        without = read_alone(backbone, method, PROMPT.without(clause), tokens)
        assert distance(seen.values["clause_influence"][:, clause], kl(whole, without)) < fine(architecture)
        swapped = PROMPT.swapped(clause, CONTROL)
        if swapped is None:
            assert np.isnan(seen.values["control_influence"][:, clause]).all()
            continue
        theirs = read_alone(backbone, method, swapped, tokens)
        assert distance(seen.values["control_influence"][:, clause], kl(theirs, without)) < fine(architecture)
        assert distance(seen.values["value_influence"][:, clause], kl(whole, theirs)) < fine(architecture)
    spoken = [float(row[token]) for row, token in zip(whole, tokens, strict=True)]
    assert distance(seen.values["log_probability"], spoken) < fine(architecture)
    # off by one: every number a step later
    assert distance(seen.values["log_probability"][1:], spoken[:-1]) > 1000 * fine(architecture)


def test_a_clause_that_is_not_taken_out_has_no_influence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The break that would make every influence 0 is one that the test above sees."""
    backbone = exact("rwkv")
    right = forgetting(backbone, PROMPT, continuation=TEXT)
    monkeypatch.setattr(ClausePrompt, "without", lambda self, index: self.prompt)
    broken = forgetting(backbone, PROMPT, continuation=TEXT)
    assert np.abs(broken.values["clause_influence"]).max() < FINE
    assert distance(broken.values["clause_influence"], right.values["clause_influence"]) > 1000 * FINE


# --- the same text, given and while it is written


def all_measures(backbone: Backbone) -> list[str]:
    names = [name for name, m in MEASURES.items() if not {"states", "attention", "probes"} & set(m.needs)]
    if can_read_state(backbone):
        names += ["state_cosine", "clause_state"]
    if backbone.kind == "attention":
        names.append("attention_mass")
    return names


@every_backbone
@pytest.mark.parametrize("name", METHODS)
def test_written_and_given_are_the_same_numbers(architecture: str, name: str | None) -> None:
    """Every measure, with any method: the text that `generate` writes, and its numbers read as a given text."""
    backbone = exact(architecture)
    method = made(name, backbone)
    asked = {"measures": all_measures(backbone), "control": CONTROL, "restore_at": (1, 4)}
    written = forgetting(backbone, PROMPT, method=method, config=FEW, **asked)
    assert written.text == wb.generate(backbone, [PROMPT.prompt], method, FEW)[0]
    given = forgetting(backbone, PROMPT, method=method, continuation=written.ids, **asked)
    assert given.text == written.text
    assert farthest(given, written) < max(TOLERANCE, fine(architecture))
    followed = list(follow_forgetting(backbone, PROMPT, method=method, config=FEW, **asked))
    assert [step.token_id for step in followed] == list(written.ids)
    for name_ in ("influence", "clause_influence", "log_probability", "restoration"):
        assert distance([step.values[name_] for step in followed], written.values[name_]) < max(
            TOLERANCE, fine(architecture)
        )


@pytest.mark.parametrize("name", wb.bundled())
def test_the_same_numbers_in_single_precision(name: str) -> None:
    """The bundled backbones as they are loaded: a story as one given text, and token by token."""
    backbone = wb.load_backbone(name, device="cpu")
    example = load_task("stories", n=1, split="test", clauses=2, length=40)[0]
    seen = forgetting(backbone, from_example(example), continuation=example.answer)
    followed = list(follow_forgetting(backbone, from_example(example), continuation=example.answer))
    for name_, values in seen.values.items():
        if name_ != "met":
            assert distance([step.values[name_] for step in followed], values) < TOLERANCE


def test_sampled_text_is_the_same_as_generate_writes() -> None:
    backbone = exact("rwkv")
    config = GenerateConfig(max_new_tokens=12, temperature=2.0, seed=5)
    seen = forgetting(backbone, PROMPT, config=config)
    assert seen.text == wb.generate(backbone, [PROMPT.prompt], config=config)[0]
    assert seen.text != forgetting(backbone, PROMPT, config=replace(config, seed=6)).text


@every_backbone
def test_a_text_too_long_for_one_pass_is_read_token_by_token(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = exact(architecture)
    asked = {"continuation": TEXT, "control": CONTROL, "restore_at": (3,)}
    one = forgetting(backbone, PROMPT, **asked)
    monkeypatch.setattr("workbench.analysis.forgetting.MOST_LOGITS", 1)
    assert farthest(forgetting(backbone, PROMPT, **asked), one) < max(TOLERANCE, fine(architecture))


def _counted(self: Any, run: Any, rows: list[int], embeddings: Tensor, *more: Any, **options: Any) -> Any:
    """A run of the model whose rows are noted."""
    rows.append(len(embeddings))
    return run(self, embeddings, *more, **options)


def test_all_variants_are_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A given text takes one run of the model, a written one a run for each token; RWKV's rows share them as well."""
    for architecture in ("llama", "rwkv"):
        backbone = exact(architecture)
        _ = backbone.layouts
        rows: list[int] = []
        counted = functools.partialmethod(_counted, type(backbone.runner).__call__, rows)

        with monkeypatch.context() as patch:
            patch.setattr(type(backbone.runner), "__call__", counted)
            forgetting(backbone, PROMPT, continuation=TEXT)
            assert rows == [5]
            rows.clear()
            seen = forgetting(backbone, PROMPT, config=FEW)
            assert rows == [5] * len(seen.ids)


# --- the prompt read again


def again_rows(backbone: Backbone, prompt: str, again: str, tokens: Sequence[int], at: int) -> Tensor:
    """(T - at, V) log-probabilities behind the prompt, `at` tokens, and the prompt once more: one row."""
    more = continuation_ids(backbone.tokenizer, " " + again) if again else []
    found = read_alone(backbone, None, prompt, [*tokens[:at], *more, *tokens[at:]])
    return found[at + len(more) :]


@every_backbone
def test_reading_again_puts_each_variants_own_prompt_into_the_text(architecture: str) -> None:
    backbone = exact(architecture)
    tokens, at = continuation_ids(backbone.tokenizer, TEXT), 7
    before = forgetting(backbone, PROMPT, continuation=TEXT)
    seen = forgetting(backbone, PROMPT, continuation=TEXT, again_at=at)
    assert distance(seen.values["influence"][:at], before.values["influence"][:at]) < fine(architecture)
    assert PROMPT.again == "remember : hero : tom . pet : fox not owl . door : red . go on :"
    whole = again_rows(backbone, PROMPT.prompt, PROMPT.again, tokens, at)
    nothing = again_rows(backbone, "", "", tokens, at)
    assert distance(seen.values["influence"][at:], kl(whole, nothing)) < fine(architecture)
    less = "remember : hero : tom . door : red . go on :"
    without = again_rows(backbone, PROMPT.without(1), less, tokens, at)
    assert distance(seen.values["clause_influence"][at:, 1], kl(whole, without)) < fine(architecture)
    assert distance(seen.values["influence"][at:], before.values["influence"][at:]) > 1000 * FINE


@every_backbone
def test_a_text_goes_on_with_the_prompt_read_again(architecture: str) -> None:
    """Following from a token on, and a whole text with the prompt read again there, are one; states too."""
    backbone = exact(architecture)
    config = GenerateConfig(max_new_tokens=10, temperature=1.5, seed=3)
    names = [n for n in all_measures(backbone) if not {"swapped", "restored", "met"} & set(MEASURES[n].needs)]
    whole = forgetting(backbone, PROMPT, config=config, again_at=4, measures=names)
    tail = list(
        follow_forgetting(backbone, PROMPT, config=config, written=whole.ids[:4], again=True, measures=names)
    )
    assert [step.index for step in tail] == list(range(5, 11))
    assert [step.token_id for step in tail] == list(whole.ids[4:])
    for name in names:
        assert distance([step.values[name] for step in tail], whole.values[name][4:]) < max(
            TOLERANCE, fine(architecture)
        )
    given = forgetting(backbone, PROMPT, continuation=whole.ids, again_at=4, measures=names)
    assert farthest(given, whole) < max(TOLERANCE, fine(architecture))
    # without reading again, the text from there on is the one that would have been written anyway
    plain = forgetting(backbone, PROMPT, config=config)
    on = follow_forgetting(backbone, PROMPT, config=config, written=plain.ids[:4])
    assert [step.token_id for step in on] == list(plain.ids[4:])


@every_backbone
def test_restoration_reads_the_prompt_once_more(architecture: str) -> None:
    backbone = exact(architecture)
    tokens = continuation_ids(backbone.tokenizer, TEXT)
    seen = forgetting(backbone, PROMPT, continuation=TEXT, restore_at=(1, 6))
    found = seen.table[seen.table.measure == "restoration"]
    assert list(found.step) == [1, 6]
    plain = read_alone(backbone, None, PROMPT.prompt, tokens)
    expected = [
        float(again_rows(backbone, PROMPT.prompt, PROMPT.again or "", tokens[:step], step - 1)[0, token])
        - float(plain[step - 1, token])
        for step, token in ((1, tokens[0]), (6, tokens[5]))
    ]
    assert distance(found.value, expected) < fine(architecture)


# --- states, attention, probes


def states_after(backbone: Backbone, ids: Sequence[int]) -> list[np.ndarray]:
    """The state of each layer once these tokens are read, from nothing."""
    embeddings, mask = backbone.embed(torch.tensor([list(ids)])), torch.ones(1, len(ids), dtype=torch.bool)
    with torch.no_grad():
        state = rwkv.forward(backbone.model, embeddings, mask, None).state
    return [read_state(backbone, state, layer)[0].numpy() for layer in range(backbone.num_layers)]


def test_states_are_those_after_each_prefix() -> None:
    """The state at a step, and right after the prompt, against a run of each prefix from nothing."""
    backbone = exact("rwkv")
    tokens = continuation_ids(backbone.tokenizer, TEXT)
    seen = forgetting(backbone, PROMPT, continuation=TEXT, measures=["state_cosine"])
    row = row_of(backbone, PROMPT.prompt, tokens)
    found = [states_after(backbone, row.ids[:end]) for end in range(row.answer_start, len(row.ids))]
    cosines = [
        [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(now, found[0], strict=True)]
        for now in found
    ]
    assert distance(seen.values["state_cosine"], cosines) < TOLERANCE
    held = forgetting(backbone, PROMPT, continuation=TEXT, measures=["clause_state"]).values["clause_state"]
    last = states_after(backbone, row_of(backbone, PROMPT.without(0), tokens).ids[:-1])
    turned = [
        1 - float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(found[-1], last, strict=True)
    ]
    assert held[-1, 0] == pytest.approx(np.mean(turned), abs=1e-6) and (held > 0).all()
    assert seen.values["state_cosine"][0] == pytest.approx(1.0)
    assert set(seen.table.layer) == set(range(backbone.num_layers)) and set(seen.table.clause) == {0}


@pytest.mark.parametrize(
    "architecture", [a for a in CHOSEN if zoo.backbone(a).kind == "attention"]
)  # fmt: skip
def test_attention_is_transformers_own(architecture: str) -> None:
    """Mass on the prompt's tokens, BOS left out, of a row alone in eager attention; and the backbone stays as it was."""
    backbone = exact(architecture)
    tokens = continuation_ids(backbone.tokenizer, TEXT)
    row = row_of(backbone, PROMPT.prompt, tokens)
    ids = torch.tensor([row.ids])
    before = (backbone.model.config._attn_implementation, backbone.model(ids).logits)
    seen = forgetting(backbone, PROMPT, continuation=TEXT, measures=["attention_mass"])
    after = (backbone.model.config._attn_implementation, backbone.model(ids).logits)
    assert before[0] == after[0] and bool((before[1] == after[1]).all())
    assert not any(m._forward_hooks for layer in backbone.layers[:-1] for m in layer.modules())
    view = backbone.view()
    view.model.set_attn_implementation("eager")
    with torch.no_grad():
        weights = view.model(ids, output_attentions=True).attentions
    own = slice(1, row.answer_start)
    queries = slice(row.answer_start - 1, len(row.ids) - 1)
    expected = torch.stack([w[0, :, queries, own].sum(-1).mean(0) for w in weights], 1)
    assert distance(seen.values["attention_mass"], expected) < TOLERANCE
    if "sliding" in str(backbone.model.config):  # BOS is out of sight
        return
    shifted = torch.stack([w[0, :, queries, 0 : row.answer_start].sum(-1).mean(0) for w in weights], 1)
    assert distance(shifted, expected) > 1000 * TOLERANCE  # BOS let in would be seen


def test_attention_of_a_method_counts_the_prompts_own_tokens() -> None:
    """The method's vectors stand before the prompt's tokens, or in the middle of them, and take their share."""
    backbone = exact("llama")
    method = wb.SoftPrompt(backbone, tokens=4, prior=wb.priors.Vocabulary(), seed=1)
    tokens = continuation_ids(backbone.tokenizer, TEXT)
    for position, before, inside in (("before-bos", 5, 0), ("after-bos", 5, 0), ("marker", 1, 4)):
        prompt = PROMPT
        if position == "marker":
            prompt = replace(
                PROMPT, prompt=PROMPT.prompt.replace("pet", "<prompt>pet", 1), clauses=PROMPT.clauses[:1]
            )
        config = GenerateConfig(text=TextConfig(prompt_position=position))  # type: ignore[arg-type]
        seen = forgetting(
            backbone, prompt, method=method, continuation=TEXT, measures=["attention_mass"], config=config
        )
        question = encode_question(prompt.prompt, backbone.tokenizer, config.text)
        vectors = method.injection().input_embeddings
        assert vectors is not None
        view = backbone.view()
        view.model.set_attn_implementation("eager")
        with torch.no_grad():
            read = backbone.embed(torch.tensor([*question.ids, *tokens]))
            at = question.prompt_at
            whole = torch.cat([read[:at], vectors[0], read[at:]])[None]
            weights = view.model(inputs_embeds=whole, output_attentions=True).attentions
        size = len(question.ids) + 4
        mine = [p for p in range(before, size) if not (inside and at <= p < at + 4)]
        queries = slice(size - 1, whole.shape[1] - 1)
        expected = torch.stack([w[0, :, queries][..., mine].sum(-1).mean(0) for w in weights], 1)
        assert distance(seen.values["attention_mass"], expected) < TOLERANCE


def test_probes_tell_values_that_states_hold_and_the_control_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """States of a made-up model that hold the hero and nothing of the pet."""
    heroes, pets = ("tom", "kate", "sam"), ("fox", "owl")
    prompts = [
        ClausePrompt(text, (Clause(f"hero : {heroes[n % 3]} ."), Clause(f"pet : {pets[n * 7 % 11 % 2]} .")), " a b")
        for n in range(90)
        for text in [f"hero : {heroes[n % 3]} . pet : {pets[n * 7 % 11 % 2]} ."]
    ]  # fmt: skip
    dice = np.random.default_rng(0)

    class Seen(dict[str, Any]):
        places = ("state 0", "state 1")

    def read(backbone: Any, rows: Any, layers: Any, positions: Any, method: Any) -> Seen:
        text = backbone.tokenizer.decode(list(rows[0].ids))
        at = [name in text for name in heroes].index(True)
        hold = np.eye(3)[[at] * len(positions)] + dice.normal(0, 0.1, (len(positions), 3))
        return Seen({"state 0": hold, "state 1": dice.normal(size=(len(positions), 2))})

    monkeypatch.setattr("workbench.analysis.clause_probes.trace", read)
    probes = train_probes(exact("rwkv"), prompts, every=1)
    assert probes.kinds == ("hero", "pet")
    new = {0: torch.eye(3).repeat(20, 1), 1: torch.from_numpy(dice.normal(size=(60, 2)))}
    asked = (Clause("hero : tom ."), Clause("pet : fox ."), Clause("hero : ann ."), Clause("door : red ."))
    found = probes.right(new, asked)
    assert found[:, 0].tolist() == [1.0, 0.0, 0.0] * 20
    owls = probes.right(new, [Clause("pet : owl .")])[:, 0]
    told = np.where(dice.random(60) < 0.5, found[:, 1], owls)  # of states of either pet
    assert 0.25 < told.mean() < 0.75  # chance is a half
    assert np.isnan(found[:, 2:]).all()
    control = [
        probes.right(new, [Clause(f"hero : {name} .")], shuffled=True)[at::3].mean()
        for at, name in enumerate(heroes)
    ]
    assert np.mean(control) < 0.7


def test_probes_are_read_at_each_step() -> None:
    """Trained and used on a real recurrence: a column for each clause that it knows, right after the prompt above chance."""
    backbone = exact("rwkv")
    prompts = [
        from_story(f"write a story . hero : {name} . pet : {pet} . begin :", " once upon a time there was .")
        for name in ("tom", "kate")
        for pet in ("fox", "owl", "cat", "dog")
    ]
    probes = train_probes(backbone, prompts, every=5)
    asked = from_story("write a story . hero : kate . pet : fox . door : red . begin :")
    seen = forgetting(backbone, asked, continuation=TEXT, probes=probes)
    assert {"state_probe", "state_probe_control"} <= set(seen.values)
    assert np.isnan(seen.values["state_probe"][:, 2]).all()
    right = [
        forgetting(backbone, p, continuation=p.answer, probes=probes, measures=["state_probe"]).values[
            "state_probe"
        ][0]
        for p in prompts
    ]
    assert np.mean(right) == 1.0  # states that it was trained on


# --- what became of clauses


def test_due_steps_are_those_of_the_tokens_that_say_so() -> None:
    """A byte a token: the step of a due word is that of its first letter's token."""
    backbone = exact("llama")
    prompt = ClausePrompt(
        "about tom . no cat . some sea .",
        (
            Clause("about tom .", MustContain("tom")),
            Clause("no cat .", MustNotContain("cat")),
            Clause("some sea .", MustContain("sea")),
        ),
    )
    text = " é tom had a cat ."
    seen = forgetting(backbone, prompt, continuation=text)
    tokens = continuation_ids(backbone.tokenizer, text)
    assert len(tokens) == len(text) + 1  # é has two
    assert seen.met == (True, False, False)
    assert seen.due.step.tolist()[:2] == [text.index("tom") + 2, text.index("cat") + 2]
    assert seen.due.step.isna().tolist() == [False, False, True]
    met = seen.table[seen.table.measure == "met"]
    assert met[["step", "clause", "value"]].values.tolist() == [[5, 1, 1.0], [15, 2, 0.0]]
    assert seen.verdicts[2] == Verdict(False)


def test_a_story_is_judged_at_the_words_where_it_falls_due() -> None:
    backbone = wb.load_backbone("tiny-rwkv", device="cpu")
    example = load_task("stories", n=3, split="test", clauses=4, length=60)[0]
    prompt = from_example(example)
    seen = forgetting(backbone, prompt, continuation=example.answer, measures=["influence", "met"])
    assert seen.met == (True,) * 4
    for due in example.fields["due"]:
        step = int(seen.due.step[due["clause_index"]])
        assert seen.tokens[step - 1].strip() and due["answer"].startswith(seen.tokens[step - 1].strip())
        assert step >= due["word_index"] + 1
    followed = list(follow_forgetting(backbone, prompt, continuation=example.answer, measures=["influence"]))
    fell = {clause: met for step in followed for clause, met in step.fell.items()}
    assert fell == {1: True, 2: True, 3: True, 4: True}
    first = {clause: step.index for step in followed for clause in step.fell}
    assert all(0 <= first[c] - int(seen.due.step[c - 1]) <= 4 for c in first)
    assert [step.done for step in followed] == [False] * (len(followed) - 1) + [True]
    assert followed[-1].text == seen.text


def test_what_only_the_whole_text_decides_is_known_at_its_end() -> None:
    backbone = exact("rwkv")
    prompt = ClausePrompt(
        "no cat . some sea .",
        (Clause("no cat .", MustNotContain("cat")), Clause("some sea .", MustContain("sea"))),
    )
    followed = list(follow_forgetting(backbone, prompt, continuation=" a dog ."))
    assert [dict(step.fell) for step in followed] == [{}] * (len(followed) - 1) + [{1: True, 2: False}]


def test_the_table_is_long_and_the_matrix_wide() -> None:
    backbone = exact("rwkv")
    seen = forgetting(
        backbone, PROMPT, continuation=" tom", measures=["clause_influence", "influence", "state_cosine"]
    )
    assert list(seen.table.columns) == COLUMNS
    assert len(seen.table) == 4 * (3 + 1 + backbone.num_layers)
    one = seen.table[(seen.table.measure == "clause_influence") & (seen.table.step == 2)]
    assert (
        one.clause.tolist() == [1, 2, 3] and one.value.tolist() == seen.values["clause_influence"][1].tolist()
    )
    assert one.token.tolist() == ["t"] * 3 and set(one.layer) == {-1}
    wide = seen.matrix("clause_influence")
    assert wide.index.tolist() == ["hero : tom .", "pet : fox not owl .", "door : red ."]
    assert wide.columns.tolist() == [1, 2, 3, 4]
    assert seen.matrix("state_cosine").shape == (backbone.num_layers, 4)
    with pytest.raises(WorkbenchError, match="no measure of this text is called 'clause_gain'"):
        seen.matrix("clause_gain")


def test_a_step_names_likely_tokens_and_the_states_cosine() -> None:
    backbone = exact("rwkv")
    step = next(follow_forgetting(backbone, PROMPT, config=FEW))
    assert step.likely[0][0] == step.token  # greedy
    assert math.log(step.likely[0][1]) == pytest.approx(step.log_probability, rel=1e-4)
    assert step.state_cosine == pytest.approx(1.0)
    assert step.clause_influence.shape == (3,) and step.influence > 0
    assert math.isnan(next(follow_forgetting(exact("llama"), PROMPT, config=FEW)).state_cosine)


def test_a_stop_string_ends_a_text() -> None:
    backbone = exact("llama")
    text = forgetting(backbone, PROMPT, config=FEW).text
    config = replace(FEW, stop=(text[4:6],))
    seen = forgetting(backbone, PROMPT, config=config)
    assert seen.text == wb.generate(backbone, [PROMPT.prompt], config=config)[0] and len(seen.text) < len(
        text
    )


def test_a_token_that_ends_the_text_is_no_step() -> None:
    """The step before it is the last, and says what only the whole text decides."""
    backbone = exact("llama")
    config = replace(FEW, temperature=2.0)
    ids = forgetting(backbone, PROMPT, config=config).ids
    first = next(at for at, token in enumerate(ids) if at > 2 and token not in ids[:at])
    view = backbone.view()
    view.model.generation_config = copy.deepcopy(view.model.generation_config)
    view.model.generation_config.eos_token_id = ids[first]
    prompt = replace(PROMPT, clauses=(Clause("red", MustNotContain("elephant")),))
    followed = list(follow_forgetting(view, prompt, config=config))
    assert [step.done for step in followed] == [False] * (first - 1) + [True]
    assert followed[-1].fell == {1: True}
    assert forgetting(view, prompt, config=config).ids == ids[:first]
    assert followed[-1].text == wb.generate(view, [PROMPT.prompt], config=config)[0]
    view.model.generation_config.eos_token_id = ids[0]
    with pytest.raises(WorkbenchError, match="ends its text at once"):
        forgetting(view, prompt, config=config)


# --- what cannot be


def test_without_bos_a_text_alone_begins_with_eos() -> None:
    """What stands where nothing is left of the prompt is stated, and is what is done."""
    backbone = wb.load_backbone("tiny-llama", device="cpu")
    tokenizer = backbone.tokenizer
    plain = forgetting(backbone, PROMPT, continuation=TEXT, measures=["influence"])
    variant = clause_variants.encode_variant(backbone, NOTHING, TextConfig(), "")
    assert variant.ids == (tokenizer.bos_token_id,)

    class NoBos:
        """The same tokenizer, that puts nothing before a text."""

        bos_token_id, eos_token_id = None, tokenizer.eos_token_id

        def __call__(self, text: str, **options: Any) -> Any:
            return tokenizer(text, **{**options, "add_special_tokens": False})

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

    other = backbone.view()
    other.tokenizer = NoBos()  # type: ignore[assignment]
    assert clause_variants.encode_variant(other, NOTHING, TextConfig(), "").ids == (tokenizer.eos_token_id,)
    seen = forgetting(other, PROMPT, continuation=TEXT, measures=["influence"])
    assert (
        len(seen.ids) == len(plain.ids)
        and distance(seen.values["influence"], plain.values["influence"]) > 0.01
    )


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"prompt": "  "}, "the prompt is empty"),
        ({"clauses": []}, "has no clauses"),
        ({"prompt": [PROMPT.prompt]}, "the prompt is .'write a story .*; give one text"),
        ({"clauses": [3]}, "a clause is 3; give a part of the prompt's text"),
        ({"clauses": "hat : red ."}, "the clause 'hat : red .' does not occur in the prompt"),
        ({"clauses": ["hat : red ."]}, "the clause 'hat : red .' does not occur in the prompt"),
        ({"continuation": "a" * 300}, "but small-llama reads 256"),
        ({"config": GenerateConfig(max_new_tokens=300)}, "but small-llama reads 256"),
        ({"config": GenerateConfig(text=TextConfig(max_tokens=9))}, "max_tokens=9 would cut clauses"),
        ({"continuation": ""}, "the continuation is empty"),
        ({"measures": ["influenc"]}, "no measure is called 'influenc'; did you mean 'influence'"),
        ({"measures": ["state_cosine"]}, "small-llama is an attention model and has no recurrent state"),
        ({"measures": ["control_influence"]}, "the measure control_influence needs control"),
        ({"measures": ["state_probe"]}, "the measure state_probe needs probes"),
        ({"measures": ["restoration"]}, "the measure restoration needs restore_at"),
        ({"restore_at": [0]}, "restore_at has step 0"),
        ({"continuation": " a", "again_at": 2}, "again_at is 2; give a number from 0 to 1"),
        ({"control": from_story("write a story . dream : cook . begin :")}, "no other clause of the prompt's kinds"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(asked: dict[str, Any], words: str) -> None:
    backbone = exact("llama")
    given = {"prompt": PROMPT, **asked}
    with pytest.raises(WorkbenchError, match=words):
        forgetting(backbone, given.pop("prompt"), **given)


def test_one_clause_may_stand_for_itself() -> None:
    """A text or a Clause where a list of them is expected is that one clause, not its letters."""
    backbone = exact("llama")
    asked: dict[str, Any] = {"continuation": " a", "measures": ["influence"]}
    expected = forgetting(backbone, PROMPT.prompt, ["hero : tom ."], **asked).prompt
    for one in ("hero : tom .", Clause("hero : tom .")):
        assert forgetting(backbone, PROMPT.prompt, one, **asked).prompt == expected


@pytest.mark.parametrize("again_at", [None, 3])
def test_a_prompt_that_is_read_once_more_has_to_fit(again_at: int | None) -> None:
    """Steps at which the prompt is tried again count its tokens twice (three times where it was read again before), to the last."""
    asked: dict[str, Any] = {"measures": ["restoration"], "again_at": again_at}
    times = 1 if again_at is None else 2
    for architecture, limit in (("gpt2", 256), ("llama", 256)):
        backbone = zoo.backbone(architecture)
        size = len(encode_question(PROMPT.prompt, backbone.tokenizer).ids)
        again = len(continuation_ids(backbone.tokenizer, " " + (PROMPT.again or PROMPT.prompt)))
        step = limit - size - times * again + 1  # the last at which all fits: step - 1 tokens come before
        seen = forgetting(backbone, PROMPT, continuation=[5] * (step + 1), restore_at=[step], **asked)
        assert np.isfinite(seen.values["restoration"][step - 1])
        with pytest.raises(
            WorkbenchError, match=f"^257 tokens are needed, but small-{architecture} reads 256"
        ):
            forgetting(backbone, PROMPT, continuation=[5] * (step + 1), restore_at=[step + 1], **asked)
        # a step behind the end of the text is none at which anything is read
        forgetting(backbone, PROMPT, continuation=[5] * (step + 1), restore_at=[step, step + 9], **asked)
    forgetting(exact("rwkv"), PROMPT, continuation=[5] * 250, restore_at=[249], **asked)


def test_attention_of_a_recurrence_is_refused() -> None:
    with pytest.raises(WorkbenchError, match=r"small-rwkv .* has no layer that shows attention weights"):
        forgetting(exact("rwkv"), PROMPT, measures=["attention_mass"])


def test_following_is_checked_before_the_first_step() -> None:
    with pytest.raises(WorkbenchError, match="the prompt is empty"):
        follow_forgetting(exact("llama"), "")
    with pytest.raises(WorkbenchError, match="9 tokens are written already and max_new_tokens is 9"):
        follow_forgetting(exact("llama"), PROMPT, config=FEW, written=range(10, 19))


def test_measures_registry_is_public() -> None:
    """A measure that is added is asked for by name as any other."""

    @forgetting_measures.measure("entropy behind the prompt", "nats", "prompt")
    def entropy(steps: Steps) -> Any:
        """Entropy of the next token behind the prompt."""
        return -(steps.given.exp() * steps.given).sum(1).double().numpy()

    try:
        seen = forgetting(exact("rwkv"), PROMPT, continuation=" tom", measures=["entropy"])
        assert seen.table.measure.unique().tolist() == ["entropy"] and (seen.table.value > 0).all()
    finally:
        del MEASURES["entropy"]

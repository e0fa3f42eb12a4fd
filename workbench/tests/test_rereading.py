"""The prompt read again while its answer is written: which tokens, when, and that scoring and writing agree on it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random

import pytest
import torch
from torch import Tensor

from workbench.analysis.trace import trace
from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError
from workbench.methods.apply import Decoder, answer_logits
from workbench.methods.generate import GenerateConfig, generate
from workbench.methods.injection import NOTHING, Injection
from workbench.methods.prompt_bias import PromptBias
from workbench.methods.rereading import Rereading
from workbench.methods.rows import Rows
from workbench.tasks.encode import Encoded, encode_question
from workbench.tasks.task import load_task
from workbench.tasks.world.stories import make_story, reminder
from workbench.tests import zoo
from workbench.tests.methods_zoo import MAKERS, alone
from workbench.tests.test_contracts import TOLERANCE, distance
from workbench.tests.test_methods import serves
from workbench.training.batches import encode_for
from workbench.training.evaluate import default_config, evaluate

CHOSEN = zoo.ARCHITECTURES if os.environ.get("WORKBENCH_EVERY_ARCHITECTURE") else zoo.EVERY_COMMIT
every_backbone = pytest.mark.parametrize("architecture", [*CHOSEN, zoo.WITHOUT_CACHE])
ROUNDING = 2 * TOLERANCE  # Qwen3-Next in float32 is at 1.4e-5 under changed weights, and at 0 in float64
DOT = zoo.tokenizer()(".", add_special_tokens=False)["input_ids"][0]
ROWS = [  # the prompts (1, 40, 50) and (1, 44)
    Encoded((1, 40, 50, 60, DOT, 61, 62, 63, DOT, 64, 65), 3, 1),
    Encoded((1, 44, 70, 71, 72, 73, 74, 75), 2, 1),
]


def test_it_is_read_where_a_sentence_ends_and_never_after_the_last_token() -> None:
    """Protects where readings stand, token by token: after the first end of a sentence from the third token on, or after the
    sixth at the latest; and that the answer's own tokens are named in their order."""
    rereading = Rereading(zoo.backbone("llama"), every=3)
    first, second = (rereading.row(row) for row in ROWS)
    assert first.row == Encoded((1, 40, 50, 60, DOT, 61, 62, 63, DOT, 40, 50, 64, 65), 3, 1)
    assert first.answer == (3, 4, 5, 6, 7, 8, 11, 12)
    assert second == (ROWS[1], (2, 3, 4, 5, 6, 7))
    longer = Encoded((*ROWS[1].ids, 76), 2, 1)
    assert rereading.row(longer).row.ids == (*ROWS[1].ids, 44, 76)
    every = Rereading(zoo.backbone("llama"), every=1).row(ROWS[0]).row.ids
    assert every == (1, 40, 50, 60, DOT, 40, 50, 61, 62, 40, 50, 63, DOT, 40, 50, 64, 65)


@pytest.mark.parametrize("seed", range(4))
def test_a_story_is_reminded_in_the_words_of_the_small_world(seed: int) -> None:
    """Protects the fair comparison: the bundled backbones know these words in mid-story and no others; all clauses are in them."""
    backbone = zoo.backbone("llama")
    story = make_story(Random(seed), clauses=3, length=60, repeat_prompt=1.0)
    question = encode_question(story.prompt, backbone.tokenizer)
    text = backbone.tokenizer.decode(Rereading(backbone, every=50).words(question.ids))
    assert text == f" {reminder(story.prompt)}"
    start = story.text.index("remember :")
    written = story.text[start : story.text.index("go on :") + len("go on :")]
    known, ours = ([*part.split()[:2], *sorted(part.split()[2:])] for part in (written, text))
    assert ours == known and text.startswith(" remember : ") and text.endswith(" . go on :")
    assert reminder(story.prompt.removesuffix(" begin :")) is None and reminder("write a poem") is None


@every_backbone
@pytest.mark.parametrize("name", [None, "soft-prompt", "synthetic-gradient", "pointer-cache"])
def test_own_tokens_are_scored_behind_what_was_read_again(architecture: str, name: str | None) -> None:
    """Protects teacher-forced scores: each token of the answer, and no other, has the logits of a plain run of the longer row."""
    backbone, injection = zoo.backbone(architecture), NOTHING
    if name is not None:
        kind = "llama" if architecture == zoo.WITHOUT_CACHE else architecture
        if not serves(kind, name):
            return
        injection = MAKERS[name](backbone, 0).injection()
    rereading = Rereading(backbone, every=2)
    with torch.no_grad():
        rows, own = rereading.rows(Rows.collate(ROWS))
        logits, targets = answer_logits(backbone, rows, injection)
        expected = []
        for row in ROWS:
            longer, answer = rereading.row(row)
            at = torch.tensor(answer) - longer.answer_start
            expected.append(alone(backbone, longer, injection)[at])
        unread = torch.cat([alone(backbone, row, injection) for row in ROWS])
    assert targets[own].tolist() == [token for row in ROWS for token in row.ids[row.answer_start :]]
    assert distance(logits[own], torch.cat(expected)) < ROUNDING
    assert distance(logits[own], unread) > 1000 * TOLERANCE


def by_hand(
    backbone: Backbone, prompt: str, injection: Injection, every: int, tokens: int
) -> tuple[str, Tensor]:
    """The text that is likeliest token by token, each found by a plain run of all before; and the indices of readings in it."""
    rereading = Rereading(backbone, every)
    question = encode_question(prompt, backbone.tokenizer)
    ids, written, since, read = list(question.ids), list[int](), list[int](), list[int]()
    while len(written) < tokens:
        row = Encoded((*ids, 0), len(question.ids), question.prompt_at)
        token = int(alone(backbone, row, injection)[-1].argmax())
        if token == backbone.tokenizer.eos_token_id:
            break
        ids.append(token)
        written.append(token)
        since.append(token)
        if rereading.due(since):
            ids += rereading.words(question.ids)
            since, read = [], [*read, len(written)]
    return str(backbone.tokenizer.decode(written, skip_special_tokens=True)), torch.tensor(read)


@every_backbone
def test_writing_is_scoring(architecture: str) -> None:
    """Protects generation: the text is what plain runs of all that was read would write, for rows that read again at different
    moments and for different lengths, alone and together. The readings are felt."""
    backbone = zoo.backbone(architecture)
    method = PromptBias(backbone, bias=6.0)  # so that sentences end
    prompts = ["a.b", "xy. and z", "w. or much longer than the others. "]
    with torch.no_grad():
        expected = [by_hand(backbone, p, method.injection(), 2, 9) for p in prompts]
    assert all(len(read) > 1 for _, read in expected)
    config = GenerateConfig(max_new_tokens=9, reread_every=2)
    texts = [text for text, _ in expected]
    assert generate(backbone, prompts, method, config) == texts
    assert [generate(backbone, [p], method, config)[0] for p in prompts] == texts
    assert generate(backbone, prompts, method, GenerateConfig(max_new_tokens=9)) != texts


@pytest.mark.parametrize("architecture", ["llama", "rwkv"])
def test_sampled_texts_do_not_depend_on_neighbours(architecture: str) -> None:
    """Protects the dice: a row that reads throws none, so a text is the same alone and beside rows that read for longer."""
    backbone = zoo.backbone(architecture)
    prompts = ["one", "a longer prompt", "mid size"]
    config = GenerateConfig(max_new_tokens=10, reread_every=3, temperature=1.0, seed=4)
    together = generate(backbone, prompts, config=config)
    assert together[0] == generate(backbone, prompts[:1], config=config)[0]
    assert together[:2] == generate(backbone, prompts[:2], config=config)
    assert together != generate(
        backbone, prompts, config=GenerateConfig(max_new_tokens=10, temperature=1.0, seed=4)
    )


@every_backbone
@pytest.mark.parametrize("name", [None, "synthetic-gradient", "pointer-cache"])
def test_several_tokens_are_fed_as_one_by_one(architecture: str, name: str | None) -> None:
    """Contract 1, for readings: as many tokens for each row at once give the logits of a plain run, also after rows were dropped and
    when one token follows."""
    backbone, injection = zoo.backbone(architecture), NOTHING
    if name is not None:
        kind = "llama" if architecture == zoo.WITHOUT_CACHE else architecture
        if not serves(kind, name):
            return
        injection = MAKERS[name](backbone, 0).injection()
    asked = [Encoded((1, 40, 50, 60, 70), 5, 1), Encoded((1, 44, 52), 3, 1), Encoded((1, 45, 46, 47), 4, 1)]
    fed = torch.tensor([[61, 62, 63, 64], [71, 72, 73, 74], [81, 82, 83, 84]])
    with torch.no_grad():
        decoder = Decoder(backbone, Rows.collate(asked), injection)
        for part in (slice(0, 3), slice(3, 4)):
            decoder.feed(fed[decoder.active, part])
            for row, logits in zip(decoder.active, decoder.next_logits(), strict=True):
                ids = (*asked[row].ids, *fed[row, : part.stop].tolist())
                expected = alone(backbone, Encoded((*ids, 0), len(asked[row].ids), 1), injection)[-1]
                assert distance(logits, expected) < ROUNDING
            decoder.drop({1})


def test_evaluation_reads_again_in_what_is_written_and_in_what_is_scored(tmp_path: Path) -> None:
    """Protects the comparison of methods: loss and predictions of one evaluation are of the same way to read."""
    backbone = zoo.backbone("llama")
    lines = [{"prompt": "say a.b", "answer": "a.b.a.b."}, {"prompt": "say it", "answer": "it is"}] * 2
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    task = load_task(tmp_path / "own.jsonl")
    config = default_config(None, max_new_tokens=8, reread_every=2)
    found = evaluate(backbone, task, split="train", config=config)
    nats, count = 0.0, 0
    for example in task.examples("train"):
        row = encode_for(backbone, example, config.text, 0)
        longer, answer = Rereading(backbone, 2).row(row)
        with torch.no_grad():
            logits = alone(backbone, longer, NOTHING)[torch.tensor(answer) - longer.answer_start]
        own = torch.tensor(row.ids[row.answer_start :])
        nats += float(torch.nn.functional.cross_entropy(logits, own, reduction="sum"))
        count += len(own)
    assert found.metrics["loss"] == pytest.approx(nats / count, rel=1e-5)
    with torch.no_grad():
        written = {e.prompt: by_hand(backbone, e.prompt, NOTHING, 2, 8)[0] for e in task.examples("train")}
    assert all(row["prediction"] == written[row["question"]].strip() for row in found.rows)
    plain = evaluate(backbone, task, split="train", config=default_config(None, max_new_tokens=8))
    assert abs(plain.metrics["loss"] - found.metrics["loss"]) > 1e-3
    assert [row["prediction"] for row in plain.rows] != [row["prediction"] for row in found.rows]


def test_what_cannot_be_is_told_in_one_sentence() -> None:
    """Protects users: no distance between readings, no room for them, and a trace that would not know of them."""
    backbone = zoo.backbone("llama")
    refused = {
        "every 0 tokens": lambda: Rereading(backbone, every=0),
        "reread_every is -1": lambda: GenerateConfig(reread_every=-1),
        "read it less often": lambda: Rereading(backbone, every=1).row(Encoded((1, *[DOT] * 125), 20, 0)),
        "but small-llama reads 256": lambda: generate(
            backbone, ["x" * 100], config=GenerateConfig(max_new_tokens=40, reread_every=10)
        ),
        "cannot be traced": lambda: trace(
            backbone, ["a"], generate=GenerateConfig(max_new_tokens=2, reread_every=1)
        ),
    }
    for said, act in refused.items():
        with pytest.raises(WorkbenchError, match=said) as caught:
            act()
        assert "\n" not in str(caught.value)
    generate(backbone, ["x" * 100], config=GenerateConfig(max_new_tokens=40, reread_every=50))

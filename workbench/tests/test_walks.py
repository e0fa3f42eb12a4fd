"""Walks at random: behind the same prompts, as long as the answers, of any token but the special ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from workbench import load_backbone
from workbench.analysis.trace import Trace, trace
from workbench.analysis.trajectories import localisation
from workbench.analysis.walks import answers, paths, random_walks, read_behind, vocabulary
from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError
from workbench.methods.generate import GenerateConfig
from workbench.methods.soft_prompt import SoftPrompt
from workbench.tasks.encode import TextConfig
from workbench.tasks.task import load_task

PLACES = ("embeddings", "layer 2", "output")
CONFIG = GenerateConfig(max_new_tokens=6, temperature=1.0)
PROMPTS = [e.prompt for e in load_task("running", split="test", n=12, seed=99)]


@pytest.fixture(scope="module", params=["tiny-llama", "tiny-rwkv"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return load_backbone(request.param, device="cpu")


@pytest.fixture(scope="module")
def seen(backbone: Backbone) -> Trace:
    """Answers of several lengths, one of them of no token at all."""
    found = trace(backbone, PROMPTS, PLACES, "answer", generate=CONFIG)
    assert len({len(answer) for answer in answers(found)}) > 1
    return found


def test_an_answer_read_behind_its_prompt_is_as_it_was_written(backbone: Backbone, seen: Trace) -> None:
    """Protects what a walk is compared with: only the tokens differ. The broken variant: behind other prompts."""
    own = read_behind(backbone, PROMPTS, answers(seen), PLACES, TextConfig())
    other = read_behind(backbone, PROMPTS[1:] + PROMPTS[:1], answers(seen), PLACES, TextConfig())
    for place in PLACES:
        size = np.abs(seen[place]).max()
        assert np.abs(own[place] - seen[place]).max() < 1e-4 * size
        if place != "embeddings":
            assert np.abs(other[place] - seen[place]).max() > 1e-2 * size


def test_a_walk_is_as_long_and_knows_no_answer(backbone: Backbone, seen: Trace) -> None:
    """Token by token in the same places; the seed's alone; drawn among all tokens that are not special."""
    walks, again, more = (random_walks(backbone, seen, seed=seed) for seed in (0, 0, 1))
    lengths = [len(answer) for answer in answers(seen) if len(answer)]
    assert [len(path) for path in paths(walks)["output"]] == lengths
    assert walks.rows["index"].to_pylist() == seen.rows["index"].to_pylist() and walks.places == seen.places
    drawn = [np.concatenate(answers(one)) for one in (walks, again, more, seen)]
    assert (drawn[0] == drawn[1]).all() and (drawn[0] != drawn[2]).mean() > 0.9 < (
        drawn[0] != drawn[3]
    ).mean()
    assert not set(drawn[0]) & set(backbone.tokenizer.all_special_ids)
    words = vocabulary(backbone)
    assert len(words) == len(backbone.tokenizer) - len(backbone.tokenizer.all_special_ids)
    found = localisation(paths(walks)["embeddings"], backbone.vocabulary().numpy()[words])
    assert abs(found.value) < 0.2  # so few tokens


def test_walks_of_a_method_are_read_with_it(backbone: Backbone) -> None:
    """A prompt before the question moves what the layers make of a walk, as it does of an answer."""
    method = SoftPrompt(backbone, tokens=4, seed=1)
    seen = trace(
        backbone, PROMPTS[:4], "output", "answer", method, generate=replace(CONFIG, text=method.text)
    )
    plain, walks = (random_walks(backbone, seen, given) for given in (None, method))
    assert walks.rows["token_id"].to_pylist() == plain.rows["token_id"].to_pylist()
    assert np.abs(walks["output"] - plain["output"]).max() > 1e-2 * np.abs(plain["output"]).max()
    own = read_behind(backbone, PROMPTS[:4], answers(seen), "output", method.text, method)
    assert np.allclose(own["output"], seen["output"], rtol=1e-3, atol=1e-3)


def test_a_reading_has_no_walk(backbone: Backbone) -> None:
    """One sentence that says what to trace."""
    with pytest.raises(WorkbenchError, match="trace a generation"):
        random_walks(backbone, trace(backbone, PROMPTS[:1]))


@pytest.mark.parametrize("positions", ["last", "mean", [-1, -2]])
def test_answers_that_are_not_whole_have_no_walk(positions: Any) -> None:
    """A walk as long as what was kept of an answer would not be as long as the answer."""
    backbone = load_backbone("tiny-llama", device="cpu")
    seen = trace(backbone, PROMPTS[:2], "output", positions, generate=CONFIG)
    with pytest.raises(
        WorkbenchError, match="leave out tokens of the answers; trace with positions='answer'"
    ):
        random_walks(backbone, seen)
    walks, same = (
        random_walks(backbone, trace(backbone, PROMPTS[:2], "output", whole, generate=CONFIG))
        for whole in ("all", "answer")
    )
    assert walks.rows.equals(same.rows)

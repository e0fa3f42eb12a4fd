"""The small world as tasks: by name, seeded, lazily, and its true answers are right by its own metrics."""

from __future__ import annotations

import json
import math

import pytest

from workbench.errors import WorkbenchError
from workbench.tasks import METRICS, Task, list_tasks, load_task
from workbench.tasks.task import WorldSource


@pytest.mark.parametrize("name", list_tasks())
def test_true_answers_get_full_marks(name):
    """On every family and split: an answer that its own metric does not accept could never be learnt."""
    task = load_task(name, n=3)
    for split in task.splits:
        for e in task.examples(split, n=3):
            assert not e.prompt or e.answer.startswith(" ")
            full = METRICS[task.metric].score(e.answer, e)
            assert full == 1 or (task.metric == "perplexity" and math.isnan(full)), e.text


def test_splits_sizes_and_options():
    """Sensible sizes, n for the own split, options of the family reach it, choices and fields come along."""
    task = load_task("reading")
    assert {s: len(task.examples(s)) for s in task.splits} == {"train": 2000, "validation": 200, "test": 500}
    task = load_task("sentiment", split="test", n=30, seed=5)
    assert len(task) == 30 and len(task.examples("train")) == 2000 and task[0].choices and task[0].fields
    assert len(load_task("opposite", shots=4)[0].prompt.split()) > len(
        load_task("opposite", shots=0)[0].prompt.split()
    )


def test_same_seed_same_examples_whatever_n_and_order():
    """An example depends on its index alone; another seed and another split give others."""
    few, many = load_task("reading", n=5, seed=7), load_task("reading", n=50, seed=7)
    assert [e.text for e in few] == [e.text for e in many[:5]]
    assert (
        few[0].text
        == many.examples("train")[0].text
        != load_task("reading", seed=8)[0].text
        != few.examples("test")[0].text
    )
    drawn = many.examples("train", n=10, seed=3)
    assert [e.text for e in drawn] == [
        e.text for e in Task.from_config(many.to_config()).examples("train", n=10, seed=3)
    ]


def test_only_what_is_looked_at_is_generated():
    """Half a million examples cost nothing until they are read, and each is generated once."""
    task = load_task("stories", n=500_000)
    assert task[499_999] is task[499_999]
    assert isinstance(task.source, WorldSource) and len(task.source._made) == 1


def test_a_task_is_built_again_from_json():
    """The run directory keeps this; options of the family are part of it."""
    task = load_task("opposite", split="validation", n=4, seed=2, shots=2)
    again = Task.from_config(json.loads(json.dumps(task.to_config())))
    assert [e.text for e in again] == [e.text for e in task] and repr(again) == repr(task)
    assert json.dumps(task.describe())


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("reeding", {}, "did you mean 'reading'"),
        ("reading", {"split": "trian"}, "did you mean 'train'"),
        ("opposite", {"shot": 4}, "did you mean 'shots'"),
        ("reading", {"metric": "token_f"}, "did you mean 'token_f1'"),
        ("reading", {"template": "{x}"}, "takes no template"),
        ("reading", {"n": -1}, "zero or more"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(name, options, sentence):
    """Before anything is generated."""
    with pytest.raises(WorkbenchError) as error:
        load_task(name, **options)
    assert sentence in str(error.value)

"""Protects prompts with clauses: where a clause stands and what is left without it, what each check says, files of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import workbench as wb
from workbench.errors import WorkbenchError
from workbench.tasks.checks import (
    CHECKS,
    MustChoose,
    MustContain,
    MustMatch,
    MustNotContain,
    SmallWorld,
    Verdict,
    read_check,
)
from workbench.tasks.clauses import (
    Clause,
    ClausePrompt,
    from_example,
    from_story,
    guess,
    load_prompts,
    split_clauses,
)
from workbench.tasks.metrics import METRICS
from workbench.tasks.task import load_task
from workbench.tasks.world import checker
from workbench.tasks.world.sample import rng
from workbench.tasks.world.stories import MOST_CLAUSES, Story, make_story, shortest
from workbench.tests import zoo

STORIES = st.builds(
    lambda seed, clauses, more, again: make_story(
        rng("stories", "train", seed, 0), clauses, shortest(clauses) + more, repeat_prompt=again
    ),
    st.integers(0, 10**6),
    st.integers(1, MOST_CLAUSES),
    st.integers(0, 200),
    st.booleans(),
)
WRITTEN = "Write about Tom. End sadly.\nName no cat."


def a_prompt(**changes: Any) -> ClausePrompt:
    clauses = (
        Clause("about Tom.", MustContain("Tom")),
        Clause("End sadly.", MustMatch(r"died|wept")),
        Clause("Name no cat.", MustNotContain(("cat", "kitten"))),
    )
    return replace(ClausePrompt(WRITTEN, clauses), **changes)


# --- where clauses stand


def test_a_clause_taken_out_leaves_the_rest_as_it_was() -> None:
    assert a_prompt().without(0) == "Write End sadly.\nName no cat."
    assert (
        a_prompt().without(2) == "Write about Tom. End sadly."
    )  # the newline that it stood behind is gone as well


@given(STORIES)
def test_a_story_without_a_clause_is_the_prompt_of_the_others(story: Story) -> None:
    """Well-formed for the small world: its own parser reads the other clauses, and nothing else, in order."""
    prompt = from_story(story)
    assert len(prompt.clauses) == len(story.clauses)
    for index in range(len(prompt.clauses)):
        others = [c for i, c in enumerate(story.clauses) if i != index]
        left = prompt.without(index)
        assert "  " not in left
        if others:
            assert list(checker.parse_prompt(left)) == others
        else:
            assert left == "write a story . begin :"


def test_the_same_words_twice_are_two_places() -> None:
    prompt = ClausePrompt("be brief . be brief .", (Clause("be brief ."), Clause("be brief .")))
    assert prompt.spans == ((0, 10), (11, 21))
    with pytest.raises(WorkbenchError, match=r"'be brief \.' does not occur so often"):
        ClausePrompt("be brief .", (Clause("be brief ."), Clause("be brief .")))


def test_bad_prompts_are_one_sentence() -> None:
    for made, words in (
        (lambda: ClausePrompt(" ", (Clause("a"),)), "the prompt is empty"),
        (lambda: ClausePrompt("a b", ()), "has no clauses"),
        (lambda: ClausePrompt("a b", (Clause("c"),)), "the clause 'c' does not occur in the prompt 'a b'"),
        (lambda: ClausePrompt("a b", (Clause("a"), Clause(" "))), "clause 2 of the prompt is empty"),
        (lambda: from_story("tell me a tale"), "no story is asked for"),
    ):
        with pytest.raises(WorkbenchError, match=words):
            made()


def test_clauses_of_a_written_prompt_are_guessed() -> None:
    assert [WRITTEN[a:b] for a, b in split_clauses(WRITTEN)] == WRITTEN.replace("\n", " ").replace(
        ". ", ".|"
    ).split("|")
    one = "Write about Tom, with a tragic ending"
    assert [one[a:b] for a, b in split_clauses(one)] == ["Write about Tom", "with a tragic ending"]
    story = "write a story . hero : tom . pet : fox not owl . begin :"
    assert [story[a:b] for a, b in split_clauses(story)] == ["hero : tom .", "pet : fox not owl ."]
    assert guess(story) == from_story(story)
    assert [clause.text for clause in guess(one).clauses] == ["Write about Tom", "with a tragic ending"]


def test_anothers_clause_of_the_same_kind_is_put_in_its_place() -> None:
    one = from_story("write a story . hero : tom . pet : fox . door : red . begin :")
    other = from_story("write a story . door : red . pet : owl not cat . begin :")
    assert one.swapped(1, other) == "write a story . hero : tom . pet : owl not cat . door : red . begin :"
    assert one.swapped(0, other) is None  # it has no hero
    assert one.swapped(2, other) is None  # it has the same door
    free = ClausePrompt("Be kind. Be brief.", (Clause("Be kind."), Clause("Be brief.")))
    theirs = ClausePrompt("Be rude. Be loud.", (Clause("Be rude."), Clause("Be loud.")))
    assert free.swapped(1, theirs) == "Be kind. Be loud."


# --- what a check says


@pytest.mark.parametrize(
    ("check", "answer", "verdict"),
    [
        (MustContain("cat"), "a category, a Cat", Verdict(True, 14, "Cat")),
        (MustContain(("owl", "cat")), "a cat", Verdict(True, 2, "cat")),
        (MustContain("cat"), "a category", Verdict(False)),
        (MustNotContain("cat"), "a category", Verdict(True)),
        (MustNotContain(("owl", "cat")), "the cat", Verdict(False, 4, "cat")),
        (MustMatch(r"w\w+t$"), "he wept", Verdict(True, 3, "wept")),
        (MustMatch("died"), "he wept", Verdict(False)),
        (MustChoose("sad", ("sad", "happy")), "a sad, not happy end", Verdict(True, 2, "sad")),
        (MustChoose("sad", ("sad", "happy")), "a happy, not sad end", Verdict(False, 2, "happy")),
        (MustChoose("sad", ("sad", "happy")), "an end", Verdict(None)),
        (MustChoose("sad", ("sad", "sad and slow")), "Sad and slow", Verdict(False, 0, "Sad and slow")),
    ],
)
def test_a_check_says_what_became_of_it_and_where(check: Any, answer: str, verdict: Verdict) -> None:
    assert check(answer) == verdict


@given(STORIES, st.integers(0, 3))
def test_a_story_is_judged_as_the_small_world_does(story: Story, lost: int) -> None:
    """Whole stories, and stories that lost their beginning: each clause as the checker has it, and at the word it names."""
    prompt = from_story(story)
    assert prompt.answer == " " + story.text
    text = " " + " ".join(story.text.split()[lost * 15 :])
    for verdict, met in zip(prompt.judge(text), checker.check(story.prompt, text), strict=True):
        assert (verdict.met, verdict.found) == (met.met, met.found)
        if verdict.at is not None:
            assert text[verdict.at :].split()[0] == met.found
            assert len(text[: verdict.at].split()) == met.at
    if not lost:
        assert prompt.share_met(text) == 1.0


def test_one_wrong_value_misses_its_clause_alone() -> None:
    story = make_story(rng("stories", "test", 1, 0), 5, 120)
    due = story.due[2]
    words = story.text.split()
    words[due.word_index] = "nothing"
    prompt = from_story(story)
    missed = [i for i, v in enumerate(prompt.judge(" ".join(words))) if v.met is False]
    assert missed == [due.clause_index]


def test_checks_are_read_as_they_describe_themselves() -> None:
    story = "write a story . hero : tom . pet : not owl but fox . begin :"
    texts = {"hero : tom .": 0, "pet : not owl but fox .": 1}
    for text, index in texts.items():
        assert read_check(SmallWorld(story, index).describe(), story, text) == SmallWorld(story, index)
    made = [MustContain("a"), MustNotContain(("a", "b")), MustMatch("a+"), MustChoose("a", ("a", "b"))]
    assert [read_check(check.describe(), "", "") for check in made] == made
    assert {check.name for check in made} | {SmallWorld.name} == set(CHECKS)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"must_contian": "a"}, "no check is called 'must_contian'; did you mean 'must_contain'"),
        ({}, "a check is {}"),
        ("a", "a check is 'a'"),
        ({"must_contain": "a", "must_match": "b"}, "a clause has one check"),
        ({"must_contain": []}, r"must_contain is \[\]"),
        ({"must_match": "("}, "is no regular expression"),
        ({"must_match": "a{99999999999}"}, "is no regular expression .the repetition number is too large"),
        ({"must_match": "(" * 5000}, "is no regular expression .maximum recursion depth"),
        ({"must_choose": "sad"}, "label words stand in 'among'"),
        ({"must_choose": "sad", "among": ["happy"]}, "none of the label words happy"),
        ({"small_world": 1}, "write true"),
        ({"small_world": True}, "'hero : sam .' is none of the 1 clauses"),
    ],
)
def test_bad_checks_are_one_sentence(given: Any, words: str) -> None:
    with pytest.raises(WorkbenchError, match=words):
        read_check(given, "write a story . hero : tom . begin :", "hero : sam .")


# --- files


def a_file(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_prompts_are_read_from_a_file(tmp_path: Path) -> None:
    """Written prompts and the small world's stories in one file, which is what `to_dict` writes."""
    mine = a_prompt(answer=" Tom wept.", again="Remember Tom.")
    story = from_story(make_story(rng("stories", "train", 0, 0), 3, 60))
    found = load_prompts(a_file(tmp_path / "mine.jsonl", mine.to_dict(), story.to_dict()))
    assert list(found) == [mine, story]
    assert found[1].share_met(story.answer or "") == 1.0
    assert found[-1] == found[:][1] and found.skipped == 0


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('{"prompt": "a"', "line 2: it is not JSON"),
        ({"clauses": []}, "line 2: no field is called 'prompt'"),
        ({"prompt": " ", "clauses": [{"text": "a"}]}, "line 2: the field 'prompt' is empty"),
        ({"prompt": "a", "clauses": []}, "line 2: the field 'clauses' is no list of clauses"),
        ({"prompt": "a", "clauses": ["a"]}, "line 2: the field 'clauses.0' is 'a'"),
        ({"prompt": "a", "clauses": [{"text": "b"}]}, "line 2: the field 'clauses': the clause 'b' does not occur"),
        (
            {"prompt": "a", "clauses": [{"text": "a", "check": {"must_match": "("}}]},
            "line 2: the field 'clauses.0.check': must_match",
        ),
        (
            {"prompt": "a", "clauses": [{"text": "a", "check": {"must_match": "a{99999999999}"}}]},
            "line 2: the field 'clauses.0.check': must_match",
        ),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_with_line_and_field(tmp_path: Path, row: Any, words: str) -> None:
    path = a_file(tmp_path / "mine.jsonl", a_prompt().to_dict(), row)
    with pytest.raises(WorkbenchError, match=f"mine.jsonl, {words}"):
        load_prompts(path)
    assert (len(load_prompts(path, on_bad="skip")), load_prompts(path, on_bad="skip").skipped) == (1, 1)


def test_files_that_hold_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match="cannot be read"):
        load_prompts(tmp_path / "none.jsonl")
    with pytest.raises(WorkbenchError, match="has no rows"):
        load_prompts(a_file(tmp_path / "empty.jsonl"))


def test_a_file_of_prompts_is_a_task_that_is_scored_by_its_checks(tmp_path: Path) -> None:
    """The share of clauses met, by the checks of each row; the same numbers through `wb.evaluate`."""
    rows = [a_prompt(answer=f" Tom wept {i}.").to_dict() for i in range(3)]
    path = a_file(tmp_path / "mine.jsonl", *rows)
    task = load_task(path, preset="clauses")
    example = task[0]
    assert (task.metric, example.answer) == ("clauses_met", " Tom wept 0.")
    score = METRICS[task.metric].score
    assert [score(text, example) for text in ("Tom wept.", "Tom's cat ran.", "a cat")] == [1.0, 1 / 3, 0.0]
    backbone = zoo.backbone("llama")
    method = wb.SoftPrompt(backbone, tokens=2)
    steps = list(
        wb.fit(backbone, method, task, wb.FitConfig(steps=2, batch_size=1), run_dir=tmp_path / "run")
    )
    assert len(steps) == 2
    (row,) = wb.evaluate(backbone, task, method, split="test").rows
    (asked,) = task.examples("test")
    assert row["score"] == from_example(asked).share_met(row["prediction"])


def test_a_task_needs_answers(tmp_path: Path) -> None:
    path = a_file(tmp_path / "mine.jsonl", a_prompt().to_dict())
    with pytest.raises(WorkbenchError, match="line 1: there is no field 'answer'"):
        load_task(path, preset="clauses")


def test_the_bundled_task_reaches_the_ends_of_its_range() -> None:
    """1 to 16 clauses, answers of 20 to 800 words, each story met by its own answer."""
    for clauses, length in ((1, 20), (16, 800), (16, 200), (4, 400)):
        task = load_task("stories", n=2, split="test", clauses=clauses, length=length)
        for example in task:
            prompt = from_example(example)
            assert len(prompt.clauses) == clauses
            assert abs(len(example.answer.split()) - length) <= max(12, 0.15 * length)
            assert prompt.share_met(example.answer) == 1.0

"""Protects the stories: binding is needed at every due word, and the checker reads what the generator wrote."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import WorkbenchError
from workbench.tasks.world import checker, phrases
from workbench.tasks.world.lexicon import VALUE_SETS
from workbench.tasks.world.sample import SPLITS, rng
from workbench.tasks.world.stories import (
    FAMILIES,
    LONGEST,
    MOST_CLAUSES,
    STAGES,
    Due,
    Story,
    make_story,
    render,
    shortest,
)

SET_OF = {value: name for name, values in VALUE_SETS.items() for value in values}
CASES = st.tuples(
    st.integers(0, 10**6), st.integers(1, MOST_CLAUSES), st.integers(20, LONGEST), st.sampled_from(SPLITS)
)


def story_of(case: tuple[int, int, int, str], repeat: bool = False) -> Story:
    seed, clauses, length, split = case
    dice = rng("stories", split, seed, 0)
    return make_story(dice, clauses, max(length, shortest(clauses)), split, repeat)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def stories() -> list[Story]:
    """A thousand stories of the default mixture."""
    return [make_story(rng("stories", "train", 7, i)) for i in range(1000)]


def own_values(story: Story, due: Due) -> list[str]:
    """Every word of the prompt from the value set that is due, told or not, in the prompt's order."""
    return [w for w in story.prompt.split() if SET_OF.get(w) == phrases.KINDS[due.kind]]


# --- what the generator promises


@given(CASES)
def test_counts_and_lengths(case: tuple[int, int, int, str]) -> None:
    """The number of clauses is exact, each falls due once, and the length is near what was asked."""
    story = story_of(case)
    asked = max(case[2], shortest(case[1]))
    assert len(story.clauses) == len(story.due) == case[1]
    assert sorted(due.clause_index for due in story.due) == list(range(case[1]))
    assert abs(len(story.text.split()) - asked) <= max(12, 0.15 * asked)


@given(CASES, st.booleans())
def test_due_words_stand_where_the_story_says(case: tuple[int, int, int, str], repeat: bool) -> None:
    """The index points at the answer, the distance at the last reading, and no own value comes before."""
    story = story_of(case, repeat)
    words = story.text.split()
    read = 0
    if repeat:
        read = next(i for i in range(len(words)) if words[i : i + 3] == ["go", "on", ":"]) + 3
        begin = next(i for i in range(len(words)) if words[i : i + 2] == ["remember", ":"])
        said = " ".join(words[begin + 2 : read - 3])
        asked = story.prompt[len("write a story . ") : -len(" begin :")]
        assert sorted(f"{said} ".split(" . ")) == sorted(f"{asked} ".split(" . "))
        own = {value for clause in story.clauses for value in (clause.value, clause.contrast) if value}
        assert {words[i] for i in story.reminded} == own
        assert all(begin < i < read for i in story.reminded)
    for due in story.due:
        clause = story.clauses[due.clause_index]
        assert (
            words[due.word_index] == due.answer == (clause.contrast if clause.prohibition else clause.value)
        )
        assert due.distance == due.word_index - (read if due.word_index >= read else 0)
        if not repeat and not clause.prohibition:
            assert due.answer not in words[: due.word_index]
    orders = [order for due in story.due if (order := story.clauses[due.clause_index].order)]
    assert orders == list(range(1, len(orders) + 1))


@given(CASES)
def test_at_least_two_own_values_fit(case: tuple[int, int, int, str]) -> None:
    """Wherever a clause falls due two of the prompt's own values are open, even to one who strikes out what
    was told; every own value is written once; and the decoys are never told."""
    story = story_of(case)
    words = story.text.split()
    for due in story.due:
        own = own_values(story, due)
        assert len(own) == len(set(own))
        told = {d.answer for d in story.due if d.word_index < due.word_index}
        assert due.answer in due.choices and set(due.choices) <= set(own) - told
        assert due.chance == len(due.choices) >= 2
    for clause in story.clauses:
        if clause.contrast and not clause.prohibition:
            assert clause.contrast not in words
        if clause.prohibition:
            assert words.count(clause.value) == 1


def test_every_length_and_count_can_be_asked_for() -> None:
    """Shortest and longest stories exist for each number of clauses, and nothing outside is made."""
    for clauses in range(1, MOST_CLAUSES + 1):
        for length in (shortest(clauses), LONGEST):
            for seed in range(5):
                words = make_story(Random(seed), clauses, length).text.split()
                assert abs(len(words) - length) <= max(12, 0.15 * length)
    with pytest.raises(WorkbenchError, match="1 to 16"):
        make_story(Random(0), clauses=17)
    with pytest.raises(WorkbenchError, match="words, not 20"):
        make_story(Random(0), clauses=16, length=20)


def test_due_words_spread_over_the_story() -> None:
    """The map of clauses by distance can be filled: each fifth of a story gets about a fifth of the dues."""
    fifths: Counter[int] = Counter()
    for i in range(150):
        story = make_story(rng("spread", "train", 0, i), clauses=8, length=600)
        total = len(story.text.split())
        fifths.update(5 * due.word_index // total for due in story.due)
    shares = [fifths[k] / sum(fifths.values()) for k in range(5)]
    assert all(0.14 < share < 0.26 for share in shares), shares


def test_default_mixture_covers_counts_and_lengths(stories: list[Story]) -> None:
    """Left to the dice, every number of clauses and every stretch of lengths is drawn."""
    counts = Counter(len(story.clauses) for story in stories)
    assert set(counts) == set(range(1, 17)) and min(counts.values()) > 30
    lengths = [len(story.text.split()) for story in stories]
    for low, high in ((0, 50), (50, 100), (100, 220), (220, 400), (400, 650), (650, 830)):
        assert sum(low <= n < high for n in lengths) > 20, (low, high)
    assert {due.kind for story in stories for due in story.due} == set(phrases.KINDS)


# --- remembering that a word was in the prompt is not enough


def choose(scores: dict[str, float], dice: Random) -> str:
    best = max(scores.values())
    return dice.choice([value for value, score in scores.items() if score == best])


def hits(
    stories: list[Story], score: Callable[[Story, Due, str], float], all_own: bool
) -> tuple[float, float]:
    """How often the best-scored own value is the due one, and how often a guess among them would be."""
    dice, right, chance, n = Random(1), 0, 0.0, 0
    for story in stories:
        for due in story.due:
            values = own_values(story, due) if all_own else list(due.choices)
            right += choose({v: score(story, due, v) for v in values}, dice) == due.answer
            chance += 1 / len(values)
            n += 1
    return right / n, chance / n


def before(story: Story, due: Due) -> list[str]:
    return story.text.split()[: due.word_index]


def unigram(stories: list[Story]) -> Counter[str]:
    return Counter(word for story in stories for word in story.text.split())


def base_score(base: Counter[str], _story: Story, _due: Due, value: str) -> float:
    return base[value]


BASELINES: dict[str, Callable[[Story, Due, str], float]] = {
    "first in the prompt": lambda s, d, v: -s.prompt.split().index(v),
    "last in the prompt": lambda s, d, v: s.prompt.split().index(v),
    "most frequent in the story so far": lambda s, d, v: before(s, d).count(v),
    "least frequent in the story so far": lambda s, d, v: -before(s, d).count(v),
    "last mentioned in the story": lambda s, d, v: max((i for i, w in enumerate(before(s, d)) if w == v), default=-1),
    "first mentioned in the story": lambda s, d, v: -max((i for i, w in enumerate(before(s, d)) if w == v), default=-1),
}  # fmt: skip


def test_a_bias_on_the_prompts_words_scores_at_chance(stories: list[Story]) -> None:
    """A bias on the logits of all the prompt's tokens, over a base that does not read the prompt, finds the
    due word among the prompt's own values as often as a guess; with nothing struck out and with everything."""
    frequency = unigram([make_story(rng("other", "train", 1, i)) for i in range(300)])
    total = frequency.total()
    everything = [value for values in VALUE_SETS.values() for value in values]
    for base in (frequency, Counter()):
        for story in stories[:50]:  # the bias is what brings the own values to the top
            for due in story.due:
                group = set(VALUE_SETS[phrases.KINDS[due.kind]])
                own = set(own_values(story, due))
                logits = {v: base[v] / total + 1.0 * (v in own) for v in everything if v in group}
                assert max(logits, key=logits.__getitem__) in own
        for all_own in (True, False):
            right, chance = hits(stories, partial(base_score, base), all_own)
            assert abs(right - chance) < 0.025, (right, chance)


@pytest.mark.parametrize("name", BASELINES)
def test_frequency_and_position_score_at_chance(stories: list[Story], name: str) -> None:
    """Neither where an own value stands in the prompt nor how often or when the story named it tells which
    of the open values is due."""
    right, chance = hits(stories, BASELINES[name], all_own=False)
    assert abs(right - chance) < 0.025, (right, chance)


def test_the_baselines_would_notice_a_leak(stories: list[Story]) -> None:
    """The same measure finds a decoy that always stands after its value."""
    by_hand = [Story(render(s.clauses), s.text, s.clauses, s.due) for s in stories]
    right, chance = hits(by_hand, BASELINES["first in the prompt"], all_own=False)
    assert right > chance + 0.05


# --- the phrases


def test_cues_name_their_kind_and_hide_their_value() -> None:
    """The words before a due value end in no cue of another kind, in no article, and hold no value."""
    heads = {kind: [p[: p.index("{x}")].split() for p in ps] for kind, ps in phrases.DUE.items()}
    assert set(heads) == set(phrases.KINDS)
    for kind, cues in heads.items():
        assert len(cues) >= 6 and len({tuple(cue) for cue in cues}) == len(cues)
        for cue in cues:
            assert cue[-1] not in ("a", "an")
            sentence = cue[len(cue) - cue[::-1].index(".") :] if "." in cue else cue
            for other in set(heads) - {kind}:
                assert sentence not in [c[-len(sentence) :] for c in heads[other]], (kind, other, cue)


def test_no_pattern_contains_a_word_of_the_lexicon() -> None:
    """A value in a story was put there by a slot, so the checker and the distances can count on it."""
    due = [p for ps in phrases.DUE.values() for p in ps]
    patterns = due + list(phrases.ARRIVALS + phrases.FILLERS + phrases.OPENERS + phrases.WHO)
    for pattern in patterns:
        words = re.sub(r"\{\w+\}", " ", pattern)
        assert not set(re.findall(r"[a-z-]+", words)) & set(SET_OF), pattern
    assert len(due) + sum(len(phrases.variants(p)) for p in phrases.ARRIVALS + phrases.FILLERS) > 300


def test_splits_hold_out_phrases() -> None:
    """Training stories use no held-out phrase; validation and test each use their own."""

    def cues(split: str) -> set[str]:
        seen = set()
        for i in range(400):
            story = make_story(rng("stories", split, 3, i), clauses=8, length=120, split=split)  # type: ignore[arg-type]
            for kind, wordings in phrases.DUE.items():
                heads = (wording.split("{")[0] for wording in wordings)
                seen |= {(kind, head) for head in heads if f" {head}" in f" {story.text}"}
        return {head for _, head in seen}

    seen = {split: cues(split) for split in SPLITS}
    assert seen["validation"] - seen["train"] and seen["test"] - seen["train"]
    held = {split: seen[split] - seen["train"] for split in ("validation", "test")}
    assert not held["validation"] & held["test"]
    assert len(held["test"]) >= 20 and len(held["validation"]) >= 20


# --- the checker


@given(CASES, st.booleans())
def test_checker_agrees_with_the_generator(case: tuple[int, int, int, str], repeat: bool) -> None:
    """The checker finds every clause of a generated story met, at the generator's word; also from the
    prompt's text alone."""
    story = story_of(case, repeat)
    assert checker.parse_prompt(story.prompt) == story.clauses
    assert checker.parse_prompt(render(story.clauses)) == story.clauses
    result = checker.check(story.prompt, story.text)
    assert [m.clause for m in result] == list(story.clauses)
    assert all(m.met is True for m in result)
    for due in story.due:
        assert (result[due.clause_index].at, result[due.clause_index].found) == (due.word_index, due.answer)
    assert checker.share_met(story.prompt, story.text) == 1.0


@given(CASES)
def test_checker_notices_one_swapped_value(case: tuple[int, int, int, str]) -> None:
    """Another own value at one due word leaves exactly that clause unmet."""
    story = story_of(case)
    words = story.text.split()
    for due in story.due:
        broken = list(words)
        broken[due.word_index] = next(v for v in due.choices if v != due.answer)
        result = checker.check(story.clauses, " ".join(broken))
        assert [i for i, m in enumerate(result) if m.met is not True] == [due.clause_index]
        assert result[due.clause_index].met is False


@given(CASES)
def test_checker_says_never_due(case: tuple[int, int, int, str]) -> None:
    """A story cut before a due word leaves that clause, and those after it, at None."""
    story = story_of(case)
    due = story.due[case[0] % len(story.due)]
    result = checker.check(story.clauses, " ".join(story.text.split()[: due.word_index]))
    later = {d.clause_index for d in story.due if d.word_index >= due.word_index}
    assert {i for i, m in enumerate(result) if m.met is None} == later
    assert all(m.met for i, m in enumerate(result) if i not in later)


def test_stages_count_only_in_order() -> None:
    """A later stage told before an earlier one is not met, whatever its word."""
    prompt = "write a story . second : sing . first : swim not dance . begin :"
    right = "first they had to swim . the second task was to sing ."
    swapped = "the second task was to sing . first they had to swim ."
    assert [m.met for m in checker.check(prompt, right)] == [True, True]
    assert [m.met for m in checker.check(prompt, swapped)] == [False, True]
    assert STAGES[0] == "first"


def test_prohibition_needs_the_offer() -> None:
    """What is not offered cannot be refused; what is taken later breaks the clause all the same."""
    prompt = "write a story . avoid : soup not bread . begin :"
    take = "on the table were {} and {} . the child chose to eat the {} .".format
    assert checker.check(prompt, take("soup", "bread", "bread"))[0].met is True
    assert checker.check(prompt, take("bread", "soup", "soup"))[0].met is False
    assert checker.check(prompt, take("plum", "bread", "bread"))[0].met is None
    twice = take("soup", "bread", "bread") + " " + take("soup", "bread", "soup")
    assert checker.check(prompt, twice)[0] == checker.Met(checker.parse_prompt(prompt)[0], False, 30, "soup")


@given(st.text(max_size=200))
def test_checker_reads_any_text(text: str) -> None:
    """Whatever a model writes gets a verdict, never a crash."""
    assert checker.check("write a story . hero : tom . begin :", text)[0].met is None


def test_prompts_that_cannot_be_read() -> None:
    """A prompt without clauses, with a broken one or an unknown kind is refused in one sentence."""
    for prompt, message in (
        ("hello", "no story is asked for"),
        ("write a story . begin :", "no clause"),
        ("write a story . hero tom . begin :", "is no clause"),
        ("write a story . heroo : tom . begin :", "did you mean 'hero'"),
    ):
        with pytest.raises(WorkbenchError, match=message):
            checker.parse_prompt(prompt)


# --- the families


def test_same_seed_same_bytes() -> None:
    """The bytes of a few samples, pinned: a change here changes every number measured on stories."""
    digest = hashlib.sha256()
    for name, family in FAMILIES.items():
        for split in SPLITS:
            for index in range(5):
                digest.update(family.make(rng(name, split, 0, index), split).text.encode())
    assert digest.hexdigest() == "31d543f7cb6d2082e27ad39c42610e8af88e8215486edb4858f4eccd426e495a"


def test_story_due_asks_for_one_word() -> None:
    """The short family ends right before a due word, and offers the own values that fit."""
    family = FAMILIES["story-due"]
    for i in range(50):
        sample = family.make(rng("story-due", "test", 0, i), "test")
        assert sample.answer in sample.choices and len(sample.choices) >= 2
        (due,) = sample.fields["due"]
        result = checker.check(sample.prompt, sample.text.split(" begin : ", 1)[1])[due["clause_index"]]
        assert result.met is True and result.found == sample.answer

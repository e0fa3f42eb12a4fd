"""The generated families, but for stories: answers are right by independent reckoning, nothing leaks from test
into train, the same seed gives the same bytes, and pretraining never sees what it must not."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import WorkbenchError
from workbench.tasks import world
from workbench.tasks.world import arithmetic, facts, lexicon, lists, reading, relations, running, sentiment
from workbench.tasks.world.mixture import LATER_SHARES, SHARES, Document, document, documents
from workbench.tasks.world.sample import SPLITS, Sample

FAMILIES = {name: family for name, family in world.families().items() if family.group != "stories"}
RULES = [name for name, r in relations.RELATIONS.items() if r.sort in ("rule", "list")]

PINNED = "49ce2507d403698eb8b17d055022c5801c763a8b20eb9e42e782da2334940f7b"
"""sha256 over samples of every family that backbones are trained with, and split: changes when any byte does."""


def test_same_seed_same_bytes() -> None:
    """Protects: data sets made on one machine are those made on another; a change of the world is noticed."""
    digest = hashlib.sha256()
    for name in (name for name, family in FAMILIES.items() if family.group != "worked"):
        for split in SPLITS:
            options = {"shots": 2} if name != "running" else {}
            for sample in world.samples(name, split, 2, 7) + world.samples(name, split, 1, 8, **options):
                digest.update(f"{name}/{split}: {sample.text}\n".encode())
    assert digest.hexdigest() == PINNED


def test_a_sample_depends_on_its_index_alone() -> None:
    """Protects: asking for more samples, or another seed, does not shift those one has."""
    for name in ("plural", "reading", "add-2", "sentiment", "running"):
        assert world.samples(name, "test", 9, 3)[:4] == world.samples(name, "test", 4, 3)
        assert world.samples(name, "test", 9, 3)[5] == world.sample(name, "test", 3, 5)
        assert world.samples(name, "test", 4, 3) != world.samples(name, "test", 4, 4)


@given(st.sampled_from(sorted(FAMILIES)), st.sampled_from(SPLITS), st.integers(0, 10**6), st.integers(0, 9))
def test_shape_of_every_sample(name: str, split: str, seed: int, shots: int) -> None:
    """Protects what the tokeniser and the readers rely on: single spaces, markers, choices, spans, shown answers."""
    options = {"shots": shots} if name != "running" else {}
    for sample in world.samples(name, split, 5, seed, **options):  # type: ignore[arg-type]
        assert sample.text == " ".join(sample.text.split()) == sample.text.lower()
        assert sample.text.isascii() and sample.prompt and sample.answer
        assert not sample.choices or sample.answer in sample.choices
        if FAMILIES[name].group != "running":
            joins = lists.JOINS if FAMILIES[name].group == "lists" else ()
            assert sample.prompt.endswith(("answer :", "->", "output :", "=", *joins))
            assert not sample.answer.endswith(" .")
        if FAMILIES[name].group == "reading":
            span = sample.fields["context"][sample.fields["answer_start"] :]
            assert f"{span} ".startswith(f"{sample.answer} ")
            assert sample.prompt.endswith(
                f"{sample.fields['context']} question : {sample.fields['question']} answer :"
            )


def test_there_are_enough_families_to_hold_some_out() -> None:
    """Protects meta-learning: at least 40 relation families, 8 held out, of every sort."""
    assert len(relations.FAMILIES) >= 40
    assert len(world.HELD_OUT) >= 8 and set(relations.FAMILIES) >= world.HELD_OUT
    assert {relations.RELATIONS[name].sort for name in world.HELD_OUT} == {"fact", "rule", "list", "labels"}


# ------------------------------------------------------------------------- answers by independent reckoning
FACT_OF = {
    "capital-of": "capital", "language-of": "language", "flag-of": "flag", "emblem-of": "emblem", "dish-of": "dish",
    "region-of": "region", "home-of-animal": "home", "sound-of-animal": "sound", "baby-animal": "young",
    "colour-of-animal": "coat", "kind-of-animal": "kind", "food-of-animal": "eats", "colour-of-food": "look",
    "taste-of-food": "taste", "sort-of-food": "sort", "tool-of-job": "tool", "place-of-job": "workplace",
    "material-of": "material", "room-of": "room", "worn-in": "worn", "opposite": "opposite", "synonym": "synonym",
    "female-of": "female", "plural": "plural", "past-of": "past", "doing": "doing", "comparative": "more",
    "superlative": "most", "category": "category", "next-day": "next-day", "previous-day": "previous-day",
    "next-month": "next-month", "previous-month": "previous-month", "season-of": "season",
}  # fmt: skip
FACT_FROM = {
    "country-of-capital": "capital", "country-of-language": "language", "animal-of-sound": "sound",
    "parent-animal": "young", "job-of-tool": "tool", "singular": "plural", "present-of": "past",
}  # fmt: skip
NUMBER = {
    word: i
    for i, word in enumerate(
        """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
        seventeen eighteen nineteen twenty""".split()
    )
}
WORD = {i: word for word, i in NUMBER.items()}
SIZE = {animal: i for i, animal in enumerate(facts.ANIMALS_BY_SIZE)}
KIND_OF = facts.TABLES["category"].values


def _only(words: list[str], kind: str) -> str:
    (found,) = [w for w in words if KIND_OF[w] == kind]
    return found


def _partner(x: str) -> dict[str, str]:
    return dict(pair.split(" is ") for pair in x.split(" , ")[:-1])  # type: ignore[misc]


def _replaced(x: str) -> str:
    words, change = x.split(" , ")
    old, new = change.split(" to ")
    return re.sub(rf"\b{old}\b", new, words)


def _around(x: str, step: int) -> str:
    word, rest = x.split(" in ")
    return rest.split()[rest.split().index(word) + step]


SOLVE: dict[str, Callable[[str], str]] = {
    "bigger-animal": lambda x: max(x.split(" or "), key=SIZE.__getitem__),
    "smaller-animal": lambda x: min(x.split(" or "), key=SIZE.__getitem__),
    "next-number": lambda x: WORD[NUMBER[x] + 1],
    "previous-number": lambda x: WORD[NUMBER[x] - 1],
    "to-digits": lambda x: str(NUMBER[x]),
    "from-digits": lambda x: WORD[int(x)],
    "parity": lambda x: "odd" if NUMBER[x] % 2 else "even",
    "larger-number": lambda x: max(x.split(" or "), key=NUMBER.__getitem__),
    "smaller-number": lambda x: min(x.split(" or "), key=NUMBER.__getitem__),
    "first-word": lambda x: x.split()[0],
    "second-word": lambda x: x.split()[1],
    "third-word": lambda x: x.split()[2],
    "last-word": lambda x: x.split()[-1],
    "last-but-one": lambda x: x.split()[-2],
    "copy": lambda x: x,
    "copy-twice": lambda x: f"{x} {x}",
    "reverse": lambda x: " ".join(reversed(x.split())),
    "swap-ends": lambda x: re.sub(r"^(\w+)(.*) (\w+)$", r"\3\2 \1", x),
    "first-and-last": lambda x: re.sub(r"^(\w+).* (\w+)$", r"\1 \2", x),
    "drop-first": lambda x: x.partition(" ")[2],
    "drop-last": lambda x: x.rpartition(" ")[0],
    "move-first": lambda x: f"{x.partition(' ')[2]} {x.partition(' ')[0]}",
    "add-and": lambda x: x.replace(" ", " and "),
    "count-words": lambda x: WORD[len(x.split())],
    "sort-names": lambda x: " ".join(sorted(x.split())),
    "sort-numbers": lambda x: " ".join(WORD[n] for n in sorted(NUMBER[w] for w in x.split())),
    "largest-number": lambda x: WORD[max(NUMBER[w] for w in x.split())],
    "longer-list": lambda x: max(x.split(" or "), key=lambda part: len(part.split())),
    "word-after": lambda x: _around(x, 1),
    "word-before": lambda x: _around(x, -1),
    "most-frequent": lambda x: Counter(x.split()).most_common(1)[0][0],
    "drop-double": lambda x: " ".join(dict.fromkeys(x.split())),
    "replace-word": _replaced,
    "contains": lambda x: "yes" if x.split(" in ")[0] in x.split(" in ")[1].split() else "no",
    "same-word": lambda x: "same" if len(set(x.split(" and "))) == 1 else "different",
    "look-up": lambda x: _partner(x)[x.split(" , ")[-1]],
    "look-back": lambda x: {y: a for a, y in _partner(x).items()}[x.split(" , ")[-1]],
    "odd-one-out": lambda x: next(
        w for w in x.split() if [KIND_OF[v] for v in x.split()].count(KIND_OF[w]) == 1
    ),
    "find-animal": lambda x: _only(x.split(), "animal"),
    "find-food": lambda x: _only(x.split(), "food"),
    "find-person": lambda x: _only(x.split(), "person"),
    "count-animals": lambda x: WORD[sum(KIND_OF[w] == "animal" for w in x.split())],
}


def _true(sentence: str) -> str:
    for name in (
        "capital",
        "language",
        "home",
        "sound",
        "taste",
        "tool",
        "material",
        "past",
        "plural",
        "next-day",
    ):
        table = facts.TABLES[name]
        pattern = re.escape(table.statements[0].removesuffix(" ."))
        found = re.fullmatch(
            pattern.replace(r"\{x\}", r"(?P<x>\w+)").replace(r"\{y\}", r"(?P<y>\w+)"), sentence
        )
        if found and found["x"] in table.values:
            return "true" if table.values[found["x"]] == found["y"] else "false"
    raise AssertionError(sentence)


for _name, _table in FACT_OF.items():
    SOLVE[_name] = facts.TABLES[_table].values.__getitem__
for _name, _table in FACT_FROM.items():
    SOLVE[_name] = {y: x for x, y in facts.TABLES[_table].pairs}.__getitem__
SOLVE["true-or-false"] = _true


def _shown(sample: Sample) -> list[tuple[str, str]]:
    """The worked examples of a prompt in "input : x output : y ." style or the others, read back."""
    cases = re.findall(
        r"(?:^|(?<= \. )|(?<= \? ))((?:[^.?]+?)) (?:->|answer :|output :) ([^.]+?) \.(?= )", sample.prompt
    )
    return [(x.removeprefix("input : "), y) for x, y in cases]


@pytest.mark.parametrize("name", [n for n, r in relations.RELATIONS.items() if r.sort != "labels"])
def test_relations_are_right(name: str) -> None:
    """Protects the answers, and those of worked examples, against a solver that reads the prompt's text."""
    for split in SPLITS:
        for sample in world.samples(name, split, 20) + world.samples(
            name, split, 10, 1, shots=3, instruction=False
        ):
            x = sample.fields["input"]
            assert f" {x} " in f" {sample.prompt} "
            assert SOLVE[name](x) == sample.answer, sample.text
            cases = _shown(sample)
            assert len(cases) == sample.fields["shots"]
            assert [y for _, y in cases] == [SOLVE[name](a) for a, _ in cases]
            assert x not in [a for a, _ in cases]
            words = sample.prompt.split()
            assert [words[i] for i in sample.fields["shown"]] == " ".join(y for _, y in cases).split()


@pytest.mark.parametrize("name", [n for n, r in relations.RELATIONS.items() if r.sort == "labels"])
def test_random_labels_are_told(name: str) -> None:
    """Protects: the instruction spells out random labels, and the examples show each of them."""
    for sample in world.samples(name, "test", 30):
        rule = re.findall(r"(\w+) for an? (\w+)|(\w+) means (\w+)", sample.prompt)
        x = sample.fields["input"]
        kinds = {
            KIND_OF.get(x),
            "odd" if NUMBER.get(x, 0) % 2 else "even",
            facts.TABLES["kind"].values.get(x),
            x,
        }
        told = {label for label, kind, a, b in rule if kind in kinds} | {b for _, _, a, b in rule if a == x}
        assert told == {sample.answer}, sample.text
    for sample in world.samples(name, "test", 30, shots=6, instruction=False):
        cases = _shown(sample)
        assert len(cases) == 6
        assert sample.answer in {y for _, y in cases}
        if name == "secret-code":
            assert (sample.fields["input"], sample.answer) in cases


@pytest.mark.parametrize("name", arithmetic.FAMILIES)
def test_arithmetic_is_right(name: str) -> None:
    """Protects sums, differences, comparisons, orders and sequences, reckoned from the prompt's own digits."""
    operation, level = name.split("-")
    for sample in world.samples(name, "train", 40) + world.samples(name, "test", 40):
        numbers = [int(n) for n in re.findall(r"\d+", sample.prompt)]
        if operation != "sequence":
            assert all(n < 10 ** int(level) for n in numbers)
        if operation == "add":
            assert sample.answer == str(sum(numbers))
        elif operation == "subtract":
            assert sample.answer == str(max(numbers) - min(numbers))
        elif operation == "compare":
            assert sample.answer == str(max(numbers))
        elif operation == "order":
            assert sample.answer == " ".join(map(str, sorted(numbers)))
        else:
            a, b, c, d = numbers
            fits = {
                d + (b - a) if b - a == c - b == d - c else None,
                d * 2 if [b, c, d] == [2 * a, 2 * b, 2 * c] else None,
            }
            alternating = {d + (c - b)} if d - c == b - a else set()
            assert int(sample.answer) in (fits - {None} or alternating)


# the words that a slot of reading may hold, for a reader that works by regular expression
SLOT = {
    "n": lexicon.NAMES, "p": lexicon.PLACES, "o": lexicon.OBJECTS, "c": lexicon.COLOURS, "j": lexicon.JOBS,
    "f": lexicon.FOODS, "m": lexicon.MOODS, "w": lexicon.WEATHERS, "k": lexicon.NUMBERS, "x": lexicon.ACTIONS,
    "d": facts.DAYS,
}  # fmt: skip


def _pattern(template: str, kind: reading.Kind) -> re.Pattern[str]:
    """A template as a pattern over a passage, every slot a named group."""
    text = re.escape(template.removesuffix(" ."))
    text = re.sub(r"(?<![a-z{])a\\ ", r"an?\\ ", text)
    for slot, words in kind.slots.items():
        text = text.replace(rf"\{{{slot}\}}", f"(?P<{slot}>{'|'.join(words)})", 1)
        text = text.replace(rf"\{{{slot}\}}", f"(?P={slot})")
    return re.compile(rf"(?:^|(?<= )){text}(?= \.| ,| and )")


STATED = {kind.name: [_pattern(s, kind) for s in kind.statements] for kind in reading.KINDS}


@pytest.mark.parametrize("split", SPLITS)
def test_reading_has_one_answer(split: str) -> None:
    """Protects: exactly one answer follows from the passage, though others of its kind stand there.

    A reader that knows the sentence patterns parses the passage into facts and looks the question up.
    """
    for sample in world.samples("reading", split, 150):  # type: ignore[arg-type]
        kind = reading.BY_NAME[sample.fields["kind"]]
        context = sample.fields["context"]
        stated = [m.groupdict() for pattern in STATED[kind.name] for m in pattern.finditer(context)]
        assert len({tuple(sorted(f.items())) for f in stated}) >= 2, context
        question = sample.fields["question"]
        answers = {
            fact[slot]
            for fact in stated
            for template, slot in kind.questions
            if facts.articles(template.format_map(fact)) == question
        }
        assert answers == {sample.answer}, sample.text


@pytest.mark.parametrize("shots", [0, 2])
def test_turns_are_answered_from_their_passage(shots: int) -> None:
    """Protects: earlier turns ask other things, show where their answers stand, and are right themselves.

    What the reader above finds for a turn's question is the answer shown; with worked examples before it too.
    """
    seen = 0
    for sample in world.samples("reading", "train", 60, turns=3, shots=shots):
        words = sample.prompt.split()
        shown = [words[i] for i in sample.fields["shown"]]
        turns = re.findall(r"question : ([^:]*?) answer : ([a-z]+)", sample.text)
        assert [answer for _, answer in turns] == [*shown, sample.answer]
        kind, context = reading.BY_NAME[sample.fields["kind"]], sample.fields["context"]
        turns = turns[-sample.text.split(context)[-1].count(" question : ") :]
        stated = [m.groupdict() for pattern in STATED[kind.name] for m in pattern.finditer(context)]
        for question, answer in turns:
            found = {
                fact[slot]
                for fact in stated
                for template, slot in kind.questions
                if facts.articles(template.format_map(fact)) == question
            }
            assert found == {answer}, sample.text
            seen += 1
        assert len({answer for _, answer in turns}) == len(turns) >= 2
    assert seen > 100
    with pytest.raises(WorkbenchError, match="0 or more"):
        world.samples("reading-moves", "train", 1, turns=-1)


def test_lists_are_looked_up() -> None:
    """Protects: the partner asked for is the one in the list, and so are those shown before it."""
    for split in SPLITS:
        for sample in world.samples("list", split, 60, turns=5):
            (join,) = {join for join in lists.JOINS if f" {join} " in f"{sample.prompt} "}
            listed, asked = sample.text.removeprefix("list : ").split(" again : ")
            pairs = dict(pair.split(f" {join} ") for pair in listed.removesuffix(" ,").split(" , "))
            assert len(pairs) == sample.fields["pairs"] and (join == lists.JOINS[-1]) == (split == "test")
            turns = [turn.split(f" {join} ") for turn in asked.split(" , ")]
            assert all(pairs[key] == value for key, value in turns) and turns[-1][1] == sample.answer
            words = sample.prompt.split()
            assert [words[i] for i in sample.fields["shown"]] == [value for _, value in turns[:-1]]


def test_moves_are_followed() -> None:
    """Protects: who was where, and when, replayed from the passage."""
    for sample in world.samples("reading-moves", "train", 150):
        path: dict[str, list[str]] = {}
        for sentence in sample.fields["context"].split(" . "):
            words = sentence.split()
            (name,) = set(words) & set(lexicon.NAMES)
            path.setdefault(name, []).append(_only([w for w in words if w in lexicon.PLACES], "place"))
        question = sample.fields["question"].split()
        (who,) = set(question) & set(lexicon.NAMES)
        beside = [w for w in question if w in lexicon.PLACES]
        at = {"last": -1, "first": 0}.get(sample.fields["kind"])
        if at is None:
            at = path[who].index(beside[0]) + (1 if sample.fields["kind"] == "after" else -1)
        assert path[who][at] == sample.answer


def test_hops_need_two_sentences() -> None:
    """Protects: the person whom the question describes is named in two sentences, the answer in the second."""
    for sample in world.samples("reading-hops", "test", 60):
        sentences = sample.fields["context"].split(" . ")
        clue = set(sample.fields["question"].split()) & {w for words in SLOT.values() for w in words} | (
            set(sample.fields["question"].split()) & set(lexicon.ANIMALS)
        )
        stated = [s for s in sentences if clue & set(s.split())]
        people = {w for s in stated for w in s.split() if w in lexicon.NAMES}
        answered = {n for s in sentences if sample.answer in s.split() for n in people if n in s.split()}
        assert len(answered) == 1, sample.text


def test_cloze_is_filled_by_the_passage() -> None:
    """Protects: the missing word stands elsewhere in the passage, or follows from a fixed fact."""
    for sample in world.samples("cloze", "test", 100):
        words = sample.fields["passage"].split()
        assert words.count("____") == 1 and sample.answer in words
    for sample in world.samples("cloze-facts", "test", 100):
        words = sample.fields["passage"].split()
        table = facts.TABLES[sample.fields["kind"]].values
        assert words.count("____") == 1
        assert sample.answer in {table[w] for w in words if w in table}


def test_sentiment_needs_composition() -> None:
    """Protects: labels are balanced, no word gives them away, and the rule gives them exactly."""
    reviews = world.samples("sentiment", "train", 3000)
    good = sum(s.answer == "good" for s in reviews)
    assert 0.45 < good / len(reviews) < 0.55
    with_word: dict[str, Counter[str]] = {}
    for s in reviews:
        for word in set(s.fields["review"].split()):
            with_word.setdefault(word, Counter())[s.answer] += 1
    for word, seen in with_word.items():
        right = max(seen["good"] + len(reviews) - good - seen["bad"], seen["bad"] + good - seen["good"])
        assert right / len(reviews) < 0.6, word
        assert seen.total() < 150 or max(seen.values()) / seen.total() < 0.8, word
    for s in reviews[:500] + world.samples("sentiment", "test", 500):
        assert _verdict(s.fields["review"]) == s.answer, s.text


def _verdict(review: str) -> str:
    """The label by the rule: the clause that is not set aside, its adjective, turned round if negated."""
    for sentence in review.replace("anything but", "hardly").split(" . "):
        sentence = re.sub(r"(although|even if) .*? , (?=the)", "", sentence)
        sentence = re.sub(r" , (although|even if) .*", "", sentence)
        sentence = re.split(r" but | , yet | ; still , ", sentence)[-1].removesuffix(" .")
        adjective = sentence.split()[-1]
        if adjective in sentiment.POSITIVE or adjective in sentiment.NEGATIVE:
            negated = re.search(r" (not|never|far from|by no means|not at all|hardly) \w+$", f" {sentence}")
            return "good" if (adjective in sentiment.POSITIVE) != bool(negated) else "bad"
    raise AssertionError(review)


# --------------------------------------------------------------------------------------------------- splits
@pytest.mark.parametrize("name", RULES)
def test_rule_families_hold_out_entities(name: str) -> None:
    """Protects: what is asked in test never occurs in that family in train, not even in a worked example."""
    listed = relations.RELATIONS[name].sort == "list"

    def asked(split: str, shots: int) -> set[str]:
        found: set[str] = set()
        for sample in world.samples(name, split, 150, shots=shots):  # type: ignore[arg-type]
            x = sample.fields["input"]
            found |= set(re.findall(r"\w+", x)) - {"in", "or", "and", "is", "to"} if listed else {x}
        return found

    train, test = asked("train", 0) | asked("train", 4), asked("test", 0) | asked("test", 4)
    assert train and test and not train & test
    assert not asked("validation", 0) & (train | test)


def test_arithmetic_holds_out_operands() -> None:
    """Protects: a pair of operands belongs to one split, in either order where order does not matter."""
    for name in arithmetic.FAMILIES:
        commutes = name.startswith(("compare", "order"))
        seen = {
            split: {
                tuple(sorted(s.fields["operands"]) if commutes else s.fields["operands"])
                for s in world.samples(name, split, 300)
            }
            for split in SPLITS
        }
        assert not seen["train"] & seen["test"]
        assert not seen["train"] & seen["validation"]


def test_phrasings_are_held_out() -> None:
    """Protects: test asks in words that train never used."""
    train = " . ".join(s.prompt for s in world.samples("capital-of", "train", 300))
    test = [s.prompt for s in world.samples("capital-of", "test", 50)]
    frames = [f.split("{what}")[0] for f in relations.TEST_INSTRUCTIONS + relations.TEST_QUESTIONS]
    assert all(any(p.startswith(f) for f in frames) for p in test)
    assert not any(f in train for f in frames)
    for kind in reading.KINDS:
        assert len(kind.statements) > 2 and len(kind.questions) > 2
    assert not {s.fields["question"].split()[0] for s in world.samples("reading-moves", "train", 50)} & {
        "at",
        "which",
    }


# ------------------------------------------------------------------------------------- running text, mixture
def test_every_fact_occurs_in_running_text() -> None:
    """Protects: what any relation asks, held out or not, can in principle be learnt from running text."""
    waiting = {
        facts.articles(pattern.format(x=x, y=y)): (table.name, x)
        for table in facts.TABLES.values()
        for x, y in table.pairs
        for pattern in table.statements[:-1]
    }
    missing = {(table.name, x) for table in facts.TABLES.values() for x, _ in table.pairs}
    index = 0
    while missing and index < 40_000:
        for sentence in world.sample("running", "train", 0, index).text.split(" . "):
            missing.discard(waiting.get(sentence.removesuffix(" .") + " .", ("", "")))
        index += 1
    assert not missing
    assert {name for name in world.HELD_OUT if name in FACT_OF} and running.FAMILIES


@pytest.fixture(scope="module")
def mixed() -> list[Document]:
    return list(islice(documents(5), 3000))


def test_mixture_leaves_out_what_is_held_out(mixed: list[Document]) -> None:
    """Protects meta-learning and every test split: held-out families and phrasings are not in pretraining."""
    seen = {d.family for d in mixed}
    assert not seen & world.HELD_OUT
    assert seen >= {name for name in relations.FAMILIES if name not in world.HELD_OUT}
    text = "\n".join(d.text for d in mixed)
    for frame in relations.TEST_INSTRUCTIONS + relations.TEST_QUESTIONS:
        assert frame.split(" {what}")[0] not in text


def test_mixture_keeps_its_shares_and_weighs_answers(mixed: list[Document]) -> None:
    """Protects the recipe: shares of words as promised, and due words that are the answers'."""
    words: Counter[str] = Counter()
    for d in mixed:
        count = len(d.text.split())
        words[world.family(d.family).group] += count
        assert d.text == " ".join(d.text.split())
        assert all(0 < i < count for i in d.due) and list(d.due) == sorted(set(d.due))
        assert d.due or d.family == "running"
    assert sum(SHARES.values()) == pytest.approx(1)
    for group in world.GROUPS:
        wanted = sum(share for source, share in SHARES.items() if source.startswith(group))
        assert words[group] / words.total() == pytest.approx(wanted, rel=0.25)


def test_the_second_cycle_has_its_own_shares() -> None:
    """Protects the recipe: lists only there, its shares as promised, the same documents held out."""
    words: Counter[str] = Counter()
    made = [document(5, i, later=True) for i in range(3000)]
    for d in made:
        words[world.family(d.family).group] += len(d.text.split())
        assert d.family not in world.HELD_OUT and list(d.due) == sorted(set(d.due))
    assert sum(LATER_SHARES.values()) == pytest.approx(1)
    for group in world.GROUPS:
        wanted = sum(share for source, share in LATER_SHARES.items() if source.startswith(group))
        assert words[group] / words.total() == pytest.approx(wanted, rel=0.25)


def test_mixture_is_addressed_by_index_and_starts_gently() -> None:
    """Protects resuming: a document depends on seed and index alone; `longest` caps stories."""
    assert list(islice(documents(5, start=7), 3)) == [document(5, i) for i in (7, 8, 9)]
    stories = [d for d in islice(documents(1, longest=40), 200) if d.family == "stories"]
    assert stories and max(len(d.text.split("begin :")[1].split()) for d in stories) < 80
    with pytest.raises(WorkbenchError, match="shortest story"):
        document(1, 0, longest=3)


def test_vocabulary_is_small(mixed: list[Document]) -> None:
    """Protects the tokeniser: a word costs one token, so there must be few words."""
    words = {w for d in mixed for w in d.text.split() if not w.isdigit()}
    assert 1000 < len(words) < 2500


def test_bad_requests_name_what_is_known() -> None:
    """Protects users: an unknown family, split or option, and shots that make no sense, get one sentence."""
    with pytest.raises(WorkbenchError, match="did you mean 'plural'"):
        world.samples("plurals", "train", 1)
    with pytest.raises(WorkbenchError, match="split"):
        world.samples("plural", "dev", 1)  # type: ignore[arg-type]
    with pytest.raises(WorkbenchError, match="no option 'shot'"):
        world.samples("plural", "train", 1, shot=2)
    with pytest.raises(WorkbenchError, match="worked examples"):
        world.samples("plural", "train", 1, instruction=False)
    with pytest.raises(WorkbenchError, match="0 or more"):
        world.samples("reading", "train", 1, shots=-1)

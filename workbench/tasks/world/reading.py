"""Reading: a passage about a few people and places, a question, and the span of the passage that answers it.

Three families of SQuAD's shape (context, question, answer and answer_start in characters are in `fields`):
`reading` asks for one fact among others of the same kind, `reading-moves` for a place in a chain of visits,
`reading-hops` for a fact that two sentences give together. The prompt is
"{passage} question : {question} answer :"; with `turns=2` two other questions about the passage are asked and
answered before it. Cloze and running text borrow the passages; no label is made here.

Splits: of every kind of fact the last sentence pattern and the last question are used in test only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from workbench.tasks.world import facts
from workbench.tasks.world import lexicon as lex
from workbench.tasks.world.sample import Family, Sample, Split
from workbench.tasks.world.shots import check_count, few_shot


@dataclass(frozen=True)
class Kind:
    """A kind of fact: its slots, the sentences that state it, and the questions each with the slot it asks for."""

    name: str
    slots: dict[str, tuple[str, ...]]
    """Slot name to the words that fit: n and n2 people, p place, o object, c colour, a animal …"""
    statements: tuple[str, ...]
    questions: tuple[tuple[str, str], ...]


Fact = dict[str, str]


def _kind(name: str, statements: str, questions: str, **slots: Sequence[str]) -> Kind:
    lines = [line.strip() for line in questions.strip().splitlines()]
    pairs = tuple((q.strip(), slot.strip()) for q, slot in (line.rsplit("|", 1) for line in lines))
    sentences = tuple(line.strip() for line in statements.strip().splitlines())
    return Kind(name, {k: tuple(v) for k, v in slots.items()}, sentences, pairs)


_PLURALS = tuple(facts.plural(animal) for animal in lex.ANIMALS if facts.plural(animal) != animal)
_THINGS = lex.OBJECTS

KINDS: tuple[Kind, ...] = (
    _kind(
        "lives",
        """{n} lives near the {p} .
        the house of {n} is near the {p} .
        near the {p} lives {n} .
        {n} has a small house by the {p} .
        for many years {n} has lived by the {p} .
        {n} moved to a house near the {p} .
        by the {p} one sees the house of {n} .""",
        """where does {n} live ? | p
        who lives near the {p} ? | n
        near which place is the house of {n} ? | p
        who has a house by the {p} ? | n
        by which place has {n} a house ? | p""",
        n=lex.NAMES,
        p=lex.PLACES,
    ),
    _kind(
        "job",
        """{n} is a {j} .
        {n} works as a {j} .
        the {j} of the town is called {n} .
        everybody knows {n} the {j} .
        {n} has always wanted to be a {j} and now works as one .
        as a {j} {n} is very good .""",
        """what is the job of {n} ? | j
        who is the {j} ? | n
        as what does {n} work ? | j
        who works as a {j} ? | n
        what does {n} do for work ? | j""",
        n=lex.NAMES,
        j=lex.JOBS,
    ),
    _kind(
        "has",
        """{n} has a {c} {o} .
        {n} bought a {c} {o} .
        the {c} {o} belongs to {n} .
        in the bag of {n} there is a {c} {o} .
        {n} got a {c} {o} as a gift .
        {n} is proud of a {c} {o} .
        the new {o} of {n} is {c} .""",
        """which colour is the {o} of {n} ? | c
        who has the {c} {o} ? | n
        what does {n} have that is {c} ? | o
        to whom does the {o} belong ? | n
        who is the owner of the {c} {o} ? | n""",
        n=lex.NAMES,
        c=lex.COLOURS,
        o=_THINGS,
    ),
    _kind(
        "pet",
        """{n} has a {a} as a pet .
        the pet of {n} is a {a} .
        {n} takes care of a {a} .
        every evening {n} feeds the {a} .
        {n} walks with a {a} .
        a {a} follows {n} everywhere .
        the {a} that one hears at night is the pet of {n} .""",
        """which animal does {n} have ? | a
        who takes care of the {a} ? | n
        what is the pet of {n} ? | a
        whose pet is the {a} ? | n
        which animal belongs to {n} ? | a""",
        n=lex.NAMES,
        a=lex.ANIMALS,
    ),
    _kind(
        "ate",
        """{n} ate {f} this morning .
        for lunch {n} had some {f} .
        {n} likes {f} best of all .
        the {f} was eaten by {n} .
        {n} cooked {f} and ate it all .
        there was only {f} on the plate of {n} .
        {n} asked for {f} and got it .""",
        """what did {n} eat ? | f
        who ate the {f} ? | n
        which food did {n} have ? | f
        who had the {f} ? | n
        what was the meal of {n} ? | f""",
        n=lex.NAMES,
        f=lex.FOODS,
    ),
    _kind(
        "found",
        """{n} found a {o} at the {p} .
        at the {p} {n} found a {o} .
        {n} went to the {p} and came back with a {o} .
        the {o} was found by {n} at the {p} .
        behind the {p} {n} saw a {o} and took it .
        {n} was at the {p} when a {o} turned up .""",
        """what did {n} find ? | o
        where did {n} find the {o} ? | p
        who found the {o} ? | n
        where was the {o} found ? | p
        at which place was the {o} ? | p""",
        n=lex.NAMES,
        o=_THINGS,
        p=lex.PLACES,
    ),
    _kind(
        "mood",
        """{n} is {m} today .
        {n} feels {m} .
        all day long {n} was {m} .
        {n} looks {m} .
        everyone could see that {n} was {m} .
        after the walk {n} felt {m} .""",
        """how does {n} feel ? | m
        who is {m} ? | n
        how is {n} today ? | m
        who feels {m} ? | n
        in what mood is {n} ? | m""",
        n=lex.NAMES,
        m=lex.MOODS,
    ),
    _kind(
        "weather",
        """it is {w} at the {p} .
        the weather at the {p} is {w} .
        at the {p} it was {w} all day .
        people say that it is {w} near the {p} .
        the {p} is a {w} place today .
        in the morning it became {w} at the {p} .""",
        """how is the weather at the {p} ? | w
        where is it {w} ? | p
        what is it like at the {p} today ? | w
        at which place is it {w} ? | p
        which weather do they have at the {p} ? | w""",
        p=lex.PLACES,
        w=lex.WEATHERS,
    ),
    _kind(
        "count",
        """{n} has {k} {a} .
        {n} keeps {k} {a} behind the house .
        there are {k} {a} in the barn of {n} .
        {n} counted {k} {a} .
        {k} {a} belong to {n} .
        last week {n} bought {k} {a} .""",
        """how many {a} does {n} have ? | k
        who has {k} {a} ? | n
        which animals belong to {n} ? | a
        what number of {a} does {n} own ? | k""",
        n=lex.NAMES,
        k=lex.NUMBERS,
        a=_PLURALS,
    ),
    _kind(
        "gave",
        """{n} gave a {o} to {n2} .
        {n} gave {n2} a {o} .
        {n2} got a {o} from {n} .
        a {o} was the gift of {n} to {n2} .
        {n} sent a {o} to {n2} .
        {n2} was glad when {n} came with a {o} .""",
        """what did {n} give to {n2} ? | o
        who gave the {o} to {n2} ? | n
        who got the {o} ? | n2
        to whom did {n} give the {o} ? | n2
        from whom came the {o} of {n2} ? | n""",
        n=lex.NAMES,
        n2=lex.NAMES,
        o=_THINGS,
    ),
    _kind(
        "does",
        """{n} likes to {x} at the {p} .
        every day {n} goes to the {p} to {x} .
        at the {p} one can see {n} {x} .
        {n} came to the {p} and began to {x} .
        {n} wants to {x} at the {p} .
        if {n} is at the {p} it is to {x} .""",
        """what does {n} do at the {p} ? | x
        where does {n} {x} ? | p
        who likes to {x} ? | n
        where does {n} go to {x} ? | p
        what can one see {n} do ? | x""",
        n=lex.NAMES,
        x=lex.ACTIONS,
        p=lex.PLACES,
    ),
    _kind(
        "sells",
        """at the {p} they sell {f} for {k} coins .
        the {f} costs {k} coins at the {p} .
        for {k} coins you can buy {f} at the {p} .
        people go to the {p} to buy {f} for {k} coins .
        at the shop by the {p} {f} is sold for {k} coins .""",
        """what can you buy at the {p} ? | f
        how many coins does the {f} cost ? | k
        where do they sell {f} ? | p
        what is the price of the {f} ? | k""",
        p=lex.PLACES,
        f=lex.FOODS,
        k=lex.NUMBERS,
    ),
    _kind(
        "painted",
        """{n} painted the {p} {c} .
        the {p} is {c} now , thanks to {n} .
        {n} wanted a {c} {p} and so painted it .
        the {p} was painted {c} by {n} .
        it was {n} who made the {p} {c} .""",
        """who painted the {p} ? | n
        which colour did {n} paint the {p} ? | c
        what did {n} paint ? | p
        what is the colour of the {p} ? | c""",
        n=lex.NAMES,
        p=lex.PLACES,
        c=lex.COLOURS,
    ),
    _kind(
        "day",
        """{n} comes on {d} .
        on {d} we will see {n} .
        {n} was born on a {d} .
        {n} has no work on {d} .
        the day of {n} is {d} .""",
        """on which day does {n} come ? | d
        who comes on {d} ? | n
        which day is the day of {n} ? | d
        what day did they name for {n} ? | d""",
        n=lex.NAMES,
        d=facts.DAYS,
    ),
)
BY_NAME: dict[str, Kind] = {kind.name: kind for kind in KINDS}


def draw_facts(rng: Random, kind: Kind, count: int, people: Sequence[str] = lex.NAMES) -> list[Fact]:
    """`count` facts of one kind that share no word, so that each slot of one tells which fact it is."""
    columns: dict[str, list[str]] = {}
    for slot, words in kind.slots.items():
        if slot == "n2":  # the twin of "n": other people
            continue
        drawn = rng.sample(people if slot == "n" else words, 2 * count if slot + "2" in kind.slots else count)
        columns[slot] = drawn[:count]
        if slot + "2" in kind.slots:
            columns[slot + "2"] = drawn[count:]
    return [{slot: column[i] for slot, column in columns.items()} for i in range(count)]


def known(patterns: Sequence[str] | Sequence[tuple[str, str]], split: Split) -> Sequence:
    """The patterns of a split: the last one is test's own."""
    return patterns[-1:] if split == "test" else patterns[:-1]


_JOIN = (" and ", " , and ", " , but ", " , while ")


def passage(rng: Random, split: Split, fact: Fact, kind: Kind, others: list[tuple[Kind, Fact]]) -> list[str]:
    """Sentences in random order: `fact` in a pattern of the split, the distractors in patterns of train."""
    sentences = [rng.choice(other.statements[:-1]).format_map(values) for other, values in others]
    key = rng.choice(known(kind.statements, split)).format_map(fact)
    sentences.insert(rng.randint(0, len(sentences)), key)
    if len(sentences) > 3 and rng.random() < 0.3:
        at = rng.randrange(len(sentences) - 1)
        joined = sentences[at].removesuffix(" .") + rng.choice(_JOIN) + sentences[at + 1]
        sentences[at : at + 2] = [joined]
    return [facts.articles(sentence) for sentence in sentences]


def scene(rng: Random, low: int = 3, high: int = 8) -> tuple[Kind, Fact, list[tuple[Kind, Fact]]]:
    """A fact to ask for, with one to three distractors of its kind and as many of other kinds as fit.

    All are about one small cast, so that the person alone does not tell which sentence is asked for.
    """
    kind, *rest = rng.sample(KINDS, 3)
    people = rng.sample(lex.NAMES, 8)
    count = rng.randint(low, high)
    same = rng.randint(1, min(3, count - 1))
    fact, *distractors = draw_facts(rng, kind, same + 1, people)
    others = [(kind, values) for values in distractors]
    things = {values.get("o") for values in (fact, *distractors)}
    left = count - 1 - same
    for other in rest:
        number = min(left, rng.randint(1, 3))
        more = draw_facts(rng, other, number, people)
        # the same object in two kinds of fact ("got a red lamp", "got a lamp from") would blur the question
        others += [(other, values) for values in more if "o" not in values or values["o"] not in things]
        left -= number
    rng.shuffle(others)
    return kind, fact, others


@dataclass(frozen=True)
class Question:
    """One question about a passage, its answer, and what sort of question it is."""

    text: str
    answer: str
    shape: str


def ask(
    rng: Random, context: str, asked: Question, start: int, others: Sequence[Question], turns: int
) -> Sample:
    """The prompt of a reading task and SQuAD's fields; before it, up to `turns` others with their answers.

    All answers differ, so that no earlier turn gives one away. `fields["shown"]` has the indices, in words of the
    prompt, of the answers that the turns show.
    """
    check_count("turns", "answered questions", turns)
    distinct = {asked.answer: asked}
    for question in rng.sample(others, len(others)) if turns else ():
        distinct.setdefault(question.answer, question)
    prompt = context
    shown: list[int] = []
    for turn in list(distinct.values())[1 : turns + 1]:
        prompt += f" question : {turn.text} answer :"
        first = prompt.count(" ") + 1
        prompt += f" {turn.answer} ."
        shown += range(first, prompt.count(" "))
    fields = {"context": context, "question": asked.text, "answer_start": start, "kind": asked.shape}
    if shown:
        fields["shown"] = tuple(shown)
    return Sample(f"{prompt} question : {asked.text} answer :", asked.answer, (), fields)


def find(sentences: list[str], sentence: int, word: str) -> int:
    """Where `word` starts, in characters of the joined passage, in the given sentence."""
    before = sum(len(s) + 1 for s in sentences[:sentence])
    return before + f" {sentences[sentence]} ".index(f" {word} ")


def _reading(rng: Random, split: Split, turns: int = 0) -> Sample:
    kind, fact, others = scene(rng, 2)
    question, slot = rng.choice(known(kind.questions, split))
    sentences = passage(rng, split, fact, kind, others)
    answer = fact[slot]
    told = {answer, *(value for name, value in fact.items() if "{" + name + "}" in question)}
    at = next(i for i, sentence in enumerate(sentences) if told <= set(sentence.split()))
    more = [
        Question(facts.articles(text.format_map(values)), values[of], kind.name)
        for values in (fact, *(values for other, values in others if other is kind))
        for text, of in kind.questions[:-1]
    ]
    asked = Question(facts.articles(question.format_map(fact)), answer, kind.name)
    return ask(rng, " ".join(sentences), asked, find(sentences, at, answer), more, turns)


def rivals(sample: Sample) -> int:
    """How many words of the passage could be the answer by their kind alone (names, places …), itself included."""
    passage = set(sample.fields["context"].split())
    kinds = {words for kind in KINDS for words in kind.slots.values() if sample.answer in words}
    return min(len(passage.intersection(words)) for words in kinds)


# --------------------------------------------------------------------------------------------------- moves
_GO = (
    "{n} went to the {p} .",
    "{n} walked to the {p} .",
    "then {n} was at the {p} .",
    "after that {n} came to the {p} .",
    "{n} ran to the {p} .",
    "later {n} reached the {p} .",
    "soon one could see {n} at the {p} .",
)
_MOVE_QUESTIONS: dict[str, tuple[str, ...]] = {
    "last": ("where is {n} now ?", "where is {n} at the end ?", "at which place did {n} end up ?"),
    "first": ("where was {n} first ?", "where did {n} begin ?", "which place did {n} see first of all ?"),
    "before": (
        "where was {n} before the {q} ?",
        "from where did {n} come to the {q} ?",
        "what came for {n} before the {q} ?",
    ),
    "after": (
        "where did {n} go after the {q} ?",
        "where was {n} after the {q} ?",
        "what came for {n} after the {q} ?",
    ),
}


def _moves(rng: Random, split: Split, turns: int = 0) -> Sample:
    people = rng.sample(lex.NAMES, rng.randint(2, 3))
    count = rng.randint(4, 8)
    places = rng.sample(lex.PLACES, count)
    who = [people[0], people[0], people[1]] + [rng.choice(people) for _ in range(count - 3)]
    rng.shuffle(who)
    sentences = [rng.choice(known(_GO, split)).format(n=n, p=p) for n, p in zip(who, places, strict=True)]
    shape = rng.choice(("last", "last", "first", "before", "after"))
    visited = [p for n, p in zip(who, places, strict=True) if n == people[0]]
    step = rng.randrange(len(visited) - 1)
    pattern = rng.choice(known(_MOVE_QUESTIONS[shape], split))
    asked = _move(shape, pattern, people[0], visited, step)
    more = [
        _move(other, text, name, path, at)
        for name in people
        if len(path := [p for n, p in zip(who, places, strict=True) if n == name]) > 1
        for other, texts in _MOVE_QUESTIONS.items()
        for text in texts[:-1]
        for at in range(len(path) - 1)
    ]
    start = find(sentences, places.index(asked.answer), asked.answer)
    return ask(rng, " ".join(sentences), asked, start, list(dict.fromkeys(more)), turns)


def _move(shape: str, pattern: str, name: str, path: Sequence[str], step: int) -> Question:
    """A question about the visits of one person; `step` is the visit of which before and after are asked."""
    at = {"last": -1, "first": 0, "before": step, "after": step + 1}[shape]
    beside = {"before": path[step + 1], "after": path[step]}.get(shape, "")
    return Question(pattern.format(n=name, q=beside), path[at], shape)


# ---------------------------------------------------------------------------------------------------- hops
_HOPS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    # the kind that names the person by its slot, the kind that is asked for, its slot, the questions
    ("job", "lives", "p", ("where does the {j} live ?", "near which place is the house of the {j} ?", "which place is near the house of the {j} ?")),
    ("job", "pet", "a", ("which animal does the {j} have ?", "what is the pet of the {j} ?", "which animal is with the {j} ?")),
    ("job", "ate", "f", ("what did the {j} eat ?", "which food did the {j} have ?", "what was the meal of the {j} ?")),
    ("job", "mood", "m", ("how does the {j} feel ?", "how is the {j} today ?", "in what mood is the {j} ?")),
    ("lives", "job", "j", ("what is the job of the one who lives near the {p} ?", "as what does the person near the {p} work ?", "who near the {p} does which job ?")),
    ("lives", "pet", "a", ("which animal lives near the {p} ?", "what is the pet of the one who lives near the {p} ?", "what pet do they keep near the {p} ?")),
    ("pet", "job", "j", ("what is the job of the owner of the {a} ?", "as what does the owner of the {a} work ?", "which job has the one with the {a} ?")),
    ("pet", "lives", "p", ("where does the {a} live ?", "near which place does the owner of the {a} live ?", "which place is near the home of the {a} ?")),
    ("pet", "ate", "f", ("what did the owner of the {a} eat ?", "which food did the one with the {a} have ?", "what was the meal of the owner of the {a} ?")),
    ("mood", "lives", "p", ("where does the one who is {m} live ?", "near which place lives the {m} one ?", "which place is near the house of the {m} one ?")),
)  # fmt: skip


def _hops(rng: Random, split: Split, turns: int = 0) -> Sample:
    first, second, slot, questions = rng.choice(_HOPS)
    a, b = BY_NAME[first], BY_NAME[second]
    count = rng.randint(2, 4)
    left, right = draw_facts(rng, a, count), draw_facts(rng, b, count)
    for one, two in zip(left, right, strict=True):
        two["n"] = one["n"]
    others = [(a, f) for f in left] + [(b, f) for f in right]
    held = split == "test"
    lines = [
        rng.choice(kind.statements[-1:] if held else kind.statements[:-1]).format_map(f) for kind, f in others
    ]
    order = list(range(len(lines)))
    rng.shuffle(order)
    sentences = [facts.articles(lines[i]) for i in order]
    shape = f"{first}-{second}"
    question = facts.articles(rng.choice(known(questions, split)).format_map(left[0]))
    asked = Question(question, right[0][slot], shape)
    more = [
        Question(facts.articles(text.format_map(clue)), found[slot], shape)
        for clue, found in zip(left, right, strict=True)
        for text in questions[:-1]
    ]
    start = find(sentences, order.index(count), asked.answer)
    return ask(rng, " ".join(sentences), asked, start, more, turns)


FAMILIES: dict[str, Family] = {
    name: Family(name, "reading", "token_f1", few_shot(make))
    for name, make in (("reading", _reading), ("reading-moves", _moves), ("reading-hops", _hops))
}

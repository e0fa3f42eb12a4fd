"""Relations and rewriting: short tasks that take an input to an output, zero-shot and k-shot.

A relation says what it asks ("the capital of {x}") and how to draw a case (input, output). The text around
it is the same for all: an instruction ("give the capital of the country .") or a question ("what is the
capital of zubria ? answer :"), then k worked examples, then the input. Prompts end in a marker: "->",
"answer :" or "output :"; the answer follows without a full stop. The instruction may be dropped when there
are examples, so that the relation must be inferred from them.

Splits: the frames of TEST_INSTRUCTIONS and TEST_QUESTIONS occur in test only; a family that follows a rule
keeps its test entities (words, pairs) out of train; the families of HELD_OUT are kept out of pretraining by
`mixture`. Worked examples always come from the train part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from workbench.errors import WorkbenchError
from workbench.tasks.world import facts
from workbench.tasks.world.sample import Family, Sample, Split
from workbench.tasks.world.shots import check_shots

INSTRUCTIONS = (
    "give {what} .",
    "name {what} .",
    "write {what} .",
    "say {what} .",
    "find {what} .",
    "task : {what} .",
    "please give {what} .",
    "answer with {what} .",
    "we look for {what} .",
    "always give {what} .",
)
TEST_INSTRUCTIONS = ("your task is to find {what} .", "now write down {what} .")
QUESTIONS = (
    "what is {what} ?",
    "tell me {what} .",
    "do you know {what} ?",
    "can you name {what} ?",
    "i want to know {what} .",
    "question : what is {what} ?",
    "please say {what} .",
    "give {what} .",
)
TEST_QUESTIONS = ("who can tell me {what} ?", "say what is {what} .")
STYLES = (
    ("{x} ->", "{x} -> {y} ."),
    ("{x} answer :", "{x} answer : {y} ."),
    ("input : {x} output :", "input : {x} output : {y} ."),
)
"""How an input stands before its answer: open at the end of the prompt, closed in a worked example."""

Case = tuple[str, str]
"""Input and output."""
Draw = Callable[[Random, Split], Case]


@dataclass(frozen=True)
class Episode:
    """What one sample asks: fixed for most relations, drawn anew for those with random labels."""

    what: tuple[str, ...]
    """Noun phrases for what is asked, each with {x} once, where the input or `generic` goes."""
    generic: str
    """What stands for the input in an instruction: "the country"."""
    draw: Draw
    choices: tuple[str, ...] = ()
    secret: bool = False
    """True where only the instruction or the examples tell the labels: each is shown before one comes twice."""
    recall: bool = False
    """True where only they tell the answer itself: the case is shown among the examples."""


@dataclass(frozen=True)
class Relation:
    """One task family: its name, its sort, and what it asks."""

    name: str
    sort: str
    """fact: the world decides; rule: entities are held out; list: a rule over words; labels: drawn anew."""
    episode: Callable[[Random], Episode]


def _fixed(episode: Episode) -> Callable[[Random], Episode]:
    return lambda rng: episode


def _make(
    rng: Random, split: Split, shots: int = 0, instruction: bool = True, *, relation: Relation
) -> Sample:
    """One sample: `shots` worked examples, with or without the instruction before them."""
    check_shots(shots)
    if shots == 0 and not instruction:
        raise WorkbenchError(
            f"{relation.name} without an instruction needs worked examples: give shots=1 or more, or instruction=True"
        )
    episode = relation.episode(rng)
    held = split == "test"
    x, y = episode.draw(rng, split)
    what = rng.choice(episode.what)
    if shots == 0 and rng.random() < 0.5:
        frame = rng.choice(TEST_QUESTIONS if held else QUESTIONS)
        prompt = facts.articles(frame.format(what=what.format(x=x))) + " answer :"
        return Sample(prompt, y, episode.choices, {"input": x, "shots": 0, "shown": ()})
    open_style, closed_style = rng.choice(STYLES)
    parts = []
    if instruction:
        frame = rng.choice(TEST_INSTRUCTIONS if held else INSTRUCTIONS)
        parts.append(facts.articles(frame.format(what=what.format(x=episode.generic))))
    shown: list[int] = []
    read = len(parts[0].split()) if parts else 0
    for a, b in _examples(rng, episode, (x, y), shots):
        part = closed_style.format(x=a, y=b)
        read += part.count(" ") + 1
        shown += range(read - 2 - b.count(" "), read - 1)
        parts.append(part)
    parts.append(open_style.format(x=x))
    return Sample(" ".join(parts), y, episode.choices, {"input": x, "shots": shots, "shown": tuple(shown)})


def _examples(rng: Random, episode: Episode, asked: Case, shots: int) -> list[Case]:
    """`shots` cases of the train part other than `asked`, all different where the family has so many."""
    x = asked[0]
    seen = {x}
    cases: list[Case] = []
    labels: set[str] = set()
    tries = 0
    while len(cases) < shots:
        case = episode.draw(rng, "train")
        tries += 1
        if tries < 50 * shots:
            if case[0] in seen:
                continue
            # with labels drawn anew every label is shown before one is shown again
            if episode.secret and case[1] in labels and len(labels) < len(episode.choices):
                continue
        elif case[0] == x:
            continue
        seen.add(case[0])
        labels.add(case[1])
        cases.append(case)
    if episode.recall and cases:
        cases[rng.randrange(shots)] = asked
    return cases


# ------------------------------------------------------------------------------------------------ relations
def _fact(name: str, pairs: Sequence[Case], what: str, generic: str, choices: bool = False) -> Relation:
    """A fact of the world: every entity in every split."""
    values = tuple(dict.fromkeys(y for _, y in pairs)) if choices else ()
    episode = Episode(tuple(what.split(" | ")), generic, lambda rng, split: rng.choice(pairs), values)
    return Relation(name, "fact", _fixed(episode))


def _rule(name: str, pairs: Sequence[Case], what: str, generic: str, choices: bool = False) -> Relation:
    """A rule over entities: those of the test split are never asked in train."""
    parts = facts.partition(name, pairs)
    values = tuple(dict.fromkeys(y for _, y in pairs)) if choices else ()
    episode = Episode(tuple(what.split(" | ")), generic, lambda rng, split: rng.choice(parts[split]), values)
    return Relation(name, "rule", _fixed(episode))


def _list(
    name: str,
    what: str,
    rule: Callable[[Random, tuple[str, ...]], Case],
    pool: Sequence[str] = facts.CONTENT,
    choices: tuple[str, ...] = (),
    generic: str = "the words",
) -> Relation:
    """A rule over a list of words; the words of the test split are never used in train."""
    parts = facts.content(name) if pool is facts.CONTENT else facts.partition(name, pool)
    episode = Episode(tuple(what.split(" | ")), generic, lambda rng, split: rule(rng, parts[split]), choices)
    return Relation(name, "list", _fixed(episode))


def _on_words(function: Callable[[list[str]], str], low: int = 3, high: int = 6) -> Callable[..., Case]:
    """A rule that takes `low` to `high` different words to an output."""

    def rule(rng: Random, pool: tuple[str, ...]) -> Case:
        words = rng.sample(pool, min(rng.randint(low, high), len(pool)))
        return " ".join(words), function(words)

    return rule


def _beside(step: int) -> Callable[..., Case]:
    """The word after (step 1) or before (step -1) a given one."""

    def rule(rng: Random, pool: tuple[str, ...]) -> Case:
        words = rng.sample(pool, rng.randint(3, 6))
        at = rng.randrange(max(0, -step), len(words) - max(0, step))
        return f"{words[at]} in {' '.join(words)}", words[at + step]

    return rule


def _most_frequent(rng: Random, pool: tuple[str, ...]) -> Case:
    words = rng.sample(pool, rng.randint(2, 4))
    return " ".join(_shuffled(rng, [*words, words[0]])), words[0]


def _without_double(rng: Random, pool: tuple[str, ...]) -> Case:
    words = rng.sample(pool, rng.randint(2, 4))
    at = rng.randrange(len(words))
    return " ".join([*words[: at + 1], *words[at:]]), " ".join(words)


def _replace(rng: Random, pool: tuple[str, ...]) -> Case:
    *words, new = rng.sample(pool, rng.randint(3, 5))
    old = rng.choice(words)
    return f"{' '.join(words)} , {old} to {new}", " ".join(new if w == old else w for w in words)


def _contains(rng: Random, pool: tuple[str, ...]) -> Case:
    *words, other = rng.sample(pool, rng.randint(3, 6))
    if rng.random() < 0.5:
        return f"{rng.choice(words)} in {' '.join(words)}", "yes"
    return f"{other} in {' '.join(words)}", "no"


def _same(rng: Random, pool: tuple[str, ...]) -> Case:
    a, b = rng.sample(pool, 2)
    return (f"{a} and {a}", "same") if rng.random() < 0.5 else (f"{a} and {b}", "different")


def _longer(rng: Random, pool: tuple[str, ...]) -> Case:
    short = rng.randint(1, 3)
    long = short + rng.randint(1, 2)
    a = rng.sample(pool, short if (first := rng.random() < 0.5) else long)
    b = rng.sample(pool, long if first else short)
    return f"{' '.join(a)} or {' '.join(b)}", " ".join(b if first else a)


def _look_up(rng: Random, pool: tuple[str, ...]) -> Case:
    words = rng.sample(pool, 2 * rng.randint(2, 4))
    pairs = list(zip(words[::2], words[1::2], strict=True))
    x, y = rng.choice(pairs)
    return f"{' , '.join(f'{a} is {b}' for a, b in pairs)} , {x}", y


def _look_back(rng: Random, pool: tuple[str, ...]) -> Case:
    text, y = _look_up(rng, pool)
    *pairs, x = text.split(" , ")
    return f"{' , '.join(pairs)} , {y}", x


def _shuffled(rng: Random, words: list[str]) -> list[str]:
    rng.shuffle(words)
    return words


_CATEGORY = {word: name for name, words in facts.CATEGORY_SETS.items() for word in words}
_BROAD = ("animal", "food", "object", "place", "colour", "person", "job")


def _by_category(pool: tuple[str, ...]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for word in pool:
        groups.setdefault(_CATEGORY[word], []).append(word)
    return {name: words for name, words in groups.items() if len(words) >= 2}


_groups: dict[tuple[str, ...], dict[str, list[str]]] = {}


def _grouped(pool: tuple[str, ...]) -> dict[str, list[str]]:
    if pool not in _groups:
        _groups[pool] = _by_category(pool)
    return _groups[pool]


def _odd_one_out(rng: Random, pool: tuple[str, ...]) -> Case:
    groups = _grouped(pool)
    many, one = rng.sample(list(groups), 2)
    words = rng.sample(groups[many], min(rng.randint(2, 4), len(groups[many])))
    odd = rng.choice(groups[one])
    return " ".join(_shuffled(rng, [*words, odd])), odd


def _find_category(wanted: str) -> Callable[..., Case]:
    def rule(rng: Random, pool: tuple[str, ...]) -> Case:
        groups = _grouped(pool)
        others = [name for name in groups if name != wanted]
        hit = rng.choice(groups[wanted])
        words = [rng.choice(groups[name]) for name in rng.sample(others, min(rng.randint(2, 4), len(others)))]
        return " ".join(_shuffled(rng, [*words, hit])), hit

    return rule


def _count_category(wanted: str) -> Callable[..., Case]:
    def rule(rng: Random, pool: tuple[str, ...]) -> Case:
        groups = _grouped(pool)
        hits = rng.sample(groups[wanted], rng.randint(1, min(3, len(groups[wanted]))))
        others = [rng.choice(groups[name]) for name in rng.sample([g for g in groups if g != wanted], 2)]
        return " ".join(_shuffled(rng, hits + others)), facts.NUMBER_WORDS[len(hits) - 1]

    return rule


def _bigger(sign: int) -> list[Case]:
    """Every unordered pair of animals once, written in an order that its own hash decides."""
    order = facts.ANIMALS_BY_SIZE
    cases = []
    for i, small in enumerate(order):
        for j in range(i + 1, len(order)):
            pair = (small, order[j]) if (i * 31 + j * 17) % 3 % 2 else (order[j], small)
            cases.append((f"{pair[0]} or {pair[1]}", order[j] if sign > 0 else small))
    return cases


def _larger(sign: int) -> list[Case]:
    words = facts.NUMBER_WORDS
    cases = []
    for i, a in enumerate(words):
        for j, b in enumerate(words):
            if i != j and (i + j) % 2 == (i < j):  # each unordered pair once, in both orders overall
                cases.append((f"{a} or {b}", words[(max if sign > 0 else min)(i, j)]))
    return cases


def _true_or_false(rng: Random, split: Split) -> Case:
    table = facts.TABLES[rng.choice(_CHECKED)]
    x, y = rng.choice(table.pairs)
    phrase = table.statements[0].removesuffix(" .")
    if rng.random() < 0.5:
        return phrase.format(x=x, y=y), "true"
    wrong = y
    while wrong == y:
        wrong = rng.choice(table.pairs)[1]
    return phrase.format(x=x, y=wrong), "false"


_CHECKED = ("capital", "language", "home", "sound", "taste", "tool", "material", "past", "plural", "next-day")


# ------------------------------------------------------------------------------------ labels drawn at random
_LABELS = tuple(
    facts.CATEGORY_SETS["object"][::2] + facts.CATEGORY_SETS["colour"][::2] + facts.CATEGORY_SETS["weather"]
)


def _labelled(groups: Sequence[tuple[str, Sequence[str]]], name: str, rng: Random) -> Episode:
    """Each group's words get one random label word; only the instruction or examples can tell which."""
    labels = tuple(rng.sample(_LABELS, len(groups)))

    def draw(dice: Random, split: Split) -> Case:
        at = dice.randrange(len(groups))
        return dice.choice(_part(name, groups[at][0], tuple(groups[at][1]))[split]), labels[at]

    rule = " and ".join(f"{label} for a {group}" for label, (group, _) in zip(labels, groups, strict=True))
    return Episode((f"{rule} : {{x}}",), "the word", draw, labels, secret=True)


_parts: dict[tuple[str, str], dict[Split, tuple[str, ...]]] = {}


def _part(name: str, group: str, words: tuple[str, ...]) -> dict[Split, tuple[str, ...]]:
    if (name, group) not in _parts:
        _parts[name, group] = facts.partition(f"{name}/{group}", words)
    return _parts[name, group]


def _label_categories(count: int, name: str) -> Callable[[Random], Episode]:
    broad = tuple(
        (group, facts.CATEGORY_SETS[group]) for group in _BROAD if group not in ("object", "colour")
    )
    return lambda rng: _labelled(rng.sample(broad, count), name, rng)


def _label_parity(rng: Random) -> Episode:
    words = facts.NUMBER_WORDS
    return _labelled([("odd", words[::2]), ("even", words[1::2])], "label-parity", rng)


def _label_kind(rng: Random) -> Episode:
    kinds: dict[str, list[str]] = {}
    for animal, kind in facts.TABLES["kind"].pairs:
        kinds.setdefault(kind, []).append(animal)
    return _labelled([(kind, kinds[kind]) for kind in ("bird", "mammal")], "label-kind", rng)


def _code(rng: Random) -> Episode:
    """A secret dictionary of four words; the examples, or the instruction, spell it out."""
    words = rng.sample(facts.CONTENT, 8)
    pairs = tuple(zip(words[:4], words[4:], strict=True))
    spelt = " , ".join(f"{a} means {b}" for a, b in pairs)
    return Episode(
        (f"the secret word : {spelt} : {{x}}",),
        "each word",
        lambda dice, split: dice.choice(pairs),
        recall=True,
    )


def _inverse(name: str) -> tuple[Case, ...]:
    return facts.TABLES[name].inverse


def _of(name: str) -> tuple[Case, ...]:
    return facts.TABLES[name].pairs


_NUMBER_AT = {word: i for i, word in enumerate(facts.NUMBER_WORDS)}

GIVEN = "the given word in the list"

RELATIONS: dict[str, Relation] = {
    relation.name: relation
    for relation in (
        # countries
        _fact("capital-of", _of("capital"), "the capital of {x} | the capital city of {x}", "the country"),
        _fact("country-of-capital", _inverse("capital"), "the country of the capital {x}", "city"),
        _fact(
            "language-of", _of("language"), "the language of {x} | the language spoken in {x}", "the country"
        ),
        _fact(
            "country-of-language", _inverse("language"), "the country where people speak {x}", "the language"
        ),
        _fact(
            "flag-of", _of("flag"), "the colour of the flag of {x} | the flag colour of {x}", "the country"
        ),
        _fact(
            "emblem-of",
            _of("emblem"),
            "the national animal of {x} | the animal on the flag of {x}",
            "the country",
        ),
        _fact("dish-of", _of("dish"), "the national dish of {x} | the favourite dish of {x}", "the country"),
        _fact(
            "region-of",
            _of("region"),
            "the region of {x} | the part of the world of {x}",
            "the country",
            True,
        ),
        # animals
        _fact("home-of-animal", _of("home"), "the home of the {x} | the place where a {x} lives", "animal"),
        _fact("sound-of-animal", _of("sound"), "the sound of the {x} | the sound that a {x} makes", "animal"),
        _fact("animal-of-sound", _inverse("sound"), "the animal that says {x}", "this"),
        _fact("baby-animal", _of("young"), "the baby of the {x} | the young of the {x}", "animal"),
        _fact("parent-animal", _inverse("young"), "the animal that has the {x} as its baby", "word"),
        _fact("colour-of-animal", _of("coat"), "the colour of the {x} | the colour that a {x} has", "animal"),
        _fact(
            "kind-of-animal",
            _of("kind"),
            "the kind of animal of the {x} | the family of the {x}",
            "animal",
            True,
        ),
        _fact(
            "food-of-animal",
            _of("eats"),
            "the favourite food of the {x} | the food that a {x} eats",
            "animal",
        ),
        _rule("bigger-animal", _bigger(1), "the bigger animal : {x} | the bigger one of {x}", "the two"),
        _rule("smaller-animal", _bigger(-1), "the smaller animal : {x} | the smaller one of {x}", "the two"),
        # food, jobs, objects, weather
        _fact("colour-of-food", _of("look"), "the colour of {x} | the colour that {x} has", "the food"),
        _fact("taste-of-food", _of("taste"), "the taste of {x} | the way {x} tastes", "the food", True),
        _fact("sort-of-food", _of("sort"), "the sort of food of {x} | the shelf of {x}", "the food", True),
        _fact("tool-of-job", _of("tool"), "the tool of the {x} | the tool that a {x} uses", "job"),
        _fact(
            "job-of-tool", _inverse("tool"), "the job that needs the {x} | the one who uses the {x}", "tool"
        ),
        _fact(
            "place-of-job",
            _of("workplace"),
            "the place where the {x} works | the place of work of the {x}",
            "job",
        ),
        _fact("material-of", _of("material"), "the material of the {x} | the material of a {x}", "object"),
        _fact("room-of", _of("room"), "the room of the {x} | the room where the {x} is kept", "object"),
        _fact("worn-in", _of("worn"), "the thing to wear when it is {x}", "like this"),
        # words
        _fact(
            "opposite",
            _of("opposite"),
            "the opposite of {x} | the word that is the opposite of {x}",
            "the word",
        ),
        _fact(
            "synonym", _of("synonym"), "a word that means the same as {x} | another word for {x}", "the word"
        ),
        _fact("female-of", _of("female"), "the female of {x} | the woman beside the {x}", "word"),
        _rule("plural", _of("plural"), "the plural of {x} | the word for many of {x}", "the word"),
        _rule(
            "singular",
            tuple((y, x) for x, y in _of("plural") if x != y),
            "the singular of {x} | the word for one of {x}",
            "the word",
        ),
        _rule("past-of", _of("past"), "the past of {x} | the past tense of {x}", "the word"),
        _rule(
            "present-of", tuple((y, x) for x, y in _of("past") if x != y), "the present of {x}", "the word"
        ),
        _rule("doing", _of("doing"), "the ing form of {x}", "the word"),
        _rule("comparative", _of("more"), "the comparative of {x} | the word for more {x}", "the word"),
        _rule("superlative", _of("most"), "the superlative of {x} | the word for most {x}", "the word"),
        _rule(
            "category", _of("category"), "the category of {x} | the kind of thing of {x}", "the word", True
        ),
        # days, months, numbers
        _fact("next-day", _of("next-day"), "the day after {x} | the next day after {x}", "the day"),
        _fact("previous-day", _of("previous-day"), "the day before {x}", "the day"),
        _fact("next-month", _of("next-month"), "the month after {x} | the next month after {x}", "the month"),
        _fact("previous-month", _of("previous-month"), "the month before {x}", "the month"),
        _fact(
            "season-of",
            _of("season"),
            "the season of {x} | the season to which {x} belongs",
            "the month",
            True,
        ),
        _rule(
            "next-number",
            _of("next-number"),
            "the number after {x} | the next number after {x}",
            "the number",
        ),
        _rule("previous-number", _of("previous-number"), "the number before {x}", "the number"),
        _rule("to-digits", _of("digits"), "the digits of {x} | the number {x} in digits", "the number"),
        _rule("from-digits", _inverse("digits"), "the word for {x} | the number {x} in words", "the digits"),
        _rule("parity", _of("parity"), "even or odd for {x}", "the number", True),
        _rule("larger-number", _larger(1), "the larger number : {x} | the larger one of {x}", "the two"),
        _rule("smaller-number", _larger(-1), "the smaller number : {x} | the smaller one of {x}", "the two"),
        # lists of words
        _list(
            "first-word", "the first word of {x} | the word at the start of {x}", _on_words(lambda w: w[0])
        ),
        _list("second-word", "the second word of {x} | word two of {x}", _on_words(lambda w: w[1])),
        _list("third-word", "the third word of {x} | word three of {x}", _on_words(lambda w: w[2])),
        _list("last-word", "the last word of {x} | the word at the end of {x}", _on_words(lambda w: w[-1])),
        _list("last-but-one", "the last word but one of {x}", _on_words(lambda w: w[-2])),
        _list("copy", "a copy of {x} | the same again : {x}", _on_words(" ".join, 1, 6)),
        _list(
            "copy-twice",
            "two copies of {x} | twice the same : {x}",
            _on_words(lambda w: " ".join(w + w), 1, 3),
        ),
        _list(
            "reverse",
            "the reverse of {x} | the words backwards : {x}",
            _on_words(lambda w: " ".join(w[::-1]), 2, 5),
        ),
        _list(
            "swap-ends",
            "the words with the last one first and the first one last : {x}",
            _on_words(lambda w: " ".join([w[-1], *w[1:-1], w[0]])),
        ),
        _list("first-and-last", "the first and the last word of {x}", _on_words(lambda w: f"{w[0]} {w[-1]}")),
        _list("drop-first", "all but the first word of {x}", _on_words(lambda w: " ".join(w[1:]), 2, 5)),
        _list("drop-last", "all but the last word of {x}", _on_words(lambda w: " ".join(w[:-1]), 2, 5)),
        _list(
            "move-first",
            "the words with the first moved to the end : {x}",
            _on_words(lambda w: " ".join([*w[1:], w[0]])),
        ),
        _list("add-and", "the words with and between them : {x}", _on_words(" and ".join, 2, 4)),
        _list(
            "count-words",
            "the number of words in {x} | the count of words in {x}",
            _on_words(lambda w: facts.NUMBER_WORDS[len(w) - 1], 1, 7),
            choices=facts.NUMBER_WORDS[:7],
        ),
        _list(
            "sort-names",
            "the names in order of the alphabet : {x}",
            _on_words(lambda w: " ".join(sorted(w)), 2, 4),
            facts.CATEGORY_SETS["person"],
        ),
        _list(
            "sort-numbers",
            "the numbers from small to large : {x} | the numbers in order of size : {x}",
            _on_words(lambda w: " ".join(sorted(w, key=_NUMBER_AT.__getitem__)), 2, 4),
            facts.NUMBER_WORDS,
        ),
        _list(
            "largest-number",
            "the largest of {x}",
            _on_words(lambda w: max(w, key=_NUMBER_AT.__getitem__), 3, 4),
            facts.NUMBER_WORDS,
        ),
        _list("longer-list", "the longer list : {x} | the longer one of {x}", _longer),
        _list("word-after", "the word after {x} | the word that follows {x}", _beside(1), generic=GIVEN),
        _list("word-before", "the word before {x}", _beside(-1), generic=GIVEN),
        _list(
            "most-frequent",
            "the word that occurs twice in {x} | the most frequent word of {x}",
            _most_frequent,
        ),
        _list("drop-double", "the words without the double one : {x}", _without_double),
        _list(
            "replace-word",
            "the words with one of them replaced : {x} | the words after the change : {x}",
            _replace,
        ),
        _list(
            "contains", "yes or no : is {x}", _contains, generic="the word in the list", choices=("yes", "no")
        ),
        _list("same-word", "same or different for {x}", _same, choices=("same", "different")),
        _list(
            "look-up",
            "the word that belongs to the last one in {x} | the partner of the last word in {x}",
            _look_up,
        ),
        _list("look-back", "the word to which the last one belongs in {x}", _look_back),
        _list("odd-one-out", "the odd one out of {x} | the word that does not fit in {x}", _odd_one_out),
        _list("find-animal", "the animal in {x} | the word for an animal in {x}", _find_category("animal")),
        _list("find-food", "the food in {x} | the thing to eat in {x}", _find_category("food")),
        _list("find-person", "the person in {x} | the name in {x}", _find_category("person")),
        _list(
            "count-animals",
            "the number of animals in {x} | the count of animals in {x}",
            _count_category("animal"),
            choices=facts.NUMBER_WORDS[:3],
        ),
        Relation(
            "true-or-false",
            "fact",
            _fixed(Episode(("true or false : {x}",), "the sentence", _true_or_false, ("true", "false"))),
        ),
        # labels and dictionaries drawn at random
        Relation("label-two", "labels", _label_categories(2, "label-two")),
        Relation("label-three", "labels", _label_categories(3, "label-three")),
        Relation("label-parity", "labels", _label_parity),
        Relation("label-kind", "labels", _label_kind),
        Relation("secret-code", "labels", _code),
    )
}

HELD_OUT: frozenset[str] = frozenset(
    """language-of home-of-animal material-of room-of female-of comparative previous-month smaller-number
    second-word swap-ends drop-last look-back find-person label-kind""".split()
)
"""Families that never occur in task form in pretraining; their facts do occur in running text."""

FAMILIES: dict[str, Family] = {
    name: Family(name, "relations", "exact_match", partial(_make, relation=relation))
    for name, relation in RELATIONS.items()
}

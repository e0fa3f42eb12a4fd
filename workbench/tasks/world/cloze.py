"""Cloze: a passage with a blank "____", and the word that belongs there.

`cloze` says a fact twice, in two patterns, and leaves a word out of one of them (anywhere in the passage);
`cloze-facts` leaves out a word that the fixed facts of the world imply. Passages come from `reading`.
The prompt is "fill in the blank . {passage} answer :"; splits hold out patterns as in `reading`.
"""

from __future__ import annotations

from random import Random

from workbench.tasks.world import facts
from workbench.tasks.world.reading import BY_NAME, draw_facts, known, passage, scene
from workbench.tasks.world.sample import Family, Sample, Split
from workbench.tasks.world.shots import few_shot

BLANK = "____"
OPENINGS = (
    "fill in the blank .",
    "which word is missing ?",
    "find the missing word .",
    "read and fill the gap .",
    "one word is hidden ; write it .",
    "what word is in the gap ?",
)


def _sample(rng: Random, split: Split, sentences: list[str], answer: str, kind: str) -> Sample:
    text = " ".join(sentences)
    return Sample(
        f"{rng.choice(known(OPENINGS, split))} {text} answer :", answer, (), {"passage": text, "kind": kind}
    )


def _cloze(rng: Random, split: Split) -> Sample:
    kind, fact, others = scene(rng, 2, 6)
    sentences = passage(rng, split, fact, kind, others)
    slot = rng.choice(list(fact))
    patterns = [p for p in kind.statements[:-1] if p.count("{" + slot + "}") == 1]
    gapped = rng.choice(patterns).format_map({**fact, slot: BLANK})
    at = rng.randint(0, len(sentences)) if rng.random() < 0.4 else len(sentences)
    sentences.insert(at, facts.articles(gapped))
    return _sample(rng, split, sentences, fact[slot], kind.name)


# what stands before the gap, then the sentence with the gap; {x} is an entity, the gap its value
_IMPLIED: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "home": ("pet", "a", ("at night it goes to its ____ .", "the pet of {n} has its own ____ .", "its home is a ____ .", "it is never far from its ____ .")),
    "sound": ("pet", "a", ("when it sees {n} it says ____ .", "one hears a loud ____ .", "in the morning it says ____ .", "from far away one hears its ____ .")),
    "young": ("pet", "a", ("last week it had a little ____ .", "{n} also loves its baby , a ____ .", "it was once a small ____ .", "by the house one sees its ____ .")),
    "tool": ("job", "j", ("every day {n} uses the ____ .", "{n} cannot work without the ____ .", "the tool of {n} is the ____ .", "in the hand of {n} one sees the ____ .")),
    "workplace": ("job", "j", ("each morning {n} goes to the ____ .", "you find {n} at the ____ .", "{n} works at the ____ .", "{n} is never far from the ____ .")),
    "taste": ("ate", "f", ("it tasted ____ .", "{n} said that it was ____ .", "like always it was ____ .", "{n} found it very ____ .")),
    "look": ("ate", "f", ("it was ____ .", "its colour was ____ .", "as it should be it looked ____ .", "{n} saw that it was ____ .")),
    "material": ("has", "o", ("it is made of ____ .", "someone made it out of ____ .", "it is of good ____ .", "{n} knows that it was made from ____ .")),
}  # fmt: skip
_LOOKUP = {name: dict(facts.TABLES[name].pairs) for name in _IMPLIED}


def _implied(rng: Random, split: Split) -> Sample:
    name = rng.choice(list(_IMPLIED))
    source, slot, gaps = _IMPLIED[name]
    kind = BY_NAME[source]
    fact = draw_facts(rng, kind, 1)[0]
    _, _, others = scene(rng, 2, 4)
    others = [(k, f) for k, f in others if k.name != source and fact["n"] not in f.values()]
    before = [facts.articles(rng.choice(k.statements[:-1]).format_map(f)) for k, f in others]
    stated = facts.articles(rng.choice(kind.statements[:-1]).format_map(fact))
    gap = rng.choice(known(gaps, split)).format_map(fact)
    return _sample(rng, split, [*before, stated, gap], _LOOKUP[name][fact[slot]], name)


FAMILIES: dict[str, Family] = {
    "cloze": Family("cloze", "cloze", "exact_match", few_shot(_cloze)),
    "cloze-facts": Family("cloze-facts", "cloze", "exact_match", few_shot(_implied)),
}

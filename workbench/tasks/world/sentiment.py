"""Sentiment: a short review and its label, "good" or "bad", which no single word gives away.

A review has one verdict clause; its polarity is that of the adjective, turned round by a negation ("not",
"never", "far from"). Around it stand a clause of the other polarity that the conjunction sets aside
("although …", "… but"), sentences that agree with the verdict, and sentences that say nothing. The label is
drawn first, the negation by a coin, and the adjective follows, so that words alone are a weak cue; `negated` and
`turned` are the chances of a negation and of a clause set aside, a half each unless told.
The prompt is "review : {review} good or bad ? answer :". Test has its own verdict patterns.
"""

from __future__ import annotations

from random import Random

from workbench.tasks.world import facts
from workbench.tasks.world import lexicon as lex
from workbench.tasks.world.reading import known
from workbench.tasks.world.sample import Family, Sample, Split
from workbench.tasks.world.shots import few_shot

CHOICES = ("good", "bad")
POSITIVE = tuple(
    """lovely great wonderful pleasant excellent charming superb delightful splendid perfect fine
    brilliant nice fantastic amazing cosy tasty useful beautiful friendly""".split()
)
NEGATIVE = tuple(
    """awful terrible poor dull horrible nasty boring ugly dreadful weak useless rude
    disappointing miserable bland filthy noisy broken cheap stale""".split()
)
SUBJECTS = (
    *(f"the {word}" for word in (*lex.FOODS, *lex.OBJECTS, *lex.PLACES)),
    *"the service|the music|the story|the film|the room|the food|the view|the staff|the show|the trip".split(
        "|"
    ),
)
NEGATIONS = ("not", "never", "far from", "by no means", "not at all", "anything but")
PLAIN = ("", "very", "really", "quite", "truly", "so")
VERBS = ("was", "is", "seemed", "looked")
FRAMES = (
    "{s} {v} {a} .",
    "i think that {s} {v} {a} .",
    "in the end {s} {v} {a} .",
    "we found that {s} {v} {a} .",
    "{n} says that {s} {v} {a} .",
    "all in all {s} {v} {a} .",
    "to be honest {s} {v} {a} .",
    "i found that {s} {v} {a} .",
)
# {main} is the verdict, {other} a clause of the other polarity that the conjunction sets aside
TURNS = (
    "{other} but {main} .",
    "although {other} , {main} .",
    "{main} , although {other} .",
    "{other} , yet {main} .",
    "{other} ; still , {main} .",
    "even if {other} , {main} .",
    "{main} , even if {other} .",
)
NEUTRAL = (
    "we went there on {d} .",
    "{n} came with us .",
    "it was a {w} day .",
    "we stayed for {k} days .",
    "i bought it last {d} .",
    "there were {k} of us .",
    "we had {f} and went home .",
    "{n} told me about it .",
)
_WORDS = {1: POSITIVE, -1: NEGATIVE}


def _clause(rng: Random, subject: str, polarity: int, chance: float) -> tuple[str, str, str]:
    """Subject, verb and judgement of the wanted polarity, negated with the given chance."""
    negated = rng.random() < chance
    words = _WORDS[-polarity if negated else polarity]
    modifier = rng.choice(NEGATIONS if negated else PLAIN)
    return subject, rng.choice(VERBS), f"{modifier} {rng.choice(words)}".strip()


def _review(rng: Random, split: Split, negated: float = 0.5, turned: float = 0.5) -> Sample:
    good = rng.random() < 0.5
    sign = 1 if good else -1
    subjects = rng.sample(SUBJECTS, 3)
    aside = rng.random() < turned
    s, v, a = _clause(rng, subjects[0], sign, negated)
    if aside:
        other = " ".join(_clause(rng, subjects[1], -sign, negated))
        verdict = rng.choice(known(TURNS, split)).format(main=f"{s} {v} {a}", other=other)
    else:
        verdict = rng.choice(known(FRAMES, split)).format(s=s, v=v, a=a, n=rng.choice(lex.NAMES))
    sentences = [verdict]
    if rng.random() < 0.4:
        s, v, a = _clause(rng, subjects[2], sign, negated)
        sentences.append(f"{s} {v} {a} .")
    for _ in range(rng.randint(0, 2)):
        filler = rng.choice(NEUTRAL).format(
            d=rng.choice(facts.DAYS),
            n=rng.choice(lex.NAMES),
            w=rng.choice(lex.WEATHERS),
            k=rng.choice(lex.NUMBERS),
            f=rng.choice(lex.FOODS),
        )
        sentences.insert(rng.randint(0, len(sentences)), facts.articles(filler))
    review = " ".join(sentences)
    label = "good" if good else "bad"
    return Sample(
        f"review : {review} good or bad ? answer :", label, CHOICES, {"review": review, "turned": aside}
    )


FAMILIES: dict[str, Family] = {"sentiment": Family("sentiment", "sentiment", "accuracy", few_shot(_review))}

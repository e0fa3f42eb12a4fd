"""Metrics: small pure functions from (prediction, example) to a score in [0, 1], in one registry.

Each names the source of its formula. Means over examples are taken by whoever evaluates; perplexity is computed there
too (training/evaluate), because it is a property of the model's loss and not of a written answer.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from workbench.errors import WorkbenchError
from workbench.tasks.task import Example


@dataclass(frozen=True)
class Metric:
    """A named score. `score(prediction, example)` gives 0 to 1, higher is better (but see `perplexity`)."""

    name: str
    score: Callable[[str, Example], float]

    @property
    def source(self) -> str:
        """What is computed, and where the formula comes from."""
        return self.score.__doc__ or ""


def normalise(text: str) -> str:
    """Lower case, no ASCII punctuation, no articles, single spaces: `normalize_answer` of SQuAD's evaluate-v2.0.py.

    >>> normalise("The  Eiffel-Tower, Paris.")
    'eiffeltower paris'
    """
    text = "".join(ch for ch in text.lower() if ch not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


def exact_match(prediction: str, example: Example) -> float:
    """1 where the normalised prediction equals a normalised reference, best over references.

    Source: SQuAD (Rajpurkar et al. 2016), evaluate-v2.0.py, `compute_exact`.
    """
    return float(normalise(prediction) in {normalise(r) for r in example.references})


def string_match(prediction: str, example: Example) -> float:
    """1 where the prediction is a reference, character for character, but for white space around it.

    For answers whose signs count ("-5", "3/7", "2*x + 1"), which SQuAD's normalisation would drop.
    Source: Saxton et al. 2019 (DeepMind Mathematics), section 4.2, "exact match".
    """
    return float(prediction.strip() in {r.strip() for r in example.references})


def token_f1(prediction: str, example: Example) -> float:
    """Harmonic mean of precision and recall over the bag of normalised words, best over references.

    Where either side has no words left, 1 if both have none and 0 otherwise.
    Source: SQuAD (Rajpurkar et al. 2016), evaluate-v2.0.py, `compute_f1`.
    """
    return max(_f1(normalise(prediction).split(), normalise(r).split()) for r in example.references)


def numeric_match(prediction: str, example: Example) -> float:
    """1 where the prediction's number equals a reference's number, compared as exact decimals.

    The number is the one after the first "####", or, without that mark, the last one in the text; "$", thousands
    commas and a sentence's closing full stop do not count. Source: the "#### n" convention and `extract_answer`
    of GSM8K (Cobbe et al. 2021, grade-school-math/dataset.py); the fall-back to the last number is ours.
    """
    number = final_number(prediction)
    return float(number is not None and any(number == final_number(r) for r in example.references))


def accuracy(prediction: str, example: Example) -> float:
    """1 where the label that the prediction begins with is the right one.

    Words are compared lower-cased and without punctuation; of several labels that fit ("not", "not sure") the longest
    counts. Source: ours, the usual scoring of classification with verbalised labels.
    """
    if not example.choices:
        raise WorkbenchError(
            "accuracy needs label words and this example has none; give load_task choices=[…], or metric='exact_match'"
        )
    said = label_words(prediction)
    labels = [words for c in example.choices if (words := label_words(c)) and said[: len(words)] == words]
    found = max(labels, key=len, default=None)
    return float(found is not None and any(found == label_words(r) for r in example.references))


def clauses_met(prediction: str, example: Example) -> float:
    """The share of the prompt's clauses that the written answer meets, among those that it can be judged by.

    Source: ours; in the small world its checker (tasks/world/checker.py) decides each clause exactly, in people's own prompts
    the check that they gave it (tasks/checks.py).
    """
    from workbench.tasks.clauses import from_example

    return from_example(example).share_met(prediction)


def perplexity(prediction: str, example: Example) -> float:
    """Not a score of a written answer, hence NaN for each; whoever evaluates takes exp of the mean answer-token loss.

    Source: Jelinek et al. 1977; for tasks without a question, such as running text. Lower is better.
    """
    return math.nan


def final_number(text: str) -> Decimal | None:
    """The number that a worked answer ends in (see `numeric_match`), or None.

    >>> final_number("so 3 + 4 = 7. #### 1,007."), final_number("it costs $2.50"), final_number("none")
    (Decimal('1007'), Decimal('2.50'), None)
    """
    marked = text.split("####", 1)
    numbers = _NUMBER.findall(marked[-1])
    if not numbers:
        return None
    try:
        return Decimal(
            (numbers[0] if len(marked) == 2 else numbers[-1]).replace(",", "").replace("\u2212", "-")
        )
    except InvalidOperation:
        return None


def label_words(text: str) -> list[str]:
    """The words of a label or of a prediction, lower-cased, without punctuation around them."""
    return [w for word in text.lower().split() if (w := word.strip(string.punctuation) or word)]


def _f1(predicted: list[str], wanted: list[str]) -> float:
    if not predicted or not wanted:
        return float(predicted == wanted)
    same = sum((Counter(predicted) & Counter(wanted)).values())
    return (
        2 * same / (len(predicted) + len(wanted))
    )  # = 2PR/(P+R) with P = same/|predicted|, R = same/|wanted|


_PUNCTUATION = frozenset(string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
# A sign counts only where it is not a binary minus: "7-3" ends in 3, "= -3" in −3.
_NUMBER = re.compile(
    r"(?:(?<![\w.)])[-+\u2212])?(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|(?<!\d)\.\d+)"
)

METRICS: dict[str, Metric] = {
    f.__name__: Metric(f.__name__, f)
    for f in (exact_match, string_match, token_f1, numeric_match, accuracy, clauses_met, perplexity)
}

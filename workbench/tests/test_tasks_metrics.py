"""Metrics against cases worked out by hand from the formulas that they name."""

from __future__ import annotations

from decimal import Decimal

import pytest

from workbench.errors import WorkbenchError
from workbench.tasks.metrics import METRICS, final_number, normalise
from workbench.tasks.task import Example


def score(metric: str, prediction: str, *references: str, choices: tuple[str, ...] = ()) -> float:
    return METRICS[metric].score(prediction, Example("q", " " + references[0], references, choices))


def test_squads_normalisation():
    """Its four steps in its order: lower case, punctuation away, articles away, spaces."""
    assert normalise("  The  U.S., an Eiffel-Tower! ") == "us eiffeltower"
    assert normalise("Theatre another a-b") == "theatre another ab"
    assert normalise("“The”") == "“ ”", "only ASCII punctuation, as SQuAD's script has it"


@pytest.mark.parametrize(
    ("prediction", "references", "exact", "f1"),
    [
        ("The Denver Broncos.", ("Denver Broncos",), 1, 1),
        ("Denver", ("Denver Broncos",), 0, 2 / 3),
        ("the Denver Broncos of Colorado", ("Denver Broncos",), 0, 2 / 3),  # P 2/4, R 2/2
        ("cat cat dog", ("cat dog dog",), 0, 2 / 3),  # bags: one cat and one dog are shared
        ("Carolina", ("Denver", "Carolina Panthers", "Carolina"), 1, 1),
        ("Boston", ("Denver",), 0, 0),
        ("", ("",), 1, 1),
        ("the", ("a",), 1, 1),  # nothing left on either side
        ("rome", ("",), 0, 0),
        ("", ("rome",), 0, 0),
    ],
)
def test_exact_match_and_f1_as_squads_script_gives_them(prediction, references, exact, f1):
    """Best over references; the share of common words; the two rules for empty answers."""
    assert score("exact_match", prediction, *references) == exact
    assert score("token_f1", prediction, *references) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("48/2 = <<48/2=24>>24 clips in May.\n#### 72", "72"),
        ("#### 1,234", "1234"),
        ("#### -5", "-5"),
        ("#### $1,000,000.50", "1000000.50"),
        ("The answer is 7.", "7"),
        ("It costs $2.50, he said", "2.50"),
        ("from 12-3", "3"),
        ("x = −4", "-4"),
        ("1,2,3", "3"),
        ("#### 5 apples and 6 pears", "5"),
        ("no number", None),
        ("12 #### none", None),
        ("", None),
    ],
)
def test_the_number_that_an_answer_ends_in(text, number):
    """GSM8K's mark first; commas, signs, decimals and a closing full stop; the last number where there is no mark."""
    assert final_number(text) == (None if number is None else Decimal(number))


def test_numeric_match_compares_values():
    """72 is 72.0 and 1,000 is 1000; -5 is not 5; a prediction without a number is wrong."""
    assert score("numeric_match", "so we get 72.0", "… #### 72") == 1
    assert score("numeric_match", "1,000", "#### 1000") == 1
    assert score("numeric_match", "5", "#### -5") == 0
    assert score("numeric_match", "five", "#### 5") == 0


def test_string_match_keeps_the_signs_that_exact_match_drops():
    """-5 and 5 are one after SQuAD's normalisation, which is why arithmetic has a metric of its own."""
    assert score("exact_match", "5", "-5") == 1
    assert score("string_match", "5", "-5") == 0
    assert score("string_match", " 2*x + 1\n", "2*x + 1") == 1


def test_accuracy_reads_the_label_at_the_beginning():
    """Case and punctuation do not count, the longest label wins, a label in mid-sentence is no answer."""
    labels = ("good", "not good", "bad")
    assert score("accuracy", " Good. I liked it", "good", choices=labels) == 1
    assert score("accuracy", "not good at all", "good", choices=labels) == 0
    assert score("accuracy", "not good at all", "not good", choices=labels) == 1
    assert score("accuracy", "it is good", "good", choices=labels) == 0
    assert score("accuracy", "goodness", "good", choices=labels) == 0
    assert score("accuracy", "", "good", choices=labels) == 0
    with pytest.raises(WorkbenchError, match="choices"):
        score("accuracy", "good", "good")


def test_every_metric_names_its_source():
    """A number in a paper needs a formula that can be cited."""
    for name, metric in METRICS.items():
        assert metric.name == name and "Source: " in metric.source

"""Forms: whatever dataclass there is has one that gives its value back, and what is wrong is said where it was typed."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from html import escape
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.backbones.pretrain import PretrainConfig
from workbench.claims.study import StudyConfig
from workbench.errors import WorkbenchError
from workbench.methods import priors
from workbench.methods.deep_prompt import DeepPromptConfig
from workbench.methods.generate import GenerateConfig
from workbench.methods.lora import LoRAConfig
from workbench.methods.method import METHODS
from workbench.methods.priors import PRIORS, Prior
from workbench.methods.soft_prompt import SoftPromptConfig
from workbench.tasks.encode import TextConfig
from workbench.tests import zoo
from workbench.tests.methods_zoo import MAKERS
from workbench.tests.test_priors import SETTINGS
from workbench.training.config import FitConfig
from workbench.training.cost import Cost
from workbench.views.fields import docs, read, wanted, written
from workbench.views.form import Control, Form

OURS = {kind: cls for kind, cls in METHODS.items() if cls.__module__.startswith("workbench.methods")}
CONFIGS = [FitConfig, TextConfig, GenerateConfig, StudyConfig, PretrainConfig]
CONFIGS += [cls.Config for cls in OURS.values()] + list(PRIORS.values())


def note(form: Form[Any], name: str) -> str:
    """What stands below a field."""
    return form._rows[name].children[-1].value


def typed(control: Control, text: str) -> None:
    """As a person types."""
    control.widget.value = text


# Every dataclass has a form


@pytest.mark.parametrize("cls", CONFIGS, ids=lambda cls: cls.__name__)
def test_every_configuration_has_a_form_with_help_and_gives_its_value_back(cls: type) -> None:
    """Protects "a form the day it is written": nothing of a form is said but by the dataclass itself."""
    form = Form(cls())
    assert form.value == cls() and form.valid and not form.errors
    for each in fields(cls):
        assert each.name in form.controls
        assert docs(cls).get(each.name), f"{cls.__name__}.{each.name} has no docstring, so no help"
        assert escape(docs(cls)[each.name]) in note(form, each.name)


@pytest.mark.parametrize("name", MAKERS)
def test_every_method_s_settings_go_into_a_form_and_out_again(name: str) -> None:
    """Protects a run that is opened again in a panel: other values than the default's are shown and read back."""
    method = MAKERS[name](zoo.backbone("rwkv" if name == "initial-state" else "llama"), 3)
    form = Form(type(method).Config())
    form.value = method.config
    assert form.value == method.config != type(method).Config()


def test_no_method_is_left_out_of_the_two_tests_above() -> None:
    assert {name.partition(",")[0] for name in MAKERS} == set(OURS)


@given(prior=SETTINGS)
def test_every_prior_s_settings_go_into_a_form_and_out_again(prior: Prior) -> None:
    """Protects words with commas, quotes and breaks in them, small numbers, tasks as JSON, and nothing at all."""
    assert Form(prior).value == prior
    whole = SoftPromptConfig(prior=prior.describe())
    form = Form(SoftPromptConfig())
    form.value = whole
    assert form.value == whole


def test_a_prior_given_in_short_is_given_back_in_short() -> None:
    """Protects resuming, which compares configurations: {"name": "isotropic"} must not grow its settings by being shown."""
    config = SoftPromptConfig(prior={"name": "isotropic"})
    form = Form(config)
    assert form.value == config
    typed(form.controls["prior"].form.controls["std"], "0.5")
    assert form.value.prior == {"name": "isotropic", "std": 0.5}


# Controls


@dataclass(frozen=True)
class Inner:
    deep: int = 1
    """Deep down."""

    def __post_init__(self) -> None:
        if self.deep < 0:
            raise WorkbenchError(f"deep is {self.deep}; it must be 0 or more")


@dataclass(frozen=True)
class Base:
    count: int = field(default=3, metadata={"min": 1, "max": 5, "label": "How many"})
    """From the base."""


@dataclass(frozen=True)
class Example(Base):
    name: str = field(default="b", metadata={"choices": ("a", "b")})
    rate: float = 0.00002
    """Of learning; small < large."""
    on: bool = True
    way: Literal["up", "down"] | None = None
    pair: tuple[int, int] = (1, 2)
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.rate * self.count > 100:
            raise WorkbenchError("this is too much in all; take less")


def test_types_choose_controls_and_docstrings_are_help() -> None:
    """Protects the look of a form: lists where there are choices, boxes to tick, and each field's own words."""
    form = Form(Example(), {"name": ("a", "b", "c")})
    kinds = {name: type(control.widget).__name__ for name, control in form.controls.items()}
    assert kinds == {
        "count": "Text",
        "name": "Dropdown",
        "rate": "Text",
        "on": "Checkbox",
        "way": "Dropdown",
        "pair": "Text",
        "inner": "Accordion",
    }
    assert [text for text, _ in form.controls["way"].widget.options] == ["up", "down", "none"]
    assert [text for text, _ in form.controls["name"].widget.options] == ["a", "b", "c"]
    assert form.controls["rate"].widget.value == "2e-5" and form.controls["pair"].widget.value == "1, 2"
    assert form.controls["rate"].widget.description == "Rate"
    assert form.controls["count"].widget.description == "How many"
    assert "From the base." in note(form, "count") and "small &lt; large." in note(form, "rate")
    assert form.controls["rate"].widget.tooltip == "Of learning; small < large."
    form.value = replace(Example(), name="elsewhere", way="down", inner=Inner(7))
    assert form.value == replace(Example(), name="elsewhere", way="down", inner=Inner(7))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("rate", "fast", "Rate is 'fast'; give a number"),
        ("rate", "nan", "Rate is 'nan'; give a number"),
        ("rate", "", "Rate is empty; give a number"),
        ("count", "2.5", "How many is '2.5'; give a whole number"),
        ("count", "6", "How many is 6; it must be at least 1 and at most 5"),
        ("pair", "1, 2, 3", "Pair is '1, 2, 3'; give 2 values with a comma between them"),
    ],
)
def test_what_cannot_be_read_is_said_at_its_field_and_stays_typed(name: str, text: str, said: str) -> None:
    """Protects what a person typed: it is marked, kept, refused by `value`, and free again once it is mended."""
    form = Form(Example())
    before = form.controls[name].widget.value
    typed(form.controls[name], text)
    assert not form.valid and said in form.errors[name]
    assert "wb-wrong" in form._rows[name]._dom_classes
    assert [other for other in form.controls if "alert" in note(form, other)] == [name]
    with pytest.raises(WorkbenchError) as refused:
        _ = form.value
    assert said in str(refused.value)
    assert form.controls[name].widget.value == text
    typed(form.controls[name], before)
    assert form.value == Example() and "alert" not in note(form, name)
    assert "wb-wrong" not in form._rows[name]._dom_classes


@pytest.mark.parametrize(
    ("start", "changes", "name"),
    [
        (FitConfig(), {"warmup": "2"}, "warmup"),
        (
            FitConfig(),
            {"validation_examples": "0"},
            "validation_examples",
        ),  # its sentence names checkpoint_every first
        (FitConfig(), {"evaluate_every": "0", "patience": "3"}, "patience"),
        (GenerateConfig(), {"top_p": "2"}, "top_p"),  # named third
        (LoRAConfig(), {"alpha": "-1"}, "alpha"),
        (DeepPromptConfig(), {"layers": ""}, "layers"),
        (Example(), {"rate": "1e6"}, ""),
    ],
)
def test_what_the_dataclass_refuses_is_said_at_the_field_it_names(
    start: Any, changes: dict[str, str], name: str
) -> None:
    """Protects the reader of a refusal: it stands at the field to mend, or below the form where it names none."""
    form = Form(start)
    for changed, text in changes.items():
        typed(form.controls[changed], text)
    assert set(form.errors) == {name}
    told = note(form, name) if name else form._note.value
    assert "alert" in told
    with pytest.raises(WorkbenchError):
        _ = form.value


def test_a_wrong_value_deep_inside_is_said_there_and_unfolded() -> None:
    """Protects forms within forms: the fault is not said far away from the field, nor behind a fold."""
    form = Form(FitConfig(), shown=("steps",))
    inside = form.controls["text"]
    assert inside.box.selected_index is None and form._more.selected_index is None
    typed(inside.form.controls["max_tokens"], "0")
    assert "alert" in note(inside.form, "max_tokens") and "alert" not in note(form, "text")
    assert inside.box.selected_index == 0 and form._more.selected_index == 0
    assert set(form.errors) == {"text"} and "max_tokens is 0" in form.errors["text"]
    typed(inside.form.controls["max_tokens"], "12")
    assert form.value.text.max_tokens == 12


def test_another_prior_has_another_form_and_what_was_typed_is_kept() -> None:
    """Protects looking around: choosing a prior, another, and the first again loses no setting."""
    form = Form(SoftPromptConfig(prior={"name": "isotropic", "std": 0.1}))
    prior = form.controls["prior"]
    typed(prior.form.controls["std"], "0.7")
    prior.widget.value = "shell"
    assert "radius" in prior.form.controls and prior.form.body in prior.box.children
    assert form.value.prior == priors.Shell().describe()
    typed(prior.form.controls["radius"], "0")
    assert set(form.errors) == {"prior"} and "alert" in note(prior.form, "radius")
    prior.widget.value = "isotropic"
    assert form.value.prior == {"name": "isotropic", "std": 0.7}
    assert [child for child in prior.box.children if child is prior.form.body]


def test_the_common_fields_are_shown_and_a_fault_in_the_others_unfolds_them() -> None:
    """Protects a short form: 21 fields of FitConfig, three in view; and the fold never hides what is wrong."""
    form = Form(FitConfig(), shown=("steps", "batch_size", "learning_rate"))
    grid, more, _ = form.body.children
    assert list(grid.children) == [form._rows[name] for name in ("steps", "batch_size", "learning_rate")]
    assert len(more.children[0].children) == len(fields(FitConfig)) - 3 and more.selected_index is None
    typed(form.controls["steps"], "0")
    assert more.selected_index is None
    typed(form.controls["steps"], "5")
    typed(form.controls["clip"], "-1")
    assert more.selected_index == 0
    with pytest.raises(WorkbenchError, match="did you mean 'steps'"):
        Form(FitConfig(), shown=("step",))


def test_the_panel_hears_of_changes_and_can_grey_everything_out() -> None:
    """Protects a panel's buttons: each change is heard once, inner ones too, and one call disables all of it."""
    form = Form(FitConfig())
    heard: list[bool] = []
    form.observe(lambda told: heard.append(told.valid))
    typed(form.controls["steps"], "7")
    typed(form.controls["steps"], "x")
    typed(form.controls["text"].form.controls["max_tokens"], "9")
    assert heard == [True, False, False]
    form.value = FitConfig()
    assert heard == [True, False, False, True]
    form.set_disabled(True)
    assert form.disabled and form.controls["text"].form.controls["cut"].widget.disabled
    form.set_disabled(False)
    assert not form.controls["steps"].disabled


def test_a_cost_is_shown_until_the_form_changes_and_only_for_what_it_was_worked_out_for() -> None:
    """Protects the line below the form: an estimate that comes in late never stands beside other settings."""
    form = Form(FitConfig())
    cost = Cost(3840, 411.6, 0.2, 0.0, 40.2)
    form.show_cost("working it out …")
    assert "working it out" in form.cost.value
    form.show_cost(cost, of=FitConfig())
    assert "3,840 parameters · 412 tokens a step · about 40 s" in form.cost.value
    typed(form.controls["steps"], "300")
    assert form.cost.value == ""
    form.show_cost(cost, of=FitConfig())
    assert form.cost.value == ""
    form.show_cost(cost, of=form.value)
    form.show_cost(None)
    assert form.cost.value == ""


# Text and back

word = st.text()
VALUES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (str, word),
    (int | None, st.none() | st.integers()),
    (tuple[str, ...], st.lists(word).map(tuple)),
    (tuple[str, str], st.tuples(word, word)),
    (tuple[int | Literal["input"], ...], st.lists(st.integers() | st.just("input")).map(tuple)),
    (str | tuple[str, ...], st.just("auto") | st.lists(word, min_size=1).map(tuple)),
    (str | dict[str, Any] | None, st.none() | st.just("reading") | st.dictionaries(word, st.integers())),
    (Literal["a", "b"], st.sampled_from(["a", "b"])),
]


@pytest.mark.parametrize(("kind", "values"), VALUES, ids=lambda part: str(part)[:40])
def test_what_is_written_is_read_back(kind: Any, values: st.SearchStrategy[Any]) -> None:
    """Protects every value that passes through a text box, whatever stands in it."""

    @given(value=values)
    def back(value: Any) -> None:
        assert read(kind, written(value, kind)) == value
        assert type(read(kind, written(value, kind))) is type(value)

    back()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00003, "3e-5"),
        (0.001, "1e-3"),
        (0.5, "0.5"),
        (-2e-7, "-2e-7"),
        (0.0, "0.0"),
        (("input", -3), "input, -3"),
    ],
)
def test_values_are_written_as_people_do(value: Any, text: str) -> None:
    assert written(value) == text


@pytest.mark.parametrize(
    ("kind", "text"),
    [(int, "1.5"), (float, "inf"), (float, ""), (tuple[int, ...], "1, x"), (tuple[str, str], "a"),
     (dict[str, Any], "[1]"), (str | dict[str, Any], "{broken"), (Literal["a"], "b"), (tuple[str, ...], '"a" b')],
)  # fmt: skip
def test_text_of_another_type_is_refused(kind: Any, text: str) -> None:
    """Protects `valid`: what is no number is not made one, nor a broken object a name."""
    with pytest.raises(ValueError):  # noqa: PT011
        read(kind, text)


def test_a_type_that_cannot_be_typed_is_refused_when_the_form_is_made() -> None:
    """Protects a new dataclass: its author hears of it, not the person who fills the form in."""

    @dataclass(frozen=True)
    class Strange:
        what: bytes = b""

    with pytest.raises(TypeError, match="no control for <class 'bytes'>"):
        Form(Strange())
    assert wanted(int | None) == "a whole number or nothing"


@dataclass(frozen=True)
class Several:
    """A form with a choice of several."""

    priors: tuple[str, ...] = ("vocabulary",)
    """Where prompts start."""

    def __post_init__(self) -> None:
        if not self.priors:
            raise WorkbenchError("priors is empty; tick one at least")


def test_of_a_tuple_with_choices_several_can_be_ticked() -> None:
    """Protects a study of several priors: the order is the offered one, nothing given is lost, none is refused there."""
    form = Form(Several(), {"priors": ("isotropic", "vocabulary", "shell")})
    control, heard = form.controls["priors"], []
    form.observe(lambda changed: heard.append(changed.valid))
    ticks = {tick.description: tick for tick in control._ticks.values()}
    ticks["isotropic"].value = True
    assert form.value == Several(("isotropic", "vocabulary")) and heard == [True]
    ticks["isotropic"].value = ticks["vocabulary"].value = False
    assert "priors is empty" in form.errors["priors"] and "priors is empty" in note(form, "priors")
    form.value = Several(("shell", "of my own"))
    assert form.value.priors == ("shell", "of my own")
    control._ticks["of my own"].value = False
    assert form.value.priors == ("shell",) and heard[-1]
    form.set_disabled(True)
    assert form.disabled

"""Forms made from dataclasses: one control a field, so a method has a form the day it is written. Trains nothing.

    form = Form(FitConfig(), shown=("steps", "learning_rate"))    # the other fields are folded under "more"
    form.box            the widget
    form.value          what the controls stand for; WorkbenchError where the dataclass refuses that
    form.errors         field to what is wrong with it, "" to what is wrong with the whole

Labels are the fields' names, the docstring below a field is its help, and its type chooses the control:

    bool                                a box to tick
    Literal, or given `choices`         a list to choose from
    a tuple, with given `choices`       a box to tick for each
    a tuple of texts that are `chips`   a chip for each, which can be taken away, and a place to type another
    a dataclass                         a form of its own, folded
    the description of a prior          a list of all priors, and the form of the chosen one
    int, float, str, tuple, dict, None  a line of text, of any union of them: see `read` and `written`

The dataclass's own checks are the ranges: it is made anew at each change, and what it refuses is said at the field that
the sentence names. A field's `metadata` may add `label`, `help`, `choices`, `min` and `max`, `lines` (a box of so many for a text)
and `chips`.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, fields, is_dataclass, replace
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_origin, get_type_hints

import ipywidgets as w

from workbench.errors import WorkbenchError, unknown
from workbench.views.fields import docs, label, options, read, wanted, written
from workbench.views.theme import CSS

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from workbench.training.cost import Cost

T = TypeVar("T", bound="DataclassInstance")

STYLE = """
.wb-fields { position: relative; gap: 6px 14px; align-items: start; padding-bottom: 20px; }
.wb-fields:empty { padding: 0; }
.wb-fields { grid-auto-flow: dense; } .wb-fields > .wb-wide { grid-column: 1 / -1; }
.wb-fields .wb-field, .wb-fields .wb-note, .wb-fields .wb-note > .widget-html-content { position: static;
  overflow: visible; margin: 0; line-height: 1.4; height: auto; }
.wb-field :is(.widget-text, .widget-textarea), .wb-field .widget-dropdown { flex-direction: column; align-items: stretch; width: auto;
  height: auto; margin: 0; }
.wb-field > .widget-vbox > .widget-dropdown { max-width: 320px; }
.wb-field .widget-label { text-align: left; width: auto; height: 20px; line-height: 20px; font-size: 12px;
  color: var(--wb-quiet); }
.wb-field select, .wb-field input:is([type=text], [type=number]) { width: 100%; height: 30px; flex: none; }
.wb-field > .widget-checkbox { width: auto; height: auto; margin: 18px 0 0; }
.wb-field > .widget-checkbox .widget-label-basic { white-space: normal; line-height: 1.3; }
.wb-field textarea { width: 100%; font: 13px/1.5 var(--jp-ui-font-family, system-ui, sans-serif); }
.wb-chips .jupyter-widget-tagsinput { width: 100%; }
.wb-chips .jupyter-widget-tag { background: var(--wb-grid); color: var(--wb-text); height: 24px; line-height: 24px; }
.wb-chips.wb-still { pointer-events: none; opacity: .6; }
.wb-ticks { flex-flow: row wrap; gap: 2px 18px; overflow: visible; }
.wb-ticks .widget-checkbox { margin: 0; } .wb-ticks .widget-label-basic { font-size: 13px; }
.wb-field.wb-wrong > .jupyter-widgets > :is(input, select) { border-color: var(--wb-second); outline: 1px solid var(--wb-second); }
.wb-wrong-text { font-size: 12px; color: var(--wb-text); border-left: 3px solid var(--wb-second); padding-left: 6px; }
.wb-help { display: none; position: absolute; left: 0; right: 0; bottom: 0; height: 18px; font-size: 12px;
  line-height: 18px; color: var(--wb-quiet); overflow: hidden; white-space: nowrap; text-overflow: ellipsis; }
.wb-field:is(:hover, :focus-within) > .wb-note .wb-help { display: block; }
.wb-fields:has(> .wb-field:hover) > .wb-field:not(:hover) > .wb-note .wb-help,
.wb-field:has(.wb-field:hover, .wb-field:focus-within) > .wb-note .wb-help { display: none; }
.wb-fold { margin: 0; } .wb-fold .jupyter-widget-Collapse-header { font-weight: normal; font-size: 12px;
  padding: 2px 6px; color: var(--wb-quiet); background: none; border: 0; }
.wb-fold .jupyter-widget-Collapse-contents { background: none; border: 0; padding: 4px 0 4px 18px; overflow: visible; }
.wb-small { font-size: 12px; line-height: 1.4; color: var(--wb-quiet); font-variant-numeric: tabular-nums; }
"""


class Form(Generic[T]):
    """The controls for one dataclass instance.

    Args:
        value: what is shown first; any dataclass instance.
        choices: for some fields, what is offered.
        shown: the fields to show; the others are folded under "more". Without it all are shown.
        check: raises WorkbenchError where an instance names what is not there, which an instance that was kept may.

    Attributes:
        controls: field to its control, whose `value` is the field's.
        errors: field to the sentence on what is wrong there now; "" to one that names no field.
        cost: the line for what a training would cost, see `show_cost`.

    Raises:
        WorkbenchError: a name in `shown` that is no field.
    """

    def __init__(
        self,
        value: T,
        choices: Mapping[str, Sequence[Any]] | None = None,
        shown: Sequence[str] = (),
        check: Callable[[T], object] = lambda value: None,
    ) -> None:
        self._start, self._check = value, check
        self._calls: list[Callable[[Any], None]] = []
        self._setting = False
        self.errors: dict[str, str] = {}
        types, helps = get_type_hints(type(value)), docs(type(value))
        made = [field for field in fields(value) if field.init]
        for name in shown:
            if name not in [field.name for field in made]:
                raise unknown(f"field of {type(value).__name__}", name, [field.name for field in made])
        self.controls: dict[str, Control] = {}
        self._rows: dict[str, w.VBox] = {}
        for field in made:
            name = field.name
            help_ = field.metadata.get("help", helps.get(name, ""))
            control = _control(field, types[name], getattr(value, name), (choices or {}).get(name))
            control.describe(label(field), help_)
            control.observe(self._changed)
            self.controls[name], self._rows[name] = control, _row(control, help_)
        first = [name for name in self.controls if not shown or name in shown]
        rest = [name for name in self.controls if name not in first]
        self._note = w.HTML().add_class("wb-note")
        self._more = _fold("more", _grid([self._rows[name] for name in rest])) if rest else None
        self._folded = set(rest)
        parts = [
            _grid([self._rows[name] for name in first]),
            *([self._more] if self._more else []),
            self._note,
        ]
        self.body = w.VBox(parts, layout={"overflow": "visible"})
        self.cost = w.HTML()

    @cached_property
    def box(self) -> w.VBox:
        """The form with its looks, for a page; a form inside another is its `body` alone."""
        style = w.HTML(f"<style>{CSS}{STYLE}</style>", layout={"display": "none"})
        return w.VBox([style, self.body, self.cost], layout={"overflow": "visible"}).add_class("wb-light")

    @property
    def value(self) -> T:
        """A new instance with what the controls show. Raises WorkbenchError where it cannot be made."""
        made = self._read()
        if made is None:
            raise WorkbenchError(next(iter(self.errors.values())))
        return made

    @value.setter
    def value(self, new: T) -> None:
        self._start, self._setting = new, True
        try:
            for name, control in self.controls.items():
                control.value = getattr(new, name)
        finally:
            self._setting = False
        self._changed()

    @property
    def valid(self) -> bool:
        """Whether `value` can be made."""
        return self._read() is not None

    @property
    def disabled(self) -> bool:
        """Whether every control is grey."""
        return all(control.disabled for control in self.controls.values())

    def set_disabled(self, disabled: bool) -> None:
        """Greys every control out, or gives it back."""
        for control in self.controls.values():
            control.disabled = disabled

    def observe(self, call: Callable[[Any], None]) -> None:
        """Calls `call` with the form whenever something was changed, right or wrong."""
        self._calls.append(call)

    def refuse(self, name: str, sentence: str) -> None:
        """Says at a field what whoever used its value found wrong with it; the next change takes that away.

        name: a field, or "" for what is wrong with the whole.
        """
        self.errors = {name: sentence}
        if name in self._rows:
            _say(self._rows[name].children[-1], sentence)
            self._rows[name].add_class("wb-wrong")
            self.controls[name].unfold()
        else:
            _say(self._note, sentence)
        if self._more and name in self._folded:
            self._more.selected_index = 0

    def show_cost(self, cost: Cost | str | None, of: T | None = None) -> None:
        """Writes what a training would cost below the form; any change of the form takes it away again.

        It takes seconds to work out, so a panel does that in a thread. `of` is the value that it was worked out for:
        where the form says something else by now, nothing is written.
        """
        if of is None or self._read() == of:
            text = cost if isinstance(cost, str) or cost is None else cost.line
            self.cost.value = f"<div class='wb-small'>{escape(text)}</div>" if text else ""

    def _changed(self) -> None:
        if not self._setting:
            self._read()
            self.cost.value = ""
            for call in self._calls:
                call(self)

    def _read(self) -> T | None:
        """What the controls stand for, None where that is nothing; says at each field what is wrong there."""
        given, errors, said = {}, {}, {}
        for name, control in self.controls.items():
            try:
                given[name] = control.value
            except WorkbenchError as error:
                errors[name] = str(error)
                said[name] = "" if control.form else str(error)  # a form inside has said it at its own field
        made = None
        if not errors:
            try:
                made = self._made(given)
            except (WorkbenchError, ValueError, TypeError) as error:
                errors = said = {self._named(str(error), given): str(error)}
        self.errors = errors
        for name, row in self._rows.items():
            _say(row.children[-1], said.get(name, ""))
            (row.add_class if said.get(name) else row.remove_class)("wb-wrong")
            if name in errors:
                self.controls[name].unfold()
        _say(self._note, said.get("", ""))
        if self._more and self._folded & set(errors):
            self._more.selected_index = 0
        return made

    def _made(self, given: Mapping[str, Any]) -> T:
        made = replace(self._start, **given)
        self._check(made)
        return made

    def _named(self, sentence: str, given: dict[str, Any]) -> str:
        """The field that a refusal names: of several the first that, put back, would mend it."""
        spots = {}
        for name in self.controls:
            if found := re.search(rf"\b({name}|{name.replace('_', ' ')})\b", sentence):
                spots[name] = found.start()
        names = sorted(spots, key=lambda name: spots[name])
        for name in names:
            try:
                self._made({**given, name: getattr(self._start, name)})
            except (WorkbenchError, ValueError, TypeError):
                continue
            return name
        return names[0] if names else ""


# Controls


class Control:
    """The control of one field.

    Attributes:
        widget: what is typed into, ticked or chosen from; it bears the label.
        box: what stands on the page.
        form: the form inside it, where it has one.
    """

    form: Form[Any] | None = None

    def __init__(self, widget: w.Widget) -> None:
        self.widget = self.box = widget

    def describe(self, name: str, help_: str) -> None:
        """Writes the label, and the help that is shown while one points at it."""
        self.widget.description, self.widget.tooltip = name, help_
        self.widget.style = {"description_width": "auto"}
        self.widget.layout.width = "auto"

    @property
    def value(self) -> Any:
        """The field's value; reading raises WorkbenchError where what is shown stands for none."""
        return self.widget.value

    @value.setter
    def value(self, new: Any) -> None:
        self.widget.value = new

    @property
    def disabled(self) -> bool:
        """Whether it is grey."""
        return bool(self.widget.disabled)

    @disabled.setter
    def disabled(self, disabled: bool) -> None:
        self.widget.disabled = disabled

    def observe(self, call: Callable[[], None]) -> None:
        """Calls `call` whenever something was changed."""
        self.widget.observe(lambda _: call(), names="value")

    def unfold(self) -> None:
        """Shows what is folded in it."""


class Choice(Control):
    """One of some values."""

    def __init__(self, options: Sequence[Any], value: Any) -> None:
        self._options = list(options) if value in options else [value, *options]
        super().__init__(w.Dropdown(options=self._labelled(), value=value))

    @property
    def value(self) -> Any:
        """What is chosen; setting a value that was not offered offers it."""
        return self.widget.value

    @value.setter
    def value(self, new: Any) -> None:
        if new not in self._options:
            self._options.insert(0, new)
            self.widget.options = self._labelled()
        self.widget.value = new

    def _labelled(self) -> list[tuple[str, Any]]:
        return [(written(option) or "none", option) for option in self._options]


class Several(Control):
    """Any number of some values, each with a box to tick; the value is a tuple in the order that was offered."""

    def __init__(self, options: Sequence[Any], value: Sequence[Any]) -> None:
        self._ticks = {option: self._tick(option) for option in dict.fromkeys([*options, *value])}
        self._name = w.Label()
        self._flow = w.HBox(list(self._ticks.values())).add_class("wb-ticks")
        self._calls: list[Callable[[Any], None]] = []
        super().__init__(w.VBox([self._name, self._flow], layout={"overflow": "visible"}))
        self.value = tuple(value)

    def describe(self, name: str, help_: str) -> None:
        """Writes the label above the boxes."""
        self._name.value = name

    @property
    def value(self) -> tuple[Any, ...]:
        """What is ticked; setting a value that was not offered offers it."""
        return tuple(option for option, tick in self._ticks.items() if tick.value)

    @value.setter
    def value(self, new: Sequence[Any]) -> None:
        for option in new:
            if option not in self._ticks:
                self._ticks[option] = self._tick(option)
                for call in self._calls:
                    self._ticks[option].observe(call, names="value")
                self._flow.children = list(self._ticks.values())
        for option, tick in self._ticks.items():
            tick.value = option in new

    @property
    def disabled(self) -> bool:
        """Whether every box is grey."""
        return all(tick.disabled for tick in self._ticks.values())

    @disabled.setter
    def disabled(self, disabled: bool) -> None:
        for tick in self._ticks.values():
            tick.disabled = disabled

    def observe(self, call: Callable[[], None]) -> None:
        """Calls `call` whenever a box was ticked or cleared."""

        def heard(_: Any) -> None:
            call()

        self._calls.append(heard)
        for tick in self._ticks.values():
            tick.observe(heard, names="value")

    @staticmethod
    def _tick(option: Any) -> w.Checkbox:
        return w.Checkbox(
            False, description=written(option) or "none", indent=False, layout={"width": "auto"}
        )


class Lines(Control):
    """A box of some lines for a text."""

    def __init__(self, value: str, lines: int) -> None:
        super().__init__(w.Textarea(value, rows=lines, continuous_update=False))


class Chips(Control):
    """Some texts, a chip each; the value is a tuple."""

    def __init__(self, value: Sequence[str]) -> None:
        self._name = w.Label()
        tags = w.TagsInput(value=list(value), allow_duplicates=False, placeholder="another …")
        super().__init__(tags)
        self.box = w.VBox([self._name, tags], layout={"overflow": "visible"}).add_class("wb-chips")

    def describe(self, name: str, help_: str) -> None:
        """Writes the label above the chips."""
        self._name.value, self.widget.tooltip = name, help_

    @property
    def value(self) -> tuple[str, ...]:
        """The chips' texts."""
        return tuple(self.widget.value)

    @value.setter
    def value(self, new: Sequence[str]) -> None:
        self.widget.value = list(new)

    @property
    def disabled(self) -> bool:
        """Whether it is grey."""
        return "wb-still" in self.box._dom_classes

    @disabled.setter
    def disabled(self, disabled: bool) -> None:
        (self.box.add_class if disabled else self.box.remove_class)("wb-still")


class Entry(Control):
    """A line of text that is read as a type."""

    def __init__(self, field: Field[Any], kind: Any, value: Any) -> None:
        self._name, self._kind = label(field), kind
        self._least, self._most = field.metadata.get("min", -math.inf), field.metadata.get("max", math.inf)
        self._wanted = wanted(kind)
        super().__init__(w.Text(written(value, kind), continuous_update=False))

    @property
    def value(self) -> Any:
        """What the text says, as the type; reading raises WorkbenchError where it says nothing of that type."""
        text = self.widget.value
        try:
            found = read(self._kind, text)
        except ValueError:
            held = repr(text) if text.strip() else "empty"
            raise WorkbenchError(f"{self._name} is {held}; give {self._wanted}") from None
        if isinstance(found, int | float) and not self._least <= found <= self._most:
            ends = [f"at least {self._least:,}"] * math.isfinite(self._least)
            ends += [f"at most {self._most:,}"] * math.isfinite(self._most)
            raise WorkbenchError(f"{self._name} is {text.strip()}; it must be {' and '.join(ends)}")
        return found

    @value.setter
    def value(self, new: Any) -> None:
        self.widget.value = written(new, self._kind)


class Nested(Control):
    """A dataclass in a field: its own form, folded."""

    form: Form[Any]

    def __init__(self, name: str, value: Any) -> None:
        self.form = Form(value)
        super().__init__(_fold(name, self.form.body))

    def describe(self, name: str, help_: str) -> None:
        """Nothing: the fold has its name, and the note below it the help."""

    @property
    def value(self) -> Any:
        """What the form inside stands for."""
        return self.form.value

    @value.setter
    def value(self, new: Any) -> None:
        self.form.value = new

    @property
    def disabled(self) -> bool:
        """Whether the form inside is grey."""
        return self.form.disabled

    @disabled.setter
    def disabled(self, disabled: bool) -> None:
        self.form.set_disabled(disabled)

    def observe(self, call: Callable[[], None]) -> None:
        """Calls `call` whenever something inside was changed."""
        self.form.observe(lambda _: call())

    def unfold(self) -> None:
        """Opens it."""
        self.box.selected_index = 0


class PriorChoice(Control):
    """The description of a prior: which, and the form of that one; what was typed for another is kept."""

    form: Form[Any]

    def __init__(self, value: dict[str, Any]) -> None:
        from workbench.methods.priors import PRIORS

        self._forms: dict[str, Form[Any]] = {}
        self._calls: list[Callable[[], None]] = []
        super().__init__(w.Dropdown(options=list(PRIORS), value=value["name"]))
        self._about = w.HTML().add_class("wb-note")
        self.box = w.VBox([], layout={"overflow": "visible"})
        self.value = value
        self.widget.observe(lambda _: self._turn(), names="value")

    @property
    def value(self) -> dict[str, Any]:
        """The prior as it describes itself; as it was given, while that says the same."""
        from workbench.methods.priors import from_description

        prior = self.form.value
        return dict(self._given) if prior == from_description(self._given) else prior.describe()

    @value.setter
    def value(self, new: dict[str, Any]) -> None:
        from workbench.methods.priors import from_description

        prior = from_description(new)
        self._given = dict(new)
        if prior.name in self._forms:
            self._forms[prior.name].value = prior
        else:
            self._add(prior)
        self.widget.value = prior.name
        self._turn()

    @property
    def disabled(self) -> bool:
        """Whether it is grey."""
        return bool(self.widget.disabled)

    @disabled.setter
    def disabled(self, disabled: bool) -> None:
        self.widget.disabled = disabled
        for form in self._forms.values():
            form.set_disabled(disabled)

    def observe(self, call: Callable[[], None]) -> None:
        """Calls `call` whenever another prior was chosen or a setting changed."""
        self._calls.append(call)

    def _add(self, prior: Any) -> None:
        self._forms[prior.name] = form = Form(prior)
        form.set_disabled(self.disabled)
        form.observe(lambda _: self._tell())

    def _turn(self) -> None:
        """Shows the form of the chosen prior."""
        from workbench.methods.priors import PRIORS

        cls = PRIORS[self.widget.value]
        if cls.name not in self._forms:
            self._add(cls())
        self.form = self._forms[cls.name]
        about = (inspect.getdoc(cls) or "").partition("\n")[0]
        self._about.value = f"<div class='wb-small'>{escape(about)}</div>"
        self.box.children = [self.widget, self._about, self.form.body]
        self._tell()

    def _tell(self) -> None:
        for call in self._calls:
            call()


def _control(field: Field[Any], kind: Any, value: Any, choices: Sequence[Any] | None) -> Control:
    if choices is None:
        choices = field.metadata.get("choices", options(kind))
    if "lines" in field.metadata:
        return Lines(value, field.metadata["lines"])
    if field.metadata.get("chips"):
        return Chips(value)
    if choices is not None:
        return Several(choices, value) if isinstance(value, tuple) else Choice(choices, value)
    if kind is bool:
        return Control(w.Checkbox(value, indent=False))
    if is_dataclass(value):
        return Nested(label(field), value)
    if dict in (kind, get_origin(kind)) and "name" in value:
        return PriorChoice(value)
    return Entry(field, kind, value)


def _row(control: Control, help_: str) -> w.VBox:
    """A control and the note below it: what is wrong, and the help, which is seen while one points at the field."""
    note = w.HTML(f"<div></div><div class='wb-help'>{escape(help_)}</div>" if help_ else "<div></div>")
    row = w.VBox([control.box, note.add_class("wb-note")], layout={"overflow": "visible"}).add_class(
        "wb-field"
    )
    wide = control.form or isinstance(control, Several | Lines | Chips)
    return row.add_class("wb-wide") if wide else row


def _say(note: w.HTML, sentence: str) -> None:
    """Writes what is wrong into a note, and leaves the help in it."""
    wrong = f"<div class='wb-wrong-text' role='alert'>{escape(sentence)}</div>" if sentence else "<div></div>"
    _, _, rest = note.value.partition("</div>")
    if note.value != wrong + rest:
        note.value = wrong + rest


def _grid(rows: Sequence[w.Widget]) -> w.GridBox:
    columns = "repeat(auto-fill, minmax(150px, 1fr))"
    return w.GridBox(rows, layout={"grid_template_columns": columns, "overflow": "visible"}).add_class(
        "wb-fields"
    )


def _fold(title: str, inside: w.Widget) -> w.Accordion:
    return w.Accordion([inside], titles=(title,), selected_index=None).add_class("wb-fold")

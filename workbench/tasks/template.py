"""Template: from a row of somebody's data to an Example; says which field is wrong where a row cannot be used.

It never opens a file: a row is a mapping, and the sentence of a BadRow is completed with file and line by readers.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

from workbench.errors import WorkbenchError, unknown
from workbench.tasks.metrics import label_words
from workbench.tasks.task import Example, joined


class BadRow(Exception):
    """One row cannot be used; the message names the field and what is wrong with it."""


def look_up(row: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path: "answers.text", "turns.0.content". A key that has dots itself comes first.

    >>> look_up({"answers": {"text": ["rome"]}}, "answers.text.0")
    'rome'
    """
    if path in row:
        return row[path]
    value: Any = row
    for step in path.split("."):
        if isinstance(value, Mapping):
            if step not in value:
                error = unknown("field", path if value is row else step, map(str, value))
                raise BadRow(str(error))
            value = value[step]
        elif isinstance(value, list | tuple) and step.isdigit():
            if int(step) >= len(value):
                raise BadRow(f"the field {path!r} asks for element {step} of a list of {len(value)}")
            value = value[int(step)]
        elif isinstance(value, list | tuple):  # SQuAD-like lists of records: the step of each
            value = [look_up(item, step) for item in value if isinstance(item, Mapping)]
        else:
            raise BadRow(f"the field {path!r} reaches into {value!r:.40}, which has no {step!r}")
    return value


def text_of(value: Any, path: str) -> str:
    """A field's value as text: strings as they are, numbers and truth values as Python writes them."""
    if value is None:
        raise BadRow(f"the field {path!r} is empty (null)")
    if isinstance(value, Mapping | list | tuple | bytes):
        kind = {dict: "a record", bytes: "bytes"}.get(type(value), "a list")
        raise BadRow(
            f"the field {path!r} is {kind} and not a text; name one element of it, such as '{path}.0'"
        )
    return str(value)


class Template:
    """Text with fields in braces, "{context}\\nQuestion: {question}\\nAnswer:"; `{{` and `}}` are braces.

    >>> Template("{a.b}, {{c}}")({"a": {"b": 3}})
    '3, {c}'
    """

    def __init__(self, text: str):
        self.text = text
        try:
            pieces = list(Formatter().parse(text))
        except ValueError as error:
            raise WorkbenchError(
                f"the template {text[:60]!r} cannot be read ({error}); write a brace of the text itself twice"
            ) from None
        for _, name, form, conversion in pieces:
            if name == "":
                raise WorkbenchError(f"the template {text[:60]!r} has braces without a field's name")
            if form or conversion:
                raise WorkbenchError(
                    f"the template's field {{{name}}} has a format ({conversion or form}); fields are written plainly"
                )
        self._pieces = [(literal, name) for literal, name, _, _ in pieces]

    @property
    def fields(self) -> tuple[str, ...]:
        """The paths of the fields that it uses, in order, each once."""
        return tuple(dict.fromkeys(name for _, name in self._pieces if name is not None))

    def __call__(self, row: Mapping[str, Any]) -> str:
        """The text for one row; raises BadRow naming the field that is missing or no text."""
        return "".join(
            literal + ("" if name is None else text_of(look_up(row, name), name))
            for literal, name in self._pieces
        )


@dataclass(frozen=True)
class Shape:
    """What a row becomes: `shape(row)` is its Example, or a BadRow."""

    template: Template
    answer: str
    """The path of the answer; a list there gives several references, and the first is trained on."""
    choices: str | tuple[str, ...] | None = None
    """The label words, or the path of a list of them in each row."""
    unanswerable: str | None = None
    """The answer where the list of answers is empty; None: such a row is bad."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The paths that are read of each row."""
        return tuple(
            dict.fromkeys(
                (
                    *self.template.fields,
                    self.answer,
                    *((self.choices,) if isinstance(self.choices, str) else ()),
                )
            )
        )

    def __call__(self, row: Mapping[str, Any]) -> Example:
        """The row's Example; answers are stripped and follow the prompt after one space (see `task.joined`)."""
        prompt = self.template(row)
        found = look_up(row, self.answer)
        many = list(found) if isinstance(found, Sequence) and not isinstance(found, str | bytes) else [found]
        if not many and self.unanswerable is not None:
            many = [self.unanswerable]
        answers = tuple(dict.fromkeys(text for each in many if (text := text_of(each, self.answer).strip())))
        if not answers:
            raise BadRow(f"the field {self.answer!r} has no answer in it")
        choices = self._choices(row)
        if choices and label_words(answers[0]) not in [label_words(choice) for choice in choices]:
            raise BadRow(
                f"the field {self.answer!r} is {answers[0]!r:.40}, none of the choices {', '.join(choices)}"
            )
        return Example(prompt, joined(prompt, answers[0]), answers, choices, row)

    def _choices(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        if self.choices is None or not isinstance(self.choices, str):
            return self.choices or ()
        found = look_up(row, self.choices)
        if not isinstance(found, Sequence) or isinstance(found, str | bytes) or not found:
            raise BadRow(f"the field {self.choices!r} is not a list of label words")
        return tuple(text_of(choice, self.choices) for choice in found)

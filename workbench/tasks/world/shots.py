"""Worked examples before a question: k-shot text for a family whose samples stand on their own.

It holds no family. Relations write their own k-shot text, since they say their instruction only once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from workbench.errors import WorkbenchError
from workbench.tasks.world.sample import Sample, Split


def check_count(option: str, what: str, number: int) -> None:
    """Raises WorkbenchError unless `number` is a whole number from 0 on."""
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise WorkbenchError(f"{option} is the number of {what}, 0 or more, not {number!r}")


def check_shots(shots: int) -> None:
    """Raises WorkbenchError unless `shots` is a whole number from 0 on."""
    check_count("shots", "worked examples", shots)


def few_shot(make: Callable[..., Sample]) -> Callable[..., Sample]:
    """`make` with an option `shots`: that many answered samples of the train split before the question.

    `fields["shown"]` has the indices, in words of the prompt, of the answers that the examples show.
    """

    def with_shots(rng: Random, split: Split, shots: int = 0, **options: Any) -> Sample:
        check_shots(shots)
        examples = [make(rng, "train", **options) for _ in range(shots)]
        sample = make(rng, split, **options)
        if not shots:
            return sample
        read = 0
        shown: list[int] = []
        for example in examples:
            start = read + example.prompt.count(" ") + 1
            shown += [read + index for index in example.fields.get("shown", ())]
            read = start + example.answer.count(" ") + 2
            shown += range(start, read - 1)
        shown += [read + index for index in sample.fields.get("shown", ())]
        before = " ".join(f"{example.text} ." for example in examples)
        fields = {**sample.fields, "shots": shots, "shown": tuple(shown)}
        return replace(sample, prompt=f"{before} {sample.prompt}", fields=fields)

    return with_shots

"""Walks over the vocabulary behind the questions that were answered: what a layer makes of tokens that nobody chose.

    seen = wb.trace(backbone, prompts, "all", "answer", generate=config)    # answers, as they are written
    walks = random_walks(backbone, seen)                                    # as many tokens behind each of the prompts
    localisation(paths(seen)["layer 2"], paths(walks)["layer 2"])

Measures nothing: `trajectories.py` compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.analysis.trace import Trace, trace
from workbench.analysis.trace_places import Layers
from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError
from workbench.methods.method import Method
from workbench.tasks.encode import Encoded, TextConfig, encode_question

__all__ = ["answers", "paths", "random_walks", "read_behind", "vocabulary"]


def vocabulary(backbone: Backbone) -> NDArray[np.int64]:
    """The tokens that a walk is drawn from: all of the tokenizer's but the special ones."""
    size = min(backbone.vocabulary_size, len(backbone.tokenizer))
    return np.setdiff1d(np.arange(size), backbone.tokenizer.all_special_ids)


def random_walks(backbone: Backbone, seen: Trace, method: Method | None = None, seed: int = 0) -> Trace:
    """What the model makes of random tokens in place of the answers of a trace, in the same places.

    Args:
        backbone, method: as the trace was made with.
        seen: answers that were written and traced at all of their tokens.
        seed: of the tokens, each of which is drawn from the vocabulary, all alike likely.

    Returns:
        A trace of the answers' tokens; texts without an answer are left out.

    Raises:
        WorkbenchError: a trace of texts that were read and not written, or not at all of their answers' tokens.
    """
    if seen.settings["generate"] is None:
        raise WorkbenchError(
            "this trace is of texts that were read, so there are no answers to put a walk beside; trace a generation"
        )
    if (positions := seen.settings["positions"]) not in ("all", "answer"):
        raise WorkbenchError(
            f"this trace is at positions {positions!r}, which leave out tokens of the answers; trace with positions='answer'"
        )
    words, dice = vocabulary(backbone), np.random.default_rng(seed)
    walks = [dice.choice(words, len(answer)) for answer in answers(seen)]
    prompts = [text["prompt"] for text in seen.texts]
    return read_behind(backbone, prompts, walks, seen.places, TextConfig(**seen.settings["text"]), method)


def read_behind(
    backbone: Backbone,
    prompts: Sequence[str],
    tokens: Sequence[ArrayLike],
    places: Layers,
    text: TextConfig,
    method: Method | None = None,
) -> Trace:
    """A trace of tokens, a list of them for each prompt, read behind it as if they had been written.

    Prompts without any are left out.
    """
    rows = []
    for prompt, given in zip(prompts, tokens, strict=True):
        question = encode_question(prompt, backbone.tokenizer, text)
        if len(behind := np.asarray(given, np.int64)):
            rows.append(Encoded((*question.ids, *behind.tolist()), len(question.ids), question.prompt_at))
    return trace(backbone, rows, places, "answer", method)


def answers(seen: Trace) -> list[NDArray[np.int64]]:
    """Of each text of a trace the tokens of its answer that were kept; those of a trace at the answer are all."""
    inside = seen.rows["is_answer"].to_numpy()
    text, token = (seen.rows[name].to_numpy()[inside] for name in ("text", "token_id"))
    return [token[text == number] for number in range(len(seen.texts))]


def paths(seen: Trace) -> dict[str, list[NDArray[np.floating]]]:
    """Place to one path (T, d) for each text that has rows, token after token."""
    cuts = np.flatnonzero(np.diff(seen.rows["text"].to_numpy())) + 1
    return {place: np.split(seen[place], cuts) for place in seen.places}

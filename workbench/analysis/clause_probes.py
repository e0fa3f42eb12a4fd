"""Linear probes: which value of a clause can be read off a state, by one reader for each kind of clause.

    probes = train_probes(backbone, prompts)               # other prompts than those that are then looked at
    wb.forgetting(backbone, prompt, probes=probes)         # measures state_probe and state_probe_control

A probe is trained on states from all over the texts of its prompts, so that it says at any step what the state holds then. It looks
at one state at a time, and never at a text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from workbench.analysis.trace import trace
from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError
from workbench.methods.generate import default_config
from workbench.methods.method import Method
from workbench.tasks.clauses import Clause, ClausePrompt
from workbench.tasks.encode import TextConfig, continuation_ids, encode_question

Floats = NDArray[np.float64]

_RIDGE = 0.1
"""Penalty for each state of a probe's training; there are more numbers in a state than states."""


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear reader of one kind of clause. `values` are K; `control` reads values that were shuffled."""

    values: tuple[str, ...]
    scale: Any
    own: Any
    control: Any

    def names(self, vectors: Floats, shuffled: bool) -> NDArray[np.int64]:
        """(T,) which of the values it names, of states (T, n)."""
        said = (self.control if shuffled else self.own).predict(self.scale.transform(vectors))
        named: NDArray[np.int64] = said.argmax(1)
        return named


@dataclass(frozen=True, eq=False)
class ClauseProbes:
    """Probes by the kind of clause."""

    probes: Mapping[str, Probe]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of clauses that there is a probe for."""
        return tuple(self.probes)

    def right(
        self, states: Mapping[int, Tensor], clauses: Sequence[Clause], shuffled: bool = False
    ) -> Floats:
        """(T, C) of states, layer to (T, n): 1 where each clause's own value is named, else 0; nan where none knows it."""
        vectors = np.concatenate([layer.detach().cpu().double().numpy() for layer in states.values()], axis=1)
        found = np.full((len(vectors), len(clauses)), np.nan)
        for column, clause in enumerate(clauses):
            probe = self.probes.get(clause.kind or "")
            if probe is not None and clause.value in probe.values:
                found[:, column] = probe.names(vectors, shuffled) == probe.values.index(clause.value)
        return found


def train_probes(
    backbone: Backbone,
    prompts: Sequence[ClausePrompt],
    method: Method | None = None,
    text: TextConfig | None = None,
    every: int = 25,
    seed: int = 0,
) -> ClauseProbes:
    """Train a probe for each kind of clause that has two values or more in the prompts.

    Ridge regression onto indicators of values, of the standardised states of all layers side by side (ours; probes after Alain and
    Bengio 2016, the control after Hewitt and Liang 2019). The control's values are shuffled over the prompts of the kind, and stay one
    a prompt. It takes many prompts: a kind of twenty values wants hundreds that have it.

    Args:
        backbone: one whose states can be read.
        prompts: with clauses "kind : value ." and answers.
        method: what is put into the model while it reads, or None.
        text: how text becomes tokens; by default as the method's did in training.
        every: steps from one state to the next, the first being that right after the prompt.
        seed: of the shuffle.

    Raises:
        WorkbenchError: no state that can be read, a prompt without an answer, or no kind with two values.
    """
    text = text or default_config(method).text
    states: list[Floats] = []
    for number, prompt in enumerate(prompts):
        if prompt.answer is None:
            raise WorkbenchError(
                f"prompt {number} has no answer to read states from; give prompts with answers"
            )
        row = encode_question(prompt.prompt, backbone.tokenizer, text, context_length=backbone.context_length)
        answer = continuation_ids(backbone.tokenizer, prompt.answer)
        size = len(row.ids)
        at = list(range(size - 1, size + len(answer) - 1, every))
        whole = type(row)((*row.ids, *answer), size, row.prompt_at)
        seen = trace(backbone, [whole], "states", at, method)
        states.append(np.concatenate([seen[place] for place in seen.places], axis=1).astype(np.float64))
    asked: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for number, prompt in enumerate(prompts):
        for clause in prompt.clauses:
            if clause.kind is not None and clause.value is not None:
                asked[clause.kind].append((number, clause.value))
    dice = np.random.default_rng(seed)
    probes = {}
    for kind, pairs in sorted(asked.items()):
        values = np.array([value for _, value in pairs])
        if len(set(values)) < 2:
            continue
        probes[kind] = _fit([states[number] for number, _ in pairs], values, dice.permutation(values))
    if not probes:
        raise WorkbenchError(
            "no clause of these prompts has a kind with two values; write clauses as 'kind : value .', in several prompts"
        )
    return ClauseProbes(probes)


def _fit(states: Sequence[Floats], own: NDArray[np.str_], shuffled: NDArray[np.str_]) -> Probe:
    """A probe of G prompts: the states (k, n) of each, its value, and the value that the control is told."""
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    values = sorted(set(own))
    vectors, prompt = np.concatenate(states), np.repeat(np.arange(len(states)), [len(s) for s in states])
    scale = StandardScaler().fit(vectors)
    fitted = [
        Ridge(alpha=_RIDGE * len(vectors)).fit(
            scale.transform(vectors), np.eye(len(values))[np.searchsorted(values, told)[prompt]]
        )
        for told in (own, shuffled)
    ]
    return Probe(tuple(values), scale, *fitted)

"""Measures of how a prompt is forgotten: one registry of pure functions of `Steps`, what is known of some steps of a text.

    MEASURES      name -> Measure; says its label, its unit, and whether it is one number a step, a clause or a layer
    Steps         T steps: the next token's logits under every variant of the prompt, states, attention, …

Step t (from 1) is the t-th token behind the prompt, as it is predicted from the prompt and y_<t; a state or an attention
"at t" is what stands when that is done. Tensors in, arrays out: it runs no model and makes no table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.tasks.clauses import Clause

if TYPE_CHECKING:
    from workbench.analysis.clause_probes import ClauseProbes

Floats = NDArray[np.float64]
Per = Literal["prompt", "clause", "layer"]
Need = Literal["swapped", "states", "attention", "restored", "probes", "met"]


@dataclass(frozen=True, eq=False)
class Steps:
    """What measures read: T steps of one continuation of a prompt of C clauses, over V tokens."""

    tokens: Tensor
    """(T,) the tokens that stand there."""
    prompt: Tensor
    """(T, V) logits of the next token behind the prompt and y_<t."""
    alone: Tensor
    """(T, V) the same without the prompt."""
    without: Sequence[Tensor]
    """C times (T, V): without that clause."""
    clauses: Sequence[Clause]
    """The C clauses."""
    swapped: Sequence[Tensor | None] | None = None
    """C times (T, V): with another prompt's clause of its kind in its place; None where there is none."""
    states: Mapping[int, Tensor] | None = None
    """Layer to (T, n), what the state holds at t; n its own in each layer."""
    first_state: Mapping[int, Tensor] | None = None
    """Layer to (n,), the state right after the prompt."""
    states_without: Sequence[Mapping[int, Tensor]] | None = None
    """C times the same as `states`: without that clause."""
    attention: Mapping[int, Tensor] | None = None
    """Layer to (T,), the weight that the query at t gives the prompt's tokens, mean of heads."""
    restored: Tensor | None = None
    """(T,) log-probability of the token where the prompt is read again just before it; nan where that was not tried."""
    probes: ClauseProbes | None = None
    """Linear readers of clauses' values from states."""
    met: Tensor | None = None
    """(T, C): 1 or 0 at the step where the clause was met or missed, nan at all others."""

    @cached_property
    def given(self) -> Tensor:
        """(T, V) log-probabilities behind the prompt."""
        return _log(self.prompt)

    def spoken(self, log_probabilities: Tensor) -> Tensor:
        """(T,) of (T, V), those of the tokens that stand there."""
        return log_probabilities.gather(1, self.tokens[:, None])[:, 0]


@dataclass(frozen=True)
class Measure:
    """A function of `Steps`, with what an axis and a table say of it. Call it with the steps."""

    function: Callable[[Steps], Floats]
    """Gives (T,), (T, C) or (T, L)."""
    name: str
    label: str
    unit: str
    """For an axis; "" where there is none."""
    per: Per
    needs: tuple[Need, ...]
    """What must be known beside logits."""
    sparse: bool
    """Whether it is known at some steps only, and nan at the others."""
    decades: tuple[int, int] | None = None
    """Of what spans orders, the powers of ten between which it lies: below is as good as nothing."""

    def __call__(self, steps: Steps) -> Floats:
        return self.function(steps)

    @property
    def explain(self) -> str:
        """What it is, in one sentence."""
        return " ".join((self.function.__doc__ or "").split("\n\n")[0].split())


MEASURES: dict[str, Measure] = {}
"""Every measure by its name, in the order in which tables and menus show them."""

_Function = Callable[[Steps], Floats]


def measure(
    label: str,
    unit: str,
    per: Per,
    *needs: Need,
    sparse: bool = False,
    decades: tuple[int, int] | None = None,
) -> Callable[[_Function], _Function]:
    """Puts a function of steps into `MEASURES`, under its own name."""

    def add(function: _Function) -> _Function:
        name = function.__name__
        MEASURES[name] = Measure(function, name, label, unit, per, needs, sparse, decades)
        return function

    return add


@measure("influence of the prompt", "nats", "prompt", decades=(-3, 1))
def influence(steps: Steps) -> Floats:
    """KL( p(·|prompt, y_<t) ‖ p(·|y_<t alone) ): what the prompt still says of the next token.

    Ours. Alone are y_<t and what stands before any text: BOS, a chat template's own words, a method's vectors.
    """
    return _array(divergence(steps.given, steps.alone))


@measure("influence of a clause", "nats", "clause", decades=(-3, 1))
def clause_influence(steps: Steps) -> Floats:
    """KL( p(·|prompt, y_<t) ‖ p(·|prompt without the clause, y_<t) ).

    Ours. The clause's own text is taken out with one space beside it, and the rest of the prompt is as it was.
    """
    return _columns([divergence(steps.given, logits) for logits in steps.without])


@measure("influence of another prompt's clause", "nats", "clause", "swapped", decades=(-3, 1))
def control_influence(steps: Steps) -> Floats:
    """The control: KL( p(·|prompt with another prompt's clause of that kind, y_<t) ‖ p(·|prompt without the clause, y_<t) ).

    Ours: what a clause does to a text that was not written for it. nan where the other prompt has no such clause.
    """
    assert steps.swapped is not None
    pairs = zip(steps.swapped, steps.without, strict=True)
    return _columns([_nowhere(steps) if a is None else divergence(_log(a), b) for a, b in pairs])


@measure("influence of a clause's value", "nats", "clause", "swapped", decades=(-3, 1))
def value_influence(steps: Steps) -> Floats:
    """KL( p(·|prompt, y_<t) ‖ p(·|prompt with another prompt's clause of that kind in its place, y_<t) ).

    Ours: what the clause's own words say, beyond that there is a clause of the kind. nan as for `control_influence`.
    """
    assert steps.swapped is not None
    return _columns([_nowhere(steps) if a is None else divergence(steps.given, a) for a in steps.swapped])


@measure("log-probability of the token", "nats", "prompt")
def log_probability(steps: Steps) -> Floats:
    """Log-probability of the token that stands there, behind the prompt and y_<t."""
    return _array(steps.spoken(steps.given))


@measure("gain of the token by a clause", "nats", "clause")
def clause_gain(steps: Steps) -> Floats:
    """log p(y_t|prompt, y_<t) - log p(y_t|prompt without the clause, y_<t): what the clause did for this very token.

    Ours; pointwise mutual information of clause and token, given all the rest. Below 0 where the clause spoke against it.
    """
    own = steps.spoken(steps.given)
    return _columns([own - steps.spoken(_log(logits)) for logits in steps.without])


@measure("cosine of the state to the prompt's", "", "layer", "states")
def state_cosine(steps: Steps) -> Floats:
    """Cosine of a layer's state to its state right after the prompt: 1 at the first step. Ours."""
    assert steps.states is not None and steps.first_state is not None
    pairs = [(states, steps.first_state[layer]) for layer, states in steps.states.items()]
    return _columns([torch.cosine_similarity(now, first[None], dim=1) for now, first in pairs])


@measure("what the state holds of a clause: 1 - cosine", "", "clause", "states", decades=(-3, -1))
def clause_state(steps: Steps) -> Floats:
    """1 - cosine of the state to what it would be without the clause, mean of layers: 0 where nothing of it is left.

    Ours. It says how far the clause still turns the state, and not whether its value can be read off it: see `state_probe`.
    """
    assert steps.states is not None and steps.states_without is not None
    without = [
        torch.stack(
            [torch.cosine_similarity(now, other[layer], dim=1) for layer, now in steps.states.items()]
        )
        for other in steps.states_without
    ]
    return _columns([1 - of_layers.mean(0) for of_layers in without])


@measure("the state tells the clause's value", "right", "clause", "states", "probes")
def state_probe(steps: Steps) -> Floats:
    """1 where a linear probe, trained on other prompts, names the clause's value from the state at t, else 0; a mean is its accuracy.

    Ours, after Alain and Bengio 2016 (arXiv 1610.01644). nan where no probe knows the clause's kind and its value.
    """
    assert steps.states is not None and steps.probes is not None
    return steps.probes.right(steps.states, steps.clauses)


@measure("the same, of shuffled values", "right", "clause", "states", "probes")
def state_probe_control(steps: Steps) -> Floats:
    """The control: the same of a probe that was trained with values shuffled over prompts.

    After Hewitt and Liang 2019 (EMNLP), whose control draws labels where ours shuffles them.
    """
    assert steps.states is not None and steps.probes is not None
    return steps.probes.right(steps.states, steps.clauses, shuffled=True)


@measure("restoration", "nats", "prompt", "restored", sparse=True)
def restoration(steps: Steps) -> Floats:
    """Change in the log-probability of the token at t when the prompt is read again just before it. Ours."""
    assert steps.restored is not None
    return _array(steps.restored - steps.spoken(steps.given))


@measure("attention to the prompt", "share of attention", "layer", "attention")
def attention_mass(steps: Steps) -> Floats:
    """Share of a layer's attention, at the position that predicts the token, on the prompt's own tokens, mean of heads.

    Ours. BOS, a chat template's words and a method's vectors are not the prompt's; a reading again is.
    """
    assert steps.attention is not None
    return _columns(list(steps.attention.values()))


@measure("clause met", "", "clause", "met", sparse=True)
def met(steps: Steps) -> Floats:
    """1 where a clause fell due and was met, 0 where it was missed; nothing at other steps. By its own check, see `checks.py`."""
    assert steps.met is not None
    return _array(steps.met)


def divergence(log_p: Tensor, logits: Tensor) -> Tensor:
    """KL( p ‖ q ) in nats, (T,), of log-probabilities p and logits of q, (T, V) each (Kullback and Leibler 1951).

    >>> half, quarter = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
    >>> round(float(divergence(half.log(), quarter.log())), 6)     # 0.5·log 2 + 0.5·log 2/3
    0.143841
    """
    p = log_p.exp()
    terms = (log_p - _log(logits)).mul_(p)
    return terms.masked_fill_(p == 0, 0.0).sum(1)  # where p is 0, log p may be -inf


def _log(logits: Tensor) -> Tensor:
    """(T, V) log-probabilities, in float32 or finer."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def _nowhere(steps: Steps) -> Tensor:
    return torch.full(steps.tokens.shape, torch.nan)


def _columns(values: Sequence[Tensor]) -> Floats:
    """(T, …) of values of (T,) each."""
    return _array(torch.stack([value.cpu().double() for value in values], dim=1))


def _array(values: Tensor) -> Floats:
    found: Floats = values.detach().cpu().double().numpy()
    return found

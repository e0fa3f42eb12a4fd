"""How a prompt is forgotten while a text goes on behind it, step by step.

    seen = wb.forgetting(backbone, "write a story . hero : tom . pet : fox not owl . begin :")
    seen.table                            # step, token_id, token, measure, clause, layer, value
    seen.due                              # each clause: when it fell due, met or missed
    for step in wb.follow_forgetting(backbone, prompt, method=method):
        print(step.token, step.influence, step.clause_influence)

Every token is predicted behind the prompt, behind nothing, and behind the prompt without each clause, all of them rows of one
batch (`clause_variants.py`); what differs is measured (`forgetting_measures.py`). A given text and one that is being written have
the same numbers. It trains nothing and draws nothing.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from workbench.analysis.clause_variants import MOST_LOGITS, VariantReader, make_variants
from workbench.analysis.forgetting_measures import MEASURES, Floats, Need, Steps
from workbench.backbones.backbone import Backbone
from workbench.backbones.states import state_sizes
from workbench.errors import WorkbenchError, unknown
from workbench.methods.generate import GenerateConfig, choose, default_config, end_tokens
from workbench.methods.injection import NOTHING
from workbench.methods.method import Method
from workbench.tasks.checks import Verdict
from workbench.tasks.clauses import Clause, ClausePrompt, guess
from workbench.tasks.encode import continuation_ids

if TYPE_CHECKING:
    from workbench.analysis.clause_probes import ClauseProbes

COLUMNS = ["step", "token_id", "token", "measure", "clause", "layer", "value"]
OF_STATES = ("state_cosine", "clause_state")
"""Measures for which a state is read after each token; of a given text that is another way of reading, so they are asked for."""
LIKELY = 5
"""Tokens whose probabilities a step names."""


@dataclass(frozen=True, eq=False)
class ForgettingStep:
    """One token that was written, or read of a given text, and what the prompt said of it.

    Clauses are numbered from 1 in the prompt's order, as in the table of `Forgetting`.
    """

    index: int
    """Its number behind the prompt, from 1."""
    token_id: int
    token: str
    text: str
    """All that stands behind the prompt, this token included, and stop strings not."""
    likely: tuple[tuple[str, float], ...]
    """The likeliest tokens behind the prompt, with their probabilities."""
    values: Mapping[str, Floats]
    """Measure to its value: (), (C,) a clause, or (L,) a layer."""
    fell: Mapping[int, bool]
    """Clauses of which it is known with this token that they fell due, and whether each was met. A word is known to be whole
    when the next one begins, so this comes a token later than the word."""
    done: bool
    """Whether it is the last."""

    @property
    def influence(self) -> float:
        """Of the whole prompt, in nats."""
        return float(self.values["influence"])

    @property
    def clause_influence(self) -> Floats:
        """(C,) of each clause, in nats."""
        return self.values["clause_influence"]

    @property
    def state_cosine(self) -> float:
        """Of the state to the prompt's, mean of layers; nan where it was not asked for, or there is no state."""
        return float(np.mean(self.values.get("state_cosine", np.nan)))

    @property
    def log_probability(self) -> float:
        """Of the token behind the prompt, in nats."""
        return float(self.values["log_probability"])


@dataclass(frozen=True, eq=False)
class Forgetting:
    """What became of a prompt in one text. Clauses are numbered from 1; 0 stands for the whole prompt.

    Attributes:
        prompt: with its clauses.
        ids: the tokens behind the prompt.
        text: the same, as text.
        verdicts: what became of each clause, by its own check.
        again_at: the step before which the prompt was read again; None where it was not.
        values: measure to (T,), (T, C) or (T, L).
    """

    prompt: ClausePrompt
    ids: tuple[int, ...]
    text: str
    verdicts: tuple[Verdict, ...]
    again_at: int | None
    values: Mapping[str, Floats]
    tokens: tuple[str, ...]
    layers: Mapping[str, tuple[int, ...]] = field(repr=False)
    _due_steps: tuple[int | None, ...] = field(repr=False)

    @property
    def met(self) -> tuple[bool | None, ...]:
        """Whether each clause was met; None where it never fell due, or has no check."""
        return tuple(verdict.met for verdict in self.verdicts)

    @property
    def due(self) -> pd.DataFrame:
        """A row for each clause: clause, text, met (None: never due), step (how many tokens behind the prompt its due word stands;
        missing where only the whole text decides), found (what stands there)."""
        return pd.DataFrame(
            {
                "clause": np.arange(1, len(self.verdicts) + 1),
                "text": [clause.text for clause in self.prompt.clauses],
                "met": pd.array(self.met, "boolean"),
                "step": pd.array(self._due_steps, "Int64"),
                "found": [verdict.found for verdict in self.verdicts],
            }
        )

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row for each number: step, token_id, token, measure, clause (0: the whole prompt), layer (-1: none), value.

        In the order of measures, steps, clauses. Of a measure that is known at some steps only, those.
        """
        count = np.arange(1, len(self.ids) + 1)
        parts = []
        for name, values in self.values.items():
            wide = values.reshape(len(count), -1)
            here = ~np.isnan(wide) if MEASURES[name].sparse else np.ones_like(wide, bool)
            row, column = here.nonzero()
            per = MEASURES[name].per
            layers = np.asarray(self.layers.get(name, (-1,)))
            parts.append(
                pd.DataFrame(
                    {
                        "step": count[row],
                        "token_id": np.asarray(self.ids)[row],
                        "token": np.asarray(self.tokens, object)[row],
                        "measure": name,
                        "clause": column + 1 if per == "clause" else 0,
                        "layer": layers[column] if per == "layer" else -1,
                        "value": wide[row, column],
                    },
                    columns=COLUMNS,
                )
            )
        return pd.concat(parts, ignore_index=True)

    def matrix(self, measure: str = "clause_influence") -> pd.DataFrame:
        """One measure as a heat map has it: clauses (or layers, or the prompt alone) by steps.

        Raises:
            WorkbenchError: a measure that was not asked for.
        """
        if measure not in self.values:
            raise unknown("measure of this text", measure, self.values)
        wide = self.values[measure].reshape(len(self.ids), -1).T
        names: Any = {
            "clause": [clause.text for clause in self.prompt.clauses],
            "layer": [f"layer {layer}" for layer in self.layers.get(measure, ())],
            "prompt": ["prompt"],
        }[MEASURES[measure].per]
        return pd.DataFrame(wide, index=names, columns=np.arange(1, len(self.ids) + 1))

    def __repr__(self) -> str:
        return f"Forgetting({len(self.ids)} steps, {len(self.verdicts)} clauses, {', '.join(self.values)})"


def forgetting(
    backbone: Backbone,
    prompt: str | ClausePrompt,
    clauses: str | Clause | Sequence[str | Clause] | None = None,
    method: Method | None = None,
    continuation: str | Sequence[int] | None = None,
    measures: Sequence[str] | None = None,
    config: GenerateConfig | None = None,
    *,
    control: ClausePrompt | None = None,
    probes: ClauseProbes | None = None,
    restore_at: Sequence[int] = (),
    again_at: int | None = None,
) -> Forgetting:
    """Measure how a prompt is forgotten, in a text that the model writes or in a given one.

    >>> story = wb.load_task("stories", clauses=6, length=200)[0]
    >>> seen = wb.forgetting(backbone, wb.from_story(story.prompt), continuation=story.answer)
    >>> seen.matrix("clause_influence")

    The prompt alone, and without each clause, are read in one batch with it. What is left without a clause is the rest of the prompt as
    it was, and without the prompt BOS and whatever else is put before a text; where there is none of that, EOS.

    Args:
        backbone: the frozen model.
        prompt: a text, or one with clauses.
        clauses: parts of the text, or one of them; None for a prompt's own, or, of a text, those that `clauses.guess` finds.
        method: what is put into the model, or None. It is given every variant as a prompt of its own.
        continuation: the text, as it follows the prompt with its leading space, or its tokens; None to let the model write it.
        measures: names in `MEASURES`; None for all that cost no other way of reading: not those of states and of attention.
        config: how a text is written, and how text becomes tokens; by default as the method's did in training.
        control: another prompt, whose clauses of the same kinds show what any such clause would do. A curve's band over seeds, and
            a control by another prompt as a whole, are calls of their own, with the same continuation.
        probes: readers of the state, see `clause_probes.train_probes`.
        restore_at: steps (from 1) at which the prompt is tried once more, each a row of its own; for the measure restoration.
        again_at: the number of tokens behind which the prompt is read again, to stay: each variant as it is put there.

    Raises:
        WorkbenchError: an empty prompt, clauses that are none or do not occur in it, a prompt that does not fit, a measure that the
            backbone cannot give or that lacks what it needs, or a method that was made for another backbone.
    """
    lens = _Lens(backbone, prompt, clauses, method, measures, config, control, probes, restore_at)
    tokens = None if continuation is None else lens.tokens(continuation)
    most = lens.config.max_new_tokens if tokens is None else len(tokens)
    if again_at is not None and not 0 <= again_at < most:
        raise WorkbenchError(
            f"again_at is {again_at}; give a number from 0 to {most - 1}, so that text follows"
        )
    written: list[int] = []
    values: list[dict[str, Floats]] = []
    layers: dict[str, tuple[int, ...]] = {}
    for again, end in ((False, most),) if again_at is None else ((False, again_at), (True, most)):
        if end == len(written) and not again:
            continue
        reader = lens.reader(written, again, most)
        layers, before = reader.layers, len(written)
        if tokens is not None:
            written = tokens[:end]
            values += lens.read(reader, tokens[before:end])
        else:
            for token, steps, _ in lens.write(reader, end):
                written.append(token)
                values.append(lens.measure(steps))
        if len(written) < end:  # it ended
            break
    if not written:
        raise WorkbenchError(
            f"{backbone.name} ends its text at once; give a continuation, or sample (temperature above 0)"
        )
    text = lens.text(written, cut=tokens is None)
    verdicts = lens.prompt.judge(text)
    due = tuple(lens.step_of(written, verdict) for verdict in verdicts)
    joined = {name: np.concatenate([part[name] for part in values]) for name in values[0]}
    if "met" in lens.names:
        joined["met"] = _met(lens.prompt, written, verdicts, due)
    return Forgetting(
        lens.prompt,
        tuple(written),
        text,
        verdicts,
        again_at,
        {name: joined[name] for name in lens.names},
        tuple(map(lens.word, written)),
        layers,
        due,
    )


def follow_forgetting(
    backbone: Backbone,
    prompt: str | ClausePrompt,
    clauses: str | Clause | Sequence[str | Clause] | None = None,
    method: Method | None = None,
    continuation: str | Sequence[int] | None = None,
    measures: Sequence[str] | None = None,
    config: GenerateConfig | None = None,
    *,
    control: ClausePrompt | None = None,
    probes: ClauseProbes | None = None,
    restore_at: Sequence[int] = (),
    written: str | Sequence[int] = (),
    again: bool = False,
) -> Iterator[ForgettingStep]:
    """The same numbers as `forgetting` has, token by token, while the text is written (or a given one is read).

    >>> for step in wb.follow_forgetting(backbone, prompt):
    ...     print(step.token, step.influence)
    >>> wb.follow_forgetting(backbone, prompt, written=seen.ids[:40], again=True)     # from step 41 on, the prompt read again

    What is asked for is checked at once, not when the first step is.

    Args:
        measures: as in `forgetting`; None takes state_cosine and clause_state as well, on a backbone whose state can be read.
        written: a text behind the prompt, or its tokens, from which it goes on; its own steps are not given. Sampling takes the dice that
            it would have had there.
        again: whether the prompt is read again behind it.

    Raises:
        WorkbenchError: see `forgetting`.
    """
    if measures is None and can_read_state(backbone):
        measures = [*_Lens.default(control, probes, restore_at), *OF_STATES]
    lens = _Lens(backbone, prompt, clauses, method, measures, config, control, probes, restore_at)
    before = lens.tokens(written) if len(written) else []
    given = None if continuation is None else lens.tokens(continuation)
    end = lens.config.max_new_tokens if given is None else len(before) + len(given)
    if end <= len(before):
        raise WorkbenchError(
            f"{len(before)} tokens are written already and max_new_tokens is {end}; raise it to go on"
        )
    return lens.follow(lens.reader(before, again, end), before, end, given)


class _Lens:
    """What was asked for, checked; and how tokens become steps, numbers and text."""

    def __init__(
        self,
        backbone: Backbone,
        prompt: str | ClausePrompt,
        clauses: str | Clause | Sequence[str | Clause] | None,
        method: Method | None,
        measures: Sequence[str] | None,
        config: GenerateConfig | None,
        control: ClausePrompt | None,
        probes: ClauseProbes | None,
        restore_at: Sequence[int],
    ):
        self.backbone, self.config = backbone, config or default_config(method)
        self.prompt, self.probes = _prompt(prompt, clauses), probes
        self.restore_at = sorted(set(restore_at))
        if self.restore_at and self.restore_at[0] < 1:
            raise WorkbenchError(f"restore_at has step {self.restore_at[0]}; the first step is 1")
        self.names = list(measures) if measures is not None else self.default(control, probes, restore_at)
        given = {"swapped": control, "probes": probes, "restored": self.restore_at or None}
        arguments = {"swapped": "control", "probes": "probes", "restored": "restore_at"}
        for name in self.names:
            if name not in MEASURES:
                raise unknown("measure", name, MEASURES)
            for need in MEASURES[name].needs:
                if need in given and given[need] is None:
                    raise WorkbenchError(
                        f"the measure {name} needs {arguments[need]}; give it, or leave the measure out"
                    )
        self.stepwise = [name for name in self.names if "met" not in MEASURES[name].needs]
        with torch.no_grad():
            self.injection = NOTHING if method is None else method.injection()
        marked = self.config.text.prompt_position == "marker"
        self.variants = make_variants(self.prompt, control if self.needs("swapped") else None, marked)
        self._ends = end_tokens(backbone)
        self._words: dict[int, str] = {}

    @staticmethod
    def default(control: object, probes: object, restore_at: Sequence[int]) -> list[str]:
        """The measures that need nothing more than what was given."""
        have = {"met", *(["swapped"] if control is not None else []), *(["restored"] if restore_at else [])}
        have |= {"states", "probes"} if probes is not None else set()
        return [name for name, m in MEASURES.items() if set(m.needs) <= have and name not in OF_STATES]

    def needs(self, need: Need) -> bool:
        """Whether a measure that was asked for needs it."""
        return any(need in MEASURES[name].needs for name in self.names)

    def reader(self, written: Sequence[int], again: bool, room: int) -> VariantReader:
        """A reader of all variants, `room` tokens behind each."""
        reader = VariantReader(
            self.backbone,
            self.injection,
            self.config.text,
            self.variants,
            written,
            again,
            self.needs("states"),
            self.needs("attention"),
        )
        reader.check(room, self.restore_at if self.needs("restored") else ())
        return reader

    def measure(self, steps: Steps) -> dict[str, Floats]:
        """The numbers of some steps."""
        steps = replace(steps, probes=self.probes)
        return {name: MEASURES[name](steps) for name in self.stepwise}

    def read(self, reader: VariantReader, tokens: list[int]) -> list[dict[str, Floats]]:
        """The numbers of a given text: in one pass, unless states are wanted after each token, or logits would not fit."""
        if self.needs("states") or reader.numbers_a_step * len(tokens) > MOST_LOGITS:
            return [
                self.measure(steps)
                for _, steps, _ in self.write(reader, len(reader.written) + len(tokens), tokens)
            ]
        steps = reader.whole(tokens)
        if self.needs("restored"):
            before = len(reader.written)
            here = [at - before for at in self.restore_at if before < at <= before + len(tokens)]
            steps = replace(steps, restored=reader.restored(tokens, here))
        return [self.measure(steps)]

    def write(
        self, reader: VariantReader, end: int, given: Sequence[int] | None = None
    ) -> Iterator[tuple[int, Steps, bool]]:
        """(token, its step, whether it is the last), up to `end` tokens behind the prompt: chosen, or given."""
        dice = torch.Generator().manual_seed(self.config.seed << 20)  # as `generate` has them for one prompt
        for _ in reader.written if self.config.temperature else ():
            torch.rand((), generator=dice)
        tokens: list[int] = []

        def following(logits: Tensor) -> int | None:
            if given is not None:
                return given[len(tokens)]
            token = int(choose(logits[None].float(), self.config, [dice])[0])
            return None if token in self._ends else token

        token = following(reader.begin())
        while token is not None:
            tokens.append(token)
            at = len(reader.written) + len(tokens)
            steps = reader.step(token)
            if self.needs("restored"):
                here = [len(tokens)] if at in self.restore_at else []
                steps = replace(steps, restored=reader.restored(tokens, here)[-1:])
            text = self.text([*reader.written, *tokens]) if given is None and self.config.stop else ""
            done = at == end or any(stop in text for stop in self.config.stop)
            after = None if done else following(reader.feed(token))
            yield token, steps, after is None
            token = after

    def follow(
        self, reader: VariantReader, before: Sequence[int], end: int, given: Sequence[int] | None
    ) -> Iterator[ForgettingStep]:
        """The steps, one by one."""
        written = list(before)
        known: dict[int, bool | None] = {}
        if before:
            known = self._fell(self.text(before), False, {})
        for token, steps, done in self.write(reader, end, given):
            written.append(token)
            text = self.text(written, cut=given is None)
            fell = self._fell(text, done, known)
            known |= fell
            values = self.measure(steps)
            likely = steps.given[0].exp().topk(min(LIKELY, steps.given.shape[1]))
            yield ForgettingStep(
                len(written),
                token,
                self.word(token),
                text,
                tuple(
                    (self.word(t), p)
                    for p, t in zip(likely.values.tolist(), likely.indices.tolist(), strict=True)
                ),
                {name: value[0] for name, value in values.items()},
                {clause: bool(met) for clause, met in fell.items()},
                done,
            )

    def _fell(self, text: str, done: bool, known: Mapping[int, bool | None]) -> dict[int, bool | None]:
        """Clauses, from 1, of which more is known than before; of a text that goes on, by its whole words."""
        if not done:
            text = text[: max((found.start() for found in re.finditer(r"\s", text)), default=0)]
        found = enumerate(self.prompt.judge(text), 1)
        return {
            clause: verdict.met
            for clause, verdict in found
            if verdict.met is not None
            and (done or verdict.at is not None)
            and known.get(clause) != verdict.met
        }

    def tokens(self, continuation: str | Sequence[int]) -> list[int]:
        """The tokens of a text behind the prompt."""
        if isinstance(continuation, str):
            text = continuation.lstrip() if self.config.text.chat_template else continuation
            ids = continuation_ids(self.backbone.tokenizer, text)
        else:
            ids = [int(token) for token in continuation]
        if not ids:
            raise WorkbenchError("the continuation is empty; give a text, or None to let the model write it")
        return ids

    def text(self, tokens: Sequence[int], cut: bool = False) -> str:
        """The text of tokens, cut before a stop string."""
        text = str(self.backbone.tokenizer.decode(list(tokens), skip_special_tokens=True))
        stops = [at for stop in self.config.stop if cut and (at := text.find(stop)) >= 0]
        return text[: min(stops, default=len(text))]

    def word(self, token: int) -> str:
        """One token as text."""
        if token not in self._words:
            self._words[token] = str(self.backbone.tokenizer.decode([token]))
        return self._words[token]

    def step_of(self, tokens: Sequence[int], verdict: Verdict) -> int | None:
        """The step in whose token the character stands at which a clause was decided."""
        if verdict.at is None:
            return None
        at = verdict.at
        count = range(1, len(tokens) + 1)
        return 1 + bisect.bisect_right(count, at, key=lambda size: len(self.text(tokens[:size])))


def can_read_state(backbone: Backbone) -> bool:
    """Whether the backbone has a state that can be read."""
    try:
        return bool(state_sizes(backbone))
    except WorkbenchError:
        return False


def _prompt(
    prompt: str | ClausePrompt, clauses: str | Clause | Sequence[str | Clause] | None
) -> ClausePrompt:
    if not isinstance(prompt, str | ClausePrompt):
        raise WorkbenchError(
            f"the prompt is {prompt!r:.60}; give one text, or one prompt with clauses (ClausePrompt)"
        )
    if clauses is None:
        if isinstance(prompt, ClausePrompt):
            return prompt
        if not prompt.strip():
            raise WorkbenchError("the prompt is empty; write what is asked for")
        return guess(prompt)
    many = (clauses,) if isinstance(clauses, str | Clause) else tuple(clauses)
    for clause in many:
        if not isinstance(clause, str | Clause):
            raise WorkbenchError(f"a clause is {clause!r:.60}; give a part of the prompt's text, or a Clause")
    own = tuple(Clause(clause) if isinstance(clause, str) else clause for clause in many)
    if isinstance(prompt, ClausePrompt):
        return replace(prompt, clauses=own)
    return ClausePrompt(prompt, own)


def _met(
    prompt: ClausePrompt, tokens: Sequence[int], verdicts: Sequence[Verdict], due: Sequence[int | None]
) -> Floats:
    """(T, C) the measure of the same name."""
    found = torch.full((len(tokens), len(verdicts)), torch.nan, dtype=torch.float64)
    for clause, (verdict, step) in enumerate(zip(verdicts, due, strict=True)):
        if step is not None and verdict.met is not None:
            found[step - 1, clause] = float(verdict.met)
    nothing = torch.empty(len(tokens), 0)
    return MEASURES["met"](Steps(torch.tensor(tokens), nothing, nothing, (), prompt.clauses, met=found))

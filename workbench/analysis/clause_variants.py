"""The variants of a prompt, read side by side: as it is, not there, without each clause, with another's clause instead.

    variants = make_variants(prompt, control)             # texts
    reader = VariantReader(backbone, variants, …)         # encoded, for one backbone and method
    reader.whole(tokens)                                  # Steps of a given text, in one pass
    reader.begin() … reader.step(token)                   # the same, token by token

All variants are the rows of one batch, each with its own prompt up to `answer_start`, and go through `apply.Decoder` as any row
does, so that a method does to each what it does to a prompt; where there is none, it has nothing to write into the weights. It
chooses no token and measures nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workbench.analysis.attention_weights import AttentionWeights
from workbench.analysis.forgetting_measures import Steps
from workbench.backbones.backbone import Backbone
from workbench.backbones.linear_outputs import Changes, LowRank
from workbench.backbones.runner import Output
from workbench.backbones.states import read_state, state_sizes
from workbench.errors import WorkbenchError
from workbench.methods.apply import Decoder, check_context, given_to
from workbench.methods.injection import Injection
from workbench.methods.rows import Rows
from workbench.tasks.clauses import ClausePrompt, put
from workbench.tasks.encode import (
    MARKER,
    Encoded,
    TextConfig,
    bos_ids,
    continuation_ids,
    encode_question,
)

MOST_LOGITS = 1 << 27
"""Numbers in the logits of one pass; a text that would have more is read token by token."""


@dataclass(frozen=True)
class Variant:
    """One way to put a prompt."""

    prompt: str
    again: str
    """How it is put when it is read again in the middle of an answer; "" where there is nothing to read."""


@dataclass(frozen=True)
class Variants:
    """All ways to put a prompt of C clauses; `rows` is their order in a batch."""

    prompt: ClausePrompt
    alone: Variant
    without: tuple[Variant, ...]
    swapped: tuple[Variant | None, ...] | None

    @property
    def rows(self) -> list[Variant]:
        """The prompt itself first, then nothing, then without each clause, then the swapped ones that there are."""
        itself = Variant(self.prompt.prompt, self.prompt.again or self.prompt.prompt)
        return [itself, self.alone, *self.without, *(v for v in self.swapped or () if v is not None)]


def make_variants(
    prompt: ClausePrompt, control: ClausePrompt | None = None, marked: bool = False
) -> Variants:
    """The variants of a prompt.

    Args:
        prompt: with its clauses.
        control: another prompt, whose clauses of the same kinds are put in place of this one's.
        marked: whether a trained prompt stands at a marker in the text, which then stays when all else goes.

    Raises:
        WorkbenchError: a control without any clause of the prompt's kinds.
    """

    def again(index: int, text: str) -> str:
        whole, clause = prompt.again or prompt.prompt, prompt.clauses[index].text
        start = whole.find(clause) if prompt.again else prompt.spans[index][0]
        return whole if start < 0 else put(whole, (start, start + len(clause)), text)

    count = range(len(prompt.clauses))
    without = tuple(Variant(prompt.without(i), again(i, "")) for i in count)
    swapped: tuple[Variant | None, ...] | None = None
    if control is not None:
        theirs = [prompt.counterpart(i, control) for i in count]
        swapped = tuple(
            None if t is None else Variant(put(prompt.prompt, prompt.spans[i], t.text), again(i, t.text))
            for i, t in enumerate(theirs)
        )
        if all(variant is None for variant in swapped):
            kinds = ", ".join(str(clause.kind or clause.text) for clause in prompt.clauses)
            raise WorkbenchError(
                f"the control has no other clause of the prompt's kinds ({kinds}); give a prompt that has"
            )
    return Variants(prompt, Variant(MARKER if marked else "", ""), without, swapped)


class VariantReader:
    """Reads the variants of one prompt with one backbone and method.

    Args:
        backbone, injection, text: the model, what is put into it, and how text becomes tokens.
        variants: what is read.
        written: tokens of a text that goes on behind the prompt, which are read first.
        again: whether the prompt is then read again, each variant as it is put there.
        states: whether to keep the states of the first row, and of those without a clause.
        attention: whether to keep the first row's attention to its prompt.

    Raises:
        WorkbenchError: a prompt that `max_tokens` would cut, what the backbone cannot give, or a method made for another one.
    """

    def __init__(
        self,
        backbone: Backbone,
        injection: Injection,
        text: TextConfig,
        variants: Variants,
        written: Sequence[int] = (),
        again: bool = False,
        states: bool = False,
        attention: bool = False,
    ):
        self._run_on = given_to(backbone, injection)
        if injection.weight_changes is not None:
            injection = replace(injection, weight_changes=_of_prompts(injection.weight_changes))
        self.variants, self.injection, self.backbone = variants, injection, backbone
        self.written, self.again = list(written), again
        self._weights = AttentionWeights(self._run_on) if attention else None
        self._layers = list(state_sizes(backbone)) if states else []
        self.rows = [encode_variant(backbone, injection, text, row.prompt) for row in variants.rows]
        self._agains = [
            continuation_ids(backbone.tokenizer, " " + row.again) if again and row.again else []
            for row in variants.rows
        ]
        self._watch: _Watch | None = None
        self._attention: _AttentionWatch | None = None
        self._decoders: list[Decoder] = []
        self._first: dict[int, Tensor] | None = None

    @property
    def layers(self) -> dict[str, tuple[int, ...]]:
        """The layers that numbers of each measure of layers are about."""
        attention = () if self._weights is None else tuple(self._weights.layers)
        return {"state_cosine": tuple(self._layers), "attention_mass": attention}

    @property
    def _read_again(self) -> list[int]:
        """The tokens in which the prompt itself is read once more."""
        return continuation_ids(self.backbone.tokenizer, " " + self.variants.rows[0].again)

    @property
    def numbers_a_step(self) -> int:
        """Numbers in the logits of one step, all rows together."""
        return len(self.rows) * self.backbone.vocabulary_size

    def check(self, room: int, restore_at: Sequence[int] = ()) -> None:
        """Refuse what does not fit with `room` tokens of an answer, the written ones included.

        restore_at: the steps, from 1 behind the prompt, before which the prompt is to be read again by `restored`.
        """
        longest = max(len(row.ids) + len(again) for row, again in zip(self.rows, self._agains, strict=True))
        added = self.injection.length + self.injection.front
        check_context(self.backbone, longest + room + added, added)
        steps = [step for step in restore_at if len(self.written) < step <= room]
        if steps:
            before = len(self.rows[0].ids) + len(self._agains[0]) + max(steps) - 1
            check_context(self.backbone, before + len(self._read_again) + added, added)

    @torch.no_grad()
    def whole(self, tokens: Sequence[int]) -> Steps:
        """T tokens behind what was written, in one pass."""
        watch = self._read(tokens[:-1])
        count = len(tokens)
        return self._steps(watch, list(tokens), [torch.cat(found)[-count:] for found in watch.logits])

    @torch.no_grad()
    def begin(self) -> Tensor:
        """Read the prompts; (V,) logits of the first token, behind the prompt itself."""
        self._watch = self._read(())
        return self._watch.logits[0][-1][-1]

    def step(self, token: int) -> Steps:
        """One step, of the token that was chosen by the last logits; it is not read yet, see `feed`."""
        assert self._watch is not None
        return self._steps(self._watch, [token], [found[-1] for found in self._watch.logits])

    @torch.no_grad()
    def feed(self, token: int) -> Tensor:
        """Let all rows read a token; (V,) logits of the next, behind the prompt itself."""
        assert self._watch is not None
        self._watch.forget()
        if self._attention is not None:
            self._attention.forget()
        for decoder in self._decoders:
            decoder.feed(torch.full((len(decoder.active),), token, device=self.backbone.device))
        return self._watch.logits[0][-1][-1]

    @torch.no_grad()
    def restored(self, tokens: Sequence[int], steps: Sequence[int], batch: int = 32) -> Tensor:
        """(T,) log-probability of each token where the prompt is read again just before it: at those steps (from 1), else nan."""
        found = torch.full((len(tokens),), torch.nan, dtype=torch.float64)
        row, ids = self.rows[0], self._read_again
        device = self.backbone.device
        for start in range(0, len(steps), batch):
            part = steps[start : start + batch]
            before = (*row.ids, *self.written, *self._agains[0])
            rows = [replace(row, ids=(*before, *tokens[: step - 1], *ids)) for step in part]
            watch = _Watch(1, len(rows), self.backbone)
            Decoder(self.backbone, Rows.collate(rows, device), self.injection, watch)
            for step, logits in zip(part, watch.logits, strict=True):
                found[step - 1] = logits[0][-1].double().log_softmax(-1)[tokens[step - 1]]
        return found.to(device)

    def _read(self, tokens: Sequence[int]) -> _Watch:
        """All rows with these tokens behind them, read in one batch."""
        tail = [[*self.written, *again, *tokens] for again in self._agains]
        rows = [replace(row, ids=(*row.ids, *own)) for row, own in zip(self.rows, tail, strict=True)]
        watch = _Watch(len(tokens) + 1, len(rows), self.backbone, self._layers)
        self._watch = watch
        self._decoders = [
            Decoder(self.backbone, Rows.collate(rows, self.backbone.device), self.injection, watch)
        ]
        if (
            self._weights is not None
        ):  # a row of its own, so that the other numbers do not depend on how attention is run
            self._attention = _AttentionWatch(
                len(tokens) + 1, self.backbone, self._weights, self._own(tail[0], len(tokens))
            )
            row = Rows.collate(rows[:1], self.backbone.device)
            injection = replace(self.injection, view=self._weights.view)
            self._decoders.append(Decoder(self._run_on, row, injection, self._attention))
        return watch

    def _own(self, tail: Sequence[int], tokens: int) -> list[bool]:
        """Which of the places that the first row reads are the prompt's own tokens, first place first."""
        row, size = self.rows[0], len(self.rows[0].ids)
        head = len(bos_ids(self.backbone.tokenizer))
        again = len(self._agains[0])
        kinds = [False] * head + [True] * (size - head) + [False] * len(self.written) + [True] * again
        kinds += [False] * tokens
        assert len(kinds) == size + len(tail)
        kinds[row.prompt_at : row.prompt_at] = [False] * self.injection.length
        if self.injection.forget:
            kinds = [*kinds[:head], *kinds[size - 1 :]]
        return kinds

    def _steps(self, watch: _Watch, tokens: list[int], logits: list[Tensor]) -> Steps:
        clauses = self.variants.prompt.clauses
        swapped: list[Tensor | None] | None = None
        if self.variants.swapped is not None:
            rest = iter(logits[2 + len(clauses) :])
            swapped = [None if v is None else next(rest) for v in self.variants.swapped]
        states = watch.states(2 + len(clauses)) if self._layers else []
        if states and self._first is None:
            self._first = {layer: vectors[0] for layer, vectors in self._first_states(states[0]).items()}
        return Steps(
            torch.tensor(tokens, device=logits[0].device),
            logits[0],
            logits[1],
            logits[2 : 2 + len(clauses)],
            clauses,
            swapped,
            states[0] if states else None,
            self._first,
            states[2:] or None,
            None if self._attention is None else self._attention.masses(len(tokens)),
        )

    def _first_states(self, now: dict[int, Tensor]) -> dict[int, Tensor]:
        """What the layers hold right after the prompt, which is now unless something was read behind it."""
        if not self.written and not self.again:
            return now
        watch = _Watch(1, 1, self.backbone, self._layers)
        rows = Rows.collate(self.rows[:1], self.backbone.device)
        with torch.no_grad():
            Decoder(self.backbone, rows, self.injection, watch)
        return watch.states(1)[0]


class _Watch:
    """Keeps what B rows give at the last `count` places of their first read, and at all that is fed; see `apply.Watch`.

    Attributes:
        logits: of each row a list of (k, V), since the last `forget`.
    """

    def __init__(self, count: int, rows: int, backbone: Backbone, layers: Sequence[int] = ()):
        self.count, self.backbone, self.layers = count, backbone, layers
        self.logits: list[list[Tensor]] = [[] for _ in range(rows)]
        self._ends = [0] * rows  # places that a row has read
        self._states: list[list[list[Tensor]]] = [[] for _ in range(rows)]  # of each row and run, the layers

    def forget(self) -> None:
        """Let go what was kept."""
        self.logits = [[] for _ in self.logits]
        self._states = [[] for _ in self.logits]

    def ends(self, rows: Sequence[int], places: Tensor) -> Sequence[int]:
        """Nothing is looked at in the middle of a read."""
        return []

    def run(
        self, rows: Sequence[int], places: Tensor, last: Tensor, model: Callable[[Tensor], Output]
    ) -> Output:
        """One run of the model; see `apply.Watch.run`."""
        take = torch.zeros_like(last)
        for b, row in enumerate(rows):
            end, read = int(places[b].max()) + 1, self._ends[row]
            take[b] = places[b] >= (end - self.count if read == 0 else read)
            self._ends[row] = end
        keep = take | last
        output = self._look(rows, places, take, lambda: model(keep))
        logits = output.logits
        wanted = logits if bool((keep == take).all()) else logits[take[keep]]
        for row, part in zip(rows, wanted.split(take.sum(1).tolist()), strict=True):
            self.logits[row].append(part)
        return output._replace(logits=logits[last[keep]])

    def wrote(self, rows: Sequence[int], tokens: Tensor, logits: Tensor) -> None:
        """Tokens are chosen elsewhere."""

    def states(self, rows: int) -> list[dict[int, Tensor]]:
        """Of the first rows: layer to (T, n), at the end of each run since the last `forget`."""
        return [
            {
                layer: torch.stack(kept)
                for layer, kept in zip(self.layers, zip(*runs, strict=True), strict=True)
            }
            for runs in self._states[:rows]
        ]

    def _look(self, rows: Sequence[int], places: Tensor, take: Tensor, model: Callable[[], Output]) -> Output:
        """The run itself, looked into."""
        output = model()
        if self.layers:
            layers = [read_state(self.backbone, output.cache, layer) for layer in self.layers]
            for b, row in enumerate(rows):
                self._states[row].append([layer[b] for layer in layers])
        return output


class _AttentionWatch(_Watch):
    """Keeps how much of one row's attention is on some of its places, at the same places."""

    def __init__(self, count: int, backbone: Backbone, weights: AttentionWeights, own: list[bool]):
        super().__init__(count, 1, backbone)
        self.weights, self.own = weights, own
        self._masses: list[list[Tensor]] = [[] for _ in weights.layers]
        self._columns: list[int] = []  # the place of each column of the cache

    def forget(self) -> None:
        super().forget()
        self._masses = [[] for _ in self.weights.layers]

    def masses(self, count: int) -> dict[int, Tensor]:
        """Layer to (T,), of the last T places that were kept."""
        kept = zip(self.weights.layers, self._masses, strict=True)
        return {layer: torch.cat(parts)[-count:] for layer, parts in kept}

    def _look(self, rows: Sequence[int], places: Tensor, take: Tensor, model: Callable[[], Output]) -> Output:
        with self.weights.kept() as found:
            output = model()
        here = places[0].tolist()
        if 0 in here:  # the row is read from its beginning
            self._columns = []
        self._columns += here
        own = torch.tensor([place < len(self.own) and self.own[place] for place in self._columns])
        for masses, layer in zip(self._masses, self.weights.layers, strict=True):
            weights = found[layer][0][:, take[0]]  # (H, k, S)
            size = min(
                weights.shape[2], len(own)
            )  # a start stands before them all, and a window has lost the first
            on = weights[..., -size:] * own[-size:].to(weights)
            masses.append(on.sum(-1).mean(0))
        return output


def _of_prompts(changes: Callable[[Rows], Changes]) -> Callable[[Rows], Changes]:
    """What instructions make of the weights; one of a single token, a BOS with nothing behind it, makes nothing of them."""

    def made(rows: Rows) -> Changes:
        told = (rows.answer_start > 1).nonzero()[:, 0]
        if len(told) == len(rows):
            return changes(rows)
        if not len(told):
            return {}

        def among_all(part: Tensor) -> Tensor:
            return part.new_zeros(len(rows), *part.shape[1:]).index_copy(0, told, part)

        return {
            name: LowRank(among_all(change.up), among_all(change.down))
            for name, change in changes(rows.select(told)).items()
        }

    return made


def encode_variant(backbone: Backbone, injection: Injection, text: TextConfig, prompt: str) -> Encoded:
    """One variant's prompt as tokens; where nothing is left of it, and no BOS and no method's vector, EOS stands there.

    Raises:
        WorkbenchError: a prompt that `max_tokens` would cut, or nothing to begin a text with.
    """
    row = encode_question(prompt, backbone.tokenizer, replace(text, max_tokens=None))
    if text.max_tokens is not None and len(row.ids) > text.max_tokens:
        raise WorkbenchError(
            f"the prompt has {len(row.ids)} tokens and max_tokens={text.max_tokens} would cut clauses out of it; raise max_tokens"
        )
    if row.ids or injection.length:
        return row
    end = backbone.tokenizer.eos_token_id
    if end is None:
        raise WorkbenchError(
            f"{backbone.name} has neither a BOS nor an EOS token, so nothing can be read where the prompt is left out; "
            "give its tokenizer one"
        )
    return Encoded((int(end),), 1, 0)

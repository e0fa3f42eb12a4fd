"""Traces: hidden states of a backbone with the tokens, tasks, layers and steps that they belong to.

    seen = wb.trace(backbone, task.examples(n=100))                         # while reading
    seen = wb.trace(backbone, prompts, generate=wb.GenerateConfig())        # while writing, from the cache as it goes
    seen["layer 2"]                                                         # (n, width)
    seen.table                                                              # n rows, as a data frame

Texts are taken a few at a time and written to a folder as they come, if one is given, so memory does not grow with
their number. Rows share a run only where that is exact. It measures nothing and draws nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import operator
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.analysis.trace_files import Part, TraceFolder, texts_of
from workbench.analysis.trace_places import Layers, place_names, state_number
from workbench.analysis.trace_watch import TraceWatch
from workbench.backbones.backbone import Backbone
from workbench.backbones.states import state_sizes
from workbench.errors import WorkbenchError, unknown
from workbench.methods.apply import Decoder, check_context
from workbench.methods.generate import GenerateConfig, write
from workbench.methods.injection import NOTHING, Injection
from workbench.methods.method import Method
from workbench.methods.rows import Rows
from workbench.tasks.encode import Encoded, TextConfig, bos_ids, encode, encode_question
from workbench.tasks.task import Example, Examples

if TYPE_CHECKING:
    import pandas as pd

Text = str | Example | Encoded
Texts = Iterable[Text] | Mapping[str, Iterable[Text]]
Positions = Literal["all", "last", "answer", "mean"] | Sequence[int]

_Columns = dict[str, NDArray[Any]]

_NAMED = ("all", "last", "answer", "mean")
_TEXTS = 64  # in one part while reading; while writing it is the configuration's batch
_TOKENS = 8192  # in one run
_NUMBERS = 1 << 27  # logits and kept hidden states of one run together
_TYPES = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True)
class TraceProgress:
    """How far a trace is: texts done, of so many, rows so far, seconds since it (last) began and seconds left."""

    texts: int
    of: int
    rows: int
    seconds: float
    left: float


class Trace:
    """Rows of hidden states, from memory or from a folder; `len` is their number.

    Attributes:
        settings: what was asked, as JSON.
        places: the names that `[]` takes: see `trace_places`.
        folder: where it lies, or None.
    """

    def __init__(
        self, settings: Mapping[str, Any], parts: Sequence[Part] = (), folder: TraceFolder | None = None
    ):
        self.settings = dict(settings)
        self.places: tuple[str, ...] = tuple(self.settings["places"])
        self.folder = None if folder is None else folder.path
        self._parts, self._files = list(parts), folder
        tables = [part.rows for part in parts] if folder is None else [*map(folder.rows, folder.numbers())]
        self._texts = [text for table in tables for text in texts_of(table.schema)]
        self.rows: pa.Table = pa.concat_tables(
            [table.replace_schema_metadata(None) for table in tables] or [_no_rows()]
        )
        """The table in Arrow; `table` says what its columns are."""

    @classmethod
    def load(cls, folder: str | Path) -> Trace:
        """The trace in a folder; of an interrupted one the texts that are done.

        Raises:
            WorkbenchError: no trace there, or a damaged one.
        """
        files = TraceFolder(folder)
        return cls(files.facts()["settings"], folder=files)

    @property
    def complete(self) -> bool:
        """Whether all texts are there: not so in a folder whose trace was interrupted, or that has lost a part."""
        return self._files is None or self._files.whole

    @property
    def table(self) -> pd.DataFrame:
        """A row for each traced token.

        text: number of the text. task: its name. index: of the token in the text, BOS counted, the method's prompt not.
        position: as the model counts, the prompt and what a method puts before all else included. token_id, token.
        step: 0 for what was read, and n for the n-th token written. is_answer: of the answer, given or written.
        log_probability: of the token after all before it, in nats; NaN for one that the model never had to predict.
        A mean over a text has index, position, token_id and step -1, and the mean log-probability of its tokens.
        """
        return self.rows.to_pandas()

    @property
    def texts(self) -> list[dict[str, Any]]:
        """One dict a text: `text` (its number), `task`, `prompt` and `answer`, which was given or written."""
        return list(self._texts)

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def __getitem__(self, place: str) -> NDArray[Any]:
        """(n, width): what stands in a place, row by row as in `table`."""
        arrays = list(self.chunks(place))
        if len(arrays) == 1:
            return arrays[0]
        return np.concatenate(arrays) if arrays else np.empty((0, 0), self.settings["dtype"])

    def chunks(self, place: str) -> Iterator[NDArray[Any]]:
        """The same in pieces, one part of the texts at a time: for what does not fit into memory."""
        if place not in self.places:
            raise unknown("place in this trace", place, self.places)
        if self._files is None:
            yield from (part.arrays[place].numpy() for part in self._parts)
        else:
            yield from (self._files.array(number, place).numpy() for number in self._files.numbers())

    def stacked(self, places: Sequence[str] | None = None) -> tuple[pd.DataFrame, NDArray[Any]]:
        """Several places of one width as one: the table once for each with a column `place`, and (k n, width)."""
        import pandas as pd

        places = self.places if places is None else places
        tables = [self.table.assign(place=place) for place in places]
        return pd.concat(tables, ignore_index=True), np.concatenate([self[place] for place in places])

    def __repr__(self) -> str:
        return f"Trace({len(self)} rows of {len(self._texts)} texts, {', '.join(self.places)})"


@dataclass(frozen=True)
class _Item:
    """One text as it is read."""

    task: str
    prompt: str
    answer: str
    row: Encoded


def trace(
    backbone: Backbone,
    texts: Texts,
    layers: Layers = "all",
    positions: Positions = "all",
    method: Method | None = None,
    *,
    generate: GenerateConfig | None = None,
    text: TextConfig | None = None,
    folder: str | Path | None = None,
    dtype: str = "float32",
    progress: Callable[[TraceProgress], object] | None = None,
) -> Trace:
    """Hidden states of any layers at any tokens, while reading, or while writing on.

    >>> seen = wb.trace(backbone, {"reading": task.examples(n=50)}, layers=(0, -1, "output"), positions="answer")

    Args:
        backbone: the frozen model.
        texts: strings, examples (read with their answers, unless the model writes its own) or encoded rows; a task;
            or several of these by the name of their task.
        layers: places, see `trace_places`: a name, a number, "all", "states", or several.
        positions: which tokens of a text, those written included. "all" but what the tokenizer puts before a text;
            "last"; "answer"; "mean", one vector over all; or indices in the text, BOS counted (-1 is the last).
        method: what is put into the model, or None for the plain backbone. Its own positions are not traced.
        generate: write on behind each text, and trace that as it is written, from the cache. A token has states when it
            is read, so the last one written is read as well, but not one that ends the text.
        text: how texts become tokens; by default as the method's did in training, without a trained EOS. Of a generation
            `generate.text` says it.
        folder: where to write it, in bounded memory. What is there is kept, so that an interrupted trace goes on.
        dtype: "float32" or "float16", of what is kept.
        progress: called after each part of the texts; what it raises stops the trace, which can go on from its folder.

    Returns:
        The trace. Its rows are in the order of the texts, and of the tokens in each.

    Raises:
        WorkbenchError: no such place or position, a state that has no reader, texts that are too long, a folder that
            holds another trace, a number that float16 cannot hold.
    """
    places = place_names(backbone, layers)
    positions = _positions(positions)
    if dtype not in _TYPES:
        raise unknown("dtype of a trace", str(dtype), _TYPES)
    if generate is not None and text is not None:
        raise WorkbenchError("a generation has its text settings in generate.text; leave text out")
    config = text or (TextConfig() if method is None else method.text)
    config = replace(config, train_eos=False) if generate is None else generate.text
    asked = {
        "backbone": {k: v for k, v in backbone.describe().items() if k not in ("device", "state")},
        "places": list(places),
        "positions": positions,
        "method": None if method is None else _describe(method),
        "generate": None if generate is None else dataclasses.asdict(generate),
        "text": dataclasses.asdict(config),
        "dtype": dtype,
    }
    settings = json.loads(json.dumps(asked))  # as it is read back
    given = _given(texts)
    files = None if folder is None else TraceFolder(folder)
    if files is not None:
        files.begin(settings)
    with torch.no_grad():
        injection = NOTHING if method is None else method.injection()
    of, done, rows, start, fresh = sum(len(part) for part in given.values()), 0, 0, time.monotonic(), 0
    parts: list[Part] = []
    size = _TEXTS if generate is None else generate.batch_size
    reader = _Reader(backbone, places, positions, method, injection, generate, dtype)
    for number, items in enumerate(_in_parts(_encoded(backbone, given, config, injection, generate), size)):
        digest = _digest(items)
        if files is None or (there := files.digest(number)) is None:
            part = reader.part(items, done)
            fresh, rows = fresh + len(items), rows + part.rows.num_rows
            if files is None:
                parts.append(part)
            else:
                files.write(number, part, digest)
        elif there != digest:
            raise files.other_texts(done)
        else:
            rows += files.rows(number).num_rows
        done += len(items)
        if progress is not None:
            seconds = time.monotonic() - start
            left = seconds / fresh * (of - done) if fresh else 0.0
            progress(TraceProgress(done, of, rows, seconds, left))
    if files is not None:
        files.finish(settings, -(-done // size), done, rows)
    return Trace(settings, parts, files)


class _Reader:
    """Makes parts: runs some texts and puts what was seen into rows."""

    def __init__(
        self,
        backbone: Backbone,
        places: tuple[str, ...],
        positions: Positions,
        method: Method | None,
        injection: Injection,
        generate: GenerateConfig | None,
        dtype: str,
    ):
        self.backbone, self.places, self.positions, self.dtype = backbone, places, positions, dtype
        self.method, self.injection, self.config = method, injection, generate
        self._head = bos_ids(backbone.tokenizer)
        self._words: dict[int, str] = {}
        # a recurrence counts no positions before its tokens; attention counts what stands there
        self._before = 0 if backbone.kind == "recurrent" else injection.front
        states = [number for place in places if (number := state_number(place)) is not None]
        others = [place for place in places if place != "embeddings" and state_number(place) is None]
        kept = len(others) * backbone.width + sum(state_sizes(backbone)[number] for number in states)
        # a read pauses where a state is looked at, and pads behind a cache may enter it
        self._one_length = bool(states) and not backbone.layouts.padding_after_prefix
        self._tokens = max(1, min(_TOKENS, _NUMBERS // (backbone.vocabulary_size + kept)))

    def part(self, items: Sequence[_Item], first: int) -> Part:
        """The rows of texts `first` and so on."""
        found: list[tuple[_Columns, dict[str, Tensor]]] = [({}, {})] * len(items)
        answers = [item.answer for item in items]
        for batch in self._batches(items):
            seen, written = self._run([items[b] for b in batch], [first + b for b in batch])
            index, scores, arrays = seen.result()
            cuts = np.searchsorted(index[:, 0], np.arange(len(batch) + 1))
            for place, b in enumerate(batch):
                here = slice(cuts[place], cuts[place + 1])
                own = {name: array[here] for name, array in arrays.items()}
                found[b] = self._rows(
                    first + b, items[b], seen.tokens[place], index[here, 1], scores[here], own
                )
                if written is not None:
                    answers[b] = written[place]
        texts = [
            {"text": first + b, "task": item.task, "prompt": item.prompt, "answer": answers[b]}
            for b, item in enumerate(items)
        ]
        columns = {name: np.concatenate([columns[name] for columns, _ in found]) for name in _SCHEMA.names}
        rows = pa.table(
            columns, schema=_SCHEMA.with_metadata({"texts": json.dumps(texts, ensure_ascii=False)})
        )
        return Part(rows, {name: self._cast(name, [own[name] for _, own in found]) for name in self.places})

    def _batches(self, items: Sequence[_Item]) -> Iterator[list[int]]:
        """Texts that share a run: of like length, so that there are few pads, or of one length, where a pad does harm."""
        batch: list[int] = []
        room = 0 if self.config is None else self.config.max_new_tokens
        for b in sorted(range(len(items)), key=lambda b: len(items[b].row.ids)):
            size = len(items[b].row.ids) + self.injection.length + room
            longer = bool(batch) and len(items[batch[0]].row.ids) < len(items[b].row.ids)
            if batch and ((len(batch) + 1) * size > self._tokens or (longer and self._one_length)):
                yield batch
                batch = []
            batch.append(b)
        if batch:
            yield batch

    @torch.no_grad()
    def _run(self, items: Sequence[_Item], numbers: list[int]) -> tuple[TraceWatch, list[str] | None]:
        room = 0 if self.config is None else self.config.max_new_tokens
        rows = [item.row for item in items]
        wanted = [self._wanted(n, row, room) for n, row in zip(numbers, rows, strict=True)]
        watch = TraceWatch(self.backbone, rows, self.injection.length, self.places, wanted, room)
        if self.config is None:
            longest = max(len(row.ids) for row in rows) + self.injection.length + self.injection.front
            check_context(self.backbone, longest, self.injection.length + self.injection.front)
            Decoder(self.backbone, Rows.collate(rows, self.backbone.device), self.injection, watch)
            return watch, None
        asked = [(number, item.prompt, self.method) for number, item in zip(numbers, items, strict=True)]
        made = {id(self.method): self.injection}
        texts = {
            number: text
            for number, text, done in write(self.backbone, asked, made, self.config, False, watch)
            if done
        }
        return watch, [texts[number] for number in numbers]

    def _wanted(self, number: int, row: Encoded, room: int) -> Sequence[int]:
        """Indices of the tokens to look at, before it is known how many are written."""
        size = len(row.ids)
        if self.positions == "answer" and row.answer_start == size and not room:
            raise WorkbenchError(
                f"text {number} has no answer; give examples with answers, generate, or choose other positions"
            )
        if not room:
            return self._chosen(number, row, size, row.ids)
        first = {"last": size - 1, "answer": size}.get(
            self.positions if isinstance(self.positions, str) else "", 0
        )
        return range(first, size + room)

    def _chosen(self, number: int, row: Encoded, size: int, ids: Sequence[int]) -> list[int]:
        """Indices of the tokens to keep, of `size`."""
        head = len(self._head) if list(ids[: len(self._head)]) == self._head else 0
        if self.positions == "last":
            return [size - 1]
        if self.positions == "answer":
            return list(range(row.answer_start, size))
        if isinstance(self.positions, str):
            return list(range(head, size))
        wrong = [at for at in self.positions if not -size <= at < size]
        if wrong:
            raise WorkbenchError(
                f"text {number} has {size} tokens and none at position {wrong[0]}; choose positions that every text has"
            )
        return sorted({at % size for at in self.positions})

    def _rows(
        self,
        number: int,
        item: _Item,
        ids: Sequence[int],
        index: NDArray[np.int64],
        scores: NDArray[np.float32],
        arrays: dict[str, Tensor],
    ) -> tuple[_Columns, dict[str, Tensor]]:
        """The columns of one text's rows, and its vectors; `ids` are its tokens, of which `index` were read and kept."""
        # a token that ends a text was written and not read
        size = int(index[-1]) + 1 if self.config is not None and len(index) else len(ids)
        chosen = self._chosen(number, item.row, size, ids)
        if len(chosen) < len(index):
            keep = np.isin(index, chosen)
            index, scores = index[keep], scores[keep]
            arrays = {name: array[torch.from_numpy(keep)] for name, array in arrays.items()}
        row = item.row
        columns: _Columns = {
            "index": index,
            "position": index + self._before + self.injection.length * (index >= row.prompt_at),
            "token_id": np.array([ids[at] for at in index], np.int64),
            "token": np.array([self._word(ids[at]) for at in index], object),
            "step": np.maximum(index - len(row.ids) + 1, 0),
            "is_answer": index >= row.answer_start,
            "log_probability": scores,
        }
        if self.positions == "mean":
            if not len(index):
                raise WorkbenchError(f"text {number} has no tokens to take a mean of; leave empty texts out")
            known = scores[~np.isnan(scores)]
            mean = known.mean(keepdims=True) if len(known) else scores[:1]
            nothing = {name: np.array([-1]) for name in ("index", "position", "token_id", "step")}
            no_token = {"token": np.array([""], object), "is_answer": np.array([False])}
            columns = {**nothing, **no_token, "log_probability": mean}
            arrays = {name: array.mean(0, keepdim=True) for name, array in arrays.items()}
        count = len(columns["index"])
        shared = {"text": np.full(count, number), "task": np.full(count, item.task, object)}
        return {**shared, **columns}, arrays

    def _word(self, token: int) -> str:
        if token not in self._words:
            self._words[token] = str(self.backbone.tokenizer.decode([token]))
        return self._words[token]

    def _cast(self, place: str, arrays: Sequence[Tensor]) -> Tensor:
        whole = torch.cat(list(arrays)).to(_TYPES[self.dtype])
        if self.dtype == "float16" and bool(whole.isinf().any()):
            raise WorkbenchError(f"{place} has numbers that float16 cannot hold; trace with dtype='float32'")
        return whole


_SCHEMA = pa.schema(
    {
        "text": pa.int64(),
        "task": pa.string(),
        "index": pa.int32(),
        "position": pa.int32(),
        "token_id": pa.int64(),
        "token": pa.string(),
        "step": pa.int32(),
        "is_answer": pa.bool_(),
        "log_probability": pa.float32(),
    }
)


def _no_rows() -> pa.Table:
    return _SCHEMA.empty_table()


def _positions(positions: Positions) -> Positions:
    """A name, or indices of whatever type of integer as a list."""
    if isinstance(positions, str):
        if positions not in _NAMED:
            raise unknown("choice of positions", positions, _NAMED)
        return positions
    try:
        indices = [operator.index(at) for at in positions]
    except TypeError:
        raise WorkbenchError(
            f"positions is {positions!r}; give 'all', 'last', 'answer', 'mean', or indices such as [0, -1]"
        ) from None
    if not indices:
        raise WorkbenchError("no position is named; give positions='all', or indices such as [0, -1]")
    return indices


def _given(texts: Texts) -> dict[str, Sequence[Text]]:
    """Texts by the name of their task; what can be walked through but once is listed."""
    if isinstance(texts, Mapping):
        return {str(name): _listed(part) for name, part in texts.items()}
    named = texts.source if isinstance(texts, Examples) else texts
    return {str(named.name) if hasattr(named, "name") else "": _listed(texts)}


def _listed(texts: Iterable[Text]) -> Sequence[Text]:
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise WorkbenchError("trace takes a list of texts; write [text] for one")
    return texts if isinstance(texts, Sequence) else list(texts)


def _encoded(
    backbone: Backbone,
    given: Mapping[str, Sequence[Text]],
    config: TextConfig,
    injection: Injection,
    generate: GenerateConfig | None,
) -> Iterator[_Item]:
    """Each text as it is read, when it is asked for."""
    tokenizer, limit = backbone.tokenizer, backbone.context_length
    every = ((task, text) for task, texts in given.items() for text in texts)
    for number, (task, text) in enumerate(every):
        if isinstance(text, Encoded):
            if generate is not None:
                raise WorkbenchError("encoded rows can be read and not continued; give texts to generate")
            item = _Item(task, "", "", text)
        elif isinstance(text, Example) and generate is None:
            row = encode(text, tokenizer, config, injection.length + injection.front, limit)
            item = _Item(task, text.prompt, text.answer, row)
        elif isinstance(text, str | Example):
            prompt = text.prompt if isinstance(text, Example) else text
            # as `generate` encodes it
            room = 0 if generate is None else generate.max_new_tokens
            length = injection.length + (injection.front if generate is None else 0)
            item = _Item(task, prompt, "", encode_question(prompt, tokenizer, config, length, limit, room))
        else:
            raise WorkbenchError(
                f"text {number} is of type {type(text).__name__}; give strings, examples or encoded rows"
            )
        if not item.row.ids:
            raise WorkbenchError(
                f"text {number} is empty and the model has no BOS token; leave empty texts out"
            )
        yield item


def _in_parts(items: Iterator[_Item], size: int) -> Iterator[list[_Item]]:
    part: list[_Item] = []
    for item in items:
        part.append(item)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def _digest(items: Sequence[_Item]) -> str:
    """Of the texts of a part: their tasks and tokens."""
    facts = [[item.task, item.row.ids, item.row.answer_start, item.row.prompt_at] for item in items]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _describe(method: Method) -> dict[str, Any]:
    """Kind, configuration and what was trained, as a digest."""
    digest = hashlib.sha256()
    for name, tensor in sorted(method.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().float().contiguous().numpy().tobytes())
    config = json.loads(json.dumps(dataclasses.asdict(method.config), default=str))
    return {"kind": method.kind, "config": config, "trained": digest.hexdigest()}

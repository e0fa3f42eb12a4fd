"""A trace on disk: a folder of parts, each a table of rows (Parquet) and its arrays (safetensors), and `trace.json`.

    trace.json            what was asked, and at the end how many texts and rows there are
    00000.parquet         the rows of the first texts; their texts in its metadata
    00000.safetensors     place to (rows, width); written last, so that a part is whole when it is there

Nothing in it depends on when it was written or how often that was interrupted. Runs no model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from workbench.errors import WorkbenchError

FACTS = "trace.json"


@dataclass(frozen=True)
class Part:
    """The rows of some texts that follow one another, and their arrays: place to (rows, width)."""

    rows: pa.Table
    arrays: Mapping[str, Tensor]

    @property
    def texts(self) -> list[dict[str, Any]]:
        """One dict a text: `text` (its number), `task`, `prompt`, `answer` (given, or written)."""
        return texts_of(self.rows.schema)


def texts_of(schema: pa.Schema) -> list[dict[str, Any]]:
    """The texts that the table of a part carries."""
    return json.loads((schema.metadata or {})[b"texts"])


class TraceFolder:
    """A folder that a trace is written to and read from, part by part.

    Raises:
        WorkbenchError: no trace there, or a damaged one.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @property
    def exists(self) -> bool:
        """Whether a trace was begun here."""
        return (self.path / FACTS).is_file()

    def facts(self) -> dict[str, Any]:
        """What `trace.json` says."""
        if not self.exists:
            raise WorkbenchError(f"{self.path} holds no trace (no {FACTS}); give the folder of a trace")
        path = self.path / FACTS
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise WorkbenchError(f"the file {path} is damaged; delete the folder and trace again") from error
        settings = facts.get("settings") if isinstance(facts, dict) else None
        if not isinstance(settings, dict) or not isinstance(settings.get("places"), list):
            raise WorkbenchError(
                f"the file {path} says nothing of a trace; give the folder of a trace, or a new one"
            )
        return facts

    @property
    def whole(self) -> bool:
        """Whether `trace.json` says how many texts there are and the parts hold as many; opens only the last of them."""
        texts = self.facts().get("texts") if self.exists else None
        if texts is None:
            return False
        parts = list(self.numbers())
        if not all(self._table(number).is_file() for number in parts):
            return False
        if not parts:
            return bool(texts == 0)
        with _reading(last := self._table(parts[-1])):
            return bool(texts_of(pq.read_schema(last))[-1]["text"] + 1 == texts)

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Start, or go on with what was asked before: the same settings, or a refusal that names the one that differs."""
        if not self.exists:
            if self.path.is_dir() and any(self.path.iterdir()):
                raise WorkbenchError(
                    f"{self.path} is not empty and holds no trace; give a new folder, so that nothing is lost"
                )
            try:
                self.path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise WorkbenchError(
                    f"{self.path} cannot be made a folder ({error.strerror}); give another folder"
                ) from error
            self._write(FACTS, lambda to: to.write_text(_json({"settings": settings}), encoding="utf-8"))
            return
        before = self.facts()["settings"]
        now = json.loads(_json(settings))
        different = [key for key in now if now[key] != before.get(key)]
        if different:
            raise WorkbenchError(
                f"{self.path} holds a trace with other settings ({', '.join(different)}); give a new folder, or delete it"
            )

    def finish(self, settings: Mapping[str, Any], parts: int, texts: int, rows: int) -> None:
        """Say that all texts are there; a refusal where there are more parts than theirs."""
        if len(list(self.path.glob("[0-9]*.safetensors"))) > parts:
            raise self.other_texts(texts)
        whole = {"settings": settings, "texts": texts, "rows": rows}
        self._write(FACTS, lambda to: to.write_text(_json(whole), encoding="utf-8"))

    def other_texts(self, first: int) -> WorkbenchError:
        """The error for a folder whose texts are, from one on, not those that are to be traced."""
        return WorkbenchError(
            f"{self.path} holds a trace of other texts (from text {first} on); give a new folder, or delete it"
        )

    def write(self, number: int, part: Part, digest: str) -> None:
        """Add a part; `digest` says of which texts it is."""
        arrays = {name: array.contiguous() for name, array in part.arrays.items()}
        self._write(self._table(number).name, lambda to: pq.write_table(part.rows, to))
        self._write(self._arrays(number).name, lambda to: save_file(arrays, to, metadata={"digest": digest}))

    def digest(self, number: int) -> str | None:
        """Of which texts a part is; None where it is not there yet."""
        path = self._arrays(number)
        if not (path.is_file() and self._table(number).is_file()):
            return None
        with _reading(path), safe_open(path, framework="pt") as arrays:
            return str((arrays.metadata() or {}).get("digest"))

    def numbers(self) -> Iterator[int]:
        """The parts that are there, in order."""
        number = 0
        while self._arrays(number).is_file():
            yield number
            number += 1

    def rows(self, number: int) -> pa.Table:
        """A part's table."""
        with _reading(path := self._table(number)):
            rows = pq.read_table(path)
            if b"texts" not in (rows.schema.metadata or {}):
                raise ValueError("a table from elsewhere")
            return rows

    def array(self, number: int, place: str) -> Tensor:
        """A part's array, which alone is read."""
        with _reading(path := self._arrays(number)), safe_open(path, framework="pt") as arrays:
            return arrays.get_tensor(place)

    def _table(self, number: int) -> Path:
        return self.path / f"{number:05d}.parquet"

    def _arrays(self, number: int) -> Path:
        return self.path / f"{number:05d}.safetensors"

    def _write(self, name: str, write: Callable[[Path], Any]) -> None:
        """A file that is whole or not there."""
        partial = self.path / f"{name}.partial"
        write(partial)
        os.replace(partial, self.path / name)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Says in a sentence that a part's file is missing or damaged."""
    try:
        yield
    except FileNotFoundError as error:
        raise WorkbenchError(f"the file {path} is missing; trace again") from error
    except (OSError, SafetensorError, pa.ArrowException, ValueError, LookupError) as error:
        raise WorkbenchError(f"the file {path} is damaged; delete it and trace again") from error


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"

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
        return texts_of(self.rows)


def texts_of(rows: pa.Table) -> list[dict[str, Any]]:
    """The texts that a part's table carries."""
    return json.loads((rows.schema.metadata or {})[b"texts"])


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
        try:
            return dict(json.loads((self.path / FACTS).read_text()))
        except ValueError as error:
            raise WorkbenchError(
                f"the file {self.path / FACTS} is damaged; delete the folder and trace again"
            ) from error

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Start, or go on with what was asked before: the same settings, or a refusal that names the one that differs."""
        if not self.exists:
            if self.path.is_dir() and any(self.path.iterdir()):
                raise WorkbenchError(
                    f"{self.path} is not empty and holds no trace; give a new folder, so that nothing is lost"
                )
            self.path.mkdir(parents=True, exist_ok=True)
            self._write(FACTS, lambda to: to.write_text(_json({"settings": settings})))
            return
        before = self.facts()["settings"]
        now = json.loads(_json(settings))
        different = [key for key in now if now[key] != before.get(key)]
        if different:
            raise WorkbenchError(
                f"{self.path} holds a trace with other settings ({', '.join(different)}); give a new folder, or delete it"
            )

    def finish(self, settings: Mapping[str, Any], texts: int, rows: int) -> None:
        """Say that all texts are there."""
        whole = {"settings": settings, "texts": texts, "rows": rows}
        self._write(FACTS, lambda to: to.write_text(_json(whole)))

    def write(self, number: int, part: Part, digest: str) -> None:
        """Add a part; `digest` says of which texts it is."""
        arrays = {name: array.contiguous() for name, array in part.arrays.items()}
        self._write(f"{number:05d}.parquet", lambda to: pq.write_table(part.rows, to))
        self._write(
            f"{number:05d}.safetensors", lambda to: save_file(arrays, to, metadata={"digest": digest})
        )

    def digest(self, number: int) -> str | None:
        """Of which texts a part is; None where it is not there yet."""
        path = self.path / f"{number:05d}.safetensors"
        if not path.is_file():
            return None
        with self._opened(path) as arrays:
            return str((arrays.metadata() or {}).get("digest"))

    def numbers(self) -> Iterator[int]:
        """The parts that are there, in order."""
        number = 0
        while (self.path / f"{number:05d}.safetensors").is_file():
            yield number
            number += 1

    def rows(self, number: int) -> pa.Table:
        """A part's table."""
        return pq.read_table(self.path / f"{number:05d}.parquet")

    def array(self, number: int, place: str) -> Tensor:
        """A part's array, which alone is read."""
        with self._opened(self.path / f"{number:05d}.safetensors") as arrays:
            return arrays.get_tensor(place)

    def _opened(self, path: Path) -> Any:
        try:
            return safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise WorkbenchError(f"the file {path} is damaged; delete it and trace again") from error

    def _write(self, name: str, write: Callable[[Path], Any]) -> None:
        """A file that is whole or not there."""
        partial = self.path / f"{name}.partial"
        write(partial)
        os.replace(partial, self.path / name)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"

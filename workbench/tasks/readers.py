"""Readers: people's own files as rows, by index, without holding a file in memory.

    open_source(place, …) ─ FileSource: split -> (Rows, indices), and the Shape that makes an Example of a row
    Rows ─ Lines (an array of byte offsets; a row is parsed when it is looked at) ─ JsonLines, Csv, …
         ─ Parquet (copied once, a batch at a time, to an unlinked Arrow file that is mapped into memory)
         ─ Saved (a 🤗 datasets split, which is mapped already)

Every row is parsed and made into an Example once, in the pass that builds the index, so that a bad row shows at load.
Whatever a library says about a broken file becomes one WorkbenchError. Presets' own file shapes are in presets.py.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import re
import tempfile
import zlib
from abc import ABC, abstractmethod
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from workbench.errors import WorkbenchError, unknown
from workbench.tasks.task import SPLITS, Example
from workbench.tasks.template import BadRow, Shape, Template

LONGEST_LINE = 1 << 26
LONGEST_CSV_FIELD = 1 << 24
Check = Callable[[Mapping[str, Any]], object]
Record = tuple[int, int, Mapping[str, Any] | BadRow]
"""Byte offset, line number, and the row or what is wrong with it."""


class Rows(ABC):
    """The good rows of one table: `len`, `rows[i]`, and `where(i)`, the place for a sentence."""

    def __init__(self, path: Path):
        self.path = path
        self.skipped = 0
        self.first_bad = ""
        self._stamp = _stamp(path)

    def unchanged(self, index: int) -> Path:
        """The path, to read a row from; stops where the file was written to since its index was built."""
        if _stamp(self.path) != self._stamp:
            raise WorkbenchError(
                f"{self.where(index)}: the file has changed since it was loaded; load it again"
            )
        return self.path

    @abstractmethod
    def __len__(self) -> int: ...
    @abstractmethod
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...
    @abstractmethod
    def where(self, index: int) -> str:
        """File and line of a row."""

    def checksum(self) -> int:
        """CRC-32 of the file's bytes."""
        value = 0
        with opened(self.path) as file:
            while block := file.read(1 << 20):
                value = zlib.crc32(block, value)
        return value


def _stamp(path: Path) -> tuple[int, int] | None:
    """Size and time of a file; None where it is not one (a folder, a Hub name), or is gone."""
    return (facts.st_size, facts.st_mtime_ns) if path.is_file() and (facts := path.stat()) else None


def settle(rows: Rows, row: Mapping[str, Any] | BadRow, check: Check, on_bad: str, place: str) -> bool:
    """Whether a row is good. A bad one stops with its place, or is counted in `rows.skipped`."""
    try:
        if isinstance(row, BadRow):
            raise row
        check(row)
        return True
    except BadRow as bad:
        if on_bad == "stop":
            raise WorkbenchError(f'{place}: {bad} (on_bad="skip" leaves bad rows out)') from None
        rows.skipped += 1
        rows.first_bad = rows.first_bad or f"{place}: {bad}"
        return False


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file, for reading bytes; what the system says against it as one sentence."""
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise WorkbenchError(f"{path} cannot be read: {error.strerror or error}") from None


@contextlib.contextmanager
def progress(path: Path) -> Iterator[Callable[[int], None]]:
    """A bar on stderr for a pass over a file that takes over two seconds; call it with the position in bytes."""
    from tqdm import tqdm

    with tqdm(
        total=path.stat().st_size, unit="B", unit_scale=True, desc=path.name, delay=2, leave=False
    ) as bar:
        yield lambda position: bar.update(position - bar.n)


class Lines(Rows):
    """A file of records that begin at a line: an index of 12 bytes a row, and one pass that checks all of them."""

    def __init__(self, path: Path, check: Check, on_bad: str, columns: tuple[str, ...], **options: Any):
        super().__init__(path)
        self.options = options
        self._offsets, self._numbers = array("Q"), array("I")
        with opened(path) as file, progress(path) as moved:
            head = file.read(4)
            if head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in head:
                raise WorkbenchError(
                    f"{path} is not UTF-8 but looks like UTF-16 or a binary file; save it as UTF-8"
                )
            file.seek(3 if head.startswith(b"\xef\xbb\xbf") else 0)
            for count, (offset, number, row) in enumerate(self.records(file, self.header(file))):
                if settle(self, row, check, on_bad, f"{path.name}, line {number}"):
                    self._offsets.append(offset)
                    self._numbers.append(number)
                if not count % 1024:
                    moved(offset)

    def header(self, file: BinaryIO) -> int:
        """Reads what stands before the first record; returns the number of the next line."""
        return 1

    @abstractmethod
    def records(self, file: BinaryIO, number: int = 1) -> Iterator[Record]:
        """The records from the file's position on, whose line has this number."""

    def line(self, file: BinaryIO) -> bytes:
        """The next line, b"" at the end; a line without end is no text file."""
        line = file.readline(LONGEST_LINE)
        if len(line) == LONGEST_LINE:
            raise WorkbenchError(
                f"{self.path} has a line of over {LONGEST_LINE >> 20} MB; is it a text file?"
            )
        return line

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        with opened(self.path) as file:  # opened anew each time, so that threads do not share a position
            file.seek(self._offsets[index])
            row = next(self.records(file, self._numbers[index]), (0, 0, BadRow("it is gone")))[2]
        if isinstance(row, BadRow):
            raise WorkbenchError(
                f"{self.where(index)} has changed since the file was loaded ({row}); load it again"
            )
        return row

    def where(self, index: int) -> str:
        return f"{self.path.name}, line {self._numbers[index]}"


class JsonLines(Lines):
    """One JSON object a line; empty lines do not count."""

    def records(self, file: BinaryIO, number: int = 1) -> Iterator[Record]:
        offset = file.tell()
        while line := self.line(file):
            if not line.isspace():
                yield offset, number, self._row(line, number)
            offset, number = offset + len(line), number + 1

    def _row(self, line: bytes, number: int) -> Mapping[str, Any] | BadRow:
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            return BadRow(f"it is not UTF-8 (byte {error.start + 1} of the line)")
        except json.JSONDecodeError as error:
            if number == 1 and line.strip() in (b"[", b"{"):
                return BadRow(
                    "the file is one JSON value over many lines, not one object a line; write it as JSON Lines, or "
                    "name its preset (preset='squad')"
                )
            cut = "" if line.endswith(b"\n") else "; the file ends here, so it may be truncated"
            return BadRow(f"it is not JSON ({error.msg} at column {error.colno}){cut}")
        except RecursionError:
            return BadRow("it is nested too deeply")
        if not isinstance(row, dict):
            kind = "list" if isinstance(row, list) else "value"
            return BadRow(f"it is a JSON {kind} and not an object with fields; write one object a line")
        return row


class Csv(Lines):
    """Comma- or tab-separated values after a line of names; quoted fields may hold newlines."""

    @property
    def format(self) -> dict[str, Any]:
        """Arguments of csv.reader."""
        plain = {"quoting": csv.QUOTE_NONE} if not self.options.get("quotes", True) else {}
        return {
            "delimiter": "\t" if self.path.suffix.lower() in (".tsv", ".tab") else ",",
            "strict": True,
            **plain,
        }

    def header(self, file: BinaryIO) -> int:
        self.names: list[str] | None = None
        start = file.tell()
        _, _, row = next(self.records(file), (0, 0, BadRow("there is no line with anything in it")))
        if isinstance(row, BadRow):
            raise WorkbenchError(f"{self.path.name}, line 1 should hold the fields' names: {row}")
        self.names = list(row["header"])
        twice = {name for name in self.names if self.names.count(name) > 1}
        if twice:
            raise WorkbenchError(
                f"{self.path.name}, line 1 has the name {min(twice)!r} twice; names must differ"
            )
        end = file.tell()
        file.seek(start)
        return 1 + file.read(end - start).count(b"\n")

    def records(self, file: BinaryIO, number: int = 1) -> Iterator[Record]:
        csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CSV_FIELD))
        end = file.tell()

        def decoded() -> Iterator[
            str
        ]:  # csv takes no more lines than the record needs, so `end` is the record's
            nonlocal end
            while line := self.line(file):
                end += len(line)
                yield line.decode("utf-8", "surrogateescape")

        reader = csv.reader(decoded(), **self.format)
        while True:
            offset, first, lines = end, number, reader.line_num
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield offset, first, self._malformed(error)
                file.seek(
                    offset
                )  # an open quote has eaten good rows: go on at the line after the one it began in
                end, number = offset + len(self.line(file)), first + 1
                reader = csv.reader(decoded(), **self.format)
                continue
            number += reader.line_num - lines
            if values:  # an empty line is no row
                yield offset, first, self._row(values)

    def _malformed(self, error: csv.Error) -> BadRow:
        if "unexpected end" in str(error):
            return BadRow("a quoted field begins here and never ends; the file may be truncated")
        return BadRow(f"it is not well-formed ({error}); where quotes are ordinary text, say quotes=False")

    def _row(self, values: list[str]) -> Mapping[str, Any] | BadRow:
        if any(not value.isascii() and not _is_unicode(value) for value in values):
            return BadRow("it is not UTF-8")
        if self.names is None:
            return {"header": values}
        if len(values) != len(self.names):
            return BadRow(
                f"it has {len(values)} fields where line 1 names {len(self.names)} ({', '.join(self.names)})"
            )
        return dict(zip(self.names, values, strict=False))


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
        return True
    except UnicodeEncodeError:
        return False


class Parquet(Rows):
    """A Parquet file: the columns in use, copied row group by row group to a temporary Arrow file and mapped.

    Parquet itself can only be read by whole row groups, so a shuffled epoch would decode the file for each row.
    """

    BATCH = 1024

    def __init__(self, path: Path, check: Check, on_bad: str, columns: tuple[str, ...], **options: Any):
        import pyarrow as pa
        import pyarrow.parquet as pq

        super().__init__(path)
        self._starts, self._numbers = array("Q"), array("I")
        try:
            source = pq.ParquetFile(path, memory_map=True)
            names = source.schema_arrow.names
            tops = list(dict.fromkeys(_column(column, names, path) for column in columns))
            schema = pa.schema([source.schema_arrow.field(name) for name in tops])
            handle, copy = tempfile.mkstemp(suffix=".arrow")
            os.close(handle)
            try:
                with pa.OSFile(copy, "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
                    for batch in source.iter_batches(batch_size=self.BATCH, columns=tops):
                        self._copy(batch.select(tops), writer, check, on_bad)
                self._batches = pa.ipc.open_file(pa.memory_map(copy))
            finally:
                with contextlib.suppress(
                    OSError
                ):  # the mapping outlives the name; Windows keeps it in its temp folder
                    os.unlink(copy)
        except OSError as error:  # pyarrow's ArrowIOError is one
            raise WorkbenchError(f"{path} cannot be read as Parquet: {_first_line(error)}") from None
        except pa.ArrowException as error:
            raise WorkbenchError(
                f"{path} is no Parquet file, or is truncated or damaged: {_first_line(error)}"
            ) from None

    def _copy(self, batch: Any, writer: Any, check: Check, on_bad: str) -> None:
        import pyarrow as pa

        begin = self._seen = getattr(self, "_seen", 0)
        place = f"{self.path.name}, row {{}}"
        good = [
            settle(self, row, check, on_bad, place.format(i))
            for i, row in enumerate(batch.to_pylist(), begin + 1)
        ]
        self._seen += len(good)
        if any(good):
            self._starts.append(len(self._numbers))
            self._numbers.extend(i for i, ok in enumerate(good, begin + 1) if ok)
            writer.write_batch(batch if all(good) else batch.filter(pa.array(good)))

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        number = bisect_right(self._starts, index) - 1
        batch = self._batches.get_batch(number)
        return dict(batch.slice(index - self._starts[number], 1).to_pylist()[0])

    def where(self, index: int) -> str:
        return f"{self.path.name}, row {self._numbers[index]}"


class Saved(Rows):
    """One split of a 🤗 data set, with class labels as their names; the data set keeps its own file mapped."""

    def __init__(self, dataset: Any, path: Path, check: Check, on_bad: str, columns: tuple[str, ...]):
        super().__init__(path)
        names = dataset.column_names
        tops = list(dict.fromkeys(_column(column, names, path) for column in columns))
        self._data = dataset.select_columns(tops)
        self._labels = {k: f.names for k, f in dataset.features.items() if type(f).__name__ == "ClassLabel"}
        self._numbers = array("I")
        for number, row in enumerate(self._data):
            if settle(self, self._named(row), check, on_bad, f"{path.name}, row {number + 1}"):
                self._numbers.append(number)

    def _named(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        def name(key: str, value: Any) -> Any:
            names = self._labels.get(key)
            return names[value] if names and isinstance(value, int) and 0 <= value < len(names) else value

        return {key: name(key, value) for key, value in row.items()}

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self._named(self._data[self._numbers[index]])

    def where(self, index: int) -> str:
        return f"{self.path.name}, row {self._numbers[index] + 1}"

    def checksum(self) -> int:
        """CRC-32 of the first and the last row; the files are 🤗 datasets' own."""
        return zlib.crc32(repr((self[0], self[len(self) - 1])).encode())


def _column(path: str, names: Iterable[str], where: Path) -> str:
    """The column that a dotted path begins in."""
    names = list(names)
    top = path if path in names else path.split(".")[0]
    if top not in names:
        raise WorkbenchError(f"{where.name}: {unknown('field', top, names)}")
    return top


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200]


def split_rows(count: int) -> dict[str, Sequence[int]]:
    """Which rows of a single table are for training, validation and test: 8 : 1 : 1.

    Of each ten rows in a row, dice seeded by their place choose one for validation and one for test, so rows that are
    added at the end move no other row; the second and third row are such, so that any file of three has all splits.
    Neighbours may share a passage: where that matters, give files of your own for each split.
    """
    parts = {split: array("Q") for split in SPLITS}
    for begin in range(0, count, 10):
        if begin:
            validation, test = random.Random(f"split {begin}").sample(range(begin, begin + 10), 2)
        else:
            validation, test = 1, 2
        for row in range(begin, min(begin + 10, count)):
            parts["validation" if row == validation else "test" if row == test else "train"].append(row)
    return dict(parts)


class FileSource:
    """Examples from tables: for each split its rows, which of them, and the shape that makes an Example of a row."""

    def __init__(
        self, name: str, location: Any, tables: Mapping[str, Rows], shape: Shape, note: Mapping[str, Any]
    ):
        self.name, self.location, self.shape, self.note = name, location, shape, dict(note)
        self.tables = dict(tables)
        for rows in self.tables.values():
            if not len(rows) and rows.skipped:
                raise WorkbenchError(
                    f"none of the {rows.skipped} rows can be used; the first: {rows.first_bad}"
                )
            if not len(rows):
                raise WorkbenchError(f"{rows.path} has no rows")
        self.indices: dict[str, Sequence[int]]
        if set(self.tables) == {""}:
            (rows,) = self.tables.values()
            self.indices = split_rows(len(rows))
            self.tables = dict.fromkeys(self.indices, rows)
        else:
            self.indices = {split: range(len(rows)) for split, rows in self.tables.items()}
        self.splits = tuple(
            sorted(self.tables, key=lambda s: SPLITS.index(s) if s in SPLITS else len(SPLITS))
        )

    @property
    def skipped(self) -> int:
        """Bad rows left out, each table counted once."""
        return sum({id(rows): rows.skipped for rows in self.tables.values()}.values())

    def size(self, split: str) -> int:
        """How many rows the split has."""
        return len(self.indices[split])

    def example(self, split: str, index: int) -> Example:
        """The Example of one row."""
        rows, row = self.tables[split], self.indices[split][index]
        try:
            return self.shape(rows[row])
        except BadRow as bad:
            raise WorkbenchError(f"{rows.where(row)} has changed since it was loaded: {bad}") from None

    def fingerprint(self) -> dict[str, str]:
        """For each split the number of rows and the checksum of the file that they come from."""
        sums = {id(rows): f"{rows.checksum():08x}" for rows in self.tables.values()}
        return {split: f"{self.size(split)} {sums[id(self.tables[split])]}" for split in self.splits}

    def describe(self) -> dict[str, Any]:
        """Where the rows come from, and what of them is read."""
        return {
            "source": self.location,
            "template": self.shape.template.text,
            "answer": self.shape.answer,
            **self.note,
        }


READERS: dict[str, Callable[..., Rows]] = {
    ".jsonl": JsonLines,
    ".ndjson": JsonLines,
    ".json": JsonLines,
    ".csv": Csv,
    ".tsv": Csv,
    ".tab": Csv,
    ".parquet": Parquet,
    ".pq": Parquet,
}
_SPLIT_NAMES = {"train": "train", "training": "train", "test": "test"} | dict.fromkeys(
    ("validation", "valid", "val", "dev"), "validation"
)


def open_source(
    place: str | Path | Mapping[str, str | Path],
    *,
    template: str | None,
    answer: str | None,
    metric: str | None,
    preset: str | None,
    on_bad: str,
    known_tasks: Iterable[str] = (),
    **options: Any,
) -> tuple[FileSource, str]:
    """The source behind `load_task(path, …)`, whose docstring describes the arguments, and the metric's name."""
    from workbench.tasks.presets import PRESETS

    if preset is not None and preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    chosen = PRESETS[preset] if preset else None
    known = {"choices": None, "quotes": True, "subset": None, **(chosen.options if chosen else {})}
    for option in options:
        if option not in known:
            raise unknown("option of load_task for files", option, known)
    settings = {**known, **options}
    metric = metric or (chosen.metric if chosen else "exact_match")
    choices = settings["choices"]
    if metric == "accuracy" and choices is None:
        raise WorkbenchError("accuracy needs the label words: give choices=[…], or the field that holds them")
    shape = Shape(
        Template(template or (chosen.template if chosen else "{prompt}")),
        answer or (chosen.answer if chosen else "answer"),
        choices if choices is None or isinstance(choices, str) else tuple(map(str, choices)),
        settings.get("unanswerable"),
    )
    kinds = {**READERS, **(chosen.readers if chosen else {})}

    def table(path: Path) -> Rows:
        if not path.exists():
            raise WorkbenchError(f"there is no file {path}{_nearest(path)}")
        if path.is_dir():
            raise WorkbenchError(f"{path} is a folder, where a file was expected")
        if path.suffix.lower() not in kinds:
            raise WorkbenchError(
                f"{path} ends in {path.suffix!r}; files that can be read end in {', '.join(kinds)}"
            )
        if not path.stat().st_size:
            raise WorkbenchError(f"{path} is empty")
        return kinds[path.suffix.lower()](path, shape, on_bad, shape.columns, quotes=settings["quotes"])

    note = {"preset": preset} if preset else {}
    if isinstance(place, Mapping):
        paths = {str(split): Path(path).expanduser().absolute() for split, path in place.items()}
        if not paths:
            raise WorkbenchError("the dict of files is empty; give {'train': 'path', …}")
        tables = {_SPLIT_NAMES.get(split, split): table(path) for split, path in paths.items()}
        where: Any = {split: str(path) for split, path in paths.items()}
        return FileSource(next(iter(paths.values())).stem, where, tables, shape, note), metric

    path = Path(place).expanduser().absolute()
    if path.is_file():
        return FileSource(path.stem, str(path), {"": table(path)}, shape, note), metric
    if path.is_dir():
        files = _split_files(path, kinds)
        if files:
            tables = {split: table(file) for split, file in files.items()}
        else:
            tables = _datasets(path, None, shape, on_bad)
        return FileSource(path.name, str(path), tables, shape, note), metric
    name = str(place)
    if path.suffix.lower() in (*kinds, ".txt") or isinstance(place, Path) or name.startswith((".", "/", "~")):
        raise WorkbenchError(f"there is no file or folder {place}{_nearest(path)}")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise unknown("task, file or folder", name, known_tasks)
    tables = _datasets(name, settings["subset"], shape, on_bad)
    return FileSource(name, name, tables, shape, {**note, "subset": settings["subset"]}), metric


def _nearest(path: Path) -> str:
    """What a wrong path may have meant: ", the nearest there are …"."""
    from difflib import get_close_matches

    if not path.parent.is_dir():
        return f" (nor a folder {path.parent})"
    near = get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _split_files(folder: Path, kinds: Iterable[str]) -> dict[str, Path]:
    """Files of a folder that are named after splits: train.jsonl, dev-v1.1.json, …"""
    if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
        return {}
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        word = re.match(r"[a-z]+", file.name.lower())
        split = _SPLIT_NAMES.get(word.group()) if word else None
        if split is None or file.suffix.lower() not in kinds or not file.is_file():
            continue
        if re.search(r"-\d+-of-\d+", file.name):  # shards: datasets knows how they go together
            return {}
        if split in found:
            raise WorkbenchError(
                f"{folder} has two files for the split {split!r}, {found[split].name} and {file.name}; "
                "give a dict from split to file"
            )
        found[split] = file
    return found


def _datasets(place: Path | str, subset: str | None, shape: Shape, on_bad: str) -> dict[str, Rows]:
    """The splits of a folder of 🤗 datasets or of a data set on the Hub."""
    try:
        import datasets
    except ImportError:
        raise WorkbenchError(f"{place} needs the package datasets: pip install datasets") from None
    saved = isinstance(place, Path) and (
        (place / "dataset_dict.json").exists() or (place / "state.json").exists()
    )
    try:
        data = datasets.load_from_disk(str(place)) if saved else datasets.load_dataset(str(place), subset)
    except WorkbenchError:
        raise
    except Exception as error:  # datasets raises whatever its many formats raise
        known = "a folder with train, validation and test files, or one saved by 🤗 datasets"
        kind = "folder" if isinstance(place, Path) else "data set (no such folder here; tried the Hub)"
        raise WorkbenchError(
            f"the {kind} {str(place)!r} cannot be loaded ({type(error).__name__}: {_first_line(error)}); "
            f"it should be {known}"
        ) from None
    path = Path(place)
    if isinstance(data, datasets.Dataset):
        return {"": Saved(data, path, shape, on_bad, shape.columns)}
    tables: dict[str, Rows] = {
        _SPLIT_NAMES.get(split, split): Saved(part, path, shape, on_bad, shape.columns)
        for split, part in data.items()
    }
    return {"": next(iter(tables.values()))} if len(tables) == 1 else tables

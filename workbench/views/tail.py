"""The lines that a run's metrics.jsonl has gained since the last look. Reads each line once, and trips over none."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Tail:
    """What is new in one metrics.jsonl.

    Attributes:
        damaged: whole lines that are not a step's record; they are passed over.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.damaged = 0
        self._offset, self._file = 0, (0, 0)

    def read(self) -> tuple[bool, list[dict[str, Any]]]:
        """Whether the file began anew since the last look (a resumed run replaces it), and the records since then."""
        try:
            file = self.path.open("rb")
        except OSError:  # not there yet, or not any more
            return self._begin((0, 0)), []
        with file:
            facts = os.fstat(file.fileno())
            which = (facts.st_dev, facts.st_ino)
            anew = self._begin(which) if which != self._file or facts.st_size < self._offset else False
            file.seek(self._offset)
            text = file.read()
        text = text[: text.rfind(b"\n") + 1]  # what follows the last newline is still being written
        self._offset += len(text)
        records = []
        for line in text.splitlines():
            try:
                record = json.loads(line)
                records.append({**record, "step": int(record["step"]), "loss": float(record["loss"])})
            except (ValueError, KeyError, TypeError):
                self.damaged += 1
        return anew, records

    def _begin(self, which: tuple[int, int]) -> bool:
        anew = self._offset > 0 or self.damaged > 0
        self._offset, self._file, self.damaged = 0, which, 0
        return anew


def last_records(path: Path, count: int) -> list[dict[str, Any]]:
    """The last `count` records of a metrics.jsonl, or fewer; a long run costs no more than a short one."""
    try:
        file = path.open("rb")
    except OSError:
        return []
    with file:
        end = start = file.seek(0, os.SEEK_END)
        text = b""
        while start and text.count(b"\n") <= count + 1:  # one more, for what is still being written
            start = max(0, end - 2 * (end - start) - 4096)
            file.seek(start)
            text = file.read(end - start)
    lines = text[: text.rfind(b"\n") + 1].splitlines()
    return [json.loads(line) for line in (lines if start == 0 else lines[1:])[-count:]]

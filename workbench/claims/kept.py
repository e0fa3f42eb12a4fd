"""Numbers that took a while to make, kept as small JSON files and found again. Knows neither claims nor models.

    runs/evidence/vae/tiny-llama/reading/layer 2/sum-3-5c0a11de.json

The name's last part stands for everything that the numbers depend on, so that other settings never meet.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workbench.training.run import write_json


@dataclass(frozen=True)
class Kept:
    """What was found in one trial.

    prior: the trial's name among those of one seed. facts: its numbers; None for what is not finite. seconds: that it
    took to make them, once.
    """

    prior: str
    seed: int
    facts: dict[str, Any]
    seconds: float


def keep(
    home: Path, prior: str, seed: int, depends: bytes, make: Callable[[], Mapping[str, Any]]
) -> tuple[Kept, bool]:
    """A trial, kept or new, and whether it is new.

    Args:
        home: the folder of its file.
        depends: all that its numbers depend on.
        make: its numbers, asked for only where they are not there.
    """
    path = home / f"{prior}-{seed}-{hashlib.sha256(depends).hexdigest()[:8]}.json"
    new = not path.is_file()
    if new:
        started = time.perf_counter()
        facts = plain(make())
        home.mkdir(parents=True, exist_ok=True)
        write_json(path, {"facts": facts, "seconds": time.perf_counter() - started})
    found = json.loads(path.read_text())
    return Kept(prior, seed, found["facts"], found["seconds"]), new


def plain(value: Any) -> Any:
    """As JSON has it: no NumPy, and null for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value

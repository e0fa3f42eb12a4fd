"""The numbers of `clusters.py` for one layer, kept in a folder under one explicit key. Measures nothing itself.

They take a second or two a layer, and are asked for whenever a page shows the layer again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.analysis.clusters import measure_layers

#: Changes when what was kept would no longer be measured the same way.
VERSION = 2


def measure_layer(
    layer: str,
    vectors: ArrayLike,
    tasks: Sequence[object],
    texts: Sequence[object],
    cache: Path | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """The table of `measure_layers` for one layer, from the cache where layer, settings, labels and every number are the same.

    Args:
        layer: its name.
        vectors: (n, d).
        tasks, texts: (n,) of each row.
        cache: a folder with one file for each table; one that cannot be read is made anew.
        settings: of `measure_layers`.

    Raises:
        WorkbenchError: as `measure_layers`.
    """
    given = np.ascontiguousarray(vectors)
    labels = json.dumps([list(map(str, tasks)), list(map(str, texts))])
    key = {
        "layer": layer,
        "settings": settings,
        "data": hashlib.blake2b(given.data, digest_size=16).hexdigest(),
        "shape": [*given.shape, str(given.dtype)],
        "labels": hashlib.sha256(labels.encode()).hexdigest(),
        "version": VERSION,
    }
    whole = json.dumps(key, sort_keys=True)
    file = cache / f"clusters-{hashlib.sha256(whole.encode()).hexdigest()[:24]}.json" if cache else None
    if file is not None and (kept := _read(file, key)) is not None:
        return kept
    table = measure_layers({layer: given}, tasks, texts, **settings)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.{os.getpid()}-{threading.get_ident()}.part")
        facts = {"key": key, "table": table.to_json(orient="split", double_precision=15)}
        partial.write_text(json.dumps(facts), encoding="utf-8")
        os.replace(partial, file)
    return table


def _read(file: Path, key: dict[str, Any]) -> pd.DataFrame | None:
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        if facts["key"] != key:
            return None
        return pd.read_json(io.StringIO(facts["table"]), orient="split", precise_float=True)
    except (OSError, ValueError, KeyError, TypeError):  # not there, or damaged
        return None

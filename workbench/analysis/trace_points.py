"""Other points of a trace that has every token: a text's last token, its answer, or the mean over it, without the model.

    points_of(trace, "mean")            # the trace that wb.trace(…, positions="mean") would have made

Tables and arrays in, a trace in memory out.
"""

from __future__ import annotations

import json
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from workbench.analysis.trace import Trace
from workbench.analysis.trace_files import Part
from workbench.errors import WorkbenchError, unknown

Points = Literal["all", "last", "answer", "mean"]

#: The points, as people read them.
POINTS: dict[Points, str] = {
    "mean": "the mean of each text",
    "last": "the last token of each text",
    "answer": "the tokens of answers",
    "all": "all tokens",
}


def points_of(trace: Trace, points: Points) -> Trace:
    """The rows of a trace that `points` names; the same trace where it holds just these.

    Args:
        trace: with every token of its texts, or with these points already.
        points: "all", "last", "answer" or "mean", as `wb.trace` takes them.

    Raises:
        WorkbenchError: unknown points, a trace that does not have them, or texts none of which has an answer.
    """
    if points not in POINTS:
        raise unknown("choice of points", points, POINTS)
    kept = trace.settings["positions"]
    if kept == points:
        return trace
    if kept != "all":
        raise WorkbenchError(
            f"this trace holds {kept} tokens only; trace positions='all' to look at others as well"
        )
    table = trace.rows
    text = table["text"].to_numpy()
    starts = np.flatnonzero(np.r_[True, text[1:] != text[:-1]]) if len(text) else np.zeros(0, np.int64)
    if points == "mean":
        rows, arrays = _means(trace, text, starts)
    else:
        ends = np.r_[starts[1:], len(text)] - 1
        chosen = ends if points == "last" else np.flatnonzero(table["is_answer"].to_numpy())
        if not len(chosen):
            raise WorkbenchError("no text of this trace has an answer; look at other points")
        rows, arrays = table.take(chosen), {p: torch.from_numpy(trace[p][chosen]) for p in trace.places}
    texts = {"texts": json.dumps(trace.texts, ensure_ascii=False)}
    return Trace({**trace.settings, "positions": points}, [Part(rows.replace_schema_metadata(texts), arrays)])


def _means(
    trace: Trace, text: NDArray[np.int64], starts: NDArray[np.int64]
) -> tuple[pa.Table, dict[str, torch.Tensor]]:
    table, count = trace.rows, len(starts)
    sizes = np.diff(np.r_[starts, len(text)])
    arrays = {}
    for place in trace.places:
        summed = np.add.reduceat(trace[place].astype(np.float32), starts, axis=0, dtype=np.float32)
        arrays[place] = torch.from_numpy((summed / sizes[:, None]).astype(trace.settings["dtype"]))
    scores = table["log_probability"].to_numpy()
    known = ~np.isnan(scores)
    with np.errstate(invalid="ignore"):
        mean = np.add.reduceat(np.where(known, scores, 0), starts) / np.add.reduceat(
            known.astype(np.float32), starts
        )
    nothing = np.full(count, -1)
    columns = dict.fromkeys(("index", "position", "token_id", "step"), nothing)
    columns |= {
        "text": text[starts],
        "task": table["task"].take(starts),
        "log_probability": mean.astype(np.float32),
    }
    columns |= {"token": np.full(count, "", object), "is_answer": np.zeros(count, bool)}
    return pa.table({name: columns[name] for name in table.schema.names}, schema=table.schema), arrays

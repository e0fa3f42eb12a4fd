"""Side-by-side measurement: the same work done by us and by a peer, in one process, in turns.

A row is a function marked `@row("name")` in a file of workbench/bench/. It prepares the work and returns
`Measurement`s; nothing is timed while it prepares. For each measurement the harness

1. runs `check`, which compares what the two compute: figures for different work are never printed;
2. warms each contender up, and finds how many calls make a sample long enough for the clock;
3. takes samples in turns (ours, peer, each variant, ours, …), so that a machine that slows down slows all;
4. reports medians, the ratio peer / ours, and the quartiles of the ratio between the turns;
5. runs each once more to see how much memory it needs at its highest point (`memory.peak_memory`).

One table goes to the screen, one list to data/evidence/bench.json; rows that were not run keep their old entries.
Never chooses the peer's settings: that is the row's business, and its `notes` say what they are.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import pkgutil
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any

import workbench.bench
from workbench.bench.memory import peak_memory
from workbench.data import EVIDENCE
from workbench.errors import WorkbenchError, unknown
from workbench.tables import table as aligned

RESULTS = EVIDENCE / "bench.json"
PACKAGES = ("torch", "transformers", "peft", "nnsight")
UNITS = {"s": 1.0, "ms": 1e3, "µs": 1e6}
MEGABYTE = 1e6
SAMPLE_SECONDS = 0.05  # a sample shorter than this says more about the clock than about the work

Work = Callable[[], Any]


class Different(AssertionError):
    """The check of a measurement failed: ours and the peer's do not do the same work."""


@dataclass(frozen=True)
class Measurement:
    """One thing that two can do. `ours` and `peer` do all of it at each call, and wait for nothing else.

    `check` raises AssertionError (or returns False) where the two differ. `variants` are ours with one trick
    off, or the peer's with other settings; their ratio is peer / variant, so it compares with the row's.
    `device` is "cpu" or "cuda"; `samples` is how many turns are taken. `tokens` are those of one call's rows, and
    `operations` its multiplications and additions of matrices: with them the entry says how many tokens a second we do,
    and what share of the rate at which the machine multiplies large matrices of type `dtype`.
    """

    name: str
    ours: Work
    peer: Work
    unit: str = "ms"
    notes: str = ""
    variants: Mapping[str, Work] = field(default_factory=dict)
    check: Callable[[], object] | None = None
    device: str = "cpu"
    samples: int = 9
    tokens: int = 0
    operations: float = 0.0
    dtype: Any = None

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise unknown("unit of time", self.unit, UNITS)
        if self.samples < 3:
            raise WorkbenchError(f"{self.name!r} asks for {self.samples} samples; a spread needs 3 or more")


Row = Callable[[], Sequence[Measurement]]
_ROWS: dict[str, Row] = {}


def row(name: str) -> Callable[[Row], Row]:
    """Marks a function that returns the measurements of one row of the table."""

    def register(make: Row) -> Row:
        _ROWS[name] = make
        return make

    return register


def rows() -> dict[str, Row]:
    """Every row by name, after loading each file of workbench/bench/."""
    for module in pkgutil.iter_modules(workbench.bench.__path__):
        if module.name not in ("__main__", "harness", "memory", "models"):
            importlib.import_module(f"workbench.bench.{module.name}")
    return dict(sorted(_ROWS.items()))


def run(names: Sequence[str] = (), out: Path | None = RESULTS) -> list[dict[str, Any]]:
    """Runs the named rows (all when none is named), prints the table, merges the results into `out`."""
    known = rows()
    for name in names:
        if name not in known:
            raise unknown("row of the bench", name, known)
    results: list[dict[str, Any]] = []
    for name in names or known:
        print(f"measuring {name} …", flush=True)
        results += [measure(measurement) for measurement in known[name]()]
        if out is not None:
            _merge(results, out)  # after each row: a later one that fails loses nothing
    print(table(results))
    return results


def measure(measurement: Measurement) -> dict[str, Any]:
    """Checks and times one measurement; the entry for bench.json."""
    if measurement.check is not None:
        try:
            same = measurement.check()
        except AssertionError as error:
            raise Different(f"{measurement.name!r}: ours and the peer's differ: {error}") from error
        if same is False:
            raise Different(f"{measurement.name!r}: ours and the peer's differ")
    contenders = {"ours": measurement.ours, "peer": measurement.peer}
    contenders |= {f"variant {name}": work for name, work in measurement.variants.items()}
    calls = {name: _calls(work) for name, work in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(measurement.samples):
        for name, work in contenders.items():
            times[name].append(_sample(work, calls[name]) * UNITS[measurement.unit])
    seconds = statistics.median(times["ours"]) / UNITS[measurement.unit]
    rates = {}
    if measurement.tokens:
        rates["tokens_per_second"] = measurement.tokens / seconds
    if measurement.operations:
        rates["matrix_share"] = (
            measurement.operations / seconds / _matrix_rate(measurement.device, measurement.dtype)
        )
    memory = {name: peak_memory(work) / MEGABYTE for name, work in contenders.items()}
    peer = times["peer"]
    return {
        "name": measurement.name,
        **_entry("ours", times["ours"], peer),
        "peer": statistics.median(peer),
        "unit": measurement.unit,
        **rates,
        "memory": memory["ours"],
        "peer_memory": memory["peer"],
        "memory_unit": "MB",
        "samples": measurement.samples,
        "variants": [
            {
                "name": name,
                **_entry("time", times[f"variant {name}"], peer),
                "memory": memory[f"variant {name}"],
            }
            for name in measurement.variants
        ],
        "notes": measurement.notes,
        "device": _device(measurement.device),
        "versions": _versions(),
    }


def table(results: Iterable[Mapping[str, Any]]) -> str:
    """The results as text: work, ours, peer, ratio, spread, peak memory of both; variants indented below their row."""
    lines = [("work", "ours", "peer", "ratio", "spread", "peer's memory", "memory")]
    for result in results:
        unit = result["unit"]
        peer = f"{result['peer']:.2f} {unit}"
        memory = _megabytes(result["peer_memory"]), _megabytes(result["memory"])
        lines.append((result["name"], f"{result['ours']:.2f} {unit}", peer, *_ratio(result), *memory))
        for variant in result["variants"]:
            time, memory = f"{variant['time']:.2f} {unit}", ("", _megabytes(variant["memory"]))
            lines.append((f"  {variant['name']}", time, "", *_ratio(variant), *memory))
    return aligned(lines, right=True)


def _entry(name: str, times: Sequence[float], peer: Sequence[float]) -> dict[str, Any]:
    """Median time, ratio of medians, and the quartiles of the ratio between neighbouring samples."""
    first, _, third = statistics.quantiles(
        [b / a for a, b in zip(times, peer, strict=True)], n=4, method="inclusive"
    )
    median = statistics.median(times)
    return {name: median, "ratio": statistics.median(peer) / median, "spread": [first, third]}


def _ratio(entry: Mapping[str, Any]) -> tuple[str, str]:
    return f"{entry['ratio']:.2f}", f"{entry['spread'][0]:.2f}–{entry['spread'][1]:.2f}"


def _megabytes(size: float) -> str:
    return f"{size:.1f} MB"


def _calls(work: Work) -> int:
    """Warms up (twice: the first call may compile or allocate), then says how many calls fill a sample."""
    _sample(work, 1)
    return max(1, round(SAMPLE_SECONDS / max(_sample(work, 1), 1e-9)))


def _sample(work: Work, calls: int) -> float:
    """Seconds of one call, averaged over `calls`, with the collector off and the GPU (if in use) waited for."""
    gc.collect()
    gc.disable()
    try:
        _wait()
        start = perf_counter()
        for _ in range(calls):
            work()
        _wait()
        return (perf_counter() - start) / calls
    finally:
        gc.enable()


@functools.cache
def _matrix_rate(device: str, dtype: Any) -> float:
    """Multiplications and additions a second of large square matrices: what the machine does at its best."""
    import torch

    size = 2048 if device == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    work = functools.partial(torch.mm, a, b)
    calls = _calls(work)
    return 2.0 * size**3 / statistics.median(_sample(work, calls) for _ in range(5))


def _wait() -> None:
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _device(kind: str) -> str:
    """`cpu: <processor>, <n> threads` or `cuda: <name of the GPU>`; the word before the colon is the kind."""
    import torch

    if kind == "cuda":
        return f"cuda: {torch.cuda.get_device_name()}"
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [
            line.split(":", 1)[1].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        processor = models[0] if models else processor
    return f"cpu: {processor}, {torch.get_num_threads()} threads"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _merge(results: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Writes `out` with these results in place of older ones of the same name and kind of device."""

    def key(entry: Mapping[str, Any]) -> tuple[str, str]:
        return entry["name"], entry["device"].split(":")[0]

    entries: dict[tuple[str, str], Mapping[str, Any]] = {}
    if out.exists():
        try:
            entries = {key(entry): entry for entry in json.loads(out.read_text(encoding="utf-8"))}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WorkbenchError(
                f"{out} is not a list of bench results; move it away and run again"
            ) from error
    entries |= {key(entry): entry for entry in results}
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".partial")
    text = json.dumps([entries[k] for k in sorted(entries)], indent=2, ensure_ascii=False)
    partial.write_text(text + "\n", encoding="utf-8")
    os.replace(partial, out)

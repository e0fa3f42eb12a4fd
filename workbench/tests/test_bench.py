"""The bench's harness: it times what it says, refuses to compare different work, and keeps old results."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from workbench.analysis.trace import trace as wb_trace
from workbench.bench import harness, trace
from workbench.bench.harness import Measurement
from workbench.bench.models import Shape, Work
from workbench.errors import WorkbenchError
from workbench.methods.injection import Injection


def sleep(milliseconds: float):
    return lambda: time.sleep(milliseconds / 1000)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows that need nothing, in place of the real ones."""
    monkeypatch.setattr(harness, "_ROWS", {})
    monkeypatch.setattr(harness, "rows", lambda: harness._ROWS)
    monkeypatch.setattr(harness, "SAMPLE_SECONDS", 0.0)
    variants = {"without the trick": sleep(10)}
    harness.row("one")(lambda: [Measurement("one", sleep(2), sleep(20), variants=variants, samples=3)])
    harness.row("two")(lambda: [Measurement("two", sleep(2), sleep(2), check=lambda: True, samples=3)])


def test_ratio_is_peer_over_ours(work: None, tmp_path: Path) -> None:
    """A ratio above one means that ours is faster, and a variant's is measured against the same peer."""
    out = tmp_path / "evidence" / "bench.json"
    harness.run(["one"], out)
    (entry,) = json.loads(out.read_text())
    assert {"name", "ours", "peer", "ratio", "unit", "versions", "device"} <= set(entry)
    assert entry["ratio"] > 2
    assert entry["ratio"] == pytest.approx(entry["peer"] / entry["ours"])
    assert 1 < entry["variants"][0]["ratio"] < entry["ratio"]
    assert 2 <= entry["ours"] < 20 <= entry["peer"]


def test_memory_is_that_of_each_contender(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table says what ours and the peer's allocate at their highest point."""
    entry = harness.measure(
        Measurement(
            "bytes",
            lambda: torch.empty(3_000_000, dtype=torch.uint8),
            lambda: torch.empty(5_000_000, dtype=torch.uint8),
            samples=3,
        )
    )
    assert (entry["memory"], entry["peer_memory"], entry["memory_unit"]) == (3.0, 5.0, "MB")


def test_rates_come_from_tokens_and_operations() -> None:
    """Tokens a second, and the share of what the machine does on large matrices: a large product has most of it."""
    a = torch.randn(2048, 2048)

    def product() -> torch.Tensor:
        return a @ a

    numbers = {"tokens": 1000, "operations": 2.0 * 2048**3, "dtype": torch.float32}
    entry = harness.measure(Measurement("product", product, product, samples=3, **numbers))
    assert entry["tokens_per_second"] == pytest.approx(1000 / (entry["ours"] / 1e3))
    assert 0.3 < entry["matrix_share"] < 3
    assert "matrix_share" not in harness.measure(Measurement("nothing", sleep(1), sleep(1), samples=3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_steps_compare_the_same_work_in_either_type(dtype: torch.dtype) -> None:
    """What is measured on a GPU (bfloat16, grouped heads) passes its checks here, on a small shape; nothing is timed."""
    from workbench.bench import bank, steps
    from workbench.bench.models import Shape, Work

    shape = Shape(4, 32, 4, 64, prompt=8, tokens=10, answer=3, batch=2, key_heads=2, inner=64, dtype=dtype)
    for make in (steps._soft, steps._deep, steps._prefix):
        made = make(Work(shape))
        assert made.check is not None
        made.check()
        assert made.tokens == 20 and made.operations > 0
    for measurement in (bank._bank(2, shape), bank._one_prompt(Work(replace(shape, answer=0)))):
        assert measurement.check is not None
        measurement.check()


def test_a_named_row_leaves_the_others_as_they_were(work: None, tmp_path: Path) -> None:
    """Measuring one row again replaces it alone."""
    out = tmp_path / "bench.json"
    harness.run([], out)
    before = {entry["name"]: entry for entry in json.loads(out.read_text())}
    harness.run(["two"], out)
    after = {entry["name"]: entry for entry in json.loads(out.read_text())}
    assert set(after) == {"one", "two"}
    assert after["one"] == before["one"] and after["two"] != before["two"]


def test_different_work_is_not_compared() -> None:
    """The check runs before the clock: nothing is timed, nothing is returned."""
    timed: list[str] = []
    measurement = Measurement(
        "off", lambda: timed.append("ours"), lambda: timed.append("peer"), check=lambda: False
    )
    with pytest.raises(harness.Different, match="'off'"):
        harness.measure(measurement)
    assert not timed


def test_bad_input_is_one_sentence(work: None, tmp_path: Path) -> None:
    """An unknown row, an unknown unit, and a results file that is not one."""
    with pytest.raises(WorkbenchError, match="did you mean 'one'"):
        harness.run(["onne"], tmp_path / "bench.json")
    with pytest.raises(WorkbenchError, match="unit of time"):
        Measurement("x", sleep(1), sleep(1), unit="hours")
    (tmp_path / "bench.json").write_text('{"not": "a list"')
    with pytest.raises(WorkbenchError, match="not a list of bench results"):
        harness.run(["two"], tmp_path / "bench.json")
    assert (tmp_path / "bench.json").read_text() == '{"not": "a list"'


def test_table_has_a_line_for_each_measurement_and_variant(work: None) -> None:
    """One table: work, ours, peer, ratio, spread, and the memory of both."""
    lines = harness.table(harness.run(["one"], None)).splitlines()
    assert lines[0].split() == ["work", "ours", "peer", "ratio", "spread", "peer's", "memory", "memory"]
    assert lines[1].startswith("one ") and lines[2].startswith("  without the trick ")
    assert len({len(line) for line in lines}) == 1, "columns line up"


def test_a_trace_is_measured_without_nnsight_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """nnsight is no dependency; what is compared is checked with it or without, and a trace of other rows is refused."""
    work = Work(Shape(2, 32, 2, 64, prompt=0, tokens=6, answer=2, batch=2))
    monkeypatch.setattr(trace, "_installed", lambda: False)
    without = trace._reading(work)
    assert without.check is not None and "nnsight is not installed" in without.notes
    assert not any("nnsight" in name for name in without.variants)
    without.check()
    monkeypatch.setattr(trace, "trace", lambda backbone, rows, *more: wb_trace(backbone, rows[::-1], *more))
    with pytest.raises(AssertionError, match="layer 0 differs"):
        without.check()


def test_prosg_is_measured_where_its_changes_are_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates, folded weights and factors of rows pass their checks; a change that is lost on the way is refused."""
    from workbench.bench import prosg

    monkeypatch.setattr(prosg, "MEDIUM", Shape(2, 32, 2, 3_072, prompt=0, tokens=0, answer=0, batch=0))
    backbone = prosg._random()
    whole = [prosg._train(backbone, stories=2, length=100), *prosg._one(backbone)]
    for measurement in (*whole, prosg._tokens("rows", backbone, prosg._questions(backbone, 3), ranks=(2,))):
        assert measurement.tokens > 0
        if measurement.check is not None:
            measurement.check()
    monkeypatch.setattr(prosg, "_injection", lambda method: Injection())
    for count in (1, 3):
        lost = prosg._tokens("rows", backbone, prosg._questions(backbone, count))
        assert lost.check is not None
        with pytest.raises(AssertionError, match="the weights are not changed"):
            lost.check()


def test_every_row_of_the_project_loads() -> None:
    """A row whose file cannot be imported would be missed only when someone measures."""
    assert all(callable(make) for make in harness.rows().values())

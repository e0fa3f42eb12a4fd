"""Curves of many runs: what makes a group, how it is named, what its band is. No run is trained."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.tests.run_folders import CONFIG, changed, write_run
from workbench.training.run import Run
from workbench.views import Curves, Drift
from workbench.views.bands import MOST_GROUPS, Bands, spread
from workbench.views.check import check_figure
from workbench.views.groups import SEEDS, difference_table, group_runs, name_runs, settings_of_config
from workbench.views.tail import Tail

SETTINGS = settings_of_config(CONFIG)
NUMBERS = count()


def bare(folder: Path, config: dict[str, Any]) -> Run:
    """A run of which only the config matters."""
    return Run.create(folder / f"run-{next(NUMBERS):05d}", config)


def partition(runs: list[Run]) -> set[frozenset[str]]:
    return {frozenset(run.name for run in group.runs) for group in group_runs(runs)}


# Groups

chosen = st.fixed_dictionaries(
    {
        "backbone__name": st.sampled_from(["tiny-llama", "tiny-rwkv"]),
        "fit__learning_rate": st.sampled_from([0.01, 0.03]),
        "method__config__tokens": st.sampled_from([5, 20]),
        "method__config__seed": st.integers(0, 2),
        "fit__seed": st.integers(0, 2),
    }
)


@given(many=st.lists(chosen, min_size=1, max_size=7), order=st.randoms(use_true_random=False))
def test_the_order_of_the_runs_changes_nothing(tmp_path: Path, many: list[Any], order: Any) -> None:
    """Protects colours and legends: the same runs in any order, and named twice, are the same groups in one order."""
    runs = [bare(tmp_path, changed(CONFIG, **settings)) for settings in many]
    mixed = [*runs, runs[0]]
    order.shuffle(mixed)
    before, after = group_runs(runs), group_runs(mixed)
    assert [(g.name, [r.name for r in g.runs]) for g in before] == [
        (g.name, [r.name for r in g.runs]) for g in after
    ]


@given(many=st.lists(chosen, min_size=1, max_size=7))
def test_runs_share_a_group_when_they_differ_in_seeds_only(tmp_path: Path, many: list[Any]) -> None:
    """Protects the band: it is over seeds, all of them, and over nothing else. Names tell the groups apart."""
    runs = [bare(tmp_path, changed(CONFIG, **settings)) for settings in many]
    wanted: dict[tuple[Any, ...], set[str]] = {}
    for run, settings in zip(runs, many, strict=True):
        key = tuple(value for name, value in sorted(settings.items()) if not name.endswith("seed"))
        wanted.setdefault(key, set()).add(run.name)
    assert partition(runs) == {frozenset(names) for names in wanted.values()}
    names = [group.name for group in group_runs(runs)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_seed_never_splits_a_group_and_any_other_setting_does(tmp_path: Path, name: str) -> None:
    """Protects from a band over runs that were not asked to be the same: every field of the config counts."""
    one = bare(tmp_path, CONFIG)
    other = bare(tmp_path, changed(CONFIG, **{name.replace(".", "__"): "something else"}))
    groups = group_runs([one, other])
    assert len(groups) == (1 if name in SEEDS else 2)
    if len(groups) == 2:
        assert all("something else" in g.name for g in groups if g.runs == (other,))
        assert name in set(difference_table(groups)["setting"])


def test_what_is_recorded_beside_the_settings_does_not_split_a_group(tmp_path: Path) -> None:
    other = changed(CONFIG, created="later", versions__python="3.13", method__parameters=7, job__questions=40)
    older = changed(CONFIG)
    del older["fit"]["gradient_checkpointing"]  # written before there was such a setting; it had its default
    older["fit"]["weight_decay"] = 0  # 0 and 0.0 are the same
    assert len(group_runs([bare(tmp_path, CONFIG), bare(tmp_path, other), bare(tmp_path, older)])) == 1


def test_groups_are_named_by_what_differs_and_nothing_else(tmp_path: Path) -> None:
    """Protects the legend: no common setting, nothing that follows from a name, every real difference."""
    rwkv = {"backbone__name": "tiny-rwkv", "backbone__width": 64, "backbone__state": True}
    lora = {"method": {"kind": "lora", "config": {"rank": 4, "seed": 0}, "parameters": 3}}
    runs = [bare(tmp_path, changed(CONFIG, fit__learning_rate=rate)) for rate in (0.1, 0.01)]
    assert [g.name for g in group_runs(runs)] == ["learning rate 0.01", "learning rate 0.1"]
    runs = [bare(tmp_path, CONFIG), bare(tmp_path, changed(CONFIG, **rwkv))]
    assert [g.name for g in group_runs(runs)] == ["tiny-llama", "tiny-rwkv"]
    runs = [bare(tmp_path, CONFIG), bare(tmp_path, changed(CONFIG, **lora))]
    assert [g.name for g in group_runs(runs)] == ["lora", "soft-prompt"]
    runs.append(bare(tmp_path, changed(CONFIG, method__config__prior={"name": "isotropic", "scale": 2.0})))
    assert sorted(g.name for g in group_runs(runs)) == [
        "lora, no prior",
        "soft-prompt, prior isotropic",
        "soft-prompt, prior vocabulary",
    ]
    alone = group_runs(runs[:1])
    assert [g.name for g in alone] == [runs[0].name]


def test_runs_are_named_apart_by_their_seeds_too(tmp_path: Path) -> None:
    runs = [bare(tmp_path, changed(CONFIG, fit__seed=seed)) for seed in (0, 1, 1)]
    names = [name for _, name in name_runs(runs)]
    assert names[0] == "fit seed 0" and len(set(names)) == 3


# Bands


@given(values=st.lists(st.lists(st.floats(-10, 10), min_size=1, max_size=5), min_size=1, max_size=4))
def test_the_band_is_what_numpy_says(values: list[list[float]]) -> None:
    """Protects mean, lowest and highest, also where some runs have gone further than others."""
    import pandas as pd

    rows = [
        {"run": str(run), "group": "g", "step": step, "loss": value}
        for run, losses in enumerate(values)
        for step, value in enumerate(losses)
    ]
    found = spread(pd.DataFrame(rows), "loss")
    for _, row in found.iterrows():
        there = np.array([losses[int(row["step"])] for losses in values if len(losses) > row["step"]])
        np.testing.assert_allclose(
            [row["mean"], row["low"], row["high"]], [there.mean(), there.min(), there.max()]
        )
        assert row["runs"] == len(there)
    assert len(found) == max(map(len, values))


def seeds(folder: Path, rates: tuple[float, ...] = (1.0, 2.0, 4.0), **settings: Any) -> list[Run]:
    return [
        write_run(folder / f"{len(settings)}-{seed}", rate=rate, fit__seed=seed, snapshots=True, **settings)
        for seed, rate in enumerate(rates)
    ]


def test_a_figure_of_many_runs_holds_the_mean_and_the_band_of_its_table(tmp_path: Path) -> None:
    runs = [*seeds(tmp_path), *seeds(tmp_path, (1.5, 3.0), fit__learning_rate=0.5)]
    view = Curves(runs)
    table = view.data()
    assert list(table.columns[:5]) == ["run", "group", "step", "loss", "smoothed"]
    assert len(table) == 5 * 40 and set(table["group"]) == {"learning rate 0.01", "learning rate 0.5"}
    figure = view.figure()
    assert len(figure.data) == 2 * 3 * 3  # groups, panels, and band, single runs, mean
    band, singles, mean = figure.data[6:9]  # validation loss of the first group
    looks = table[(table["group"] == "learning rate 0.01")].dropna(subset=["validation loss"])
    wide = looks.pivot(index="step", columns="run", values="validation loss").to_numpy()
    np.testing.assert_allclose(mean.y, wide.mean(axis=1))
    np.testing.assert_allclose(band.y, [*wide.max(axis=1), *wide.min(axis=1)[::-1]])
    assert singles.visible == "legendonly" and np.isnan(singles.y).sum() == 3
    assert "lowest to highest seed" in figure.layout.title.text
    assert [t.name for t in figure.data if t.showlegend].count("single runs") == 1
    assert Curves(runs, each=True).figure().data[1].visible is True


def test_runs_without_seeds_have_no_band_and_the_figure_claims_none(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(rate), fit__learning_rate=rate) for rate in (0.1, 0.2)]
    figure = Curves(runs).figure()
    assert len(figure.data[0].x) == 0 and "seed" not in figure.layout.title.text
    assert "single runs" not in [t.name for t in figure.data if t.showlegend]


def test_more_groups_than_can_be_told_apart_are_not_drawn_and_the_figure_says_so(tmp_path: Path) -> None:
    runs = [
        bare(tmp_path, changed(CONFIG, fit__learning_rate=0.01 * (i + 1))) for i in range(MOST_GROUPS + 3)
    ]
    assert f"3 of {MOST_GROUPS + 3} groups are not drawn" in Curves(runs).figure().layout.title.text
    assert Bands(group_runs(runs)).layout("t", [], 900, 100)["height"] > 17 * MOST_GROUPS


def test_a_run_that_cannot_be_read_is_left_out_and_the_figure_says_so(tmp_path: Path) -> None:
    runs = seeds(tmp_path)
    (runs[0].path / "config.json").write_text("{")
    (runs[1].path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\nnot a step\n[]\n')
    view = Curves(runs)
    assert len(view.data()) == 40 + 1
    assert "1 of 3 runs cannot be read" in view.figure().layout.title.text


def test_a_live_figure_of_many_runs_follows_them_and_turns_to_others(tmp_path: Path) -> None:
    """Protects the browser's panel: steps that come later are drawn, another set of runs takes its place."""
    runs = seeds(tmp_path)
    view = Curves(runs)
    shown = view.widget()
    runs[0].append_metrics({"step": 41, "loss": 0.5, "seconds": 0.5})
    view.update()
    shown.flush()
    assert shown.data[2].x[-1] == 41
    view.runs = [*runs, *seeds(tmp_path, (1.0,), fit__learning_rate=0.5)]
    view.update()
    shown.flush()
    assert view.widget() is shown and len(shown.data) == 18
    view.run = runs[0]
    view.update()
    shown.flush()
    assert len(shown.data) == 3 and shown.layout.yaxis3.title.text is None


def test_nothing_in_the_figures_is_hard_to_read(tmp_path: Path) -> None:
    """Protects a paper's page: titles, legends and notes keep apart, on both papers, with one group and with many."""
    runs = seeds(tmp_path, fit__learning_rate=0.5) + [
        write_run(tmp_path / f"m{i}", fit__learning_rate=0.01 * (i + 1), task__task="a-task-with-a-long-name")
        for i in range(MOST_GROUPS - 1)
    ]
    for theme in ("light", "dark"):
        for view in (
            Curves(runs, theme),
            Curves(runs[:3], theme),
            Drift(runs, theme),
            Curves(runs[:1], theme),
        ):
            assert check_figure(view.figure()) == []


def test_empty_figures_say_what_will_be_there(tmp_path: Path) -> None:
    fresh = [bare(tmp_path, CONFIG), bare(tmp_path, CONFIG)]
    for view in (Curves(), Curves(fresh), Drift(), Drift(fresh)):
        assert not len(view.data()) and view.figure().layout.annotations


def test_drift_is_the_mean_distance_from_the_first_snapshot(tmp_path: Path) -> None:
    runs = seeds(tmp_path)
    table = Drift(runs).data()
    one = table[table["run"] == runs[1].name].set_index("step")["moved"]
    np.testing.assert_allclose(
        one.loc[40], 2.0 * np.sqrt(12), rtol=1e-5
    )  # each of 12 entries moved by the rate
    assert one.loc[0] == 0
    (runs[0].path / "snapshots/step-00000020.safetensors").write_bytes(b"broken")
    assert len(Drift(runs).data()) == len(table) - 1


# Reading


def test_a_metrics_file_is_read_once_and_again_when_it_is_replaced(tmp_path: Path) -> None:
    """Protects the cost of watching, and a resumed run: it cuts its file, and no step may be shown twice."""
    run = write_run(tmp_path / "r")
    tail = Tail(run.path / "metrics.jsonl")
    assert [len(tail.read()[1]), len(tail.read()[1])] == [40, 0]
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "lo')
        file.flush()
        assert tail.read() == (False, [])
        file.write('ss": 1.0}\n')
    assert [r["step"] for r in tail.read()[1]] == [41]
    run.cut_metrics(30)
    anew, records = tail.read()
    assert anew and len(records) == 30
    assert len(Curves(run).data()) == 30


def test_curves_of_a_resumed_run_hold_every_step_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r")
    view = Curves(run)
    view.data()
    run.cut_metrics(30)
    run.append_metrics({"step": 31, "loss": 9.0, "seconds": 0.5})
    assert view.data()["step"].tolist() == [*range(1, 32)]
    np.testing.assert_allclose(view.data()["smoothed"], Curves(run).data()["smoothed"])


def test_two_runs_with_one_name_stay_apart(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / folder / "same", fit__seed=i) for i, folder in enumerate("ab")]
    assert Curves(runs).data()["run"].nunique() == 2


def test_the_table_of_a_view_is_tidy_json(tmp_path: Path) -> None:
    table = Curves(seeds(tmp_path)).data()
    assert json.loads(table.to_json(orient="records"))[0]["run"] == "0-0"
    assert not table.duplicated(["run", "step"]).any()

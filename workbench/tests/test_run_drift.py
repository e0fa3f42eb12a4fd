"""Protects the drift of real runs: measured against the right tokens and the prior that drew them, and drawn with bands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.analysis.drift import MEASURES, density
from workbench.analysis.run_drift import RunDrifts
from workbench.training.job import JobConfig
from workbench.training.preview import Preview
from workbench.training.run import Run
from workbench.views.check import check_figure
from workbench.views.drift import Drift

PRIORS = {"fitted-gaussian": wb.priors.FittedGaussian(), "vocabulary": wb.priors.Vocabulary()}


@pytest.fixture(scope="module")
def backbone() -> wb.Backbone:
    return wb.load_backbone("tiny-llama", device="cpu")


@pytest.fixture(scope="module")
def folder(backbone: wb.Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two priors with two seeds each, and a deep prompt, trained for a few steps."""
    folder, task = tmp_path_factory.mktemp("study"), wb.load_task("find-person")
    fit = wb.FitConfig(steps=4, batch_size=2, evaluate_every=0, snapshot_every=2, learning_rate=0.05)
    methods: list[wb.Method] = [
        wb.SoftPrompt(backbone, tokens=3, prior=prior, seed=seed)
        for prior in PRIORS.values()
        for seed in (0, 1)
    ]
    for _ in wb.fit_many(backbone, methods, task, fit, folder / "soft"):
        pass
    deep = wb.DeepPrompt(backbone, tokens=3, layers=("input", 2), prior=PRIORS["fitted-gaussian"])
    for _ in wb.fit(backbone, deep, task, fit, folder / "deep"):
        pass
    return folder


def runs(folder: Path) -> list[Run]:
    return [Run(path) for path in sorted((folder / "soft").iterdir())]


def test_a_run_is_measured_against_its_tokens_and_its_prior(backbone: wb.Backbone, folder: Path) -> None:
    run, drifts = runs(folder)[0], RunDrifts(backbone)
    table = drifts.measures(run)
    now = table[(table["step"] == 4) & (table["vector"] == 2)].set_index("measure")
    vector = torch.from_numpy(run.snapshot(4)["embeddings"])[1].double()
    start = torch.from_numpy(run.snapshot(0)["embeddings"])[1].double()
    tokens = backbone.vocabulary().double()
    far = (tokens - vector).norm(dim=1)
    prior = density(PRIORS["fitted-gaussian"].fit(backbone))
    assert prior is not None
    assert now["value"]["moved"] == pytest.approx(float((vector - start).norm()), rel=1e-5)
    assert now["value"]["nearest_distance"] == pytest.approx(float(far.min()), rel=1e-5)
    assert now["word"]["nearest_distance"] == backbone.tokenizer.decode([int(far.argmin())]).strip()
    assert now["value"]["log_density"] == pytest.approx(float(prior(vector.numpy()[None])[0]), rel=1e-5)
    assert set(table["measure"]) == set(MEASURES)


def test_measures_are_taken_once_until_there_is_a_new_snapshot(
    backbone: wb.Backbone, folder: Path, tmp_path: Path
) -> None:
    """Protects a panel that asks five times a second, and one that would not see the run go on."""
    run, drifts = runs(folder)[2], RunDrifts()
    first = drifts.measures(run, ["moved"])
    assert drifts.measures(run, ["moved"]) is first
    run.write_snapshot(6, {k: torch.from_numpy(v) + 1 for k, v in run.snapshot(4).items()})
    try:
        assert drifts.measures(run, ["moved"])["step"].max() == 6
    finally:
        run.snapshots()[6].unlink()


def test_each_layer_of_a_deep_prompt_is_measured_in_its_own_space(
    backbone: wb.Backbone, folder: Path
) -> None:
    """Protects layers from being compared with token embeddings, which live elsewhere."""
    table = RunDrifts(backbone).measures(Run(folder / "deep"), ["nearest_distance", "log_density", "moved"])
    assert set(table["place"]) == {"embeddings", "layer 2"}
    there = table[
        (table["place"] == "layer 2") & (table["step"] == 0) & (table["measure"] == "nearest_distance")
    ]
    drawn = Run(folder / "deep").snapshot(0)["layer 2"]
    inputs = RunDrifts(backbone).around("layer 2").vocabulary
    expected = np.linalg.norm(inputs[None] - drawn[:, None], axis=-1).min(1)
    np.testing.assert_allclose(there["value"], expected, rtol=1e-3)
    embeddings = backbone.vocabulary().numpy()
    assert np.abs(np.linalg.norm(embeddings[None] - drawn[:, None], axis=-1).min(1) - expected).min() > 0.1


def test_starts_and_ends_are_two_samples(backbone: wb.Backbone, folder: Path) -> None:
    found = RunDrifts().compare(runs(folder)[:2])
    assert found["prompts"] == 2 and found["energy_distance"] > 0
    assert RunDrifts().compare([]) == {}


def test_without_a_backbone_and_after_the_prior_is_gone_the_rest_is_there(
    backbone: wb.Backbone, folder: Path
) -> None:
    run = runs(folder)[0]
    alone = set(RunDrifts().measures(run)["measure"])
    assert "moved" in alone and not alone & {"nearest_distance", "log_density", "moved_in_spreads"}

    class Gone:
        path, config = run.path, {"method": {"config": {"prior": {"name": "posterior", "run": "nowhere"}}}}
        snapshots, snapshot = run.snapshots, run.snapshot

    left = RunDrifts(backbone).measures(Gone())
    assert "nearest_distance" in set(left["measure"]) and "log_density" not in set(left["measure"])
    assert left[left["measure"] == "moved_in_spreads"]["value"].isna().all()


def test_a_preview_has_what_the_run_starts_from(backbone: wb.Backbone, folder: Path) -> None:
    """Protects what one sees before training: to the bit what training starts from, under the same name."""
    run = runs(folder)[3]
    config = JobConfig(
        "tiny-llama",
        "find-person",
        settings={"tokens": 3, "prior": {"name": "vocabulary"}, "seed": 1},
        fit=wb.FitConfig.from_json(run.config["fit"]),
    )
    preview = Preview(config, backbone, folder / "03")
    assert list(preview.snapshots()) == [0] and not preview.path.exists()
    np.testing.assert_array_equal(preview.snapshot(0)["embeddings"], run.snapshot(0)["embeddings"])
    assert (Drift([preview], measures=["effective_rank"]).data()["step"] == 0).all()
    with pytest.raises(wb.WorkbenchError, match="not begun"):
        preview.snapshot(4)


def test_curves_of_every_measure_have_a_panel_each_and_bands_over_seeds(
    backbone: wb.Backbone, folder: Path
) -> None:
    view = Drift(runs(folder), measures=None, backbone=backbone)
    table = view.data()
    assert [*table] == ["run", "group", "step", *MEASURES] and len(table) == 4 * 3
    figure = view.figure()
    assert check_figure(figure) == []
    assert len(figure.data) == len(MEASURES) * 2 * 3
    band = next(trace for trace in figure.data if "band" in trace.name)
    ends = table[(table["group"] == table["group"][0]) & (table["step"] == 4)]["moved"]
    assert band.y.max() == pytest.approx(ends.max())


def test_one_place_alone_and_an_unknown_measure(backbone: wb.Backbone, folder: Path) -> None:
    deep = Run(folder / "deep")
    both, one = Drift(deep).data(), Drift(deep, place="layer 2").data()
    moved = RunDrifts().measures(deep, ["moved"]).query("step == 4").groupby("place")["value"].mean()
    assert one["moved"].iloc[-1] == pytest.approx(moved["layer 2"])
    assert both["moved"].iloc[-1] == pytest.approx(moved.mean())
    with pytest.raises(wb.WorkbenchError, match="mooved"):
        Drift(deep, measures=["mooved"])

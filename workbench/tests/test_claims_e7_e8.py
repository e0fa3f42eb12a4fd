"""E7 and E8: what lies between two clusters, VAEs that collapse, verdicts on planted truths, and a tiny study of each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from workbench import cli, load_backbone
from workbench.claims import CLAIMS, VAEsConfig, e7, reproduce, vaes
from workbench.claims.claim import Measured
from workbench.claims.domains import Domains, Segment
from workbench.claims.kept import Kept
from workbench.claims.rule import FAILS, HOLDS, UNDECIDED, load_rule
from workbench.claims.space import Space
from workbench.claims.study import Cell, StudyConfig, Trial, run_study
from workbench.claims.vaes import DEFAULT, FORCED, VAECell, run_vaes
from workbench.errors import WorkbenchError
from workbench.methods import priors
from workbench.methods.priors.normal import Normal
from workbench.methods.priors.vae import Decoded
from workbench.training.run import Run

SEEDS = 8


# what lies between


def clusters(apart: float, n: int = 3000, width: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Two Gaussian clusters of one slanted shape, whose means differ in two coordinates."""
    dice = torch.Generator().manual_seed(0)
    shape = torch.eye(width) + 0.8 * torch.ones(width, width) / width
    step = torch.zeros(width)
    step[:2] = torch.tensor([apart, -apart / 2])
    one, other = (torch.randn(n, width, generator=dice) @ shape for _ in range(2))
    return one, other + step


def test_the_axis_is_fishers() -> None:
    """The direction is scikit-learn's, the means lie at 0 and 1, and what is across knows nothing of the axis."""
    one, other = clusters(3.0)
    normals = Normal(one, 0.0), Normal(other, 0.0)
    segment = Segment.between(*normals)
    known = LinearDiscriminantAnalysis(solver="eigen").fit(
        torch.cat([one, other]).numpy(), np.repeat([0, 1], len(one))
    )
    cosine = torch.cosine_similarity(segment.axis, torch.tensor(known.coef_[0], dtype=torch.float64), dim=0)
    assert float(cosine) > 1 - 1e-6
    assert segment.along(torch.stack([n.mean for n in normals])) == pytest.approx([0, 1], abs=1e-9)
    plain = Segment.between(*normals, plain=True)
    middle = (normals[0].mean + normals[1].mean) / 2
    side = torch.zeros(6, dtype=torch.float64)
    side[2:4] = torch.tensor([1.0, -1.0])
    side -= (side @ plain.step) / (plain.step @ plain.step) * plain.step
    assert plain.along((middle + 5 * side)[None]) == pytest.approx([0.5])
    assert plain.across((middle + 5 * side)[None]) == pytest.approx([5 * float(side.norm())])
    moved = segment.across(one + 7 * segment.step.float())
    assert moved == pytest.approx(segment.across(one), abs=1e-3)


@pytest.mark.parametrize("apart", [1.0, 3.0])
def test_clusters_are_told_apart_as_often_as_normal_ones_can_be(apart: float) -> None:
    """Φ(d/2) for two normal clusters a Mahalanobis distance d apart, the best that there is; the rule's bound is d = 2."""
    from scipy import stats

    one, other = clusters(apart)
    normals = Normal(one, 0.0), Normal(other, 0.0)
    distance = float(normals[0].squared_distance(normals[1].mean).sqrt())
    told = Segment.between(*normals).told_apart(one, other)
    assert told == pytest.approx(stats.norm.cdf(distance / 2), abs=0.015)
    (bound,) = (c["above"] for c in load_rule("E7").facts["can_test"] if c["number"] == "separation_low")
    assert bound == pytest.approx(stats.norm.cdf(1))


@pytest.fixture(scope="module")
def domains() -> Domains:
    """Reading and putting in order, among the input embeddings of tiny-llama."""
    prior = StudyConfig(points=400).prior(e7.BETWEEN)
    assert isinstance(prior, priors.GaussianInterpolation)
    return Domains(load_backbone("tiny-llama", device="cpu"), None, prior, range(3))


def test_two_domains_are_apart_and_one_is_not_apart_from_itself(domains: Domains) -> None:
    """Fresh texts of two tasks are told apart, other texts of one task are not; interpolations lie between most often."""
    assert domains.apart.min() > 0.8 and len(set(domains.apart)) == 3  # each seed reads its own texts
    assert domains.control == pytest.approx(np.full(3, 0.5), abs=0.06)
    dice = torch.Generator().manual_seed(0)
    there = domains.prior.fit(domains.backbone)
    ends = [normal.colored(torch.randn(500, 192, generator=dice)) for normal in (there.one, there.other)]
    shares = [float(domains.between(v).mean()) for v in (there.sample(500, dice), *ends)]
    assert shares[0] > 0.7 > 0.6 > max(shares[1:])
    shell = priors.Shell(radius=4.0).fit(domains.backbone).sample(500, dice)
    assert domains.between(shell).mean() == 0
    points = torch.cat([part for both in domains.fresh.values() for part in both])
    assert (domains.segment.across(points) <= domains.edge).mean() == pytest.approx(0.95, abs=0.005)


# E7 on prompts whose truth is known


@pytest.fixture(scope="module")
def space(domains: Domains) -> Space:
    """One for all plantings, so that the domains are read once."""
    return Space(domains.backbone)


def planted(
    domains: Domains,
    space: Space,
    trained: Callable[[str, torch.Tensor], torch.Tensor],
    loss: Callable[[str], float],
) -> Measured:
    """What E7 measures of made-up trials; zero-shot loss 2, and nothing has been run."""
    config = replace(CLAIMS["E7"].settings(), seeds=SEEDS, points=400)
    trials, dice = [], np.random.default_rng(0)
    two = domains.prior.fit(domains.backbone)
    ends = {"gaussian-reading": two.one, "gaussian-order-2": two.other}
    for prior in config.priors:
        for seed in range(SEEDS):
            random = torch.Generator().manual_seed(seed)
            drawn = (
                two.sample(20, random)
                if prior == e7.BETWEEN
                else ends[prior].colored(torch.randn(20, 192, generator=random))
            )
            lost = loss(prior) + dice.normal() * 0.01
            trials.append(Trial(prior, seed, drawn, trained(prior, drawn), lost, 0.5, "finished", (), 1.0))
    cell = Cell("a", "b", space, {"loss": 2.0, "accuracy": 0.0}, 2.0, tuple(trials), "cpu")
    found = CLAIMS["E7"]().measure(cell, config)
    return replace(found, numbers={**cell.common(config), **found.numbers})


def test_e7_on_planted_truths(domains: Domains, space: Space) -> None:
    """Holds for prompts that stay and work; not for those that leave, nor for those that gain a half less; undecided
    where all prompts come to the middle, for then to lie between says nothing of where they came from."""
    rule = load_rule("E7")
    step, middle = domains.segment.step.float(), domains.segment.start.float() + domains.segment.step / 2

    def verdict(found: Measured) -> str:
        return rule.verdict(found.estimate.interval if found.estimate else None, found.numbers)[0]

    def interpolated(prior: str) -> bool:
        return prior == e7.BETWEEN

    stay = planted(domains, space, lambda _, drawn: drawn, lambda _: 1.0)
    assert verdict(stay) == HOLDS, stay.numbers
    assert stay.numbers["halves"]["stay"]["effect"] == 0 and stay.numbers["where"][e7.BETWEEN]["stayed"] == 1
    leave = planted(domains, space, lambda p, drawn: drawn + 2 * step * interpolated(p), lambda _: 1.0)
    assert verdict(leave) == FAILS and leave.numbers["halves"]["stay"]["effect"] < -0.9
    far = planted(domains, space, lambda p, drawn: drawn + 3 * interpolated(p), lambda _: 1.0)
    assert verdict(far) == FAILS  # across counts as well as along
    worse = planted(domains, space, lambda _, drawn: drawn, lambda p: 1.0 + 0.5 * interpolated(p))
    assert verdict(worse) == FAILS
    assert worse.numbers["halves"]["work, beside gaussian-order-2"]["effect"] == pytest.approx(-0.5, abs=0.02)
    beside_one = planted(
        domains, space, lambda _, drawn: drawn, lambda p: 1.0 - 0.8 * (p == "gaussian-reading")
    )
    assert verdict(beside_one) == FAILS  # it must work as well as from either
    all_there = planted(domains, space, lambda _, drawn: (middle + 0.01 * drawn).float(), lambda _: 1.0)
    assert verdict(all_there) == UNDECIDED and all_there.numbers["specific_low"] <= 0
    nothing = planted(domains, space, lambda _, drawn: drawn, lambda _: 2.5)
    assert verdict(nothing) == UNDECIDED and nothing.numbers["learnt_low"] < 0
    assert nothing.estimate is None  # to stay is only a half


@pytest.mark.parametrize("stays", [0.9, 0.97])
def test_the_share_that_stays_errs_at_its_rate(stays: float) -> None:
    """At the very margin, "they stay" and "they do not" are each said in at most 2.5% of the studies, also where the
    vectors of a prompt stay or leave together; if 97% stay, 160 vectors are mostly enough to say so."""
    dice, low_missed, high_missed, holds, times = np.random.default_rng(0), 0, 0, 0, 500
    for _ in range(times):
        drawn = dice.random((SEEDS, 20)) < 0.85
        each = dice.beta(stays * 60, (1 - stays) * 60, (SEEDS, 1))  # a prompt's own rate
        estimate = e7._stayed(drawn, dice.random((SEEDS, 20)) < each)
        assert estimate
        low, high = estimate.interval
        low_missed += low > stays
        high_missed += high < stays
        holds += low > 0.9
    limit = times * 0.025 + 4 * np.sqrt(times * 0.025 * 0.975)
    assert low_missed < limit and high_missed < limit
    assert holds < limit if stays == 0.9 else holds > times / 2


def test_eight_seeds_without_a_loss_are_no_certainty() -> None:
    """Where every vector stays, Fieller's interval has no width; the binomial one of 160 has. Where none was there,
    nothing can have stayed."""
    there = np.ones((SEEDS, 20), bool)
    stayed = e7._stayed(there, there)
    assert stayed and stayed.effect == 1 and stayed.interval[0] == pytest.approx(0.025 ** (1 / 160))
    assert e7._stayed(~there, there) is None
    half = np.arange(20) < 10  # those that come in do not make up for those that leave
    lost = e7._stayed(there & half, there & ~half)
    assert lost and lost.effect == 0


# prompts before a layer


def test_a_study_before_a_layer(tmp_path: Path) -> None:
    """Prompts stand where the place says, move at the pace of what stands there, and meet no run of another place."""
    config = CLAIMS["E7"].settings().quick()
    config = replace(config, priors=("fitted-gaussian",), places=("input", "layer 2"))
    first, second = run_study(config, tmp_path)
    assert [first.name, second.name] == [
        "tiny-llama/smaller-number",
        "tiny-llama/smaller-number/layer 2",
    ]
    assert first.space.scale == 1 and second.space.scale > 5
    path = next((tmp_path / "tiny-llama" / "smaller-number" / "layer 2").iterdir())
    run = Run(path)
    assert list(run.snapshot(0)) == ["layer 2"]
    assert run.config["fit"]["learning_rate"] == pytest.approx(0.01 * second.space.scale)
    for cell in (first, second):
        assert all(t.drawn.shape == (4, 192) and 0 < t.moved < 1 for t in cell.trials)
    assert second.told(second.trials[0])["place"] == "layer 2" and "place" not in first.told(first.trials[0])
    there = priors.FittedGaussian().fit(second.space.backbone, 2)
    assert torch.allclose(
        second.of("fitted-gaussian")[0].drawn, there.sample(4, torch.Generator().manual_seed(0))
    )


@pytest.mark.parametrize("place", ["layer", "layer two", "3", "output"])
def test_places_that_are_none(place: str) -> None:
    """Refused at once, for prompts and for VAEs."""
    for kind in (StudyConfig, VAEsConfig):
        with pytest.raises(WorkbenchError, match="no place"):
            kind(places=(place,))


# VAEs


def test_how_the_error_counts_decides_whether_a_vae_collapses() -> None:
    """Points on a noisy plane in 64 dimensions. A linear VAE keeps a direction if its variance is above the decoder's
    (Lucas et al. 2019, arXiv 1911.02469): with "mean" that is width/2 times the points' own mean, which no direction
    of these reaches; with "sum" it is their mean, which the plane's three do."""
    dice = torch.Generator().manual_seed(0)
    plane = torch.randn(2000, 3, generator=dice) @ torch.linalg.qr(torch.randn(64, 3, generator=dice))[0].T
    points = 8 * plane + torch.randn(2000, 64, generator=dice)
    variance = torch.linalg.eigvalsh(torch.cov(points.T)) / points.var(0).mean()
    assert variance[-4] < 1 < variance[-3] and variance[-1] < 32
    facts = {e: Decoded(priors.VAE(steps=300, latent=4, error=e), None, points).facts for e in ("best", "sum", "mean")}  # fmt: skip
    assert not facts["best"]["collapsed"] and facts["best"]["active_units"] >= 3
    assert not facts["sum"]["collapsed"] and facts["sum"]["active_units"] == 3
    assert facts["mean"]["collapsed"] and facts["mean"]["active_units"] == 0
    with pytest.raises(WorkbenchError, match="did you mean 'mean'"):
        priors.VAE(error="meen")  # type: ignore[arg-type]


def test_what_a_latent_could_hold_is_what_pca_holds() -> None:
    """Against scikit-learn."""
    from sklearn.decomposition import PCA

    points = clusters(3.0, n=200)[1] * torch.arange(1.0, 7.0)
    known = PCA(2).fit(points.numpy()).explained_variance_ratio_.sum()
    assert vaes._linear(points, 2) == pytest.approx(known, rel=1e-5)


def made_up(kept: dict[str, list[float | None]]) -> VAECell:
    """A cell of fits that kept so much of the variance, a number a seed."""
    fits = [
        Kept(variant, seed, {"variance_kept": v, "collapsed": v is not None and v < 0.1, "variance_explained": 0.5,
                            "active_units": 3, "kl": 1.0, "linear": 0.6}, 1.0)
        for variant, values in kept.items()
        for seed, v in enumerate(values)
    ]  # fmt: skip
    return VAECell("a", "b", "input", tuple(fits), "cpu")


FLAT, WIDE = [0.02, 0.03, 0.01, 0.02, 0.04], [0.7, 0.8, 0.75, 0.9, 0.6]


@pytest.mark.parametrize(
    ("default", "forced", "verdict"),
    [
        (FLAT, FLAT, HOLDS),
        (WIDE, FLAT, FAILS),
        ([0.01, 0.2, 0.05, 0.15, 0.1], FLAT, UNDECIDED),
        (FLAT, WIDE, UNDECIDED),
        ([*FLAT[:4], None], FLAT, UNDECIDED),
    ],
)
def test_e8_on_planted_truths(default: list[float | None], forced: list[float | None], verdict: str) -> None:
    """Draws that are alike, and draws that are not; no verdict where a forced collapse goes unseen or a fit broke."""
    config = replace(VAEsConfig(), variants=(DEFAULT, FORCED))
    cell = made_up({DEFAULT: default, FORCED: forced})
    found = CLAIMS["E8"]().measure(cell, config)
    assert found.numbers["forced_high"] > np.mean(forced) and found.numbers["linear_low"] == 0.6
    numbers = json.loads(json.dumps({**cell.common(config), **found.numbers}).replace("NaN", "null"))
    interval = found.estimate.interval if found.estimate else None
    assert load_rule("E8").verdict(interval, numbers)[0] == verdict


def test_e8_over_all_cells() -> None:
    """One collapsed cell of four: a quarter, with its exact interval; the shares are of fits and of cells apart."""
    config = replace(VAEsConfig(), variants=(DEFAULT, FORCED))
    half = [0.05, 0.05, 0.9, 0.9, 0.9]
    cells = [made_up({DEFAULT: kept, FORCED: FLAT}) for kept in (FLAT, WIDE, WIDE, half)]
    found = CLAIMS["E8"]().overall(cells, config)["variants"]
    assert found[DEFAULT]["cells_collapsed"] == 0.25
    assert found[DEFAULT]["cells_collapsed_interval"] == pytest.approx((0.0063, 0.8059), abs=1e-4)
    assert found[DEFAULT]["fits_collapsed"] == pytest.approx(7 / 20) and found[FORCED]["fits_collapsed"] == 1


def test_vaes_are_kept_and_found_again(tmp_path: Path) -> None:
    """A second look fits nothing and says the same; other settings are other fits; variants differ where they should."""
    config = replace(VAEsConfig().quick(), variants=(DEFAULT, FORCED, "latent-2"))
    told: list[tuple[int, int]] = []
    (cell,) = run_vaes(config, tmp_path, report=lambda p: told.append((p.done, p.left)))
    assert told[-1] == (6 * 20, 0) and len({fit.facts["points"] for fit in cell.trials}) == 1
    (again,) = run_vaes(config, tmp_path, report=lambda p: told.append((p.done, p.left)))
    assert again == cell and told[-1] == (0, 0)
    (other,) = run_vaes(replace(config, steps=21), tmp_path)
    assert other.trials != cell.trials
    assert cell.values(FORCED, "active_units").max() == 0 < cell.values(DEFAULT, "active_units").min()
    narrow, plain = cell.values("latent-2", "linear"), cell.values(DEFAULT, "linear")
    assert (narrow < plain).all() and plain.std() > 0  # each seed has its own points


@pytest.mark.parametrize(
    ("variant", "said"), [("kl-much", "no variant"), ("latent-0", "latent"), ("summ", "did you mean 'sum'")]
)
def test_variants_that_are_none(variant: str, said: str) -> None:
    """One sentence, before anything is fitted."""
    with pytest.raises(WorkbenchError, match=said):
        VAEsConfig(variants=(variant,))


# reproduce


@pytest.mark.parametrize(("name", "cell"), [("E7", "tiny-llama/smaller-number/layer 2"), ("E8", "tiny-llama/reading/layer 3")])  # fmt: skip
def test_each_claim_end_to_end(name: str, cell: str, rules: Path, tmp_path: Path) -> None:
    """A few steps of each: plain JSON, every trial accounted for, the verdict that of its own numbers."""
    config = CLAIMS[name].settings().quick()
    found = reproduce(name, config, tmp_path, tmp_path / "runs", rules)
    text = (tmp_path / f"{name}.json").read_text()
    evidence: dict[str, Any] = json.loads(
        text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON")
    )
    assert evidence == found and evidence["claim"] == name and list(evidence["cells"]) == [cell]
    assert evidence["rule"]["commit"] == load_rule(name, rules).commit()
    assert [seed["seed"] for seed in evidence["seeds"]] == [0, 1]
    trials = [trial for seed in evidence["seeds"] for trial in seed["trials"]]
    assert len(trials) == 2 * len(config.priors if name == "E7" else config.variants)
    assert 0 < sum(trial["seconds"] for trial in trials) < evidence["seconds"]
    assert ("overall" in evidence) == (name == "E8")
    rule, judged = load_rule(name, rules), evidence["cells"][cell]
    assert rule.verdict(judged["interval"], judged) == (judged["verdict"], judged["reason"])
    assert rule.together(evidence["interval"], [judged]) == (evidence["verdict"], evidence["reason"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["E7", "--priors", "gaussian-interpolation"], "gaussian-reading gaussian-order-2 is not among"),
        (["E7", "--places", "layer"], "no place"),
        (["E8", "--variants", "sum"], "default kl-10000 is not among"),
        (["E8", "--seeds", "2"], "not the settings that E8 is judged by"),
        (["E8", "--seeds", "1"], "2 or more"),
    ],
)
def test_what_the_user_can_put_right(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence, code 2; a claim's options are those of its own kind of study."""
    assert cli.main(["reproduce", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and len(err.splitlines()) == 1, err


def test_from_a_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """VAEs have options of their own, which E7 does not know."""
    words = ["E8", "--quick", "--out", str(tmp_path), "--runs", str(tmp_path / "runs"), "--steps", "5"]
    assert cli.main(["reproduce", *words, "--variants", DEFAULT, FORCED]) == 0
    assert "E8: A VAE prior collapses. – " in capsys.readouterr().out
    assert json.loads((tmp_path / "E8.json").read_text())["config"]["steps"] == 5
    with pytest.raises(SystemExit) as stop:
        cli.main(["reproduce", "E7", "--variants", DEFAULT])
    assert stop.value.code == 2

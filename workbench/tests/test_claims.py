"""Claims: intervals that cover what they promise, rules that judge by numbers alone, and a tiny study of each claim."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from workbench import cli
from workbench.claims import CLAIMS, reproduce
from workbench.claims import statistics as s
from workbench.claims.claim import Measured
from workbench.claims.rule import FAILS, HOLDS, RULES, UNDECIDED, Rule, load_rule, met
from workbench.claims.space import Space
from workbench.claims.study import Cell, StudyConfig, Trial, run_study
from workbench.data import EVIDENCE
from workbench.errors import WorkbenchError
from workbench.methods import priors
from workbench.tests import zoo

KEYS = ["claim", "rule", "command", "config", "versions", "seeds", "effect", "interval", "verdict", "reason", "seconds", "cells"]  # fmt: skip


# statistics


def covered(make: Callable[[np.random.Generator], s.Estimate], truth: float, times: int) -> float:
    """How often the 95% interval holds the truth."""
    dice = np.random.default_rng(0)
    ends = [make(dice).interval for _ in range(times)]
    return float(np.mean([low <= truth <= high for low, high in ends]))


def near(rate: float, nominal: float, times: int) -> bool:
    """Within four standard errors of a share."""
    return abs(rate - nominal) < 4 * np.sqrt(nominal * (1 - nominal) / times)


def test_t_interval_and_bound_are_those_of_scipy() -> None:
    """A wrong number of degrees of freedom, or of sides, would show."""
    x = np.random.default_rng(0).normal(size=8)
    test = stats.ttest_1samp(x, 0)
    assert s.mean(x).at(0.9) == pytest.approx(tuple(test.confidence_interval(0.9)))
    one_sided = stats.ttest_1samp(x, 0, alternative="greater").confidence_interval(0.95).low
    assert s.lower_bound(x) == pytest.approx(one_sided)


@pytest.mark.parametrize("shared", [0.0, 0.3])
def test_ratio_covers(shared: float) -> None:
    """Eight pairs with spread of their own and in common: 95% is 95%."""

    def make(dice: np.random.Generator) -> s.Estimate:
        both = dice.normal(size=8) * shared
        return s.ratio(0.8 + both + 0.1 * dice.normal(size=8), 1.0 + both + 0.1 * dice.normal(size=8))

    assert near(covered(make, 0.8, 2000), 0.95, 2000)


def test_ratio_of_nothing_has_no_end() -> None:
    """Where the denominator may be zero, no ratio is refused."""
    low, high = s.ratio([1.0, 2.0, 3.0], [1.0, -1.0, 0.1]).interval
    assert (low, high) == (-np.inf, np.inf)


@pytest.mark.parametrize(("row", "column"), [(0.0, 0.0), (0.5, 0.0), (0.5, 2.0), (2.0, 0.5)])
def test_spread_ratio_covers_whatever_the_seeds_share(row: float, column: float) -> None:
    """Seven priors, eight seeds, rest of spread 1: the interval holds σ_row / √(column² + 1) at least as often as it
    says, and hardly more; a one-way F interval misses most at row 0.5, column 2 (next test)."""

    def make(dice: np.random.Generator) -> s.Estimate:
        table = row * dice.normal(size=(7, 1)) + column * dice.normal(size=(1, 8)) + dice.normal(size=(7, 8))
        return s.spread_ratio(table, draws=2000)

    rate = covered(make, row / np.sqrt(column**2 + 1), 600)
    assert rate > 0.95 - 4 * np.sqrt(0.95 * 0.05 / 600)
    assert row == 0 or rate < 0.995  # at zero, the lower end cannot miss


def test_one_way_interval_would_be_wrong() -> None:
    """What `spreads` says of the simpler analysis, which takes the shared order of the data for noise of each prior."""
    dice, missed = np.random.default_rng(0), 0
    for _ in range(400):
        y = 0.5 * dice.normal(size=(7, 1)) + 2 * dice.normal(size=(1, 8)) + dice.normal(size=(7, 8))
        f = 8 * y.mean(1).var(ddof=1) / y.var(axis=1, ddof=1).mean()
        high = np.sqrt(max(0, (f / stats.f.ppf(0.025, 6, 49) - 1) / 8))
        missed += high < 0.5 / np.sqrt(5)
    assert missed / 400 > 0.2


def test_spreads_by_hand() -> None:
    """Rows 0 and 2, no columns, no rest; then columns only."""
    assert s.spreads([[0, 0], [2, 2]]) == pytest.approx((np.sqrt(2), 0))
    assert s.spreads([[0, 2], [0, 2]]) == pytest.approx((0, np.sqrt(2)))
    assert s.spread_ratio([[1, 1], [1, 1]]).effect == 0


def test_weakest_covers_the_weakest() -> None:
    """Four equal truths: either end misses the common truth in at most 2.5%; the plain minimum of upper ends would not."""
    dice, low_missed, high_missed, plain = np.random.default_rng(0), 0, 0, 0
    for _ in range(1000):
        cells = [s.mean(dice.normal(size=8)) for _ in range(4)]
        low, high = s.weakest(cells, "above").interval
        low_missed += low > 0
        high_missed += high < 0
        plain += min(cell.interval[1] for cell in cells) < 0
    limit = 1000 * 0.025 + 4 * np.sqrt(1000 * 0.025 * 0.975)
    assert low_missed < limit and high_missed < limit < plain


def test_weakest_mirrors() -> None:
    """ "below" is "above" with all signs turned."""
    dice = np.random.default_rng(1)
    values = [dice.normal(size=5) for _ in range(3)]
    low, high = s.weakest([s.mean(v) for v in values], "above").interval
    assert s.weakest([s.mean(-v) for v in values], "below").interval == pytest.approx((-high, -low))


def simulated(dice: np.random.Generator, apart: float) -> tuple[s.Ints, s.Ints, dict[str, s.Floats]]:
    """Five priors, six seeds, features whose means differ by `apart`, and an effect that all of one seed share."""
    labels, seeds = np.tile(np.arange(5), 6), np.repeat(np.arange(6), 5)
    shift = dice.normal(size=(6, 4))[seeds] * 2
    wide = dice.normal(size=(30, 4)) + apart * np.eye(5, 4)[labels] + shift
    return labels, seeds, {"wide": wide, "narrow": dice.normal(size=(30, 1))}


def test_permutation_refuses_at_its_rate_and_finds_what_is_there() -> None:
    """Without any difference p ≤ 0.1 in 10% of the studies, and accuracy is chance; with one it is always found."""
    dice, p, accuracy = np.random.default_rng(0), [], []
    for _ in range(400):
        labels, seeds, features = simulated(dice, 0.0)
        nearest = s.nearest_in_other_seeds(features, seeds)
        p.append(s.permutation_p(labels, nearest, seeds, times=99))
        accuracy.append((labels == labels[nearest]).mean())
    assert np.mean(np.array(p) <= 0.1) < 0.1 + 4 * np.sqrt(0.1 * 0.9 / 400)
    assert np.mean(np.array(p) <= 0.1) > 0.04  # ties of whole numbers make it a little smaller, never useless
    assert np.mean(accuracy) == pytest.approx(0.2, abs=4 * np.std(accuracy) / 20)
    labels, seeds, features = simulated(dice, 30.0)
    assert s.permutation_p(labels, s.nearest_in_other_seeds(features, seeds), seeds) == 0.001


def test_a_neighbour_is_of_another_seed_and_knows_no_scale() -> None:
    """Leave one seed out; features in other units change nothing."""
    _, seeds, features = simulated(np.random.default_rng(2), 1.0)
    nearest = s.nearest_in_other_seeds(features, seeds)
    assert (seeds != seeds[nearest]).all()
    scaled = {name: values * 1000 for name, values in features.items()}
    assert (s.nearest_in_other_seeds(scaled, seeds) == nearest).all()


def test_rank_correlation_with_ties() -> None:
    """Ties share a rank; what does not vary is no order."""
    assert s.rank_correlation([1, 2, 3, 4], [10, 10, 30, 40]) == pytest.approx(0.9486833)
    assert s.rank_correlation([1, 2, 3], [5, 5, 5]) == 0


def test_binomial_and_what_is_made_of_estimates() -> None:
    """All right of 56 is no certainty: 0.025^(1/56) is still possible."""
    all_right = s.binomial(56, 56)
    assert all_right.interval == pytest.approx((0.025 ** (1 / 56), 1))
    assert s.scaled(s.shifted(all_right, -0.5), 2).interval == pytest.approx((2 * 0.025 ** (1 / 56) - 1, 1))
    wide = s.widest(s.mean([0.9, 1.0, 1.1]), all_right)
    assert wide.effect == pytest.approx(1) and wide.interval[1] > 1.2 and wide.interval[0] < 0.8


# space


def test_space_measures_where_tokens_are() -> None:
    """Tokens are at distance 0 of a token; the Gaussian's own draws at radius 1; the shell where it says."""
    space = Space(zoo.backbone("llama"))
    assert space.distance(space.tokens[:5]) == pytest.approx(np.zeros(5), abs=1e-3)
    dice = torch.Generator().manual_seed(0)
    shell = priors.Shell(radius=4.0).fit(zoo.backbone("llama")).sample(20, dice)
    assert space.radius(shell) == pytest.approx(np.full(20, 4.0), rel=1e-4)
    assert space.radius(space.tokens).mean() == pytest.approx(1, abs=0.1)
    assert space.edge == pytest.approx(space.radius(space.tokens).max())
    brute = torch.cdist(space.tokens.double(), space.tokens.double()).fill_diagonal_(torch.inf).min(1).values
    assert space.spacing == pytest.approx(float(brute.mean()), rel=1e-3)


def test_features_tell_a_wide_prior_from_a_narrow_one() -> None:
    """Neighbours among raw vectors would take the wide Gaussian for the narrow one (hubness); moments do not."""
    backbone, dice = zoo.backbone("llama"), torch.Generator().manual_seed(0)
    space = Space(backbone)
    draws = [priors.Isotropic(std).fit(backbone).sample(20, dice) for _ in range(4) for std in (0.02, 0.08)]
    labels, seeds = np.tile([0, 1], 4), np.repeat(np.arange(4), 2)
    features = space.features(torch.stack(draws))
    assert (labels == labels[s.nearest_in_other_seeds(features, seeds)]).all()
    raw = (
        torch.cdist(torch.stack(draws)[:, 0], torch.stack(draws)[:, 0])
        .fill_diagonal_(torch.inf)
        .argmin(1)
        .numpy()
    )
    assert (labels[raw] == 0).all()


# claims on prompts whose truth is known


def planted(
    name: str, trained: Callable[..., Any], loss: Callable[..., float], seeds: int = 8, **more: Any
) -> Measured:
    """What a claim measures in a cell of made-up trials; zero-shot loss 2, and nothing has been run."""
    backbone, config = zoo.backbone("llama"), replace(CLAIMS[name].settings(), seeds=seeds, tokens=20)
    keep = tuple(p for p in config.priors if p != "gaussian-interpolation")
    config = replace(config, priors=keep, fit=replace(config.fit, steps=100))
    dice, trials = torch.Generator().manual_seed(0), []
    for prior in config.priors:
        there = config.prior(prior).fit(backbone)
        for seed in range(seeds):
            drawn = there.sample(20, torch.Generator().manual_seed(seed))
            facts = {
                "drawn": drawn,
                "trained": trained(drawn, dice),
                "loss": loss(prior, seed),
                "accuracy": 0.5,
            }
            looks = more["looks"](prior, seed) if "looks" in more else ()
            trials.append(Trial(prior, seed, **facts, left="finished", looks=looks, seconds=1.0))
    cell = Cell("a", "b", Space(backbone), {"loss": 2.0, "accuracy": 0.0}, 2.0, tuple(trials), "cpu")
    return CLAIMS[name]().measure(cell, config)


def noise(seed: int = 0) -> Callable[..., float]:
    """A little luck in every loss."""
    dice = np.random.default_rng(seed)
    return lambda *_: float(dice.normal() * 0.01)


def test_e1_finds_priors_that_stay_and_none_that_are_forgotten() -> None:
    """Prompts that never moved keep the prior's name; prompts that all end in one place keep nothing of it."""
    same = planted("E1", lambda drawn, dice: drawn, noise())
    assert same.numbers["accuracy_draw"] == same.numbers["accuracy_posterior"] > 0.7
    assert (
        same.estimate.effect == 1 and same.estimate.interval[0] > 0.6 and same.numbers["p_posterior"] == 0.001
    )
    gone = planted("E1", lambda drawn, dice: torch.randn(drawn.shape, generator=dice), noise())
    assert (
        gone.estimate.interval[0] < 0.1 < 0.5 > gone.estimate.interval[1]
        and gone.numbers["p_posterior"] > 0.01
    )
    assert np.trace(same.numbers["confusion"]["posterior"]) == round(48 * same.numbers["accuracy_posterior"])


def test_e2_finds_a_prior_that_is_worse() -> None:
    """Luck alone holds zero; one prior that is far worse lies above one."""
    luck = noise(1)
    alike = planted("E2", lambda drawn, dice: drawn, lambda *_: 1 + luck())
    assert alike.estimate.interval[0] == 0 and alike.estimate.interval[1] < 1
    apart = planted("E2", lambda drawn, dice: drawn, lambda prior, _: 1 + luck() + 0.3 * (prior == "xavier"))
    assert apart.estimate.interval[0] > 1
    assert apart.numbers["range"] == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize(("lost", "verdict"), [(0.0, HOLDS), (0.5, FAILS)])
def test_e3_finds_a_far_region_that_is_worse(lost: float, verdict: str) -> None:
    """The farthest radius gains a half less: its own effect is −0.5, and the cell's is the weakest radius."""
    luck = noise()
    found = planted(
        "E3", lambda drawn, dice: drawn, lambda prior, _: 1 + luck() + lost * (prior == "shell-8")
    )
    assert found.numbers["radii"]["shell-8"]["effect"] == pytest.approx(-lost, abs=0.02)
    assert found.estimate.effect == min(
        v["effect"] for v in found.numbers["radii"].values() if v["never_visited"]
    )
    assert load_rule("E3").verdict(found.estimate.interval, {**found.numbers, "diverged": 0})[0] == verdict


def test_e3_counts_no_radius_that_came_home() -> None:
    """Prompts that all end among the tokens test nothing."""
    found = planted("E3", lambda drawn, dice: drawn * 0.01, noise())
    assert found.estimate is None and found.numbers["radii_never_visited"] == 0


@pytest.mark.parametrize(("turned", "verdict"), [(1, HOLDS), (-1, FAILS)])
def test_e4_finds_the_order_of_distances(turned: int, verdict: str) -> None:
    """Shells that need steps in the order of their radii, and in the opposite one; the slowest never gets there."""
    order = ["shell-0.5", "shell-1", "shell-2", "shell-4", "shell-8"][::turned]

    def looks(prior: str, seed: int) -> tuple[tuple[int, float], ...]:
        first = 5 + 15 * order.index(prior) if prior in order else 35
        never = prior == order[-1] and seed == 0
        return tuple((step, 1.0 if step >= first and not never else 1.9) for step in range(5, 101, 5))

    found = planted("E4", lambda drawn, dice: drawn, lambda *_: 1.0, looks=looks)
    numbers = {**found.numbers, "diverged": 0, "learnt_low": 1}
    assert load_rule("E4").verdict(found.estimate.interval, numbers)[0] == verdict
    assert found.numbers["by_prior"][order[-1]] == pytest.approx(
        {
            "distance": found.numbers["by_prior"][order[-1]]["distance"],
            "steps": (7 * 65 + 101) / 8,
            "never_reached": 1,
        }
    )
    assert found.numbers["target"] == pytest.approx(2 - 0.8 * 1.0)


# rules

NUMBER = st.floats(-2, 2, allow_nan=False)


@given(st.sampled_from(sorted(CLAIMS)), NUMBER, NUMBER, st.data())
def test_a_verdict_is_what_the_rule_says(name: str, one: float, other: float, data: st.DataObject) -> None:
    """For every rule and any numbers: never "holds" where a condition or the interval is against it, and only then not."""
    rule = load_rule(name)
    asked = [*rule.facts["can_test"], *rule.facts["also"]]
    numbers = {c["number"]: data.draw(NUMBER, label=c["number"]) for c in asked}
    low, high = sorted((one, other))
    verdict, reason = rule.verdict((low, high), numbers)
    threshold, above = rule.facts["threshold"], rule.facts["side"] == "above"
    able = all(met(c, numbers) for c in rule.facts["can_test"])
    also = all(met(c, numbers) for c in rule.facts["also"])
    for_it, against = low > threshold, high < threshold
    if not above:
        for_it, against = against, for_it
    assert verdict == (HOLDS if able and for_it and also else FAILS if able and against else UNDECIDED)
    assert reason
    assert rule.verdict(None, numbers)[0] == rule.verdict((None, None), numbers)[0] == UNDECIDED
    whole, _ = rule.together((low, high), [{"verdict": verdict, "can_test": able}])
    assert whole == verdict  # one cell is the claim


def test_the_claim_needs_its_cells() -> None:
    """One cell that is undecided keeps the claim from holding; half of the cells must be able to test it."""
    rule = load_rule("E1")
    yes, no, cannot = (
        {"verdict": v, "can_test": able} for v, able in ((HOLDS, True), (UNDECIDED, True), (UNDECIDED, False))
    )
    assert rule.together((0.6, 0.9), [yes, yes, cannot])[0] == HOLDS
    assert rule.together((0.6, 0.9), [yes, no, cannot])[0] == UNDECIDED
    assert rule.together((0.6, 0.9), [yes, cannot, cannot])[0] == UNDECIDED
    assert rule.together((0.1, 0.2), [yes, no])[0] == FAILS
    assert rule.together(None, [cannot])[0] == UNDECIDED


def test_a_bound_is_a_bound() -> None:
    """Above is strict, at least and at most are not; a number that is missing, or none, meets nothing."""
    assert met({"number": "x", "at_least": 1, "at_most": 1}, {"x": 1}) and not met(
        {"number": "x", "above": 1}, {"x": 1}
    )
    assert not met({"number": "x", "at_most": 1}, {}) and not met(
        {"number": "x", "at_most": 1}, {"x": np.nan}
    )


def test_every_claim_has_its_rule_and_back() -> None:
    """A rule that nothing runs, or a claim that nothing judges, is a mistake."""
    assert sorted(path.stem for path in RULES.glob("*.json")) == sorted(CLAIMS)
    assert all(load_rule(name).facts["claim"] == name for name in CLAIMS)


def test_evidence_at_hand_says_what_its_rule_says() -> None:
    """No verdict in data/evidence was typed in: each follows from the file's own numbers."""
    for name in CLAIMS:
        path = EVIDENCE / f"{name}.json"
        if path.is_file():
            judged_again(json.loads(path.read_text()), load_rule(name))


def judged_again(evidence: dict[str, Any], rule: Rule) -> None:
    assert {key: evidence["rule"][key] for key in rule.facts} == rule.facts
    for cell in evidence["cells"].values():
        assert rule.verdict(cell["interval"], cell) == (cell["verdict"], cell["reason"])
    whole = rule.together(evidence["interval"], list(evidence["cells"].values()))
    assert whole == (evidence["verdict"], evidence["reason"])


# reproduce


def git(home: Path, *words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=home, capture_output=True, text=True, check=True
    ).stdout.strip()


def commit(home: Path, message: str) -> None:
    git(home, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qam", message)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained prompts, shared by the tests as claims share them."""
    return tmp_path_factory.mktemp("runs")


def tiny(name: str) -> StudyConfig:
    """Two seeds of a few steps."""
    small = CLAIMS[name].settings().quick()
    keep = tuple(
        p for p in small.priors if p not in ("gaussian-interpolation", "xavier", "shell-0.5", "shell-2")
    )
    return replace(small, priors=keep, tasks=("find-person",))


@pytest.mark.parametrize("name", ["E1", "E2", "E3", "E4"])
def test_each_claim_end_to_end(name: str, rules: Path, runs: Path, tmp_path: Path) -> None:
    """A few steps of each: the file's keys, plain JSON, every run accounted for, the rule and its commit, the verdict."""
    config = tiny(name)
    told: list[tuple[int, int]] = []
    found = reproduce(name, config, tmp_path, runs, rules, report=lambda p: told.append((p.done, p.left)))
    text = (tmp_path / f"{name}.json").read_text()
    evidence = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert evidence == found and list(evidence) == KEYS
    assert evidence["rule"]["commit"] == git(rules, "log", "-1", "--format=%H", f"{name}.json")
    assert evidence["command"] == f"workbench reproduce {name}"
    trials = [trial for seed in evidence["seeds"] for trial in seed["trials"]]
    assert [seed["seed"] for seed in evidence["seeds"]] == [0, 1]
    assert {t["prior"] for t in trials} == set(config.priors) and len(trials) == 2 * len(config.priors)
    assert all(t["moved"] > 0 and t["seconds"] > 0 and t["left"] == "finished" for t in trials)
    assert sum(t["seconds"] for t in trials) < evidence["seconds"]
    (cell,) = evidence["cells"].values()
    low, high = cell["interval"]
    assert (low is None or low <= cell["effect"]) and (high is None or cell["effect"] <= high)
    judged_again(evidence, load_rule(name, rules))
    assert told[-1][1] == 0 and all(a[1] >= b[1] for a, b in zip(told, told[1:], strict=False))


def test_what_e3_and_e4_count(rules: Path, runs: Path, tmp_path: Path) -> None:
    """Four steps cannot bring a far shell home, nor a near one far out; nobody is quicker than the first look."""
    three = reproduce("E3", tiny("E3"), tmp_path, runs, rules)["cells"]["tiny-llama/find-person"]
    assert [three["radii"][f"shell-{r}"]["never_visited"] for r in (1, 4, 8)] == [False, True, True]
    assert three["radii"]["shell-8"]["radius"] == pytest.approx(8, abs=0.2) and three["near_beyond"] < 0.5
    four = reproduce("E4", tiny("E4"), tmp_path, runs, rules)
    counted = [t for seed in four["seeds"] for t in seed["trials"]]
    assert {t["steps"] for t in counted} <= {2, 4, 5} and all(
        t["reached"] == (t["steps"] < 5) for t in counted
    )
    by_prior = four["cells"]["tiny-llama/find-person"]["by_prior"]
    assert (
        by_prior["vocabulary"]["distance"]
        < 1e-3
        < by_prior["shell-1"]["distance"]
        < by_prior["shell-8"]["distance"]
    )


def test_an_interrupted_study_goes_on(tmp_path: Path) -> None:
    """Stopped in its second bank: the first is not trained again, and all ends with the same numbers as at once."""
    config = replace(tiny("E2"), priors=("isotropic", "vocabulary"), together=2)

    def stop(progress: Any) -> None:
        if progress.done >= 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run_study(config, tmp_path / "a", report=stop))
    told: list[int] = []
    (cell,) = run_study(config, tmp_path / "a", report=lambda p: told.append(p.left))
    assert told[0] == 8 and told[-1] == 0  # of 16 updates, a bank of two prompts was done
    (whole,) = run_study(config, tmp_path / "b")
    assert [t.loss for t in cell.trials] == [t.loss for t in whole.trials]
    assert all(torch.equal(a.trained, b.trained) for a, b in zip(cell.trials, whole.trials, strict=True))
    again: list[int] = []
    list(run_study(replace(config, test_examples=9), tmp_path / "a", report=lambda p: again.append(p.left)))
    assert again[0] == 16  # other settings are other runs


def test_seeds_share_their_data_and_their_directions(tmp_path: Path) -> None:
    """E3 compares pairs: with one seed, shells differ in their radius only."""
    config = replace(tiny("E3"), priors=("shell-1", "shell-4"))
    config = replace(config, fit=replace(config.fit, seed=7))
    (cell,) = run_study(config, tmp_path)
    center = cell.space.normal.mean.float()
    for one, four in zip(cell.of("shell-1"), cell.of("shell-4"), strict=True):
        assert torch.allclose(4 * (one.drawn - center), four.drawn - center, rtol=1e-4, atol=1e-4)
    assert [t.seed for t in cell.of("shell-1")] == [7, 8]
    first, second = cell.of("shell-1")
    assert not torch.allclose(first.drawn, second.drawn)


def test_evidence_needs_a_committed_rule(rules: Path, tmp_path: Path) -> None:
    """Refused before anything is trained: a rule in no commit, and one that was changed since."""
    loose = tmp_path / "loose"
    shutil.copytree(rules, loose)
    with pytest.raises(WorkbenchError, match="in no git commit"):
        reproduce("E1", None, tmp_path / "out", tmp_path / "runs", loose)
    home = tmp_path / "repository"
    shutil.copytree(rules.parent, home)
    path = home / "rules" / "E1.json"
    path.write_text(path.read_text().replace('"threshold": 0.5', '"threshold": 0.1'))
    with pytest.raises(WorkbenchError, match="not committed"):
        reproduce("E1", None, tmp_path / "out", tmp_path / "runs", home / "rules")
    before = load_rule("E2", home / "rules").commit()
    commit(home, "lower")
    assert load_rule("E1", home / "rules").commit() != before == load_rule("E2", home / "rules").commit()
    assert not (tmp_path / "out").exists() and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["E99"], "no claim is called 'E99'"),
        (["E1", "--seeds", "3"], "not the settings that E1 is judged by"),
        (["E1", "--quick", "--out", str(EVIDENCE)], "not the settings that E1 is judged by"),
        (["E1", "--seeds", "1"], "2 or more"),
        (["E1", "--priors", "isotropc", "xavier"], "did you mean 'isotropic'"),
        (["E1", "--priors", "shell-far"], "no shell"),
        (["E3", "--priors", "shell-2", "shell-4"], "compares shells with shell-1"),
        (["E4", "--evaluate-every", "0"], "evaluate_every"),
    ],
)
def test_what_the_user_can_put_right(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence, code 2, before anything is trained."""
    assert cli.main(["reproduce", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and len(err.splitlines()) == 1, err


def test_list_of_claims(capsys: pytest.CaptureFixture[str]) -> None:
    """Every claim in its own words."""
    assert cli.main(["reproduce"]) == 0
    out = capsys.readouterr().out
    assert all(name in out and load_rule(name).facts["sentence"] in out for name in CLAIMS)


def test_from_a_shell(rules: Path, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--quick tries E2 out, writes where it is told, says the verdict, and keeps its own command line."""
    words = [
        "E2",
        "--quick",
        "--out",
        str(tmp_path),
        "--runs",
        str(runs),
        "--priors",
        "isotropic",
        "vocabulary",
    ]
    assert cli.main(["reproduce", *words]) == 0
    out, err = capsys.readouterr()
    evidence = json.loads((tmp_path / "E2.json").read_text())
    assert evidence["command"] == " ".join(["workbench", "reproduce", *words])
    assert f"E2: Final quality does not depend on the prior. – {evidence['verdict']}" in out
    assert "update" in err

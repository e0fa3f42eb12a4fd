"""Priors: what is drawn is what is promised, in every space, and a description is the whole of a prior."""

from __future__ import annotations

import functools
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, distributions

from workbench.backbones.backbone import Backbone
from workbench.backbones.layer_inputs import reading
from workbench.errors import WorkbenchError
from workbench.methods import priors
from workbench.methods.deep_prompt import DeepPrompt
from workbench.methods.method import Method, load_method
from workbench.methods.p_tuning import PTuning
from workbench.methods.priors.exclusion import Excluded, acceptance_rate
from workbench.methods.priors.interpolation import Interpolated
from workbench.methods.priors.knn import kth_distance
from workbench.methods.priors.normal import Normal
from workbench.methods.priors.points import collect
from workbench.methods.priors.prior import PRIORS, Distribution, Prior, from_description
from workbench.methods.priors.vae import Decoded
from workbench.methods.soft_prompt import SoftPrompt
from workbench.tasks.encode import TextConfig, encode
from workbench.tasks.task import load_task
from workbench.tests import zoo

SMALL = load_task("sentiment", n=20).to_config()
OTHER = load_task("reverse", n=20).to_config()
WIDTH = 32
DRAWS = 20_000


@functools.cache
def run_folder() -> str:
    """A saved soft prompt of three vectors."""
    return str(SoftPrompt(zoo.backbone("llama"), tokens=3, seed=5).save(tempfile.mkdtemp()))


EXAMPLES: dict[str, Any] = {
    "isotropic": lambda: priors.Isotropic(0.5),
    "xavier": lambda: priors.Xavier(tokens=7),
    "fitted-gaussian": lambda: priors.FittedGaussian(data=SMALL, points=200),
    "gaussian-exclusion": lambda: priors.GaussianExclusion(),
    "shell": lambda: priors.Shell(radius=3.0),
    "gaussian-interpolation": lambda: priors.GaussianInterpolation(SMALL, OTHER, points=200),
    "vae": lambda: priors.VAE(points=200, steps=20, hidden=16, latent=4),
    "vocabulary": lambda: priors.Vocabulary(),
    "text": lambda: priors.Text("answer with one word"),
    "labels": lambda: priors.Labels(("yes", "no")),
    "knn": lambda: priors.KNN(candidates=4),
    "posterior": lambda: priors.Posterior(run_folder(), noise=0.1),
}
"""One of each, for the contracts that hold for all."""
DENSE = ("isotropic", "xavier", "fitted-gaussian", "gaussian-exclusion", "posterior")


@functools.cache
def fitted(name: str, architecture: str = "llama", layer: int | None = None) -> Distribution:
    """That example on that backbone."""
    return EXAMPLES[name]().fit(zoo.backbone(architecture), layer)


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points_of(n: int, width: int, spread: float = 1.0, seed: int = 0) -> Tensor:
    """Points with correlated coordinates and a mean that is not zero."""
    mix = torch.randn(width, width, generator=dice(seed + 1)) / math.sqrt(width)
    return 0.3 + spread * torch.randn(n, width, generator=dice(seed)) @ mix


# Contracts of every prior


def test_every_prior_has_an_example_here() -> None:
    """A prior that is added is held to the contracts below."""
    assert set(EXAMPLES) == set(PRIORS)


number = st.floats(1e-3, 10)
data = st.sampled_from([None, "reading", SMALL])
of_points = {"data": data, "points": st.integers(2, 9999), "seed": st.integers(0, 9)}
of_normal = {**of_points, "ridge": number, "ridge_kind": st.sampled_from(["relative", "absolute"])}
SETTINGS = st.one_of(
    st.builds(priors.Isotropic, number),
    st.builds(priors.Xavier, st.integers(1, 99)),
    st.builds(priors.FittedGaussian, **of_normal),
    st.builds(priors.GaussianExclusion, **of_normal, c=st.floats(1.1, 9), tries=st.integers(1, 99)),
    st.builds(priors.Shell, **of_normal, radius=number),
    st.builds(priors.GaussianInterpolation, data, data, ridge=number),
    st.builds(priors.VAE, **of_points, latent=st.integers(1, 9), kl_weight=number),
    st.builds(priors.Vocabulary),
    st.builds(priors.Text, st.text()),
    st.builds(priors.Labels, st.lists(st.text()), data),
    st.builds(priors.KNN, **of_normal, k=st.integers(1, 9), candidates=st.integers(1, 9)),
    st.builds(priors.Posterior, st.text(), st.floats(0, 1)),
)


@given(prior=SETTINGS)
def test_a_description_is_the_whole_of_a_prior(prior: Prior) -> None:
    """Protects saved methods: the description survives JSON and gives the same prior again."""
    assert from_description(json.loads(json.dumps(prior.describe()))) == prior
    assert prior.describe()["name"] == prior.name


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize(("architecture", "layer"), [("llama", None), ("llama", 2), ("rwkv", 1)])
def test_draws_have_their_shape_and_repeat(name: str, architecture: str, layer: int | None) -> None:
    """Protects resumed runs: a draw, and a fit, depends on the settings and the generator's state alone."""
    there = fitted(name, architecture, layer)
    drawn = there.sample((2, 3), dice())
    assert drawn.shape == (2, 3, there.width) and there.width == WIDTH
    assert drawn.dtype == torch.float32 and drawn.device.type == "cpu" and not drawn.requires_grad
    assert bool(torch.isfinite(drawn).all())
    assert torch.equal(there.sample((2, 3), dice()), drawn)
    assert torch.equal(there.sample(6, dice()), drawn.reshape(6, -1))
    if name not in ("text", "labels"):
        assert not torch.equal(there.sample((2, 3), dice(1)), drawn)
    if name != "vae":  # a second fit; the VAE has a test of its own
        again = EXAMPLES[name]().fit(zoo.backbone(architecture), layer)
        assert torch.equal(again.sample((2, 3), dice()), drawn)
        assert again.describe() == there.describe()
    facts = json.loads(json.dumps(there.describe()))
    assert (facts["name"], facts["layer"], facts["width"]) == (name, layer, WIDTH)
    assert there.sample(0, dice()).shape == (0, WIDTH)


@given(name=st.sampled_from(DENSE), seed=st.integers(0, 99), rows=st.integers(1, 3))
def test_a_density_is_of_each_vector_and_has_the_right_gradient(name: str, seed: int, rows: int) -> None:
    """Protects the MAP pull: shape (…,), each vector by itself, and a gradient equal to finite differences."""
    there = fitted(name)
    e = there.sample((rows, 2), dice(seed)).double()
    values = there.log_prob(e)
    assert there.has_log_prob and values.shape == (rows, 2) and values.dtype == torch.float64
    assert bool(torch.isfinite(values).all())  # nothing is drawn where the density is zero
    assert torch.allclose(values[0, 1], there.log_prob(e[0, 1]), rtol=1e-9)
    one = e[0, 0].clone().requires_grad_(True)
    assert torch.autograd.gradcheck(there.log_prob, (one,), eps=1e-7, atol=1e-3, rtol=1e-3)
    assert there.log_prob(e.float()).dtype == torch.float32


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name not in DENSE])
def test_no_density_is_one_sentence(name: str) -> None:
    """A pull towards a prior without a density is refused, never taken as zero."""
    with pytest.raises(WorkbenchError, match="has no density"):
        fitted(name).log_prob(torch.zeros(WIDTH))


# Densities against torch.distributions


def covariance_of(points: Tensor, ridge: float) -> Tensor:
    """What `Normal` should hold, from torch's own function."""
    return torch.cov(points.double().T) + ridge * torch.eye(points.shape[1])


def test_densities_are_those_of_torch() -> None:
    """Protects every number that is compared between priors: constants and all."""
    e = points_of(50, WIDTH, 0.1).double()
    vocabulary = zoo.backbone("llama").vocabulary()
    prior = priors.FittedGaussian(ridge=0.01)
    there = prior.fit(zoo.backbone("llama"))
    ridge = 0.01 * float(torch.cov(vocabulary.double().T).trace()) / WIDTH
    assert there.facts["ridge"] == pytest.approx(ridge)
    right = distributions.MultivariateNormal(vocabulary.double().mean(0), covariance_of(vocabulary, ridge))
    assert torch.allclose(there.log_prob(e), right.log_prob(e), rtol=1e-9)

    normal = distributions.Normal(torch.tensor(0.0).double(), 0.5)
    assert torch.allclose(fitted("isotropic").log_prob(e), normal.log_prob(e).sum(-1))

    bound = math.sqrt(6 / (7 + WIDTH))
    uniform = distributions.Uniform(torch.tensor(-bound).double(), bound, validate_args=False)
    inside = e.clamp(-bound, bound) * 0.999
    assert torch.allclose(fitted("xavier").log_prob(inside), uniform.log_prob(inside).sum(-1))
    assert float(fitted("xavier").log_prob(torch.full((WIDTH,), 1.01 * bound))) == -math.inf

    trained = fitted("posterior").vectors.double()
    mixture = distributions.MixtureSameFamily(
        distributions.Categorical(torch.ones(3).double()),
        distributions.Independent(distributions.Normal(trained, torch.tensor(0.1, dtype=torch.float64)), 1),
    )
    assert torch.allclose(fitted("posterior").log_prob(e), mixture.log_prob(e), rtol=1e-9)


def test_width_2048_on_1000_points() -> None:
    """A covariance of which half the directions are empty is used, exactly, and says what was done to it."""
    points = points_of(1000, 2048, 0.02)
    normal = Normal(points, ridge=1e-3)
    facts = normal.facts
    assert facts["rank"] == 999 and facts["singular"] and 1 < facts["effective_rank"] < 999
    assert facts["ridge_share"] == pytest.approx(1e-3 / (1 + 1e-3))
    centered = points.double() - points.double().mean(0)
    right = distributions.LowRankMultivariateNormal(
        points.double().mean(0),
        centered.T / math.sqrt(999),
        torch.full((2048,), facts["ridge"], dtype=torch.float64),
    )
    e = normal.colored(torch.randn(4, 2048, generator=dice()))
    assert bool(torch.isfinite(e).all())
    assert torch.allclose(normal.log_prob(normal.squared_distance(e)), right.log_prob(e.double()), rtol=1e-7)
    # a draw's squared distance is a χ² of 2048 degrees: standard deviation 64
    assert bool(((normal.squared_distance(e) - 2048).abs() < 5 * 64).all())


def test_the_ridge_says_its_share() -> None:
    """The authors' 1e-3 is most of the diagonal of embeddings of standard deviation 0.02; ours is a thousandth."""
    points = 0.02 * torch.randn(500, 16, generator=dice())
    assert Normal(points, 1e-3, "absolute").facts["ridge_share"] > 0.7
    assert Normal(points, 1e-3, "relative").facts["ridge_share"] < 0.001
    assert Normal(points, 0.0).facts["ridge_share"] == 0
    assert not Normal(points, 0.0).facts["singular"]
    with pytest.raises(WorkbenchError, match="rank 9 of 16"):
        Normal(points[:10], 0.0)


# What is drawn


def whitened_off(draws: Tensor, mean: Tensor, covariance: Tensor) -> tuple[float, float]:
    """How far n draws are from a mean and covariance, in standard errors: of the mean, and the worst entry's.

    Whitened draws have n·|mean|² distributed as χ² of d degrees, and covariance entries with a standard error of
    √(2/n) on the diagonal and √(1/n) off it.
    """
    n, d = draws.shape
    white = torch.linalg.solve_triangular(
        torch.linalg.cholesky(covariance), (draws.double() - mean).T, upper=False
    )
    of_mean = (n * float(white.mean(1).square().sum()) - d) / math.sqrt(2 * d)
    error = torch.full((d, d), math.sqrt(1 / n), dtype=torch.float64).fill_diagonal_(math.sqrt(2 / n))
    return of_mean, float(((torch.cov(white) - torch.eye(d)).abs() / error).max())


def test_gaussians_have_their_mean_and_covariance() -> None:
    """Draws of the Gaussians are within 5 standard errors, and would not be if they were 5% too wide or moved."""
    points = collect(zoo.backbone("llama"), None, SMALL, 200)
    there = fitted("fitted-gaussian")
    mean, covariance = points.double().mean(0), covariance_of(points, there.facts["ridge"])
    draws = there.sample(DRAWS, dice())
    right = whitened_off(draws, mean, covariance)
    assert abs(right[0]) < 5 and right[1] < 5
    assert whitened_off(mean.float() + 1.05 * (draws - mean), mean, covariance)[1] > 5
    assert whitened_off(draws + 0.05 * covariance.diagonal().sqrt(), mean, covariance)[0] > 5
    for name, variance in (("isotropic", 0.25), ("xavier", 6 / (7 + WIDTH) / 3)):
        found = whitened_off(
            fitted(name).sample(DRAWS, dice()),
            torch.zeros(WIDTH).double(),
            variance * torch.eye(WIDTH).double(),
        )
        assert abs(found[0]) < 5 and found[1] < 5


def test_noise_around_a_posterior() -> None:
    """A run's vectors come in their order; noise has its standard deviation; none means none."""
    backbone = zoo.backbone("llama")
    trained = SoftPrompt(backbone, tokens=3, seed=5).embeddings.detach()
    still = priors.Posterior(run_folder()).fit(backbone)
    assert not still.has_log_prob
    assert torch.equal(still.sample(5, dice()), trained[[0, 1, 2, 0, 1]])
    noise = fitted("posterior").sample((1000, 3), dice()) - trained
    assert float(noise.std()) == pytest.approx(0.1, rel=5 / math.sqrt(2 * noise.numel()))
    deep = priors.Posterior(run_folder()).fit(backbone, 1).sample(3, dice())
    behind = torch.cat([trained, backbone.vocabulary()[40:44]])[None]
    assert torch.allclose(deep, layer_input(backbone, 1, behind)[:3], atol=1e-5)


@pytest.mark.parametrize("width", [8, WIDTH, 256])
def test_exclusion_accepts_as_its_closed_form_says(width: int) -> None:
    """The rate is the mean acceptance probability of proposals, by torch's densities, within 5 standard errors."""
    c, c_dim = 5.0, 5.0 ** (2 / width)
    identity = torch.eye(width).double()
    plain = distributions.MultivariateNormal(torch.zeros(width).double(), identity)
    wide = distributions.MultivariateNormal(torch.zeros(width).double(), c_dim * identity)
    x = math.sqrt(c_dim) * torch.randn(DRAWS, width, generator=dice(), dtype=torch.float64)
    kept = (1 - (plain.log_prob(x) - wide.log_prob(x)).exp()).clamp(min=0)
    error = float(kept.std()) / math.sqrt(DRAWS)
    assert abs(float(kept.mean()) - acceptance_rate(c, width)) < 5 * error
    assert abs(float(kept.mean()) - 1.2 * acceptance_rate(c, width)) > 5 * error


def test_exclusion_at_the_widths_that_were_measured() -> None:
    """5.7% at 256 and 2.0% at 2048, where nine draws in ten are still inside the plain Gaussian's 99% ball."""
    assert acceptance_rate(5.0, 256) == pytest.approx(0.057, abs=5e-4)
    assert acceptance_rate(5.0, 2048) == pytest.approx(0.020, abs=5e-4)


def test_exclusion_draws_from_its_own_density() -> None:
    """Draws have the distribution of radii that the density has, and not the wide Gaussian's."""
    normal = Normal(points_of(500, 16), 1e-3)
    there = Excluded(priors.GaussianExclusion(), None, normal)
    found = normal.squared_distance(there.sample(2000, dice())).numpy()
    wide, plain = stats.chi2(16, scale=there.c_dim), stats.chi2(16)
    border = there.facts["excluded_radius"] ** 2

    def below(m: Any) -> Any:  # closed form of P(squared radius < m)
        part = (wide.cdf(m) - wide.cdf(border)) - (plain.cdf(m) - plain.cdf(border))
        return part / there.acceptance_rate

    assert found.min() >= border * (1 - 1e-4)
    assert stats.kstest(found, below).pvalue > 1e-3
    assert stats.kstest(found, wide.cdf).pvalue < 1e-9
    # the density is one: importance-weighted over the wide Gaussian, within 5 standard errors
    x = normal.colored(math.sqrt(there.c_dim) * torch.randn(DRAWS, 16, generator=dice(1))).double()
    wide_log = normal.log_prob(normal.squared_distance(x) / there.c_dim) - math.log(5.0)
    weights = (there.log_prob(x) - wide_log).exp()
    assert abs(float(weights.mean()) - 1) < 5 * float(weights.std()) / math.sqrt(DRAWS)
    assert float(there.log_prob(normal.mean)) == -math.inf


def test_exclusion_stops() -> None:
    """Tries are bounded: a prior that accepts next to nothing ends with a sentence, not a hung notebook."""
    never = Excluded(priors.GaussianExclusion(c=1.0001, tries=20), None, Normal(points_of(500, 16), 1e-3))
    with pytest.raises(WorkbenchError, match="give more tries or a larger c"):
        never.sample(3, dice())


def test_the_shell_is_at_its_radius_in_every_direction() -> None:
    """All draws have one Mahalanobis distance, by a covariance computed here, and no direction is preferred."""
    vocabulary = zoo.backbone("llama").vocabulary()
    there = fitted("shell")
    mean, covariance = vocabulary.double().mean(0), covariance_of(vocabulary, there.facts["ridge"])
    draws = there.sample(5000, dice())
    centered = draws.double() - mean
    radii = (centered @ torch.linalg.inv(covariance) * centered).sum(1).sqrt()
    assert there.facts["radius"] == pytest.approx(3 * math.sqrt(WIDTH))
    assert torch.allclose(radii, torch.full_like(radii, 3 * math.sqrt(WIDTH)), rtol=1e-3)
    assert abs(whitened_off(draws, mean, 9 * covariance)[0]) < 5
    assert whitened_off(draws, mean, 9 * covariance)[1] < 5


def test_interpolation_lies_between() -> None:
    """Along the line of the two means draws are uniform from one to the other, for domains far apart."""
    one, other = Normal(points_of(500, 16) - 50, 1e-3), Normal(points_of(500, 16, seed=7) + 50, 1e-3)
    there = Interpolated(priors.GaussianInterpolation(), None, one, other)
    line = (one.mean - other.mean).float()
    place = (there.sample(2000, dice()) - other.mean.float()) @ line / line.square().sum()
    assert float(place.min()) > -0.05 and float(place.max()) < 1.05  # the domains are 0.01 wide here
    assert stats.kstest(place.numpy(), "uniform").pvalue > 1e-3
    assert there.facts["distance"] == pytest.approx(400, rel=0.02)
    ends = fitted("gaussian-interpolation").facts  # and two tasks give two Gaussians
    assert ends["one_points"] == ends["other_points"] == 200 and ends["distance"] > 0


def test_the_vae_keeps_what_varies_or_says_that_it_collapsed() -> None:
    """On a noisy plane draws vary as the points do; with the KL term made overwhelming the report says collapse."""
    plane = torch.randn(2000, 3, generator=dice()) @ torch.randn(3, WIDTH, generator=dice(1))
    points = plane + 0.3 * torch.randn(2000, WIDTH, generator=dice(2))
    there = Decoded(priors.VAE(steps=400, hidden=32, latent=4), None, points)
    assert 3 <= there.facts["active_units"] <= 4 and not there.facts["collapsed"]
    assert 0.5 < there.facts["variance_kept"] < 1.5 and there.facts["variance_explained"] > 0.9
    draws = there.sample(1000, dice())
    kept = float(draws.var(0).sum() / points.var(0).sum())
    assert kept == pytest.approx(there.facts["variance_kept"], rel=0.2)  # of 2048 other draws
    settings = {"steps": 60, "hidden": 32, "latent": 4}
    first, second = (Decoded(priors.VAE(**settings), None, points).sample(5, dice()) for _ in range(2))
    assert torch.equal(first, second)
    fallen = Decoded(priors.VAE(**settings, kl_weight=1e4), None, points).facts
    assert fallen["collapsed"] and fallen["active_units"] == 0 and fallen["variance_kept"] < 0.1


def test_knn_goes_where_points_are_sparse() -> None:
    """The neighbour's distance is the sorted one; kept draws are farther than the Gaussian's, as the facts say."""
    x, points = points_of(7, 5), points_of(40, 5, seed=3)
    right = (x[:, None] - points).norm(dim=2).sort(1).values[:, 2]
    assert torch.allclose(kth_distance(x, points, 3), right, atol=1e-5)
    facts = fitted("knn").facts
    assert facts["distance_of_draws"] > 1.05 * facts["distance_of_gaussian"]
    plain = priors.KNN(candidates=1).fit(zoo.backbone("llama")).sample(5, dice())
    assert torch.equal(plain, priors.FittedGaussian().fit(zoo.backbone("llama")).sample(5, dice()))


# Tokens and points


def test_the_first_priors_draw_what_they_always_drew() -> None:
    """Protects trained prompts and notebooks: the start of a seeded soft prompt is the same, bit for bit."""
    backbone = zoo.backbone("llama")
    right = {
        "isotropic": torch.randn(6, WIDTH, generator=dice(3)) * 0.5,
        "vocabulary": backbone.embed(torch.randperm(264, generator=dice(3))[:6]),
        "text": backbone.embed(torch.tensor(backbone.tokenizer("answer")["input_ids"][1:7])),
    }
    for name, start in right.items():
        prompt = SoftPrompt(backbone, tokens=6, prior=EXAMPLES[name](), seed=3)
        assert torch.equal(prompt.embeddings.detach(), start)
    many = fitted("vocabulary").sample(300, dice(3))
    assert torch.equal(many, backbone.embed(torch.randint(264, (300,), generator=dice(3))))


def test_labels_are_tokens_as_they_follow_a_prompt() -> None:
    """Labels come with the space before them, one after another, from words or from a task's choices."""
    backbone = zoo.backbone("llama")
    ids = backbone.tokenizer(" yes no", add_special_tokens=False)["input_ids"]
    assert torch.equal(fitted("labels").sample(9, dice()), backbone.embed(torch.tensor([*ids, *ids])[:9]))
    found = priors.Labels(data=SMALL).fit(backbone).describe()["labels"]
    assert set(found) == set(load_task("sentiment", n=1)[0].choices)
    with pytest.raises(WorkbenchError, match="no choices"):
        priors.Labels(data=OTHER).fit(backbone)


def layer_input(backbone: Backbone, layer: int, embeddings: Tensor) -> Tensor:
    """(T, width): what a layer reads of one row, straight from the runner."""
    seen = []

    def look(index: int, hidden: Tensor) -> Tensor:
        seen.append((index, hidden))
        return hidden

    with torch.no_grad(), reading(look):
        ones = torch.ones(embeddings.shape[:2], dtype=torch.bool)
        backbone.runner(embeddings, ones, torch.arange(embeddings.shape[1])[None])
    return dict(seen)[layer][0]


@pytest.mark.parametrize("architecture", ["llama", "rwkv", "recurrent_gemma"])
def test_points_are_what_the_layer_reads_of_each_text_alone(architecture: str) -> None:
    """Batches change nothing, no pad and no BOS is a point, every occurrence of a token is one."""
    backbone = zoo.backbone(architecture)
    task = load_task("reverse", n=5)
    rows = [encode(e, backbone.tokenizer, TextConfig(train_eos=False)).ids for e in task]
    assert len({len(row) for row in rows}) > 1
    order = torch.randperm(5, generator=dice()).tolist()
    alone = {
        None: [backbone.embed(torch.tensor(rows[r]))[1:] for r in order],
        2: [layer_input(backbone, 2, backbone.embed(torch.tensor([rows[r]])))[1:] for r in order],
    }
    for layer, right in alone.items():
        found = collect(backbone, layer, task.to_config(), points=10_000)
        assert torch.allclose(found, torch.cat(right).float(), atol=1e-5, rtol=1e-4)
    some = collect(backbone, 2, task.to_config(), points=20)
    assert some.shape == (20, WIDTH)
    nearest = (some[:, None] - torch.cat(alone[2]).float()).abs().amax(2).min(1).values
    assert bool((nearest <= 1e-5 + 1e-4 * some.abs().amax(1)).all())
    assert torch.equal(some, collect(backbone, 2, task.to_config(), points=20))
    assert not torch.equal(some, collect(backbone, 2, task.to_config(), points=20, seed=1))


def test_points_of_the_vocabulary() -> None:
    """Without data the points are all embeddings, and in a layer what it reads of each token alone."""
    backbone = zoo.backbone("llama")
    vocabulary = backbone.vocabulary()
    assert torch.equal(collect(backbone, None, None, points=5), vocabulary)
    deep = collect(backbone, 1, None, points=1000)
    assert len(deep) == len(vocabulary)
    assert torch.allclose(deep[70], layer_input(backbone, 1, vocabulary[70][None, None])[0], atol=1e-5)
    assert len(collect(backbone, 1, None, points=50)) == 50
    drawn = priors.Vocabulary().fit(backbone, 1).sample(4, dice(3))
    assert torch.allclose(drawn, deep[torch.randperm(264, generator=dice(3))[:4]], atol=1e-5)


# Errors

REFUSED: list[tuple[Any, str]] = [
    (lambda b, d: from_description({"name": "shel"}), "did you mean 'shell'"),
    (lambda b, d: from_description({"name": "shell", "radus": 2}), "did you mean 'radius'"),
    (lambda b, d: from_description({"name": "vocabulary", "std": 2}), "vocabulary has no settings"),
    (lambda b, d: priors.Isotropic(-1.0), "std=-1.0"),
    (lambda b, d: priors.Shell(radius=0.0), "radius=0.0"),
    (lambda b, d: priors.GaussianExclusion(c=1.0), "c=1.0"),
    (lambda b, d: priors.FittedGaussian(points=1), "points=1"),
    (lambda b, d: priors.FittedGaussian(ridge_kind="absolut"), "did you mean 'absolute'"),
    (lambda b, d: priors.FittedGaussian().fit(b, 3), "no layer 3; give one from 0 to 2"),
    (lambda b, d: priors.Isotropic().fit(b, -1), "no layer -1"),
    (lambda b, d: priors.FittedGaussian("sentimnt").fit(b), "sentiment"),
    (lambda b, d: priors.KNN(data=SMALL, points=8).fit(b), "a smaller k"),
    (lambda b, d: priors.Text("").fit(b), "no tokens"),
    (lambda b, d: priors.Text("word " * 99).fit(b, 1), "does not fit into the 256"),
    (lambda b, d: priors.Labels().fit(b), "give words="),
    (lambda b, d: priors.Posterior().fit(b), "no run"),
    (lambda b, d: priors.Posterior(str(d)).fit(b), "no trained method"),
    (
        lambda b, d: priors.Posterior(saved(d, SoftPrompt(b, tokens=3), 16)).fit(b),
        "width 16, but small-llama reads width 32",
    ),
    (
        lambda b, d: priors.Posterior(saved(d, DeepPrompt(b, tokens=3, layers=(1,)))).fit(b),
        "no input embeddings",
    ),
    (lambda b, d: fitted("isotropic").log_prob(torch.zeros(31)), "of width 32, not 31"),
]


def saved(folder: Path, method: Method, width: int = 32) -> str:
    """A run of this method, on a backbone of that width."""
    facts = json.loads((method.save(folder / "method") / "method.json").read_text())
    facts["backbone"]["width"] = width
    (folder / "method" / "method.json").write_text(json.dumps(facts))
    return str(folder)


def test_the_posterior_of_a_reparametrised_prompt_is_the_prompt() -> None:
    """Protects: what P-tuning trained is what its network makes, not what the network reads."""
    backbone = zoo.backbone("llama")
    method = PTuning(backbone, tokens=3, hidden=8)
    with tempfile.TemporaryDirectory() as folder:
        prior = priors.Posterior(str(method.save(folder))).fit(backbone)
    assert torch.equal(prior.sample(3, dice()), method.vectors().detach())


def test_a_method_loads_without_what_its_prior_was_fitted_to(tmp_path: Path) -> None:
    """Protects contract 5: the data of the prior may be gone when a trained method is loaded."""
    backbone = zoo.backbone("llama")
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"word {i}", "answer": "yes"}) + "\n" for i in range(30)))
    task = load_task(data).to_config()
    method = SoftPrompt(backbone, tokens=3, prior=priors.FittedGaussian(data=task, points=100))
    folder = method.save(tmp_path / "method")
    data.unlink()
    assert torch.equal(load_method(folder, backbone).embeddings, method.embeddings)


@pytest.mark.parametrize(("action", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_what_is_refused(action: Any, words: str, tmp_path: Path) -> None:
    """A wrong setting is one sentence that names it, before anything is drawn."""
    with pytest.raises(WorkbenchError, match=words.replace("(", r"\(")) as caught:
        action(zoo.backbone("llama"), tmp_path)
    assert "\n" not in str(caught.value)

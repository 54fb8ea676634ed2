"""PGPE against closed forms: what is estimated is the gradient of the smoothed loss, and nothing else."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from certtrain.errors import ConfigError
from certtrain.gradients import PGPE, Backprop, EstimationError, GaussianNoise, evaluate
from certtrain.gradients.members import Drawn

Params = dict[str, torch.Tensor]


def theta() -> Params:
    return {
        "w": torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64),
        "b": torch.tensor([0.3], dtype=torch.float64),
    }


def flat(params: Params) -> torch.Tensor:
    return torch.cat([params["w"].flatten(), params["b"]])


def quadratic(params: Params) -> torch.Tensor:
    x = flat(params)
    curvature = torch.tensor([1.0, 2.0, 3.0, 0.5, 4.0], dtype=x.dtype)
    return (0.5 * curvature * x.square()).sum() + x.sum()


def mean_estimate(loss, params: Params, sigma: float, population: int, generations: int, seed: int = 0):
    estimator = PGPE(sigma=sigma, population_size=population, seed=seed)
    found = [flat(estimator.estimate(loss, params, g).gradient) for g in range(generations)]
    stacked = torch.stack(found)
    return stacked.mean(0), stacked.std(0) / math.sqrt(generations)


def test_unbiased_on_a_smoothed_quadratic() -> None:
    """E L(θ+ε) of a quadratic has the gradient of L itself: mean within four standard errors, which are small."""
    mean, error = mean_estimate(quadratic, theta(), sigma=0.3, population=200, generations=100)
    x = flat(theta())
    exact = torch.tensor([1.0, 2.0, 3.0, 0.5, 4.0], dtype=x.dtype) * x + 1
    assert (error < 0.2).all()
    assert ((mean - exact).abs() < 4 * error).all()


def test_a_single_antithetic_pair_is_the_formula() -> None:
    params, sigma = theta(), 0.1
    noise = GaussianNoise(5, sigma).sample(params, 7, range(1))
    plus = quadratic({k: p + noise[k][0] for k, p in params.items()})
    minus = quadratic({k: p - noise[k][0] for k, p in params.items()})
    expected = flat({k: n[0] for k, n in noise.items()}) * (plus - minus) / (2 * sigma**2)
    estimate = PGPE(sigma, 2, seed=5).estimate(quadratic, params, 7)
    torch.testing.assert_close(flat(estimate.gradient), expected)
    torch.testing.assert_close(estimate.loss, (plus + minus) / 2)


def test_sees_the_jump_that_backprop_misses() -> None:
    """L = 1[x > 0]: ∇L_σ at x is the normal density; the pointwise gradient is zero everywhere."""

    def step(p: Params) -> torch.Tensor:
        return (p["x"] > 0).to(torch.float64).sum()

    params = {"x": torch.tensor([0.05], dtype=torch.float64)}
    sigma = 0.1
    estimator = PGPE(sigma, 400, seed=1)
    found = torch.stack([estimator.estimate(step, params, g).gradient["x"] for g in range(50)])
    exact = math.exp(-0.5 * (0.05 / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
    error = float(found.std() / math.sqrt(len(found)))
    assert abs(float(found.mean()) - exact) < 4 * error < 0.5
    smooth = Backprop().estimate(lambda p: (p["x"] * 0).sum() + step(p), params, 0)
    assert smooth.gradient["x"].item() == 0.0


def test_converges_on_a_sphere() -> None:
    params = {"x": torch.linspace(-2, 2, 20, dtype=torch.float64)}
    estimator = PGPE(sigma=0.05, population_size=40, seed=0)
    for generation in range(150):
        estimate = estimator.estimate(lambda p: p["x"].square().sum(), params, generation)
        params = {"x": params["x"] - 0.1 * estimate.gradient["x"]}
    assert float(params["x"].norm()) < 0.2


@settings(max_examples=25, deadline=None)
@given(
    chunk=st.integers(1, 13),
    strategy=st.sampled_from(["vmap", "loop"]),
    population=st.sampled_from([2, 6, 10]),
    seed=st.integers(0, 2**40),
)
def test_neither_chunk_nor_strategy_changes_an_estimate(chunk: int, strategy: str, population: int, seed: int) -> None:
    reference = PGPE(0.1, population, seed, "vmap", population).estimate(quadratic, theta(), 3)
    other = PGPE(0.1, population, seed, strategy, chunk).estimate(quadratic, theta(), 3)
    torch.testing.assert_close(flat(other.gradient), flat(reference.gradient), rtol=0, atol=1e-9)
    torch.testing.assert_close(other.loss, reference.loss)


def test_noise_is_a_pure_function_of_seed_generation_and_pair() -> None:
    noise, params = GaussianNoise(3, 0.5), theta()
    whole = noise.sample(params, 4, range(6))
    for pair in range(6):
        alone = noise.sample(params, 4, range(pair, pair + 1))
        assert all(torch.equal(alone[k][0], whole[k][pair]) for k in params)
    rows = torch.stack([flat({k: n[i] for k, n in whole.items()}) for i in range(6)])
    others = [GaussianNoise(4, 0.5).sample(params, 4, range(6)), noise.sample(params, 5, range(6))]
    for other in others:
        assert not torch.equal(flat({k: n[0] for k, n in other.items()}), rows[0])
    assert len(torch.unique(rows, dim=0)) == 6


def test_noise_is_standard_normal_and_independent() -> None:
    params = {"x": torch.zeros(5_000)}
    sample = GaussianNoise(0, 2.0).sample(params, 0, range(20))["x"] / 2.0
    assert abs(float(sample.mean())) < 5 / math.sqrt(sample.numel())
    assert abs(float(sample.var()) - 1) < 5 * math.sqrt(2 / sample.numel())
    correlation = torch.corrcoef(sample) - torch.eye(20)
    assert correlation.abs().max() < 6 / math.sqrt(5_000)


def test_a_pair_that_is_not_finite_is_dropped_with_its_twin() -> None:
    params = {"x": torch.zeros(1, dtype=torch.float64)}

    def partly_nan(p: Params) -> torch.Tensor:
        x = p["x"].sum()
        return torch.where(x > 0.1, torch.full_like(x, float("nan")), x)

    noise = GaussianNoise(0, 0.1).sample(params, 0, range(20))["x"][:, 0]
    kept = noise.abs() <= 0.1
    dropped = int((~kept).sum())
    estimator = PGPE(0.1, 40, seed=0, max_dropped=dropped / 20)
    estimate = estimator.estimate(partly_nan, params, 0)
    assert estimate.statistics["population/dropped_pairs"] == dropped > 0
    expected = (noise[kept] * noise[kept]).mean() / 0.1**2
    torch.testing.assert_close(estimate.gradient["x"][0], expected)
    with pytest.raises(
        EstimationError, match=rf"{dropped} of the 20 antithetic .* more than pgpe.max_dropped=.* allows"
    ):
        PGPE(0.1, 40, seed=0, max_dropped=dropped / 20 - 0.01).estimate(partly_nan, params, 0)
    with pytest.raises(EstimationError, match="none of the 20 antithetic pairs"):
        estimator.estimate(lambda p: p["x"].sum() * float("inf"), params, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 0.0, "population_size": 4}, "pgpe.sigma must be positive"),
        ({"sigma": float("nan"), "population_size": 4}, "pgpe.sigma must be positive"),
        ({"sigma": 0.1, "population_size": 5}, "must be even"),
        ({"sigma": 0.1, "population_size": 0}, "at least 2"),
        ({"sigma": 0.1, "population_size": 4, "strategy": "fastest"}, "must be one of vmap, loop, auto"),
        ({"sigma": 0.1, "population_size": 4, "member_chunk": 0}, "member_chunk must be at least 1"),
        ({"sigma": 0.1, "population_size": 4, "max_dropped": 1.5}, "max_dropped is a fraction"),
    ],
)
def test_impossible_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PGPE(**options)


def test_evaluate_refuses_unknown_strategies() -> None:
    noise = {k: p[None] for k, p in theta().items()}
    with pytest.raises(ConfigError, match="vmap, loop, auto"):
        evaluate(quadratic, Drawn(theta(), noise), strategy="fastest")


def test_backprop_is_autograd_and_leaves_parameters_alone() -> None:
    params = theta()
    estimate = Backprop().estimate(lambda p: p["w"].square().sum(), params, 0)
    torch.testing.assert_close(estimate.gradient["w"], 2 * params["w"])
    assert estimate.gradient["b"].tolist() == [0.0]
    assert not params["w"].requires_grad

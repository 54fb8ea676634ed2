"""Bias of estimators: none where there is none, all of it where gradients see nothing, and intervals that cover."""

import math

import pytest
import torch

from certtrain.analysis import Budget, gradients
from certtrain.analysis.replicates import jackknife, product_of_means

PARAMS = {"w": torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(2, 4), "b": torch.full((4,), 0.2).double()}
BUDGET = Budget(replicates=12, reference_pairs=16, guess_samples=16, population_size=16, samples=4)


def quadratic(params: dict) -> torch.Tensor:
    return (params["w"].square().sum() + (params["b"] * params["w"].sum(0)).sum()) / 2


def steps(params: dict) -> torch.Tensor:
    """As discontinuous as can be, with a gradient of zero that autograd finds."""
    flat = torch.cat([params["w"].flatten(), params["b"]])
    return (flat > 0.1).to(flat.dtype).sum() + 0 * flat.sum()


def mixed(params: dict) -> torch.Tensor:
    return quadratic(params) + steps(params) / 4


def test_nothing_is_biased_on_a_quadratic() -> None:
    found = gradients(quadratic, PARAMS, 0.2, BUDGET, 0, "vmap")
    truth = {"w": PARAMS["w"] + PARAMS["b"] / 2, "b": PARAMS["w"].sum(0) / 2}
    square = sum(float(g.square().sum()) for g in truth.values())
    assert found.squared_norm.low <= square <= found.squared_norm.high
    for name, quality in found.estimators.items():
        assert quality.bias.low <= 1e-9, name
        assert quality.bias.high < 0.5, name
        assert quality.cosine.high > 0.99, name
    assert found.estimators["grad"].noise == 0
    assert found.estimators["grad"].signal_to_noise == math.inf
    assert found.estimators["pgpe"].noise > found.estimators["pgpe+grad"].noise
    # About d/n of the squared gradient, d = 12 and n = 8.
    assert 0.7 < found.estimators["pgpe"].noise < 4


def test_gradients_miss_all_of_a_step_function() -> None:
    found = gradients(steps, PARAMS, 0.2, BUDGET, 0, "vmap")
    for name in ("grad", "rgs"):
        bias = found.estimators[name].bias
        assert bias.low <= 1 <= bias.high
        assert bias.low > 0.5
        assert math.isnan(found.estimators[name].cosine.value)
    assert found.estimators["pgpe"].bias.low <= 0 < found.estimators["pgpe"].cosine.value


def test_intervals_cover_a_bias_that_is_known() -> None:
    """E of plain gradients misses the steps: σ-densities at 0.1, a quarter of them."""
    flat = torch.cat([PARAMS["w"].flatten(), PARAMS["b"]])
    sigma = 0.2
    missed = torch.exp(-(((flat - 0.1) / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi)) / 4
    plain = torch.cat([(PARAMS["w"] + PARAMS["b"] / 2).flatten(), PARAMS["w"].sum(0) / 2])
    truth = float(missed.square().sum() / (plain + missed).square().sum())
    covered = 0
    for seed in range(12):
        bias = gradients(mixed, PARAMS, sigma, BUDGET, seed, "vmap").estimators["grad"].bias
        covered += bias.low <= truth <= bias.high
        assert bias.high - bias.low < 1.5
    assert covered >= 10


def test_products_of_means_know_nothing_of_noise() -> None:
    torch.manual_seed(0)
    mean, found = torch.full((50,), 0.1).double(), []
    for _ in range(200):
        x = mean + torch.randn(6, 50).double()
        found.append(product_of_means(x @ x.T))
    error = torch.tensor(found).std() / math.sqrt(200)
    assert abs(float(torch.tensor(found).mean()) - 0.5) < 4 * error


def test_intervals_of_products_cover_also_where_the_mean_is_zero() -> None:
    torch.manual_seed(1)
    for mean, truth in ((0.0, 0.0), (0.3, 0.09 * 50)):
        covered = 0
        for _ in range(200):
            x = mean + torch.randn(10, 50).double()
            one = jackknife(product_of_means, x @ x.T)
            covered += one.low <= truth <= one.high
        assert covered >= 180


@pytest.mark.parametrize("strategy", ["vmap", "loop"])
def test_the_same_seed_gives_the_same_numbers(strategy: str) -> None:
    small = Budget(3, 2, 2, 2, 2)
    one, other = (gradients(quadratic, PARAMS, 0.1, small, 5, strategy) for _ in range(2))
    # As text, since a NaN is no NaN.
    assert str(one) == str(other)
    assert str(one) != str(gradients(quadratic, PARAMS, 0.1, small, 6, strategy))

"""RGS: what it averages, and where it is biased."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from certtrain.errors import ConfigError
from certtrain.gradients import PGPE, RGS, GaussianNoise

Params = dict[str, torch.Tensor]
CENTRE = {"x": torch.linspace(-1, 1, 5, dtype=torch.float64), "b": torch.zeros(1, dtype=torch.float64)}


def quartic(params: Params) -> torch.Tensor:
    return params["x"].pow(4).sum() + params["x"].sum() * params["b"].sum()


def test_the_mean_gradient_of_perturbed_weights_by_hand() -> None:
    e = GaussianNoise(5, 0.3).sample(CENTRE, 7, range(2))["x"]
    independent = RGS(0.3, 2, seed=5, sampling="independent").estimate(lambda p: p["x"].pow(4).sum(), CENTRE, 7)
    torch.testing.assert_close(independent.gradient["x"], (4 * (CENTRE["x"] + e).pow(3)).mean(0))
    antithetic = RGS(0.3, 2, seed=5).estimate(lambda p: p["x"].pow(4).sum(), CENTRE, 7)
    both = torch.stack([CENTRE["x"] + e[0], CENTRE["x"] - e[0]])
    torch.testing.assert_close(antithetic.gradient["x"], (4 * both.pow(3)).mean(0))
    torch.testing.assert_close(antithetic.loss, both.pow(4).sum(1).mean())
    assert antithetic.gradient["b"].tolist() == [0.0]


def test_a_jump_is_seen_by_pgpe_and_missed_by_rgs() -> None:
    """L = 1[x > 0] + x²/2 at 0.05: the smoothed loss has the normal density on top of x, the mean gradient has not."""

    def jump(p: Params) -> torch.Tensor:
        return (p["x"] > 0).to(torch.float64).sum() + 0.5 * p["x"].square().sum()

    at, sigma = 0.05, 0.1
    params = {"x": torch.tensor([at], dtype=torch.float64)}
    density = math.exp(-0.5 * (at / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
    for estimator, exact in ((PGPE(sigma, 400), at + density), (RGS(sigma, 40), at)):
        found = torch.cat([estimator.estimate(jump, params, g).gradient["x"] for g in range(50)])
        error = float(found.std()) / math.sqrt(len(found))
        assert abs(float(found.mean()) - exact) < 4 * error + 1e-9
        assert error < 0.1 < density


@settings(max_examples=20, deadline=None)
@given(
    chunk=st.integers(1, 9),
    strategy=st.sampled_from(["loop", "vmap"]),
    sampling=st.sampled_from(["antithetic", "independent"]),
)
def test_neither_chunk_nor_strategy_changes_an_estimate(chunk: int, strategy: str, sampling: str) -> None:
    reference = RGS(0.1, 8, 3, sampling, "loop", 8).estimate(quartic, CENTRE, 2)
    other = RGS(0.1, 8, 3, sampling, strategy, chunk).estimate(quartic, CENTRE, 2)
    torch.testing.assert_close(other.gradient, reference.gradient, rtol=0, atol=1e-12)
    torch.testing.assert_close(other.loss, reference.loss)
    assert other.statistics == pytest.approx(reference.statistics)


def test_a_sample_that_is_not_finite_is_dropped_with_its_twin() -> None:
    params = {"x": torch.zeros(1, dtype=torch.float64)}

    def partly_nan(p: Params) -> torch.Tensor:
        return p["x"].sum() * (float("nan") if float(p["x"].detach()) > 0.1 else 1.0)

    noise = GaussianNoise(0, 0.1).sample(params, 0, range(20))["x"][:, 0]
    dropped = 2 * int((noise.abs() > 0.1).sum())
    estimate = RGS(0.1, 40).estimate(partly_nan, params, 0)
    assert estimate.statistics["population/dropped_samples"] == dropped > 0
    assert estimate.gradient["x"].item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 0.0, "samples": 2}, "rgs.sigma must be positive"),
        ({"sigma": 0.1, "samples": 3}, "even with rgs.sampling=antithetic"),
        ({"sigma": 0.1, "samples": 0}, "at least 1"),
        ({"sigma": 0.1, "samples": 2, "strategy": "auto"}, "rgs.strategy must be one of loop, vmap"),
        ({"sigma": 0.1, "samples": 2, "sampling": "sobol"}, "rgs.sampling must be one of antithetic, independent"),
        ({"sigma": 0.1, "samples": 2, "member_chunk": 0}, "rgs.member_chunk must be at least 1"),
    ],
)
def test_impossible_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RGS(**options)

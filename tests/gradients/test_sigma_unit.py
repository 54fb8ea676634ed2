"""Sigma relative to the weights: the same noise, told in another unit."""

import math

import pytest
import torch

from certtrain.errors import ConfigError
from certtrain.gradients import PGPE, RGS, EstimationError, GradientEstimator
from certtrain.gradients.sigma import Learned
from certtrain.networks.graph import Params

# Root mean square 2.
WEIGHTS = {"w": torch.full((3, 2), 2.0, dtype=torch.float64), "b": torch.tensor([2.0, -2.0], dtype=torch.float64)}


def cubic(params: Params) -> torch.Tensor:
    return (params["w"] ** 3).sum() + params["b"].sum()


@pytest.mark.parametrize("kind", [PGPE, RGS])
def test_it_is_the_length_of_the_noise_over_that_of_the_weights(kind: type[GradientEstimator]) -> None:
    relative = kind(0.05, 8, sigma_unit="relative").estimate(cubic, WEIGHTS, 0)  # type: ignore[call-arg]
    absolute = kind(0.1, 8).estimate(cubic, WEIGHTS, 0)  # type: ignore[call-arg]
    for name, gradient in absolute.gradient.items():
        assert torch.equal(gradient, relative.gradient[name])
    for found in (relative, absolute):
        assert found.statistics["sigma"] == pytest.approx(0.1)
        assert found.statistics["sigma_relative"] == pytest.approx(0.05)


def test_a_learned_sigma_follows_the_slope_in_its_own_unit() -> None:
    """Twice the unit is twice the slope: dL/d(σ/u) = u dL/dσ."""
    rule = Learned(rate=1e-3)
    moved = {
        unit: float(PGPE(start, 64, sigma_rule=rule, sigma_unit=unit).estimate(cubic, WEIGHTS, 0).state["sigma"])
        - start
        for unit, start in (("absolute", 0.1), ("relative", 0.05))
    }
    assert moved["relative"] == pytest.approx(2 * moved["absolute"])


@pytest.mark.parametrize("kind", [PGPE, RGS])
@pytest.mark.parametrize("value", [0.0, math.nan])
def test_weights_without_a_size_are_no_unit(kind: type[GradientEstimator], value: float) -> None:
    nothing = {name: torch.full_like(p, value) for name, p in WEIGHTS.items()}
    with pytest.raises(EstimationError, match="sigma_unit=relative needs a positive one"):
        kind(0.05, 8, sigma_unit="relative").estimate(cubic, nothing, 0)  # type: ignore[call-arg]


@pytest.mark.parametrize(("kind", "name"), [(PGPE, "pgpe"), (RGS, "rgs")])
def test_units_have_names(kind: type[GradientEstimator], name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}.sigma_unit must be one of absolute, relative, got meters"):
        kind(0.05, 8, sigma_unit="meters")  # type: ignore[call-arg]

"""Landscapes: directions of known length, smoothing that is what it says, and errors that cover the truth."""

import math

import pytest
import torch

from certtrain.analysis import Plane, gradient_direction, orthogonal, random_direction, sensitivity, smoothed, values
from certtrain.analysis.directions import inner, length
from certtrain.errors import ConfigError

PARAMS = {"w": torch.linspace(-1, 2, 6, dtype=torch.float64).reshape(2, 3), "b": torch.tensor([0.5, -0.25]).double()}


def square(params: dict) -> torch.Tensor:
    return sum((p.square().sum() for p in params.values()), torch.zeros(()))


def step(params: dict) -> torch.Tensor:
    return (params["b"][0] > 0.5).to(torch.float64)


def line(along: dict, points: torch.Tensor) -> Plane:
    return Plane(PARAMS, [along], points[:, None])


def test_random_directions_are_as_long_as_the_weights_filter_by_filter() -> None:
    found = random_direction(PARAMS, "filter", 0, 0)
    torch.testing.assert_close(found["w"].norm(dim=1), PARAMS["w"].norm(dim=1))
    assert not found["b"].any()
    layered = random_direction(PARAMS, "layer", 0, 0)
    for name, p in PARAMS.items():
        torch.testing.assert_close(layered[name].norm(), p.norm())
    assert not torch.equal(layered["w"], random_direction(PARAMS, "layer", 0, 1)["w"])
    with pytest.raises(ConfigError, match="normalisation must be one of filter, layer, got weight"):
        random_direction(PARAMS, "weight", 0, 0)


def test_gradient_directions_have_the_length_that_is_asked_for() -> None:
    found = gradient_direction(square, PARAMS, 3.0)
    assert length(found) == pytest.approx(3.0)
    assert inner(found, PARAMS) == pytest.approx(3.0 * length(PARAMS))
    other = orthogonal(random_direction(PARAMS, "layer", 0, 0), found)
    assert inner(other, found) == pytest.approx(0.0, abs=1e-12)
    assert length(other) == pytest.approx(length(PARAMS))
    with pytest.raises(ConfigError, match="no gradient direction"):
        gradient_direction(lambda p: 0 * square(p), PARAMS, 1.0)


@pytest.mark.parametrize("strategy", ["vmap", "loop"])
def test_values_of_a_plane_are_those_at_its_points(strategy: str) -> None:
    one, other = random_direction(PARAMS, "layer", 0, 0), random_direction(PARAMS, "layer", 0, 1)
    points = torch.rand(70, 2, dtype=torch.float64)
    found = values(square, Plane(PARAMS, [one, other], points), strategy)
    for i in (0, 33, 69):
        a, b = points[i]
        assert float(found.mean[i]) == pytest.approx(
            float(square({k: PARAMS[k] + a * one[k] + b * other[k] for k in PARAMS}))
        )
    assert not found.error.any()


def test_a_smoothed_quadratic_is_the_quadratic_and_what_noise_adds() -> None:
    """L_σ = L + d σ², here with d = 8."""
    points = torch.linspace(-1, 1, 5, dtype=torch.float64)
    along = random_direction(PARAMS, "layer", 0, 0)
    plain = values(square, line(along, points), "vmap")
    found = smoothed(square, line(along, points), 0.3, 400, 0, "vmap")
    truth = plain.mean + 8 * 0.3**2
    assert ((found.mean - truth).abs() < 4 * found.error).all()
    assert (found.error > 0).all()
    # Antithetic pairs and common noise: what is left is the same at every point.
    torch.testing.assert_close(found.mean - truth, (found.mean - truth)[0].expand(5))


def test_a_smoothed_step_is_the_normal_distribution() -> None:
    """L jumps by 1 at 0; L_σ is Φ(s/σ), and the estimate's own jumps are one member's share each."""
    along = {"w": torch.zeros_like(PARAMS["w"]), "b": torch.tensor([1.0, 0.0]).double()}
    points = torch.linspace(-0.6, 0.6, 301, dtype=torch.float64)
    pairs, sigma = 200, 0.2
    found = smoothed(step, line(along, points), sigma, pairs, 0, "vmap")
    truth = 0.5 * (1 + torch.erf(points / sigma / math.sqrt(2)))
    assert ((found.mean - truth).abs() < 4 * found.error + 0.01).all()
    assert float(values(step, line(along, points), "vmap").mean.diff().abs().max()) == 1
    assert float(found.mean.diff().abs().max()) < 0.03


def test_one_pair_has_no_error() -> None:
    found = smoothed(square, line(random_direction(PARAMS, "layer", 0, 0), torch.zeros(2).double()), 0.1, 1, 0, "loop")
    assert found.error.isnan().all()


def test_sensitivity_of_a_quadratic() -> None:
    """Around θ: mean shift d σ² / L, mean square change (4 σ² |θ|² + 2 d σ⁴ + d² σ⁴) / L²."""
    sigma, total = 0.2, float(square(PARAMS))
    found = sensitivity(square, PARAMS, sigma, 4000, 0, "vmap")
    assert found.loss == pytest.approx(total)
    assert abs(found.shift - 8 * sigma**2 / total) < 4 * found.shift_error
    squares = 4 * sigma**2 * total + 80 * sigma**4
    assert found.change == pytest.approx(math.sqrt(squares) / total, rel=0.05)

"""What holds for every estimator: a new choice in conf/method or conf/pgpe runs through all of this."""

import io
import math

import pytest
import torch
from estimator_cases import COMMANDS, SHAPED, centre, estimator, flat, gradient_of_quadratic, on_threads, quadratic

from certtrain.gradients import EstimationError, GradientEstimator

NAMES = list(COMMANDS)
POPULATIONS = [name for name in NAMES if "method=pgpe" in COMMANDS[name] or name == "pgpe"]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def made(name: str) -> GradientEstimator:
    return estimator(name)


def test_a_gradient_has_the_shape_of_its_parameters_and_leaves_them_alone(made: GradientEstimator) -> None:
    params = {k: p.requires_grad_() for k, p in centre().items()}
    estimate = made.estimate(quadratic, params, 0)
    assert list(estimate.gradient) == list(params)
    for key, g in estimate.gradient.items():
        assert (g.shape, g.dtype, g.requires_grad) == (params[key].shape, params[key].dtype, False)
    assert torch.equal(flat(params), flat(centre()))
    assert estimate.loss.shape == ()
    assert not estimate.loss.requires_grad
    assert all(isinstance(value, float) for value in estimate.statistics.values())


def test_an_estimate_is_a_function_of_its_generation(made: GradientEstimator) -> None:

    def quartic(params: dict[str, torch.Tensor]) -> torch.Tensor:  # antithetic gradients of a quadratic are exact
        return flat(params).pow(4).sum()

    first, again = (flat(made.estimate(quartic, centre(), 3).gradient) for _ in range(2))
    assert torch.equal(first, again)
    other = flat(made.estimate(quartic, centre(), 4).gradient)
    assert torch.equal(first, other) != made.perturbs


def test_the_mean_of_estimates_is_the_gradient_of_the_smoothed_loss(name: str, made: GradientEstimator) -> None:
    """Within five standard errors per coordinate; shaped losses keep the direction, not the length."""
    found = torch.stack([flat(made.estimate(quadratic, centre(), g).gradient) for g in range(200)])
    exact = gradient_of_quadratic(centre())
    mean, error = found.mean(0), found.std(0) / math.sqrt(len(found))
    if name in SHAPED:
        assert torch.nn.functional.cosine_similarity(mean, exact, dim=0) > 0.96
    else:
        assert ((mean - exact).abs() <= 5 * error + 1e-6).all()
        assert (error < 0.35).all()


def test_a_constant_loss_has_gradient_zero(made: GradientEstimator) -> None:
    estimate = made.estimate(lambda p: flat(p).sum() * 0 + 0.1, centre(), 0)
    assert float(flat(estimate.gradient).norm()) == 0.0


def test_a_state_goes_through_a_checkpoint(made: GradientEstimator) -> None:
    def generations(first: int, state: dict, count: int) -> tuple[list[torch.Tensor], dict]:
        found = []
        for generation in range(first, first + count):
            estimate = made.estimate(quadratic, centre(), generation, state)
            state = estimate.state
            found.append(flat(estimate.gradient))
        return found, state

    whole, _ = generations(0, {}, 6)
    before, state = generations(0, made.initial_state(centre()), 3)
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    after, _ = generations(3, torch.load(file, weights_only=True), 3)
    assert all(torch.equal(a, b) for a, b in zip(whole, before + after, strict=True))


def test_a_rehearsal_takes_two_members_at_most(made: GradientEstimator) -> None:
    small = made.rehearsing()
    assert small.evaluations <= 2
    assert flat(small.estimate(quadratic, centre(), 0).gradient).isfinite().all()


@pytest.mark.parametrize("name", [n for n in NAMES if n != "grad"])
def test_populations_tell_their_spread_and_how_noisy_the_estimate_is(name: str) -> None:
    statistics = estimator(name).estimate(quadratic, centre(), 0).statistics
    assert statistics["population/std"] > 0
    assert statistics["sigma"] > 0
    assert statistics["gradient_snr"] > 0


@pytest.mark.parametrize("name", [n for n in NAMES if n != "grad"])
def test_without_a_finite_loss_there_is_no_estimate(name: str) -> None:
    with pytest.raises(EstimationError, match="lower optimizer.lr or"):
        estimator(name).estimate(lambda p: flat(p).sum() * float("nan"), centre(), 0)


@pytest.mark.parametrize("name", POPULATIONS)
def test_a_population_reads_values_only(name: str) -> None:
    """The loss leaves torch: nothing could differentiate it, or look inside."""

    def opaque(params: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.tensor(float(flat(params).numpy().round(2).max()), dtype=torch.float64)

    made = estimator(name, "pgpe.strategy=loop")
    assert float(flat(made.estimate(opaque, centre(), 0).gradient).norm()) > 0


@pytest.mark.parametrize("size", [2, 4, 11])
@pytest.mark.parametrize("name", POPULATIONS)
def test_any_number_of_ranks_gives_the_same_estimate(name: str, size: int) -> None:
    """Ten pairs: two ranks share them evenly, four do not, and of eleven one has none."""
    made = estimator(name, "pgpe.strategy=loop")
    state = made.initial_state(centre())
    alone = made.estimate(quadratic, centre(), 5, state)
    for estimate in on_threads(size, lambda ranks: made.estimate(quadratic, centre(), 5, state, ranks)):
        torch.testing.assert_close(estimate.gradient, alone.gradient, rtol=0, atol=1e-9)
        torch.testing.assert_close(estimate.loss, alone.loss)
        torch.testing.assert_close(estimate.state, alone.state)
        assert estimate.statistics == pytest.approx(alone.statistics)

"""What holds for every gradient estimator, on losses of ten parameters whose answers are known."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from certtrain.gradients import EstimationError, GradientEstimator, Layout, LossFunction, Ranks, State
from certtrain.gradients.base import ALONE
from certtrain.networks.graph import Params
from certtrain.testing.ranks import on_threads

# Estimates that a mean is taken of; that differences are taken of; and by how many standard errors means may be off.
GENERATIONS, DIFFERENCES, ERRORS = 150, 40, 5.0
# Of a biased estimator's mean with the gradient.
LEAST_COSINE = 0.95
# Half of the difference that a slope is measured with: its error is about 1e-8.
STEP = 1e-4
CURVATURE = (1.0, 2.0, 3.0, 0.5, 4.0, 1.5, 2.5, 0.2, 1.0, 2.0)
# Of the batch that ranks divide: no number of them shares it evenly.
IMAGES = 13
POPULATIONS = (Layout.population(2), Layout.population(4), Layout.population(11), Layout.hybrid(4, 2))
BATCHES = (Layout.batch(2), Layout.batch(4))


def centre() -> Params:
    """Where gradients are estimated: a matrix and a vector, ten numbers in float64."""
    return {
        "w": torch.tensor([[1.0, -2.0, 0.5], [0.3, 1.5, -1.0], [2.0, 0.1, -0.4]], dtype=torch.float64),
        "b": torch.tensor([0.3], dtype=torch.float64),
    }


def flat(params: Params) -> Tensor:
    """All numbers in one vector, [10]."""
    return torch.cat([p.flatten() for p in params.values()])


def quadratic(params: Params) -> Tensor:
    """A loss whose gradient no symmetric noise changes: smoothing adds a constant."""
    x = flat(params)
    return (0.5 * x.new_tensor(CURVATURE) * x.square()).sum() + x.sum()


def gradient_of_quadratic(params: Params) -> Tensor:
    """[10]."""
    x = flat(params)
    return x.new_tensor(CURVATURE) * x + 1


def curved(params: Params) -> Tensor:
    """A loss whose gradient noise does change, with products of neighbours."""
    x = flat(params)
    return 0.1 * x.pow(4).sum() + (x[1:] * x[:-1]).sin().sum()


def on_images(ranks: Ranks) -> LossFunction:
    """Mean error of a linear model, from the images of one rank; over the ranks of a group it adds up to the whole."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((IMAGES, 10), generator=generator, dtype=torch.float64)
    own = images[ranks.shard(IMAGES).start : ranks.shard(IMAGES).stop]
    return lambda params: (own @ flat(params) - own.sum(1)).square().add(1).sqrt().sum() / IMAGES


def a_gradient_fits_its_parameters_and_leaves_them_alone(estimator: GradientEstimator) -> None:
    """Names, shapes and precision are theirs; nothing keeps a graph alive; statistics are plain numbers."""
    params = {name: p.requires_grad_() for name, p in centre().items()}
    estimate = estimator.estimate(quadratic, params, 0)
    assert list(estimate.gradient) == list(params), "a gradient has other names than its parameters"
    for name, g in estimate.gradient.items():
        assert (g.shape, g.dtype) == (params[name].shape, params[name].dtype), f"{name}: another shape or precision"
        assert not g.requires_grad, f"{name}: the gradient is not detached"
    assert torch.equal(flat(params), flat(centre())), "parameters were modified"
    assert all(p.grad is None for p in params.values()), "parameters got a gradient of their own"
    assert estimate.loss.shape == (), "the loss is no scalar"
    assert not estimate.loss.requires_grad, "the loss is not detached"
    assert all(isinstance(value, float) for value in estimate.statistics.values()), "statistics are floats"


def an_estimate_is_a_function_of_its_generation(estimator: GradientEstimator) -> None:
    """The same number gives the same estimate bit by bit, another one other noise, if there is any."""
    first, again, other = (flat(estimator.estimate(curved, centre(), g).gradient) for g in (3, 3, 4))
    assert torch.equal(first, again), "the same generation gave two estimates"
    assert torch.equal(first, other) != estimator.perturbs, "two generations share their noise, or have some unsaid"


def the_mean_of_estimates_is_the_gradient_of_a_quadratic(estimator: GradientEstimator) -> None:
    """Within standard errors per coordinate; an estimator that is not unbiased keeps the direction."""
    gradients = [flat(estimator.estimate(quadratic, centre(), g).gradient) for g in range(GENERATIONS)]
    exact = gradient_of_quadratic(centre())
    mean, error = _mean_and_error(torch.stack(gradients))
    if not estimator.unbiased:
        cosine = float(torch.nn.functional.cosine_similarity(mean, exact, dim=0))
        assert cosine > LEAST_COSINE, f"the mean of estimates has cosine {cosine:.3f} with the gradient"
        return
    assert error.norm() < 0.3 * exact.norm(), "estimates are too noisy for their mean to say anything"
    off = (mean - exact).abs()
    assert (off <= ERRORS * error + 1e-6).all(), f"the mean is off by up to {float((off / error).max()):.1f} errors"


def the_mean_of_estimates_is_the_slope_of_the_smoothed_loss(estimator: GradientEstimator) -> None:
    """Whatever the noise: `Estimate.loss` is a sample of the smoothed loss, and its slope comes from the same noise."""
    if not estimator.unbiased:
        return
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        direction = {k: torch.randn(p.shape, generator=generator, dtype=p.dtype) for k, p in centre().items()}

        def loss_at(shift: float, generation: int, direction: Params = direction) -> Tensor:
            moved = {name: p + shift * direction[name] for name, p in centre().items()}
            return estimator.estimate(curved, moved, generation).loss

        generations = range(DIFFERENCES)
        found = [flat(estimator.estimate(curved, centre(), g).gradient) @ flat(direction) for g in generations]
        slopes = torch.stack([(loss_at(STEP, g) - loss_at(-STEP, g)) / (2 * STEP) for g in generations])
        mean, error = _mean_and_error(torch.stack(found) - slopes)
        allowed = ERRORS * float(error) + 1e-6 * (1 + abs(float(slopes.mean())))
        assert abs(float(mean)) <= allowed, (
            f"the mean of estimates is off the smoothed loss's slope {float(slopes.mean()):.4g} by {float(mean):.2g}, "
            f"more than {allowed:.2g}"
        )


def _mean_and_error(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Over the first axis, and the mean's standard error."""
    return samples.mean(0), samples.std(0) / math.sqrt(len(samples))


def a_constant_loss_has_gradient_zero(estimator: GradientEstimator) -> None:
    """Exactly: what no weight changes must not move weights."""
    estimate = estimator.estimate(lambda p: flat(p).sum() * 0 + 0.1, centre(), 0)
    assert float(flat(estimate.gradient).norm()) == 0.0, "a constant loss has a gradient"


def what_reads_values_only_differentiates_nothing(estimator: GradientEstimator) -> None:
    """A loss that nothing can differentiate gives the same estimate, if the estimator says that values are enough."""
    if estimator.differentiates:
        return
    seen = flat(estimator.estimate(curved, centre(), 0).gradient)
    try:
        opaque = flat(estimator.estimate(lambda p: curved(p).detach(), centre(), 0).gradient)
    except RuntimeError as error:  # torch's, of what has no derivative
        raise AssertionError(f"an estimator differentiates its loss, unsaid: {error}") from error
    assert torch.equal(seen, opaque), "an estimator differentiates its loss, unsaid"


def a_loss_that_is_nowhere_finite_gives_no_gradient(estimator: GradientEstimator) -> None:
    """It is refused with EstimationError, or stays visible in loss or gradient."""
    try:
        estimate = estimator.estimate(lambda p: flat(p).sum() * float("nan"), centre(), 0)
    except EstimationError:
        return
    numbers = torch.cat([flat(estimate.gradient), estimate.loss.reshape(1)])
    assert not numbers.isfinite().all(), "a loss that is NaN everywhere gave a gradient of numbers"


def a_state_goes_through_a_checkpoint(estimator: GradientEstimator) -> None:
    """Six generations are three, a file, and three more, bit by bit; nothing is remembered elsewhere."""

    def generations(first: int, state: State) -> tuple[list[Tensor], State]:
        found = []
        for generation in range(first, first + 3):
            estimate = estimator.estimate(quadratic, centre(), generation, state)
            state = estimate.state
            found.append(flat(estimate.gradient))
        return found, state

    before, state = generations(0, estimator.initial_state(centre()))
    assert all(isinstance(value, Tensor) for value in state.values()), "a state holds something else than tensors"
    whole, _ = generations(3, state)
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    after, _ = generations(3, torch.load(file, weights_only=True))
    assert all(torch.equal(a, b) for a, b in zip(whole, after, strict=True)), "a checkpoint does not hold all of it"
    anew, _ = generations(0, {})
    assert all(torch.equal(a, b) for a, b in zip(before, anew, strict=True)), "no state does not begin anew"


def any_number_of_ranks_gives_the_same_estimate(estimator: GradientEstimator) -> None:
    """The same on every rank, bit by bit, and that of one process up to rounding, however the work is divided."""
    state = estimator.initial_state(centre())
    alone = estimator.estimate(on_images(ALONE), centre(), 5, state)
    for layout in POPULATIONS if estimator.splits == "population" else BATCHES:
        found = on_threads(layout, lambda ranks: estimator.estimate(on_images(ranks), centre(), 5, state, ranks))
        first = flat(found[0].gradient)
        assert all(torch.equal(flat(estimate.gradient), first) for estimate in found), f"ranks differ: {layout}"
        for estimate in found:
            torch.testing.assert_close(estimate.gradient, alone.gradient, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(estimate.loss, alone.loss)
            torch.testing.assert_close(estimate.state, alone.state)
            assert estimate.statistics.keys() == alone.statistics.keys(), f"ranks count other things: {layout}"
            for name, value in alone.statistics.items():
                assert math.isclose(estimate.statistics[name], value, rel_tol=1e-6, abs_tol=1e-12), f"{name}: {layout}"


def a_rehearsal_takes_few_evaluations(estimator: GradientEstimator) -> None:
    """It is the same estimator at the least cost: finite gradients of the same losses."""
    small = estimator.rehearsing()
    assert small.evaluations <= 2, f"a rehearsal takes {small.evaluations} evaluations"
    assert flat(small.estimate(quadratic, centre(), 0).gradient).isfinite().all(), "a rehearsal has no gradient"


EstimatorCheck = Callable[[GradientEstimator], None]
ESTIMATOR_CHECKS: Mapping[str, EstimatorCheck] = {
    check.__name__: check
    for check in (
        a_gradient_fits_its_parameters_and_leaves_them_alone,
        an_estimate_is_a_function_of_its_generation,
        the_mean_of_estimates_is_the_gradient_of_a_quadratic,
        the_mean_of_estimates_is_the_slope_of_the_smoothed_loss,
        a_constant_loss_has_gradient_zero,
        what_reads_values_only_differentiates_nothing,
        a_loss_that_is_nowhere_finite_gives_no_gradient,
        a_state_goes_through_a_checkpoint,
        any_number_of_ranks_gives_the_same_estimate,
        a_rehearsal_takes_few_evaluations,
    )
}


def check_estimator(estimator: GradientEstimator) -> None:
    """Runs every check on a gradient estimator; a population of about twenty is enough, and fast.

    Args:
        estimator: What is checked. What it leaves open for the machine to decide is decided first: measured choices
            differ in the last bits.

    Raises:
        AssertionError: At the first one that fails.
    """
    settled = estimator.decided("loop").planned(GENERATIONS)
    for check in ESTIMATOR_CHECKS.values():
        check(settled)

"""The checks of estimators can fail: for each one, estimators that are wrong in its way."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
import torch

from certtrain.gradients import PGPE, RGS, Alone, Backprop, Estimate, EstimationError, GradientEstimator, Layout
from certtrain.testing import ESTIMATOR_CHECKS, check_estimator
from certtrain.testing.ranks import on_threads


@dataclass(frozen=True)
class Wrong(GradientEstimator):
    """An estimator of this project with one thing changed.

    Attributes:
        right: What is changed.
        change: (estimate, loss, params, generation) -> the wrong estimate.
    """

    right: GradientEstimator
    change: Callable[..., Estimate] = lambda estimate, *_: estimate

    @property
    def evaluations(self) -> int:
        return self.right.evaluations

    @property
    def splits(self) -> str:
        return self.right.splits

    @property
    def perturbs(self) -> bool:
        return self.right.perturbs

    @property
    def unbiased(self) -> bool:
        return self.right.unbiased

    def rehearsing(self) -> GradientEstimator:
        return self.right.rehearsing()

    def initial_state(self, params):
        return self.right.initial_state(params)

    def estimate(self, loss, params, generation, state=None, ranks=Alone()):  # noqa: B008  (has no state)
        estimate = self.right.estimate(loss, params, generation, state, ranks)
        return self.change(estimate, loss, params, generation)


PLAIN, SMOOTH, POPULATION = Backprop(), RGS(0.1, 4), PGPE(0.1, 20)
SHAPED = replace(POPULATION, fitness="normalized", sigma=0.03)


def changed(right: GradientEstimator, change: Callable[[torch.Tensor], torch.Tensor]) -> Wrong:
    """With another gradient."""
    return Wrong(right, lambda e, *_: replace(e, gradient={k: change(g) for k, g in e.gradient.items()}))


def pushes_the_parameters(estimate: Estimate, loss, params, generation) -> Estimate:
    with torch.no_grad():
        params["b"] += 1e-3
    return estimate


def at_the_centre(estimate: Estimate, loss, params, generation) -> Estimate:
    """Right for every quadratic."""
    return replace(estimate, gradient=PLAIN.estimate(loss, params, generation).gradient)


def drift(estimate: Estimate, loss, params, generation) -> Estimate:
    """As one-sided differences have it, without a baseline."""
    return replace(estimate, gradient={k: g + estimate.loss for k, g in estimate.gradient.items()})


class SameNoise(Wrong):
    """The noise of generation 0, for ever."""

    def estimate(self, loss, params, generation, state=None, ranks=Alone()):  # noqa: B008
        return self.right.estimate(loss, params, 0, state, ranks)


@dataclass(frozen=True)
class Momentum(Wrong):
    """Remembers in itself instead of in the state."""

    memory: dict = field(default_factory=dict)

    def estimate(self, loss, params, generation, state=None, ranks=Alone()):  # noqa: B008
        found = super().estimate(loss, params, generation, state, ranks)
        before = self.memory.get("gradient", {k: torch.zeros_like(g) for k, g in found.gradient.items()})
        self.memory["gradient"] = {k: g + 0.5 * before[k] for k, g in found.gradient.items()}
        return replace(found, gradient=self.memory["gradient"])


class Forgetful(Wrong):
    """The state that it begins with is not that of no state."""

    def initial_state(self, params):
        return {"sigma": torch.tensor(1.0)}

    def estimate(self, loss, params, generation, state=None, ranks=Alone()):  # noqa: B008
        found = super().estimate(loss, params, generation, None, ranks)
        factor = 1.0 + (state or {}).get("sigma", torch.tensor(0.0))
        return replace(found, gradient={k: g * factor for k, g in found.gradient.items()})


class Lonely(Wrong):
    """Every rank keeps the part that it has computed."""

    def estimate(self, loss, params, generation, state=None, ranks=Alone()):  # noqa: B008
        own = SimpleNamespace(share=ranks.share, reduce=ranks.reduce, gather=ranks.gather, sum=lambda g: g)
        return self.right.estimate(loss, params, generation, state, own)


class OneByOne(Wrong):
    """Rank 0 gathers once more than the others."""

    def estimate(self, loss, params, generation, state=None, ranks=Alone()):  # noqa: B008
        if ranks.rank == 0:
            ranks.reduce(torch.zeros(1))
        return self.right.estimate(loss, params, generation, state, ranks)


class Grand(Wrong):
    """A rehearsal is the whole performance."""

    def rehearsing(self) -> GradientEstimator:
        return self


class Deaf(Wrong):
    """NaN becomes a number."""

    def estimate(self, loss, params, generation, state=None, ranks=Alone()):  # noqa: B008
        try:
            return super().estimate(loss, params, generation, state, ranks)
        except EstimationError:
            return Estimate({k: torch.zeros_like(p) for k, p in params.items()}, torch.tensor(0.0))


class Boastful(Wrong):
    """Calls shaped losses unbiased."""

    @property
    def unbiased(self) -> bool:
        return True


class Peeping(Wrong):
    """Calls itself a population, and differentiates."""

    @property
    def splits(self) -> str:
        return "population"


# Check -> what is wrong, and the message.
FAULTS: dict[str, list[tuple[GradientEstimator, str]]] = {
    "a_gradient_fits_its_parameters_and_leaves_them_alone": [
        (changed(PLAIN, torch.flatten), "another shape or precision"),
        (changed(PLAIN, torch.Tensor.float), "another shape or precision"),
        (changed(PLAIN, lambda g: g.clone().requires_grad_()), "the gradient is not detached"),
        (Wrong(PLAIN, lambda e, *_: replace(e, gradient=dict(reversed(e.gradient.items())))), "other names"),
        (Wrong(PLAIN, pushes_the_parameters), "parameters were modified"),
        (Wrong(PLAIN, lambda e, *_: replace(e, loss=e.loss[None])), "the loss is no scalar"),
        (Wrong(PLAIN, lambda e, loss, p, _: replace(e, loss=loss(p))), "the loss is not detached"),
        (Wrong(PLAIN, lambda e, *_: replace(e, statistics={"norm": e.loss})), "statistics are floats"),
    ],
    "an_estimate_is_a_function_of_its_generation": [
        (changed(SMOOTH, lambda g: g + 1e-3 * torch.randn_like(g)), "gave two estimates"),
        (SameNoise(SMOOTH), "two generations share their noise"),
    ],
    "the_mean_of_estimates_is_the_gradient_of_a_quadratic": [
        (changed(PLAIN, lambda g: 1.01 * g), "the mean is off by up to"),
        (changed(POPULATION, lambda g: 2 * g), "the mean is off by up to"),
        (changed(SHAPED, torch.neg), "has cosine -0.9"),
        (Boastful(SHAPED), "the mean is off by up to"),
        (changed(PLAIN, lambda g: g + 100 * torch.randn_like(g)), "too noisy for their mean to say anything"),
    ],
    "the_mean_of_estimates_is_the_slope_of_the_smoothed_loss": [
        (Wrong(SMOOTH, at_the_centre), "is off the smoothed loss's slope"),
    ],
    "a_constant_loss_has_gradient_zero": [(Wrong(SMOOTH, drift), "a constant loss has a gradient")],
    "what_reads_values_only_differentiates_nothing": [(Peeping(PLAIN), "an estimator differentiates its loss")],
    "a_loss_that_is_nowhere_finite_gives_no_gradient": [(Deaf(POPULATION), "NaN everywhere gave a gradient")],
    "a_state_goes_through_a_checkpoint": [
        (Momentum(PLAIN), "a checkpoint does not hold all of it"),
        (Forgetful(PLAIN), "no state does not begin anew"),
        (Wrong(PLAIN, lambda e, *_: replace(e, state={"sigma": 0.1})), "something else than tensors"),
    ],
    "any_number_of_ranks_gives_the_same_estimate": [
        (Lonely(POPULATION), "ranks differ"),
        (Lonely(SMOOTH), "ranks differ"),
        (OneByOne(POPULATION), "ranks wait for each other"),
    ],
    "a_rehearsal_takes_few_evaluations": [(Grand(POPULATION), "a rehearsal takes 20 evaluations")],
}


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(("check", "i"), [(check, i) for check, faults in FAULTS.items() for i in range(len(faults))])
def test_what_is_wrong_is_found_by_its_check(check: str, i: int) -> None:
    wrong, message = FAULTS[check][i]
    with pytest.raises(AssertionError, match=message):
        ESTIMATOR_CHECKS[check](wrong)


def test_every_check_is_seen_to_fail() -> None:
    assert set(FAULTS) == set(ESTIMATOR_CHECKS)


@pytest.mark.parametrize("right", [PLAIN, SMOOTH, POPULATION])
def test_what_is_right_passes_the_same_way(right: GradientEstimator) -> None:
    """The wrapper of the wrong ones is not what is found."""
    check_estimator(Wrong(right))


def test_one_call_stops_at_the_first_fault() -> None:
    with pytest.raises(AssertionError, match="a rehearsal takes 20 evaluations"):
        check_estimator(Grand(POPULATION))


@pytest.mark.parametrize("layout", [Layout.population(3), Layout.batch(3), Layout.hybrid(4, 2)])
def test_ranks_that_are_threads_share_everything_once(layout: Layout) -> None:
    def work(ranks) -> tuple:
        share, shard = ranks.share(10), ranks.shard(7)
        part = torch.tensor([float(i) for i in share]) * len(shard) / 7
        gathered = ranks.gather(ranks.reduce(part), 10)
        return share, shard, gathered, ranks.sum({"w": torch.full((2,), float(len(share) * len(shard)))})

    found = on_threads(layout, work)
    assert {(i, j) for share, shard, *_ in found for i in share for j in shard} == {
        (i, j) for i in range(10) for j in range(7)
    }
    for *_, gathered, total in found:
        torch.testing.assert_close(gathered, torch.arange(10.0))
        torch.testing.assert_close(total["w"], torch.full((2,), 70.0 / layout.copies))


def test_what_a_rank_raises_is_told() -> None:
    def fails(ranks) -> None:
        if ranks.rank == 1:
            raise ArithmeticError("planted")
        ranks.reduce(torch.zeros(1))

    with pytest.raises(ArithmeticError, match="planted"):
        on_threads(Layout.population(2), fails)

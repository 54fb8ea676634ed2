"""What holds for every estimator: a new choice in conf/method or conf/pgpe runs through all of this."""

import pytest
import torch
from estimator_cases import COMMANDS, estimator

from certtrain.gradients import EstimationError
from certtrain.testing import ESTIMATOR_CHECKS, check_estimator
from certtrain.testing.estimators import centre, flat, quadratic

NAMES = list(COMMANDS)
VALUES_ONLY = [name for name in NAMES if not estimator(name).differentiates]


@pytest.mark.parametrize("check", ESTIMATOR_CHECKS)
@pytest.mark.parametrize("name", NAMES)
def test_theory(name: str, check: str) -> None:
    ESTIMATOR_CHECKS[check](estimator(name))


def test_a_users_estimator_is_checked_with_one_call() -> None:
    """Also one that leaves its strategy open."""
    made = estimator("pgpe", "pgpe.strategy=auto")
    check_estimator(made)


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


@pytest.mark.parametrize("name", VALUES_ONLY)
def test_a_population_needs_nothing_of_torch(name: str) -> None:
    """The loss leaves it: nothing could differentiate it, or look inside."""

    def opaque(params: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.tensor(float(flat(params).numpy().round(2).max()), dtype=torch.float64)

    made = estimator(name, "pgpe.strategy=loop")
    assert float(flat(made.estimate(opaque, centre(), 0).gradient).norm()) > 0

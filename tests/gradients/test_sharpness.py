"""Sharpness-aware minimisation: by hand, in a run with any loss, and where it is refused."""

import pytest
import torch
from cases import make_case

from certtrain.bounds import build
from certtrain.cli.assembly.estimator import make_estimator
from certtrain.cli.configuration.compose import Command, compose_jobs
from certtrain.cli.configuration.schema import parse, plain
from certtrain.errors import ConfigError
from certtrain.gradients import PGPE, RGS, Alone, Backprop, SharpnessAware
from certtrain.gradients.accumulation import accumulated
from certtrain.gradients.backprop import differentiate
from certtrain.losses import Problem, Sabr
from certtrain.networks import Params


def estimator_of(*overrides: str) -> object:
    (job,) = compose_jobs(Command(overrides, False, False))
    return make_estimator(parse(plain(job)))


def quadratic(params: Params) -> torch.Tensor:
    return 0.5 * (params["a"].square().sum() + 3 * params["b"].square())


def test_by_hand() -> None:
    """∇L = (θ_a, 3 θ_b) = (4, 0, 3), of length 5; ρ = 0.5 goes (0.4, 0, 0.3) uphill."""
    params = {"a": torch.tensor([4.0, 0.0]), "b": torch.tensor(1.0)}
    found = SharpnessAware(0.5).estimate(quadratic, params, 0)
    torch.testing.assert_close(found.gradient, {"a": torch.tensor([4.4, 0.0]), "b": torch.tensor(3.9)})
    assert found.loss == 9.5
    assert found.statistics["sharpness"] == pytest.approx(0.5 * (4.4**2 + 3 * 1.3**2) - 9.5, rel=1e-5)
    halves = accumulated([lambda p: 0.25 * quadratic(p), lambda p: 0.75 * quadratic(p)])
    torch.testing.assert_close(SharpnessAware(0.5).estimate(halves, params, 0).gradient, found.gradient)


class Half(Alone):
    """One of two ranks, on equal halves of a batch."""

    def reduce(self, losses: torch.Tensor) -> torch.Tensor:
        return 2 * losses

    def sum(self, gradient: Params) -> Params:
        return {name: 2 * g for name, g in gradient.items()}


def test_on_several_ranks_the_step_is_that_of_the_whole_batch() -> None:
    params = {"a": torch.tensor([4.0, 0.0]), "b": torch.tensor(1.0)}
    whole = SharpnessAware(0.5).estimate(quadratic, params, 0)
    found = SharpnessAware(0.5).estimate(lambda p: 0.5 * quadratic(p), params, 0, ranks=Half())
    torch.testing.assert_close((found.loss, found.gradient), (whole.loss, whole.gradient))
    assert found.statistics == pytest.approx(whole.statistics)


def test_where_the_gradient_vanishes_there_is_no_way_up_and_nan_is_told() -> None:
    still = {"a": torch.zeros(2), "b": torch.tensor(0.0)}
    found = SharpnessAware(0.5).estimate(quadratic, still, 0)
    assert all((g == 0).all() for g in found.gradient.values())
    broken = {"a": torch.tensor([float("nan"), 1.0]), "b": torch.tensor(0.0)}
    assert not SharpnessAware(0.5).estimate(quadratic, broken, 0).loss.isfinite()


def test_what_a_loss_prepares_counts_at_both_places() -> None:
    case = make_case("mlp")
    problem = Problem.within(case.graph, build("ibp"), case.inputs, case.labels, 0.05)
    prepared = Sabr().prepare(problem, case.params, 0)

    def loss(params: Params) -> torch.Tensor:
        return Sabr()(problem, params, prepared)

    value, slope = differentiate(loss, case.params)
    norm = torch.cat([g.flatten() for g in slope.values()]).norm()
    _, expected = differentiate(loss, {n: p + 0.01 * slope[n] / norm for n, p in case.params.items()})
    found = SharpnessAware(0.01).estimate(loss, case.params, 0)
    torch.testing.assert_close((found.loss, found.gradient), (value, expected))
    assert found.statistics["sharpness"] > 0


def test_the_key_and_what_it_does_not_go_with() -> None:
    assert estimator_of("method=grad", "sam.rho=0.1") == SharpnessAware(0.1)
    for method, reason in (("pgpe", "reads values at random weights"), ("rgs", "takes gradients at random weights")):
        with pytest.raises(ConfigError, match=f"sam.rho is for method=grad, .* method={method} {reason}"):
            estimator_of(f"method={method}", "sam.rho=0.1")
    for none in ("0.0", ".inf", ".nan"):
        with pytest.raises(ConfigError, match="sam.rho"):
            estimator_of("method=grad", f"sam.rho={none}")
        with pytest.raises(ConfigError, match="sam.rho must be a positive number"):
            SharpnessAware(float(none.lstrip(".")))


def test_it_has_no_members() -> None:
    """Two evaluations are no population, and are not counted as one."""
    assert not SharpnessAware(0.1).has_members
    assert not Backprop().has_members
    assert not RGS(0.1, 1, sampling="independent").has_members
    assert PGPE(0.1, 2).has_members

"""The losses of the literature that are less known, each against a small computation of its own."""

import pytest
import torch
import torch.nn.functional as F
from cases import Case, make_case
from loss_cases import loss

from certtrain.bounds import Bounds, build
from certtrain.bounds.analysis import Given
from certtrain.errors import ConfigError
from certtrain.losses import AdCert, Adversary, Distillation, FeatureDistillation, Loss, Problem, robust_cross_entropy
from certtrain.losses.adv_ibp import WEIGHTS, mixing_weights
from certtrain.losses.optimised_slopes import SLOPES, OptimisedSlopes

EPS = 0.04


@pytest.fixture(scope="module")
def mlp() -> Case:
    return make_case("mlp")


def problem(case: Case, relaxation: str = "ibp", progress: float = 1.0) -> Problem:
    return Problem.within(case.graph, build(relaxation), case.inputs, case.labels, EPS, progress=progress)


def value(made: Loss, on: Problem, case: Case) -> torch.Tensor:
    return made.per_image(on, case.params, made.prepare(on, case.params, 0))


def robust(case: Case, relaxation: str = "ibp") -> torch.Tensor:
    return robust_cross_entropy(problem(case, relaxation).lower_margins(case.params))


def other(case: Case) -> dict[str, torch.Tensor]:
    return {name: p + 0.1 for name, p in case.params.items()}


def test_features_of_itself_are_no_distance_and_those_of_another_are_a_mean_square(mlp: Case) -> None:
    base, on = loss("robust_ce"), problem(mlp)
    itself = FeatureDistillation(base=base, teacher=mlp.params, weight=3.0)
    torch.testing.assert_close(value(itself, on, mlp), robust(mlp))
    apart = FeatureDistillation(base=base, teacher=other(mlp), weight=3.0, layer=0)
    place = mlp.graph.activations[0][0]
    mine, theirs = (mlp.graph.results(params, mlp.inputs)[place].flatten(1) for params in (mlp.params, other(mlp)))
    expected = robust(mlp) + 3 * F.mse_loss(mine, theirs, reduction="none").mean(1)
    torch.testing.assert_close(value(apart, on, mlp), expected)


def test_one_teacher_beside_another_keeps_what_it_has_prepared(mlp: Case) -> None:
    on, teacher = problem(mlp), other(mlp)
    bases = (AdCert(alpha=0.3, teacher=teacher), Distillation(base=loss("natural"), teacher=teacher))
    for base in bases:
        itself = Distillation(base=FeatureDistillation(base=base, teacher=mlp.params), teacher=mlp.params)
        torch.testing.assert_close(value(itself, on, mlp), value(base, on, mlp))


def test_ad_cert_goes_from_distilled_logits_to_the_robust_loss(mlp: Case) -> None:
    on, attack = problem(mlp), Adversary(steps=3)
    torch.testing.assert_close(value(AdCert(alpha=1.0, teacher=mlp.params), on, mlp), robust(mlp))
    nothing = value(AdCert(alpha=0.0, teacher=mlp.params), on, mlp)
    torch.testing.assert_close(nothing, torch.zeros_like(nothing))
    made = AdCert(alpha=0.3, teacher=other(mlp), temperature=2.0, attack=attack)
    points = loss("pgd", attack=attack).prepare(on, mlp.params, 0)["points"]
    teacher = F.softmax(mlp.graph.forward(other(mlp), points) / 2, 1)
    student = F.log_softmax(mlp.network(points) / 2, 1)
    divergence = F.kl_div(student, teacher, reduction="none").sum(1)
    torch.testing.assert_close(value(made, on, mlp), 0.3 * robust(mlp) + 0.7 * 4 * divergence)


# Adversarial, verified, mixture.
MIXTURES = {
    # As long as both are on average.
    "parallel": ((1.0, 0.0), (2.0, 0.0), (1.5, 0.0)),
    # The first without its part (0.5, -0.5) along the second.
    "against": ((1.0, 0.0), (-1.0, 1.0), (0.5, 0.5)),
    "orthogonal": ((1.0, 0.0), (0.0, 3.0), (1.0, 0.0)),
    "vanished": ((1.0, 0.0), (0.0, 0.0), (1.0, 0.0)),
    "other vanished": ((0.0, 0.0), (0.0, 3.0), (0.0, 3.0)),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures_of_two_gradients_by_hand(name: str) -> None:
    adversarial, verified, expected = (torch.tensor(vector) for vector in MIXTURES[name])
    weights = mixing_weights(adversarial, verified)
    torch.testing.assert_close(weights[0] * adversarial + weights[1] * verified, expected)


def test_a_mixture_lies_on_the_bisector_as_long_as_the_mean_projection() -> None:
    one, two = torch.tensor([2.0, 0.0, 1.0]), torch.tensor([0.5, 1.0, 0.0])
    weights = mixing_weights(one, two)
    mixture = weights[0] * one + weights[1] * two
    bisector = F.normalize(F.normalize(one, dim=0) + F.normalize(two, dim=0), dim=0)
    torch.testing.assert_close(mixture, 0.5 * (one @ bisector + two @ bisector) * bisector)


def test_the_gradient_of_adv_ibp_is_that_mixture_and_makes_the_verified_loss_no_larger(mlp: Case) -> None:
    on, made = problem(mlp), loss("adv_ibp")
    leaves = {name: p.detach().requires_grad_() for name, p in mlp.params.items()}
    prepared = made.prepare(on, mlp.params, 0)

    def gradient(of: torch.Tensor) -> torch.Tensor:
        return torch.cat([g.flatten() for g in torch.autograd.grad(of, list(leaves.values()), retain_graph=True)])

    adversarial = gradient(on.cross_entropy(leaves, prepared["points"]).mean())
    verified = gradient(robust_cross_entropy(on.lower_margins(leaves)).mean())
    mixture = gradient(made(on, leaves, prepared))
    torch.testing.assert_close(prepared[WEIGHTS], mixing_weights(adversarial, verified))
    torch.testing.assert_close(mixture, prepared[WEIGHTS][0] * adversarial + prepared[WEIGHTS][1] * verified)
    assert mixture @ verified >= -1e-9
    with torch.no_grad():  # as validation asks it
        torch.testing.assert_close(made.prepare(on, mlp.params, 0)[WEIGHTS], prepared[WEIGHTS])


def test_slopes_take_one_step_against_the_sign_of_the_loss(mlp: Case) -> None:
    """By differences in every slope."""
    on, made = problem(mlp, "crown_ibp"), OptimisedSlopes()
    start = made._random(on, 0)
    prepared = made.prepare(on, mlp.params, 0)

    def at(slopes: dict[int, torch.Tensor]) -> torch.Tensor:
        found = on.relaxation.analyse(on.graph, mlp.params, on.box, on.spec, "lower", Given(slopes=slopes))  # type: ignore[attr-defined]
        assert isinstance(found.bounds, Bounds)
        return robust_cross_entropy(found.bounds.lower)

    moved = 0
    for index, begin in start.items():
        chosen = prepared[SLOPES.format(index)]
        assert ((begin >= 0) & (begin <= 1)).all()
        for neuron in range(begin.shape[1]):
            ends = []
            for sign in (1, -1):
                shifted = begin.clone()
                shifted[:, neuron] += sign * 1e-6
                ends.append(at({**start, index: shifted}))
            slope = (ends[0] - ends[1]) / 2e-6
            expected = torch.where(slope > 1e-6, 0.0, torch.where(slope < -1e-6, 1.0, begin[:, neuron]))
            torch.testing.assert_close(chosen[:, neuron], expected)
            moved += int((chosen[:, neuron] != begin[:, neuron]).sum())
    assert moved > 0


def test_chosen_slopes_bound_the_loss_and_end_in_intervals_if_asked_to(mlp: Case) -> None:
    box = mlp.box(EPS)
    points = [box.lower + (box.upper - box.lower) * torch.rand_like(box.lower) for _ in range(20)]
    attacked = torch.stack([F.cross_entropy(mlp.network(x), mlp.labels, reduction="none") for x in points]).amax(0)
    for relaxation in ("crown_ibp", "deeppoly"):
        assert (value(OptimisedSlopes(), problem(mlp, relaxation), mlp) >= attacked).all()
    torch.testing.assert_close(value(OptimisedSlopes(beta_end=0.0), problem(mlp, "crown_ibp"), mlp), robust(mlp))


def test_slopes_differ_from_generation_to_generation_and_need_lines(mlp: Case) -> None:
    on, made = problem(mlp, "crown_ibp"), OptimisedSlopes()
    first, second = (made._random(on, number) for number in (0, 1))
    assert all(not torch.equal(first[index], second[index]) for index in first)
    for relaxation in ("ibp", "intersection"):
        with pytest.raises(ConfigError, match="loss=optimised_slopes chooses lower slopes"):
            value(made, problem(mlp, relaxation), mlp)

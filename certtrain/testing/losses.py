"""What holds for every loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from certtrain.bounds import Relaxation, build
from certtrain.errors import ConfigError
from certtrain.gradients.backprop import differentiate
from certtrain.losses import Loss, Prepared, Problem
from certtrain.networks import Params
from certtrain.testing.networks import Subject, subjects

EPS = 0.05
STEP = 1e-6
RELAXATIONS = ("ibp", "crown_ibp")


def problem_of(
    subject: Subject,
    relaxation: Relaxation,
    eps: float = EPS,
    natural_weight: float = 0.25,
    images: slice = slice(None),
) -> Problem:
    """A subject's images in the middle of the ramp of eps, where a loss computes all that it ever does."""
    inputs, labels = subject.inputs[images], subject.labels[images]
    first = images.start or 0
    return Problem.within(
        subject.graph, relaxation, inputs, labels, eps, natural_weight, seed=3, first=first, progress=0.5
    )


def moved(params: Params, seed: int, by: float) -> Params:
    """The parameters after a random step."""
    generator = torch.Generator().manual_seed(seed)
    return {name: p + by * torch.randn(p.shape, generator=generator, dtype=p.dtype) for name, p in params.items()}


def _prepared(loss: Loss, problem: Problem, subject: Subject, generation: int = 2) -> Prepared:
    return loss.prepare(problem, subject.params, generation)


def one_number_for_each_image(loss: Loss, subject: Subject, relaxation: Relaxation) -> None:
    """Finite, and what is minimised is their mean and the penalty."""
    problem = problem_of(subject, relaxation)
    prepared = _prepared(loss, problem, subject)
    found = loss.per_image(problem, subject.params, prepared)
    assert found.shape == (len(subject.inputs),), f"a loss of {len(subject.inputs)} images has shape {found.shape}"
    assert found.isfinite().all(), "a loss is not finite"
    expected = found.mean() + loss.penalty(subject.params) + loss.penalty_of_bounds(problem, subject.params)
    torch.testing.assert_close(loss(problem, subject.params, prepared), expected)


def nothing_is_lost_without_a_box(loss: Loss, subject: Subject, relaxation: Relaxation) -> None:
    """While eps is 0, in the warm-up, the loss has a value and derivatives."""
    problem = problem_of(subject, relaxation, eps=0.0, natural_weight=0.0)
    prepared = _prepared(loss, problem, subject)
    value, gradient = differentiate(lambda p: loss(problem, p, prepared), subject.params)
    assert value.isfinite(), "the loss at eps 0 is not finite"
    assert all(g.isfinite().all() for g in gradient.values()), "the gradient at eps 0 is not finite"


def preparation_is_a_function_of_its_generation(loss: Loss, subject: Subject, relaxation: Relaxation) -> None:
    """The same twice; detached; and the parameters stay as they were."""
    problem = problem_of(subject, relaxation)
    before = {name: p.clone() for name, p in subject.params.items()}
    first, again = (_prepared(loss, problem, subject) for _ in range(2))
    assert first.keys() == again.keys(), "what is prepared has other names the second time"
    assert all(torch.equal(first[name], again[name]) for name in first), "what is prepared changes without a reason"
    assert not any(x.requires_grad for x in first.values()), "what is prepared is not detached"
    assert all(torch.equal(p, before[name]) for name, p in subject.params.items()), "a loss changes the parameters"


def a_rank_prepares_its_part_as_the_whole_batch_does(loss: Loss, subject: Subject, relaxation: Relaxation) -> None:
    """The losses of some images are what they are among all, unless the loss says that they are not (`divisible`)."""
    if not loss.divisible:
        return
    whole, part = problem_of(subject, relaxation), problem_of(subject, relaxation, images=slice(2, None))
    among_all = loss.per_image(whole, subject.params, _prepared(loss, whole, subject))[2:]
    alone = loss.per_image(part, subject.params, _prepared(loss, part, subject))
    torch.testing.assert_close(alone, among_all)


def a_population_equals_its_members(loss: Loss, subject: Subject, relaxation: Relaxation) -> None:
    """Vectorised over the parameters, it is what it is for each."""
    problem = problem_of(subject, relaxation)
    prepared = _prepared(loss, problem, subject)
    members = [moved(subject.params, seed, 0.05) for seed in range(3)]
    together = {name: torch.stack([member[name] for member in members]) for name in subject.params}
    with torch.no_grad():
        found = torch.func.vmap(lambda p: loss(problem, p, prepared))(together)
        alone = torch.stack([loss(problem, member, prepared) for member in members])
    torch.testing.assert_close(found, alone)


def derivatives_are_those_of_the_value(loss: Loss, subject: Subject, relaxation: Relaxation) -> None:
    """By central differences in float64, unless the loss says that they are others; finite in any case."""
    problem = problem_of(subject, relaxation)
    prepared = _prepared(loss, problem, subject)

    def value(params: Params) -> Tensor:
        return loss(problem, params, prepared)

    found, gradient = differentiate(value, subject.params)
    assert found.isfinite(), "a loss is not finite"
    assert all(g.isfinite().all() for g in gradient.values()), "a gradient is not finite"
    if not loss.differentiates_its_value:
        return
    for seed in range(3):
        nothing = {name: torch.zeros_like(p) for name, p in subject.params.items()}
        direction = moved(nothing, seed, 1.0)
        slope = sum(float((gradient[name] * direction[name]).sum()) for name in gradient)
        ends = [value({n: p + sign * STEP * direction[n] for n, p in subject.params.items()}) for sign in (1, -1)]
        difference = float(ends[0] - ends[1]) / (2 * STEP)
        allowed = 1e-4 * (abs(difference) + float(found.detach().abs()) + 1e-2)
        assert abs(slope - difference) <= allowed, f"a derivative is {slope:.6g}, by differences {difference:.6g}"


def derivatives_may_be_vectorised(loss: Loss, subject: Subject, relaxation: Relaxation) -> None:
    """Those of torch.func, which rgs takes of several members at once, are those of one after the other."""
    problem = problem_of(subject, relaxation)
    prepared = _prepared(loss, problem, subject)
    members = [moved(subject.params, seed, 0.05) for seed in range(2)]
    together = {name: torch.stack([member[name] for member in members]) for name in subject.params}
    found = torch.func.vmap(torch.func.grad(lambda p: loss(problem, p, prepared)))(together)
    for i, member in enumerate(members):
        _, gradient = differentiate(lambda p: loss(problem, p, prepared), member)
        torch.testing.assert_close({name: g[i] for name, g in found.items()}, gradient)


def accepted(loss: Loss, subject: Subject) -> list[Relaxation]:
    """Of the relaxations that losses are checked with, those that it does not refuse; at least one.

    Raises:
        ConfigError: If it refuses all.
    """
    found, refusal = [], None
    for relaxation in map(build, RELAXATIONS):
        try:
            _prepared(loss, problem_of(subject, relaxation), subject)
            found.append(relaxation)
        except ConfigError as error:
            refusal = error
    if not found and refusal is not None:
        raise refusal
    return found


LossCheck = Callable[[Loss, Subject, Relaxation], None]
LOSS_CHECKS: Mapping[str, LossCheck] = {
    check.__name__: check
    for check in (
        one_number_for_each_image,
        nothing_is_lost_without_a_box,
        preparation_is_a_function_of_its_generation,
        a_rank_prepares_its_part_as_the_whole_batch_does,
        a_population_equals_its_members,
        derivatives_are_those_of_the_value,
        derivatives_may_be_vectorised,
    )
}


def check_loss(loss: Loss) -> None:
    """Runs every check on a loss: on two kinds of networks, by intervals and by lines, if it takes them.

    Raises:
        AssertionError: At the first one that fails.
    """
    networks = subjects()
    for name in ("fully_connected", "convolutional"):
        for relaxation in accepted(loss, networks[name]):
            for check in LOSS_CHECKS.values():
                check(loss, networks[name], relaxation)

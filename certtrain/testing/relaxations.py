"""Theorems that hold for every relaxation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise

import torch
from torch import Tensor

from certtrain.bounds import Bounds, Box, Relaxation
from certtrain.testing.networks import Subject, subjects

TOLERANCE = 1e-9
RADII = (0.02, 0.15, 1.0)


def _draw(box: Box, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(box.lower.shape, generator=generator, dtype=box.lower.dtype)


def worst_points(subject: Subject, box: Box) -> Tensor:
    """Small and large values of every margin that gradient steps find inside the box, [2 rows, batch, *shape]."""
    rows = subject.spec.shape[1]
    which, signs = (
        torch.arange(rows).repeat_interleave(2),
        torch.tensor([1.0, -1.0], dtype=box.lower.dtype).repeat(rows),
    )
    width = box.upper - box.lower
    x = torch.stack([box.lower + width * _draw(box, row) for row in which.tolist()])
    for _ in range(15):
        x.requires_grad_(True)
        margins = subject.margins(x)[torch.arange(2 * rows), :, which]
        (gradient,) = torch.autograd.grad((signs[:, None] * margins).sum(), x)
        x = torch.maximum(torch.minimum(x.detach() - gradient.sign() * width / 6, box.upper), box.lower)
    return x


def points(subject: Subject, box: Box) -> Tensor:
    """Random points and corners inside the box, [152, batch, *shape]."""
    generator = torch.Generator().manual_seed(7)
    shares = [torch.zeros_like(box.lower), torch.ones_like(box.lower)]
    for i in range(150):
        u = torch.rand(box.lower.shape, generator=generator, dtype=box.lower.dtype)
        shares.append(u if i % 2 else (u > 0.5).to(u.dtype))
    return box.lower + (box.upper - box.lower) * torch.stack(shares)


def _holds(bounds: Bounds, values: Tensor) -> bool:
    assert bounds.upper is not None
    return bool((bounds.lower <= values + TOLERANCE).all() and (values <= bounds.upper + TOLERANCE).all())


def no_point_of_the_box_leaves_the_bounds(relaxation: Relaxation, subject: Subject) -> None:
    """Soundness, by random points, corners and attacks, on small and large boxes."""
    for eps in RADII:
        box = subject.box(eps)
        bounds = relaxation.bound(subject.graph, subject.params, box, subject.spec)
        for x in (points(subject, box), worst_points(subject, box)):
            assert _holds(bounds, subject.margins(x)), f"at eps {eps} a margin lies outside its bounds"


def exact_where_the_box_is_a_point(relaxation: Relaxation, subject: Subject) -> None:
    """At eps 0 bounds are the margins."""
    bounds = relaxation.bound(subject.graph, subject.params, subject.box(0.0), subject.spec)
    exact = subject.margins(subject.inputs)
    torch.testing.assert_close(bounds.lower, exact, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(bounds.upper, exact, rtol=0, atol=TOLERANCE)


def outputs_without_a_specification(relaxation: Relaxation, subject: Subject) -> None:
    """No specification bounds the outputs."""
    box = subject.box(0.1)
    bounds = relaxation.bound(subject.graph, subject.params, box)
    assert bounds.lower.shape == (len(box), subject.graph.num_outputs)
    assert all(_holds(bounds, subject.network(x)) for x in points(subject, box)[:30])


def lower_alone_is_the_lower_of_both(relaxation: Relaxation, subject: Subject) -> None:
    """Leaving out upper bounds changes no lower one."""
    both = relaxation.bound(subject.graph, subject.params, subject.box(0.1), subject.spec)
    lower = relaxation.bound(subject.graph, subject.params, subject.box(0.1), subject.spec, sides="lower")
    torch.testing.assert_close(lower.lower, both.lower, rtol=0, atol=1e-12)


def wider_boxes_are_looser_on_average(relaxation: Relaxation, subject: Subject) -> None:
    """Slopes chosen by area are not monotone row by row."""
    means = []
    for eps in (0.0, 0.02, 0.1, 0.4):
        bounds = relaxation.bound(subject.graph, subject.params, subject.box(eps), subject.spec)
        assert bounds.upper is not None
        means.append(float((bounds.upper - bounds.lower).mean()))
    assert all(small <= large + TOLERANCE for small, large in pairwise(means))
    assert means[-1] > means[0] + 1e-3


def an_image_does_not_depend_on_its_batch(relaxation: Relaxation, subject: Subject) -> None:
    """Its bounds alone are those among others."""
    together = relaxation.bound(subject.graph, subject.params, subject.box(0.1), subject.spec)
    for i in range(len(subject.inputs)):
        alone = relaxation.bound(
            subject.graph, subject.params, subject.box(0.1)[slice(i, i + 1)], subject.spec[i : i + 1]
        )
        torch.testing.assert_close(alone.lower, together.lower[i : i + 1], rtol=0, atol=1e-12)


def a_population_is_bounded_like_its_members(relaxation: Relaxation, subject: Subject) -> None:
    """Under `torch.func.vmap` over parameters."""
    generator = torch.Generator().manual_seed(3)
    stacked = {
        k: p + 0.1 * torch.randn((3, *p.shape), generator=generator, dtype=p.dtype) for k, p in subject.params.items()
    }
    box = subject.box(0.1)

    def lower(params: dict[str, Tensor]) -> Tensor:
        return relaxation.bound(subject.graph, params, box, subject.spec, "lower").lower

    vectorised = torch.func.vmap(lower)(stacked)
    for i in range(3):
        member = lower({k: p[i] for k, p in stacked.items()})
        torch.testing.assert_close(vectorised[i], member, rtol=0, atol=1e-9)


def gradients_are_finite_and_right(relaxation: Relaxation, subject: Subject) -> None:
    """Against a central difference along a random direction, where no neuron changes its kind within the step."""
    box = subject.box(0.03)
    generator = torch.Generator().manual_seed(5)
    direction = {k: torch.randn(p.shape, generator=generator, dtype=p.dtype) for k, p in subject.params.items()}

    def loss(shift: Tensor) -> Tensor:
        moved = {k: p + shift * direction[k] for k, p in subject.params.items()}
        return relaxation.bound(subject.graph, moved, box, subject.spec, "lower").lower.sum()

    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(shift), shift)
    h = 1e-7
    with torch.no_grad():
        numeric = (loss(torch.tensor(h, dtype=torch.float64)) - loss(torch.tensor(-h, dtype=torch.float64))) / (2 * h)
    assert gradient.isfinite()
    if relaxation.optimises:
        return  # what is chosen moves, too, where iterations end before the optimum
    assert abs(float(gradient - numeric)) <= 1e-4 * max(1.0, abs(float(numeric)))


def gradients_are_finite_on_zero_width_boxes(relaxation: Relaxation, subject: Subject) -> None:
    """No NaN from branches that are not taken."""
    leaves = {k: p.clone().requires_grad_() for k, p in subject.params.items()}
    bounds = relaxation.bound(subject.graph, leaves, subject.box(0.0), subject.spec, "lower")
    gradients = torch.autograd.grad(bounds.lower.sum(), list(leaves.values()), allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in gradients)


def single_precision_agrees(relaxation: Relaxation, subject: Subject) -> None:
    """float32 in, float32 out, at the same values."""
    params = {k: p.float() for k, p in subject.params.items()}
    single = relaxation.bound(subject.graph, params, subject.box(0.1).to(torch.float32), subject.spec.float())
    double = relaxation.bound(subject.graph, subject.params, subject.box(0.1), subject.spec)
    assert single.lower.dtype == torch.float32
    torch.testing.assert_close(single.lower.double(), double.lower, rtol=1e-4, atol=1e-4)


def nan_weights_never_look_certified(relaxation: Relaxation, subject: Subject) -> None:
    """Whichever parameter holds one."""
    for name in subject.params:
        poisoned = {k: p.clone() for k, p in subject.params.items()}
        poisoned[name].view(-1)[0] = float("nan")
        bounds = relaxation.bound(subject.graph, poisoned, subject.box(0.05), subject.spec, "lower")
        assert not (bounds.lower > 0).all(1).any(), f"NaN in {name} was certified"


def a_planted_counterexample_is_never_certified(relaxation: Relaxation, subject: Subject) -> None:
    """Shift the last bias so that one attacked point is misclassified by a hair: no lower bound may stay positive."""
    box = subject.box(0.1)
    x = worst_points(subject, box)[0]
    margin = subject.margins(x)[:, 0].detach()
    classes = (subject.graph.num_outputs,)
    last = [name for name, p in subject.params.items() if name.endswith("bias") and p.shape == classes][-1]
    for image in range(len(x)):
        # The first row compares the label with its first rival; only the last affine layer's bias is moved.
        row = subject.spec[image, 0]
        shifted = dict(subject.params)
        shifted[last] = subject.params[last] - row * (margin[image] + 1e-6) / 2
        logits = torch.func.functional_call(subject.network, shifted, (x[image : image + 1],)).detach()
        if float((row * logits[0]).sum()) > 0:
            continue  # a ReLU behind the last layer swallowed the shift
        bounds = relaxation.bound(
            subject.graph, shifted, box[slice(image, image + 1)], subject.spec[image : image + 1], "lower"
        )
        assert bounds.lower[0, 0] <= TOLERANCE


RelaxationCheck = Callable[[Relaxation, Subject], None]
RELAXATION_CHECKS: Mapping[str, RelaxationCheck] = {
    check.__name__: check
    for check in (
        no_point_of_the_box_leaves_the_bounds,
        exact_where_the_box_is_a_point,
        outputs_without_a_specification,
        lower_alone_is_the_lower_of_both,
        wider_boxes_are_looser_on_average,
        an_image_does_not_depend_on_its_batch,
        a_population_is_bounded_like_its_members,
        gradients_are_finite_and_right,
        gradients_are_finite_on_zero_width_boxes,
        single_precision_agrees,
        nan_weights_never_look_certified,
        a_planted_counterexample_is_never_certified,
    )
}


def check_relaxation(relaxation: Relaxation, on: Iterable[Subject] | None = None) -> None:
    """Runs every check.

    Args:
        relaxation: What is checked.
        on: Networks; those of `certtrain.testing.subjects()` where none are given.

    Raises:
        AssertionError: At the first theorem that does not hold.
    """
    for subject in subjects().values() if on is None else on:
        for check in RELAXATION_CHECKS.values():
            check(relaxation, subject)

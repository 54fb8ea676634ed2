"""Theorems that hold for every relaxation, on every layer kind. A new relaxation gets them by being registered."""

from itertools import pairwise

import pytest
import torch
from cases import Case

from certtrain.bounds import Bounds, Box, Relaxation, build

TOLERANCE = 1e-9


def pgd(case: Case, box: Box, row: int, sign: float) -> torch.Tensor:
    """The smallest (sign 1) or largest (sign -1) value of one margin that gradient steps find inside the box."""
    x = box.lower + (box.upper - box.lower) * torch.rand_like(box.lower)
    for _ in range(15):
        x.requires_grad_(True)
        (gradient,) = torch.autograd.grad(case.margins(x)[:, row].sum(), x)
        step = sign * gradient.sign() * (box.upper - box.lower) / 6
        x = torch.maximum(torch.minimum(x.detach() - step, box.upper), box.lower)
    return x


def points(case: Case, box: Box) -> list[torch.Tensor]:
    """Random points, corners and attacks inside the box, each [batch, *shape]."""
    generator = torch.Generator().manual_seed(7)
    found = [box.lower, box.upper]
    for i in range(150):
        u = torch.rand(box.lower.shape, generator=generator, dtype=box.lower.dtype)
        u = u if i % 2 else (u > 0.5).to(u.dtype)
        found.append(box.lower + (box.upper - box.lower) * u)
    rows = case.spec.shape[1]
    return found + [pgd(case, box, row, sign) for row in range(rows) for sign in (1.0, -1.0)]


def holds(bounds: Bounds, values: torch.Tensor) -> bool:
    assert bounds.upper is not None
    return bool((bounds.lower <= values + TOLERANCE).all() and (values <= bounds.upper + TOLERANCE).all())


@pytest.mark.parametrize("eps", [0.02, 0.15, 1.0])
def test_no_point_of_the_box_leaves_the_bounds(relaxation: Relaxation, case: Case, eps: float) -> None:
    box = case.box(eps)
    bounds = relaxation.bound(case.graph, case.params, box, case.spec)
    assert all(holds(bounds, case.margins(x)) for x in points(case, box))


def test_exact_where_the_box_is_a_point(relaxation: Relaxation, case: Case) -> None:
    bounds = relaxation.bound(case.graph, case.params, case.box(0.0), case.spec)
    exact = case.margins(case.inputs)
    torch.testing.assert_close(bounds.lower, exact, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(bounds.upper, exact, rtol=0, atol=TOLERANCE)


def test_outputs_without_a_specification(relaxation: Relaxation, case: Case) -> None:
    box = case.box(0.1)
    bounds = relaxation.bound(case.graph, case.params, box)
    assert bounds.lower.shape == (5, 4)
    assert all(holds(bounds, case.network(x)) for x in points(case, box)[:30])


def test_lower_alone_is_the_lower_of_both(relaxation: Relaxation, case: Case) -> None:
    both = relaxation.bound(case.graph, case.params, case.box(0.1), case.spec)
    lower = relaxation.bound(case.graph, case.params, case.box(0.1), case.spec, sides="lower")
    torch.testing.assert_close(lower.lower, both.lower, rtol=0, atol=1e-12)


def test_larger_boxes_never_have_tighter_intervals(case: Case) -> None:
    """A theorem for intervals only: slopes chosen by area make the other relaxations only nearly monotone."""
    widths = []
    for eps in (0.0, 0.01, 0.05, 0.2):
        bounds = build("ibp").bound(case.graph, case.params, case.box(eps), case.spec)
        widths.append((bounds.lower, bounds.upper))
    for (small_lower, small_upper), (large_lower, large_upper) in pairwise(widths):
        assert (large_lower <= small_lower + TOLERANCE).all()
        assert (large_upper >= small_upper - TOLERANCE).all()


def test_wider_boxes_are_looser_on_average(relaxation: Relaxation, case: Case) -> None:
    means = [
        float((b.upper - b.lower).mean())
        for b in (relaxation.bound(case.graph, case.params, case.box(e), case.spec) for e in (0.0, 0.02, 0.1, 0.4))
    ]
    assert all(small <= large + TOLERANCE for small, large in pairwise(means))
    assert means[-1] > means[0] + 1e-3


def test_an_image_does_not_depend_on_its_batch(relaxation: Relaxation, case: Case) -> None:
    together = relaxation.bound(case.graph, case.params, case.box(0.1), case.spec)
    for i in range(len(case.inputs)):
        alone = relaxation.bound(case.graph, case.params, case.box(0.1)[slice(i, i + 1)], case.spec[i : i + 1])
        torch.testing.assert_close(alone.lower, together.lower[i : i + 1], rtol=0, atol=1e-12)


def test_a_population_is_bounded_like_its_members(relaxation: Relaxation, case: Case) -> None:
    generator = torch.Generator().manual_seed(3)
    stacked = {
        k: p + 0.1 * torch.randn((3, *p.shape), generator=generator, dtype=p.dtype) for k, p in case.params.items()
    }
    box = case.box(0.1)

    def lower(params: dict[str, torch.Tensor]) -> torch.Tensor:
        return relaxation.bound(case.graph, params, box, case.spec, "lower").lower

    vectorised = torch.func.vmap(lower)(stacked)
    for i in range(3):
        member = lower({k: p[i] for k, p in stacked.items()})
        torch.testing.assert_close(vectorised[i], member, rtol=0, atol=1e-9)


def test_gradients_are_finite_and_right(relaxation: Relaxation, case: Case) -> None:
    """Against a central difference along a random direction, where no neuron changes its kind within the step."""
    box = case.box(0.03)
    generator = torch.Generator().manual_seed(5)
    direction = {k: torch.randn(p.shape, generator=generator, dtype=p.dtype) for k, p in case.params.items()}

    def loss(shift: torch.Tensor) -> torch.Tensor:
        moved = {k: p + shift * direction[k] for k, p in case.params.items()}
        return relaxation.bound(case.graph, moved, box, case.spec, "lower").lower.sum()

    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(shift), shift)
    h = 1e-7
    with torch.no_grad():
        numeric = (loss(torch.tensor(h, dtype=torch.float64)) - loss(torch.tensor(-h, dtype=torch.float64))) / (2 * h)
    assert gradient.isfinite()
    assert abs(float(gradient - numeric)) <= 1e-4 * max(1.0, abs(float(numeric)))


def test_gradients_are_finite_on_zero_width_boxes(relaxation: Relaxation, case: Case) -> None:
    leaves = {k: p.clone().requires_grad_() for k, p in case.params.items()}
    bounds = relaxation.bound(case.graph, leaves, case.box(0.0), case.spec, "lower")
    gradients = torch.autograd.grad(bounds.lower.sum(), list(leaves.values()), allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in gradients)


def test_single_precision_agrees(relaxation: Relaxation, case: Case) -> None:
    params = {k: p.float() for k, p in case.params.items()}
    single = relaxation.bound(case.graph, params, case.box(0.1).to(torch.float32), case.spec.float())
    double = relaxation.bound(case.graph, case.params, case.box(0.1), case.spec)
    assert single.lower.dtype == torch.float32
    torch.testing.assert_close(single.lower.double(), double.lower, rtol=1e-4, atol=1e-4)


def test_nan_weights_never_look_certified(relaxation: Relaxation, case: Case) -> None:
    for name in case.params:
        poisoned = {k: p.clone() for k, p in case.params.items()}
        poisoned[name].view(-1)[0] = float("nan")
        bounds = relaxation.bound(case.graph, poisoned, case.box(0.05), case.spec, "lower")
        assert not (bounds.lower > 0).all(1).any(), f"NaN in {name} was certified"


def test_a_planted_counterexample_is_never_certified(relaxation: Relaxation, case: Case) -> None:
    """Shift the last bias so that one attacked point is misclassified by a hair: no lower bound may stay positive."""
    box = case.box(0.1)
    x = pgd(case, box, 0, 1.0)
    margin = case.margins(x)[:, 0].detach()
    last = [name for name, p in case.params.items() if name.endswith("bias") and p.shape == (4,)][-1]
    for image in range(len(x)):
        # The first row compares the label with its first rival; only the last affine layer's bias is moved.
        row = case.spec[image, 0]
        shifted = dict(case.params)
        shifted[last] = case.params[last] - row * (margin[image] + 1e-6) / 2
        logits = torch.func.functional_call(case.network, shifted, (x[image : image + 1],)).detach()
        if float((row * logits[0]).sum()) > 0:
            continue  # a ReLU behind the last layer swallowed the shift
        bounds = relaxation.bound(
            case.graph, shifted, box[slice(image, image + 1)], case.spec[image : image + 1], "lower"
        )
        assert bounds.lower[0, 0] <= TOLERANCE

"""Bounds on a device are those on the CPU: of every relaxation, executor and backend, with derivatives."""

import pytest
import torch
from cases import VARIANTS, carried_by
from device_cases import DTYPES, Placed, assert_alike, places, subject
from lirpa_cases import METHODS, needs_auto_lirpa
from torch import Tensor

from certtrain.bounds import Analysing, Analysis, Bounds, Given, Intersection, Relaxation, build
from certtrain.bounds.executors import EXECUTORS
from certtrain.precision import full_float32

CPU = torch.device("cpu")
EPS = 0.1
BACKWARD = ["crown_ibp", "deeppoly", "deeppoly_textbook"]


def pieces(relaxation: Relaxation) -> Relaxation:
    """With so little memory that rows go in several pieces."""
    if isinstance(relaxation, Intersection):
        return Intersection(tuple(pieces(part) for part in relaxation.parts))
    options = {k: v for k, v in vars(relaxation).items() if k != "memory_mb"}
    return type(relaxation)(**options, memory_mb=0.1) if hasattr(relaxation, "memory_mb") else relaxation


def bounds_and_gradients(relaxation: Relaxation, at: Placed) -> list[Tensor]:
    found = relaxation.bound(at.graph, at.params, at.box(EPS), at.spec)
    assert found.upper is not None
    assert found.lower.device == at.inputs.device
    # A backward pass is in whatever precision the caller asks for.
    with full_float32(at.inputs.device):
        gradients = torch.autograd.grad(
            found.lower.sum() + found.upper.square().mean(), list(at.params.values()), materialize_grads=True
        )
    return [found.lower, found.upper, *gradients]


@places({"strided": torch.float32, "curved": torch.float64, "moved": torch.float32})
@pytest.mark.parametrize("name", VARIANTS)
def test_every_relaxation_bounds_and_differentiates_as_on_the_cpu(
    device: torch.device, name: str, network: str, dtype: torch.dtype
) -> None:
    relaxation, what = build(**VARIANTS[name]), subject(network)
    expected = bounds_and_gradients(relaxation, Placed.of(what, dtype, CPU))
    found = bounds_and_gradients(relaxation, Placed.of(what, dtype, device))
    for a, b in zip(found, expected, strict=True):
        assert_alike(a, b)


@places({"strided": torch.float64}, there=["strided", "residual"], dtypes=[torch.float64])
@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("name", BACKWARD)
def test_executors_and_small_budgets_change_nothing(
    device: torch.device, name: str, executor: str, network: str, dtype: torch.dtype
) -> None:
    what = subject(network)
    expected = bounds_and_gradients(build(**VARIANTS[name]), Placed.of(what, dtype, CPU))
    chosen = pieces(carried_by(build(**VARIANTS[name]), executor))
    for a, b in zip(bounds_and_gradients(chosen, Placed.of(what, dtype, device)), expected, strict=True):
        assert_alike(a, b)


@places({"residual": torch.float32})
@pytest.mark.parametrize("name", VARIANTS)
def test_a_population_is_bounded_as_on_the_cpu(
    device: torch.device, name: str, network: str, dtype: torch.dtype
) -> None:
    relaxation, what = build(**VARIANTS[name]), subject(network)

    def of_three(at: Placed) -> Tensor:
        factors = torch.tensor([0.9, 1.0, 1.1], dtype=dtype, device=at.inputs.device)
        members = {k: p.detach() * factors.reshape(-1, *[1] * p.dim()) for k, p in at.params.items()}

        def lower(params: dict[str, Tensor]) -> Tensor:
            return relaxation.bound(at.graph, params, at.box(EPS), at.spec, "lower").lower

        with torch.no_grad():
            return torch.func.vmap(lower)(members)

    assert_alike(of_three(Placed.of(what, dtype, device)), of_three(Placed.of(what, dtype, CPU)))


def analyse_what_is_given(relaxation: Relaxation, at: Placed) -> tuple[Analysis, list[Tensor]]:
    """With decisions, slopes and multipliers that are made on the CPU, and derivatives in the last two."""
    generator, dtype, device = torch.Generator().manual_seed(0), at.inputs.dtype, at.inputs.device

    def draw(index: int, rows: tuple[int, ...] = ()) -> Tensor:
        shape = (len(at.inputs), *rows, *at.graph.ops[index].shape)
        return torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype).to(device)

    with full_float32(device):
        results = at.graph.results({k: p.detach() for k, p in at.params.items()}, at.inputs)
    reads = {i: op.inputs[0] for i, op in at.graph.activations}
    splits = {i: torch.where(draw(i) < 0.3, results[i].sign(), torch.zeros_like(results[i])) for i in reads.values()}
    slopes = {i: draw(read, (3,)).requires_grad_() for i, read in reads.items()}
    first = min(reads.values())
    multipliers = {i: (0.3 * draw(i)).requires_grad_() for i in splits if i > first}
    assert isinstance(relaxation, Analysing)
    given = Given(splits=splits, slopes=slopes, multipliers=multipliers)
    found = relaxation.analyse(at.graph, at.params, at.box(EPS), at.spec, "lower", given)
    leaves = [*slopes.values(), *multipliers.values()]
    with full_float32(device):
        return found, list(torch.autograd.grad(found.bounds.lower.sum(), leaves, materialize_grads=True))


@places({"residual": torch.float64}, there=["mlp", "strided", "residual"], dtypes=[torch.float64])
@pytest.mark.parametrize("name", BACKWARD)
def test_splits_slopes_and_multipliers_act_as_on_the_cpu(
    device: torch.device, name: str, network: str, dtype: torch.dtype
) -> None:
    relaxation, what = build(**VARIANTS[name]), subject(network)
    found, slopes = analyse_what_is_given(relaxation, Placed.of(what, dtype, device))
    expected, expected_slopes = analyse_what_is_given(relaxation, Placed.of(what, dtype, CPU))
    assert_alike(found.bounds.lower, expected.bounds.lower)
    for index, z in expected.hidden.items():
        assert_alike(found.hidden[index].lower, z.lower)
        assert_alike(found.hidden[index].upper, z.upper)
    for index, lines in expected.lines.items():
        assert_alike(found.lines[index].lower_slope, lines.lower_slope)
        assert_alike(found.lines[index].upper_intercept, lines.upper_intercept)
    for a, b in zip(slopes, expected_slopes, strict=True):
        assert_alike(a, b)


@needs_auto_lirpa
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("network", ["mlp", "strided", "residual"])
@pytest.mark.gpu
def test_auto_lirpa_bounds_as_on_the_cpu(cuda: torch.device, network: str, method: str, dtype: torch.dtype) -> None:
    what = subject(network)

    def bound(at: Placed) -> Bounds:
        return build(method, "auto_lirpa").bound(at.graph, at.params, at.box(EPS), at.spec)

    found, expected = bound(Placed.of(what, dtype, cuda)), bound(Placed.of(what, dtype, CPU))
    assert_alike(found.lower, expected.lower)
    assert found.upper is not None
    assert expected.upper is not None
    assert_alike(found.upper, expected.upper)

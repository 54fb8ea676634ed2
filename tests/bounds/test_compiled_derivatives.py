"""The compiled derivatives against those of the tensor operations that they replace."""

import pytest
import torch
from cases import Case, needs_compiler
from compiled_cases import (
    COMPILED,
    LAYOUTS,
    RELAXATIONS,
    TENSORS,
    Network,
    awkward,
    bounds,
    curved,
    gradient,
    in_layout,
    quiet,
    rows_of_places,
    wide,
)

from certtrain.bounds import Box, Given, build, margin_spec
from certtrain.bounds.executors import Executor
from certtrain.bounds.executors.compiled.bundling import Cheapest


def executor_of(layout: str) -> Executor:
    return COMPILED if layout == "cheapest" else in_layout(layout)


def test_derivatives_of_bundles_with_empty_lanes_are_taken_alone_unless_much_is_blocked() -> None:
    chosen = Cheapest().of_derivatives
    assert chosen(rows_of_places(16, 16), 16, 1.0) == 16
    assert chosen(rows_of_places(9, 9), 16, 1.0) is None
    assert chosen(rows_of_places(9, 9), 16, 0.4) == 16
    assert chosen(rows_of_places(1, 1), 16, 0.4) is None


@needs_compiler
@pytest.mark.parametrize("network", [wide, quiet, awkward, curved])
@pytest.mark.parametrize("layout", [*LAYOUTS, "cheapest"])
@pytest.mark.parametrize("name", RELAXATIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-4), (torch.float64, 1e-9)])
def test_compiled_gradients_are_those_of_tensor_operations(
    name: str, dtype: torch.dtype, tolerance: float, layout: str, network: Network
) -> None:
    graph, params, inputs = network()
    params, inputs = {k: p.to(dtype) for k, p in params.items()}, inputs.to(dtype)
    expected = gradient(name, graph, params, inputs, TENSORS)
    executor = executor_of(layout)
    for key, found in gradient(name, graph, params, inputs, executor).items():
        torch.testing.assert_close(found, expected[key], rtol=tolerance, atol=tolerance / 10, msg=key)


@needs_compiler
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("eps", [0.005, 0.1])
def test_every_layout_knows_the_derivative_of_every_operation(case: Case, eps: float, layout: str) -> None:
    found, expected = (
        gradient("deeppoly", case.graph, case.params, case.inputs, executor, eps)
        for executor in (in_layout(layout), TENSORS)
    )
    for key, own in found.items():
        torch.testing.assert_close(own, expected[key], rtol=1e-8, atol=1e-9, msg=key)


@needs_compiler
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("network", [quiet, curved])
def test_multipliers_and_slopes_have_gradients_too(network: Network, layout: str) -> None:
    """Slopes of zero among them, where derivatives matter that lines hide."""
    graph, params, inputs = network()
    params, inputs = {k: p.double() for k, p in params.items()}, inputs.double()
    box, spec = Box.linf(inputs, 0.3), margin_spec(torch.arange(3), 4).double()
    results = graph.results(params, inputs)
    read = [op.inputs[0] for _, op in graph.activations]
    splits = {
        i: torch.where(results[i].abs() > results[i].abs().median(), results[i].sign(), 0.0).detach() for i in read[1:]
    }
    multipliers = {i: (0.3 + 0.1 * x.detach().abs()).requires_grad_() for i, x in enumerate(results) if i in splits}
    slopes = {i: torch.zeros_like(results[op.inputs[0]]).requires_grad_() for i, op in graph.activations}
    leaves = [*multipliers.values(), *slopes.values()]
    found = []
    for executor in (in_layout(layout), TENSORS):
        given = Given(splits=splits, multipliers=multipliers, slopes=slopes)
        analysis = build("crown_ibp", executor=executor).analyse(graph, params, box, spec, "lower", given)
        found.append(torch.autograd.grad(analysis.bounds.lower.sum(), leaves, materialize_grads=True))
    for own, expected in zip(*found, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-10)
    assert all((x != 0).any() for x in found[0][: len(multipliers)])


@needs_compiler
@pytest.mark.parametrize("layout", [*LAYOUTS, "cheapest"])
def test_the_box_has_gradients_too(layout: str) -> None:
    graph, params, inputs = wide()
    params, inputs = {k: p.double() for k, p in params.items()}, inputs.double().mul(0.5).add(0.2)
    found = []
    for executor in (executor_of(layout), TENSORS):
        x = inputs.clone().requires_grad_()
        found.append(torch.autograd.grad(bounds("deeppoly", graph, params, x, executor).lower.sum(), x)[0])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-10)

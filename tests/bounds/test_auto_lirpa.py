"""The auto_LiRPA backend: right numbers, and no state."""

from __future__ import annotations

import weakref
from typing import Literal

import pytest
import torch
from lirpa_cases import (
    EXACT,
    FLOAT32,
    METHODS,
    NETWORKS,
    Method,
    agree,
    native,
    needs_auto_lirpa,
    pair,
    problem,
)
from torch import Tensor, nn

from benchmarks import tightness
from certtrain.bounds import Bounds, Box
from certtrain.bounds.backends.auto_lirpa import AutoLirpa

# A reference for dense networks: nothing in it is shared with certtrain.


def relu_lines(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lower slope, upper slope, upper intercept; each [batch, neurons]."""
    chord = torch.where(low >= 0, 1.0, torch.where(high <= 0, 0.0, high / (high - low)))
    lower = torch.where(low >= 0, 1.0, torch.where(high <= 0, 0.0, (high > -low).double()))
    return lower, chord, torch.where((low < 0) & (high > 0), -chord * low, 0.0)


def substitute(rows: Tensor, layers: list, known: list, box: Box) -> Tensor:
    """Lower bound of rows [batch, rows, n] over the last layer, given pre-activation bounds of the others."""
    total = torch.zeros(rows.shape[:2], dtype=rows.dtype)
    for i in range(len(layers) - 1, -1, -1):
        weight, bias = layers[i]
        total, rows = total + rows @ bias, rows @ weight
        if i > 0:
            lower, chord, intercept = relu_lines(*known[i - 1])
            total = total + (rows.clamp(max=0) @ intercept[..., None]).squeeze(-1)
            rows = rows.clamp(min=0) * lower[:, None] + rows.clamp(max=0) * chord[:, None]
    low, high = box.lower.flatten(1)[:, None], box.upper.flatten(1)[:, None]
    return total + (rows.clamp(min=0) * low + rows.clamp(max=0) * high).sum(-1)


def reference(method: Method, layers: list, box: Box, spec: Tensor) -> tuple[Tensor, Tensor]:
    low, high, known = box.lower.flatten(1), box.upper.flatten(1), list[tuple[Tensor, Tensor]]()
    for i, (weight, bias) in enumerate(layers[:-1]):
        up, down = weight.clamp(min=0), weight.clamp(max=0)
        low, high = low @ up.T + high @ down.T + bias, high @ up.T + low @ down.T + bias
        if method == "deeppoly":
            eye = torch.eye(len(bias), dtype=bias.dtype).expand(len(low), -1, -1)
            parts = layers[: i + 1], known, box
            known.append((substitute(eye, *parts), -substitute(-eye, *parts)))
        else:
            known.append((low, high))
        low, high = low.relu(), high.relu()
    if method == "ibp":
        rows, constant = spec @ layers[-1][0], spec @ layers[-1][1]
        low, high = low[..., None], high[..., None]
        up, down = rows.clamp(min=0), rows.clamp(max=0)
        return (up @ low + down @ high).squeeze(-1) + constant, (up @ high + down @ low).squeeze(-1) + constant
    return substitute(spec, layers, known, box), -substitute(-spec, layers, known, box)


@needs_auto_lirpa
@pytest.mark.parametrize("method", METHODS)
def test_agrees_with_a_reference_written_out_here(method: Method) -> None:
    graph, params, box, spec = problem("mlp")
    linear = [m for m in graph.module.modules() if isinstance(m, nn.Linear)]
    layers = [(m.weight, torch.zeros(len(m.weight)).double() if m.bias is None else m.bias) for m in linear]
    found = AutoLirpa(method, sparse_intermediate=False).bound(graph, params, box, spec)
    assert agree(found, Bounds(*reference(method, layers, box, spec)))


@needs_auto_lirpa
@pytest.mark.parametrize("conv_mode", ["patches", "matrix"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETWORKS)
def test_agrees_with_the_native_relaxation(name: str, method: Method, conv_mode: Literal["patches", "matrix"]) -> None:
    graph, params, box, spec = problem(name)
    relaxation = AutoLirpa(method, sparse_intermediate=False, conv_mode=conv_mode)
    for rows in (None, spec, spec[:, :1]):
        found = relaxation.bound(graph, params, box, rows)
        assert agree(found, native(method).bound(graph, params, box, rows))
        only_lower = relaxation.bound(graph, params, box, rows, sides="lower")
        assert only_lower.upper is None
        assert torch.equal(only_lower.lower, found.lower)


@needs_auto_lirpa
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["strides", "batch_norm", "residual"])
def test_agrees_with_the_native_relaxation_in_float32(name: str, method: Method) -> None:
    graph, params, box, spec = problem(name)
    params = {key: value.detach().float() for key, value in params.items()}
    found = AutoLirpa(method, sparse_intermediate=False).bound(graph, params, box.to(torch.float32), spec)
    expected = native(method).bound(graph, params, box.to(torch.float32), spec)
    assert found.lower.dtype == torch.float32
    assert torch.allclose(found.lower, expected.lower, atol=FLOAT32)


@needs_auto_lirpa
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_arrive_at_the_parameters_and_agree_with_native(name: str, method: Method) -> None:
    graph, params, box, spec = problem(name)
    # Not leaves: gradients must flow on through whatever made the parameters.
    start = {key: value.detach().clone().requires_grad_() for key, value in params.items()}
    params = {key: 1.1 * value for key, value in start.items()}
    corner = box.lower.requires_grad_()
    gradients = []
    for relaxation in (AutoLirpa(method, sparse_intermediate=False), native(method)):
        lower, upper = pair(relaxation.bound(graph, params, Box(corner, box.upper), spec))
        loss = lower.sum() + upper.square().sum()
        gradients.append(torch.autograd.grad(loss, [*start.values(), corner], retain_graph=True))
    for found, expected in zip(*gradients, strict=True):
        assert torch.allclose(found, expected, atol=1e-8)


@needs_auto_lirpa
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_bounds_do_not_depend_on_what_was_computed_before(method: Method, sparse: bool) -> None:
    graph, params, box, spec = problem("residual")
    relaxation = AutoLirpa(method, sparse)
    first = relaxation.bound(graph, params, box, spec)
    other_graph, _, other_box, other_spec = problem("residual", batch=5, seed=1)
    other_params = {key: -2 * value for key, value in params.items()}
    relaxation.bound(other_graph, other_params, other_box, other_spec, sides="lower")
    AutoLirpa("crown_ibp", sparse).bound(graph, params, box[:1])
    again = relaxation.bound(graph, params, box, spec)
    assert all(torch.equal(a, b) for a, b in zip(pair(first), pair(again), strict=True))


@needs_auto_lirpa
@pytest.mark.parametrize("name", ["view", "residual"])
def test_bounds_of_an_image_are_the_same_alone_and_in_a_batch(name: str) -> None:
    graph, params, box, spec = problem(name, batch=4)
    relaxation = AutoLirpa("deeppoly", sparse_intermediate=False)
    together = relaxation.bound(graph, params, box, spec).lower
    alone = [relaxation.bound(graph, params, box[i : i + 1], spec[i : i + 1]).lower for i in range(4)]
    assert torch.allclose(together, torch.cat(alone), atol=EXACT)


@needs_auto_lirpa
def test_parameters_and_statistics_are_those_given() -> None:
    graph, params, box, spec = problem("batch_norm")
    relaxation = AutoLirpa("crown_ibp")
    before = relaxation.bound(graph, params, box, spec).lower
    given = {key: 1.5 * value for key, value in params.items()} | {"1.running_mean": torch.ones(4).double()}
    changed = relaxation.bound(graph, given, box, spec).lower
    assert not torch.allclose(before, changed, atol=1e-2)
    assert torch.allclose(changed, native("crown_ibp").bound(graph, given, box, spec).lower, atol=EXACT)
    # Statistics of the module are read with every call.
    graph.module.get_buffer("1.running_var").mul_(3)
    expected = native("crown_ibp").bound(graph, params, box, spec).lower
    assert not torch.allclose(before, expected, atol=1e-2)
    assert torch.allclose(relaxation.bound(graph, params, box, spec).lower, expected, atol=EXACT)


@needs_auto_lirpa
@pytest.mark.parametrize("method", METHODS)
def test_callers_tensors_are_left_alone_and_not_kept(method: Method) -> None:
    graph, params, box, spec = problem("strides")
    params = {key: value.detach().clone() for key, value in params.items()}
    trained = next(iter(params))
    params[trained].requires_grad_()
    bounds = AutoLirpa(method).bound(graph, params, box, spec)
    assert [key for key, value in params.items() if value.requires_grad] == [trained]
    assert all(value.grad_fn is None for value in params.values())
    watched = [weakref.ref(value) for value in params.values()] + [weakref.ref(bounds.lower)]
    del params, bounds
    assert all(reference() is None for reference in watched)


@needs_auto_lirpa
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_works_without_autograd(method: Method, guard: type) -> None:
    graph, params, box, spec = problem("residual")
    expected = AutoLirpa(method).bound(graph, params, box, spec).lower
    with guard():
        found = AutoLirpa(method).bound(graph, params, box, spec).lower
    assert not found.requires_grad
    assert torch.equal(found, expected)


@needs_auto_lirpa
@pytest.mark.parametrize("name", NETWORKS)
def test_bounds_are_exact_on_a_point_and_sound_around_it(name: str) -> None:
    graph, params, box, _ = problem(name)
    relaxation = AutoLirpa("deeppoly")  # with the interval shortcut, whose bounds depend on the batch
    output = graph.module(box.lower)
    assert agree(relaxation.bound(graph, params, Box(box.lower, box.lower)), Bounds(output, output))
    lower, upper = pair(relaxation.bound(graph, params, box))
    for _ in range(100):
        outputs = graph.module(box.lower + torch.rand_like(box.lower).round() * (box.upper - box.lower))
        assert (outputs >= lower - EXACT).all()
        assert (outputs <= upper + EXACT).all()


@needs_auto_lirpa
@pytest.mark.parametrize("method", METHODS)
def test_nan_propagates(method: Method) -> None:
    graph, params, box, spec = problem("residual")
    relaxation = AutoLirpa(method, sparse_intermediate=False)
    broken = {key: value.detach().clone() for key, value in params.items()}
    next(iter(broken.values())).view(-1)[0] = torch.nan
    assert relaxation.bound(graph, broken, box, spec).lower.isnan().all()
    assert AutoLirpa(method).bound(graph, broken, box, spec).lower.isnan().all()


@needs_auto_lirpa
@pytest.mark.parametrize("method", ["crown_ibp", "deeppoly"])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_lines_around_curved_activations_are_no_looser_than_those_of_auto_lirpa(activation: str, method: str) -> None:
    """Tangents where the area is least: never looser on average, on any of the networks."""
    made = tightness.networks(tightness.ACTIVATIONS[activation], "random")
    assert max(tightness.ratio(network, 0.2, method) for network in made) < 1.0

"""The compiled back-substitution against the tensor operations that it replaces. (`oracle` checks both elsewhere.)"""

from collections.abc import Collection, Iterator

import pytest
import torch
import zoo
from cases import Case, make_case, needs_compiler
from compiled_cases import (
    COMPILED,
    LAYOUTS,
    RELAXATIONS,
    TENSORS,
    Counting,
    Network,
    awkward,
    bounds,
    curved,
    draw_statistics,
    gradient,
    in_layout,
    quiet,
    rows_of_places,
    wide,
)
from torch import Tensor, nn

from certtrain.bounds import Box, build, margin_spec
from certtrain.bounds.executors import Compiled, TensorOperations
from certtrain.bounds.executors.compiled import task
from certtrain.bounds.executors.compiled.bundling import Cheapest
from certtrain.bounds.executors.compiled.program import chain
from certtrain.bounds.rows.anchor import find_anchor
from certtrain.bounds.rows.selection import RowIndex
from certtrain.networks import Params, parameters, trace
from certtrain.networks.ops import Activation


def is_a_chain(case: Case) -> bool:
    values = case.graph.values(case.params, case.inputs)
    return chain(case.graph, find_anchor(case.graph, values, case.box(0.1))) == len(case.graph.ops) - 1


@needs_compiler
@pytest.mark.parametrize("network", [wide, quiet, awkward, curved])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", RELAXATIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-12)])
def test_compiled_bounds_are_those_of_tensor_operations(
    name: str, dtype: torch.dtype, tolerance: float, layout: str, network: Network
) -> None:
    graph, params, inputs = network()
    params, inputs = {k: p.to(dtype) for k, p in params.items()}, inputs.to(dtype)
    found, expected = (bounds(name, graph, params, inputs, executor) for executor in (in_layout(layout), TENSORS))
    torch.testing.assert_close(found.lower, expected.lower, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(found.upper, expected.upper, rtol=tolerance, atol=tolerance)


@needs_compiler
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("eps", [0.005, 0.1])
def test_every_layout_knows_every_operation(case: Case, eps: float, layout: str) -> None:
    """Few unstable neurons (some rows, bundles that are not full) and many of them."""
    torch.set_num_threads(3)
    found, expected = (
        bounds("deeppoly", case.graph, case.params, case.inputs, executor, eps)
        for executor in (in_layout(layout), TENSORS)
    )
    torch.testing.assert_close(found.lower, expected.lower, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.upper, expected.upper, rtol=0, atol=1e-10)


def test_bundles_are_chosen_by_how_full_they_are() -> None:
    chosen = Cheapest().of_bounds
    assert rows_of_places(3, 1, 5).places.tolist() == [3, 1, 5]
    assert chosen(rows_of_places(16, 32), (16, 8), 16) == 16
    assert chosen(rows_of_places(6, 8, 7), (16, 8), 16) == 8
    assert chosen(rows_of_places(*[1] * 9), (16, 8), 16) is None
    assert chosen(rows_of_places(16, 32), (16, 8), 8) == 8  # the budget allows no more
    assert chosen(rows_of_places(16, 32), (16, 8), 7) is None
    assert chosen(rows_of_places(16, 32), (), 100) is None


@needs_compiler
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("memory_mb", "bundled"), [(None, True), (0.5, False)])
def test_many_threads_share_a_budget_and_nothing_else(memory_mb: float | None, bundled: bool) -> None:
    graph, params, inputs = wide()
    chosen: list[int | None] = []

    class Spy(Cheapest):
        def of_bounds(self, rows: RowIndex, sizes: Collection[int], most_rows: int) -> int | None:
            chosen.append(super().of_bounds(rows, sizes, most_rows))
            return chosen[-1]

    torch.set_num_threads(64)
    executor = TensorOperations((Compiled(Spy()),))
    build("deeppoly", memory_mb=memory_mb, executor=executor).bound(graph, params, Box.linf(inputs, 0.02))
    assert [size is not None for size in chosen] == [bundled] * len(chosen)
    assert chosen


@needs_compiler
@pytest.mark.usefixtures("threads")
def test_threads_of_its_own_do_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, params, inputs = wide()
    torch.set_num_threads(3)
    in_pool = bounds("deeppoly", graph, params, inputs).lower
    gradients = gradient("deeppoly", graph, params, inputs)
    monkeypatch.setattr(task, "parallel", lambda: None)
    assert torch.equal(bounds("deeppoly", graph, params, inputs).lower, in_pool)
    again = gradient("deeppoly", graph, params, inputs)
    assert all(torch.equal(g, again[k]) for k, g in gradients.items())


@needs_compiler
@pytest.mark.parametrize("name", RELAXATIONS)
@pytest.mark.parametrize("first", [nn.ReLU(), nn.BatchNorm1d(4), nn.Sequential(nn.BatchNorm1d(4), nn.ReLU())])
def test_layers_that_are_neither_vectors_nor_images(name: str, first: nn.Module) -> None:
    """A series [channels, length] was once read as one pixel: bounds above values that the network takes."""
    torch.manual_seed(0)
    network = nn.Sequential(first, nn.Flatten(), nn.Linear(20, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    draw_statistics(network)
    graph, params = trace(network, (4, 5)), {k: p.detach() for k, p in parameters(network).items()}
    inputs = torch.rand(3, 4, 5)
    found, expected = (bounds(name, graph, params, inputs, executor, eps=0.1) for executor in (COMPILED, TENSORS))
    torch.testing.assert_close(found.lower, expected.lower, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.upper, expected.upper, rtol=1e-5, atol=1e-5)
    spec = margin_spec(torch.arange(3), 3)
    for _ in range(200):
        x = (inputs + 0.2 * (torch.rand_like(inputs) - 0.5)).clamp(0, 1)
        margins = (spec @ network(x)[..., None]).squeeze(-1)
        assert (found.lower <= margins + 1e-5).all()
        assert (found.upper >= margins - 1e-5).all()


@needs_compiler
def test_autocast_and_nested_vmap_change_nothing() -> None:
    graph, params, inputs = wide()
    expected = bounds("deeppoly", graph, params, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        found = bounds("deeppoly", graph, params, inputs)
    assert torch.equal(found.lower, expected.lower)
    nested = {k: p.expand(1, 1, *p.shape) for k, p in params.items()}
    box, spec = Box.linf(inputs, 0.02), margin_spec(torch.arange(3), 4)

    def lower(p: Params) -> Tensor:
        return build("crown_ibp").bound(graph, p, box, spec, "lower").lower

    with torch.no_grad():
        found = torch.func.vmap(torch.func.vmap(lower))(nested)[0, 0]
    torch.testing.assert_close(found, build("crown_ibp").bound(graph, params, box, spec, "lower").lower)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@needs_compiler
@pytest.mark.usefixtures("threads")
def test_threads_change_no_bound_and_only_the_rounding_of_gradients() -> None:
    graph, params, inputs = wide()
    lower, gradients = [], []
    for count in (1, 3):
        torch.set_num_threads(count)
        lower.append(bounds("deeppoly", graph, params, inputs).lower)
        again = bounds("deeppoly", graph, params, inputs).lower
        assert torch.equal(lower[-1], again)
        gradients.append(gradient("deeppoly", graph, params, inputs))
        again = gradient("deeppoly", graph, params, inputs)
        assert all(torch.equal(g, again[k]) for k, g in gradients[-1].items())
    assert torch.equal(lower[0], lower[1])
    for key, found in gradients[0].items():
        torch.testing.assert_close(found, gradients[1][key], rtol=1e-4, atol=1e-5)


@needs_compiler
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", RELAXATIONS)
def test_a_population_is_one_call_and_equals_its_members(case: Case, name: str, layout: str) -> None:
    executor = Counting(in_layout(layout))
    members = {k: torch.stack([p, p + 0.01, p * 0.9]) for k, p in case.params.items()}
    relaxation, box = build(**RELAXATIONS[name], executor=executor), case.box(0.05)
    with torch.no_grad():
        expected = [
            relaxation.bound(case.graph, {k: p[i] for k, p in members.items()}, box, case.spec) for i in range(3)
        ]
        executor.calls.clear()

        def lower(params: Params) -> Tensor:
            return relaxation.bound(case.graph, params, box, case.spec, "lower").lower

        found = torch.func.vmap(lower)(members)
    torch.testing.assert_close(found, torch.stack([b.lower for b in expected]), rtol=0, atol=1e-10)
    if is_a_chain(case):  # whole layers at a time, whatever the number of members
        activations = sum(isinstance(op, Activation) for op in case.graph.ops)
        assert 0 < len(executor.calls) <= activations + 1


@needs_compiler
@pytest.mark.parametrize("name", ["crown_ibp", "deeppoly"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_stay_visible(name: str, value: float) -> None:
    graph, params, inputs = wide()
    key = next(k for k in params if k.endswith("weight"))
    poisoned = {**params, key: params[key].index_put((torch.tensor(0),), torch.tensor(value))}
    assert not bounds(name, graph, poisoned, inputs).lower.isfinite().any()


@needs_compiler
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", RELAXATIONS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", ["matrices", "convolutions"])
def test_a_weight_that_is_no_number_shows_behind_an_inactive_neuron(
    name: str, value: float, layout: str, kind: str
) -> None:
    """Its product with zero is NaN in the network, so the bounds must not pass over it with the neuron."""
    if kind == "matrices":
        layers = [nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 8, bias=False), nn.ReLU(), nn.Linear(8, 3)]
    else:
        layers = [nn.Conv2d(6, 8, 1, bias=False), nn.ReLU(), nn.Conv2d(8, 8, 2, padding=1, bias=False), nn.ReLU()]
        layers += [nn.Conv2d(8, 8, 3, bias=False), nn.Flatten()]
    shape = (6,) if kind == "matrices" else (6, 2, 2)
    graph, inputs = trace(nn.Sequential(*layers), shape), torch.rand(2, *shape)
    params = {k: p.detach().clone() for k, p in parameters(nn.Sequential(*layers)).items()}
    for weight in ("0.weight", "2.weight"):
        params[weight][2:] = -params[weight][2:].abs()
    for weight in ("2.weight", "4.weight"):
        planted = {**params, weight: params[weight].clone()}
        planted[weight][:, 5] = value
        found = bounds(name, graph, planted, inputs, in_layout(layout))
        assert found.upper is not None
        assert not torch.cat([found.lower, found.upper]).isfinite().any()


def test_the_zoo_has_networks_that_are_compiled_to_the_end() -> None:
    """Guards the tests above: they would pass if nothing were ever compiled."""
    assert {name for name in zoo.NETWORKS if is_a_chain(make_case(name))} >= {"mlp", "strided"}

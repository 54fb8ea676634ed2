"""The fast back-substitution against the plain ones (oracles): same bounds, same gradients, whatever the chunks."""

import pytest
import torch
import zoo
from bounds import forms_oracle, oracle
from cases import Case, make_case
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from certtrain.bounds import Bounds, Box, Relaxation, build, margin_spec
from certtrain.bounds.executors import tensors
from certtrain.bounds.relaxation.deeppoly import DeepPoly
from certtrain.bounds.rows.dense import DenseRows
from certtrain.bounds.rows.descent import Descent
from certtrain.bounds.rows.patches import PatchRows
from certtrain.bounds.substitution import preactivation
from certtrain.errors import ConfigError
from certtrain.networks import Graph, Params, parameters, trace

KINDS = {
    "crown_ibp": ("ibp", {"name": "crown_ibp"}),
    "deeppoly": ("both", {"name": "deeppoly"}),
    "deeppoly_textbook": ("crown", {"name": "deeppoly", "intersect": False}),
    "hbox": ("hbox", {"name": "hbox"}),
    "zonotope": ("zonotope", {"name": "zonotope"}),
}
# MiB: from one row of the widest network of the zoo to all rows of all images.
BUDGETS = [0.06, 0.1, 0.5, 5.0, 500.0]


def agree(found: Bounds, expected: tuple[Tensor, Tensor], tolerance: float = 1e-10) -> None:
    assert found.upper is not None
    torch.testing.assert_close(found.lower, expected[0], rtol=0, atol=tolerance)
    torch.testing.assert_close(found.upper, expected[1], rtol=0, atol=tolerance)


def plain(graph: Graph, params: Params, box: Box, spec: Tensor, hidden: str) -> tuple[Tensor, Tensor]:
    """The same bounds by an oracle."""
    if hidden in forms_oracle.RULES:
        return forms_oracle.bound(graph, params, box, spec, hidden)
    return oracle.bound(graph, params, box, spec, hidden)[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eps", [0.01, 0.1])
def test_equals_the_plain_implementation(case: Case, kind: str, eps: float) -> None:
    hidden, options = KINDS[kind]
    expected = plain(case.graph, case.params, case.box(eps), case.spec, hidden)
    agree(build(**options).bound(case.graph, case.params, case.box(eps), case.spec), expected)


@pytest.mark.parametrize("kind", ["deeppoly", "deeppoly_textbook"])
@pytest.mark.parametrize("eps", [0.01, 0.1])
def test_intermediate_bounds_equal_the_plain_ones(case: Case, kind: str, eps: float) -> None:
    hidden, options = KINDS[kind]
    _, pre = oracle.bound(case.graph, case.params, case.box(eps), case.spec, hidden)
    for index, found in build(**options).analyse(case.graph, case.params, case.box(eps)).hidden.items():
        lower, upper = pre[index]
        # Elements that are stable may keep the bounds by which they are; those are never tighter.
        crossing = (found.lower < 0) & (found.upper > 0)
        where = crossing if kind == "deeppoly" else torch.ones_like(crossing)
        torch.testing.assert_close(found.lower[where], lower[where], rtol=0, atol=1e-10)
        torch.testing.assert_close(found.upper[where], upper[where], rtol=0, atol=1e-10)
        assert (found.lower <= lower + 1e-10).all()
        assert (found.upper >= upper - 1e-10).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory_mb", BUDGETS)
def test_no_budget_changes_a_bound(case: Case, kind: str, memory_mb: float) -> None:
    relaxation, chunked = build(**KINDS[kind][1]), build(**KINDS[kind][1], memory_mb=memory_mb)
    whole = relaxation.bound(case.graph, case.params, case.box(0.1), case.spec)
    assert whole.upper is not None
    agree(chunked.bound(case.graph, case.params, case.box(0.1), case.spec), (whole.lower, whole.upper), 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_no_budget_changes_a_bound_in_single_precision(case: Case, kind: str) -> None:
    params = {k: p.float() for k, p in case.params.items()}
    box, spec = case.box(0.1).to(torch.float32), case.spec.float()
    whole = build(**KINDS[kind][1], memory_mb=500.0).bound(case.graph, params, box, spec)
    for memory_mb in (0.03, 0.2):
        chunked = build(**KINDS[kind][1], memory_mb=memory_mb).bound(case.graph, params, box, spec)
        torch.testing.assert_close(chunked.lower, whole.lower, rtol=1e-6, atol=1e-6)


def gradients(relaxation: Relaxation, case: Case) -> dict[str, Tensor]:
    leaves = {k: p.clone().requires_grad_() for k, p in case.params.items()}
    bounds = relaxation.bound(case.graph, leaves, case.box(0.03), case.spec)
    assert bounds.upper is not None
    weights = torch.linspace(-1, 1, bounds.lower.numel(), dtype=torch.float64).reshape(bounds.lower.shape)
    loss = (bounds.lower * weights + bounds.upper * weights.flip(0)).sum()
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {k: torch.zeros_like(p) if g is None else g for (k, p), g in zip(leaves.items(), found, strict=True)}


def oracle_gradients(case: Case, hidden: str) -> dict[str, Tensor]:
    leaves = {k: p.clone().requires_grad_() for k, p in case.params.items()}
    lower, upper = plain(case.graph, leaves, case.box(0.03), case.spec, hidden)
    weights = torch.linspace(-1, 1, lower.numel(), dtype=torch.float64).reshape(lower.shape)
    found = torch.autograd.grad(
        (lower * weights + upper * weights.flip(0)).sum(), list(leaves.values()), allow_unused=True
    )
    return {k: torch.zeros_like(p) if g is None else g for (k, p), g in zip(leaves.items(), found, strict=True)}


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_plain_implementation(case: Case, kind: str) -> None:
    hidden, options = KINDS[kind]
    expected = oracle_gradients(case, hidden)
    for memory_mb in (None, 0.3):  # kept for the backward pass, and computed again in it
        found = gradients(build(**options, memory_mb=memory_mb), case)
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-8, atol=1e-9, msg=name)


def test_pieces_may_all_be_kept_for_the_backward_pass(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where memory is there."""
    hidden, _ = KINDS["deeppoly"]
    expected = oracle_gradients(case, hidden)
    monkeypatch.setattr(Descent, "rows_kept", lambda self, last: 10**9)
    monkeypatch.setattr(tensors, "_take_apart", lambda job: pytest.fail("computed again"))
    found = gradients(DeepPoly(memory_mb=0.3, executor="tensors"), case)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-8, atol=1e-9, msg=name)


@pytest.mark.parametrize("name", ["strided", "residual"])
@pytest.mark.parametrize("memory_mb", [None, 0.3])
def test_gradcheck(name: str, memory_mb: float | None) -> None:
    case = make_case(name)
    few = Case(case.network, case.graph, case.params, case.inputs[:2], case.labels[:2])
    names = [k for k in case.params if k.endswith("weight")][:2]

    def lower(*tensors: Tensor) -> Tensor:
        params = {**few.params, **dict(zip(names, tensors, strict=True))}
        return build("deeppoly", memory_mb=memory_mb).bound(few.graph, params, few.box(0.02), few.spec, "lower").lower

    assert torch.autograd.gradcheck(lower, [few.params[k].clone().requires_grad_() for k in names], fast_mode=True)


@pytest.mark.parametrize("share", [0.0, 1.1])
def test_rows_of_unstable_neurons_alone_give_the_same_bounds(
    case: Case, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether all rows are computed or only those that intervals leave unstable: the same, and the same gradients."""
    expected, _ = oracle.bound(case.graph, case.params, case.box(0.05), case.spec, "both")
    monkeypatch.setattr(preactivation, "MANY", share)
    for memory_mb in (None, 0.1):
        found = DeepPoly(memory_mb=memory_mb).bound(case.graph, case.params, case.box(0.05), case.spec)
        agree(found, expected)
    for name, gradient in gradients(DeepPoly(), case).items():
        torch.testing.assert_close(gradient, oracle_gradients(case, "both")[name], rtol=1e-8, atol=1e-9, msg=name)


def test_a_network_without_unstable_neurons() -> None:
    case = make_case("strided")
    expected, _ = oracle.bound(case.graph, case.params, case.box(0.0), case.spec, "both")
    agree(DeepPoly().bound(case.graph, case.params, case.box(0.0), case.spec), expected)


def built(layers: list[nn.Module], size: tuple[int, int], channels: int = 2) -> tuple[nn.Module, Graph, Tensor] | None:
    """A network that ends in three outputs; None where a window does not fit."""
    body = nn.Sequential(*layers).double().eval()
    for module in body:
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.weight, module.bias):
                tensor.data.normal_()
            module.running_var.data.uniform_(0.5, 2)
    try:
        with torch.no_grad():
            features = body(torch.zeros(1, channels, *size, dtype=torch.float64)).numel()
    except RuntimeError:
        return None
    network = nn.Sequential(body, nn.Flatten(), nn.Linear(features, 3)).double().eval()
    inputs = torch.rand(2, channels, *size, dtype=torch.float64)
    return network, trace(network, inputs.shape[1:]), inputs


@settings(max_examples=60, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    first=st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(0, 2)),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
    channels=st.integers(1, 5),
    size=st.tuples(st.integers(6, 11), st.integers(6, 11)),
    pool=st.booleans(),
    kind=st.sampled_from(list(KINDS)),
    memory_mb=st.sampled_from([None, 0.3]),
    seed=st.integers(0, 10_000),
)
def test_random_networks_agree_with_the_plain_implementation(
    kernel, stride, padding, first, dilation, groups, channels, size, pool, kind, memory_mb, seed
) -> None:
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Conv2d(channels, 4, first[0], first[1], first[2]), nn.BatchNorm2d(4), nn.ReLU()]
    layers += [nn.AvgPool2d(2, stride=1)] if pool else []
    layers += [nn.Conv2d(4, 4, kernel, stride, padding, dilation, groups), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1)]
    layers += [nn.ReLU(), nn.Conv2d(3, 2, 2, padding=1), nn.ReLU()]
    made = built(layers, size, channels)
    if made is None:
        return
    network, graph, inputs = made
    box, spec = Box.linf(inputs, 0.05), margin_spec(torch.tensor([0, 2]), 3).double()
    hidden, options = KINDS[kind]
    params = {k: p.detach() for k, p in parameters(network).items()}
    expected = plain(graph, params, box, spec, hidden)
    agree(build(**options, memory_mb=memory_mb).bound(graph, params, box, spec), expected, 1e-9)


@pytest.mark.parametrize("kind", ["crown_ibp", "deeppoly", "hbox", "zonotope"])
def test_a_budget_too_small_for_one_row_is_refused_in_one_line(kind: str) -> None:
    case = make_case("strided")
    message = r"relaxation\.memory_mb=0\.001 is too small: one row .* takes 0\.0\d+ MiB"
    with pytest.raises(ConfigError, match=message) as caught:
        build(kind, memory_mb=0.001).bound(case.graph, case.params, case.box(0.1), case.spec)
    assert "\n" not in str(caught.value)


def test_the_budget_bounds_the_rows_of_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """No product of back-substitution is larger than the budget, and a larger budget takes fewer of them."""
    case = make_case("strided")
    largest: dict[float, tuple[int, int]] = {}
    for memory_mb in (0.05, 5.0):
        sizes: list[int] = []
        for kind in (PatchRows, DenseRows):
            original = kind.linear

            def spied(self, op, operators, original=original, sizes=sizes):
                found = original(self, op, operators)
                sizes.append(found.data.numel() * found.data.element_size())
                return found

            monkeypatch.setattr(kind, "linear", spied)
        relaxation = DeepPoly(intersect=False, memory_mb=memory_mb, executor="tensors")
        relaxation.bound(case.graph, case.params, case.box(0.1), case.spec)
        monkeypatch.undo()
        largest[memory_mb] = max(sizes), len(sizes)
        assert max(sizes) <= memory_mb * 2**20
    assert largest[0.05][1] > 2 * largest[5.0][1]


def test_the_zoo_has_networks_on_which_skipping_matters() -> None:
    """Guards the tests above: somewhere most neurons are stable, and elsewhere most are not."""
    shares = []
    for name in zoo.NETWORKS:
        case = make_case(name)
        values = case.graph.values(case.params, case.inputs)
        loose = oracle.intervals(case.graph, values, case.box(0.05))
        for index in DeepPoly().analyse(case.graph, case.params, case.box(0.05)).hidden:
            lower, upper = loose[index]
            shares.append(float(((lower < 0) & (upper > 0)).double().mean()))
    assert min(shares) < preactivation.MANY < max(shares)

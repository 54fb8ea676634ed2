"""How relaxations relate to each other."""

import pytest
import torch
import zoo
from cases import Case, make_case
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import certtrain
from certtrain.bounds import Box, Intersection, build, relaxations
from certtrain.bounds import backsubstitution as backsub
from certtrain.bounds.deeppoly import DeepPoly
from certtrain.bounds.interval import propagate_intervals
from certtrain.errors import ConfigError
from certtrain.networks import parameters, trace


def test_an_intersection_is_never_looser_than_its_parts(case: Case) -> None:
    parts = tuple(build(name) for name in relaxations())
    best = Intersection(parts).bound(case.graph, case.params, case.box(0.1), case.spec)
    for part in parts:
        bounds = part.bound(case.graph, case.params, case.box(0.1), case.spec)
        assert (best.lower >= bounds.lower).all()
        assert (best.upper <= bounds.upper).all()


def test_deeppoly_intermediate_bounds_are_never_looser_than_either_part(case: Case) -> None:
    box = case.box(0.1)
    found = DeepPoly().intermediate_bounds(case.graph, case.params, box)
    intervals = propagate_intervals(case.graph, case.graph.values(case.params, box.lower), box)
    assert found
    for index, bounds in found.items():
        assert (bounds.lower >= intervals[index].lower).all()
        assert (bounds.upper <= intervals[index].upper).all()
    # The back-substituted part, from the same relaxations of the layers before it.
    lines = {}
    for index, op in enumerate(case.graph.ops):
        if type(op).__name__ == "ReLU":
            values = case.graph.values(case.params, box.lower)
            part = backsub.bound_operation(case.graph, values, box, op.inputs[0], lines)
            assert (found[op.inputs[0]].lower >= part.lower - 1e-12).all()
            assert (found[op.inputs[0]].upper <= part.upper + 1e-12).all()
            lines[index] = backsub_lines(found[op.inputs[0]])


def backsub_lines(bounds):
    from certtrain.bounds.slopes import relax_relu

    return relax_relu(bounds, "adaptive")


def test_deeppoly_intermediate_bounds_do_not_depend_on_the_batch(case: Case) -> None:
    together = DeepPoly().intermediate_bounds(case.graph, case.params, case.box(0.1))
    for i in range(len(case.inputs)):
        alone = DeepPoly().intermediate_bounds(case.graph, case.params, case.box(0.1)[slice(i, i + 1)])
        for index in together:
            torch.testing.assert_close(alone[index].lower[0], together[index].lower[i], rtol=0, atol=1e-12)


def test_tighter_families_are_tighter_on_a_single_hidden_layer() -> None:
    """With one hidden layer: deeppoly = crown_ibp, and the zonotope lies between them and intervals on average."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(84, 20), nn.ReLU(), nn.Linear(20, 4)).double()
    box = Box.linf(torch.rand(8, *zoo.IMAGE, dtype=torch.float64), 0.1)
    width = {}
    for name in relaxations():
        bounds = certtrain.bound(network, box, name)
        width[name] = float((bounds.upper - bounds.lower).mean().detach())
    assert width["deeppoly"] == pytest.approx(width["crown_ibp"], abs=1e-12)
    assert width["deeppoly"] <= width["zonotope"] < width["ibp"]
    assert width["hbox"] <= width["ibp"] + 1e-12


def dense_identity(data: torch.Tensor, layer: tuple[int, ...]) -> backsub.DenseRows:
    """The plain version: every row spelled out over the whole layer from the start."""
    return backsub.PatchRows(data[None, None], layer[1:], layer, (1, 1), (1, 1), (0, 0), True).dense()


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
    size=st.tuples(st.integers(7, 10), st.integers(7, 10)),
    pool=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_patches_agree_with_dense_rows(kernel, stride, padding, dilation, groups, size, pool, seed) -> None:
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Conv2d(2, 4, 3, padding=1, stride=2), nn.ReLU()]
    layers += [nn.AvgPool2d(2, stride=1)] if pool else []
    layers += [
        nn.Conv2d(4, 4, kernel, stride, padding, dilation, groups),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 2, 1),
        nn.ReLU(),
    ]
    body = nn.Sequential(*layers).double()
    with torch.no_grad():
        try:
            features = body.eval()(torch.zeros(1, 2, *size, dtype=torch.float64)).numel()
        except RuntimeError:
            return  # the kernel does not fit the image
    network = nn.Sequential(body, nn.Flatten(), nn.Linear(features, 3)).double().eval()
    box = Box.linf(torch.rand(2, 2, *size, dtype=torch.float64), 0.1)
    graph = trace(network, box.lower.shape[1:])
    patches = DeepPoly(intersect=False).bound(graph, parameters(network), box)
    original = backsub.PatchRows.identity
    try:
        backsub.PatchRows.identity = staticmethod(dense_identity)  # type: ignore[assignment,method-assign]
        dense = DeepPoly(intersect=False).bound(graph, parameters(network), box)
    finally:
        backsub.PatchRows.identity = original  # type: ignore[method-assign]
    torch.testing.assert_close(patches.lower, dense.lower, rtol=0, atol=1e-10)
    torch.testing.assert_close(patches.upper, dense.upper, rtol=0, atol=1e-10)


def test_skipping_rows_of_stable_neurons_would_change_nothing() -> None:
    """Why deeppoly intersects with *plain* intervals: a stable neuron's line is exact, whatever its bounds."""
    case = make_case("mlp")
    values = case.graph.values(case.params, case.inputs)
    box = case.box(0.02)
    intervals = propagate_intervals(case.graph, values, box)
    exact = DeepPoly().intermediate_bounds(case.graph, case.params, box)
    stable = 0
    for index, bounds in exact.items():
        by_interval = (intervals[index].lower >= 0) | (intervals[index].upper <= 0)
        stable += int(by_interval.sum())
        kept, tightened = backsub_lines(intervals[index]), backsub_lines(bounds)
        for field in ("lower_slope", "upper_slope", "upper_intercept"):
            assert torch.equal(getattr(kept, field)[by_interval], getattr(tightened, field)[by_interval])
    assert stable > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "nope"}, "unknown relaxation 'nope'"),
        ({"name": "ibp", "lower_slope": "zero"}, "relaxation ibp has no option 'lower_slope'"),
        ({"name": "deeppoly", "lower_slope": "half"}, "relaxation.lower_slope must be one of adaptive, zero, one"),
        ({"name": "ibp", "backend": "other"}, "relaxation.backend must be one of native, auto_lirpa"),
        ({"name": "hbox", "backend": "auto_lirpa"}, "one of ibp, crown_ibp, deeppoly"),
        ({"name": "intersection", "parts": []}, "at least one"),
        ({"name": "intersection", "part": ["ibp"]}, "only 'parts'"),
    ],
)
def test_a_wrong_relaxation_is_refused_in_one_line(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(**options)
    assert "\n" not in str(caught.value)


def test_a_window_wholly_in_the_padding() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 1, stride=9, padding=2), nn.ReLU(), nn.Flatten()
    )
    box = Box.linf(torch.rand(3, 1, 10, 10), 0.1)
    tight, loose = certtrain.bound(network, box, "deeppoly"), certtrain.bound(network, box, "ibp")
    outputs = network(box.center)
    assert (tight.lower <= outputs + 1e-6).all()
    assert (outputs <= tight.upper + 1e-6).all()
    assert (tight.upper - tight.lower).mean() <= (loose.upper - loose.lower).mean() + 1e-6


def test_a_width_that_overflows_is_no_bound() -> None:
    network = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1.0)
    box = Box(torch.tensor([[-2e38]]), torch.tensor([[2e38]]))
    for name in ("crown_ibp", "deeppoly", "zonotope"):
        assert certtrain.bound(network, box, name).upper.isnan().all(), name


def test_margin_spec_and_boxes() -> None:
    spec = certtrain.margin_spec(torch.tensor([1, 2]), 3)
    assert spec.tolist() == [[[-1, 1, 0], [0, 1, -1]], [[-1, 0, 1], [0, -1, 1]]]
    with pytest.raises(ConfigError, match=r"labels must lie in 0\.\.2"):
        certtrain.margin_spec(torch.tensor([3]), 3)
    box = Box.linf(torch.tensor([[0.0, 0.5, 1.0]]), 0.2)
    torch.testing.assert_close(box.lower, torch.tensor([[0.0, 0.3, 0.8]]))
    torch.testing.assert_close(box.upper, torch.tensor([[0.2, 0.7, 1.0]]))
    with pytest.raises(ConfigError, match="inputs must lie in clip"):
        Box.linf(torch.tensor([[2.0]]), 0.1)
    with pytest.raises(ConfigError, match="eps must be a number >= 0"):
        Box.linf(torch.zeros(1, 3), float("nan"))

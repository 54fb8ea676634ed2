"""A network of which only undecided neurons are left is the same on its box, and so are its bounds."""

from dataclasses import replace

import pytest
import torch
from branches import Parallel
from cases import Case, make_case
from torch import Tensor, nn

from certtrain.bounds import Box, build
from certtrain.bounds.optimised import collapsing
from certtrain.bounds.optimised.choice import Choice, Rows
from certtrain.bounds.optimised.collapsing import Collapsed, collapse, products
from certtrain.bounds.optimised.passes import Start
from certtrain.bounds.optimised.region import Region
from certtrain.bounds.optimised.space import Space
from certtrain.networks import trace
from certtrain.networks.ops import Linear
from certtrain.testing import Subject

IMAGE = (2, 6, 5)
CLASSES = 3


def convolutional(activation: nn.Module, *layers: nn.Module) -> nn.Module:
    first = (nn.Conv2d(2, 6, 3, padding=1), activation)
    return nn.Sequential(*first, *layers, nn.Flatten(), nn.LazyLinear(8), activation, nn.Linear(8, CLASSES))


NETWORKS = {
    "parallel": lambda: nn.Sequential(Parallel(), nn.ReLU()),
    "convolutions": lambda: convolutional(nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU()),
    "pooled": lambda: convolutional(nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 3, 2), nn.ReLU()),
    "leaky": lambda: convolutional(nn.LeakyReLU(0.1), nn.Conv2d(6, 4, 2, stride=2), nn.LeakyReLU(0.1)),
    "clipped": lambda: convolutional(nn.ReLU6(), nn.Conv2d(6, 4, 2, stride=2), nn.ReLU6()),
    "curved": lambda: convolutional(nn.ReLU(), nn.Conv2d(6, 1, 3, stride=3), nn.Sigmoid()),
}


@pytest.fixture(params=[*NETWORKS, "residual"], scope="module")
def network(request: pytest.FixtureRequest) -> Case:
    if request.param == "residual":
        return make_case("residual")
    torch.manual_seed(1)
    module = NETWORKS[request.param]()
    module(torch.zeros(1, *IMAGE))
    return Subject.of(module.double(), IMAGE)


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whole(case: Case, box: Box) -> tuple[Region, Space]:
    hidden = build("deeppoly").analyse(case.graph, case.params, box).hidden
    region = Region.of(case.graph, case.graph.values(case.params, box.lower), box, hidden)
    return region, Space.of(case.graph, hidden, many=2.0)


def made(region: Region, space: Space, target: int | None = None, outputs: Tensor | None = None) -> Collapsed:
    found = collapse(region, space, target, outputs)
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def whatever_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """These networks are too small for it to pay always."""
    monkeypatch.setattr(collapsing, "_products", lambda op: 1 << 40)


@pytest.mark.parametrize("radius", [1e-3, 0.03])
def test_it_is_the_same_function_on_the_box(network: Case, radius: float) -> None:
    box = network.box(radius)[slice(0, 1)]
    region, space = whole(network, box)
    small = made(region, space)
    x = box.lower + (box.upper - box.lower) * drawn(50, *network.graph.input_shape, seed=0)
    x[:20] = torch.where(drawn(20, *network.graph.input_shape, seed=1) < 0.5, box.lower, box.upper)
    expected = network.graph.forward(network.params, x)
    torch.testing.assert_close(small.graph.forward(dict(small.values), x), expected, rtol=1e-10, atol=1e-12)
    left = [len(site.elements) for site in small.sites.values()]
    assert sum(left) < sum(network.graph.ops[op.inputs[0]].size for _, op in network.graph.activations)


def test_rows_have_the_same_bounds_whatever_they_choose(network: Case) -> None:
    box = network.box(0.03)[slice(0, 1)]
    region, space = whole(network, box)
    small = made(region, space)
    count = 6
    like = drawn(count, network.graph.num_outputs, seed=2) - 0.5
    start = Start(len(network.graph.ops) - 1, like, drawn(count, seed=3))
    free = torch.ones(1, space.size, dtype=torch.bool)
    signs = (drawn(count, space.size, seed=4) * 3).floor() - 1
    choice = Choice(drawn(count, space.size, seed=5), drawn(count, space.size, seed=6))
    rows = Rows(region, space, start, free, signs)
    same = Rows(small.region(region), small.space(space), small.start(start), free, signs)
    one, two = rows.evaluated(choice), same.evaluated(choice)
    torch.testing.assert_close(two[0].lower, one[0].lower, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(two[0].form, one[0].form, rtol=1e-10, atol=1e-12)
    for first, second in zip(
        (rows.derivatives(choice, *one).slopes, rows.derivatives(choice, *one).multipliers),
        (same.derivatives(choice, *two).slopes, same.derivatives(choice, *two).multipliers),
        strict=True,
    ):
        torch.testing.assert_close(second, first, rtol=1e-8, atol=1e-10)


def test_matrices_are_made_in_pieces(network: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    region, space = whole(network, network.box(0.03)[slice(0, 1)])
    expected = made(region, space).values
    monkeypatch.setattr(collapsing, "rows_at_once", lambda *given, **more: 2)
    found = made(region, space).values
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        torch.testing.assert_close(found[name], x, rtol=1e-12, atol=1e-14)


def test_rows_over_a_hidden_operation() -> None:
    network = make_case("residual")
    box = network.box(0.03)[slice(0, 1)]
    region, _ = whole(network, box)
    target = network.graph.activations[-1][1].inputs[0]
    outputs = torch.tensor([0, 2, 3])
    hidden = build("deeppoly").analyse(network.graph, network.params, box).hidden
    before = {i: z for i, z in hidden.items() if i < target}
    region = replace(region, held={i: x for i, x in region.held.items() if network.graph.ops[i].inputs[0] in before})
    space = Space.of(network.graph, before, many=2.0, output=target)
    small = made(region, space, target, outputs)
    x = box.lower + (box.upper - box.lower) * drawn(20, *network.graph.input_shape, seed=0)
    expected = network.graph.results(network.params, x)[target].flatten(1)[:, outputs]
    torch.testing.assert_close(small.graph.forward(dict(small.values), x), expected, rtol=1e-10, atol=1e-12)
    data = torch.zeros(2, network.graph.ops[target].size, dtype=torch.float64)
    data[0, 2], data[1, 3] = 1.0, -1.0
    start = small.start(Start(target, data.reshape(2, *network.graph.ops[target].shape), torch.zeros(2).double()))
    assert start.data.tolist() == [[0, 1, 0], [0, 0, -1]]


def test_boxes_of_several_images_share_what_they_agree_on(network: Case) -> None:
    box = network.box(1e-3)
    region, space = whole(network, box)
    small = made(region, space)
    for image in range(len(box)):
        one = box[slice(image, image + 1)]
        x = one.lower + (one.upper - one.lower) * drawn(10, *network.graph.input_shape, seed=image)
        expected = network.graph.forward(network.params, x)
        torch.testing.assert_close(small.graph.forward(dict(small.values), x), expected, rtol=1e-10, atol=1e-12)


def test_nothing_is_made_smaller_where_that_is_no_less_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(60, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3))
    case = Subject.of(module.double(), IMAGE)
    assert collapse(*whole(case, case.box(10.0)[slice(0, 1)])) is None
    assert all(isinstance(op, Linear) for op in made(*whole(case, case.box(1e-6)[slice(0, 1)])).graph.ops[2:])


def test_products_are_counted_from_the_first_activation_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """To it rows are carried once. A matrix of a branch that comes before it is passed every time."""
    monkeypatch.undo()
    dense = nn.Sequential(nn.Linear(60, 12), nn.ReLU(), nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 5), nn.Linear(5, 3))
    graph = trace(dense, (60,))
    assert [products(graph, index) for index in (1, 3, 5, 6)] == [0, 60 * 12, 60 * 12 + 12 * 7, 60 * 12 + 12 * 7]
    branches = trace(Parallel(), (60,))
    assert products(branches, len(branches.ops) - 1) == 60 * 8 + 8 * 9 + 9 * 9 + 8 * 9
    (right,) = (index for index, op in enumerate(branches.ops) if op.name == "right")
    assert products(branches, right) == 60 * 8, "nothing of the branch beside it"


@pytest.mark.parametrize("size", [1, 2])
def test_maxima_stay(size: int) -> None:
    """Also those of one element, which have the shape of what they read."""
    torch.manual_seed(0)
    module = convolutional(nn.ReLU(), nn.MaxPool2d(size))
    module(torch.zeros(1, *IMAGE))
    case = Subject.of(module.double(), IMAGE)
    assert collapse(*whole(case, case.box(1e-3)[slice(0, 1)])) is None
    build("alpha_crown", iterations=2).bound(case.graph, case.params, case.box(1e-3))

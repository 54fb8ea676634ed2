"""Around a pixel a network of windows is the network: the same bounds of every neuron, whatever slopes are chosen."""

import pytest
import torch
from torch import Tensor, nn

from certtrain.bounds import Box, Given, build
from certtrain.bounds.optimised import ways
from certtrain.bounds.optimised.choice import Choice, Rows
from certtrain.bounds.optimised.objectives import UnitRows
from certtrain.bounds.optimised.region import Region
from certtrain.bounds.optimised.space import Space
from certtrain.bounds.optimised.windows import find_windows
from certtrain.bounds.rounding import assume
from certtrain.bounds.rounding.sizes import BESIDE, propagate_sizes
from certtrain.bounds.rounding.terms import TERMS
from certtrain.bounds.rounding.units import SINGLE, gamma
from certtrain.networks import Normalize, parameters, trace
from certtrain.networks.graph import Graph
from certtrain.networks.ops import WindowMap

IMAGE = (2, 12, 11)


def convolutional(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))


NETWORKS = {
    "two convolutions": lambda: convolutional(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 4, stride=2, padding=1)
    ),
    "three, normalised": lambda: convolutional(
        *(Normalize([0.3, 0.4], [0.5, 0.2]), nn.Conv2d(2, 3, (2, 3), padding=(1, 0)), nn.ReLU()),
        *(nn.Conv2d(3, 4, 3, bias=False, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 2, stride=2, padding=1)),
    ),
    "batch norm": lambda: convolutional(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 3, 3, padding=2, dilation=2), nn.BatchNorm2d(3)),
    ),
    "pooled": lambda: convolutional(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.LeakyReLU(0.1), nn.AvgPool2d(2, padding=1), nn.BatchNorm2d(4)),
    ),
    "grouped, curved": lambda: convolutional(
        nn.Conv2d(2, 4, 3, groups=2, padding=1), nn.Sigmoid(), nn.Conv2d(4, 4, 3, groups=2)
    ),
}


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.long, self.last = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        return self.last(torch.relu(x + self.long(x)).mean((2, 3)))


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def question(module: nn.Module, slack: float = 0.0, magnitude: int = 0) -> tuple[Graph, Region, dict]:
    """Boxes of three images, with random slopes of lower lines where these are free.

    Args:
        module: The network.
        slack: What lines have room for, at most.
        magnitude: Weights are multiplied by powers of two, up to this one and its inverse.
    """
    torch.manual_seed(0)
    module(torch.zeros(1, *IMAGE))
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.3, 0.3)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
            nn.init.uniform_(layer.weight, -1.5, 1.5)
        if isinstance(layer, nn.Conv2d):
            layer.weight.data *= 2.0 ** torch.randint(-magnitude, magnitude + 1, layer.weight.shape)
    graph = trace(module.double().eval(), IMAGE)
    params = {name: p.detach() for name, p in parameters(module).items()}
    box = Box.linf(drawn(3, *IMAGE, seed=1), 0.05)
    hidden = build("deeppoly").analyse(graph, params, box).hidden
    room = {i: slack * drawn(*z.lower.shape, seed=i) for i, z in hidden.items()} if slack else {}
    region = Region.of(graph, graph.values(params, box.lower), box, hidden, room)
    slopes = {}
    for index, op in graph.activations:
        free = op.function.free(hidden[op.inputs[0]])
        if free is not None:
            lower = region.held[index].lower
            slopes[index] = torch.where(free, drawn(*lower.shape, seed=index), lower)
    return graph, region.with_lower_slopes(slopes), hidden


def windowed_operations(graph: Graph, region: Region) -> list[int]:
    """What activations behind the first one read, where it has windows."""
    reads = [op.inputs[0] for _, op in graph.activations[1:]]
    return [index for index in reads if find_windows(region, index) is not None]


def rows_of(graph: Graph, region: Region, hidden: dict, target: int) -> tuple[Rows, Rows]:
    """Every neuron of an operation and its negative, through the whole network and through windows."""
    windows = find_windows(region, target)
    assert windows is not None
    assert windows.width < sum(op.size for op in graph.ops[: target + 1])
    before = {i: z for i, z in hidden.items() if i < target}
    space, size = Space.of(graph, before, many=0.0, output=target), graph.ops[target].size
    places, images = torch.arange(size).repeat(3), torch.arange(3).repeat_interleave(size)
    signs = drawn(len(places), seed=2).sub(0.5).sign()
    objective = UnitRows(places, signs.to(region.center.dtype))
    free = space.free(graph, before, region.center)
    whole = Rows(region.rows(images), space, objective.start(target, graph.ops[target].shape), free[images])
    return whole, windows.rows(region, hidden, images, objective)


def held_slopes(rows: Rows) -> Choice:
    """Those that the lines have."""
    held = rows.region.held
    return Choice(rows.space.gather(lambda part: held[part.activation].lower, rows.start.data))


@pytest.mark.parametrize("slack", [0.0, 0.1])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_neuron_has_the_same_bounds(name: str, slack: float) -> None:
    graph, region, hidden = question(NETWORKS[name](), slack)
    targets = windowed_operations(graph, region)
    assert targets
    for target in targets:
        both = rows_of(graph, region, hidden, target)
        whole, windowed = (rows.lower(held_slopes(rows)).lower for rows in both)
        torch.testing.assert_close(windowed, whole, rtol=1e-10, atol=1e-12)
        # All that a neuron may choose is in its window: elsewhere its coefficients are zero.
        chosen = [(rows, held_slopes(rows)) for rows in both]
        moved = [rows.derivatives(choice, *rows.evaluated(choice)).slopes.abs().sum(1) for rows, choice in chosen]
        torch.testing.assert_close(moved[1], moved[0], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("magnitude", [0, 8])
@pytest.mark.parametrize("name", ["three, normalised", "batch norm", "pooled"])
def test_roundings_of_windows_are_within_what_is_counted_layer_by_layer(name: str, magnitude: int) -> None:
    """In float32, against float64. (What is counted is for the worst order: it is far from being reached.)"""
    graph, region, hidden = question(NETWORKS[name](), magnitude=magnitude)
    values = dict(region.values)
    box = Box(region.center - region.radius, region.center + region.radius)
    single = region.map(lambda x: x.float())
    # Of the numbers that float32 has.
    region = single.map(lambda x: x.double())
    sizes = propagate_sizes(graph, values, box, assume(hidden), {})
    for target in windowed_operations(graph, region):
        (whole, _), (_, windowed) = (rows_of(graph, one, hidden, target) for one in (region, single))
        exact = whole.lower(held_slopes(whole)).lower
        off = (windowed.lower(held_slopes(windowed)).lower.double() - exact).abs()
        terms = sizes[target].terms + sizes[target].widest + BESIDE
        allowed = gamma(terms, SINGLE) * (sizes[target].paths.flatten().repeat(3) + 1)
        assert (off <= allowed).all()
        assert (off > 0).any(), "there are roundings"


@pytest.mark.parametrize("name", NETWORKS)
def test_no_sum_of_a_window_has_more_terms_than_are_counted(name: str) -> None:
    graph, region, _ = question(NETWORKS[name]())
    for target in windowed_operations(graph, region):
        windows = find_windows(region, target)
        assert windows is not None
        maps = [op for op in graph.ops[: target + 1] if isinstance(op, WindowMap)]
        for layer, op in zip(windows.layers, maps, strict=True):
            count = TERMS.of(0, op)(op)
            assert int((layer.weight != 0).sum(0).max()) <= count.backward
            assert int((layer.weight != 0).sum(1).max()) <= count.forward
            assert len(layer.bias) <= op.size, "the sum over a layer that is counted once"


def test_what_has_no_windows() -> None:
    graph, region, _ = question(Residual())
    assert windowed_operations(graph, region) == []
    vectors = nn.Sequential(nn.Flatten(), nn.Linear(264, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 3))
    assert windowed_operations(*question(vectors)[:2]) == []
    # A window as large as the image is no help, and between two convolutions padding is not what lines put there.
    covering = convolutional(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 11))
    assert windowed_operations(*question(covering)[:2]) == []
    twice = convolutional(
        *(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1))
    )
    assert windowed_operations(*question(twice)[:2]) == []


@pytest.mark.parametrize("slack", [0.0, 0.01])
def test_alpha_crown_is_the_same_with_and_without(slack: float, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = NETWORKS["three, normalised"]()
    module(torch.zeros(1, *IMAGE))
    graph = trace(module.double().eval(), IMAGE)
    params = {name: p.detach() for name, p in parameters(module).items()}
    box = Box.linf(drawn(2, *IMAGE, seed=1), 0.05)
    read = {op.inputs[0] for _, op in graph.activations}
    given = Given(slack={i: slack * drawn(2, *graph.ops[i].shape, seed=i) for i in read} if slack else {})
    found = build("alpha_crown", iterations=3).analyse(graph, params, box, given=given)
    asked: list[int] = []
    monkeypatch.setattr(ways, "find_windows", lambda region, target: asked.append(target))
    monkeypatch.setattr(ways, "collapse", lambda *given: None)
    plain = build("alpha_crown", iterations=3).analyse(graph, params, box, given=given)
    assert asked, "windows were looked for"
    torch.testing.assert_close(found.bounds.lower, plain.bounds.lower, rtol=1e-8, atol=1e-10)
    for index, z in plain.hidden.items():
        torch.testing.assert_close(found.hidden[index].lower, z.lower, rtol=1e-8, atol=1e-10)

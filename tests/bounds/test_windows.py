"""Around a pixel a network of windows is the network: the same bounds of every neuron, whatever slopes are chosen."""

import pytest
import torch
from torch import Tensor, nn

from certtrain.bounds import Box, build
from certtrain.bounds.optimised.choice import Choice, Rows
from certtrain.bounds.optimised.passes import Start
from certtrain.bounds.optimised.region import Region
from certtrain.bounds.optimised.space import Space
from certtrain.bounds.optimised.windows import find_windows
from certtrain.networks import Normalize, parameters, trace
from certtrain.networks.graph import Graph

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


def question(module: nn.Module) -> tuple[Graph, Region, dict]:
    """Boxes of three images, with random slopes of lower lines where these are free."""
    torch.manual_seed(0)
    module(torch.zeros(1, *IMAGE))
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.3, 0.3)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
            nn.init.uniform_(layer.weight, -1.5, 1.5)
    graph = trace(module.double().eval(), IMAGE)
    params = {name: p.detach() for name, p in parameters(module).items()}
    box = Box.linf(drawn(3, *IMAGE, seed=1), 0.05)
    hidden = build("deeppoly").analyse(graph, params, box).hidden
    region = Region.of(graph, graph.values(params, box.lower), box, hidden)
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


@pytest.mark.parametrize("name", NETWORKS)
def test_every_neuron_has_the_same_bounds(name: str) -> None:
    graph, region, hidden = question(NETWORKS[name]())
    targets = windowed_operations(graph, region)
    assert targets
    for target in targets:
        windows = find_windows(region, target)
        assert windows is not None
        before = {i: z for i, z in hidden.items() if i < target}
        space = Space.of(graph, before, many=0.0, output=target)
        size = graph.ops[target].size
        places = torch.arange(size).repeat(3)
        images = torch.arange(3).repeat_interleave(size)
        signs = drawn(len(places), seed=2).sub(0.5).sign()
        data = torch.zeros(len(places), size, dtype=torch.float64).scatter(1, places[:, None], signs[:, None])
        start = Start(target, data.reshape(-1, *graph.ops[target].shape), drawn(len(places), seed=3))
        free = space.free(graph, before, region.center)
        rows = Rows(region.rows(images), space, start, free[images])
        same = windows.rows(region, hidden, images, places, start)
        bounds = []
        for one in (rows, same):
            held = one.region.held
            slopes = one.space.gather(lambda part, held=held: held[part.activation].lower, one.start.data)
            bounds.append((one.lower(Choice(slopes)), one, Choice(slopes)))
        torch.testing.assert_close(bounds[1][0].lower, bounds[0][0].lower, rtol=1e-10, atol=1e-12)
        # All that a neuron may choose is in its window: elsewhere its coefficients are zero.
        moved = [one.derivatives(choice, *one.evaluated(choice)).slopes.abs().sum(1) for _, one, choice in bounds]
        torch.testing.assert_close(moved[1], moved[0], rtol=1e-8, atol=1e-10)
        assert windows.width < sum(op.size for op in graph.ops[: target + 1])


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


def test_alpha_crown_is_the_same_with_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    from certtrain.bounds.optimised import ways

    torch.manual_seed(0)
    module = NETWORKS["three, normalised"]()
    module(torch.zeros(1, *IMAGE))
    graph = trace(module.double().eval(), IMAGE)
    params = {name: p.detach() for name, p in parameters(module).items()}
    box = Box.linf(drawn(2, *IMAGE, seed=1), 0.05)
    found = build("alpha_crown", iterations=3).analyse(graph, params, box)
    monkeypatch.setattr(ways, "find_windows", lambda region, target: None)
    monkeypatch.setattr(ways, "collapse", lambda *given: None)
    plain = build("alpha_crown", iterations=3).analyse(graph, params, box)
    torch.testing.assert_close(found.bounds.lower, plain.bounds.lower, rtol=1e-8, atol=1e-10)
    for index, z in plain.hidden.items():
        torch.testing.assert_close(found.hidden[index].lower, z.lower, rtol=1e-8, atol=1e-10)

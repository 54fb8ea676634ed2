"""Upper bounds of ReLUs in what a layer reads."""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
import torch
from certify.search_cases import random_network, root_of, uniform
from scipy.optimize import linprog
from torch import Tensor, nn

from certtrain.bounds import Box
from certtrain.bounds.optimised.ascent import Rates
from certtrain.bounds.optimised.choice import Rows
from certtrain.bounds.optimised.envelopes import Blend, Neurons
from certtrain.bounds.optimised.fitting import Fit, Fitted
from certtrain.certify.arithmetic import arithmetic_named
from certtrain.certify.network import Network
from certtrain.certify.search import root as certify_root
from certtrain.certify.search.relaxed import Goals, Relaxed
from certtrain.certify.search.root import Root
from certtrain.certify.search.whole import BranchAndBound


class Residual(nn.Module):
    """Two matrices read the same layer, and one of them the input besides."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.beside, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x))
        return self.last(torch.relu(self.second(y) + self.third(y) + self.beside(x)))


class Mixed(nn.Sequential):
    """Sigmoid, then ReLU."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 6), nn.Sigmoid(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))


class OneConvolution(nn.Sequential):
    """Too much is undecided for matrices."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 1, 2), nn.ReLU(), nn.Flatten(), nn.Linear(25, 3))


class Convolutional(nn.Sequential):
    """Of which only undecided neurons are left where it is searched."""

    def __init__(self) -> None:
        layers = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Flatten()
        super().__init__(*layers, nn.Linear(4 * 36, 3))


def network_of(name: str, seed: int) -> tuple[Network, Box]:
    if name == "dense":
        return random_network(seed, inputs=4), Box.linf(uniform(1, 4, seed=seed), 0.5, None)
    if name == "sigmoid first":
        module, shape, radius = _seeded(seed, Mixed), (4,), 1.0
    elif name == "residual":
        module, shape, radius = _seeded(seed, Residual), (4,), 0.5
    else:
        module, shape, radius = _seeded(seed, Convolutional), (1, 6, 6), 0.05
    for parameter in module.parameters():
        parameter.data.mul_(2.0)
    return Network.of(module.requires_grad_(False), shape), Box.linf(uniform(1, *shape, seed=seed), radius, None)


def _seeded(seed: int, make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def root_with(name: str, seed: int, row: list[float] | None = None) -> tuple[Network, Box, Root]:
    network, box = network_of(name, seed)
    goals = Goals.margins(torch.tensor([row or [1.0, -1.0, 0.0]]).double())
    return network, box, root_of(network, box, goals)


def random_blends(layers: tuple[Neurons, ...], seed: int) -> list[Blend]:
    """Most of them at an end, as the best ones are."""
    ends = [(3 * uniform(layer.weight.numel() + 1, len(layer.bias), seed=seed) - 1).clamp(0, 1) for layer in layers]
    shares = [end[1 : 1 + layer.weight.shape[1]].T for end, layer in zip(ends, layers, strict=True)]
    return [Blend(own.contiguous(), end[0]) for own, end in zip(shares, ends, strict=True)]


def points(box: Box, count: int, seed: int) -> Tensor:
    """Anywhere, and corners."""
    at = uniform(count, *box.lower.shape[1:], seed=seed)
    at[: count // 2] = at[: count // 2].round()
    return box.lower + (box.upper - box.lower) * at


NAMES = ("dense", "residual", "sigmoid first", "convolutional")


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", NAMES)
def test_they_are_above_the_activation_whatever_the_shares(name: str, seed: int) -> None:
    network, box, root = root_with(name, seed)
    expected = {"dense": 2, "residual": 2, "sigmoid first": 1, "convolutional": 2}[name]
    assert len(root.neurons) == expected
    # Where few neurons are undecided, of the network that is left when the others are put into matrices.
    region, x = root.double.region, points(box, 500, seed)
    values = region.graph.results(dict(region.values), x)
    margin = network.logits(x)[:, 0] - network.logits(x)[:, 1]
    torch.testing.assert_close(
        values[root.double.output].flatten(1)[:, 0] - values[root.double.output].flatten(1)[:, 1], margin
    )
    for layer, blend in zip(root.neurons, random_blends(root.neurons, seed), strict=True):
        envelope = layer.envelope(blend, torch.ones(1, len(layer.bias)).double())
        above = sum((values[i].flatten(1) @ form.mT for i, form in envelope.forms.items()), envelope.constant)
        assert (above >= layer.part.gather(values[layer.part.activation])).all()


def test_with_equal_shares_they_are_the_chord() -> None:
    _, _, root = root_with("dense", 0)
    layer = root.neurons[0]
    line = root.double.region.held[layer.part.activation]
    low, high = layer.least.sum(1) + layer.bias, layer.most.sum(1) + layer.bias
    open_ = (low < 0) & (high > 0)
    assert open_.sum() >= 3
    envelope = layer.envelope(layer.blend(line, 1.0), torch.ones(1, len(low)).double())
    slope = high / (high - low)
    torch.testing.assert_close(layer.part.gather(line.upper)[0][open_], slope[open_])
    constant = -slope * low + slope * layer.bias
    torch.testing.assert_close(envelope.constant[open_], constant[open_])


def rows_of(root: Root, relaxed: Relaxed) -> Rows:
    return root.rows(relaxed, root.decided, torch.zeros(1).long())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", NAMES)
def test_derivatives_are_those_of_autograd(name: str, seed: int) -> None:
    moved = False
    for row in ([1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]):
        _, _, root = root_with(name, seed, row)
        # Within: at the ends a row's coefficients may be zero, where there is no derivative.
        tensors = [
            uniform(*shape, seed=seed).requires_grad_()
            for layer in root.neurons
            for shape in (layer.weight.shape, layer.bias.shape)
        ]
        blends = [Blend(*tensors[at : at + 2]) for at in range(0, len(tensors), 2)]
        choice = root.first_choice(1).map(lambda x: x.double())
        plain = rows_of(root, root.double)
        with torch.no_grad():
            found, values = rows_of(root, root.double.with_envelopes(root.neurons, blends, root.free)).evaluated(choice)
            by_hand: list[Tensor] = []
            for layer, blend in zip(root.neurons, blends, strict=True):
                part = layer.part
                negative = part.gather(found.coefficients[part.activation]).clamp(max=0) * plain.mask[:, part.columns]
                by = layer.derivative(blend, negative, plain.region.held[part.activation], values)
                by_hand += [by.shares, by.taken]
        recorded = rows_of(root, root.double.with_envelopes(root.neurons, blends, root.free)).lower(choice).lower
        torch.testing.assert_close(recorded, found.lower)
        by_autograd = torch.autograd.grad(recorded.sum(), tensors)
        torch.testing.assert_close(tuple(by_hand), by_autograd)
        moved = moved or any(bool((by != 0).any()) for by in by_autograd)
    assert moved


def fitted(root: Root, steps: int) -> Fitted:
    """To the first goal, float64."""
    rows = rows_of(root, root.double)
    blends = [layer.blend(rows.region.held[layer.part.activation], 0.9) for layer in root.neurons]
    choice = root.first_choice(1).map(lambda x: x.double())
    with torch.no_grad():
        return Fit(rows, root.neurons, choice, blends, Rates(slopes=0.1, multipliers=0.1, decay=0.99), 0.1).run(steps)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", NAMES)
def test_bounds_of_parts_hold(name: str, seed: int) -> None:
    network, box, root = root_with(name, seed)
    best = fitted(root, 60)
    x = points(box, 4000, seed + 7)
    results = network.graph.results(dict(network.values[torch.float64]), x)
    z = root.columns(lambda part: results[part.read], x)
    logits = results[len(network.graph.ops) - 1]
    margin = logits[:, 0] - logits[:, 1]
    for blends in (best.blends, random_blends(root.neurons, seed)):
        enveloped = root.with_envelopes(blends)
        for at in range(5):
            # Signs of a point, at some of the neurons; of none at first.
            signs = torch.where(uniform(1, root.space.size, seed=at) < 0.1 * at, z[at : at + 1].sign(), 0.0) * root.free
            inside = ((z * signs) >= 0).all(1)
            lower = float(enveloped.proved(signs.to(torch.int8), torch.zeros(1).long(), best.choice))
            assert inside[at]
            assert lower <= float(margin[inside].min()) + 1e-9


def convex_hull_bound(layer: Neurons, coefficients: Tensor, row: Tensor, offset: Tensor, box: Box) -> float:
    """The least value of a hidden layer's form where each neuron is in the convex hull of its graph.

    By linear programming over all inequalities of Anderson et al., in x and the neurons' outputs.
    """
    low, high = box.lower[0], box.upper[0]
    inputs, neurons = len(low), len(layer.bias)
    weight = torch.zeros(neurons, inputs).double().scatter_add(1, layer.index, layer.weight)
    limits, rights = [], []

    def below(neuron: int, at_x: np.ndarray, at_y: float, right: float) -> None:
        limit = np.zeros(inputs + neurons)
        limit[:inputs], limit[inputs + neuron] = at_x, at_y
        limits.append(limit)
        rights.append(right)

    for neuron in range(neurons):
        w, b = weight[neuron], float(layer.bias[neuron])
        least, most = torch.where(w >= 0, low, high), torch.where(w >= 0, high, low)
        below(neuron, w.numpy(), -1.0, -b)
        below(neuron, w.numpy() * 0, -1.0, 0.0)
        for size in range(inputs + 1):
            for chosen in combinations(range(inputs), size):
                inner = torch.zeros(inputs, dtype=torch.bool)
                inner[list(chosen)] = True
                value = float(torch.where(inner, w * least, w * most).sum()) + b
                for other in set(range(inputs)) - set(chosen):
                    step = float(w[other] * (most[other] - least[other]))
                    if value < 0 or value - step >= 0:
                        continue
                    slope = torch.where(inner, w, 0.0)
                    slope[other] = value / float(most[other] - least[other])
                    # y <= slope (x - least)
                    below(neuron, -slope.numpy(), 1.0, -float(slope @ least))
        if float((w * most).sum()) + b <= 0:
            below(neuron, w.numpy() * 0, 1.0, 0.0)
        if float((w * least).sum()) + b >= 0:
            below(neuron, -w.numpy(), 1.0, b)
    objective = np.concatenate([row.numpy(), coefficients.numpy()])
    ends = [*zip(low.tolist(), high.tolist(), strict=True), *[(None, None)] * neurons]
    found = linprog(objective, np.array(limits), np.array(rights), bounds=ends, method="highs")
    assert found.status == 0
    return float(found.fun) + float(offset)


@pytest.mark.parametrize("seed", range(5))
def test_fitted_ones_come_to_the_convex_hull_of_every_neuron(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # The program below is of the layers as they are written.
    monkeypatch.setattr(certify_root, "collapse", lambda *_: None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2))
        module[0].weight.data.mul_(2.0)
    network, box = Network.of(module.requires_grad_(False), (5,)), Box.linf(uniform(1, 5, seed=seed), 0.7, None)
    root = root_of(network, box, Goals.margins(torch.tensor([[1.0, -1.0]]).double()))
    assert len(root.neurons) == 1
    layer = root.neurons[0]
    assert layer.part.elements is None
    last = network.values[torch.float64]
    weight, bias = (next(x for name, x in last.items() if name.endswith(f"2.{end}")) for end in ("weight", "bias"))
    form, offset = weight[0] - weight[1], bias[0] - bias[1]
    expected = convex_hull_bound(layer, form, torch.zeros(5).double(), offset, box)
    with torch.no_grad():
        rows = rows_of(root, root.double)
        blends = [layer.blend(rows.region.held[layer.part.activation], 0.9)]
        choice = root.first_choice(1).map(lambda x: x.double())
        plain = float(rows.lower(choice).lower)
        fit = Fit(rows, root.neurons, choice, blends, Rates(slopes=0.1, multipliers=0.1, decay=0.99), 0.1)
        found = fit.run(800).lower
    assert found <= expected + 1e-9
    assert found >= expected - 0.01 * (expected - plain)
    assert expected - plain > 1e-3, "there is something to win"


def test_there_is_one_for_a_neuron() -> None:
    """Upper lines that were given up once are no upper bounds that could be given up again."""
    _, _, root = root_with("dense", 0)
    blends = random_blends(root.neurons, 1)
    with pytest.raises(AssertionError, match="given up for other envelopes already"):
        root.with_envelopes(blends).with_envelopes(blends)


def test_decided_neurons_are_exact() -> None:
    """Where all are decided, there is no room for an envelope."""
    network, box, root = root_with("dense", 1)
    enveloped = root.with_envelopes(random_blends(root.neurons, 1))
    x = box.center
    results = network.graph.results(dict(network.values[torch.float64]), x)
    signs = (root.columns(lambda part: results[part.read], x).sign() * root.free).to(torch.int8)
    goal, choice = torch.zeros(1).long(), root.first_choice(1)
    torch.testing.assert_close(enveloped.proved(signs, goal, choice), root.proved(signs, goal, choice))


def test_there_are_none_behind_convolutions_that_stay() -> None:
    network = Network.of(_seeded(0, OneConvolution).requires_grad_(False), (1, 6, 6))
    root = root_of(network, Box.linf(uniform(1, 1, 6, 6, seed=0), 0.5, None), Goals.margins(torch.eye(3).double()[:1]))
    assert root.space.parts
    assert root.neurons == ()


def test_there_are_none_where_rounding_is_accounted_for() -> None:
    network, box = network_of("dense", 0)
    judged = arithmetic_named("sound", "arithmetic")
    known = judged.known(BranchAndBound().relaxation, network.graph, network.values[torch.float64], box)
    goals = Goals.margins(torch.tensor([[1.0, -1.0, 0.0]]).double())
    assert Root.of(network.graph, network.values, box, known.hidden, goals, known.rounding).neurons == ()

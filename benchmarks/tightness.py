"""How tight bounds through curved activations are, against auto_LiRPA's CROWN: `python -m benchmarks.tightness`.

Widths of margins: on random networks, which were trained for none of the two, and on networks that were trained on
digits by plain cross-entropy and through interval bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.cases import Images
from certtrain.bounds import Box, build, margin_spec
from certtrain.gradients import Backprop
from certtrain.losses import Problem, RobustCrossEntropy
from certtrain.networks import parameters, trace

ACTIVATIONS: dict[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}
# Textbook DeepPoly is what auto_LiRPA calls CROWN: no intersection with intervals.
METHODS = {"crown_ibp": {}, "deeppoly": {"intersect": False}}
RADII = (0.05, 0.2)
SEEDS = range(6)
IMAGES = 6
SHAPE = (1, 8, 8)
# Of training: steps, images of each, learning rate of Adam, and the radius of intervals.
STEPS, BATCH, RATE, EPS = 600, 64, 0.005, 0.05


@dataclass(frozen=True)
class Network:
    """A network, and the images to bound it on."""

    module: nn.Module
    inputs: Tensor
    labels: Tensor


def fully_connected(activation: type[nn.Module]) -> nn.Module:
    """64-32-32-10."""
    layers = [nn.Flatten(), nn.Linear(64, 32), activation(), nn.Linear(32, 32), activation(), nn.Linear(32, 10)]
    return nn.Sequential(*layers)


def convolutional(activation: type[nn.Module]) -> nn.Module:
    """Two convolutions and a matrix."""
    layers = [nn.Conv2d(1, 8, 3, padding=1), activation(), nn.Conv2d(8, 8, 4, 2, 1), activation()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 10))


def random(make: Callable[[], nn.Module]) -> Network:
    """Weights twice as large as torch's, on noise."""
    module = make()
    for parameter in module.parameters():
        if parameter.dim() > 1:
            parameter.data *= 2
    return Network(module.eval(), torch.rand(IMAGES, *SHAPE), torch.arange(IMAGES))


def trained(make: Callable[[], nn.Module], eps: float) -> Network:
    """On digits; eps 0 is plain cross-entropy. Bounded on test images that were not among those of training."""
    module, images = make(), digits()
    train, test = images.first(1200), Images(images.inputs[1200:], images.labels[1200:])
    graph, params = trace(module, SHAPE), parameters(module)
    optimizer, loss, relaxation = torch.optim.Adam(module.parameters(), RATE), RobustCrossEntropy(), build("ibp")
    for step in range(STEPS):
        rows = torch.randperm(len(train.inputs))[:BATCH]
        radius = eps * min(1.0, 2 * step / STEPS)
        problem = Problem.within(graph, relaxation, train.inputs[rows], train.labels[rows], radius)
        gradient = Backprop().estimate(lambda p, problem=problem: loss(problem, p), params, step).gradient
        for name, parameter in params.items():
            parameter.grad = gradient[name]
        optimizer.step()
    return Network(module.eval(), test.inputs[:IMAGES], test.labels[:IMAGES])


@cache
def digits() -> Images:
    """All images of digits, in an order of their own."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
    inputs = torch.from_numpy(found.images).to(torch.float32).div(16).reshape(-1, *SHAPE)
    return Images(inputs[order], torch.from_numpy(found.target).to(torch.int64)[order])


WEIGHTS: Mapping[str, Callable[[Callable[[], nn.Module]], Network]] = {
    "random": random,
    "natural": lambda make: trained(make, 0.0),
    "ibp": lambda make: trained(make, EPS),
}


def networks(activation: type[nn.Module], weights: str) -> list[Network]:
    """Fully connected and convolutional ones on images of 8 x 8 pixels."""
    found = []
    for seed, architecture in product(SEEDS, (fully_connected, convolutional)):
        torch.manual_seed(seed)
        found.append(WEIGHTS[weights](lambda architecture=architecture: architecture(activation)))
    return found


def ratio(network: Network, eps: float, method: str) -> float:
    """The mean over margins of our width over auto_LiRPA's."""
    native, other = (build(method, backend=backend, **METHODS[method]) for backend in ("native", "auto_lirpa"))
    graph, params = trace(network.module, SHAPE), parameters(network.module)
    box, spec = Box.linf(network.inputs, eps), margin_spec(network.labels, 10)
    with torch.no_grad():
        ours, theirs = (r.bound(graph, params, box, spec) for r in (native, other))
    assert ours.upper is not None
    assert theirs.upper is not None
    return float(((ours.upper - ours.lower) / (theirs.upper - theirs.lower)).mean())


def main() -> None:
    """Prints the table."""
    title = "our width / auto_LiRPA's"
    table = Table("activation", "weights", "eps", "method", "mean", "smallest", "largest", title=title)
    for activation, weights in product(ACTIVATIONS, WEIGHTS):
        made = networks(ACTIVATIONS[activation], weights)
        for eps, method in product(RADII, METHODS):
            found = [ratio(network, eps, method) for network in made]
            numbers = (sum(found) / len(found), min(found), max(found))
            table.add_row(activation, weights, f"{eps:g}", method, *(f"{x:.3f}" for x in numbers))
    Console().print(table)


if __name__ == "__main__":
    main()

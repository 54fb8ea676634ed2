"""How tight bounds through curved activations are, against auto_LiRPA's CROWN: `python -m benchmarks.tightness`.

Widths of margins on random networks, which say nothing about networks that were trained for one of the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from certtrain.bounds import Box, build, margin_spec
from certtrain.networks import parameters, trace

ACTIVATIONS: dict[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}
# Textbook DeepPoly is what auto_LiRPA calls CROWN: no intersection with intervals.
METHODS = {"crown_ibp": {}, "deeppoly": {"intersect": False}}
RADII = (0.05, 0.2)
SEEDS = range(6)
IMAGES = 6


def networks(activation: type[nn.Module]) -> Iterator[nn.Module]:
    """Fully connected and convolutional ones on images of 8 x 8 pixels, with weights twice as large as torch's."""
    for seed in SEEDS:
        torch.manual_seed(seed)
        layers = [nn.Flatten(), nn.Linear(64, 32), activation(), nn.Linear(32, 32), activation(), nn.Linear(32, 10)]
        yield _scaled(nn.Sequential(*layers))
        layers = [nn.Conv2d(1, 8, 3, padding=1), activation(), nn.Conv2d(8, 8, 4, 2, 1), activation()]
        yield _scaled(nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 10)))


def _scaled(network: nn.Module) -> nn.Module:
    for parameter in network.parameters():
        if parameter.dim() > 1:
            parameter.data *= 2
    return network.eval()


def ratios(activation: str, eps: float, method: str) -> list[float]:
    """For each network, the mean over margins of our width over auto_LiRPA's."""
    found = []
    native, other = (build(method, backend=backend, **METHODS[method]) for backend in ("native", "auto_lirpa"))
    for network in networks(ACTIVATIONS[activation]):
        inputs, spec = torch.rand(IMAGES, 1, 8, 8), margin_spec(torch.arange(IMAGES), 10)
        graph, params, box = trace(network, (1, 8, 8)), parameters(network), Box.linf(inputs, eps)
        with torch.no_grad():
            ours, theirs = (r.bound(graph, params, box, spec) for r in (native, other))
        assert ours.upper is not None
        assert theirs.upper is not None
        found.append(float(((ours.upper - ours.lower) / (theirs.upper - theirs.lower)).mean()))
    return found


def main() -> None:
    """Prints the table."""
    table = Table("activation", "eps", "method", "mean", "smallest", "largest", title="our width / auto_LiRPA's")
    for activation, eps, method in product(ACTIVATIONS, RADII, METHODS):
        found = ratios(activation, eps, method)
        numbers = (sum(found) / len(found), min(found), max(found))
        table.add_row(activation, f"{eps:g}", method, *(f"{x:.3f}" for x in numbers))
    Console().print(table)


if __name__ == "__main__":
    main()

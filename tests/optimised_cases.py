"""Networks whose bounds are optimised: branches, pooling, curved activations."""

import torch
from branches import Parallel
from cases import Case, make_case
from torch import Tensor, nn

from certtrain.testing import Subject

IMAGE = (2, 6, 5)
CLASSES = 3


def convolutional(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(),
        *layers,
        nn.Flatten(),
        nn.LazyLinear(6),
        nn.ReLU(),
        nn.Linear(6, CLASSES),
    )


NETWORKS = {
    "parallel": Parallel,
    "pooled": lambda: convolutional(nn.AvgPool2d(2), nn.Conv2d(4, 3, 2), nn.ReLU()),
    "maximum": lambda: convolutional(nn.MaxPool2d(2)),
    "curved": lambda: convolutional(nn.Conv2d(4, 3, 2, stride=2), nn.Sigmoid()),
}

OPTIMISED = [*NETWORKS, "residual"]


def optimised(name: str) -> Case:
    if name == "residual":
        return make_case("residual")
    torch.manual_seed(1)
    module = NETWORKS[name]()
    module(torch.zeros(1, *IMAGE))
    for parameter in module.parameters():
        parameter.data.mul_(2.0 if parameter.dim() > 1 else 1.0)
    return Subject.of(module.double(), IMAGE)


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

"""Small random networks that together contain every layer kind that bounds accept."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from certtrain.networks import Normalize

IMAGE = (2, 7, 6)
CLASSES = 4


class Residual(nn.Module):
    """Two branches that share error terms, and one that skips; functional and module ReLUs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.long = nn.Conv2d(3, 3, 3, padding=1)
        self.short = nn.Conv2d(3, 3, 1)
        self.down = nn.Conv2d(3, 2, 3, stride=2)
        self.head = nn.Linear(2 * 3 * 2, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        y = torch.relu(self.long(x))
        x = (self.long(y) + self.short(x)).relu()
        return self.head(self.down(x + y).relu().view(x.size(0), -1))


class ResidualMlp(nn.Module):
    """Additions of vectors, an activation at the very end, batch norm in one dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(84, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x.flatten(1)))
        return torch.relu(self.last(x + self.norm(self.second(x))))


def conv(*layers: nn.Module, features: int) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, CLASSES))


def mlp() -> nn.Module:
    return nn.Sequential(
        Normalize([0.3, 0.4], [0.5, 0.2]),
        nn.Flatten(),
        nn.Linear(84, 7),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(7, 6),
        nn.ReLU(),
        nn.Identity(),
        nn.Linear(6, CLASSES),
    )


def strided() -> nn.Module:
    return conv(
        Normalize([0.3, 0.4], [0.5, 0.2]),
        nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0)),
        nn.ReLU(),
        nn.Conv2d(4, 3, 2, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(3, 3, 2),
        nn.ReLU(),
        features=3 * 2 * 2,
    )


def dilated_and_grouped() -> nn.Module:
    return conv(
        nn.Conv2d(2, 4, 2, dilation=2, groups=2, bias=False),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding="same", groups=2, dilation=(1, 2)),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        features=4 * 5 * 4,
    )


def pooled() -> nn.Module:
    return conv(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
        nn.Conv2d(3, 3, 2, padding=1),
        nn.AvgPool2d(2),
        nn.ReLU(),
        nn.Conv2d(3, 2, 1),
        nn.ReLU(),
        features=2 * 2 * 2,
    )


def narrow_after_flatten() -> nn.Module:
    return conv(
        nn.Conv2d(2, 3, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(18, 8),
        nn.ReLU(),
        features=8,
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "strided": strided,
    "dilated_and_grouped": dilated_and_grouped,
    "pooled": pooled,
    "narrow_after_flatten": narrow_after_flatten,
    "residual": Residual,
    "residual_mlp": ResidualMlp,
}


def make(name: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A network with random weights, biases large enough for every kind of neuron, and random statistics."""
    torch.manual_seed(seed)
    network = NETWORKS[name]().to(dtype)
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
    for parameter in network.parameters():
        parameter.data.mul_(2.5 if parameter.dim() > 1 else 1.0)
    return network.eval()

"""Shapes of networks, and how each is trained and asked about.

mnist_fc (Bak et al., arXiv 2109.00498) has fully connected networks of 256 neurons a layer, trained plainly, and asks
about balls of radius 0.03 and 0.05; eran one of eight layers of 200 ReLUs at 0.015, and one of six of 200 sigmoids at
0.012; cifar10_resnet small residual networks trained against attacks, and radii of one or two steps of a pixel;
mnist_resnet is one of these on MNIST, with the radii of mnist_fc; oval21 (networks of Lu and Kumar, arXiv 1912.01329)
convolutional networks, and a radius for each image at which neither answer is easy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.vnncomp.radii import BelowAttack, Everywhere, Radii
from certtrain.errors import ConfigError


class Block(nn.Module):
    """Two convolutions beside one, or beside nothing where the shape stays; ReLU after the sum."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        first, second = nn.Conv2d(channels, out, 3, stride, 1), nn.Conv2d(out, out, 3, 1, 1)
        self.long = nn.Sequential(first, nn.ReLU(), second)
        self.short = nn.Conv2d(channels, out, 1, stride) if (channels, 1) != (out, stride) else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] -> [batch, out, height / stride, width / stride]."""
        return torch.relu(self.long(x) + self.short(x))


def fully_connected(depth: int, width: int = 256, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    """784-width x(depth)-10."""
    hidden = [layer for i in range(depth) for layer in (nn.Linear(width if i else 784, width), activation())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, 10))


def residual(channels: int, side: int) -> nn.Module:
    """A convolution, two blocks, and two matrices; for images of side x side pixels, a multiple of four."""
    blocks = [nn.Conv2d(channels, 8, 3, 2, 1), nn.ReLU(), Block(8, 16, 2), Block(16, 16, 1)]
    features = 16 * (side // 4) ** 2
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(features, 100), nn.ReLU(), nn.Linear(100, 10))


def convolutional(*layers: tuple[int, int, int, int]) -> nn.Module:
    """Convolutions (channels, channels, kernel, stride) on 32 x 32 pixels, two of them of stride two; two matrices."""
    convolutions = [part for size in layers for part in (nn.Conv2d(*size, padding=1), nn.ReLU())]
    features = layers[-1][1] * 8 * 8
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(features, 100), nn.ReLU(), nn.Linear(100, 10))


@dataclass(frozen=True)
class Recipe:
    """How a network comes about, and what is asked about it.

    Attributes:
        data: A choice in conf/data.
        make: The network with random weights.
        radii: Of the balls.
        epochs: Of Adam with a rate that falls linearly.
        rate: At first.
        attack: Each batch is moved by one signed gradient step of this size first; 0 for plain training.
        instances: Images that are asked about.
    """

    data: str
    make: Callable[[], nn.Module]
    radii: Radii
    epochs: int = 8
    rate: float = 1e-3
    attack: float = 0.0
    instances: int = 15


MNIST, CIFAR10 = Everywhere((0.03, 0.05)), Everywhere((1 / 255, 2 / 255))
HARD = BelowAttack(share=0.8, most=16 / 255)
RECIPES: Mapping[str, Recipe] = {
    **{f"mnist_256x{n}": Recipe("mnist", partial(fully_connected, n), MNIST) for n in (2, 4, 6)},
    "mnist_relu_8x200": Recipe("mnist", partial(fully_connected, 8, 200), Everywhere((0.015,)), instances=36),
    "mnist_sigmoid_6x200": Recipe(
        "mnist", partial(fully_connected, 6, 200, nn.Sigmoid), Everywhere((0.012,)), instances=36
    ),
    "mnist_resnet": Recipe("mnist", partial(residual, 1, 28), MNIST, 8, 2e-3, 0.05),
    "cifar10_resnet": Recipe("cifar10", partial(residual, 3, 32), CIFAR10, 8, 2e-3, 2 / 255, 36),
    **{
        f"oval_{name}": Recipe("cifar10", partial(convolutional, *layers), HARD, 8, 2e-3, 2 / 255, 10)
        for name, layers in (
            ("base", ((3, 8, 4, 2), (8, 16, 4, 2))),
            ("wide", ((3, 16, 4, 2), (16, 32, 4, 2))),
            ("deep", ((3, 8, 4, 2), (8, 8, 3, 1), (8, 8, 3, 1), (8, 8, 4, 2))),
        )
    },
}


def recipe_of(name: str) -> Recipe:
    """How a network comes about.

    Raises:
        ConfigError: If there is no such network.
    """
    if name not in RECIPES:
        raise ConfigError(f"unknown network '{name}': one of {', '.join(RECIPES)}")
    return RECIPES[name]

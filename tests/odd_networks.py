"""Random networks of a few layers that no sane architecture has, but that every relaxation must bound all the same.

Strides larger than kernels, windows that read padding only, dilations, groups, pooling of every kind, sums of branches
of unlike kind: a convolution and one that is dense, or whose windows differ at the border.
"""

from __future__ import annotations

from random import Random

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]
ATTEMPTS = 30


class Sum(nn.Module):
    """Two branches that meet in an addition."""

    def __init__(self, left: nn.Module, right: nn.Module) -> None:
        super().__init__()
        self.left, self.right = left, right

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) + self.right(x)


class View(nn.Module):
    """A vector as an image."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), *self.shape)


def odd_network(random: Random, shape: Shape, classes: int) -> nn.Module:
    """A network in float64 and eval mode whose weights keep many neurons unstable."""
    layers: list[nn.Module] = []
    for _ in range(random.randint(1, 3)):
        stage = _stage(random, shape)
        layers.append(stage)
        shape = _shape_after(stage, shape)
        if random.random() < 0.3:
            layers.append(nn.BatchNorm2d(shape[0]))
        if random.random() < 0.85:
            layers.append(nn.ReLU())
    layers += [nn.Flatten(), nn.Linear(torch.Size(shape).numel(), classes)]
    if random.random() < 0.4:
        layers += [nn.ReLU(), nn.Linear(classes, classes)]
    return _with_weights(nn.Sequential(*layers), random)


def _with_weights(network: nn.Module, random: Random) -> nn.Module:
    generator = torch.Generator().manual_seed(random.randrange(1 << 30))
    network = network.double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    for parameter in network.parameters():
        fan_in = max(1, parameter[0].numel()) if parameter.dim() > 1 else 4
        parameter.data.normal_(0.0, 1.5 / fan_in**0.5, generator=generator)
    return network


def _shape_after(layer: nn.Module, shape: Shape) -> Shape:
    with torch.no_grad():
        return tuple(layer.double()(torch.zeros(1, *shape, dtype=torch.float64)).shape[1:])


def _stage(random: Random, shape: Shape) -> nn.Module:
    """A layer, or a sum of two branches of which the second makes the shape of the first."""
    first = _layer(random, shape)
    if random.random() < 0.4:
        return first
    wanted = _shape_after(first, shape)
    if random.random() < 0.3:
        first = nn.Sequential(first, nn.ReLU(), nn.Conv2d(wanted[0], wanted[0], 3, padding=1))
    branches = [first, _branch(random, shape, wanted)]
    random.shuffle(branches)
    return Sum(*branches)


def _branch(random: Random, shape: Shape, wanted: Shape) -> nn.Module:
    """Anything that makes the wanted shape: the input itself, a window, or all of the input at once."""
    if shape == wanted and random.random() < 0.3:
        return nn.Identity()
    if random.random() < 0.7:
        for _ in range(ATTEMPTS):
            layer = _layer(random, shape, channels=wanted[0])
            if _shape_after(layer, shape) == wanted:
                return layer
    size = torch.Size(shape).numel(), torch.Size(wanted).numel()
    return nn.Sequential(nn.Flatten(), nn.Linear(*size), View(wanted))


def _layer(random: Random, shape: Shape, channels: int | None = None) -> nn.Module:
    """A convolution, or a pooling with one of a pixel before it."""
    for _ in range(10 * ATTEMPTS):
        layer = _pool(random, shape, channels) if random.random() < 0.3 else _convolution(random, shape, channels)
        try:
            if min(_shape_after(layer, shape)) > 0:
                return layer
        except RuntimeError:  # a window larger than the image
            continue
    return nn.Conv2d(shape[0], channels or 2, 1)


def _convolution(random: Random, shape: Shape, channels: int | None) -> nn.Module:
    groups = random.choice([1, 1, 2, shape[0]])
    channels = channels or groups * random.randint(1, 2)
    if shape[0] % groups or channels % groups:
        groups = 1
    kernel, dilation, padding = (
        tuple(random.choice(choices) for _ in range(2)) for choices in ((1, 1, 2, 3), (1, 1, 2), (0, 0, 1, 2))
    )
    stride = tuple(random.choice([1, 1, 1, 2, 3, 9]) for _ in range(2))
    bias = random.random() < 0.8
    return nn.Conv2d(shape[0], channels, kernel, stride, padding, dilation, groups, bias)


def _pool(random: Random, shape: Shape, channels: int | None) -> nn.Module:
    kernel = random.randint(1, 3), random.randint(1, 3)
    padding = tuple(random.randint(0, k // 2) for k in kernel)
    stride = random.randint(1, 3), random.randint(1, 3)
    flags = {"ceil_mode": random.random() < 0.5, "count_include_pad": random.random() < 0.5}
    pool = nn.AvgPool2d(kernel, stride, padding, **flags)
    return nn.Sequential(nn.Conv2d(shape[0], channels or random.randint(1, 3), 1), pool)

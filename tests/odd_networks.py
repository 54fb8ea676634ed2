"""Random networks of a few layers that no sane architecture has, but that every relaxation must bound all the same.

Strides larger than kernels, windows that read padding only, dilations, groups, pooling of every kind, sums of branches
of unlike kind: a convolution and one that is dense, or whose windows differ at the border.
"""

from __future__ import annotations

from collections.abc import Callable
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


class Apply(nn.Module):
    """Any function of a layer's output, with constants as buffers."""

    def __init__(self, function: Callable[[nn.Module, Tensor], Tensor], *constants: Tensor) -> None:
        super().__init__()
        self.function = function
        for i, constant in enumerate(constants):
            self.register_buffer(f"constant{i}", constant)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


class Concatenation(nn.Module):
    """Two branches side by side."""

    def __init__(self, left: nn.Module, right: nn.Module) -> None:
        super().__init__()
        self.left, self.right = left, right

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.left(x), self.right(x)], 1)


def varied_network(random: Random, shape: Shape, classes: int) -> nn.Module:
    """As `odd_network`, with every activation and every operation that only moves or scales elements."""
    layers: list[nn.Module] = []
    for _ in range(random.randint(1, 3)):
        for make in (_stage, _varied):
            stage = make(random, shape)
            if min(_shape_after(stage, shape)) > 0:
                layers.append(stage)
                shape = _shape_after(stage, shape)
        layers.append(_activation(random))
    layers += [_end(random), nn.Flatten()]
    layers.append(nn.Linear(torch.Size(_shape_after(nn.Sequential(*layers[-2:]), shape)).numel(), classes))
    return _with_weights(nn.Sequential(*layers), random)


def _activation(random: Random) -> nn.Module:
    kinds = [nn.ReLU, lambda: nn.LeakyReLU(0.2), nn.ReLU6, nn.Hardtanh, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh]
    return random.choice(kinds)()


def _end(random: Random) -> nn.Module:
    return random.choice([nn.Identity(), nn.AdaptiveAvgPool2d(1), Apply(lambda m, x: x.mean((2, 3)))])


def _varied(random: Random, shape: Shape) -> nn.Module:
    """One of the operations that came with the open interpreter."""
    channels, height, width = shape
    pad = [random.randint(0, 2) for _ in range(4)]
    numbers = torch.Generator().manual_seed(random.randrange(1 << 30))
    scale, shift = (torch.randn(s, generator=numbers).double() for s in ((channels, 1, 1), shape))
    kernel = random.randint(1, min(3, height)), random.randint(1, min(3, width))
    pool = nn.MaxPool2d(kernel, random.randint(1, 2), (kernel[0] // 2, kernel[1] // 2), ceil_mode=random.random() < 0.5)
    choices = [
        nn.Identity(),
        pool,
        pool,
        Concatenation(_layer_of_size(channels, 2), _layer_of_size(channels, 1)),
        Concatenation(nn.Identity(), nn.Sequential(_layer_of_size(channels, 2), _activation(random))),
        nn.ConstantPad2d(pad, random.choice([0.0, 0.0, -0.7])),
        nn.ReflectionPad2d((min(1, width - 1), 0, 0, min(1, height - 1))),
        nn.ConvTranspose2d(channels, 2, 2, stride=random.randint(1, 2)),
        nn.UpsamplingNearest2d(scale_factor=2),
        nn.Conv2d(channels, 2, 2, padding="same"),
        nn.Conv2d(channels, 2, 3, padding=1, padding_mode="replicate"),
        Apply(lambda m, x: x.transpose(2, 3)),
        Apply(lambda m, x: x.permute(0, 3, 1, 2)),
        Apply(lambda m, x: x[:, :, ::2]),
        Apply(lambda m, x: x[:, -1:].repeat(1, 2, 1, 1)),
        Apply(lambda m, x: x.flip(1, 3)),
        Apply(lambda m, x: 0.5 - x * m.constant0 / 2 + m.constant1, scale, shift),
        Apply(lambda m, x: torch.clamp(x - m.constant0, min=-0.4), scale),
    ]
    return random.choice(choices)


def _layer_of_size(channels: int, outputs: int) -> nn.Module:
    return nn.Conv2d(channels, outputs, 3, padding=1)

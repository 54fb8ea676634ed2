"""Networks and comparisons that the tests of the auto_LiRPA backend share."""

from __future__ import annotations

from typing import Literal, get_args

import pytest
import torch
from torch import Tensor, nn

from certtrain.bounds import Bounds, Box, Relaxation, build, margin_spec
from certtrain.bounds.backends import _auto_lirpa_compat as compat
from certtrain.networks import Graph, Normalize, Params, parameters, trace

Method = Literal["ibp", "crown_ibp", "deeppoly"]
METHODS: tuple[Method, ...] = get_args(Method)
CLASSES = 4
EXACT = 1e-10  # two ways to sum the same float64 numbers
FLOAT32 = 1e-4

needs_auto_lirpa = pytest.mark.skipif(not compat.available(), reason="auto_LiRPA cannot be imported here")


class Residual(nn.Module):
    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class View(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), -1)


def normalize(channels: int = 1) -> Normalize:
    return Normalize([0.4] * channels, [0.3] * channels)


def head(features: int) -> list[nn.Module]:
    return [nn.Flatten(), nn.Linear(features, 9), nn.ReLU(), nn.Linear(9, CLASSES)]


def norm(channels: int, affine: bool = True) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(channels, affine=affine)
    layer.load_state_dict(
        {"running_mean": 0.3 * torch.randn(channels), "running_var": 0.5 + torch.rand(channels)}, strict=False
    )
    if affine:
        nn.init.normal_(layer.weight)  # of both signs
        nn.init.normal_(layer.bias)
    return layer


def residual_block() -> Residual:
    body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), norm(4), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1), norm(4))
    return Residual(body, nn.Conv2d(3, 4, 1, 2))


def network(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A small random network in float64, and the shape of its input."""
    torch.manual_seed(len(name))
    relu = nn.ReLU()
    conv = nn.Conv2d
    dense = [
        nn.Flatten(),
        nn.Linear(16, 12),
        relu,
        nn.Linear(12, 10, bias=False),
        relu,
        nn.Linear(10, CLASSES),
    ]
    strides = [normalize(2), conv(2, 4, 5, 2, 2), relu, conv(4, 6, 4, 2, 1, bias=False), relu, *head(24)]
    groups = [
        normalize(2),
        conv(2, 4, 3, padding=1, groups=2),
        relu,
        conv(4, 4, 3, dilation=2),
        relu,
        *head(64),
    ]
    oblong = [conv(1, 4, (3, 5), (1, 2), (1, 0)), relu, conv(4, 4, 3, (2, 1)), relu, *head(12)]
    norms = [conv(1, 4, 3, 1, 1), norm(4), relu, conv(4, 4, 3, 2), norm(4, affine=False), relu, *head(36)]
    pools = [conv(1, 3, 3, 1, 1), relu, nn.AvgPool2d(3, 2, 1), conv(3, 4, 3), relu, nn.AvgPool2d(2), *head(4)]
    residual = [normalize(3), residual_block(), Residual(conv(4, 4, 3, 1, 1), nn.Identity()), *head(64)]
    networks: dict[str, tuple[list[nn.Module], tuple[int, ...]]] = {
        "mlp": (dense, (1, 4, 4)),
        "view": ([normalize(), conv(1, 3, 3), relu, View(), nn.Linear(48, CLASSES)], (1, 6, 6)),
        "strides": (strides, (2, 9, 9)),
        "groups": (groups, (2, 8, 8)),
        "oblong": (oblong, (1, 8, 10)),
        "batch_norm": (norms, (1, 8, 8)),
        "pooling": (pools, (1, 9, 9)),
        "residual": (residual, (3, 7, 7)),
    }
    modules, shape = networks[name]
    return nn.Sequential(*modules).double().eval(), shape


NETWORKS = ("mlp", "view", "strides", "groups", "oblong", "batch_norm", "pooling", "residual")


def problem(name: str, batch: int = 3, seed: int = 0) -> tuple[Graph, Params, Box, Tensor]:
    """A network, its parameters, a clipped box (so that some pixels have no width) and margins."""
    module, shape = network(name)
    torch.manual_seed(seed)
    inputs = torch.rand(batch, *shape, dtype=torch.float64).mul(1.4).sub(0.2).clamp(0, 1)
    inputs[:, :, 0] = inputs[:, :, 0].round()
    box = Box.linf(inputs, 0.08)
    box = Box(box.lower, torch.where(torch.rand_like(inputs) < 0.2, box.lower, box.upper))
    spec = margin_spec(torch.arange(batch) % CLASSES, CLASSES).double()
    return trace(module, shape), parameters(module), box, spec


def native(method: Method) -> Relaxation:
    return build(method, intersect=False) if method == "deeppoly" else build(method)


def pair(bounds: Bounds) -> tuple[Tensor, Tensor]:
    assert bounds.upper is not None
    return bounds.lower, bounds.upper


def agree(found: Bounds, expected: Bounds) -> bool:
    return all(torch.allclose(a, b, atol=EXACT) for a, b in zip(pair(found), pair(expected), strict=True))

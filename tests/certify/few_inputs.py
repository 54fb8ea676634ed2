"""A network like those of ACAS Xu: five inputs, six hidden layers of fifty ReLUs, trained on a smooth function."""

from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor, nn

from certtrain.certify.network import Network

INPUTS, HIDDEN, STEPS = 5, (50,) * 6, 400


@lru_cache
def smooth() -> Network:
    """Inputs in [-1, 1]; a few seconds. Trained in float64: how a machine rounds is no matter for the network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [layer for a, b in pairwise((INPUTS, *HIDDEN)) for layer in (nn.Linear(a, b), nn.ReLU())]
        module = nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 5)).double()
        optimizer = torch.optim.Adam(module.parameters(), 3e-3)
        for _ in range(STEPS):
            x = torch.rand(256, INPUTS, dtype=torch.float64) * 2 - 1
            loss = (module(x) - _scores(x)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return Network.of(module.float().eval().requires_grad_(False), (INPUTS,))


def _scores(x: Tensor) -> Tensor:
    a, b, c, d, e = x.unbind(1)
    found = (torch.sin(3 * a + 2 * b * c) + d, torch.cos(2 * b) - e * a, c * c - torch.sin(4 * d))
    return torch.stack([*found, a * b + torch.cos(3 * e), 2 * torch.exp(-x.square().sum(1))], dim=1)

"""Networks that hide a counterexample from attacks, in the manner of SoundnessBench (Zhou et al., arXiv 2412.03154).

A point halfway between the centre of a box and one of its corners is misclassified, and the margin rises on all sides
of it; everywhere else the margin falls towards the opposite corner, where it is still positive: that is where gradients
lead.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from certtrain.bounds import Box
from certtrain.certify.network import Network

PIXELS, WIDTH = 5, 20
EPS = 0.3
# Of the counterexample, and from it on: how far the margin is drawn down, in units of EPS.
MARGIN, RADIUS = -0.1, 0.35
STEPS, POINTS, RATE = 1500, 128, 5e-3


@dataclass(frozen=True)
class Hidden:
    """A network, a box around one image whose label is 0, and the point that it hides."""

    network: Network
    image: Tensor
    counterexample: Tensor

    @property
    def box(self) -> Box:
        """float64, with one image."""
        return Box.linf(self.image, EPS)

    @property
    def label(self) -> Tensor:
        """[1]."""
        return torch.zeros(1, dtype=torch.int64)


@lru_cache
def hidden(seed: int) -> Hidden:
    """Trains the network of a seed: a few seconds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Linear(PIXELS, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 2)]
        module, center = nn.Sequential(*layers), torch.full((1, PIXELS), 0.5)
        corner = torch.randint(0, 2, (1, PIXELS)) * 2.0 - 1.0
        point = center + EPS * corner / 2
        _train(module, center, corner, point)
    network = Network.of(module.eval().requires_grad_(False), (PIXELS,))
    return Hidden(network, center.double(), point.double())


def _train(module: nn.Module, center: Tensor, corner: Tensor, point: Tensor) -> None:
    optimizer = torch.optim.Adam(module.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        everywhere = center + EPS * (2 * torch.rand(POINTS, PIXELS) - 1)
        spread = RADIUS * EPS * 2 * torch.rand(POINTS, 1)
        nearby = point + spread * torch.randn(POINTS, PIXELS)
        x = torch.cat([point, everywhere, nearby.clamp(0.5 - EPS, 0.5 + EPS)])
        outputs = module(x)
        margin = outputs[:, 0] - outputs[:, 1]
        misses = (margin - _wanted(x, center, corner, point)).square()[1:].mean()
        optimizer.zero_grad()
        (misses + 3 * torch.relu(margin[0] - MARGIN)).backward()
        optimizer.step()
        schedule.step()


def _wanted(x: Tensor, center: Tensor, corner: Tensor, point: Tensor) -> Tensor:
    """The margin: 0.2 at the opposite corner, 1 at the centre, and MARGIN at the counterexample."""
    slope = 1 + 0.8 * ((x - center) * corner).mean(1) / EPS
    share = ((x - point).abs().amax(1) / EPS / RADIUS).clamp(max=1)
    return share * slope + (1 - share) * MARGIN

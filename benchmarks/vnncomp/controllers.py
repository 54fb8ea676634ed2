"""Networks of five inputs and six layers of fifty ReLUs that advise an aeroplane, and the properties of ACAS Xu.

The networks of ACAS Xu (Katz et al., arXiv 1702.01135) rate five advisories (clear of conflict, weak left and right,
strong left and right) by what they cost; the lowest is given. There is one for each of five previous advisories and
nine times to loss of vertical separation. Ours have the same inputs, shape and count, and learn a cost of our own: how
close the other aeroplane comes within forty seconds, and how far the advisory turns from the previous one. The four
properties of Katz et al. that are asked about all networks are asked about ours, with their boxes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise, product

import torch
from torch import Tensor, nn

from certtrain.certify.properties import Property

# Distance ft, direction of and heading of the other, rad, own speed and the other's, ft/s.
LOWER = torch.tensor([0.0, -math.pi, -math.pi, 100.0, 0.0], dtype=torch.float64)
UPPER = torch.tensor([60760.0, math.pi, math.pi, 1200.0, 1200.0], dtype=torch.float64)
# Rates of turn of the advisories, rad/s: 0, 1.5 and 3 degrees, left positive.
TURNS = torch.tensor([0.0, 1.5, -1.5, 3.0, -3.0], dtype=torch.float64) * math.pi / 180
DELAYS = (0.0, 1.0, 5.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0)
HORIZON, MOMENTS, NEAR = 40.0, 21, 4000.0
HIDDEN, STEPS, BATCH = (50,) * 6, 1500, 512
# Far above what a distant aeroplane costs, as the bound of the first property is.
HIGH = 0.75


def network(previous: int, delay: float) -> nn.Module:
    """Trained in a few seconds, in float64, and rounded to float32; inputs are scaled to [-0.5, 0.5]."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1000 * previous + int(delay))
        layers = [layer for a, b in pairwise((5, *HIDDEN)) for layer in (nn.Linear(a, b), nn.ReLU())]
        module = nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 5)).double()
        optimizer = torch.optim.Adam(module.parameters(), 3e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        for _ in range(STEPS):
            scaled = torch.rand(BATCH, 5, dtype=torch.float64) - 0.5
            loss = (module(scaled) - costs((scaled + 0.5) * (UPPER - LOWER) + LOWER, previous, delay)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return module.float().eval().requires_grad_(False)


def costs(x: Tensor, previous: int, delay: float) -> Tensor:
    """What each advisory costs, [batch, 5]: at most 1 for coming close, and up to 0.2 for a change of turn.

    Args:
        x: [batch, 5], in the units of LOWER and UPPER.
        previous: The advisory that was given before.
        delay: Seconds until there is no vertical separation: the longer, the less it matters.
    """
    distance, direction, heading, own, other = x.T[..., None, None]
    times = torch.linspace(0, HORIZON, MOMENTS, dtype=x.dtype)
    turned = TURNS[:, None] * times
    # Along and across the present course; a circle where there is a turn.
    rate = TURNS[:, None].where(TURNS[:, None] != 0, 1.0)
    along = (own * turned.sin() / rate).where(TURNS[:, None] != 0, own * times)
    across = (own * (1 - turned.cos()) / rate).where(TURNS[:, None] != 0, 0.0)
    apart = torch.hypot(
        distance * direction.cos() + other * heading.cos() * times - along,
        distance * direction.sin() + other * heading.sin() * times - across,
    )
    close = torch.exp(-apart.amin(2) / NEAR) * math.exp(-delay / 60)
    return close + 0.2 * (TURNS - TURNS[previous]).abs() / (2 * TURNS.abs().max())


def properties() -> Iterator[tuple[str, Property]]:
    """Name and property; unsafe outputs are stated."""
    far = ([55947.691, -math.pi, -math.pi, 1145.0, 0.0], [60760.0, math.pi, math.pi, 1200.0, 60.0])
    ahead = ([1500.0, -0.06, 3.1, 980.0, 960.0], [1800.0, 0.06, math.pi, 1200.0, 1200.0])
    leaving = ([1500.0, -0.06, 0.0, 1000.0, 700.0], [1800.0, 0.06, 0.0, 1200.0, 800.0])
    others = torch.eye(5, dtype=torch.float64)[1:]
    first = torch.eye(5, dtype=torch.float64)[:1]
    # Clear of conflict costs much; costs most; costs least; costs least.
    for name, (low, high), rows, limits in (
        ("property_1", far, -first, [-HIGH]),
        ("property_2", far, others - first, [0.0] * 4),
        ("property_3", ahead, first - others, [0.0] * 4),
        ("property_4", leaving, first - others, [0.0] * 4),
    ):
        ends = [(torch.tensor(end, dtype=torch.float64) - LOWER) / (UPPER - LOWER) - 0.5 for end in (low, high)]
        yield name, Property.from_constraints(*ends, [(rows, torch.tensor(limits, dtype=torch.float64))])


def networks() -> Iterator[tuple[str, int, float]]:
    """Name, previous advisory and delay of all 45."""
    for previous, (place, delay) in product(range(len(TURNS)), enumerate(DELAYS)):
        yield f"acas_{previous + 1}_{place + 1}", previous, delay

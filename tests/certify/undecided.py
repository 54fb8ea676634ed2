"""A property that takes hours: just below what an attack reaches, far above what bounds prove."""

from itertools import pairwise

import torch
from torch import nn

import certtrain
from certtrain import Property
from certtrain.attacks import PGD

WIDTHS = (40, 100, 100, 100, 2)
# Where between the two.
SHARE = 0.15


def undecided() -> tuple[nn.Module, Property]:
    """A network and the property, over all inputs between 0 and 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [layer for a, b in pairwise(WIDTHS) for layer in (nn.Linear(a, b), nn.ReLU())][:-1]
    model = nn.Sequential(*layers).eval().requires_grad_(False)
    for layer in layers[::2]:
        layer.weight.mul_(2.0)
    box = certtrain.Box(torch.zeros(1, WIDTHS[0]), torch.ones(1, WIDTHS[0]))
    # The attack stops at what is negative.
    _, lowest = PGD(restarts=5).worst(lambda x, _: model(x)[:, :1] + 1e6, box, [(0,)])
    bound = certtrain.bound(model, box, relaxation="deeppoly", sides="lower").lower[0, 0]
    limit = (1 - SHARE) * (float(lowest) - 1e6) + SHARE * float(bound)
    return model, Property.from_constraints(box.lower[0], box.upper[0], [([[1.0, 0.0]], [limit])])

"""Counterexamples met on the way: corners of subdomains, and what lies downhill of them."""

from __future__ import annotations

import torch
from torch import Tensor

from certtrain.certify.search.root import Root


def values(root: Root, points: Tensor, goal: Tensor) -> Tensor:
    """The largest form of each point's goal, [points], evaluated in the points' precision; differentiable."""
    relaxed = root.single if points.dtype == torch.float32 else root.double
    outputs = root.graph.forward(dict(relaxed.region.values), points.reshape(-1, *root.input_shape))
    return relaxed.goals.largest(outputs, goal)


def first_unsafe(root: Root, points: Tensor, goal: Tensor) -> Tensor | None:
    """The first of some points that is unsafe in its own precision."""
    hit = (values(root, points, goal) <= 0).nonzero().flatten()
    return points[hit[0]] if len(hit) else None


def descend(root: Root, points: Tensor, goal: Tensor, steps: int) -> Tensor | None:
    """Projected gradient descent from points of the box; the first unsafe point met."""
    region = root.single.region
    low, high = region.center - region.radius, region.center + region.radius
    x = points
    for step in range(steps):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            found = values(root, x, goal)
            (slope,) = torch.autograd.grad(found.sum(), x)
        hit = (found <= 0).nonzero().flatten()
        if len(hit):
            return x[hit[0]].detach()
        size = region.radius * (0.5 * (1 - step / steps))
        x = torch.minimum(torch.maximum(x.detach() - size * slope.sign(), low), high)
    return first_unsafe(root, x, goal)

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


def deepest_unsafe(root: Root, points: Tensor, goal: Tensor) -> Tensor | None:
    """Of some points, moved into the box, the one deepest among those unsafe in both precisions; float64."""
    points = points if points.dtype == torch.float64 else points.clamp(*root.inner)
    hit = (values(root, points.float(), goal) <= 0).nonzero().flatten()
    exact = points[hit].double().clamp(*root.outer)
    found = values(root, exact, goal[hit]).nan_to_num(nan=torch.inf)
    return exact[found.argmin()] if bool((found <= 0).any()) else None


def descend(root: Root, points: Tensor, goal: Tensor, steps: int) -> Tensor | None:
    """Projected gradient descent from points of the box; an unsafe point, as soon as one is met."""
    low, high = root.inner
    x = points.clamp(low, high)
    for step in range(steps):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            found = values(root, x, goal)
            (slope,) = torch.autograd.grad(found.sum(), x)
        x = x.detach()
        if bool((found <= 0).any()) and (hit := deepest_unsafe(root, x, goal)) is not None:
            return hit
        x = (x - root.single.region.radius * (0.5 * (1 - step / steps)) * slope.sign()).clamp(low, high)
    return deepest_unsafe(root, x, goal)

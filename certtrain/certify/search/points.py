"""Points met on the way: counterexamples, and those at which rounding leaves no proof."""

from __future__ import annotations

import torch
from torch import Tensor

from certtrain.bounds import Box, Given
from certtrain.bounds.relaxation.deeppoly import DeepPoly
from certtrain.certify.search.root import Root

# Points that are looked at for what rounding leaves of their margins.
LOWEST = 8


def values(root: Root, points: Tensor, goal: Tensor) -> Tensor:
    """The largest form of each point's goal, [points], evaluated by the network in the points' precision."""
    relaxed = root.single if points.dtype == torch.float32 else root.double
    outputs = root.graph.forward(dict(root.values[points.dtype]), points.reshape(-1, *root.input_shape))
    return relaxed.goals.largest(outputs, goal)


def estimated(root: Root, points: Tensor, goal: Tensor) -> Tensor:
    """The same up to rounding, [points], by the network that rows are carried through; float32, differentiable."""
    region = root.single.region
    outputs = region.graph.forward(dict(region.values), points.reshape(-1, *root.input_shape))
    return root.single.goals.largest(outputs, goal)


def deepest_unsafe(root: Root, points: Tensor, goal: Tensor) -> Tensor | None:
    """Of some points, moved into the box, the one deepest among those unsafe in both precisions; float64."""
    points = points if points.dtype == torch.float64 else points.clamp(*root.inner)
    hit = (estimated(root, points.float(), goal) <= 0).nonzero().flatten()
    hit = hit[values(root, points[hit].float(), goal[hit]) <= 0]
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
            found = estimated(root, x, goal)
            (slope,) = torch.autograd.grad(found.sum(), x)
        x = x.detach()
        if bool((found <= 0).any()) and (hit := deepest_unsafe(root, x, goal)) is not None:
            return hit
        x = (x - root.single.region.radius * (0.5 * (1 - step / steps)) * slope.sign()).clamp(low, high)
    return deepest_unsafe(root, x, goal)


def lost_to_rounding(root: Root, points: Tensor, goal: Tensor) -> float | None:
    """A bound at one of the points that rounding errors alone leave not positive; None where there is no such point.

    No part of the box that has such a point in it will be closed: however small it is, the errors stay.

    Args:
        root: What they are points of.
        points: [points, *input_shape], perhaps outside the box by what float32 rounds.
        goal: Of each, [points].
    """
    if not root.slack:
        return None
    lowest = estimated(root, points.float(), goal).argsort()[:LOWEST]
    goal, at = goal[lowest], points[lowest].double().clamp(*root.outer)
    goals, slack = root.double.goals, {i: x.expand(len(at), *x.shape[1:]) for i, x in root.slack.items()}
    weights = dict(root.values[torch.float64])
    found = DeepPoly().analyse(root.graph, weights, Box(at, at), goals.forms[goal], "lower", Given(slack=slack))
    bound = (found.bounds.lower - root.charged.forms[goal] + goals.constants[goal]).amax(1)
    return float(bound.min()) if bool((bound <= 0).any()) else None

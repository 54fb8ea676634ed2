"""Shi's regularisers (Shi et al., NeurIPS 2021): what keeps interval bounds usable while eps grows."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from certtrain.activations import Interval
from certtrain.bounds.forward.interval import propagate_intervals
from certtrain.losses.problem import Problem
from certtrain.networks.graph import Params

# Below it a ratio is penalised (published as tol).
TOLERANCE = 0.5


def shi_penalty(problem: Problem, params: Params) -> Float[Tensor, " batch"]:
    """(L_tightness + L_relu) / layers of each image, by intervals; at most 3.

    L_tightness asks that the mean width before an activation is at most twice that of the input, L_relu that the active
    and the inactive neurons of a layer balance each other, in mean and in variance. The public code takes both of a
    whole batch; here they are of each image, so that a batch may be divided among processes. A layer without stable
    neurons has no balance and adds nothing to L_relu.

    Args:
        problem: Its box must have a width.
        params: See `Loss`.
    """
    graph, box = problem.graph, problem.box
    found = propagate_intervals(graph, graph.values(params, problem.inputs), box)
    width = box.radius.flatten(1).mean(1)
    total = torch.zeros_like(width)
    places = [op.inputs[0] for _, op in graph.activations]
    for place in places:
        total = total + _short(width / _radius(found[place]).mean(1).clamp(min=1e-12)) + _imbalance(found[place])
    return total / max(len(places), 1)


def _short(ratio: Tensor) -> Tensor:
    """How far a ratio is below the tolerance, as a share of it."""
    return (TOLERANCE - ratio).clamp(min=0) / TOLERANCE


def _radius(bounds: Interval) -> Tensor:
    return ((bounds.upper - bounds.lower) / 2).flatten(1)


def _imbalance(bounds: Interval) -> Float[Tensor, " batch"]:
    center = ((bounds.upper + bounds.lower) / 2).flatten(1)
    active, inactive = (bounds.lower > 0).flatten(1).to(center), (bounds.upper < 0).flatten(1).to(center)
    spread = (center - center.mean(1, keepdim=True)).square()
    means = _balance((center * active).mean(1), -(center * inactive).mean(1))
    variances = _balance((spread * active).mean(1), (spread * inactive).mean(1))
    return _short(means) + _short(variances)


def _balance(one: Tensor, other: Tensor) -> Tensor:
    """The smaller of two numbers that are not negative over the larger; 1 where both are nothing."""
    larger = torch.maximum(one, other)
    some = larger > 0
    return (torch.minimum(one, other) / larger.where(some, torch.ones_like(larger))).where(some, torch.ones_like(one))

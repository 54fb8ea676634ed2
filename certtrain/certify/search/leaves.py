"""Subdomains in which nothing is left to split: the network is affine there, and linear programming decides them.

The program is min t + P s over x in the box, t >= every form of the goal, s >= 0, sign · z_i(x) + s >= 0 for every
decided neuron. It always has a solution; its dual variables are weights of the forms and multipliers of the splits, so
that what proves the subdomain, empty ones included, is a bound like every other, and HiGHS need not be trusted. Where
rounding is accounted for, z_i is anything between two parallel forms, and the program takes the one that allows more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from certtrain.bounds.optimised.choice import Choice
from certtrain.bounds.optimised.passes import Start, backward
from certtrain.certify.search.root import Root
from certtrain.certify.search.subdomains import Subdomains

# The price of violating a split, in units of the forms per unit of the pre-activations. It bounds all multipliers.
PRICE = 1e4


@dataclass(frozen=True)
class Leaf:
    """What linear programming found.

    Attributes:
        lower: The bound that its multipliers prove, float64.
        point: The best point, [*input_shape], float64.
    """

    lower: float
    point: Tensor


def solve(root: Root, leaf: Subdomains, seconds: float = math.inf) -> Leaf:
    """Decides one subdomain without anything left to split.

    Args:
        root: What it is part of.
        leaf: One subdomain.
        seconds: After which the program is given up: the bound is minus infinity then, as it is where the numbers are
            not finite.
    """
    from scipy.optimize import linprog  # half a second to import, for a case that is rare

    relaxed, signs = root.double, leaf.decisions[0]
    columns = signs.nonzero().flatten()
    forms, constants = _affine(root, leaf, columns)
    goal = int(leaf.goal[0])
    outputs, offset = _over_inputs(root, leaf, len(root.graph.ops) - 1, relaxed.goals.forms[goal])
    offset = offset + relaxed.goals.constants[goal]
    # Rows [x, t, s] <= right-hand side.
    above = torch.cat([outputs, -torch.ones(len(outputs), 1), torch.zeros(len(outputs), 1)], dim=1)
    inside = torch.cat([forms, torch.zeros(len(columns), 1), -torch.ones(len(columns), 1)], dim=1)
    limits = -torch.cat([offset, constants])
    low, high = ((relaxed.region.center + k * relaxed.region.radius).flatten() for k in (-1, 1))
    bounds = [*zip(low.tolist(), high.tolist(), strict=True), (None, None), (0, None)]
    objective = np.zeros(len(bounds))
    objective[-2:] = 1.0, PRICE
    matrix = torch.cat([above, inside])
    undecided = Leaf(-torch.inf, relaxed.region.center[0])
    if not (matrix.isfinite().all() and limits.isfinite().all()):
        return undecided
    options = {"time_limit": max(seconds, 0.0)} if seconds < math.inf else {}
    found = linprog(objective, matrix.numpy(), limits.numpy(), bounds=bounds, method="highs", options=options)
    if found.status != 0:
        return undecided
    duals = torch.from_numpy(-np.asarray(found.ineqlin.marginals)).clamp(min=0)
    multipliers = torch.zeros(1, len(signs), dtype=torch.float64)
    multipliers[0, columns] = duals[len(outputs) :]
    weights = duals[None, : len(outputs)]
    total = weights.sum()
    weights = weights / total if total > 0 else torch.full_like(weights, 1 / weights.shape[1])
    choice = Choice(leaf.choice.slopes, multipliers, weights if weights.shape[1] > 1 else None)
    lower = root.proved(leaf.decisions, leaf.goal, choice)
    point = torch.from_numpy(found.x[:-2]).reshape(root.input_shape)
    return Leaf(float(lower), point)


def _affine(root: Root, leaf: Subdomains, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Forms of the input that are at most -sign · z at columns, [columns, inputs], and their constants."""
    inputs = root.double.region.center.numel()
    forms, constants = [torch.zeros(0, inputs).double()], [torch.zeros(0).double()]
    room = torch.zeros(root.space.size).double() if root.double.below is None else -root.double.below[0]
    for part in root.space.parts:
        own = columns[(columns >= part.columns.start) & (columns < part.columns.stop)]
        if not len(own):
            continue
        places = own - part.columns.start
        places = places if part.elements is None else part.elements[places]
        rows = torch.zeros(len(own), root.pruned.graph.ops[part.read].size, dtype=torch.float64)
        rows[torch.arange(len(own)), places] = -leaf.decisions[0, own].double()
        found = _over_inputs(root, leaf, part.read, rows)
        forms.append(found[0])
        constants.append(found[1] - room[own])
    return torch.cat(forms), torch.cat(constants)


def _over_inputs(root: Root, leaf: Subdomains, index: int, forms: Tensor) -> tuple[Tensor, Tensor]:
    """Rows over an output as forms of the input that are at most as large, and equal where lines are exact."""
    repeated = torch.zeros(len(forms), dtype=torch.int64)
    rows = root.rows(root.double, leaf.decisions[repeated], leaf.goal[repeated])
    region, _ = rows.held(leaf.choice.map(lambda x: x[repeated].double()))
    start = Start(index, forms.reshape(-1, *root.pruned.graph.ops[index].shape), torch.zeros(len(forms)).double())
    found = backward(region, start)
    return found.form.flatten(1), found.constant

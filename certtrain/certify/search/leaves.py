"""Subdomains in which nothing is left to split: the network is affine there, and linear programming decides them.

The program is min t + P s over x in the box, t >= every form of the goal, s >= 0, sign · z_i(x) + s >= 0 for every
decided neuron. It always has a solution; its dual variables are weights of the forms and multipliers of the splits, so
that what proves the subdomain, empty ones included, is a bound like every other, and HiGHS need not be trusted. Where
rounding is accounted for, z_i is anything between two parallel forms, and the program takes the one that allows more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from certtrain.bounds.optimised.choice import Choice
from certtrain.bounds.optimised.passes import Start, backward
from certtrain.bounds.optimised.space import Part
from certtrain.certify.search.root import Root
from certtrain.certify.search.subdomains import Subdomains
from certtrain.deadline import check_deadline

# Rows over pre-activations that are carried back together, of as many leaves as they belong to.
ROWS = 4096
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


@dataclass(frozen=True)
class _Program:
    """Of one leaf: affine forms of the input, and their constants.

    Attributes:
        outputs: The goal's forms, [forms, inputs], and [forms].
        splits: At most -sign · z at decided columns, [columns, inputs], and [columns].
        columns: These, ascending.
    """

    outputs: tuple[Tensor, Tensor]
    splits: tuple[Tensor, Tensor]
    columns: Tensor


@dataclass(frozen=True)
class _Optimum:
    """Where a program has its minimum, and the dual variables of its rows; of none, where it was not solved."""

    point: Tensor
    duals: Tensor | None


def together(leaves: Subdomains) -> int:
    """How many of these should be solved at a time."""
    decided = int((leaves.decisions != 0).sum(1).amax()) if len(leaves) else 1
    return max(1, ROWS // max(decided, 1))


def solve(root: Root, leaves: Subdomains) -> list[Leaf]:
    """Decides subdomains without anything left to split; bounds are minus infinity where numbers are not finite.

    Args:
        root: What they are parts of.
        leaves: At most as many as `together` says.

    Raises:
        OutOfTime: If the deadline has passed.
    """
    optima = [_optimum(root, program, check_deadline()) for program in _programs(root, leaves)]
    forms = root.double.goals.forms.shape[1]
    multipliers = torch.zeros(len(leaves), root.space.size, dtype=torch.float64)
    weights = torch.full((len(leaves), forms), 1 / forms, dtype=torch.float64)
    for row, optimum in enumerate(optima):
        if optimum.duals is not None:
            multipliers[row, leaves.decisions[row] != 0] = optimum.duals[forms:]
            if (total := optimum.duals[:forms].sum()) > 0:
                weights[row] = optimum.duals[:forms] / total
    choice = Choice(leaves.choice.slopes, multipliers, weights if forms > 1 else None)
    lower = root.proved(leaves.decisions, leaves.goal, choice).tolist()
    return [
        Leaf(-math.inf if optimum.duals is None else bound, optimum.point)
        for bound, optimum in zip(lower, optima, strict=True)
    ]


def _optimum(root: Root, program: _Program, seconds: float) -> _Optimum:
    from scipy.optimize import linprog  # half a second to import, for a case that is rare

    region = root.double.region
    (outputs, offset), (forms, constants) = program.outputs, program.splits
    # Rows [x, t, s] <= right-hand side.
    above = torch.cat([outputs, -torch.ones(len(outputs), 1), torch.zeros(len(outputs), 1)], dim=1)
    inside = torch.cat([forms, torch.zeros(len(forms), 1), -torch.ones(len(forms), 1)], dim=1)
    matrix, limits = torch.cat([above, inside]), -torch.cat([offset, constants])
    unsolved = _Optimum(region.center[0], None)
    if not (matrix.isfinite().all() and limits.isfinite().all()):
        return unsolved
    low, high = ((region.center + k * region.radius).flatten() for k in (-1, 1))
    bounds = [*zip(low.tolist(), high.tolist(), strict=True), (None, None), (0, None)]
    objective = np.zeros(len(bounds))
    objective[-2:] = 1.0, PRICE
    options = {"time_limit": seconds} if seconds < math.inf else {}
    found = linprog(objective, matrix.numpy(), limits.numpy(), bounds=bounds, method="highs", options=options)
    if found.status != 0:
        return unsolved
    duals = torch.from_numpy(-np.asarray(found.ineqlin.marginals)).clamp(min=0)
    return _Optimum(torch.from_numpy(found.x[:-2]).reshape(root.input_shape), duals)


def _programs(root: Root, leaves: Subdomains) -> Iterator[_Program]:
    """One of each leaf; what they are made of is carried back together."""
    goals, count = root.double.goals, len(leaves)
    each = goals.forms.shape[1]
    owner = torch.arange(count).repeat_interleave(each)
    outputs, offsets = _over_inputs(root, leaves, owner, root.double.output, goals.forms[leaves.goal].flatten(0, 1))
    offsets = offsets + goals.constants[leaves.goal].flatten()
    parts = [_splits(root, leaves, part) for part in root.double.space.parts]
    for leaf in range(count):
        own = slice(leaf * each, (leaf + 1) * each)
        found = [tuple(x[owners == leaf] for x in (forms, constants)) for owners, forms, constants in parts]
        forms, constants = (torch.cat(x) for x in zip(*found, strict=True)) if found else (outputs[:0], offsets[:0])
        columns = leaves.decisions[leaf].nonzero().flatten()
        yield _Program((outputs[own], offsets[own]), (forms, constants), columns)


def _splits(root: Root, leaves: Subdomains, part: Part) -> tuple[Tensor, Tensor, Tensor]:
    """Forms of the input that are at most -sign · z at decided columns: the leaf of each, the forms, constants."""
    signs = leaves.decisions[:, part.columns]
    owner, places = signs.nonzero(as_tuple=True)
    elements = places if part.elements is None else part.elements[places]
    rows = torch.zeros(len(owner), root.double.region.graph.ops[part.read].size, dtype=torch.float64)
    rows[torch.arange(len(owner)), elements] = -signs[owner, places].double()
    forms, constants = _over_inputs(root, leaves, owner, part.read, rows)
    if root.double.below is not None:
        constants = constants + root.double.below[0, part.columns][places]
    return owner, forms, constants


def _over_inputs(root: Root, leaves: Subdomains, owner: Tensor, index: int, forms: Tensor) -> tuple[Tensor, Tensor]:
    """Rows over an output as forms of the input that are at most as large, and equal where lines are exact.

    Args:
        root: What the leaves are parts of.
        leaves: Some.
        owner: The leaf of each row, [rows].
        index: The operation.
        forms: [rows, elements of its output].
    """
    if not len(owner):
        return torch.zeros(0, root.double.region.center.numel()).double(), torch.zeros(0).double()
    rows = root.rows(root.double, leaves.decisions[owner], leaves.goal[owner])
    region, _ = rows.held(leaves.choice.map(lambda x: x[owner].double()))
    start = Start(
        index, forms.reshape(-1, *root.double.region.graph.ops[index].shape), torch.zeros(len(forms)).double()
    )
    found = backward(region, start)
    return found.form.flatten(1), found.constant

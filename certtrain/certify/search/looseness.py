"""How much of a bound's looseness each input is to blame for: halving that one promises most.

A bound is the value of the network whose activations are replaced by lines, at a corner of the box. What it loses is
what the lines lose at undecided neurons, times their coefficients, and a neuron is undecided because inputs have
widths. So each neuron's loss is shared out among inputs, by how far each of them moves that neuron on its way across
the box, in the very network that the bound is the value of. (An input's own coefficient, which smart branching for ACAS
Xu goes by, in alpha,beta-CROWN, says nothing of this: it is zero where the lines of undecided neurons cancel.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from certtrain.activations import Interval
from certtrain.bounds.optimised.passes import Backward, forward
from certtrain.bounds.optimised.region import Held, Region
from certtrain.deadline import check_deadline

# Bytes of the values that points have, which are taken through the network together.
MEMORY = 1 << 28
# Numbers of a point for every element of an operation: its value, its coefficient, and three of its lines.
COPIES = 5
TINY = 1e-30


def looseness(region: Region, hidden: Mapping[int, Interval], found: Backward) -> Tensor:
    """What each input adds to what a row loses, [rows, inputs]; zero for inputs without a width.

    Args:
        region: The network on the rows' boxes.
        hidden: Bounds of what activations read, a row each.
        found: The rows' bounds there.

    Raises:
        OutOfTime: If the deadline has passed.
    """
    width = 2 * region.radius.flatten(1)
    inputs = (width > 0).any(0).nonzero().flatten()
    blame = torch.zeros_like(width)
    of_point = COPIES * width.element_size() * sum(op.size for op in region.graph.ops)
    together = max(1, MEMORY // (of_point * (len(inputs) + 1)))
    for rows in torch.arange(len(width), device=width.device).split(together):
        check_deadline()
        blame[rows[:, None], inputs] = _blame(region, hidden, found, rows, inputs)
    return blame


def _blame(region: Region, hidden: Mapping[int, Interval], found: Backward, rows: Tensor, inputs: Tensor) -> Tensor:
    points = _across(region, found.corner, rows, inputs)
    each = rows.repeat_interleave(points.shape[1])
    coefficients = {i: x[each] for i, x in found.coefficients.items()}
    start = replace(found, corner=points.flatten(0, 1), coefficients=coefficients)
    values = forward(region.rows(each), start)
    blame = points.new_zeros(len(rows), len(inputs))
    for index, row in found.coefficients.items():
        (read,) = region.graph.ops[index].inputs
        z = values[read].reshape(*points.shape[:2], -1)
        moved = (z[:, 1:] - z[:, :1]).abs()
        lost = row[rows].flatten(1).abs() * _area(region.held[index], hidden[read])[rows]
        shares = moved / moved.sum(1, keepdim=True).clamp(min=TINY)
        blame += (shares @ lost[:, :, None]).squeeze(2)
    return blame


def _across(region: Region, corner: Tensor, rows: Tensor, inputs: Tensor) -> Tensor:
    """Each row's corner, and what it is with one input moved by its width, [rows, 1 + inputs, *input_shape].

    Which way does not matter, nor whether that leaves the box: between lines that are chosen, the network is affine.
    """
    at = corner[rows]
    other = (at + 2 * region.radius[rows]).flatten(1)
    points = at.flatten(1)[:, None].repeat(1, 1 + len(inputs), 1)
    places = torch.arange(len(inputs), device=at.device)
    points[:, 1 + places, inputs] = other[:, inputs]
    return points.unflatten(2, at.shape[1:])


def _area(line: Held, z: Interval) -> Tensor:
    """Mean distance of upper and lower line, [rows, inputs of the activation]."""
    below = 0.0 if line.lower_intercept is None else line.lower_intercept
    return ((line.upper - line.lower) * z.center + line.intercept - below).clamp(min=0).flatten(1)

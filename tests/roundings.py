"""The worst that rounding could do to a network: every operation's error is chosen by whoever wants a small margin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from random import Random

import torch
from torch import Tensor

from certtrain.bounds import Box
from certtrain.certify.network import Network
from certtrain.networks.ops import Activation, Add, ChannelAffine, Input, LinearMap, Op, Reshape, Values
from certtrain.networks.rules import Propagation, Rules


@dataclass
class _Rounded:
    """One evaluation in float64 whose operations are off by a share of up to `unit`.

    Attributes:
        values: Parameters.
        x: Inputs.
        unit: The largest relative error of one operation.
        order: Chooses the order of sums.
        errors: Of the operations in turn, in units: between -1 and 1.
    """

    values: Values
    x: Tensor
    unit: float
    order: Random
    errors: dict[int, Tensor]
    taken: list[Tensor] = field(default_factory=list)

    def round(self, exact: Tensor) -> Tensor:
        error = self.errors.setdefault(len(self.taken), torch.rand_like(exact) * 2 - 1).detach().requires_grad_()
        self.taken.append(error)
        return exact * (1 + self.unit * error)

    def linear(self, index: int, op: LinearMap, x: Tensor) -> Tensor:
        """Products, and their sum in some order."""
        matrix = op.adjoint(self.values, torch.eye(op.size).double().reshape(op.size, *op.shape)).flatten(1)
        terms = list(self.round(matrix * x.flatten(1)[:, None]).unbind(2))
        if (offset := op.offset(self.values)) is not None:
            terms.append(offset.expand(op.shape).flatten().expand(len(x), -1))
        self.order.shuffle(terms)
        return reduce(lambda a, b: self.round(a + b), terms).reshape(len(x), *op.shape)

    def affine(self, index: int, op: ChannelAffine, x: Tensor) -> Tensor:
        offset = op.offset(self.values)
        assert offset is not None
        return self.round(self.round(op.forward_linear(self.values, x)) + offset)


RULES: Rules[Callable[..., Tensor]] = Rules(
    "evaluation by an adversary",
    {
        Input: lambda run, index, op: run.x,
        Add: lambda run, index, op, *terms: reduce(lambda a, b: run.round(a + b), terms),
        Activation: lambda run, index, op, z: op.function(z),
        Reshape: lambda run, index, op, x: op.forward(run.values, x),
        ChannelAffine: _Rounded.affine,
        LinearMap: _Rounded.linear,
    },
)


def smallest_value(
    network: Network,
    box: Box,
    points: Tensor,
    value: Callable[[Tensor], Tensor],
    unit: float,
    orders: int = 2,
    steps: int = 12,
) -> float:
    """The smallest value of outputs that points of a box and roundings were found to have.

    Args:
        network: What is evaluated.
        box: float64.
        points: Where to begin, [points, *input_shape].
        value: Outputs [points, outputs] -> values [points].
        unit: The largest relative error of one operation.
        orders: How many orders of summation are tried.
        steps: Of the gradient, by turns in all errors, which go to their ends, and in the points.
    """
    ops: tuple[Op, ...] = network.graph.ops
    values, smallest = network.graph.values(dict(network.values[torch.float64]), points), torch.inf
    for order in range(orders):
        torch.manual_seed(order)
        x, errors = points, dict[int, Tensor]()
        for step in range(steps):
            x = x.detach().requires_grad_()
            run = _Rounded(values, x, unit, Random(order), errors)
            with torch.enable_grad():
                found = value(Propagation(ops, RULES, run).at(len(ops) - 1))
                by_x, *by_errors = torch.autograd.grad(found.sum(), [x, *run.taken])
            smallest = min(smallest, float(found.detach().min()))
            if step % 2:
                move = 0.3 * (1 - step / steps) * (box.upper - box.lower) * by_x.sign()
                x = (x.detach() - move).clamp(box.lower, box.upper)
            else:
                taken = enumerate(zip(run.taken, by_errors, strict=True))
                errors = {i: torch.where(by == 0, error.detach(), -by.sign()) for i, (error, by) in taken}
    return smallest

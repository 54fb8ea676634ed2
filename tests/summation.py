"""A network in float32, every sum of products in an order of its own: what no library promises not to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from random import Random

import torch
from torch import Tensor

from certtrain.networks import Graph, Params
from certtrain.networks.ops import Activation, Add, BatchNorm, ChannelAffine, ElementConstants, Input, LinearMap, Op
from certtrain.networks.rules import Propagation, Rules


@dataclass(frozen=True)
class InAnyOrder:
    """One evaluation.

    Attributes:
        params: In float32.
        x: Inputs in float32.
        random: Chooses orders, and between rounded products and fused ones.
    """

    params: Params
    x: Tensor
    random: Random

    def linear(self, index: int, op: LinearMap, x: Tensor) -> Tensor:
        offset = op.offset(self.params)
        rows = torch.eye(op.size).reshape(op.size, *op.shape)
        matrix = op.adjoint(self.params, rows).flatten(1)
        terms = [(matrix[:, i], x.flatten(1)[:, i, None]) for i in range(matrix.shape[1])]
        self.random.shuffle(terms)
        if offset is not None:
            bias = offset.expand(op.shape).flatten()
            terms.insert(self.random.choice([0, len(terms)]), (bias, torch.ones(len(x), 1)))
        adding = self.random.choice([one_by_one, fused, in_halves])
        return adding(terms).reshape(len(x), *op.shape)

    def batch_norm(self, index: int, op: BatchNorm, x: Tensor) -> Tensor:
        """In one of the ways in which libraries do it."""
        p, spread = self.params, (-1, *[1] * (len(op.shape) - 1))
        mean, inverse = p[op.mean], 1 / (p[op.variance] + op.epsilon).sqrt()
        weight = torch.ones_like(mean) if op.weight is None else p[op.weight]
        bias = torch.zeros_like(mean) if op.bias is None else p[op.bias]
        if self.random.random() < 0.5:
            scale = weight * inverse
            return x * scale.reshape(spread) + (bias - mean * scale).reshape(spread)
        return (x - mean.reshape(spread)) * inverse.reshape(spread) * weight.reshape(spread) + bias.reshape(spread)


def one_by_one(terms: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Each product rounded, then each sum."""
    return reduce(torch.add, [w * x for w, x in terms])


def fused(terms: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Each product and sum rounded once."""
    total = torch.zeros(len(terms[0][1]), len(terms[0][0]))
    for w, x in terms:
        total = (w.double() * x.double() + total.double()).float()
    return total


def in_halves(terms: list[tuple[Tensor, Tensor]]) -> Tensor:
    """As a tree."""
    if len(terms) == 1:
        return terms[0][0] * terms[0][1]
    middle = len(terms) // 2
    return in_halves(terms[:middle]) + in_halves(terms[middle:])


def _scales(op: Op) -> bool:
    return isinstance(op, (ChannelAffine, ElementConstants))


def _linear(run: InAnyOrder, index: int, op: LinearMap, x: Tensor) -> Tensor:
    return op.forward(run.params, x) if _scales(op) else run.linear(index, op, x)


RULES: Rules[Callable[..., Tensor]] = Rules(
    "evaluation in any order",
    {
        Input: lambda run, index, op: run.x,
        Add: lambda run, index, op, *terms: reduce(torch.add, run.random.sample(terms, len(terms))),
        Activation: lambda run, index, op, z: op.function(z),
        LinearMap: _linear,
        BatchNorm: InAnyOrder.batch_norm,
    },
)


def results(graph: Graph, params: Params, x: Tensor, random: Random) -> list[Tensor]:
    """The output of every operation in float32.

    Args:
        graph: The network.
        params: float32.
        x: Inputs, float32.
        random: Chooses orders.
    """
    values = graph.values(params, x)
    return Propagation(graph.ops, RULES, InAnyOrder(values, x, random)).all()

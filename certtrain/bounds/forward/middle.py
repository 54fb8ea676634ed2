"""What bounds are symmetric around where every activation lies between parallel lines (HBox, zonotopes).

A row then has a lower bound as far below its value at the middle as its upper bound is above, so that one of them and a
single forward pass give both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from certtrain.activations import Lines
from certtrain.bounds.analysis import channels_first
from certtrain.bounds.base import Box
from certtrain.networks.graph import Graph
from certtrain.networks.ops import Activation, Add, Input, LinearMap, Values
from certtrain.networks.rules import Propagation, Rules


@dataclass(frozen=True)
class _Halfway:
    values: Values
    box: Box
    lines: Mapping[int, Lines]

    def activation(self, index: int, op: Activation, z: Tensor) -> Tensor:
        line = self.lines[index].map(channels_first)
        return op.function.collect(line.lower_slope * z + line.middle_intercept)


MIDDLES: Rules[Callable[..., Tensor]] = Rules(
    "middles of zonotopes",
    {
        Input: lambda context, index, op: context.box.center,
        Add: lambda context, index, op, *terms: reduce(torch.add, terms),
        Activation: _Halfway.activation,
        LinearMap: lambda context, index, op, x: op.forward(context.values, x),
    },
)


def middles(graph: Graph, values: Values, box: Box, lines: Mapping[int, Lines]) -> Propagation[_Halfway, Tensor]:
    """The box's centre, carried forward halfway between the lines: the value [batch, *shape] of every operation.

    Args:
        graph: The network.
        values: Parameters and buffers.
        box: Its inputs.
        lines: Of every activation, channels last; they may be filled in as operations are asked for.
    """
    return Propagation(graph.ops, MIDDLES, _Halfway(values, box, lines))

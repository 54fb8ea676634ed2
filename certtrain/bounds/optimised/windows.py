"""Rows over single pixels of a convolution's output: all that they depend on is a window of every layer before.

Around one pixel a convolutional network is a small network of matrices, the same at all positions; what differs from
row to row is which part of the box and of the lines it is given. Outside a layer its windows have lines that are zero,
which is what padding puts there.

In floating point a bound is the sum of the same products as layer by layer, with no more roundings on the way of any of
them than `bounds/rounding` counts (docs/concepts/verdicts.md, 2), so that the same slack covers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import Tensor

from certtrain.activations import Interval
from certtrain.bounds.optimised.choice import Rows
from certtrain.bounds.optimised.objectives import UnitRows
from certtrain.bounds.optimised.region import Region
from certtrain.bounds.optimised.space import Part, Space
from certtrain.bounds.rows.patches import window_matrix
from certtrain.bounds.rows.reach import Reach, Where
from certtrain.networks.graph import Graph, Params
from certtrain.networks.ops import Activation, ChannelAffine, Input, Linear, LinearMap, Op, Values, WindowMap


@dataclass(frozen=True)
class Layer:
    """A matrix between two windows, and the activation that it reads.

    Attributes:
        weight: [elements of the window of its output, of its input], each in the order [*kernel, channels].
        bias: [elements of the window of its output].
        read: The window of its input.
        activation: Of the whole network, that has made its input; None for the first layer.
    """

    weight: Tensor
    bias: Tensor
    read: Reach
    activation: int | None


@dataclass(frozen=True)
class Windows:
    """The small network.

    Attributes:
        layers: In the order of the network.
        target: The positions of the operation that rows are over.
        center: Of the boxes of what the first layer reads, [images or 1, channels, height, width].
        radius: Half of their widths.
    """

    layers: tuple[Layer, ...]
    target: Reach
    center: Tensor
    radius: Tensor

    @property
    def products(self) -> int:
        """What a pass costs a row, which begins at the first activations before it."""
        return sum(layer.weight.numel() for layer in self.layers[:-1])

    @property
    def width(self) -> int:
        """Numbers of all its layers."""
        return sum(layer.read.size for layer in self.layers)

    def rows(self, region: Region, hidden: Mapping[int, Interval], images: Tensor, objective: UnitRows) -> Rows:
        """The same rows over the small network.

        Args:
            region: Of the whole network.
            hidden: Operation that an activation reads -> bounds of its output.
            images: Of each row.
            objective: Rows over the whole layer.
        """
        pixels = self.target.positions
        where, channel = Where(images, objective.places % pixels), objective.places // pixels
        graph, functions = self._graph(region.graph), dict(region.graph.activations)
        held, free, parts, first = {}, [], list[Part](), 0
        for place, layer in enumerate(self.layers):
            if layer.activation is None:
                continue
            read, index = 2 * place - 1, 2 * place
            line = region.held[layer.activation]
            held[index] = line.map(partial(_taken, layer.read, where))
            op = functions[layer.activation]
            mask = op.function.free(hidden[op.inputs[0]])
            if mask is not None:
                free.append(_taken(layer.read, where, mask.to(objective.factors.dtype)) > 0)
                parts.append(Part(index, read, None, slice(first, first := first + layer.read.size)))
        center, radius = (_taken(self.layers[0].read, where, x) for x in (self.center, self.radius))
        small = Region(graph, self._values, center, radius, held)
        start = UnitRows(channel, objective.factors).start(len(graph.ops) - 1, (self.target.layer[0],))
        columns = torch.cat([start.data[:, :0] > 0, *free], dim=1)
        return Rows(small, Space(tuple(parts)), start, columns)

    @property
    def _values(self) -> Params:
        names = (("weight", "bias", layer.weight, layer.bias) for layer in self.layers)
        return {f"windows.{i}.{n}": x for i, (w, b, *two) in enumerate(names) for n, x in zip((w, b), two, strict=True)}

    def _graph(self, whole: Graph) -> Graph:
        shape = (self.layers[0].read.size,)
        ops: list[Op] = [Input("input", (), shape)]
        for place, layer in enumerate(self.layers):
            if layer.activation is not None:
                op = whole.ops[layer.activation]
                assert isinstance(op, Activation)
                ops.append(Activation(op.name, (len(ops) - 1,), shape, op.function))
            name, before, shape = f"windows.{place}", shape, (len(layer.bias),)
            ops.append(Linear(name, (len(ops) - 1,), shape, before, f"{name}.weight", f"{name}.bias"))
        return Graph(tuple(ops), whole.module, (self.layers[0].read.size,), self.target.layer[0])


def _taken(reach: Reach, where: Where, layer: Tensor) -> Tensor:
    """Each row's window of a layer, [images or 1, channels, height, width] -> [rows, elements]."""
    assert isinstance(where.images, Tensor)
    images = torch.zeros_like(where.images) if len(layer) == 1 else where.images
    return reach.patches(layer.movedim(1, -1), Where(images, where.positions)).flatten(1)


def find_windows(region: Region, target: int) -> Windows | None:
    """The small network around a pixel of an operation's output; None where there is none, or it is as large.

    Args:
        region: The whole network on boxes.
        target: The operation.
    """
    graph, values, like = region.graph, region.values, region.center
    if len(graph.ops[target].shape) != 3:
        return None
    reach = Reach.pixels(graph.ops[target].shape)
    layers, index, positions = list[Layer](), target, reach
    while True:
        scale, shift, index = _channels(graph, values, index, like)
        op = graph.ops[index]
        if not (isinstance(op, WindowMap) and op.uniform):
            return None
        before, pixels = reach.through(op), prod(reach.kernel)
        if before.covers_layer:
            return None
        offset = op.offset(values)
        bias = torch.zeros_like(shift) if offset is None else offset.flatten()
        weight = window_matrix(reach, op, values, like) * scale.repeat(pixels)[:, None]
        index = op.inputs[0]
        read = graph.ops[index]
        ends = not (isinstance(read, Activation) and index in region.held)
        layers.append(Layer(weight, (bias * scale + shift).repeat(pixels), before, None if ends else index))
        if ends:
            box = _boxes(graph, region, index)
            return None if box is None else Windows(tuple(reversed(layers)), positions, *box)
        assert isinstance(read, Activation)
        if not read.function.element_wise:
            return None
        reach, index = before, read.inputs[0]


def _channels(graph: Graph, values: Values, index: int, like: Tensor) -> tuple[Tensor, Tensor, int]:
    """Scale and shift of what follows a window channel by channel, [channels], and the operation before these."""
    channels = graph.ops[index].shape[0]
    scale, shift = like.new_ones(channels), like.new_zeros(channels)
    while isinstance(op := graph.ops[index], ChannelAffine):
        own = op.scale(values)
        scale, shift, index = scale * own, shift + scale * op.shift(values), op.inputs[0]
    return scale, shift, index


def _boxes(graph: Graph, region: Region, index: int) -> tuple[Tensor, Tensor] | None:
    """Centres and radii of an operation's output, [images, channels, height, width], where boxes are boxes there."""
    way = []
    while index:
        op = graph.ops[index]
        if not (isinstance(op, LinearMap) and op.keeps_boxes):
            return None
        way.append(op)
        index = op.inputs[0]
    center, radius = region.center, region.radius
    for op in reversed(way):
        center, radius = op.forward(region.values, center), op.forward_abs(region.values, radius)
    return (center, radius) if center.dim() == 4 else None

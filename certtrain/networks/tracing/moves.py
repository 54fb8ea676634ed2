"""Whatever only moves elements: reshapes, slices, transpositions, shuffles, padding, concatenation.

None of them is translated by itself. Each is done to numbered elements, and where the numbers went is the operation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from certtrain.networks.ops import Add, ChannelGather, Gather, LinearMap, Op, Reshape, Shape, Window
from certtrain.networks.tracing.builder import Builder
from certtrain.networks.tracing.recording import PROBE_BATCH, ancestors


def numbered(shape: Shape) -> Tensor:
    """A batch whose elements are numbered from one on, as floats, which all moves take; zero comes from nowhere."""
    size = PROBE_BATCH * torch.Size(shape).numel()
    return torch.arange(1, size + 1, dtype=torch.float64).reshape(PROBE_BATCH, *shape)


def replay(builder: Builder, node: fx.Node, given: Mapping[fx.Node, Tensor]) -> Any:
    """A node's result if some nodes had other ones; all further nodes on the way are computed again."""

    def value(read: fx.Node) -> Any:
        if read in given:
            return given[read]
        on_the_way = builder.is_tuple(read) or (read.op != "get_attr" and not given.keys().isdisjoint(ancestors(read)))
        if on_the_way:
            return replay(builder, read, given)
        # Numbers are on the CPU, wherever the network is.
        result = builder.results[read]
        return result.cpu() if isinstance(result, Tensor) else result

    args, kwargs = fx.node.map_arg(node.args, value), fx.node.map_arg(node.kwargs, value)
    if node.op == "call_module":
        return builder.layers[str(node.target)](*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert callable(node.target)
    return node.target(*args, **kwargs)


def move(builder: Builder, node: fx.Node) -> None:
    """A node that moves the elements of one other."""
    source = one_source(builder, node)
    found = replay(builder, node, {source: numbered(builder.shape(source))})
    op = gathering(builder, node, source, found)
    if op is None:
        builder.index[node] = builder.index[source]
    else:
        builder.append(node, op)


def move_layer(builder: Builder, node: fx.Node, layer: nn.Module) -> None:
    """The same by a module."""
    move(builder, node)


def concatenate(builder: Builder, node: fx.Node) -> None:
    """A sum of parts, each in its place among zeros."""
    sources = builder.sources(node)
    if any(n not in builder.index for n in node.all_input_nodes):
        builder.refuse(node, "only layers' outputs can be put together, no constants")
    parts = []
    for source in sources:
        given = {other: torch.zeros_like(numbered(builder.shape(other))) for other in sources}
        given[source] = numbered(builder.shape(source))
        op = gathering(builder, node, source, replay(builder, node, given))
        if op is None:
            parts.append(builder.index[source])
        else:
            builder.append(node, op)
            parts.append(builder.index[node])
    if len(parts) > 1:
        builder.append(node, Add(builder.label(node), tuple(parts), builder.shape(node)))


def one_source(builder: Builder, node: fx.Node) -> fx.Node:
    """The only node that this one is made from."""
    sources = set(builder.sources(node))
    if len(sources) != 1:
        builder.refuse(node, "it must read one layer's output")
    return sources.pop()


def gathering(
    builder: Builder,
    node: fx.Node,
    source: fx.Node,
    found: Tensor,
    shape: Shape | None = None,
    in_shape: Shape | None = None,
) -> LinearMap | None:
    """The operation that takes numbered elements where they were found; None where they all stayed.

    Args:
        builder: The operations so far.
        node: What moved them.
        source: Whose they are.
        found: [batch, *shape].
        shape: After the move; the node's, where none is given.
        in_shape: Before it; the source's.
    """
    shape, in_shape = shape or builder.shape(node), in_shape or builder.shape(source)
    size = torch.Size(in_shape).numel()
    at = found.reshape(PROBE_BATCH, -1).to(torch.int64) - 1
    expected = torch.arange(PROBE_BATCH)[:, None] * size
    index = at[0]
    if not torch.equal(at, torch.where(index >= 0, index + expected, -1)):
        builder.refuse(node, "it does not keep the batch axis: elements of one image go to another")
    head = (builder.label(node), (builder.index[source],), shape, in_shape)
    if torch.equal(index, torch.arange(size)):
        return None if shape == in_shape else Reshape(*head)
    channels = _by_channels(index, shape, in_shape)
    if channels is not None:
        return ChannelGather(*head, Window((1, 1), (1, 1), (0, 0)), channels)
    return Gather.of(*head, index)


def _by_channels(index: Tensor, shape: Shape, in_shape: Shape) -> tuple[int, ...] | None:
    """For each channel of an image the one that it was; None where pixels moved."""
    if len(shape) != 3 or len(in_shape) != 3 or shape[1:] != in_shape[1:]:
        return None
    pixels = shape[1] * shape[2]
    by_channel = index.reshape(shape[0], pixels)
    channel = torch.where(by_channel[:, 0] >= 0, by_channel[:, 0] // pixels, -1)
    expected = torch.where(channel[:, None] >= 0, channel[:, None] * pixels + torch.arange(pixels), -1)
    return tuple(channel.tolist()) if torch.equal(by_channel, expected) else None


def as_images(builder: Builder, node: fx.Node, make: Callable[[Shape, Shape], Sequence[Op]]) -> None:
    """A layer on signals [channels, length], as the same layer on images of height one.

    Args:
        builder: The operations so far.
        node: The layer.
        make: Shapes of the images before and after it -> operations.
    """
    label, shape, in_shape = builder.label(node), builder.shape(node), builder.in_shape(node)
    before, after = ((s[0], 1, *s[1:]) for s in (in_shape, shape))
    ops = [Reshape(label, (), before, in_shape), *make(before, after), Reshape(label, (), shape, after)]
    builder.chain(node, builder.inputs(node)[0], *ops)

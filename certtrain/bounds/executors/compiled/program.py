"""A chain of operations as the steps that the compiled code follows.

A step reads up to three tensors; a `Program` says which, and in what form they are wanted, and `operands` makes them
from parameters, relaxations and box by ordinary tensor operations: a population goes through `torch.func.vmap`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from torch import Tensor

from certtrain.bounds.executors.compiled import sizes
from certtrain.bounds.executors.compiled.steps import Kind, Layer, Operand, Operands, Step, whole
from certtrain.bounds.rows.anchor import Anchor
from certtrain.bounds.rows.passage import Linearization
from certtrain.bounds.rows.reach import Reach
from certtrain.networks.graph import Graph
from certtrain.networks.ops import Activation, ChannelAffine, Conv2d, Linear, LinearMap, Op, Reshape, Values

# Bytes of a core's own cache that rows on their way should fit in.
CACHE = 256 << 10
# Rows at a time; and as few of them as still make a matrix that is larger than the cache worth reading.
MOST_ROWS, FEW_ROWS = 64, 16
# Axes of a vector and of an image.
RANKS = (1, 3)
# Pixels of a window whose taps are listed on a thread's stack.
LARGEST_KERNEL = 1024
# Channels of a last layer that are too few to fill a vector.
THIN = 4


@dataclass(frozen=True)
class Program:
    """All steps from rows in one layer to their lower bounds.

    Attributes:
        steps: In order.
        layer: The layer that rows start in.
        halo: Of the starting rows; bundles have none.
        space: Numbers that one row takes where it is largest.
        operations: Additions and multiplications in the products of one row that no border cuts.
    """

    steps: tuple[Step, ...]
    layer: Layer
    halo: int
    space: int
    operations: int

    def rows_at_once(self, element_size: int) -> int:
        """Rows that share a cache."""
        return max(1, min(MOST_ROWS, CACHE // (2 * self.space * element_size)))


def chain(graph: Graph, anchor: Anchor) -> int:
    """The last operation from which the compiled code can carry rows to the anchor.

    The path must not branch, and layers are vectors or images. A matrix has its place in it if it stays in the cache or
    serves enough rows at a time.
    """
    index, largest = anchor.index, graph.ops[anchor.index].size
    if len(graph.ops[index].shape) not in RANKS:
        return index
    while len(readers := graph.readers(index)) == 1 and _is_known(graph, readers[0], largest):
        index = readers[0]
        largest = max(largest, graph.ops[index].size)
    if isinstance(graph.ops[index], Reshape) and index > anchor.index:
        # Rows over a flattened image are taken back to the image first.
        return graph.ops[index].inputs[0]
    return index


def _is_known(graph: Graph, index: int, largest: int) -> bool:
    if len(graph.ops[index].shape) not in RANKS:
        return False
    match op := graph.ops[index]:
        case Activation():
            return op.function.group == 1
        case ChannelAffine():
            return True
        case Conv2d():
            small = prod(op.window.kernel) <= LARGEST_KERNEL
            return small and op.groups == 1 and op.window.dilation == (1, 1)
        case Linear():
            small = op.size * op.in_shape[0] * 4 <= CACHE
            return small or CACHE // (8 * largest) >= FEW_ROWS
        case Reshape():
            # A flattened image is spelled out by the matrix that reads it.
            read_by_matrices = all(isinstance(graph.ops[i], Linear) for i in graph.readers(index))
            return len(op.in_shape) == 3 and len(op.shape) == 1 and read_by_matrices
    return False


def reads_everything(graph: Graph, first: int, last: int) -> bool:
    """Whether no convolution between two operations passes over the last pixels of what it reads.

    Rows are no larger than what they depend on. What multipliers add to a row is of no account where it ends before the
    layer does: the bound is sound, but it is not the one that was asked for.
    """
    convolutions = (op for op in graph.ops[first + 1 : last + 1] if isinstance(op, Conv2d))
    return all(
        (count - 1) * stride - before + extent >= size
        for op in convolutions
        for size, count, stride, before, extent in zip(
            op.in_shape[1:], op.shape[1:], op.window.stride, op.window.padding, op.window.extent, strict=True
        )
    )


def translate(
    graph: Graph, anchor: Anchor, linearization: Linearization, start: int, reach: Reach | None, lanes: int
) -> Program:
    """Steps from rows in the output of `start`, an operation of the chain, to the anchor.

    Args:
        graph: The network.
        anchor: Where rows end.
        linearization: Which activations have lower intercepts, and what is added to rows.
        start: The operation that rows read.
        reach: What they read of it.
        lanes: Numbers in a vector register, to which channels are padded; 1 for bundles, where rows fill the vectors.
    """
    layer = _last(Layer.of(graph.ops[start].shape, lanes), graph.ops[start], start == anchor.index)
    steps: list[Step] = []
    index, here = start, layer
    while index > anchor.index:
        op = graph.ops[index]
        if index in linearization.shifts:
            steps.append(Step(Kind.SHIFT, (_image(lambda o, i=index: o.linearization.shifts[i], here),), here))  # type: ignore[misc]
        if isinstance(op, Activation) and linearization.lines[index].lower_intercept is not None:
            steps.append(Step(Kind.POSITIVE, (_line(index, "lower_intercept", here),), here))
        steps += _constant(op, index, anchor, here, lanes)
        below = op.inputs[0]
        if isinstance(op, Linear) and isinstance(graph.ops[below], Reshape) and below > anchor.index:
            below = graph.ops[below].inputs[0]
        steps.append(_step(op, index, graph.ops[below], below == anchor.index, here, lanes))
        index, here = below, steps[-1].layer
    if anchor.center_index == anchor.index:
        steps.append(Step(Kind.VALUE, (_point(lambda o: o.anchor.center, here, lanes),), here))
    steps.append(Step(Kind.SPREAD, (_point(lambda o: o.anchor.radius, here, lanes),), here))
    halos = sizes.halos(steps) if lanes > 1 else [0] * (len(steps) + 1)
    steps = [Step(s.kind, s.operands, s.layer, s.window, halo) for s, halo in zip(steps, halos[1:], strict=True)]
    extents = sizes.extents(layer, reach, steps)
    space = sizes.space(layer, extents, halos, steps, lanes)
    return Program(tuple(steps), layer, halos[0], space, sizes.operations(layer, extents, steps))


def _last(layer: Layer, op: Op, is_last: bool) -> Layer:
    """Few channels stay as they are in the anchor's layer, where nothing but sums of products follows."""
    return Layer(layer.height, layer.width, op.shape[0], layer.shape) if _is_thin(op, is_last) else layer


def _is_thin(op: Op, is_last: bool) -> bool:
    return is_last and len(op.shape) == 3 and op.shape[0] <= THIN


def _constant(op: Op, index: int, anchor: Anchor, here: Layer, lanes: int) -> list[Step]:
    """What an affine operation adds to the constant: the value at the centre, once and for all, or its offset."""
    if not isinstance(op, LinearMap):
        return []
    if index == anchor.center_index:
        return [Step(Kind.VALUE, (_point(lambda o: o.anchor.center, here, lanes),), here)]
    if index < anchor.center_index or _has_no_offset(op):
        return []
    return [Step(Kind.OFFSET, (_channels(lambda o: _offset(op, o.values).flatten(), here),), here)]


def _has_no_offset(op: LinearMap) -> bool:
    return isinstance(op, Reshape) or (isinstance(op, (Conv2d, Linear)) and op.bias is None)


def _offset(op: LinearMap, values: Values) -> Tensor:
    offset = op.offset(values)
    assert offset is not None
    return offset


def _step(op: Op, index: int, below: Op, is_last: bool, here: Layer, lanes: int) -> Step:
    match op:
        case Activation():
            parts = ("lower_slope", "gap", "upper_intercept")
            return Step(Kind.LINES, tuple(_line(index, part, here) for part in parts), here)
        case ChannelAffine():
            return Step(Kind.SCALE, (_channels(lambda o: op.scale(o.values), here),), here)
        case Conv2d():
            after = _last(Layer.of(below.shape, lanes), below, is_last)
            window = (*op.window.kernel, *op.window.stride, *op.window.padding)
            if _is_thin(below, is_last):
                taps = prod(op.window.kernel) * after.channels
                windows, padded = (here.shape[-1], taps), (here.channels, whole(taps, lanes))
                thin = Operand(lambda o: _windows(op.kernel(o.values)), False, windows, padded)
                return Step(Kind.THIN_CONVOLUTION, (thin,), after, window)
            taken, padded = (*op.window.kernel, here.shape[-1], after.shape[-1]), (here.channels, after.channels)
            kernel = Operand(lambda o: op.kernel(o.values).permute(2, 3, 0, 1), False, taken, padded)
            return Step(Kind.CONVOLUTION, (kernel,), after, window)
        case Linear():
            after = Layer.of(below.shape, lanes)
            size = after.height, after.width
            matrix, filled = (here.shape[-1], *size, after.shape[-1]), (here.channels, *size, after.channels)
            spelled_out = Operand(lambda o: _matrix(o.values[op.weight], below), False, matrix, filled)
            return Step(Kind.LINEAR, (spelled_out,), after)
    raise AssertionError(f"{type(op).__name__} is no part of a chain")


def _line(index: int, part: str, here: Layer) -> Operand:
    return _image(lambda o: getattr(o.linearization.lines[index], part), here)


def _windows(weight: Tensor) -> Tensor:
    """[channels after the operation, height · width · channels before it]."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def _matrix(weight: Tensor, below: Op) -> Tensor:
    """[outputs, height, width, channels], a vector as one pixel."""
    shape = below.shape if len(below.shape) == 3 else (weight.shape[1], 1, 1)
    return weight.reshape(len(weight), *shape).permute(0, 2, 3, 1)


def _image(get: Callable[[Operands], Tensor], layer: Layer) -> Operand:
    """A tensor [batch, *shape], channels last."""
    return Operand(get, True, layer.shape, (layer.channels,))


def _channels(get: Callable[[Operands], Tensor], layer: Layer) -> Operand:
    """One number per channel."""
    return Operand(get, False, layer.shape[-1:], (layer.channels,))


def _point(get: Callable[[Operands], Tensor], layer: Layer, lanes: int) -> Operand:
    """The same; where lines of pixels do not end with a vector, one more may be read behind each image."""
    behind = lanes if layer.channels % lanes else 0
    sizes = (layer.height, layer.width, layer.channels) if behind else (layer.channels,)
    return Operand(get, True, layer.shape, sizes, behind)


def operands(program: Program, given: Operands) -> list[Tensor]:
    """The tensors that the steps read, in order, as they are before they are laid out for the compiled code."""
    return [operand.make(given).contiguous() for step in program.steps for operand in step.operands]

"""How many images a verifier can take at once: a rough count of its largest tensors against a budget.

The counts are for float64. They follow the relaxations' algorithms, not their code, and are meant to be right
within a factor of about two. Where they are too low, halving the batch (`batching`) is the fallback.
"""

from __future__ import annotations

from certtrain.bounds import Intersection, Relaxation
from certtrain.bounds.budget import Budgeted
from certtrain.bounds.ibp import IBP
from certtrain.networks import Graph
from certtrain.networks.ops import Add, ChannelAffine, ReLU, WindowMap

BYTES = 8
# Tensors as large as the rows themselves that one step of back-substitution holds at once: the rows, their
# positive and negative parts, the products with slopes, and the sum.
ROW_COPIES = 6


def bytes_per_image(relaxation: Relaxation, graph: Graph) -> int:
    """Estimated peak memory of one image's bounds in float64.

    A relaxation that is not known here is taken for back-substitution of every neuron at once, the largest of the usual
    ones (auto_LiRPA's).
    """
    match relaxation:
        case Intersection():
            return max(bytes_per_image(part, graph) for part in relaxation.parts)
        case IBP():
            return BYTES * _intervals(graph)
        case Budgeted():
            # Bounds and lines of every element, and what computing them holds. Rows come and go in pieces, whose size
            # `memory_mb` bounds for all images together. (HBox's specification, in the last layer, is not in pieces.)
            return BYTES * 2 * _intervals(graph)
    rows = max((_rows(graph, op.inputs[0]) for op in graph.ops if isinstance(op, ReLU)), default=0)
    return BYTES * (_intervals(graph) + ROW_COPIES * max(rows, graph.num_outputs * graph.ops[0].size))


def batch_size(relaxation: Relaxation, graph: Graph, budget: int, largest: int) -> int:
    """Images per batch that fit into a budget in bytes: at least one, at most `largest`."""
    return max(1, min(largest, budget // bytes_per_image(relaxation, graph)))


def _intervals(graph: Graph) -> int:
    """Lower and upper bound of every element, and as much again for what computing them holds."""
    return 4 * sum(op.size for op in graph.ops)


def _rows(graph: Graph, start: int) -> int:
    """Coefficients of two rows per element of one operation, where they are most on the way to the input."""
    count, index = 2 * graph.ops[start].size, start
    patch: tuple[int, int] | None = (1, 1) if len(graph.ops[start].shape) == 3 else None
    peak = 0
    while graph.ops[index].inputs:
        op = graph.ops[index]
        if patch is not None and isinstance(op, WindowMap):
            window = op.window
            grown = [(p - 1) * s + e for p, s, e in zip(patch, window.stride, window.extent, strict=True)]
            patch = (grown[0], grown[1])
        elif not isinstance(op, (ReLU, Add, ChannelAffine)):
            patch = None
        index = op.inputs[0]
        shape = graph.ops[index].shape
        width = graph.ops[index].size if patch is None else shape[0] * patch[0] * patch[1]
        peak = max(peak, count * width)
    return peak

"""What the bounds of one image take: a rough count of a relaxation's largest tensors.

The counts are for float64. They follow the relaxations' algorithms, not their code, and are meant to be right
within a factor of about two. Where they are too low, halving the batch (`batching`) is the fallback.
"""

from __future__ import annotations

from certtrain.bounds import Intersection, Relaxation
from certtrain.bounds.forward.interval import INTERVALS
from certtrain.bounds.relaxation.base import BackSubstitution
from certtrain.bounds.relaxation.ibp import IBP
from certtrain.bounds.rows.passage import reaches
from certtrain.bounds.rows.reach import Reach
from certtrain.networks import Graph
from certtrain.networks.ops import Activation

BYTES = 8
# Tensors as large as the rows themselves that one step of back-substitution holds at once: the rows, their
# positive and negative parts, the products with slopes, and the sum.
ROW_COPIES = 6


def bytes_of_bounds(relaxation: Relaxation, graph: Graph) -> int:
    """Estimated peak memory of one image's bounds in float64.

    A relaxation that is not known here is taken for back-substitution of every neuron at once, the largest of the usual
    ones (auto_LiRPA's).
    """
    match relaxation:
        case Intersection():
            return max(bytes_of_bounds(part, graph) for part in relaxation.parts)
        case IBP():
            return BYTES * _intervals(graph)
        case BackSubstitution():
            # Bounds and lines of every element, and what computing them holds. Rows come and go in pieces, whose size
            # `memory_mb` bounds for all images together. (HBox's specification, in the last layer, is not in pieces.)
            return BYTES * 2 * _intervals(graph)
    rows = max((_rows(graph, op.inputs[0]) for op in graph.ops if isinstance(op, Activation)), default=0)
    return BYTES * (_intervals(graph) + ROW_COPIES * max(rows, graph.num_outputs * graph.ops[0].size))


def _intervals(graph: Graph) -> int:
    """Lower and upper bound of every element, and as much again for what computing them holds."""
    for index, op in enumerate(graph.ops):
        INTERVALS.of(index, op)  # refuses what has no rule
    return 4 * sum(op.size for op in graph.ops)


def _rows(graph: Graph, start: int) -> int:
    """Coefficients of two rows per element of one operation, where they are most on the way to the input."""
    op = graph.ops[start]
    read = reaches(graph, start, Reach.pixels(op.shape) if len(op.shape) == 3 else None)
    widths = [graph.ops[i].size if reach is None else reach.size for i, reach in read.items() if i < start]
    return 2 * op.size * max(widths, default=0)

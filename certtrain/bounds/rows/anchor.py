"""Where back-substitution ends."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from certtrain.activations import Interval
from certtrain.bounds.base import Box
from certtrain.bounds.forward.interval import linear_interval
from certtrain.bounds.rows.dense import channels_last
from certtrain.networks.graph import Graph
from certtrain.networks.ops import LinearMap, Values


@dataclass(frozen=True)
class Anchor:
    """Where back-substitution ends: the last operation whose reachable values are still a box.

    Attributes:
        index: The operation; operations that map boxes to boxes are not carried back through.
        radius: Half the width of its box, [batch, *shape], channels last.
        center_index: The operation at which the rows meet the centre of the box: the same one, or the affine layer
            behind it where that is narrower (a form's value at one point is the same in every layer, offsets included).
        center: The centre's value there, [batch, *shape], channels last.
    """

    index: int
    radius: Tensor
    center_index: int
    center: Tensor


def find_anchor(graph: Graph, values: Values, box: Box) -> Anchor:
    """See `Anchor`."""
    index, region = 0, Interval(box.lower, box.upper)
    while True:
        readers = graph.readers(index)
        reader = graph.ops[readers[0]] if len(readers) == 1 else None
        if not (isinstance(reader, LinearMap) and reader.keeps_boxes):
            break
        index, region = readers[0], linear_interval(reader, values, region)
    if isinstance(reader, LinearMap) and reader.size < graph.ops[index].size:
        center = reader.forward(values, region.center)
        return Anchor(index, channels_last(region.radius), readers[0], channels_last(center))
    return Anchor(index, channels_last(region.radius), index, channels_last(region.center))

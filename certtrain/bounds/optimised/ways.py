"""How rows are carried back: through the whole network, through undecided neurons alone, or through windows."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from certtrain.activations import Interval
from certtrain.bounds.optimised.choice import Rows
from certtrain.bounds.optimised.collapsing import Collapsed, collapse, products
from certtrain.bounds.optimised.objectives import Objective, UnitRows
from certtrain.bounds.optimised.region import Region
from certtrain.bounds.optimised.space import MANY, Space
from certtrain.bounds.optimised.windows import Windows, find_windows


class Way(ABC):
    """A network that is the same for some rows on the boxes of all images.

    Attributes:
        width: Numbers that a row has on its way.
    """

    width: int

    @abstractmethod
    def rows(self, images: Tensor, objective: Objective) -> Rows:
        """Rows over the whole network's operation, as rows of this one.

        Args:
            images: Of each row.
            objective: The rows.
        """


@dataclass(frozen=True)
class Layers(Way):
    """Layer by layer: through the whole network, or through what is left of it.

    Attributes:
        region: The network, in the precision of the rows; derivatives in it are recorded.
        space: Its columns.
        free: Which are of free neurons, [images, columns].
        index: The operation that rows are over.
        shape: Of its output.
        width: See `Way`.
        small: Makes rows those of what is left; None where all of it is.
    """

    region: Region
    space: Space
    free: Tensor
    index: int
    shape: tuple[int, ...]
    width: int
    small: Collapsed | None = None

    @staticmethod
    def of(
        region: Region,
        hidden: Mapping[int, Interval],
        index: int,
        *,
        everywhere: bool = False,
        many: float = MANY,
    ) -> Layers:
        """The whole network, for rows over one of its operations; see `Space.of`."""
        graph = region.graph
        space = Space.of(graph, hidden, everywhere=everywhere, output=index, many=many)
        width = sum(op.size for op in graph.ops[: index + 1])
        return Layers(region, space, space.free(graph, hidden, region.center), index, graph.ops[index].shape, width)

    def through(self, small: Collapsed) -> Layers:
        """The same rows through what is left."""
        width = prod(self.shape) + sum(op.size for op in small.graph.ops)
        return replace(self, region=small.region(self.region), space=small.space(self.space), width=width, small=small)

    def rows(self, images: Tensor, objective: Objective) -> Rows:
        """See `Way`."""
        start = objective.to(self.region.center.dtype).start(self.index, self.shape)
        start = start if self.small is None else self.small.start(start)
        if len(self.region.center) == 1:  # it serves all rows
            return Rows(self.region, self.space, start, self.free)
        return Rows(self.region.rows(images), self.space, start, self.free[images])


@dataclass(frozen=True)
class Windowed(Way):
    """Through windows around single pixels.

    Attributes:
        region: The whole network, in the precision of the rows.
        hidden: Operation that an activation reads -> bounds of its output.
        windows: What a pixel depends on.
        width: See `Way`.
    """

    region: Region
    hidden: Mapping[int, Interval]
    windows: Windows
    width: int

    @staticmethod
    def of(region: Region, hidden: Mapping[int, Interval], windows: Windows) -> Windowed:
        """From the windows of a region."""
        return Windowed(region, hidden, windows, windows.width)

    def rows(self, images: Tensor, objective: Objective) -> Rows:
        """See `Way`."""
        assert isinstance(objective, UnitRows)
        return self.windows.rows(self.region, self.hidden, images, objective.to(self.region.center.dtype))


@dataclass(frozen=True)
class Ways:
    """Where slopes are searched, and where bounds at the slopes found are computed; columns are the same.

    Attributes:
        searched: In the precision of the search.
        decides: In that of the bounds; None where what was searched decides.
    """

    searched: Way
    decides: Way | None

    @property
    def width(self) -> int:
        """Numbers that a row has, at most."""
        return max(way.width for way in (self.searched, self.decides) if way is not None)


def plain_ways(region: Region, hidden: Mapping[int, Interval], index: int, precision: torch.dtype) -> Ways:
    """Through the whole network, whatever the data are.

    Args:
        region: The network, in the precision of the bounds.
        hidden: Operation that an activation reads -> bounds of its output.
        index: The operation that rows are over.
        precision: Of the search.
    """
    return _through(Layers.of(region, hidden, index, everywhere=True), precision)


def choose_ways(
    region: Region,
    hidden: Mapping[int, Interval],
    index: int,
    objective: Objective,
    precision: torch.dtype,
) -> Ways:
    """The quickest, by counting products.

    Args:
        region: The network, in the precision of the bounds.
        hidden: Operation that an activation reads -> bounds of its output.
        index: The operation that rows are over.
        objective: The rows.
        precision: Of the search.
    """
    limit, windows, single = products(region.graph, index), None, _single(region, precision)
    if isinstance(objective, UnitRows) and not _recorded(region):
        windows = find_windows(single, index)
        windows = windows if windows is not None and windows.products < limit else None
        limit = limit if windows is None else windows.products
    elements = objective.places.unique() if isinstance(objective, UnitRows) else None
    # No more columns than there must be, as what has one is left.
    whole = Layers.of(region, hidden, index, many=math.inf)
    small = collapse(single, whole.space, index, elements, limit)
    if small is not None:
        return Ways(replace(whole, region=single).through(small), whole)
    if windows is None:
        return _through(Layers.of(region, hidden, index), precision)
    searched = Windowed.of(single, hidden, windows)
    if _settled(region, precision):
        return Ways(searched, None)
    exact = find_windows(region, index)
    assert exact is not None
    return Ways(searched, Windowed.of(region, hidden, exact))


def _through(whole: Layers, precision: torch.dtype) -> Ways:
    searched = replace(whole, region=_single(whole.region, precision))
    return Ways(searched, None if _settled(whole.region, precision) else whole)


def _single(region: Region, precision: torch.dtype) -> Region:
    return region.map(lambda x: x.detach().to(precision))


def _recorded(region: Region) -> bool:
    """Whether derivatives will be asked for."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in region.tensors)


def _settled(region: Region, precision: torch.dtype) -> bool:
    """Whether bounds of the search are the bounds."""
    return region.center.dtype == precision and not _recorded(region)

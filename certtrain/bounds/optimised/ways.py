"""How rows are carried back: through the whole network, through undecided neurons alone, or through windows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from certtrain.activations import Interval
from certtrain.bounds.optimised.choice import Rows
from certtrain.bounds.optimised.collapsing import Collapsed, collapse, products
from certtrain.bounds.optimised.passes import Start
from certtrain.bounds.optimised.region import Region
from certtrain.bounds.optimised.space import Space
from certtrain.bounds.optimised.windows import Windows, find_windows


class Way(ABC):
    """A network that is the same for some rows on the boxes of all images.

    Attributes:
        region: The whole network, in the precision of the rows.
    """

    region: Region

    @property
    @abstractmethod
    def width(self) -> int:
        """Numbers that a row has on its way."""

    @abstractmethod
    def rows(self, images: Tensor, places: Tensor | None, start: Start) -> Rows:
        """Rows over the whole network's operation, as rows of this one.

        Args:
            images: Of each row.
            places: The one element that each row is over, flattened; None where rows are over several.
            start: The rows.
        """

    def _start(self, start: Start) -> Start:
        return Start(start.index, *(x.detach().to(self.region.center.dtype) for x in start.tensors))


@dataclass(frozen=True)
class Whole(Way):
    """As it is.

    Attributes:
        region: See `Way`; derivatives in it are recorded.
        space: Its columns.
        free: Which are of free neurons, [images, columns].
    """

    region: Region
    space: Space
    free: Tensor

    @property
    def width(self) -> int:
        """See `Way`."""
        return sum(op.size for op in self.region.graph.ops)

    def rows(self, images: Tensor, places: Tensor | None, start: Start) -> Rows:
        """See `Way`."""
        return Rows(self.region.rows(images), self.space, self._start(start), self.free[images])


@dataclass(frozen=True)
class Small(Way):
    """Undecided neurons alone.

    Attributes:
        region: See `Way`.
        space: Its columns.
        free: Which are of free neurons, [images, columns].
        small: What is left.
    """

    region: Region
    space: Space
    free: Tensor
    small: Collapsed

    @property
    def width(self) -> int:
        """See `Way`."""
        return sum(op.size for op in self.small.graph.ops)

    def rows(self, images: Tensor, places: Tensor | None, start: Start) -> Rows:
        """See `Way`."""
        region, space = self.small.region(self.region), self.small.space(self.space)
        return Rows(region.rows(images), space, self.small.start(self._start(start)), self.free[images])


@dataclass(frozen=True)
class Windowed(Way):
    """Windows around single pixels.

    Attributes:
        region: See `Way`.
        hidden: Operation that an activation reads -> bounds of its output.
        windows: What a pixel depends on.
    """

    region: Region
    hidden: Mapping[int, Interval]
    windows: Windows

    @property
    def width(self) -> int:
        """See `Way`."""
        return self.windows.width

    def rows(self, images: Tensor, places: Tensor | None, start: Start) -> Rows:
        """See `Way`."""
        assert places is not None
        return self.windows.rows(self.region, self.hidden, images, places, self._start(start))


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


def plain_ways(whole: Whole, precision: torch.dtype) -> Ways:
    """Through the whole network, whatever the data are.

    Args:
        whole: The network, in the precision of the bounds.
        precision: Of the search.
    """
    searched = replace(whole, region=_single(whole.region, precision))
    return Ways(searched, None if _settled(whole.region, precision) else whole)


def choose_ways(
    whole: Whole,
    hidden: Mapping[int, Interval],
    index: int,
    places: Tensor | None,
    precision: torch.dtype,
    *,
    roomy: bool,
) -> Ways:
    """The quickest, by counting products.

    Args:
        whole: The network, in the precision of the bounds.
        hidden: Operation that an activation reads -> bounds of its output.
        index: The operation that rows are over.
        places: Elements that rows are over, one each; None where rows are over several.
        precision: Of the search.
        roomy: Whether lines have room for rounding errors, which are counted operation by operation.
    """
    region, single = whole.region, _single(whole.region, precision)
    limit, windows = products(region.graph, index), None
    if places is not None and not roomy and not _recorded(region):
        windows = find_windows(single, index)
        windows = windows if windows is not None and windows.products < limit else None
        limit = limit if windows is None else windows.products
    elements = None if places is None else places.unique()
    small = collapse(single, whole.space, index, elements, limit)
    if small is not None:
        return Ways(Small(single, whole.space, whole.free, small), whole)
    if windows is None:
        return plain_ways(whole, precision)
    searched, exact = Windowed(single, hidden, windows), None
    if not _settled(region, precision):
        found = find_windows(region, index)
        assert found is not None
        exact = Windowed(region, hidden, found)
    return Ways(searched, exact)


def _single(region: Region, precision: torch.dtype) -> Region:
    return region.map(lambda x: x.detach().to(precision))


def _recorded(region: Region) -> bool:
    """Whether derivatives will be asked for."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in region.tensors)


def _settled(region: Region, precision: torch.dtype) -> bool:
    """Whether bounds of the search are the bounds."""
    return region.center.dtype == precision and not _recorded(region)

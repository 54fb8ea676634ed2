"""Which rows of a layer are bounded, and in what pieces.

A selection is a table [groups, k]: a group's rows share an image and a position. Pieces are rectangles of the table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from certtrain.bounds.chunks import evenly
from certtrain.bounds.fused import Rows
from certtrain.bounds.reach import Where

# Forms of a piece: a range of each group's, or indices per group.
Forms = slice | Tensor


@dataclass(frozen=True)
class Piece:
    """Consecutive groups, and some of the columns of their part of the table."""

    where: Where
    forms: Forms
    columns: slice
    groups: slice


class Selection(ABC):
    """See the module."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(groups, k)."""

    @abstractmethod
    def pieces(self, rows: int, device: torch.device) -> Iterator[list[Piece]]:
        """Lists of pieces of about `rows` rows each: a list's lie side by side, the lists one below the other."""

    @abstractmethod
    def indices(self) -> Rows:
        """Every row of the table, line by line."""

    @property
    def total(self) -> int:
        """Rows in all."""
        return self.shape[0] * self.shape[1]


@dataclass(frozen=True)
class All(Selection):
    """All rows of one bound: `batch` images x `positions` x `forms`.

    Attributes:
        batch: Images.
        positions: Positions of the grid at which the rows stand; 1 where they are dense.
        forms: Forms per image and position.
    """

    batch: int
    positions: int
    forms: int

    @property
    def shape(self) -> tuple[int, int]:
        """See `Selection`."""
        return self.batch * self.positions, self.forms

    def pieces(self, rows: int, device: torch.device) -> Iterator[list[Piece]]:
        """See `Selection`; whole images wherever one fits."""
        step = evenly(self.forms, rows)
        columns = [slice(start, min(start + step, self.forms)) for start in range(0, self.forms, step)]
        for where, groups in self._groups(rows, device):
            yield [Piece(where, forms, forms, groups) for forms in columns]

    def _groups(self, rows: int, device: torch.device) -> Iterator[tuple[Where, slice]]:
        groups = max(1, rows // self.forms)
        if groups >= self.positions:
            step = evenly(self.batch, groups // self.positions)
            for start in range(0, self.batch, step):
                images = slice(start, min(start + step, self.batch))
                yield Where(images), slice(images.start * self.positions, images.stop * self.positions)
            return
        for image in range(self.batch):
            first = image * self.positions
            for chunk in torch.arange(self.positions, device=device).split(evenly(self.positions, groups)):
                yield Where(slice(image, image + 1), chunk), slice(first, first := first + len(chunk))

    def indices(self) -> Rows:
        """See `Selection`."""
        grid = torch.empty((self.batch, self.positions, self.forms), dtype=torch.int32)
        axes = [torch.arange(n, dtype=torch.int32) for n in grid.shape]
        return Rows(*(x.contiguous().flatten() for x in torch.meshgrid(*axes, indexing="ij")))


@dataclass(frozen=True)
class Some(Selection):
    """Chosen elements of a layer, each with the form of the element and, with two sides, that of its negative.

    Attributes:
        elements: Indices into [batch, positions, forms], flattened, [groups].
        positions: Of the grid; None where rows are dense.
        forms: Elements per position; the negatives of all follow behind them.
        sides: Forms of each element, 1 or 2.
    """

    elements: Tensor
    positions: int | None
    forms: int
    sides: int = 2

    @property
    def shape(self) -> tuple[int, int]:
        """See `Selection`."""
        return len(self.elements), self.sides

    def pieces(self, rows: int, device: torch.device) -> Iterator[list[Piece]]:
        """See `Selection`."""
        start = 0
        for chunk in self.elements.split(evenly(len(self.elements), max(1, rows // self.sides))):
            image, position, forms = self._split(chunk)
            groups = slice(start, start := start + len(chunk))
            where = Where(image, None if self.positions is None else position)
            yield [Piece(where, forms, slice(0, self.sides), groups)]

    def indices(self) -> Rows:
        """See `Selection`."""
        image, position, forms = self._split(self.elements)
        image, position = (x.repeat_interleave(self.sides) for x in (image, position))
        return Rows(*(x.to(torch.int32) for x in (image, position, forms.flatten())))

    def _split(self, elements: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image and position of each element, and its forms [elements, sides]."""
        group, form = elements // self.forms, elements % self.forms
        positions = self.positions or 1
        forms = torch.stack([form + side * self.forms for side in range(self.sides)], dim=1)
        return group // positions, group % positions, forms

"""Which rows of a layer are bounded, and in what pieces.

A selection is a table [groups, k]: a group's rows share an image and a position. Pieces are rectangles of the table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from certtrain.bounds.rows.chunks import evenly
from certtrain.bounds.rows.reach import Where

# Forms of a piece: a range of each group's, or indices per group.
Forms = slice | Tensor


@dataclass(frozen=True)
class RowIndex:
    """Which rows to bound, of those that all images, or each of them, have in common.

    Attributes:
        image: [rows], int32.
        position: Of the grid, [rows], int32; zero where rows are dense.
        form: Index into the starting forms, [rows], int32.
    """

    image: Tensor
    position: Tensor
    form: Tensor

    def __len__(self) -> int:
        return len(self.image)

    @property
    def places(self) -> Tensor:
        """How many rows follow each other with one image and position, [places]."""
        changes = (self.image.diff() != 0) | (self.position.diff() != 0)
        ends = torch.cat([changes.nonzero()[:, 0] + 1, torch.tensor([len(self)])])
        return ends.diff(prepend=ends.new_zeros(1))


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
    def indices(self) -> RowIndex:
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

    def indices(self) -> RowIndex:
        """See `Selection`."""
        grid = torch.empty((self.batch, self.positions, self.forms), dtype=torch.int32)
        axes = [torch.arange(n, dtype=torch.int32) for n in grid.shape]
        return RowIndex(*(x.contiguous().flatten() for x in torch.meshgrid(*axes, indexing="ij")))


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

    def indices(self) -> RowIndex:
        """See `Selection`."""
        image, position, forms = self._split(self.elements)
        image, position = (x.repeat_interleave(self.sides) for x in (image, position))
        return RowIndex(*(x.to(torch.int32) for x in (image, position, forms.flatten())))

    def _split(self, elements: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image and position of each element, and its forms [elements, sides]."""
        group, form = elements // self.forms, elements % self.forms
        positions = self.positions or 1
        forms = torch.stack([form + side * self.forms for side in range(self.sides)], dim=1)
        return group // positions, group % positions, forms


@dataclass(frozen=True)
class Listed(Selection):
    """Rows of which every one is a form of its own, in order.

    Attributes:
        image: Of each row, [rows].
        position: Of each row, [rows].
    """

    image: Tensor
    position: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """See `Selection`."""
        return len(self.image), 1

    def pieces(self, rows: int, device: torch.device) -> Iterator[list[Piece]]:
        """See `Selection`."""
        at = torch.arange(len(self.image), device=device)
        start = 0
        for chunk in at.split(evenly(len(at), rows)):
            groups = slice(start, start := start + len(chunk))
            where = Where(self.image[groups], self.position[groups])
            yield [Piece(where, chunk[:, None], slice(0, 1), groups)]

    def indices(self) -> RowIndex:
        """See `Selection`."""
        form = torch.arange(len(self.image), dtype=torch.int32)
        return RowIndex(self.image.to(torch.int32), self.position.to(torch.int32), form)

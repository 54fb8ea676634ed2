"""A mixed-integer program under construction: columns between 0 and 1, and rows between bounds."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csr_array, vstack

from certtrain.certify.milp.affine import Affine


@dataclass
class Program:
    """Which values the columns may take together.

    Every column lies between 0 and 1 and the largest coefficient of a row is one, so that a solver's absolute
    tolerances mean the same whatever the scale of a network's layers.

    Attributes:
        binary: For each piece of columns that was added, whether they are whole numbers, [columns of the piece].
        rows: Left-hand sides, in pieces.
    """

    binary: list[np.ndarray] = field(default_factory=list)
    rows: list[Affine] = field(default_factory=list)
    _largest: list[np.ndarray] = field(default_factory=list)

    @property
    def num_columns(self) -> int:
        """How many there are."""
        return sum(len(piece) for piece in self.binary)

    @property
    def integrality(self) -> np.ndarray:
        """[columns]: 1 where a column is a whole number."""
        return np.concatenate([*self.binary, np.zeros(0, dtype=np.int64)])

    def add_columns(self, count: int, binary: bool = False) -> np.ndarray:
        """New columns between 0 and 1; their numbers."""
        first = self.num_columns
        self.binary.append(np.full(count, int(binary)))
        return np.arange(first, first + count)

    def at_least(self, form: Affine, width: np.ndarray | float = np.inf) -> None:
        """Adds rows: 0 <= form <= width, each [rows]."""
        largest = abs(form.matrix).max(axis=1).toarray().reshape(-1) if form.matrix.shape[1] else np.zeros(0)
        used = largest > 0  # what depends on no column holds already
        if used.any():
            scale = 1 / largest[used]
            self.rows.append(form[used.nonzero()[0]].scaled(scale))
            self._largest.append(np.broadcast_to(width, largest.shape)[used] * scale)

    def equal(self, form: Affine) -> None:
        """Adds rows: form = 0."""
        self.at_least(form, 0.0)

    def constraints(self) -> tuple[csr_array, np.ndarray, np.ndarray]:
        """Matrix [rows, columns], and between what its products with columns must lie, each [rows]."""
        if not self.rows:
            return csr_array((0, self.num_columns)), np.zeros(0), np.zeros(0)
        matrix = vstack([piece.widened(self.num_columns).matrix for piece in self.rows], format="csr")
        lower = -np.concatenate([piece.offset for piece in self.rows])
        return matrix, lower, lower + np.concatenate(self._largest)

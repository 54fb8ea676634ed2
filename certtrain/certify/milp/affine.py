"""Affine forms of a program's columns, and linear maps as sparse matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from scipy.sparse import csr_array, vstack

from certtrain.networks import Graph, Params
from certtrain.networks.ops import LinearMap, Values
from certtrain.networks.ops.base import reference

# Unit vectors that are mapped at a time.
UNITS_AT_ONCE = 256


@dataclass(frozen=True)
class Affine:
    """matrix @ columns + offset.

    Attributes:
        matrix: [elements, columns]; columns that a program gets later have coefficient zero.
        offset: [elements].
    """

    matrix: csr_array
    offset: np.ndarray

    @staticmethod
    def constant(offset: np.ndarray) -> Affine:
        """Of no column."""
        return Affine(csr_array((len(offset), 0)), offset)

    @staticmethod
    def of_columns(columns: np.ndarray, factors: np.ndarray) -> Affine:
        """Column times factor, element by element, each [elements]."""
        count, width = len(columns), int(columns.max(initial=-1)) + 1
        return Affine(csr_array((factors, columns, np.arange(count + 1)), shape=(count, width)), np.zeros(count))

    def widened(self, columns: int) -> Affine:
        """The same with coefficients for so many columns."""
        m = self.matrix
        return Affine(csr_array((m.data, m.indices, m.indptr), shape=(m.shape[0], columns)), self.offset)

    def __add__(self, other: Affine) -> Affine:
        columns = max(self.matrix.shape[1], other.matrix.shape[1])
        a, b = self.widened(columns), other.widened(columns)
        return Affine(a.matrix + b.matrix, a.offset + b.offset)

    def __sub__(self, other: Affine) -> Affine:
        return self + other.scaled(np.full(len(other.offset), -1.0))

    def __getitem__(self, elements: np.ndarray) -> Affine:
        return Affine(self.matrix[elements], self.offset[elements])

    def scaled(self, factors: np.ndarray) -> Affine:
        """Each element times its factor, [elements]."""
        m = self.matrix
        data = m.data * np.repeat(factors, np.diff(m.indptr))
        return Affine(csr_array((data, m.indices, m.indptr), shape=m.shape), self.offset * factors)

    def mapped(self, matrix: csr_array, offset: np.ndarray | float = 0.0) -> Affine:
        """What a matrix makes of it, and an offset."""
        return Affine(csr_array(matrix @ self.matrix), matrix @ self.offset + offset)

    def at(self, columns: np.ndarray) -> np.ndarray:
        """Its values, [elements]."""
        return self.matrix @ columns[: self.matrix.shape[1]] + self.offset


def scattering(rows: np.ndarray, height: int) -> csr_array:
    """[height, len(rows)]: adds element i to row `rows[i]`."""
    count = len(rows)
    return csr_array((np.ones(count), (rows, np.arange(count))), shape=(height, count))


def linear_maps(graph: Graph, params: Params) -> Mapping[int, tuple[csr_array, np.ndarray]]:
    """Matrix [outputs, inputs] and offset [outputs] of every linear map of a network, float64."""
    values = graph.values(params, reference(params))
    return {
        i: (_matrix(op, values), _offset(op, values)) for i, op in enumerate(graph.ops) if isinstance(op, LinearMap)
    }


def _matrix(op: LinearMap, values: Values) -> csr_array:
    size, like = prod(op.in_shape), reference(values)
    found = []
    for first in range(0, size, UNITS_AT_ONCE):
        units = like.new_zeros(min(UNITS_AT_ONCE, size - first), size)
        units[:, first:].fill_diagonal_(1)
        image = op.forward_linear(values, units.reshape(-1, *op.in_shape))
        found.append(csr_array(image.reshape(len(units), -1).double().cpu().numpy()))
    return csr_array(vstack(found).T)


def _offset(op: LinearMap, values: Values) -> np.ndarray:
    offset = op.offset(values)
    if offset is None:
        return np.zeros(op.size)
    return offset.expand(op.shape).reshape(-1).double().cpu().numpy()

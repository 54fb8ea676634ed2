"""Linear forms in one layer's outputs, carried back layer by layer.

Rows come in groups that share an image (and, for patches, a position), so that slopes are fetched once per group.
Images are held channels last, [H, W, C]: patches are then runs of memory, and convolutions take them as they are.

Two representations. `DenseRows` holds a coefficient for every element of the layer; `PatchRows` (in `patches`) only for
a receptive field.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from certtrain.activations import Lines
from certtrain.bounds.rows.products import contract, follow_lines
from certtrain.bounds.rows.reach import Reach, Where
from certtrain.networks.ops import LinearMap, Values, WindowMap


@dataclass(frozen=True)
class Operators:
    """What linear operations are applied with.

    Attributes:
        values: Parameters and buffers.
        matrices: (operation, height and width of a patch of its output) -> the adjoint of its window on such a
            patch as a matrix [patch of the output, patch of the input], where that is the faster form.
    """

    values: Values
    matrices: Mapping[tuple[WindowMap, tuple[int, int]], Tensor] = field(default_factory=dict)


class Rows(ABC):
    """Linear forms in the output of one operation; one group of them serves all images until they depend on these.

    Attributes:
        data: The coefficients, [groups or 1, k, ...].
    """

    data: Tensor

    @abstractmethod
    def with_data(self, data: Tensor) -> Rows:
        """Rows of the same kind with other coefficients."""

    @property
    @abstractmethod
    def reach(self) -> Reach | None:
        """The patches that they read; None if every form reads the whole layer."""

    @property
    @abstractmethod
    def flat(self) -> Tensor:
        """Coefficients [groups or 1, k, elements of a patch or layer], channels last."""

    @property
    @abstractmethod
    def groups(self) -> tuple[Tensor, Tensor]:
        """Image and position of each group, [groups]; the position of a dense one is 0."""

    @property
    @abstractmethod
    def serves_all(self) -> bool:
        """Whether one group of forms, with one constant, still stands for all images and positions."""

    @abstractmethod
    def select(self, where: Where, forms: slice | Tensor) -> Rows:
        """The rows of one chunk.

        Args:
            where: The chunk's groups.
            forms: A range of each group's forms; or, per group, the forms' indices, [groups, k], where the rows still
                serve all images.
        """

    @abstractmethod
    def linear(self, op: LinearMap, operators: Operators) -> Rows:
        """Rows in the input of an operation W x + b: rows W. The constant, rows b, is `offset(b)`."""

    @abstractmethod
    def activation(self, lines: Lines, group: int) -> tuple[Rows, Tensor]:
        """Rows in an activation's input whose forms are never larger, and the constants [groups, k].

        Args:
            lines: Around it, [batch, *shape of its input].
            group: Inputs of one output.
        """

    @abstractmethod
    def plus(self, x: Tensor) -> Rows:
        """Rows with a layer added to each form, [batch or 1, *shape]."""

    @abstractmethod
    def offset(self, b: Tensor) -> Tensor:
        """Each form's value at an operation's offset, [channels, 1, 1], the layer's shape or [n]: [groups or 1, k]."""

    @abstractmethod
    def value(self, x: Tensor) -> Tensor:
        """Each form's value at a point [batch or 1, *shape]: [groups, k]."""

    @abstractmethod
    def spread(self, radius: Tensor) -> Tensor:
        """How far each form moves within a radius [batch, *shape] around any centre: [groups, k]."""

    @abstractmethod
    def dense(self) -> DenseRows:
        """The same forms with every coefficient spelled out."""

    @abstractmethod
    def __add__(self, other: Rows) -> Rows:
        """Sum of forms in the same layer (where residual branches meet)."""


def channels_last(x: Tensor) -> Tensor:
    """[lead, C, H, W] -> [lead, H, W, C] in memory too; layers without two dimensions stay as they are."""
    return x.movedim(1, -1).contiguous() if x.dim() == 4 else x


def for_each_input(flat: Tensor, group: int) -> Tensor:
    """Coefficients of an activation's outputs, once for each input of theirs; channels come last."""
    return flat if group == 1 else flat.repeat_interleave(group, dim=-1)


def pick_forms(data: Tensor, forms: slice | Tensor) -> Tensor:
    """Some forms of each group, see `Rows.select`."""
    return data[:, forms] if isinstance(forms, slice) else data[0][forms]


@dataclass(frozen=True)
class DenseRows(Rows):
    """`data`: [groups or 1, k, *shape of the layer, channels last]."""

    data: Tensor
    where: Where | None = None

    @property
    def reach(self) -> Reach | None:
        """See `Rows`."""
        return None

    @property
    def serves_all(self) -> bool:
        """See `Rows`."""
        return self.data.shape[0] == 1

    def with_data(self, data: Tensor) -> DenseRows:
        """See `Rows`."""
        return DenseRows(data, self.where)

    @property
    def flat(self) -> Tensor:
        """See `Rows`."""
        return self.data.flatten(2)

    @property
    def groups(self) -> tuple[Tensor, Tensor]:
        """See `Rows`."""
        assert self.where is not None
        image, position = self.where.groups(1)
        # Several positions of one image are several groups of it.
        return (image, position) if len(image) > 1 else (image.expand(len(self.data)), position.expand(len(self.data)))

    def _pick(self, x: Tensor) -> Tensor:
        return (x if self.where is None else self.where.pick(x)).flatten(1)

    def select(self, where: Where, forms: slice | Tensor) -> Rows:
        """See `Rows`."""
        return DenseRows(pick_forms(where.pick(self.data), forms), where)

    def linear(self, op: LinearMap, operators: Operators) -> Rows:
        """See `Rows`."""
        rows = self.data.movedim(-1, 2) if len(op.shape) == 3 else self.data
        rows = op.adjoint(operators.values, rows)
        return DenseRows(rows.movedim(2, -1).contiguous() if len(op.in_shape) == 3 else rows, self.where)

    def activation(self, lines: Lines, group: int) -> tuple[Rows, Tensor]:
        """See `Rows`."""
        rows, constant = follow_lines(for_each_input(self.flat, group), lines.map(self._pick))
        shape = *self.data.shape[2:-1], self.data.shape[-1] * group
        return DenseRows(rows.reshape(*rows.shape[:2], *shape), self.where), constant

    def plus(self, x: Tensor) -> DenseRows:
        """See `Rows`."""
        return DenseRows((self.flat + self._pick(x)[:, None]).reshape(-1, *self.data.shape[1:]), self.where)

    def offset(self, b: Tensor) -> Tensor:
        """See `Rows`."""
        b = b.movedim(0, -1) if b.dim() == 3 else b
        return contract(self.flat, b.expand(self.data.shape[2:]).reshape(1, -1))

    def value(self, x: Tensor) -> Tensor:
        """See `Rows`."""
        return contract(self.flat, self._pick(x))

    def spread(self, radius: Tensor) -> Tensor:
        """See `Rows`."""
        return contract(self.flat.abs(), self._pick(radius))

    def dense(self) -> DenseRows:
        """See `Rows`."""
        return self

    def __add__(self, other: Rows) -> Rows:
        return DenseRows(self.data + other.dense().data, self.where)

"""The operations a traced network consists of.

An operation holds names, not tensors: parameters and buffers arrive as `values` (name -> tensor) with every call, so
the same operation serves one parameter vector, a population under `torch.func.vmap`, and any dtype.

Every linear operation offers four maps. With y = W x + b:

    forward(values, x)      W x + b
    forward_linear(...)     W x          boxes and other parts, where the offset belongs to another
    forward_abs(...)        |W| x        radii of intervals
    adjoint(values, rows)   rows W       back-substitution

`x` is [*lead, *input shape] and `rows` is [*lead, *output shape] with any number of leading axes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from certtrain import activations

Values = Mapping[str, Tensor]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Op:
    """One operation of a `Graph`.

    Attributes:
        name: Where it stands in the network, as torch.fx or the module hierarchy names it.
        inputs: Indices of the operations it reads; smaller than its own index.
        shape: Shape of its output without the batch axis.
    """

    name: str
    inputs: tuple[int, ...]
    shape: Shape

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the parameters and buffers that it reads."""
        return ()

    @property
    def size(self) -> int:
        """Number of elements of its output."""
        return prod(self.shape)


@dataclass(frozen=True)
class Input(Op):
    """The network's input."""


@dataclass(frozen=True)
class Add(Op):
    """Sum of operations of the same shape (a residual connection)."""


@dataclass(frozen=True)
class Activation(Op):
    """A nonlinear function; what it reads are its pre-activations."""

    function: activations.Activation


def present(*names: str | None) -> tuple[str, ...]:
    """Those that there are."""
    return tuple(name for name in names if name is not None)


def reference(values: Values) -> Tensor:
    """A tensor that has the dtype and device of all; of the default ones where there is none."""
    return next((x for x in values.values() if x.is_floating_point()), torch.zeros(()))


def fold_lead(function: Callable[[Tensor], Tensor], x: Tensor, rank: int) -> Tensor:
    """Applies a function of [N, *shape] to [*lead, *shape], where shape has `rank` axes."""
    lead = x.shape[: x.dim() - rank]
    if len(lead) == 1:
        return function(x)
    out = function(x.reshape(-1, *x.shape[x.dim() - rank :]))
    return out.reshape(*lead, *out.shape[1:])


@dataclass(frozen=True)
class LinearMap(Op, ABC):
    """An affine operation y = W x + b; `in_shape` is the shape of x without leading axes."""

    in_shape: Shape

    @property
    def keeps_boxes(self) -> bool:
        """Whether every box is mapped to a box: no output reads two inputs, and no input is read twice."""
        return False

    @abstractmethod
    def forward_linear(self, values: Values, x: Tensor) -> Tensor:
        """W x."""

    @abstractmethod
    def forward_abs(self, values: Values, x: Tensor) -> Tensor:
        """|W| x."""

    @abstractmethod
    def adjoint(self, values: Values, rows: Tensor) -> Tensor:
        """Rows of a linear form in y, as rows in x."""

    def offset(self, values: Values) -> Tensor | None:
        """b, broadcastable to the output shape; None where there is none."""
        return None

    def forward(self, values: Values, x: Tensor) -> Tensor:
        """W x + b."""
        y = self.forward_linear(values, x)
        b = self.offset(values)
        return y if b is None else y + b

"""One scale and one shift per channel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from certtrain.networks.ops.base import LinearMap, Shape, Values, present, reference


@dataclass(frozen=True)
class ChannelAffine(LinearMap, ABC):
    """y = scale · x + shift with one scale and one shift per channel (the first axis)."""

    @property
    def keeps_boxes(self) -> bool:
        return True

    @abstractmethod
    def scale(self, values: Values) -> Tensor:
        """[channels]."""

    @abstractmethod
    def shift(self, values: Values) -> Tensor:
        """[channels]."""

    def _spread(self, x: Tensor) -> Tensor:
        return x.reshape(-1, *[1] * (len(self.shape) - 1))

    def forward_linear(self, values: Values, x: Tensor) -> Tensor:
        return x * self._spread(self.scale(values))

    def forward_abs(self, values: Values, x: Tensor) -> Tensor:
        return x * self._spread(self.scale(values).abs())

    def adjoint(self, values: Values, rows: Tensor) -> Tensor:
        return self.forward_linear(values, rows)

    def offset(self, values: Values) -> Tensor | None:
        return self._spread(self.shift(values))


@dataclass(frozen=True)
class Normalization(ChannelAffine):
    """(x - mean) / std with constants: `networks.Normalize`."""

    mean: str
    std: str

    @property
    def tensors(self) -> tuple[str, ...]:
        return self.mean, self.std

    def scale(self, values: Values) -> Tensor:
        return (1.0 / values[self.std]).expand(self.shape[0])  # one number may serve all channels

    def shift(self, values: Values) -> Tensor:
        return (-values[self.mean] / values[self.std]).expand(self.shape[0])


@dataclass(frozen=True)
class BatchNorm(ChannelAffine):
    """Batch normalisation in eval mode: the running statistics are constants (or arrive among the values)."""

    weight: str | None
    bias: str | None
    mean: str
    variance: str
    epsilon: float

    @property
    def tensors(self) -> tuple[str, ...]:
        return present(self.weight, self.bias, self.mean, self.variance)

    def scale(self, values: Values) -> Tensor:
        inverse = torch.rsqrt(values[self.variance] + self.epsilon)
        return inverse if self.weight is None else values[self.weight] * inverse

    def shift(self, values: Values) -> Tensor:
        shift = -values[self.mean] * self.scale(values)
        return shift if self.bias is None else values[self.bias] + shift


@dataclass(frozen=True)
class Constant:
    """A number, or a parameter or buffer in a shape that fits a layer's, [*shape] or broadcast to it.

    Attributes:
        number: The number; the factor of the tensor where there is one.
        name: The tensor's name; None for the number alone.
        shape: In which the tensor is read.
        inverse: Whether to divide by it.
    """

    number: float
    name: str | None = None
    shape: Shape = ()
    inverse: bool = False

    def tensor(self, values: Values) -> Tensor:
        """Its value, of the tensor's shape."""
        if self.name is None:
            return reference(values).new_full((), 1.0 / self.number if self.inverse else self.number)
        x = values[self.name].reshape(self.shape)
        return self.number / x if self.inverse else self.number * x

    @property
    def is_per_channel(self) -> bool:
        """Whether it is one number for every channel of [channels, *rest]; `shape` must have all axes of the layer."""
        return all(n == 1 for n in self.shape[1:])


@dataclass(frozen=True)
class ChannelConstants(ChannelAffine):
    """Sums and products with constants that are the same for all elements of a channel."""

    factor: Constant
    term: Constant

    @property
    def tensors(self) -> tuple[str, ...]:
        return present(self.factor.name, self.term.name)

    def scale(self, values: Values) -> Tensor:
        return self.factor.tensor(values).flatten().expand(self.shape[0])

    def shift(self, values: Values) -> Tensor:
        return self.term.tensor(values).flatten().expand(self.shape[0])


@dataclass(frozen=True)
class ElementConstants(LinearMap):
    """The same with constants for every element."""

    factor: Constant
    term: Constant

    @property
    def tensors(self) -> tuple[str, ...]:
        return present(self.factor.name, self.term.name)

    @property
    def keeps_boxes(self) -> bool:
        return True

    def forward_linear(self, values: Values, x: Tensor) -> Tensor:
        return x * self.factor.tensor(values)

    def forward_abs(self, values: Values, x: Tensor) -> Tensor:
        return x * self.factor.tensor(values).abs()

    def adjoint(self, values: Values, rows: Tensor) -> Tensor:
        return self.forward_linear(values, rows)

    def offset(self, values: Values) -> Tensor | None:
        return self.term.tensor(values).expand(self.shape)

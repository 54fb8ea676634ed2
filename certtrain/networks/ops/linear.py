"""Matrices."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from certtrain.networks.kernels import matmul
from certtrain.networks.ops.base import LinearMap, Values, present


@dataclass(frozen=True)
class Linear(LinearMap):
    """torch.nn.Linear on a flat input."""

    weight: str
    bias: str | None

    @property
    def tensors(self) -> tuple[str, ...]:
        return present(self.weight, self.bias)

    def forward(self, values: Values, x: Tensor) -> Tensor:
        return F.linear(x, values[self.weight], None if self.bias is None else values[self.bias])

    def forward_linear(self, values: Values, x: Tensor) -> Tensor:
        return x @ values[self.weight].mT

    def forward_abs(self, values: Values, x: Tensor) -> Tensor:
        return x @ values[self.weight].abs().mT

    def adjoint(self, values: Values, rows: Tensor) -> Tensor:
        return matmul(rows, values[self.weight])

    def offset(self, values: Values) -> Tensor | None:
        return None if self.bias is None else values[self.bias]

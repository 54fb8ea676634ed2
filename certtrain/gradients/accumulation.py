"""A sum of losses that is differentiated part by part: the memory of one, the gradient of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from certtrain.gradients.backprop import differentiate
from certtrain.gradients.base import LossFunction
from certtrain.networks.graph import Params


def accumulated(parts: Sequence[LossFunction]) -> LossFunction:
    """The sum of losses, for whoever differentiates it once.

    Each part is differentiated as soon as it is evaluated, so that nothing but its gradient stays. Not for
    `torch.func.vmap`, nor for second derivatives.

    Args:
        parts: At least one; each maps parameters to a scalar.
    """
    if len(parts) == 1:
        return parts[0]

    def loss(params: Params) -> Tensor:
        if not torch.is_grad_enabled():
            return torch.stack([part(params) for part in parts]).sum()
        return _PartByPart.apply(parts, tuple(params), *params.values())

    return loss


class _PartByPart(torch.autograd.Function):
    """Value and gradient together; the gradient waits for the backward pass."""

    @staticmethod
    def forward(ctx: Any, parts: Sequence[LossFunction], names: tuple[str, ...], *tensors: Tensor) -> Tensor:
        params = dict(zip(names, tensors, strict=True))
        total = tensors[0].new_zeros(())
        sums = [torch.zeros_like(tensor) for tensor in tensors]
        for part in parts:
            value, gradient = differentiate(part, params)
            total = total + value
            for whole, name in zip(sums, names, strict=True):
                whole += gradient[name]
        ctx.save_for_backward(*sums)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, *(grad * gradient for gradient in ctx.saved_tensors))

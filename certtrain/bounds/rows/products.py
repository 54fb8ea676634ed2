"""The two element-wise steps of back-substitution: following an activation's lines, and summing products.

A group's rows share its lines. Elements are flattened.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from certtrain.activations import Lines
from certtrain.networks.kernels import is_transformed, matmul


def contract(rows: Tensor, x: Tensor) -> Tensor:
    """Sum of products [groups or 1, k, elements] x [groups or 1, elements] -> [groups or 1, k]."""
    if rows.shape[0] == 1:
        return matmul(x, rows[0].mT)
    if x.shape[0] == 1 and not is_transformed(rows, x):
        return rows @ x[0]
    # A batched matrix-vector product reads less but runs at a third of this speed on CPUs.
    return (rows * x[:, None]).sum(-1)


def follow_lines(rows: Tensor, lines: Lines) -> tuple[Tensor, Tensor]:
    """Positive coefficients take the lower line, negative ones the upper.

    Args:
        rows: [groups or 1, k, elements].
        lines: Each [groups, elements].

    Returns:
        The new rows [groups, k, elements], and the constants [groups, k].
    """
    if torch.is_grad_enabled() and not is_transformed(rows, lines.gap):
        found, constant = _FollowLines.apply(rows, lines.lower_slope, lines.gap, lines.upper_intercept)
    else:
        found, constant = _follow(rows, lines.lower_slope, lines.gap, lines.upper_intercept)
    if lines.lower_intercept is not None:
        constant = constant + contract(rows.clamp(min=0), lines.lower_intercept)
    return found, constant


def _follow(rows: Tensor, slope: Tensor, gap: Tensor, intercept: Tensor) -> tuple[Tensor, Tensor]:
    negative = rows.clamp(max=0)
    return torch.addcmul(rows * slope[:, None], negative, gap[:, None]), contract(negative, intercept)


class _FollowLines(torch.autograd.Function):
    """The derivative of `_follow` by hand: autograd's own passes over the rows three times as often."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, slope: Tensor, gap: Tensor, intercept: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(rows, slope, gap, intercept)
        return _follow(rows, slope, gap, intercept)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by_rows: Tensor, by_constant: Tensor) -> tuple[Tensor | None, ...]:
        rows, slope, gap, intercept = ctx.saved_tensors
        by_constant = by_constant[..., None]
        negative = rows.clamp(max=0)
        by_slope = (by_rows * rows).sum(1)
        by_gap = (by_rows * negative).sum(1)
        by_intercept = (negative * by_constant).sum(1)
        found = None
        if ctx.needs_input_grad[0]:
            # Where a coefficient is negative: the gap and the intercept.
            extra = torch.addcmul(by_constant * intercept[:, None], by_rows, gap[:, None])
            found = torch.addcmul(extra.masked_fill_(rows >= 0, 0), by_rows, slope[:, None])
            found = found.sum(0, keepdim=True) if rows.shape[0] == 1 else found
        return found, by_slope, by_gap, by_intercept

"""Two products that back-substitution spends its time in, each in the form that runs fastest.

On CPUs a matrix product goes through a convolution of one pixel: PyTorch hands convolutions to oneDNN, which is between
a tenth slower than the BLAS behind `torch.matmul` (square matrices) and a quarter faster (many rows, few columns);
docs/performance.md has the measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Rows below which a convolution's preparation, a copy of the matrix among it, is not worth it.
FEW_ROWS = 1024
# Channels of an image that are too few to fill a vector register, and how many numbers fill one.
THIN = 4
VECTOR = 16


def is_transformed(*tensors: Tensor) -> bool:
    """Whether a tensor stands for many or is differentiated, under `torch.func.vmap` or `torch.func.grad`."""
    return any(torch._C._functorch.is_functorch_wrapped_tensor(t) for t in tensors)


def is_differentiated(*tensors: Tensor) -> bool:
    """Whether derivatives may be asked for: inside a `torch.func` gradient, or under vmap while autograd records.

    Nested transformations count, too: nothing but a single vmap is told apart.
    """
    stack = torch._C._functorch.get_interpreter_stack() or ()
    if len(stack) > 1 or any(level.key() != torch._C._functorch.TransformType.Vmap for level in stack):
        return True
    return torch.is_grad_enabled() and is_transformed(*tensors)


def matmul(rows: Tensor, matrix: Tensor) -> Tensor:
    """Matrix product [*lead, k] x [k, n] -> [*lead, n]."""
    k, n = matrix.shape
    if (
        rows.device.type != "cpu"
        or rows.dtype != torch.float32
        or rows.numel() < FEW_ROWS * k
        or not torch.backends.mkldnn.is_available()
        or is_transformed(rows, matrix)
    ):
        return rows @ matrix
    # One image of one column of pixels with k channels each, channels last: no copy.
    image = rows.reshape(1, -1, 1, k).permute(0, 3, 1, 2)
    product = F.conv2d(image, matrix.mT.reshape(n, k, 1, 1))
    return product.permute(0, 2, 3, 1).reshape(*rows.shape[:-1], n)


def transposed_convolution(
    rows: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, ...],
    dilation: tuple[int, int],
    groups: int,
    size: tuple[int, ...],
) -> Tensor:
    """The adjoint of a convolution, on images of any memory format; channels last is fastest.

    Args:
        rows: [N, C_out, h, w].
        weight: The convolution's kernel [C_out, C_in / groups, kh, kw].
        stride: Of the convolution.
        padding: Of the convolution.
        dilation: Of the convolution.
        groups: Of the convolution.
        size: Height and width of the convolution's input: a stride may leave pixels at the far border that no window
            reaches; they are part of the input all the same.

    Returns:
        [N, C_in, *size].
    """
    if groups == 1 and dilation == (1, 1) and weight.shape[1] <= THIN and len(rows):
        return _by_blocks(rows, weight, stride, padding, size)
    rest = [
        size[i] - ((rows.shape[2 + i] - 1) * stride[i] - 2 * padding[i] + dilation[i] * (weight.shape[2 + i] - 1) + 1)
        for i in range(2)
    ]
    return F.conv_transpose2d(rows, weight, None, stride, padding, rest, groups, dilation)


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Tensor:
    """`F.conv2d`; where its input alone is differentiated, which attacks do, the way back is the quick adjoint.

    Args:
        x: [N, C_in, h, w].
        weight: The kernel [C_out, C_in / groups, kh, kw].
        bias: [C_out], if there is one.
        stride: Of the window.
        padding: Zeros at each border.
        dilation: Of the window.
        groups: Of channels.
    """
    if (
        x.requires_grad
        and not (weight.requires_grad or (bias is not None and bias.requires_grad))
        and groups == 1
        and dilation == (1, 1)
        and weight.shape[1] <= THIN
        and x.device.type == "cpu"
        and not is_transformed(x, weight)
        and not torch.is_autocast_enabled("cpu")
    ):
        return _ThinConvolution.apply(x, weight, bias, stride, padding)
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


class _ThinConvolution(torch.autograd.Function):
    """Of images with few channels, by which alone it can be differentiated."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.window = stride, padding, x.shape[2:]
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (weight,), (stride, padding, size) = ctx.saved_tensors, ctx.window
        return transposed_convolution(gradients[0], weight, stride, padding, (1, 1), 1, size), None, None, None, None


@dataclass(frozen=True)
class _Blocks:
    """How an ordinary convolution makes an adjoint's image in blocks of pixels, one block's pixels as its channels.

    Attributes:
        index: For each number of its kernel [C_in, b, c, C_out, reads, reads], the number of the weight that it is,
            flattened; one past the end for zero.
        block: Height and width of a block.
        count: Blocks in each direction.
        reads: Height and width of its kernel.
        steps: Stride of the convolution.
        borders: What is added to the rows before and after, in each direction.
    """

    index: Tensor
    block: tuple[int, int]
    count: tuple[int, int]
    reads: tuple[int, int]
    steps: tuple[int, int]
    borders: tuple[tuple[int, int], tuple[int, int]]

    @staticmethod
    @lru_cache(maxsize=256)
    def of(
        weight: tuple[int, ...],
        rows: tuple[int, ...],
        stride: tuple[int, int],
        padding: tuple[int, ...],
        size: tuple[int, ...],
    ) -> _Blocks:
        """A block of b pixels starts at every b-th pixel, that is at every (b / stride)-th of the rows' pixels.

        Pixel a of it reads the rows' pixel q (counted from `first`) with the coefficient a + padding - (q + first) ·
        stride, if there is one.
        """
        outer, thin = weight[:2]
        where, inside, blocks, steps, borders = [], [], [], [], []
        for axis in range(2):
            s, p, k = stride[axis], padding[axis], weight[2 + axis]
            block = s * ceil((VECTOR / thin) ** 0.5 / s)
            first, last = ceil((p - k + 1) / s), (block - 1 + p) // s
            coefficient = np.arange(block)[:, None] + p - np.arange(first, last + 1) * s
            where.append(coefficient)
            inside.append((coefficient >= 0) & (coefficient < k))
            count, step = ceil(size[axis] / block), block // s
            blocks.append((block, count))
            steps.append(step)
            borders.append((-first, (count - 1) * step + last + 1 - rows[axis]))
        # [C_in, b, c, C_out, reads, reads]
        channel = np.arange(outer)[:, None, None] * thin + np.arange(thin)[:, None, None, None, None, None]
        row, column = where[0][:, None, None, :, None], where[1][:, None, None, :]
        index = (channel * weight[2] + row) * weight[3] + column
        both = inside[0][:, None, None, :, None] & inside[1][:, None, None, :]
        index = np.where(both, index, outer * thin * weight[2] * weight[3])
        high, wide = index.shape[4:]
        (b, n), (c, m) = blocks
        with torch.inference_mode(False):  # what is kept here may be differentiated with later
            kept = torch.from_numpy(index.reshape(-1))
        return _Blocks(kept, (b, c), (n, m), (high, wide), (steps[0], steps[1]), (borders[0], borders[1]))


def _by_blocks(
    rows: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, ...], size: tuple[int, ...]
) -> Tensor:
    """Few input channels: an ordinary convolution makes whole blocks of pixels, one block's pixels as its channels."""
    thin, seen = weight.shape[1], tuple(rows.shape[2:])
    blocks = _Blocks.of(tuple(weight.shape), seen, stride, padding, tuple(size))
    (b, c), (n, m) = blocks.block, blocks.count
    kernel = F.pad(weight.reshape(-1), (0, 1)).index_select(0, blocks.index.to(weight.device))
    kernel = kernel.reshape(thin * b * c, weight.shape[0], *blocks.reads)
    out = _convolve(rows, kernel, blocks.steps, blocks.borders)[:, :, :n, :m]
    image = out.reshape(len(rows), thin, b, c, n, m).permute(0, 1, 4, 2, 5, 3)
    return image.reshape(len(rows), thin, n * b, m * c)[:, :, : size[0], : size[1]]


def _convolve(
    rows: Tensor, kernel: Tensor, steps: tuple[int, int], borders: tuple[tuple[int, int], tuple[int, int]]
) -> Tensor:
    """A convolution with its own border at each side; a negative one cuts."""
    padding = [before if before >= 0 and after <= before else None for before, after in borders]
    if None not in padding:
        return F.conv2d(rows, kernel, stride=steps, padding=padding)  # type: ignore[arg-type]
    (top, bottom), (left, right) = borders
    return F.conv2d(pad_or_cut(rows, (left, right, top, bottom)), kernel, stride=steps)


def pad_or_cut(x: Tensor, borders: tuple[int, ...]) -> Tensor:
    """`F.pad` with zeros, where a negative border may also cut more than there was before the other one was added.

    Args:
        x: Any tensor.
        borders: Numbers before and after each of the last axes, the last axis first.
    """
    if max(borders) > 0:
        x = F.pad(x, [max(n, 0) for n in borders])
    kept = [
        slice(max(-before, 0), size + min(after, 0))
        for before, after, size in zip(borders[::2], borders[1::2], reversed(x.shape), strict=False)
    ]
    return x[(..., *reversed(kept))]

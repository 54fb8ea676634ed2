"""A network as a short, typed, topologically ordered list of operations: what bounds are computed on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from certtrain.networks.ops import (
    Add,
    BatchNorm,
    Conv2d,
    Input,
    Linear,
    LinearMap,
    Op,
    ReLU,
    Shape,
    Values,
)

Params = dict[str, Tensor]


def parameters(module: nn.Module) -> Params:
    """The module's parameters, name -> tensor, as relaxations and estimators take them."""
    return dict(module.named_parameters())


@contextmanager
def evaluating(module: nn.Module) -> Iterator[nn.Module]:
    """Puts a module into eval mode for the duration, and every submodule back into the mode it had."""
    modes = {m: m.training for m in module.modules()}
    module.eval()
    try:
        yield module
    finally:
        for m, mode in modes.items():
            m.training = mode


@dataclass(frozen=True)
class Graph:
    """A traced network. Made by `certtrain.networks.trace`.

    Attributes:
        ops: Operations in an order in which each reads only earlier ones; the first is the input, the last the output.
        module: The network that was traced; its buffers are read when a bound is computed, not when it was traced.
        input_shape: Shape of one input, without the batch axis.
        num_outputs: Length of the output vector.
    """

    ops: tuple[Op, ...]
    module: nn.Module = field(repr=False, compare=False)
    input_shape: Shape
    num_outputs: int

    def readers(self, index: int) -> list[int]:
        """Indices of the operations that read an operation's output."""
        return [i for i, op in enumerate(self.ops) if index in op.inputs]

    @cached_property
    def tensors(self) -> Mapping[str, tuple[Shape, bool]]:
        """Shape of every parameter and statistic that the operations read, and whether it is a buffer."""
        buffers = dict(self.module.named_buffers())
        return {name: (shape, name in buffers) for op in self.ops for name, shape in _parameters_of(op).items()}

    @property
    def has_batch_norm(self) -> bool:
        """Whether running statistics take part in the network's function."""
        return any(isinstance(op, BatchNorm) for op in self.ops)

    def values(self, params: Params, like: Tensor) -> Params:
        """Parameters and buffers together, the buffers in dtype and device of `like`.

        A buffer that also stands in `params` is taken from there (batch statistics, for example).
        """
        buffers = {
            name: buffer.to(dtype=like.dtype, device=like.device)
            for name, buffer in self.module.named_buffers()
            if buffer.is_floating_point()
        }
        return {**buffers, **params}

    def forward(self, params: Params, x: Tensor) -> Tensor:
        """The network's outputs at given parameters: [batch, *input_shape] -> [batch, outputs]."""
        return self.run(self.values(params, x), x)

    def run(
        self, values: Values, x: Tensor, before_batch_norm: Callable[[BatchNorm, Tensor], None] | None = None
    ) -> Tensor:
        """Evaluates the operations in order.

        Args:
            values: Parameters and buffers, see `values`.
            x: [batch, *input_shape].
            before_batch_norm: Called with each batch norm and its input, before the operation reads its statistics.
        """
        results: list[Tensor] = []
        for op in self.ops:
            match op:
                case Input():
                    results.append(x)
                case ReLU():
                    results.append(torch.relu(results[op.inputs[0]]))
                case Add():
                    results.append(results[op.inputs[0]] + results[op.inputs[1]])
                case LinearMap():
                    y = results[op.inputs[0]]
                    if before_batch_norm is not None and isinstance(op, BatchNorm):
                        before_batch_norm(op, y)
                    results.append(op.forward(values, y))
        return results[-1]


def _parameters_of(op: Op) -> dict[str, Shape]:
    """Shapes of the tensors that an operation reads by shape."""
    names: tuple[str | None, ...]
    weight: Shape
    match op:
        case Linear():
            names, weight = (op.weight, op.bias), (op.shape[0], op.in_shape[0])
        case Conv2d():
            names, weight = (op.weight, op.bias), (op.shape[0], op.in_shape[0] // op.groups, *op.window.kernel)
        case BatchNorm():
            names, weight = (op.weight, op.bias, op.mean, op.variance), op.shape[:1]
        case _:
            return {}
    return {name: weight if name == op.weight else op.shape[:1] for name in names if name is not None}

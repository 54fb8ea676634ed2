"""A network as a short, typed, topologically ordered list of operations: what bounds are computed on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, reduce

import torch
from torch import Tensor, nn

from certtrain.networks.ops import Activation, Add, BatchNorm, Input, LinearMap, Op, Shape, Values
from certtrain.networks.rules import Propagation, Rules

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

    def readers(self, index: int) -> tuple[int, ...]:
        """Indices of the operations that read an operation's output."""
        return self._readers[index]

    @cached_property
    def _readers(self) -> list[tuple[int, ...]]:
        return [tuple(i for i, op in enumerate(self.ops) if index in op.inputs) for index in range(len(self.ops))]

    @cached_property
    def activations(self) -> tuple[tuple[int, Activation], ...]:
        """All activations with their indices, in order."""
        return tuple((i, op) for i, op in enumerate(self.ops) if isinstance(op, Activation))

    @cached_property
    def tensors(self) -> Mapping[str, tuple[Shape, bool]]:
        """Shape of every parameter and statistic that the operations read, and whether it is a buffer."""
        parameters, buffers = dict(self.module.named_parameters()), dict(self.module.named_buffers())
        names = [name for op in self.ops for name in op.tensors]
        return {n: (tuple((buffers if n in buffers else parameters)[n].shape), n in buffers) for n in names}

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
        return Propagation(self.ops, EVALUATION, _Evaluation(values, x, before_batch_norm)).at(len(self.ops) - 1)

    def results(self, params: Params, x: Tensor) -> list[Tensor]:
        """The output of every operation, each [batch, *shape]."""
        return Propagation(self.ops, EVALUATION, _Evaluation(self.values(params, x), x, None)).all()


@dataclass(frozen=True)
class _Evaluation:
    values: Values
    x: Tensor
    before_batch_norm: Callable[[BatchNorm, Tensor], None] | None

    def batch_norm(self, index: int, op: BatchNorm, x: Tensor) -> Tensor:
        if self.before_batch_norm is not None:
            self.before_batch_norm(op, x)
        return op.forward(self.values, x)


EVALUATION: Rules[Callable[..., Tensor]] = Rules(
    "evaluation",
    {
        Input: lambda run, index, op: run.x,
        Add: lambda run, index, op, *terms: reduce(torch.add, terms),
        Activation: lambda run, index, op, z: op.function(z),
        LinearMap: lambda run, index, op, x: op.forward(run.values, x),
        BatchNorm: _Evaluation.batch_norm,
    },
)

"""The auto_LiRPA backend: ibp, crown_ibp and deeppoly by an implementation that is not ours.

auto_LiRPA (Xu et al., arXiv 2002.12920) makes a stateful module of bounds by tracing a network. Here the
operations of a `Graph` are first rewritten as a `_Replica`, in the forms that auto_LiRPA's parser and rules
handle soundly, and that is made into a `BoundedNetwork`, a function of parameters and box. It depends on the
structure of the network alone, so that a bounded cache of them serves all callers.

Shared with the native relaxations are tracing and the folding of batch norm; the bounds themselves are
auto_LiRPA's.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, reduce
from math import prod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from certtrain.activations import ReLU
from certtrain.activations.sigmoid import Sigmoid
from certtrain.activations.tanh import Tanh
from certtrain.bounds.backends import _auto_lirpa_compat as compat
from certtrain.bounds.base import Bounds, Box, Relaxation, Sides
from certtrain.bounds.substitution.specification import spec_rows
from certtrain.errors import CerttrainError, ConfigError, UnsupportedOperation
from certtrain.networks.graph import Graph, Params
from certtrain.networks.ops import (
    Activation,
    Add,
    AvgPool2d,
    ChannelAffine,
    Conv2d,
    Input,
    Linear,
    Op,
    Reshape,
    Values,
    WindowMap,
)
from certtrain.networks.rules import Propagation, Rules

METHODS = {"ibp": "IBP", "crown_ibp": "CROWN-IBP", "deeppoly": "CROWN"}
# Each holds the structure of a network, no parameters.
MAX_NETWORKS = 16
# How far bounds on a point may be from the output there, relative to the largest output.
SELF_CHECK_TOLERANCE = 1e-3


@dataclass(frozen=True)
class AutoLirpa(Relaxation):
    """A relaxation computed by auto_LiRPA, differentiable with respect to parameters and box.

    A crossing ReLU lies below its chord and above slope · z, with slope 1 iff u/(u - l) > 1/2, so that a tie
    u = -l takes 0.

    Attributes:
        method: ibp; crown_ibp (interval bounds before every ReLU, one back-substitution of the
            specification); or deeppoly (back-substituted bounds before every ReLU, that is CROWN).
        sparse_intermediate: Only matters to deeppoly: True back-substitutes the neurons that interval bounds
            leave crossing for some image of the batch, and keeps interval bounds for the others. It is faster
            where most neurons are stable, and an image's bounds then depend, within soundness, on the rest of
            the batch. False is textbook CROWN.
        conv_mode: How rows over images are held: receptive fields ("patches") or all pixels ("matrix").
            auto_LiRPA's patches work only with square images, windows and strides, without groups and
            dilation, and where both branches of an addition reach equally far; a network with anything else
            is computed in matrix mode.
    """

    method: Literal["ibp", "crown_ibp", "deeppoly"]
    sparse_intermediate: bool = True
    conv_mode: Literal["patches", "matrix"] = "patches"

    def bound(
        self, graph: Graph, params: Params, box: Box, spec: Tensor | None = None, sides: Sides = "both"
    ) -> Bounds:
        """See `Relaxation.bound`.

        Raises:
            ConfigError: If auto_LiRPA cannot be used, or inside a `torch.func` transformation.
            UnsupportedOperation: If auto_LiRPA has no sound rule for an operation of the network, or (under
                ibp) would not merge the specification into its last layer.
        """
        _refuse_transformed(params, box, spec)
        if self.method == "ibp" and spec is not None and not isinstance(last := graph.ops[-1], Linear):
            raise UnsupportedOperation(
                f"auto_LiRPA's ibp merges a specification only into a Linear layer, and the network ends in "
                f"'{last.name}' ({type(last).__name__}): use relaxation.backend=native"
            )
        like = box.lower
        network = _network(graph.ops, like.dtype, like.device, self.sparse_intermediate, self.conv_mode)
        tensors = _slot_values(graph.ops, graph.values(params, like))
        rows = spec_rows(graph, spec, like).expand(len(box), -1, -1)
        corners = box.lower, box.upper
        try:
            lower, upper = network.bound(METHODS[self.method], tensors, corners, rows, sides == "both")
        except (
            NotImplementedError,
            AssertionError,
            ValueError,
        ) as error:  # how auto_LiRPA says "not supported"
            raise _unsupported(error) from error
        return Bounds(lower, upper)


def _refuse_transformed(params: Params, box: Box, spec: Tensor | None) -> None:
    # auto_LiRPA sets flags of tensors in place and has gradients of its own; torch.func supports neither.
    tensors = [*params.values(), box.lower, box.upper, *([] if spec is None else [spec])]
    if any(torch._C._functorch.is_functorch_wrapped_tensor(t) for t in tensors):
        raise ConfigError(
            "relaxation.backend=auto_lirpa does not work under torch.func.vmap or grad: "
            "use pgpe.strategy=loop or rgs.strategy=loop, or relaxation.backend=native"
        )


@lru_cache(maxsize=MAX_NETWORKS)
def _network(
    ops: tuple[Op, ...], dtype: torch.dtype, device: torch.device, sparse: bool, conv_mode: str
) -> compat.BoundedNetwork:
    """The network that operations make, as auto_LiRPA has it.

    Raises:
        UnsupportedOperation: If auto_LiRPA cannot represent it, or misrepresents it.
    """
    _check_operations(ops)
    options: dict[str, Any] = {
        "conv_mode": conv_mode if _patches_fit(ops) else "matrix",
        "sparse_intermediate_bounds": sparse,
        "sparse_intermediate_bounds_with_ibp": sparse,
        "relu": "adaptive",  # as 0.3 calls it
        "activation_bound_option": "adaptive",  # as later versions do
    }
    with torch.inference_mode(False):
        replica = _Replica(ops).to(dtype=dtype, device=device).eval()
        points = torch.linspace(-1, 1, 2 * ops[0].size, dtype=dtype, device=device).reshape(2, *ops[0].shape)
    with torch.no_grad():
        try:
            network = compat.BoundedNetwork(replica, points[:1], options)
            _check_on_points(network, replica, points)
        except (CerttrainError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # of any kind: assertions, missing attributes, shapes that do not fit
            raise _unsupported(error) from error
    return network


def _check_on_points(network: compat.BoundedNetwork, replica: _Replica, points: Tensor) -> None:
    """Compares bounds on boxes of width zero with outputs: shows a misread network or a wrong linear rule."""
    expected = replica(points)
    scale = 1 + expected.abs().max()
    tensors = dict(replica.slots.items())
    rows = torch.eye(expected.shape[1], dtype=points.dtype, device=points.device).expand(len(points), -1, -1)
    for method in ("IBP", "CROWN-IBP"):
        lower, _ = network.bound(method, tensors, (points, points), rows, both=False)
        error = float((lower - expected).abs().max() / scale)
        if not error <= SELF_CHECK_TOLERANCE:
            raise UnsupportedOperation(
                f"auto_LiRPA {compat.version()} misrepresents this network: its {method} bounds on a point "
                f"are off by {error:.1e}; use relaxation.backend=native"
            )


def _unsupported(error: Exception) -> UnsupportedOperation:
    return UnsupportedOperation(
        f"auto_LiRPA {compat.version()} cannot bound this network ({compat.first_line(error)}): "
        "try relaxation.conv_mode=matrix, or use relaxation.backend=native"
    )


def _check_operations(ops: tuple[Op, ...]) -> None:
    """Refuses, by name, what a replica cannot express or auto_LiRPA's rules would get wrong."""
    for op in ops:
        if isinstance(op, AvgPool2d) and not op.uniform:
            reason = "the divisor of its windows differs at the border"
        elif isinstance(op, WindowMap) and op.window.dilation[0] != op.window.dilation[1]:
            reason = f"its dilation {op.window.dilation} is not the same in both dimensions"
        elif not isinstance(op, tuple(REPLICAS.table)):
            reason = "it has no translation"
        elif isinstance(op, Activation) and not isinstance(op.function, FUNCTIONS):
            reason = f"its rules do not know {type(op.function).__name__}"
        else:
            continue
        raise UnsupportedOperation(
            f"operation '{op.name}' ({type(op).__name__}) cannot be bounded by auto_LiRPA: {reason}; "
            "use relaxation.backend=native"
        )


def _patches_fit(ops: tuple[Op, ...]) -> bool:
    """Whether auto_LiRPA's patches know this network's geometry: see `AutoLirpa.conv_mode`."""
    # Per operation, seen from the input: its stride, and the pixels that a window spans less the padding
    # around them. Patches of two branches can be added only if these agree.
    geometry: list[tuple[int, int] | None] = []
    for op in ops:
        read = [geometry[i] for i in op.inputs]
        if len(op.shape) == 2 or (len(op.shape) == 3 and op.shape[1] != op.shape[2]):
            return False
        if isinstance(op, Reshape) and len(op.shape) != 1:
            return False
        if isinstance(op, Conv2d) and op.groups != 1:
            return False
        if isinstance(op, Add) and len(set(read)) > 1:
            return False
        geometry.append(read[0] if read else (1, 1))
        if isinstance(op, WindowMap) and read[0] is not None:
            w, (stride, span) = op.window, read[0]
            if w.dilation != (1, 1) or any(a != b for a, b in (w.kernel, w.stride, w.padding)):
                return False
            geometry[-1] = stride * w.stride[0], span + stride * (w.kernel[0] - 1 - 2 * w.padding[0])
        elif isinstance(op, Reshape):
            geometry[-1] = None
    return True


class _Replica(nn.Module):
    """A network's operations in forms that auto_LiRPA handles soundly, with arbitrary numbers for parameters.

    Every tensor is a parameter in a slot of its own. Every affine map of channels is a batch norm with
    trivial statistics: auto_LiRPA has patches for that, but not for subtraction and division. Every pooling
    is a convolution: its own rule for pooling takes the stride to be the kernel size.
    """

    def __init__(self, ops: tuple[Op, ...]) -> None:
        super().__init__()
        self.ops = ops
        self.slots = nn.ParameterDict()
        # Constants must be exact in whatever dtype they end up in.
        generator, exact = torch.Generator().manual_seed(0), torch.float64
        for i, op in enumerate(ops):
            for name, shape in _slot_shapes(op).items():
                numbers = torch.randn(shape, generator=generator, dtype=exact) / prod(shape[1:]) ** 0.5
                self.slots[f"{i}_{name}"] = nn.Parameter(numbers)
            if isinstance(op, ChannelAffine):
                self.register_buffer(f"{i}_mean", torch.zeros(op.shape[0], dtype=exact))
                self.register_buffer(f"{i}_variance", torch.ones(op.shape[0], dtype=exact))
            elif isinstance(op, AvgPool2d):
                kernel = torch.eye(op.shape[0], dtype=exact)[:, :, None, None] / prod(op.window.kernel)
                self.register_buffer(f"{i}_kernel", kernel.repeat(1, 1, *op.window.kernel))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, *input_shape] -> [batch, outputs]."""
        return Propagation(self.ops, REPLICAS, _Evaluation(self, x)).at(len(self.ops) - 1)


@dataclass(frozen=True)
class _Evaluation:
    replica: _Replica
    x: Tensor

    def slot(self, index: int, name: str) -> Tensor:
        return self.replica.slots[f"{index}_{name}"]

    def linear(self, index: int, op: Linear, x: Tensor) -> Tensor:
        return F.linear(x, self.slot(index, "weight"), self.slot(index, "bias"))

    def convolution(self, index: int, op: Conv2d, x: Tensor) -> Tensor:
        w = op.window
        weight, bias = self.slot(index, "weight"), self.slot(index, "bias")
        return F.conv2d(x, weight, bias, w.stride, w.padding, w.dilation, op.groups)

    def average(self, index: int, op: AvgPool2d, x: Tensor) -> Tensor:
        kernel = self.replica.get_buffer(f"{index}_kernel")
        return F.conv2d(x, kernel, None, op.window.stride, op.window.padding)

    def channels(self, index: int, op: ChannelAffine, x: Tensor) -> Tensor:
        mean, variance = (self.replica.get_buffer(f"{index}_{name}") for name in ("mean", "variance"))
        return F.batch_norm(x, mean, variance, self.slot(index, "scale"), self.slot(index, "shift"), eps=0.0)

    def reshape(self, index: int, op: Reshape, x: Tensor) -> Tensor:
        # Written so that the parser records no batch size.
        return x.flatten(1) if len(op.shape) == 1 else x.reshape(-1, *op.shape)


# An operation that has no line here cannot be bounded by this backend.
REPLICAS: Rules[Callable[..., Tensor]] = Rules(
    "auto_LiRPA",
    {
        Input: lambda run, index, op: run.x,
        Add: lambda run, index, op, *terms: reduce(operator.add, terms),
        Activation: lambda run, index, op, z: op.function(z),
        Linear: _Evaluation.linear,
        Conv2d: _Evaluation.convolution,
        AvgPool2d: _Evaluation.average,
        ChannelAffine: _Evaluation.channels,
        Reshape: _Evaluation.reshape,
    },
)
# Of activations, those that its own rules bound.
FUNCTIONS = (ReLU, Sigmoid, Tanh)


def _slot_shapes(op: Op) -> Mapping[str, tuple[int, ...]]:
    """Shapes of the tensors that an operation needs."""
    match op:
        case Linear():
            return {"weight": (op.shape[0], op.in_shape[0]), "bias": (op.shape[0],)}
        case Conv2d():
            weight = (op.shape[0], op.in_shape[0] // op.groups, *op.window.kernel)
            return {"weight": weight, "bias": (op.shape[0],)}
        case ChannelAffine():
            return {"scale": (op.shape[0],), "shift": (op.shape[0],)}
        case _:
            return {}


def _slot_values(ops: tuple[Op, ...], values: Values) -> dict[str, Tensor]:
    """The tensors for a replica's slots, by the slot's name."""
    slots: dict[str, Tensor] = {}
    for i, op in enumerate(ops):
        match op:
            case Linear() | Conv2d():
                weight = op.kernel(values) if isinstance(op, Conv2d) else values[op.weight]
                slots[f"{i}_weight"] = weight
                slots[f"{i}_bias"] = weight.new_zeros(len(weight)) if op.bias is None else values[op.bias]
            case ChannelAffine():
                slots[f"{i}_scale"], slots[f"{i}_shift"] = op.scale(values), op.shift(values)
    return slots

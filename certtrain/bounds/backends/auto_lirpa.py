"""The auto_LiRPA backend: ibp, crown_ibp and deeppoly by an implementation that is not ours.

auto_LiRPA (Xu et al., arXiv 2002.12920) makes a stateful module of bounds by tracing a network. Here the
operations of a `Graph` are first rewritten as a `Replica`, in the forms that auto_LiRPA's parser and rules
handle soundly, and that is made into a `BoundedNetwork`, a function of parameters and box. It depends on the
structure of the network alone, so that a bounded cache of them serves all callers.

Shared with the native relaxations are tracing and the folding of batch norm; the bounds themselves are
auto_LiRPA's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from certtrain.bounds.backends import _auto_lirpa_compat as compat
from certtrain.bounds.backends._auto_lirpa_replica import Replica, check_operations, slot_values
from certtrain.bounds.base import Bounds, Box, Relaxation, Sides
from certtrain.bounds.substitution.specification import spec_rows
from certtrain.errors import CerttrainError, ConfigError, UnsupportedOperation
from certtrain.networks.graph import Graph, Params
from certtrain.networks.ops import (
    Add,
    Conv2d,
    Linear,
    Op,
    Reshape,
    WindowMap,
)

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
        tensors = slot_values(graph.ops, graph.values(params, like))
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
    check_operations(ops)
    options: dict[str, Any] = {
        "conv_mode": conv_mode if _patches_fit(ops) else "matrix",
        "sparse_intermediate_bounds": sparse,
        "sparse_intermediate_bounds_with_ibp": sparse,
        "relu": "adaptive",  # as 0.3 calls it
        "activation_bound_option": "adaptive",  # as later versions do
    }
    with torch.inference_mode(False):
        replica = Replica(ops).to(dtype=dtype, device=device).eval()
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


def _check_on_points(network: compat.BoundedNetwork, replica: Replica, points: Tensor) -> None:
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

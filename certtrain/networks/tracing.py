"""From an nn.Module to a `Graph`: torch.fx records what the module does, and each node becomes one operation.

What cannot be bounded is refused here, by name and position, before any training starts.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from certtrain.errors import UnsupportedOperation
from certtrain.networks.graph import Graph, evaluating, parameters
from certtrain.networks.layers import Normalize
from certtrain.networks.ops import (
    Add,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Input,
    Linear,
    Normalization,
    Op,
    ReLU,
    Reshape,
    Window,
)
from certtrain.networks.recording import PROBE_BATCH, ancestors, argument, arguments, blank, holds_tensors, record

SUPPORTED = (
    "Linear, Conv2d (zero padding), ReLU, BatchNorm1d/2d, AvgPool2d, Flatten/view/reshape, residual addition, "
    "Dropout and Identity in eval mode, certtrain.networks.Normalize"
)

RESHAPES = {torch.flatten, torch.reshape, "flatten", "view", "reshape"}
RELUS = {torch.relu, F.relu, torch.relu_, "relu", "relu_"}
ADDITIONS = {operator.add, operator.iadd, torch.add, "add", "add_"}
IN_PLACE = {operator.iadd, torch.relu_}
IDENTITIES = {"contiguous", F.dropout, F.dropout2d}


def trace(module: nn.Module, input_shape: Sequence[int]) -> Graph:
    """Traces a network in eval mode.

    Args:
        module: Any module that torch.fx can trace into the supported operations.
        input_shape: Shape of one input without the batch axis.

    Raises:
        UnsupportedOperation: If an operation has no bound rule; names the operation, its kind and its position.
    """
    shape = tuple(int(n) for n in input_shape)
    with evaluating(module):
        nodes = record(module, shape)
        ops = _Builder(module, nodes).build()
        if len(ops[-1].shape) != 1:
            raise UnsupportedOperation(f"the network's output must be a vector per image, got shape {ops[-1].shape}")
        graph = Graph(ops, module, shape, ops[-1].shape[0])
        _compare(graph)
    return graph


def _compare(graph: Graph) -> None:
    """Refuses a graph that computes something else than its module: hooks, say, leave no trace in torch.fx."""
    like = blank(graph.module, graph.input_shape)
    generator = torch.Generator().manual_seed(0)
    for scale in (1.0, 10.0):
        x = (scale * torch.randn(like.shape, generator=generator)).to(like)
        with torch.no_grad():
            expected, found = graph.module(x), graph.forward(parameters(graph.module), x)
        size = float(expected.abs().max())
        if expected.isfinite().all() and not torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * (1 + size)):
            raise UnsupportedOperation(
                f"tracing {type(graph.module).__name__} gives another function than the module itself "
                f"(outputs differ by {float((found - expected).abs().max()):.3g}): it may use forward hooks, or "
                "operations in place on tensors that are views of each other"
            )


class _Builder:
    """Turns recorded nodes into operations, one after the other."""

    def __init__(self, module: nn.Module, results: dict[fx.Node, Any]) -> None:
        self.module = module
        self.results = results
        self.modules = dict(module.named_modules())
        # Shared tensors appear under one name only in named_parameters(); operations must use that one.
        self.names = {id(p): name for name, p in [*module.named_parameters(), *module.named_buffers()]}
        self.ops: list[Op] = []
        self.index: dict[fx.Node, int] = {}

    def build(self) -> tuple[Op, ...]:
        output = next(node for node in self.results if node.op == "output")
        last = output.args[0]
        returned = self.results[last] if isinstance(last, fx.Node) else last
        if not isinstance(last, fx.Node) or not isinstance(returned, Tensor):
            kind = "a tuple, list or dictionary" if isinstance(returned, Collection) else type(returned).__name__
            raise UnsupportedOperation(f"the network must return one tensor, not {kind}")
        needed = ancestors(last)
        for node, result in self.results.items():
            self._check_in_place(node)
            if node not in needed or node.op == "get_attr":
                continue
            if isinstance(result, Tensor):
                self._add(node)
            elif holds_tensors(result):
                self._refuse(node)
        if last not in self.index:
            raise UnsupportedOperation(f"the network's output '{last}' is a constant: it does not depend on its input")
        return _prune(tuple(self.ops), self.index[last])

    def _check_in_place(self, node: fx.Node) -> None:
        """torch.fx records values: whoever else reads a tensor that was changed in place would read the old one."""
        layer = self.modules.get(str(node.target)) if node.op == "call_module" else None
        in_place = (
            bool(getattr(layer, "inplace", False))
            or (node.op == "call_function" and (node.target in IN_PLACE or node.kwargs.get("inplace") is True))
            or (node.op == "call_function" and node.target is F.relu and len(node.args) > 1 and node.args[1] is True)
            or (node.op == "call_method" and str(node.target).endswith("_"))
        )
        if in_place and node.all_input_nodes and len(node.all_input_nodes[0].users) > 1:
            self._refuse(node, "it works in place on a tensor that is read elsewhere; use the version that does not")

    def _add(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self._append(node, Input(node.name, (), self._shape(node)))
        elif not self._inputs(node):
            self._refuse(node, "it does not depend on the network's input")
        elif self.results[node].shape[:1] != (PROBE_BATCH,):
            self._refuse(node, "it does not keep the batch axis")
        elif node.op == "call_module":
            self._call_module(node, self.modules[str(node.target)])
        else:
            self._call_function(node, node.target)

    def _call_module(self, node: fx.Node, layer: nn.Module) -> None:
        head = (str(node.target), self._inputs(node), self._shape(node))
        match layer:
            case nn.Identity() | nn.Dropout() | nn.Dropout1d() | nn.Dropout2d():
                self.index[node] = head[1][0]
            case nn.ReLU():
                self._append(node, ReLU(*head))
            case nn.Flatten():
                self._append(node, Reshape(*head, self._in_shape(node)))
            case nn.Linear():
                self._linear(node, layer.weight, layer.bias)
            case nn.Conv2d():
                self._conv(node, layer)
            case nn.AvgPool2d():
                window = Window(_pair(layer.kernel_size), _pair(layer.stride), _pair(layer.padding))
                self._pool(node, window, layer.ceil_mode, layer.count_include_pad, layer.divisor_override)
            case nn.BatchNorm1d() | nn.BatchNorm2d():
                self._batch_norm(node, layer)
            case Normalize():
                names = self._name(node, layer.mean), self._name(node, layer.std)
                self._append(node, Normalization(*head, self._in_shape(node), *names))
            case _:
                self._refuse(node)

    def _call_function(self, node: fx.Node, target: Any) -> None:
        head = (node.name, self._inputs(node), self._shape(node))
        if target in RELUS:
            self._append(node, ReLU(*head))
        elif target in RESHAPES:
            self._append(node, Reshape(*head, self._in_shape(node)))
        elif target in IDENTITIES:
            if target != "contiguous" and argument(node, 2, "training", True):
                self._refuse(node, "dropout must be off in eval mode: pass training=self.training")
            self.index[node] = head[1][0]
        elif target in ADDITIONS:
            self._addition(node)
        elif target is F.linear:
            self._linear(node, self._attribute(node, 1, "weight"), self._attribute(node, 2, "bias"))
        elif target is F.avg_pool2d:
            kernel = _pair(argument(node, 1, "kernel_size", None))
            window = Window(
                kernel, _pair(argument(node, 2, "stride", None) or kernel), _pair(argument(node, 3, "padding", 0))
            )
            flags = argument(node, 4, "ceil_mode", False), argument(node, 5, "count_include_pad", True)
            self._pool(node, window, *flags, argument(node, 6, "divisor_override", None))
        else:
            self._refuse(node)

    def _linear(self, node: fx.Node, weight: Tensor | None, bias: Tensor | None) -> None:
        if len(self._in_shape(node)) != 1:
            self._refuse(node, f"it must act on flat inputs, not on shape {self._in_shape(node)}: add Flatten")
        head = (self._label(node), self._inputs(node)[:1], self._shape(node), self._in_shape(node))
        self._append(node, Linear(*head, self._name(node, weight), bias if bias is None else self._name(node, bias)))

    def _conv(self, node: fx.Node, layer: nn.Conv2d) -> None:
        if layer.padding_mode != "zeros":
            self._refuse(node, f"padding_mode must be 'zeros', not '{layer.padding_mode}'")
        window = Window(_pair(layer.kernel_size), _pair(layer.stride), (0, 0), _pair(layer.dilation))
        if layer.padding == "same":
            total = [extent - 1 for extent in window.extent]
            if any(t % 2 for t in total):
                self._refuse(node, "padding 'same' must be symmetric: use odd kernels")
            window = replace(window, padding=(total[0] // 2, total[1] // 2))
        elif layer.padding != "valid":
            window = replace(window, padding=_pair(layer.padding))
        bias = None if layer.bias is None else self._name(node, layer.bias)
        head = (self._label(node), self._inputs(node), self._shape(node), self._in_shape(node))
        self._append(node, Conv2d(*head, window, self._name(node, layer.weight), bias, layer.groups))

    def _pool(self, node: fx.Node, window: Window, ceil: bool, include_pad: bool, divisor: int | None) -> None:
        if divisor is not None:
            self._refuse(node, "divisor_override is not supported")
        head = (self._label(node), self._inputs(node), self._shape(node), self._in_shape(node))
        self._append(node, AvgPool2d(*head, window, bool(ceil), bool(include_pad)))

    def _batch_norm(self, node: fx.Node, layer: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        if layer.running_mean is None or layer.running_var is None:
            self._refuse(node, "batch norm needs running statistics (track_running_stats=True)")
            return
        weight = self._name(node, layer.weight) if layer.affine else None
        bias = self._name(node, layer.bias) if layer.affine else None
        mean, variance = self._name(node, layer.running_mean), self._name(node, layer.running_var)
        head = (self._label(node), self._inputs(node), self._shape(node), self._in_shape(node))
        self._append(node, BatchNorm(*head, weight, bias, mean, variance, layer.eps))

    def _addition(self, node: fx.Node) -> None:
        terms = [a for a in arguments(node) if isinstance(a, fx.Node) and a in self.index]
        if len(terms) != 2 or argument(node, 9, "alpha", 1) != 1:
            self._refuse(node, "only the sum of two layers' outputs is supported")
        if any(self._shape(t) != self._shape(node) for t in terms):
            self._refuse(node, "both terms of an addition must have the same shape")
        self._append(node, Add(node.name, self._inputs(node), self._shape(node)))

    def _append(self, node: fx.Node, op: Op) -> None:
        self.index[node] = len(self.ops)
        self.ops.append(op)

    def _inputs(self, node: fx.Node) -> tuple[int, ...]:
        return tuple(self.index[a] for a in arguments(node) if isinstance(a, fx.Node) and a in self.index)

    def _shape(self, node: fx.Node) -> tuple[int, ...]:
        return tuple(self.results[node].shape[1:])

    def _in_shape(self, node: fx.Node) -> tuple[int, ...]:
        return self.ops[self._inputs(node)[0]].shape

    def _label(self, node: fx.Node) -> str:
        return str(node.target) if node.op == "call_module" else node.name

    def _name(self, node: fx.Node, tensor: Tensor | None) -> str:
        if tensor is None or id(tensor) not in self.names:
            self._refuse(node, "its weights must be registered parameters or buffers, not computed ones")
        return self.names[id(tensor)]

    def _attribute(self, node: fx.Node, position: int, keyword: str) -> Tensor | None:
        value = argument(node, position, keyword, None)
        return self.results[value] if isinstance(value, fx.Node) else None

    def _refuse(self, node: fx.Node, reason: str | None = None) -> NoReturn:
        kind = (
            type(self.modules[str(node.target)]).__name__ if node.op == "call_module" else _callable_name(node.target)
        )
        raise UnsupportedOperation(
            f"operation '{self._label(node)}' ({kind}) at position {len(self.ops)} has no bound rule"
            + (f": {reason}" if reason else f"; supported are {SUPPORTED}")
        )


def _pair(value: Any) -> tuple[int, int]:
    first, second = value if isinstance(value, (tuple, list)) else (value, value)
    return int(first), int(second)


def _callable_name(target: str | Callable[..., Any]) -> str:
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))


def _prune(ops: tuple[Op, ...], output: int) -> tuple[Op, ...]:
    """Only the operations that the output depends on, renumbered; the input stays first."""
    needed, stack = {0}, [output]
    while stack:
        i = stack.pop()
        needed.add(i)
        stack.extend(j for j in ops[i].inputs if j not in needed)
    order = sorted(needed)
    number = {old: new for new, old in enumerate(order)}
    return tuple(replace(ops[i], inputs=tuple(number[j] for j in ops[i].inputs)) for i in order)

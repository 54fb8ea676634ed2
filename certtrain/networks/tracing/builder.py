"""Turns recorded nodes into operations, one after the other."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, NoReturn

from torch import Tensor, fx, nn

from certtrain import activations
from certtrain.errors import UnsupportedOperation
from certtrain.networks.ops import Activation, Input, Op, Shape
from certtrain.networks.tracing.recording import PROBE_BATCH, ancestors, arguments, holds_tensors

SUPPORTED = (
    f"Linear, Conv1d/2d, ConvTranspose2d, {', '.join(kind.__name__ for kind in activations.ACTIVATIONS)}, MaxPool and "
    "AvgPool, BatchNorm, sums of layers, sums and products with constants, whatever only moves elements (reshapes, "
    "slices, transpositions, padding, concatenation), Dropout and Identity in eval mode, certtrain.networks.Normalize"
)

# What people put at the end of a classifier, and losses of logits do by themselves.
LOGIT_MAPS = ("softmax", "log_softmax", "logsoftmax")

# A layer's translation is called with the builder, the node and the layer; a function's with the first two.
ModuleRule = Callable[["Builder", fx.Node, Any], None]
FunctionRule = Callable[["Builder", fx.Node], None]


class Builder:
    """The operations so far, and which of them holds a node's result.

    Args:
        module: The network, in eval mode.
        results: Its nodes with the result of each on a blank batch.
        modules: Class of a layer -> its translation; derived classes have their base's.
        functions: Function, or name of a tensor's method -> its translation.

    Attributes:
        ops: The operations so far.
        index: Node -> the operation that holds its result.
    """

    def __init__(
        self,
        module: nn.Module,
        results: Mapping[fx.Node, Any],
        modules: Mapping[type[nn.Module], ModuleRule],
        functions: Mapping[Any, FunctionRule],
    ) -> None:
        self.results = results
        self.layers = dict(module.named_modules())
        self.modules, self.functions = modules, functions
        # Shared tensors appear under one name only in named_parameters(); operations must use that one.
        self.names = {id(p): name for name, p in [*module.named_parameters(), *module.named_buffers()]}
        self.ops: list[Op] = []
        self.index: dict[fx.Node, int] = {}

    def build(self) -> tuple[Op, ...]:
        """The operations that the output depends on.

        Raises:
            UnsupportedOperation: If one of the nodes has no translation.
        """
        last = next(node for node in self.results if node.op == "output").args[0]
        returned = self.results[last] if isinstance(last, fx.Node) else last
        if not isinstance(last, fx.Node) or not isinstance(returned, Tensor):
            kind = "a tuple, list or dictionary" if isinstance(returned, Collection) else type(returned).__name__
            raise UnsupportedOperation(f"the network must return one tensor, not {kind}")
        needed = ancestors(last)
        for node, result in self.results.items():
            self._check_in_place(node)
            if node in needed and isinstance(result, Tensor) and node.op != "get_attr":
                self._add(node)
        if last not in self.index:
            raise UnsupportedOperation(f"the network's output '{last}' is a constant: it does not depend on its input")
        return _prune(tuple(self.ops), self.index[last])

    def _check_in_place(self, node: fx.Node) -> None:
        """torch.fx records values: whoever else reads a tensor that was changed in place would read the old one."""
        layer = self.layers.get(str(node.target)) if node.op == "call_module" else None
        flagged = node.kwargs.get("inplace") is True or (
            node.target in activations.FUNCTIONS and any(a is True for a in node.args[1:])
        )
        named = node.target is operator.iadd or callable_name(node.target).endswith("_")
        in_place = bool(getattr(layer, "inplace", False)) or (node.op.startswith("call_f") and (flagged or named))
        in_place = in_place or (node.op == "call_method" and named)
        if in_place and node.all_input_nodes and len(node.all_input_nodes[0].users) > 1:
            self.refuse(node, "it works in place on a tensor that is read elsewhere; use the version that does not")

    def _add(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self.append(node, Input(node.name, (), self.shape(node)))
            return
        if not self.sources(node):
            return  # a constant: whoever reads it says what that means
        if self.results[node].shape[:1] != (PROBE_BATCH,):
            self.refuse(node, "it does not keep the batch axis")
        if node.op == "call_module":
            self._call_module(node, self.layers[str(node.target)])
        elif node.target in self.functions:
            self.functions[node.target](self, node)
        elif node.target in activations.FUNCTIONS:
            self._activation(node)
        else:
            self.refuse(node)

    def _call_module(self, node: fx.Node, layer: nn.Module) -> None:
        for kind in type(layer).__mro__:
            if kind in self.modules:
                return self.modules[kind](self, node, layer)
            if kind in activations.MODULES:
                return self.append(node, Activation(*self.head(node), activations.MODULES[kind](layer)))
        self.refuse(node)

    def _activation(self, node: fx.Node) -> None:
        given = {name: value for name, value in node.kwargs.items() if name != "input"}
        positional = node.args if "input" in node.kwargs else node.args[1:]
        try:
            function = activations.FUNCTIONS[node.target](*positional, **given)
        except (TypeError, ValueError) as error:
            self.refuse(node, f"its arguments are not supported: {error}")
        self.append(node, Activation(*self.head(node), function))

    def append(self, node: fx.Node, *ops: Op) -> None:
        """Adds operations, of which the last has the node's result; see `chain` for those that read each other."""
        self.ops.extend(ops)
        self.index[node] = len(self.ops) - 1

    def chain(self, node: fx.Node, start: int, *ops: Op) -> None:
        """Adds operations that read each other, the first one the operation `start`; their `inputs` are set here."""
        for op in ops:
            self.ops.append(replace(op, inputs=(start,)))
            start = len(self.ops) - 1
        self.index[node] = start

    def alias(self, node: fx.Node) -> None:
        """The node's result is that of the operation that it reads."""
        self.index[node] = self.inputs(node)[0]

    def sources(self, node: fx.Node) -> list[fx.Node]:
        """The nodes that a node's result is made from: operations that it reads, also by way of tuples of tensors."""
        found: list[fx.Node] = []
        for read in node.all_input_nodes:
            if read in self.index:
                found.append(read)
            elif self.is_tuple(read):
                found += self.sources(read)
        return found

    def is_tuple(self, node: fx.Node) -> bool:
        """Whether a node's result are several tensors: parts of one."""
        return holds_tensors(self.results.get(node))

    def inputs(self, node: fx.Node) -> tuple[int, ...]:
        """Indices of the operations that a node reads, one for each argument."""
        return tuple(self.index[a] for a in arguments(node) if isinstance(a, fx.Node) and a in self.index)

    def shape(self, node: fx.Node) -> Shape:
        """Of a node's result, without the batch axis."""
        return tuple(self.results[node].shape[1:])

    def in_shape(self, node: fx.Node) -> Shape:
        """Of the first operation that it reads."""
        return self.ops[self.inputs(node)[0]].shape

    def head(self, node: fx.Node) -> tuple[str, tuple[int, ...], Shape]:
        """The fields of every operation: name, the operation that it reads, and shape."""
        return self.label(node), self.inputs(node)[:1], self.shape(node)

    def linear_head(self, node: fx.Node) -> tuple[str, tuple[int, ...], Shape, Shape]:
        """The fields of every linear map."""
        return *self.head(node), self.in_shape(node)

    def label(self, node: fx.Node) -> str:
        """What messages call a node."""
        return str(node.target) if node.op == "call_module" else node.name

    def name(self, node: fx.Node, tensor: Tensor | None) -> str:
        """Under which a tensor is registered."""
        if tensor is None or id(tensor) not in self.names:
            self.refuse(node, "its weights must be registered parameters or buffers, not computed ones")
        return self.names[id(tensor)]

    def optional_name(self, node: fx.Node, tensor: Tensor | None) -> str | None:
        """The same where there may be none."""
        return None if tensor is None else self.name(node, tensor)

    def refuse(self, node: fx.Node, reason: str | None = None) -> NoReturn:
        """Raises UnsupportedOperation, with the reason or else with what is supported."""
        layer = self.layers.get(str(node.target)) if node.op == "call_module" else None
        kind = callable_name(node.target) if layer is None else type(layer).__name__
        if reason is None and kind.lower() in LOGIT_MAPS:
            reason = "a network returns logits: leave it out, the losses do the same"
        raise UnsupportedOperation(
            f"operation '{self.label(node)}' ({kind}) at position {len(self.ops)} has no bound rule"
            + (f": {reason}" if reason else f"; supported are {SUPPORTED}")
        )


def callable_name(target: str | Callable[..., Any]) -> str:
    """Of a function or method, as users write it."""
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

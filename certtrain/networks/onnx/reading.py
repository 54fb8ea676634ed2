"""From an ONNX file to a module: node by node, each by the rule of its operator."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import torch
from torch import fx

from certtrain.errors import CerttrainError, ConfigError, UnsupportedOperation, one_line
from certtrain.networks.onnx.agreement import check_agreement
from certtrain.networks.onnx.files import load_model, onnx_package
from certtrain.networks.onnx.folding import fold
from certtrain.networks.onnx.fusing import absorb_biases
from certtrain.networks.onnx.network import OnnxNetwork
from certtrain.networks.onnx.node import Node
from certtrain.networks.onnx.operators import OPERATORS, Result
from certtrain.networks.onnx.values import Emitter, Operand, Shape, Value
from certtrain.spelling import did_you_mean

DOMAINS = ("", "ai.onnx")


def from_onnx(path: str | os.PathLike[str]) -> OnnxNetwork:
    """Reads a network from an ONNX file, as layers of torch.nn in eval mode.

    The file's input may have a batch axis, of length one or open, or none: [1, 3, 32, 32], ["N", 784], [5]. The network
    takes [batch, *input_shape] and returns [batch, outputs]. Where onnxruntime is installed, both are compared.

    Args:
        path: The file; its name ends in .gz if it is compressed.

    Raises:
        ConfigError: If the file cannot be read, is damaged or contradicts itself, or onnx is not installed.
        UnsupportedOperation: If it has more than one input or output, or a node that is not supported; names it.
    """
    name = os.fspath(path)
    model = load_model(name)
    try:
        network = _Reading(model).network()
        check_agreement(model, network)
    except CerttrainError as error:
        raise type(error)(f"{name}: {_printable(str(error))}") from error
    except Exception as error:  # bytes where a text should be, say: whatever a damaged file may lead to
        raise ConfigError(f"{name}: is damaged: {one_line(error)}") from error
    return network


def _printable(text: str) -> str:
    """Names are the file's, and may hold anything."""
    return "".join(c if c.isprintable() else "?" for c in text)


class _Reading:
    """One pass over a model's nodes.

    Args:
        model: The onnx.ModelProto.
    """

    def __init__(self, model: Any) -> None:
        self.onnx = onnx_package()
        self.model, self.graph = model, model.graph
        self.initializers = {tensor.name: tensor for tensor in self.graph.initializer}
        if self.graph.sparse_initializer:
            raise UnsupportedOperation("sparse initializers are not supported")
        self.found: dict[str, Operand] = {}
        self.names = Counter(node.name for node in self.graph.node)

    def network(self) -> OnnxNetwork:
        """The whole network."""
        source, shape, dtype = self._input()
        self.emitter = Emitter(dtype)
        start = self.found[source] = self.emitter.input(shape)
        (output, *others) = [value.name for value in self.graph.output] or [""]
        if others:
            raise UnsupportedOperation(f"one output is supported, the network has {1 + len(others)}: {output}, ...")
        for position, proto in self._needed(output):
            self._add(position, proto)
        last = self._operand(output, "the network's output")
        if not isinstance(last, Value):
            raise UnsupportedOperation(f"the output '{output}' is a constant: it does not depend on the input")
        flat = self.emitter.reshaped(last.node, (1, last.probe[0].numel()))
        self.emitter.graph.output(flat.node)
        absorb_biases(self.emitter.root, self.emitter.graph)
        body = fx.GraphModule(self.emitter.root, self.emitter.graph)
        return OnnxNetwork(body, shape, start.features, source, flat.shape[1]).eval()

    def _input(self) -> tuple[str, Shape, torch.dtype]:
        """Name, shape for one input, and type of the only input."""
        inputs = [value for value in self.graph.input if value.name not in self.initializers]
        if len(inputs) != 1:
            names = ", ".join(value.name for value in inputs)
            raise UnsupportedOperation(f"one input is supported, the network has {len(inputs)}: {names}")
        (value,) = inputs
        tensor, types = value.type.tensor_type, self.onnx.TensorProto
        dtypes = {types.FLOAT: torch.float32, types.DOUBLE: torch.float64}
        if tensor.elem_type not in dtypes:
            raise UnsupportedOperation(f"input '{value.name}' must be float32 or float64")
        shape = [int(axis.dim_value) for axis in tensor.shape.dim]
        if len(shape) > 1 and shape[0] < 1:
            shape[0] = 1  # an open batch axis
        if not shape or min(shape) < 1:
            raise UnsupportedOperation(
                f"input '{value.name}' must have a shape of known lengths behind the batch axis, got {shape}"
            )
        return value.name, tuple(shape), dtypes[tensor.elem_type]

    def _needed(self, output: str) -> list[tuple[int, Any]]:
        """The nodes that an output depends on, with their positions, in the file's order."""
        wanted, needed = {output}, []
        for position, node in reversed(list(enumerate(self.graph.node))):
            if not wanted.isdisjoint(node.output):
                wanted.update(node.input)
                needed.append((position, node))
        return needed[::-1]

    def _operand(self, name: str, reader: str) -> Operand:
        if name not in self.found and name in self.initializers:
            try:
                self.found[name] = self.onnx.numpy_helper.to_array(self.initializers[name])
            except Exception as error:  # bytes that do not fit a shape, a type that numpy does not have
                raise ConfigError(f"the tensor '{name}' cannot be read: {one_line(error)}") from error
        if name not in self.found:
            raise ConfigError(f"{reader} reads '{name}', which nothing before it computes")
        return self.found[name]

    def _add(self, position: int, proto: Any) -> None:
        node = self._node(position, proto)
        for name, result in zip(node.outputs, self._results(node, proto), strict=False):
            self.found[name] = result

    def _node(self, position: int, proto: Any) -> Node:
        name = proto.name if proto.name and self.names[proto.name] == 1 else f"{proto.op_type}_{position}"
        operator = str(proto.op_type) if proto.domain in DOMAINS else f"{proto.domain}.{proto.op_type}"
        label = f"node '{name}' ({operator})"
        operands = [self._operand(read, label) if read else None for read in proto.input]
        attributes = {a.name: self.onnx.helper.get_attribute_value(a) for a in proto.attribute}
        return Node(name, operator, attributes, operands, self.emitter, list(proto.output))

    def _results(self, node: Node, proto: Any) -> list[Operand]:
        if not any(isinstance(operand, Value) for operand in node.operands):
            return fold(node, proto, self.model.opset_import)
        rule = OPERATORS.get(node.operator)
        if rule is None:
            hint = did_you_mean(node.operator, OPERATORS)
            raise UnsupportedOperation(f"{node.label} is not supported{hint}; supported are {', '.join(OPERATORS)}")
        try:
            result: Result = rule(node)
        except CerttrainError:
            raise
        except Exception as error:  # of torch and numpy, about what the file asks for
            raise ConfigError(f"{node.label} cannot be carried out: {one_line(error)}") from error
        node.check_all_was_asked()
        return list(result) if isinstance(result, list) else [result]

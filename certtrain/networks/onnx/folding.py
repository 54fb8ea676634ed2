"""Nodes that do not depend on the input: what they compute is computed once, by ONNX's own reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from certtrain.errors import one_line
from certtrain.networks.onnx.files import onnx_package
from certtrain.networks.onnx.node import Node
from certtrain.networks.onnx.values import Operand

RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")


def fold(node: Node, proto: Any, opsets: Sequence[Any]) -> list[Operand]:
    """The results of a node all of whose inputs are constants.

    Args:
        node: The node.
        proto: Its onnx.NodeProto.
        opsets: Versions of operators that the file was written for.

    Raises:
        UnsupportedOperation: If it is random or holds a graph of its own.
        ConfigError: If it cannot be computed.
    """
    onnx = onnx_package()
    if node.operator in RANDOM:
        node.refuse("random numbers are not supported")
    if any(isinstance(found, onnx.GraphProto) for found in node.attributes.values()):
        node.refuse("control flow is not supported")
    constants = {name: x for name, x in zip(proto.input, node.operands, strict=True) if isinstance(x, np.ndarray)}
    inputs = [_info(onnx, name, x.dtype) for name, x in constants.items()]
    outputs = [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in proto.output if name]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([proto], "constant", inputs, outputs), opset_imports=list(opsets)
    )
    try:
        from onnx.reference import ReferenceEvaluator

        results = ReferenceEvaluator(model).run(None, constants)
    except Exception as error:  # whatever a kernel of numpy raises
        node.refuse(f"this constant cannot be computed: {one_line(error)}")
    found = dict(zip((name for name in proto.output if name), map(np.asarray, results), strict=True))
    return [found.get(name, np.empty(0)) for name in proto.output]


def _info(onnx: Any, name: str, dtype: np.dtype) -> Any:
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(dtype), None)

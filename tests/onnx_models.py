"""ONNX files for tests, made node by node."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

Shape = Sequence[int | str | None]


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def node(operator: str, *constants: np.ndarray, reads: str = "x", outputs: Sequence[str] = ("y",), **attributes):
    """A node that reads `reads` and then constants; makes pairs for `model`."""
    names = [f"{operator}_{outputs[0]}_{i}" for i in range(len(constants))]
    made = helper.make_node(operator, [reads, *names], list(outputs), f"the_{operator}", **attributes)
    return made, dict(zip(names, constants, strict=True))


def model(
    nodes: Sequence,
    shape: Shape,
    *,
    opset: int = 17,
    kind: int = TensorProto.FLOAT,
    constants: dict[str, np.ndarray] | None = None,
    output: str = "y",
) -> onnx.ModelProto:
    """A model of one input `x` and one output, out of nodes, or pairs of a node and its constants."""
    found = dict(constants or {})
    protos = []
    for item in nodes:
        proto, more = item if isinstance(item, tuple) else (item, {})
        protos.append(proto)
        found.update(more)
    graph = helper.make_graph(
        protos,
        "test",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(output, kind, None)],
        [numpy_helper.from_array(array, name) for name, array in found.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def save(made: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "network.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def by_onnxruntime(path: Path, x: Tensor, shape: Sequence[int]) -> Tensor:
    """Outputs for a batch, one input at a time, each in the shape that the file wants: [batch, outputs]."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    results = [session.run(None, {name: one.reshape(tuple(shape)).numpy()})[0] for one in x]
    return torch.stack([torch.from_numpy(result).flatten() for result in results])

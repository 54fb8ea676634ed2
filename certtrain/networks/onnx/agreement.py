"""Whether a network that was read computes what onnxruntime computes from the same file."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

from certtrain.errors import ConfigError, UnsupportedOperation, one_line
from certtrain.networks.onnx.files import onnx_package
from certtrain.networks.onnx.network import OnnxNetwork
from certtrain.networks.tracing import TOLERANCES
from certtrain.precision import full_float32


def check_agreement(model: Any, network: OnnxNetwork) -> None:
    """Compares outputs on random inputs, where onnxruntime is installed.

    Args:
        model: The onnx.ModelProto.
        network: What it became.

    Raises:
        ConfigError: If onnxruntime cannot run the file.
        UnsupportedOperation: If the outputs differ.
    """
    try:
        import onnxruntime
    except ImportError:
        return
    try:
        session = _session(onnxruntime, model)
    except Exception as error:  # of classes that onnxruntime's compiled code makes
        if "NOT_IMPLEMENTED" not in str(error):
            raise ConfigError(f"onnxruntime refuses it: {one_line(error)}") from error
        # It has few kernels for float64.
        session = _session(onnxruntime, _in_float32(model))
    single = session.get_inputs()[0].type == "tensor(float)"
    dtype = torch.float32 if single else torch.float64
    x = _inputs(network.input_shape).to(dtype)
    try:
        feeds = [{network.input_name: one.reshape(network.onnx_shape).numpy()} for one in x]
        expected = torch.from_numpy(np.concatenate([np.ravel(session.run(None, feed)[0])[None] for feed in feeds]))
    except Exception as error:  # as above
        raise ConfigError(f"onnxruntime cannot run it: {one_line(error)}") from error
    like = next((p for p in (*network.parameters(), *network.buffers()) if p.is_floating_point()), x)
    with torch.no_grad(), full_float32(x.device):
        found = network(x.to(like.dtype)).to(dtype)
    if found.shape != expected.shape:
        raise UnsupportedOperation(f"the network has {found.shape[1]} outputs, by onnxruntime {expected.shape[1]}")
    rtol, atol = TOLERANCES[dtype]
    finite = expected.isfinite().all(1)
    found, expected = found[finite], expected[finite]
    size = float(expected.abs().max()) if len(expected) else 0.0
    if not torch.allclose(found, expected, rtol=rtol, atol=atol * (1 + size)):
        raise UnsupportedOperation(
            "the network computes something else than onnxruntime (outputs differ by "
            f"{float((found - expected).abs().max()):.3g}): the file uses an operator in a way that is not known here"
        )


def _inputs(shape: tuple[int, ...]) -> torch.Tensor:
    """Pixels, and numbers around zero of two sizes: [3, *shape]."""
    generator = torch.Generator().manual_seed(0)
    pixels, numbers = torch.rand((1, *shape), generator=generator), torch.randn((2, *shape), generator=generator)
    return torch.cat([pixels, numbers[:1], 10 * numbers[1:]])


def _session(onnxruntime: Any, model: Any) -> Any:
    options = onnxruntime.SessionOptions()
    # Without rewriting: as the file says it, and loaded faster.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def _in_float32(model: Any) -> Any:
    """A model of float64 with all of its numbers in float32."""
    onnx, model = onnx_package(), copy.deepcopy(model)
    double, single = onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == double:
            value.type.tensor_type.elem_type = single
    tensors = [*model.graph.initializer, *(a.t for node in model.graph.node for a in node.attribute)]
    for tensor in tensors:
        if tensor.data_type == double:
            array = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == double:
                attribute.i = single
    return model

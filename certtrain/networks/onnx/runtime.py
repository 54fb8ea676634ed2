"""onnxruntime as another evaluation of the same file."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certtrain.errors import ConfigError, one_line
from certtrain.networks.onnx.files import load_model, onnx_package
from certtrain.networks.onnx.network import OnnxNetwork


@dataclass(frozen=True)
class Runtime:
    """A network in onnxruntime, as its file says it: nothing is rewritten.

    Attributes:
        session: The onnxruntime.InferenceSession.
        onnx_shape: Shape of its input.
        input_name: What the file calls it.
        dtype: Of the input.
    """

    session: Any
    onnx_shape: tuple[int, ...]
    input_name: str
    dtype: torch.dtype

    @staticmethod
    def of(model: Any, network: OnnxNetwork) -> Runtime | None:
        """Loads an onnx.ModelProto; None where onnxruntime is not installed.

        Args:
            model: The file.
            network: What it became.

        Raises:
            ConfigError: If onnxruntime cannot run the file.
        """
        try:
            import onnxruntime
        except ImportError:
            return None
        try:
            session = _session(onnxruntime, model)
        except Exception as error:  # of classes that onnxruntime's compiled code makes
            if "NOT_IMPLEMENTED" not in str(error):
                raise ConfigError(f"onnxruntime refuses it: {one_line(error)}") from error
            # It has few kernels for float64.
            session = _session(onnxruntime, _in_float32(model))
        single = session.get_inputs()[0].type == "tensor(float)"
        return Runtime(session, network.onnx_shape, network.input_name, torch.float32 if single else torch.float64)

    @staticmethod
    def read(path: str | os.PathLike[str], network: OnnxNetwork) -> Runtime | None:
        """Loads a file, see `of`.

        Raises:
            ConfigError: If it cannot be read, or onnxruntime cannot run it.
        """
        return Runtime.of(load_model(os.fspath(path)), network)

    def __call__(self, x: Tensor) -> Tensor:
        """The output vector, [outputs], of one input, [*input_shape], which is taken to the file's precision.

        Raises:
            ConfigError: If onnxruntime cannot run the file.
        """
        one = x.detach().to("cpu", self.dtype).reshape(self.onnx_shape).numpy()
        try:
            return torch.from_numpy(np.ravel(self.session.run(None, {self.input_name: one})[0]))
        except Exception as error:  # as above
            raise ConfigError(f"onnxruntime cannot run it: {one_line(error)}") from error


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

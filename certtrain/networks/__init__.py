"""Networks: plain architectures, and the `Graph` that bounds are computed on.

`trace(module, input_shape)` turns any supported nn.Module into a short typed list of operations (`ops`); an
architecture is an ordinary module, one per file, that starts with `Normalize`. `onnx` reads networks from ONNX files
and writes them.
"""

from certtrain.networks.graph import Graph, Params, evaluating, parameters
from certtrain.networks.layers import Normalize
from certtrain.networks.onnx import OnnxNetwork, from_onnx, to_onnx
from certtrain.networks.tracing import trace

__all__ = [
    "Graph",
    "Normalize",
    "OnnxNetwork",
    "Params",
    "evaluating",
    "from_onnx",
    "parameters",
    "to_onnx",
    "trace",
]

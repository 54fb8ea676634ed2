"""Networks in ONNX files, read into plain torch layers and written out of what was traced.

`reading` opens a file and goes through its nodes, `files` knows how files can be damaged. `node` is one node as its
rule sees it, `values` what flows between nodes (where the batch axis of torch is, and what ONNX calls the axes), and
`operators` has the rules, one function each: a new operator is a function there and a line in its table. `agreement`
compares what was read with onnxruntime, which `runtime` runs. `writing` turns a traced network into a file.

The `onnx` package is imported when it is first used: `pip install "certtrain[onnx]"`.
"""

from certtrain.networks.onnx.network import OnnxNetwork
from certtrain.networks.onnx.reading import from_onnx
from certtrain.networks.onnx.runtime import Runtime
from certtrain.networks.onnx.writing import to_onnx

__all__ = ["OnnxNetwork", "Runtime", "from_onnx", "to_onnx"]

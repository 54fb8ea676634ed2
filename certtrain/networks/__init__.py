"""Networks: plain architectures, and the `Graph` that bounds are computed on.

`trace(module, input_shape)` turns any supported nn.Module into a short typed list of operations (`ops`); an
architecture is an ordinary module, one per file, that starts with `Normalize`.
"""

from certtrain.networks.graph import Graph, Params, evaluating, parameters
from certtrain.networks.layers import Normalize
from certtrain.networks.tracing import trace

__all__ = ["Graph", "Normalize", "Params", "evaluating", "parameters", "trace"]

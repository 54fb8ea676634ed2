"""From an nn.Module to a `Graph`: torch.fx records what the module does, and each node becomes operations.

`recording` runs torch.fx, `builder` goes through its nodes and finds each one's translation in the tables of
`translations`; `moves` translates whatever only moves elements, by watching where they go, `arithmetic` sums and
products, `pooling` windows. What cannot be bounded is refused here, by name and position, before any training starts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from certtrain.errors import UnsupportedOperation
from certtrain.networks.graph import Graph, evaluating, parameters
from certtrain.networks.tracing.builder import Builder
from certtrain.networks.tracing.recording import blank, record
from certtrain.networks.tracing.translations import FUNCTIONS, MODULES
from certtrain.precision import full_float32

# How far the graph's outputs may be from the module's: relative, and in units of the largest output. Backends whose
# precision torch has no setting for may keep as little as 10 bits of float32, and some of torch's CUDA kernels use
# float32 constants in float64 (the sixth in hardsigmoid).
TOLERANCES = {torch.float32: (1e-3, 1e-4), torch.float64: (1e-6, 1e-7)}


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
        ops = Builder(module, nodes, MODULES, FUNCTIONS).build()
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
        with torch.no_grad(), full_float32(x.device):
            expected, found = graph.module(x), graph.forward(parameters(graph.module), x)
        size = float(expected.abs().max())
        rtol, atol = TOLERANCES[like.dtype]
        if expected.isfinite().all() and not torch.allclose(found, expected, rtol=rtol, atol=atol * (1 + size)):
            raise UnsupportedOperation(
                f"tracing {type(graph.module).__name__} gives another function than the module itself "
                f"(outputs differ by {float((found - expected).abs().max()):.3g}): it may use forward hooks, or "
                "operations in place on tensors that are views of each other"
            )

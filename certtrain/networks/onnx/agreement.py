"""Whether a network that was read computes what onnxruntime computes from the same file."""

from __future__ import annotations

from typing import Any

import torch

from certtrain.errors import UnsupportedOperation
from certtrain.networks.onnx.network import OnnxNetwork
from certtrain.networks.onnx.runtime import Runtime
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
    runtime = Runtime.of(model, network)
    if runtime is None:
        return
    dtype = runtime.dtype
    x = _inputs(network.input_shape).to(dtype)
    expected = torch.stack([runtime(one) for one in x])
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

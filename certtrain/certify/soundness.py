"""Checks that make a verdict worth something: bounds that cannot be right stop everything."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from certtrain.bounds import Bounds, Box, Sides, margin_spec
from certtrain.certify.network import Network
from certtrain.errors import CerttrainError

# Largest |bound - output| / (1 + largest |output|) on a box of width zero. In float64 rounding stays orders
# of magnitude below and a misread layer above; backends whose precision torch has no setting for may keep as little as
# 10 bits of float32.
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-2}


class SoundnessError(CerttrainError):
    """Evidence that contradicts itself; no result of such a run may be reported."""


def check_points(
    name: str,
    bound: Callable[[Box, Tensor | None, Sides], Bounds],
    network: Network,
    images: Float[Tensor, "batch *shape"],
) -> None:
    """On boxes of width zero, bounds must be the network's outputs, and bounds of margins its margins.

    Bounds that are not finite are left alone: they can never become a verdict.

    Args:
        name: Whose bounds are checked.
        bound: (box, specification, sides) -> bounds.
        network: What they are checked on.
        images: Any inputs; float64.

    Raises:
        SoundnessError: If the bounds are something else.
    """
    for dtype, tolerance in TOLERANCE.items():
        points = images.to(dtype)
        box, logits = Box(points, points), network.logits(points)
        outputs = bound(box, None, "both")
        _compare(name, outputs.lower, logits, tolerance)
        if outputs.upper is not None:
            _compare(name, outputs.upper, logits, tolerance)
        if logits.shape[1] < 2:
            continue  # one number has no margin
        spec = margin_spec(logits.argmax(1), network.graph.num_outputs).to(dtype)
        margins = bound(box, spec, "lower")
        expected = (spec @ logits[:, :, None]).squeeze(-1)
        _compare(name, margins.lower, expected, tolerance)


def _compare(name: str, bound: Tensor, expected: Tensor, tolerance: float) -> None:
    if bound.shape != expected.shape:
        raise SoundnessError(
            f"verifier {name} returned bounds of shape {tuple(bound.shape)}, not {tuple(expected.shape)}"
        )
    error = (bound - expected).abs() / (1 + expected.abs().amax(1, keepdim=True))
    worst = error[error.isfinite()].max().item() if error.isfinite().any() else 0.0
    if worst > tolerance:
        raise SoundnessError(
            f"verifier {name} is wrong on this network: at eps 0 its {bound.dtype} bounds differ "
            f"from the outputs by {worst:.1e} (relative; {tolerance:.0e} is allowed)"
        )

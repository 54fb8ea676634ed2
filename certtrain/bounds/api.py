"""Bounds of any supported module in one call."""

from __future__ import annotations

from torch import Tensor, nn

from certtrain.bounds.base import Bounds, Box, Relaxation, Sides
from certtrain.bounds.registry import build
from certtrain.errors import ConfigError
from certtrain.networks import parameters, trace


def bound(
    model: nn.Module,
    box: Box,
    relaxation: str | Relaxation = "deeppoly",
    spec: Tensor | None = None,
    sides: Sides = "both",
) -> Bounds:
    """Sound bounds of `spec @ model(x)` over all x in the box; differentiable in the model's parameters.

    Args:
        model: Any module that `certtrain.networks.trace` supports; bounded in eval mode.
        box: [batch, *input_shape], in the dtype and on the device of the model.
        relaxation: One of `certtrain.relaxations()`, or a `Relaxation` with other options.
        spec: [batch, rows, outputs]; None bounds the outputs themselves.
        sides: "lower" where no upper bounds are needed, which takes half of the time.

    Raises:
        UnsupportedOperation: Naming the operation that has no bound rule.
        ConfigError: If there is no such relaxation, or box and specification do not fit the network.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(box, Box):
        raise ConfigError(f"box must be a certtrain.Box, got {type(box).__name__}")
    if not isinstance(relaxation, (str, Relaxation)):
        raise ConfigError(f"relaxation must be a name or a certtrain.Relaxation, got {type(relaxation).__name__}")
    graph = trace(model, box.lower.shape[1:])
    chosen = build(relaxation) if isinstance(relaxation, str) else relaxation
    return chosen.bound(graph, parameters(model), box, spec, sides)

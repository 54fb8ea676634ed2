"""What bounds are asked for, checked in one place and in one line each: shapes, types, devices, order, finiteness.

`Box` and `Relaxation.bound` call this, so that all relaxations and backends refuse the same. Shapes and types cost
nothing; what depends on the data is one pass over the box or the specification, and is passed over inside `torch.func`
transformations, where nothing may depend on the data.
"""

from __future__ import annotations

from math import inf
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from certtrain.errors import ConfigError
from certtrain.networks.graph import Graph, Params
from certtrain.networks.kernels import is_transformed

DTYPES = (torch.float32, torch.float64)


def check_box(lower: Any, upper: Any) -> None:
    """Two tensors [batch, *input_shape] of one kind, finite, the lower one nowhere above the upper one.

    Raises:
        ConfigError: If they are something else.
    """
    for name, x in (("lower", lower), ("upper", upper)):
        _check_floating(f"box.{name}", x, "[batch, *input_shape]")
    if lower.shape != upper.shape:
        raise ConfigError(f"box.lower and box.upper must have one shape, got {_shape(lower)} and {_shape(upper)}")
    if lower.dtype != upper.dtype or lower.device != upper.device:
        raise ConfigError(f"box.lower and box.upper must be of one kind, got {_kind(lower)} and {_kind(upper)}")
    if lower.dim() < 2:
        raise ConfigError(f"a box must be [batch, *input_shape], got {_shape(lower)}: for a single input, x[None]")
    if not _has_data(lower, upper):
        return
    narrowest, widest = _ends(upper.detach() - lower.detach())
    if narrowest >= 0 and widest < inf:
        return
    # A width may also be too large a number, which is no fault of the box.
    finite = bool(lower.isfinite().all() and upper.isfinite().all())
    if not finite or not (lower <= upper).all():
        wrong = "box.lower lies above box.upper" if finite else "a box has infinite or NaN ends"
        raise ConfigError(f"{wrong}: it must be finite, with lower <= upper everywhere")


def check_inputs(inputs: Any, clip: tuple[float, float] | None) -> Tensor:
    """Images [batch, *input_shape] in the range of legal pixels.

    Raises:
        ConfigError: If they are something else.
    """
    inputs = _as_tensor("inputs", inputs)
    _check_floating("inputs", inputs, "[batch, *input_shape]")
    if clip is not None and _has_data(inputs):
        low, high = _ends(inputs.detach())
        if not (clip[0] <= low and high <= clip[1]):
            raise ConfigError(f"inputs must lie in clip={clip}: normalise in the network, or pass clip=None")
    return inputs


def check_radius(eps: Any, inputs: Tensor) -> float | Tensor:
    """A number that is not negative, or a tensor of them whose shape fits the inputs'.

    Returns:
        A number, or a tensor like the inputs.

    Raises:
        ConfigError: If it is something else.
    """
    if isinstance(eps, Real):
        number = float(eps)
        if not number >= 0:
            raise ConfigError(f"eps must be a number >= 0, got {number:g}")
        return number
    eps = _as_tensor("eps", eps)
    if eps.dtype == torch.bool or eps.is_complex():
        raise ConfigError(f"eps must be numbers >= 0, got {eps.dtype}")
    sizes = [1] * (inputs.dim() - eps.dim()) + list(eps.shape)
    fits = len(sizes) == inputs.dim() and all(n in (1, m) for n, m in zip(sizes, inputs.shape, strict=True))
    # One axis could be the batch as well as the last one.
    if not fits or (eps.dim() == 1 and eps.numel() > 1):
        raise ConfigError(
            f"eps of shape {_shape(eps)} does not fit inputs of shape {_shape(inputs)}: give a number, or one axis for "
            f"each of theirs, such as [batch{', 1' * (inputs.dim() - 1)}]"
        )
    if _has_data(eps) and not (least := _ends(eps.detach())[0]) >= 0:
        raise ConfigError(f"eps must be numbers >= 0, got {least:g}")
    return eps.to(inputs)


def check_query(graph: Any, params: Params, lower: Tensor, spec: Any, sides: Any) -> None:
    """A box and a specification that fit the network, and parameters of the box's kind.

    Args:
        graph: The network.
        params: See `Relaxation.bound`.
        lower: Of the box.
        spec: See `Relaxation.bound`.
        sides: See `Relaxation.bound`.

    Raises:
        ConfigError: If one of them does not fit.
    """
    if not isinstance(graph, Graph):
        raise ConfigError(f"graph must be what certtrain.networks.trace returns, got {type(graph).__name__}")
    if sides not in ("both", "lower"):
        raise ConfigError(f"sides must be both or lower, got {sides!r}")
    if lower.dtype not in DTYPES:
        raise ConfigError(f"bounds need float32 or float64, got a box in {lower.dtype}")
    if lower.shape[1:] != graph.input_shape:
        raise ConfigError(
            f"the network reads inputs of shape {graph.input_shape}: its box must be "
            f"[batch, {', '.join(map(str, graph.input_shape))}], got {_shape(lower)}"
        )
    if spec is not None:
        _check_spec(spec, len(lower), graph.num_outputs)
    _check_params(graph, params, lower)


def _check_spec(spec: Any, batch: int, outputs: int) -> None:
    _check_floating("spec", spec, "[batch, rows, outputs]")
    if spec.dim() != 3 or spec.shape[0] != batch or spec.shape[1] < 1 or spec.shape[2] != outputs:
        raise ConfigError(
            f"spec must be [batch, rows, outputs] = [{batch}, rows, {outputs}] for this box and network, "
            f"got {_shape(spec)}"
        )
    if _has_data(spec):
        low, high = _ends(spec.detach())
        if not (-inf < low and high < inf):
            raise ConfigError("spec must be finite: it holds infinity or NaN")


def _check_params(graph: Graph, params: Params, like: Tensor) -> None:
    """Only what the operations read; buffers that are not among the parameters are converted to the box's kind."""
    for name, (shape, is_buffer) in graph.tensors.items():
        found = params.get(name)
        if found is None and is_buffer:
            continue
        if not isinstance(found, Tensor):
            raise ConfigError(f"params lack '{name}', which must be {list(shape)}")
        if found.shape != shape:
            raise ConfigError(f"parameter '{name}' must be {list(shape)}, got {_shape(found)}")
        if found.dtype != like.dtype or found.device != like.device:
            raise ConfigError(
                f"box and network must be of one kind: the box is {_kind(like)}, parameter '{name}' {_kind(found)}"
            )


def _check_floating(name: str, x: Any, layout: str) -> None:
    if not isinstance(x, Tensor):
        raise ConfigError(f"{name} must be a tensor {layout}, got {type(x).__name__}")
    if not x.is_floating_point():
        raise ConfigError(f"{name} must be floating-point numbers {layout}, got {x.dtype}")


def _as_tensor(name: str, x: Any) -> Tensor:
    try:
        return torch.as_tensor(x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{name} must be numbers: a tensor, an array or lists, got {type(x).__name__}") from error


def _has_data(*tensors: Tensor) -> bool:
    """Whether there are numbers that a decision may depend on."""
    return all(x.numel() and not x.is_meta for x in tensors) and not is_transformed(*tensors)


def _ends(x: Tensor) -> tuple[float, float]:
    """Smallest and largest number; NaN where one is."""
    low, high = torch.aminmax(x)
    return float(low), float(high)


def _shape(x: Tensor) -> list[int]:
    return list(x.shape)


def _kind(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} on {x.device}"

"""Counterexamples: when a point is one, and the files that keep them beside the ledger.

Whoever found a point (the attack, or a verifier on its way), it counts as evidence only if it lies in the box and the
network misclassifies it in float64 and in float32.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from certtrain.bounds import Box
from certtrain.certify.network import Network
from certtrain.certify.verdict import Verdict
from certtrain.errors import DataError
from certtrain.files import replacing


def float32_inside(box: Box) -> Box:
    """The largest box of float32 numbers inside a float64 box.

    Rounding to nearest could put a bound outside. Where no float32 number lies between lower and upper, both
    are the one below upper.
    """
    lower, upper = box.lower.to(torch.float32), box.upper.to(torch.float32)
    up, down = torch.full_like(lower, torch.inf), torch.full_like(lower, -torch.inf)
    lower = torch.where(lower.to(torch.float64) < box.lower, torch.nextafter(lower, up), lower)
    upper = torch.where(upper.to(torch.float64) > box.upper, torch.nextafter(upper, down), upper)
    return Box(torch.minimum(lower, upper), upper)


def inside(points: Float[Tensor, "batch *shape"], box: Box) -> Float[Tensor, "batch *shape"]:
    """Points in float64, moved into the float64 box where float32 has no number inside it."""
    return points.to(torch.float64).clamp(box.lower, box.upper)


def confirm(
    network: Network, box: Box, labels: Int[Tensor, " batch"], given: Mapping[int, Tensor]
) -> tuple[dict[int, Tensor], dict[int, str]]:
    """Which points are counterexamples.

    A point is judged where float32 and float64 agree on it: at the nearest float32 number inside the box.

    Args:
        network: What should misclassify them.
        box: float64.
        labels: The right classes.
        given: Position in the batch -> a point, float64, [*shape].

    Returns:
        Position -> the point that was confirmed; and position -> why another one was not.

    Raises:
        ValueError: If a position or a shape is none of the batch.
    """
    confirmed, refused = {}, {}
    for position, point in given.items():
        shape = box.lower.shape[1:]
        if not 0 <= position < len(box) or point.shape != shape:
            raise ValueError(f"a counterexample of shape {tuple(point.shape)} at {position}, for {len(box)} of {shape}")
        own, label = box[position : position + 1], labels[position : position + 1]
        exact = point.detach().to(own.lower)[None]
        if not bool(((exact >= own.lower) & (exact <= own.upper)).all()):  # NaN is not inside, either
            refused[position] = "a counterexample that lies outside the box"
            continue
        inner = float32_inside(own)
        single = inside(exact.to(torch.float32).clamp(inner.lower, inner.upper), own)
        if bool(network.misclassifies(single, label)):
            confirmed[position] = single[0]
        else:
            refused[position] = "a counterexample that two precisions do not confirm"
    return confirmed, refused


def write_counterexample(ledger: Path, index: int, point: Float[Tensor, "*shape"]) -> str:
    """Keeps an image's counterexample beside a ledger: ledger.jsonl -> ledger.counterexamples/17.npy, float64.

    Returns:
        The file, relative to the ledger's folder.
    """
    name = f"{ledger.stem}.counterexamples/{index}.npy"
    path = ledger.with_name(f"{ledger.stem}.counterexamples") / f"{index}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, partial.open("wb") as file:
        np.save(file, point.detach().to(device="cpu", dtype=torch.float64).numpy(), allow_pickle=False)
    return name


def read_counterexample(ledger: str | os.PathLike[str], verdict: Verdict) -> Float[Tensor, "*shape"] | None:
    """The counterexample of a verdict in a ledger, float64; None where the verdict names none.

    Raises:
        DataError: If the file that it names is missing or damaged.
    """
    if verdict.counterexample is None:
        return None
    path = Path(ledger).parent / verdict.counterexample
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise DataError(f"{path} is no counterexample that can be read: {error}") from error

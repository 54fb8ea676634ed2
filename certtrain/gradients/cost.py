"""What estimates take, told from one evaluation of the loss on a few images before a whole population is tried."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from certtrain.gradients.backprop import differentiate
from certtrain.gradients.base import Cost, GradientEstimator, LossFunction
from certtrain.networks.graph import Params

# An evaluation that takes so long tells the time; shorter ones are repeated with twice the images.
TELLING_SECONDS = 0.25


def cost_of_one(
    estimator: GradientEstimator,
    loss_of: Callable[[int], LossFunction],
    params: Params,
    images: int,
    short: float = 0.0,
) -> Cost:
    """The cost of one evaluation on all images, extrapolated from a few of them; on one it is overestimated.

    Args:
        estimator: What the evaluation is for: one that divides the batch among processes needs derivatives.
        loss_of: Number of images -> the loss on the first so many.
        params: Name -> centre.
        images: Number of images that it will be on.
        short: Seconds of an evaluation that need not be known any better.
    """
    return _cost(_gradient if estimator.splits == "batch" else _value, loss_of, params, images, short)


def cost_of_gradient(loss_of: Callable[[int], LossFunction], params: Params, images: int, short: float = 0.0) -> Cost:
    """The same of one gradient."""
    return _cost(_gradient, loss_of, params, images, short)


def _value(loss: LossFunction, params: Params) -> Tensor:
    with torch.no_grad():
        return loss(params)


def _gradient(loss: LossFunction, params: Params) -> Tensor:
    return differentiate(loss, params)[0]


def _cost(
    evaluation: Callable[[LossFunction, Params], Tensor],
    loss_of: Callable[[int], LossFunction],
    params: Params,
    images: int,
    short: float,
) -> Cost:
    def evaluate(loss: LossFunction) -> float:
        started = time.perf_counter()
        evaluation(loss, params).cpu()  # waits for the device that computes it
        return time.perf_counter() - started

    # The first evaluation pays for what is set up once, so only its memory counts. Losses are made before they are
    # timed: what they prepare, they prepare once for all members.
    _, peak = _watched(evaluate, loss_of(1))
    count = min(2, images)
    loss = loss_of(count)
    seconds, more = _watched(evaluate, loss)
    held = None
    if peak is not None and more is not None:
        own = sum(p.numel() * p.element_size() for p in params.values())
        held = peak + (more - peak) * (images - 1) + 2 * own  # its noise and its parameters, too
    # Where calls are many and short, watching them takes longer than they do.
    if seconds < TELLING_SECONDS:
        seconds = evaluate(loss)
    while seconds < TELLING_SECONDS and count < images and seconds * images / count > short:
        count = min(2 * count, images)
        seconds = evaluate(loss_of(count))
    return Cost(seconds * images / count, held)


class _Watch(TorchDispatchMode):
    """Notes the most bytes that results of operations took at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, Tensor):
                self._count(x.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size).atexit = False

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _watched(evaluate: Callable[[LossFunction], float], loss: LossFunction) -> tuple[float, int | None]:
    """Seconds, and bytes at the peak; None where a library's own kind of tensors cannot be watched."""
    try:
        with _Watch() as watch:
            seconds = evaluate(loss)
    except RuntimeError:  # if that was not the reason, it comes again
        return evaluate(loss), None
    return seconds, watch.peak

"""Search for counterexamples by projected gradient descent (Madry et al., ICLR 2018) on margins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from certtrain.bounds import Box
from certtrain.certify.network import Network
from certtrain.errors import ConfigError


@dataclass(frozen=True)
class Attack:
    """Steps along the sign of the margin's gradient, from random starts.

    The centre of the box is tried first. The first restart then lowers the smallest margin, whichever class
    that is; the second lowers the margin to the runner-up at the centre, the third to the class after it, and
    so on (multi-targeted, Gowal et al., arXiv 1910.09338). Starts depend on seed, image index and restart
    only, never on the batch.

    Attributes:
        steps: Gradient steps per restart; 0 tries the centre only.
        restarts: Random starts.
        step_size: First step in the unit of the inputs; steps shrink linearly to zero. None: half of the
            width that a pixel may move in, which falsified most images in our measurements.
        seed: Of the random starts.

    Raises:
        ConfigError: If a number is out of range.
    """

    steps: int = 40
    restarts: int = 3
    step_size: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        # An attack that cannot start would be an error of every image.
        if not all(type(number) is int and number >= 0 for number in (self.steps, self.restarts, self.seed)):
            raise ConfigError(f"attack: steps, restarts and seed must be whole numbers >= 0, got {self}")
        size = self.step_size
        if size is not None and not (isinstance(size, (int, float)) and 0 < size < float("inf")):
            raise ConfigError(f"attack: step_size must be a positive number or None, got {size!r}")

    def find(
        self, network: Network, box: Box, labels: Int[Tensor, " batch"], indices: Sequence[int]
    ) -> tuple[Float[Tensor, "batch *shape"], Bool[Tensor, " batch"]]:
        """Looks for a counterexample of every image.

        Args:
            network: What is attacked.
            box: Where to look; float64.
            labels: The right classes.
            indices: Numbers of the images, which the random starts depend on.

        Returns:
            Points of the box in float64, the worst found for each image, and whether each is a confirmed
            counterexample: inside the float64 box and misclassified in both precisions.
        """
        inner = float32_inside(box)
        start = inner.center.clamp(inner.lower, inner.upper)
        margins = network.margins(start, labels)
        targets, lowest = margins.argsort(1), margins.amin(1)
        points = _inside(start, box)
        found = network.misclassifies(points, labels)
        for restart in range(self.restarts if self.steps else 0):
            left = (~found).nonzero().flatten()
            if not len(left):
                break
            target = targets[left, restart - 1] if 0 < restart < targets.shape[1] else None
            start = self._start(inner[left], [indices[i] for i in left.tolist()], restart)
            reached, margin = self._descend(network, inner[left], labels[left], start, target)
            reached = _inside(reached, box[left])
            found[left] = network.misclassifies(reached, labels[left])
            worse = found[left] | (margin < lowest[left])
            points[left[worse]], lowest[left[worse]] = reached[worse], margin[worse]
        return points, found

    def _start(self, box: Box, indices: Sequence[int], restart: int) -> Tensor:
        """Uniform points of the box: [batch, *shape]."""
        shape = box.lower.shape[1:]
        draws = [np.random.default_rng((self.seed, i, restart)).random(shape, np.float32) for i in indices]
        noise = torch.from_numpy(np.stack(draws)).to(box.lower.device)
        return (box.lower + noise * (box.upper - box.lower)).clamp(box.lower, box.upper)

    def _descend(
        self, network: Network, box: Box, labels: Tensor, start: Tensor, target: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """One restart: points [batch, *shape] with the smallest margin met, and that margin [batch].

        Args:
            network: What is attacked.
            box: Where to look; float32.
            labels: The right classes.
            start: Points of the box.
            target: The wrong class whose margin is lowered; None: whichever is smallest.
        """
        worst, lowest = start.clone(), torch.full(labels.shape, torch.inf, device=labels.device)
        first = box.radius if self.step_size is None else torch.full_like(box.radius, self.step_size)
        active, x = torch.arange(len(labels), device=labels.device), start
        for k in range(self.steps + 1):
            smallest, slope = _margin_and_slope(network, x, labels[active], None if target is None else target[active])
            lower = smallest < lowest[active]
            worst[active[lower]], lowest[active[lower]] = x[lower], smallest[lower]
            # Broken images need no further steps; a NaN is neither broken nor worse than anything.
            going = ~(smallest < 0)
            if k == self.steps or not going.any():
                break
            active, x, slope = active[going], x[going], slope[going]
            step = first[active] * (1 - k / self.steps)
            x = (x - step * slope.sign()).clamp(box.lower[active], box.upper[active])
        return worst, lowest


def _margin_and_slope(network: Network, x: Tensor, labels: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
    """The smallest margin [batch], and the gradient [batch, *shape] of that to `target`, or of itself."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        margins = network.margins(x, labels)
        smallest = margins.amin(1)
        goal = smallest if target is None else margins.gather(1, target[:, None])
        return smallest.detach(), torch.autograd.grad(goal.sum(), x)[0]


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


def _inside(points: Tensor, box: Box) -> Tensor:
    """Points in float64, moved into the float64 box where float32 has no number inside it."""
    return points.to(torch.float64).clamp(box.lower, box.upper)

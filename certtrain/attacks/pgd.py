"""Projected gradient descent (Madry et al., ICLR 2018) on margins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from certtrain.attacks.base import Margins
from certtrain.bounds.base import Box
from certtrain.errors import ConfigError

# What the random starts of an image depend on, and on nothing else: whole numbers >= 0.
Key = tuple[int, ...]


@dataclass(frozen=True)
class PGD:
    """Steps along the sign of the margin's gradient, from random starts.

    The first restart lowers the smallest margin, whichever class that is; the second lowers the margin to the
    runner-up at the centre, the third to the class after it, and so on (multi-targeted, Gowal et al., arXiv
    1910.09338). Starts depend on an image's key and the number of the restart only, never on the batch.

    Attributes:
        steps: Gradient steps per restart; 0 tries the centre only.
        restarts: Random starts.
        step_size: First step in the unit of the inputs; steps shrink linearly to zero. None: half of the
            width that a pixel may move in, which falsified most images in our measurements.
        step_share: Where step_size is None: the first step as a multiple of that half width.
        enough: An image with a margin below it needs no more steps: 0 where a misclassified point is sought,
            -inf where the lowest margin is.

    Raises:
        ConfigError: If a number is out of range.
    """

    steps: int = 40
    restarts: int = 3
    step_size: float | None = None
    step_share: float = 1.0
    enough: float = 0.0

    def __post_init__(self) -> None:
        # An attack that cannot start would be an error of every image.
        if not all(type(number) is int and number >= 0 for number in (self.steps, self.restarts)):
            raise ConfigError(f"attack: steps and restarts must be whole numbers >= 0, got {self}")
        size, share = self.step_size, self.step_share
        if size is not None and not (isinstance(size, (int, float)) and 0 < size < float("inf")):
            raise ConfigError(f"attack: step_size must be a positive number or None, got {size!r}")
        if not (isinstance(share, (int, float)) and 0 < share < float("inf")):
            raise ConfigError(f"attack: step_share must be a positive number, got {share!r}")

    @property
    def rounds(self) -> int:
        """How often `restart` can be called."""
        return self.restarts if self.steps else 0

    def worst(
        self, margins: Margins, box: Box, keys: Sequence[Key]
    ) -> tuple[Float[Tensor, "batch *shape"], Float[Tensor, " batch"]]:
        """The worst points that all restarts find, and their smallest margins.

        Args:
            margins: What is attacked.
            box: Where to look.
            keys: One for each image.

        Returns:
            Points of the box, detached, and the smallest margin at each; the centre where nothing is worse.
        """
        everywhere = torch.arange(len(box), device=box.lower.device)
        points, at_center = self.center(margins, box)
        lowest = at_center.amin(1)
        for restart in range(self.rounds):
            # Where a margin is low enough already, no restart is needed: what is sought is found.
            left = everywhere[~(lowest < self.enough)]
            if not len(left):
                break
            reached, margin = self.restart(margins, box, keys, left, at_center, restart)
            lower = is_lower(margin, lowest[left])
            points[left[lower]], lowest[left[lower]] = reached[lower], margin[lower]
        return points, lowest

    def center(self, margins: Margins, box: Box) -> tuple[Float[Tensor, "batch *shape"], Float[Tensor, "batch rows"]]:
        """The middle of the box, and the margins there."""
        middle = box.center.clamp(box.lower, box.upper)
        with torch.no_grad():
            return middle, margins(middle, torch.arange(len(box), device=middle.device))

    def restart(
        self,
        margins: Margins,
        box: Box,
        keys: Sequence[Key],
        images: Int[Tensor, " some"],
        at_center: Float[Tensor, "batch rows"],
        number: int,
    ) -> tuple[Float[Tensor, "some *shape"], Float[Tensor, " some"]]:
        """One restart on some images of a batch.

        Args:
            margins: What is attacked.
            box: Of the whole batch.
            keys: Of the whole batch.
            images: Which of it to attack.
            at_center: Margins at the centre, which order the targets.
            number: Of the restart, from 0.

        Returns:
            For each of the images the point with the smallest margin met, and that margin.
        """
        targeted = 0 < number <= at_center.shape[1]
        target = at_center[images].argsort(1)[:, number - 1] if targeted else None
        everything = torch.equal(images, torch.arange(len(box), device=images.device))
        own = box if everything else box[images]
        start = random_points(own, [(*keys[i], number) for i in images.tolist()])
        return self._descend(margins, own, images, start, target)

    def _descend(
        self, margins: Margins, box: Box, images: Tensor, start: Tensor, target: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Points [some, *shape] with the smallest margin met, and that margin [some].

        Args:
            margins: What is attacked.
            box: Of these images.
            images: Their numbers in the batch.
            start: Points of the box; they are moved.
            target: The row whose margin is lowered; None: whichever is smallest.
        """
        worst, lowest = start.clone(), start.new_full(images.shape, torch.inf)
        size, radius = self.step_size, box.radius
        first = self.step_share * radius if size is None else torch.full_like(radius, size)
        active, x = torch.arange(len(images), device=images.device), start
        low, high = box.lower, box.upper
        for k in range(self.steps + 1):
            own, last = images[active], k == self.steps
            if last:
                with torch.no_grad():
                    smallest, slope = margins(x, own).amin(1), x
            else:
                smallest, slope = self._margin_and_slope(margins, x, own, None if target is None else target[active])
            _keep(x, smallest, active, worst, lowest)
            # What is found needs no further steps; a NaN is neither found nor worse than anything.
            going = ~(smallest < self.enough)
            if last or not going.any():
                break
            if not going.all():
                active, x, slope = active[going], x[going], slope[going]
                first, low, high = first[going], low[going], high[going]
            x = x.addcmul_(first, slope.sign(), value=k / self.steps - 1).clamp_(low, high)
        return worst, lowest

    def _margin_and_slope(
        self, margins: Margins, x: Tensor, images: Tensor, target: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The smallest margin [some], and the gradient [some, *shape] of what is lowered."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            found = margins(x, images)
            return found.detach().amin(1), torch.autograd.grad(self._lowered(found, target).sum(), x)[0]

    def _lowered(self, found: Tensor, target: Tensor | None) -> Tensor:
        """What is lowered [some], of margins [some, rows]: that to the target, or the smallest."""
        if found.shape[1] == 1:
            return found.squeeze(1)
        return found.amin(1) if target is None else found.gather(1, target[:, None])


def _keep(x: Tensor, smallest: Tensor, active: Tensor, worst: Tensor, lowest: Tensor) -> None:
    """Writes points of the active images over the worst ones, where they are lower."""
    lower = smallest < lowest[active]
    if len(active) == len(worst) and lower.all():
        worst.copy_(x)
        lowest.copy_(smallest)
    else:
        worst[active[lower]], lowest[active[lower]] = x[lower], smallest[lower]


def is_lower(margin: Float[Tensor, " some"], than: Float[Tensor, " some"]) -> Bool[Tensor, " some"]:
    """Which margins are smaller; a NaN is no small margin, and any number is smaller than it."""
    return ~(than <= margin) & ~margin.isnan()


def random_points(box: Box, keys: Sequence[Key]) -> Tensor:
    """Uniform points of the box: [some, *shape], each a function of its key."""
    draws = np.empty((len(keys), *box.lower.shape[1:]), np.float32)
    for key, own in zip(keys, draws, strict=True):
        np.random.default_rng(key).random(dtype=np.float32, out=own)
    points = torch.from_numpy(draws).to(box.lower)
    return points.mul_(box.upper - box.lower).add_(box.lower).clamp_(box.lower, box.upper)

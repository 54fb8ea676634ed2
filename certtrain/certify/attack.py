"""The attack as evidence: what it finds is a counterexample once it is confirmed in two precisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from certtrain.attacks import PGD
from certtrain.attacks.pgd import is_lower
from certtrain.bounds import Box
from certtrain.certify.counterexamples import float32_inside, inside
from certtrain.certify.network import Network
from certtrain.errors import ConfigError


@dataclass(frozen=True)
class Attack(PGD):
    """Projected gradient descent that looks for confirmed counterexamples.

    Attributes:
        seed: Of the random starts, which depend on it, on the image's number and on the restart only.

    Raises:
        ConfigError: If a number is out of range.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (type(self.seed) is int and self.seed >= 0):
            raise ConfigError(f"attack: seed must be a whole number >= 0, got {self.seed!r}")

    def find(
        self, network: Network, box: Box, labels: Int[Tensor, " batch"], indices: Sequence[int]
    ) -> tuple[Float[Tensor, "batch *shape"], Bool[Tensor, " batch"]]:
        """Looks for a counterexample of every image, first at the centre of its box.

        Args:
            network: What is attacked.
            box: Where to look; float64.
            labels: The right classes.
            indices: Numbers of the images.

        Returns:
            Points of the box in float64, the worst found for each image, and whether each is a confirmed
            counterexample: inside the float64 box and misclassified in both precisions.
        """
        inner, keys = float32_inside(box), [(self.seed, index) for index in indices]

        def margins(points: Tensor, images: Tensor) -> Tensor:
            return network.margins(points, labels[images])

        start, at_center = self.center(margins, inner)
        lowest, points = at_center.amin(1), inside(start, box)
        found = network.misclassifies(points, labels)
        for restart in range(self.restarts if self.steps else 0):
            # A margin that only one precision finds negative is no counterexample: the search goes on.
            left = (~found).nonzero().flatten()
            if not len(left):
                break
            reached, margin = self.restart(margins, inner, keys, left, at_center, restart)
            reached = inside(reached, box[left])
            found[left] = network.misclassifies(reached, labels[left])
            worse = found[left] | is_lower(margin, lowest[left])
            points[left[worse]], lowest[left[worse]] = reached[worse], margin[worse]
        return points, found

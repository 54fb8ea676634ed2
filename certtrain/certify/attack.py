"""The attack as evidence: what it finds is a counterexample once it is confirmed in two precisions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

from certtrain.attacks import PGD, CrossEntropyPGD, Square
from certtrain.attacks.pgd import is_lower
from certtrain.bounds import Box
from certtrain.certify.counterexamples import float32_inside, inside
from certtrain.certify.network import Network
from certtrain.errors import ConfigError

# Sets the random numbers of the parts of an ensemble apart, which restarts number from 0.
PART = 2**16


@dataclass(frozen=True)
class Falsifier(ABC):
    """Looks for confirmed counterexamples."""

    @abstractmethod
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

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Everything that it depends on, as JSON values: equal exactly for those that do the same."""


# Fields of PGD that attacks had not, with what they would have been.
LATER = {"enough": 0.0, "step_share": 1.0}


@dataclass(frozen=True)
class Attack(PGD, Falsifier):
    """Projected gradient descent that looks for confirmed counterexamples.

    Attributes:
        seed: Of the random starts, which depend on it, on the image's number and on the restart only.

    Raises:
        ConfigError: If a number is out of range.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_seed(self.seed)

    def find(
        self, network: Network, box: Box, labels: Int[Tensor, " batch"], indices: Sequence[int]
    ) -> tuple[Float[Tensor, "batch *shape"], Bool[Tensor, " batch"]]:
        """See `Falsifier`."""
        return _find((self,), self.seed, network, box, labels, indices)

    def settings(self) -> dict[str, Any]:
        """See `Falsifier`; as ledgers have it that were written before there were some of the fields."""
        return {name: value for name, value in asdict(self).items() if (name, value) not in LATER.items()}


@dataclass(frozen=True)
class AttackEnsemble(Falsifier):
    """One attack after the other on what those before it left: stronger than each, as AutoAttack (ICML 2020) has it.

    PGD on margins, also to one class after the other; PGD on the cross-entropy; Square, which needs no gradient.

    Attributes:
        steps: Of both gradient attacks, per restart.
        restarts: Of both gradient attacks.
        queries: Of Square.
        seed: See `Attack`.

    Raises:
        ConfigError: If a number is out of range.
    """

    steps: int = 40
    restarts: int = 3
    queries: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        assert len(self._parts) > 0  # each part checks its own numbers
        _check_seed(self.seed)

    @property
    def _parts(self) -> tuple[PGD | Square, ...]:
        gradient = self.steps, self.restarts
        return PGD(*gradient), CrossEntropyPGD(*gradient), Square(self.queries)

    def find(
        self, network: Network, box: Box, labels: Int[Tensor, " batch"], indices: Sequence[int]
    ) -> tuple[Float[Tensor, "batch *shape"], Bool[Tensor, " batch"]]:
        """See `Falsifier`."""
        return _find(self._parts, self.seed, network, box, labels, indices)

    def settings(self) -> dict[str, Any]:
        """See `Falsifier`."""
        return {"parts": [repr(part) for part in self._parts], "seed": self.seed}


def _check_seed(seed: object) -> None:
    if not (type(seed) is int and seed >= 0):
        raise ConfigError(f"attack: seed must be a whole number >= 0, got {seed!r}")


def _find(
    parts: Sequence[PGD | Square], seed: int, network: Network, box: Box, labels: Tensor, indices: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """See `Falsifier.find`: part after part, restart after restart."""
    inner = float32_inside(box)

    def margins(points: Tensor, images: Tensor) -> Tensor:
        return network.margins(points, labels[images])

    start, at_center = PGD().center(margins, inner)
    lowest, points = at_center.amin(1), inside(start, box)
    found = network.misclassifies(points, labels)
    for number, part in enumerate(parts):
        keys = [(seed, index, PART + number) if number else (seed, index) for index in indices]
        for restart in range(part.rounds):
            # A margin that only one precision finds negative is no counterexample: the search goes on.
            left = (~found).nonzero().flatten()
            if not len(left):
                return points, found
            reached, margin = part.restart(margins, inner, keys, left, at_center, restart)
            reached = inside(reached, box[left])
            found[left] = network.misclassifies(reached, labels[left])
            worse = found[left] | is_lower(margin, lowest[left])
            points[left[worse]], lowest[left[worse]] = reached[worse], margin[worse]
    return points, found

"""How images go through the stages: which of them a stage is asked about, and when nothing more is asked about one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from certtrain.certify.case import Case
from certtrain.errors import ConfigError
from certtrain.spelling import did_you_mean

# Below this, prediction and attack run at a fraction of their speed.
FEWEST_IMAGES = 16


@dataclass(frozen=True)
class Cascade(ABC):
    """An order of asking.

    Attributes:
        name: Under which it is configured, and stands in every verdict that it led to.
    """

    name: ClassVar[str]

    @abstractmethod
    def is_done(self, case: Case, exhausted: bool) -> bool:
        """Whether an image's verdict can be handed over before those of the images beside it.

        Args:
            case: The image; prediction has seen it.
            exhausted: Whether no stage is left that could be asked.
        """

    @abstractmethod
    def images_at_once(self, largest: int, smallest: int) -> int:
        """How many images to take through all stages together.

        Args:
            largest: Images per batch of prediction and attack.
            smallest: Images per batch of the verifier that takes fewest at a time.
        """


@dataclass(frozen=True)
class AskAll(Cascade):
    """Every stage is asked about every correctly classified image: what each verifier can do is known of all."""

    name = "all"

    def is_done(self, case: Case, exhausted: bool) -> bool:
        """See `Cascade`: verdicts of images that are judged together are handed over together, in their order."""
        return False

    def images_at_once(self, largest: int, smallest: int) -> int:
        """See `Cascade`: where a verifier takes few images at a time, collecting many only delays their verdicts."""
        return min(largest, max(smallest, FEWEST_IMAGES))


@dataclass(frozen=True)
class AskFirst(Cascade):
    """Each stage is asked only what those before it left open: the first evidence decides."""

    name = "first"

    def is_done(self, case: Case, exhausted: bool) -> bool:
        """See `Cascade`."""
        return exhausted or case.settled or not case.correct

    def images_at_once(self, largest: int, smallest: int) -> int:
        """See `Cascade`: verdicts are handed over as they are made, so that early stages may run on large batches."""
        return largest


CASCADES: Mapping[str, Cascade] = {cascade.name: cascade for cascade in (AskAll(), AskFirst())}


def choose_cascade(given: str | Cascade) -> Cascade:
    """A cascade by its name.

    Raises:
        ConfigError: If there is none of that name.
    """
    if isinstance(given, Cascade):
        return given
    if given not in CASCADES:
        hint = did_you_mean(str(given), list(CASCADES))
        raise ConfigError(f"cascade must be one of {', '.join(CASCADES)}, got {given!r}{hint}")
    return CASCADES[given]


class Tray:
    """Images on their way through the stages; each leaves it once.

    Args:
        cases: The images.
        cascade: Who says that an image is done.
        hand_over: Takes images that are done.
    """

    def __init__(self, cases: Sequence[Case], cascade: Cascade, hand_over: Callable[[list[Case]], None]) -> None:
        self._left = list(cases)
        self._cascade = cascade
        self._hand_over = hand_over

    @property
    def asked(self) -> list[Case]:
        """What the next stage is asked about."""
        return [case for case in self._left if case.correct]

    def clear(self, exhausted: Callable[[Case], bool] = lambda case: False) -> None:
        """Hands over what the cascade calls done.

        Args:
            exhausted: Whether no stage is left that could be asked about an image.
        """
        done = [self._cascade.is_done(case, exhausted(case)) for case in self._left]
        self._leave(done)

    def close(self) -> None:
        """Hands over the rest."""
        self._leave([True] * len(self._left))

    def _leave(self, done: Sequence[bool]) -> None:
        leaving = [case for case, gone in zip(self._left, done, strict=True) if gone]
        self._left = [case for case, gone in zip(self._left, done, strict=True) if not gone]
        if leaving:
            self._hand_over(leaving)

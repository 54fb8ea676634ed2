"""What every verifier has in common: boxes go in, proofs come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Bool, Float, Int
from torch import Tensor

from certtrain.bounds import Box
from certtrain.certify.arithmetic import Arithmetic
from certtrain.certify.network import Network
from certtrain.errors import ConfigError
from certtrain.networks import Graph


@dataclass(frozen=True)
class Proved:
    """What a verifier found out about a batch.

    Attributes:
        margins: Lower bounds, float64, of each image's smallest margin over its box. A positive one claims that the
            image is robust; NaN and infinities are passed on, and claim nothing.
        finished: Whether the verifier came to its end; where the deadline came first, nothing is claimed.
        counterexamples: Position in the batch -> a point of that image's box, float64, [*shape], that the verifier met
            and takes for misclassified. It is confirmed by the caller, and claims nothing until then.
    """

    margins: Float[Tensor, " batch"]
    finished: Bool[Tensor, " batch"]
    counterexamples: Mapping[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Verifier(ABC):
    """Proves robustness, image by image.

    Attributes:
        name: Under which its results are reported, in the ledger and in its settings (`describe`).
    """

    name: str

    @abstractmethod
    def smallest_margins(self, network: Network, box: Box, labels: Int[Tensor, " batch"], deadline: float) -> Proved:
        """Bounds each image's smallest margin over its box.

        Args:
            network: What is certified.
            box: float64.
            labels: The right classes.
            deadline: A moment of `time.perf_counter()`, perhaps infinity, soon after which this returns at the latest.
        """

    @abstractmethod
    def bytes_per_image(self, graph: Graph) -> int:
        """Estimated peak memory of one image, within a factor of about two."""

    @abstractmethod
    def check(self, network: Network, images: Float[Tensor, "batch *shape"]) -> None:
        """Checks itself on a network before any of its results counts.

        Args:
            network: What will be certified.
            images: Some inputs; float64.

        Raises:
            SoundnessError: If what it says of boxes without width is not what the network does.
        """

    @abstractmethod
    def options(self) -> str:
        """All its options in one line: equal exactly for verifiers that compute the same."""

    def judged_in(self, arithmetic: Arithmetic) -> Verifier:
        """The same verifier with margins in another arithmetic.

        Raises:
            ConfigError: If it has none to choose.
        """
        raise ConfigError(f"verifier {self.name} has no arithmetic to choose, only certify.arithmetic=float64")

    def describe(self) -> str:
        """Name and options."""
        return f"{self.name}: {self.options()}"

    def images_at_once(self, graph: Graph, budget: int, largest: int) -> int:
        """Images per batch that fit into a budget in bytes: at least one, at most `largest`."""
        return max(1, min(largest, budget // max(1, self.bytes_per_image(graph))))

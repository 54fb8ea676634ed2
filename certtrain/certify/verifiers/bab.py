"""Branch and bound as a verifier: complete for ReLU networks, up to rounding and patience."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from certtrain.bounds import Bounds, Box, Sides, margin_spec
from certtrain.bounds.relaxation.alpha_crown import AlphaCrown
from certtrain.certify.arithmetic import FLOAT64, Arithmetic
from certtrain.certify.network import Network
from certtrain.certify.search.enveloping import Enveloping
from certtrain.certify.search.narrowing import Narrowing
from certtrain.certify.search.relaxed import Goals
from certtrain.certify.search.search import Effort
from certtrain.certify.search.whole import BranchAndBound
from certtrain.certify.soundness import check_points
from certtrain.certify.verifiers.base import Proved, Verifier
from certtrain.certify.verifiers.memory import bytes_of_bounds
from certtrain.errors import ConfigError
from certtrain.memory import MEGABYTE
from certtrain.networks import Graph


@dataclass(frozen=True)
class Bab(Verifier):
    """Splits undecided ReLUs until every subdomain is proved or a counterexample is met.

    Pre-activation bounds are alpha-CROWN's of the whole box. Where more than a few subdomains are left, upper bounds of
    ReLUs in what their layer reads are fitted to each margin (after Anderson et al., arXiv 1811.01988), and
    pre-activation bounds are found that hold wherever it could be negative (INVPROP, Kotha et al., arXiv 2302.01404).
    Subdomains are bounded with multipliers of their splits (beta-CROWN, Wang et al., arXiv 2103.06624), in batches.
    Networks with other activations are split at their ReLUs. Where few inputs have a width, boxes of inputs are halved
    instead, whatever the activations. In sound arithmetic a subdomain is closed by a bound that all rounding errors
    leave positive (docs/concepts/verdicts.md); there upper lines stay what they are.

    Attributes:
        iterations: Steps of the slopes of pre-activation bounds.
        batch: Subdomains that are split at a time.
        candidates: Neurons that are tried before one is split.
        memory_mb: MiB that the open subdomains of an image may take, what narrowed boxes keep, and envelopes.
        splitting: "neurons", "inputs", or "auto": inputs where at most ten have a width.
        narrowing: Rounds, at most, that narrow an image's box to where a margin could be negative; 0: none.
        envelopes: Steps, at most, that fit upper bounds in a layer's inputs to a margin; 0: none.
        arithmetic: What a positive margin is worth; no option of its own, but `certify.arithmetic`.

    Raises:
        ConfigError: If a number is out of range.
    """

    name: str = "bab"
    iterations: int = 10
    batch: int = 256
    candidates: int = 4
    memory_mb: int = 1024
    splitting: str = "auto"
    narrowing: int = 8
    envelopes: int = 300
    arithmetic: Arithmetic = field(default=FLOAT64, repr=False)

    def __post_init__(self) -> None:
        for name in ("batch", "candidates", "memory_mb"):
            value = getattr(self, name)
            if not (type(value) is int and value >= 1):
                raise ConfigError(f"{name} must be a whole number of at least 1, got {value!r}")
        self._search()  # refuses the rest

    def smallest_margins(self, network: Network, box: Box, labels: Int[Tensor, " batch"], deadline: float) -> Proved:
        """See `Verifier`: positive margins are those proved, no minima."""
        spec = margin_spec(labels, network.graph.num_outputs).double()
        margins = torch.full((len(box),), torch.nan, dtype=torch.float64)
        finished = torch.zeros(len(box), dtype=torch.bool)
        points: dict[int, Tensor] = {}
        for image in range(len(box)):
            goals = Goals.margins(spec[image])
            found = self._search().decide(
                network.graph, network.values, box[image : image + 1], goals, deadline, self.arithmetic
            )
            if found.ending == "memory":
                raise MemoryError(f"open subdomains took {self.memory_mb} MiB: not enough memory")
            if found.ending == "time":
                break
            finished[image], margins[image] = True, found.lower
            if found.counterexample is not None:
                points[image] = found.counterexample.double()
        return Proved(margins, finished, points)

    def bytes_per_image(self, graph: Graph) -> int:
        """See `Verifier`."""
        return bytes_of_bounds(AlphaCrown(), graph) + self.memory_mb * MEGABYTE // 4

    def check(self, network: Network, images: Float[Tensor, "batch *shape"]) -> None:
        """See `Verifier`: the relaxation that it begins with."""
        self.arithmetic.check_network(network)

        def bound(box: Box, spec: Tensor | None, sides: Sides) -> Bounds:
            return AlphaCrown().bound(network.graph, network.values[box.lower.dtype], box, spec, sides)

        check_points(self.name, bound, network, images)

    def options(self) -> str:
        """See `Verifier`."""
        return repr(self) + self.arithmetic.options

    def judged_in(self, arithmetic: Arithmetic) -> Bab:
        """See `Verifier`."""
        return replace(self, arithmetic=arithmetic)

    def images_at_once(self, graph: Graph, budget: int, largest: int) -> int:
        """See `Verifier`: one, so that an image's time is its own."""
        return 1

    def _search(self) -> BranchAndBound:
        effort = Effort(batch=self.batch, candidates=self.candidates)
        relaxation = AlphaCrown(iterations=self.iterations, search="single")
        ways = Narrowing(rounds=self.narrowing), Enveloping(steps=self.envelopes)
        return BranchAndBound(relaxation, effort, self.memory_mb, self.splitting, *ways)

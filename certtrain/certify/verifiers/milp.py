"""A mixed-integer program for every margin: complete for piecewise-linear networks, slow, and independent."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from certtrain.bounds import Bounds, Box, Sides, margin_spec
from certtrain.bounds.analysis import Analysing
from certtrain.bounds.relaxation.deeppoly import DeepPoly
from certtrain.certify.network import Network
from certtrain.certify.soundness import check_points
from certtrain.certify.verifiers.base import Proved, Verifier
from certtrain.certify.verifiers.memory import bytes_of_bounds
from certtrain.deadline import OutOfTime, until
from certtrain.errors import ConfigError
from certtrain.networks import Graph
from certtrain.networks.ops import LinearMap

if TYPE_CHECKING:
    from certtrain.certify.milp import Question

# Matrices of linear maps and their products, and HiGHS's copies of them, as if every output read every input.
BYTES_PER_COEFFICIENT = 100


@dataclass(frozen=True)
class Milp(Verifier):
    """Decides every margin exactly, up to HiGHS's tolerances (`milp.solving`): within them of zero it stays open.

    Margins that the relaxation bounds above zero are left to it. The others are asked one after another, the least
    promising first, until one is negative somewhere: its point is a counterexample.

    Attributes:
        relaxation: Whose pre-activation bounds programs start from.

    Raises:
        ConfigError: If the relaxation gives no pre-activation bounds.
    """

    name: str = "milp"
    relaxation: Analysing = field(default_factory=DeepPoly)

    def __post_init__(self) -> None:
        if not isinstance(self.relaxation, Analysing):
            raise ConfigError(
                f"relaxation must be one with pre-activation bounds, such as deeppoly, got {self.relaxation!r}"
            )

    def smallest_margins(self, network: Network, box: Box, labels: Int[Tensor, " batch"], deadline: float) -> Proved:
        """See `Verifier`: positive margins are those proved, no minima."""
        from certtrain.certify.milp import Question

        spec = margin_spec(labels, network.graph.num_outputs).double()
        margins = torch.full((len(box),), torch.nan, dtype=torch.float64)
        finished = torch.zeros(len(box), dtype=torch.bool)
        points: dict[int, Tensor] = {}
        try:
            with until(deadline):
                values = network.values[torch.float64]
                question = Question.of(network.graph, values, box, spec, self.relaxation)
                for image in question:
                    margins[image], point = self._smallest(question, network, labels, image, deadline)
                    finished[image] = True
                    if point is not None:
                        points[image] = point
        except OutOfTime:
            pass
        return Proved(margins, finished, points)

    def bytes_per_image(self, graph: Graph) -> int:
        """See `Verifier`; a network that cannot be encoded is refused here."""
        from certtrain.certify.milp import check_encodable

        check_encodable(graph)
        mixing = (op for op in graph.ops if isinstance(op, LinearMap) and not op.keeps_boxes)
        coefficients = sum(op.size * prod(op.in_shape) for op in mixing)
        return bytes_of_bounds(self.relaxation, graph) + BYTES_PER_COEFFICIENT * coefficients

    def check(self, network: Network, images: Float[Tensor, "batch *shape"]) -> None:
        """See `Verifier`: encoded boxes without width, of which nothing is left but an offset."""
        from certtrain.certify.milp import Question

        def bound(box: Box, spec: Tensor | None, sides: Sides) -> Bounds:
            outputs = network.graph.num_outputs
            rows = torch.eye(outputs).expand(len(box), -1, -1) if spec is None else spec
            exact = box.to(torch.float64)
            question = Question.of(
                network.graph,
                network.values[torch.float64],
                exact,
                rows.to(exact.lower),
                self.relaxation,
            )
            found = [question.encoded(image).outputs.offset for image in question]
            offsets = torch.stack([torch.from_numpy(x) for x in found]).to(question.spec)
            forms = (question.spec @ offsets[:, :, None]).squeeze(-1).to(box.lower)
            return Bounds(forms, forms)

        check_points(self.name, bound, network, images)

    def options(self) -> str:
        """See `Verifier`."""
        return f"Milp(relaxation={self.relaxation!r})"

    def images_at_once(self, graph: Graph, budget: int, largest: int) -> int:
        """See `Verifier`: one, so that an image's time is its own."""
        return 1

    def _smallest(
        self, question: Question, network: Network, labels: Tensor, image: int, deadline: float
    ) -> tuple[float, Tensor | None]:
        """A lower bound of one image's smallest margin, and a point where none is left, if one was met."""
        from certtrain.certify.milp.solving import decide

        relaxed = question.relaxed[image]
        if not question.finite(image):
            return torch.nan, None
        bounds, encoded = relaxed.tolist(), question.encoded(image)
        for row in relaxed.argsort().tolist():
            if bounds[row] > 0:
                break
            found = decide(encoded, question.form(encoded, image, row), deadline)
            bounds[row] = max(bounds[row], found.lower)
            if found.columns is not None:
                point = question.point(encoded, image, found.columns)
                if bool(network.margins(point[None], labels[image, None]).amin() <= 0):
                    return min(bounds), point
        return min(bounds), None

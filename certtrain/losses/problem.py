"""What a loss is evaluated on: a batch, and what is to be certified on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from certtrain.attacks import Margins
from certtrain.attacks.pgd import Key
from certtrain.bounds.base import Box, Relaxation
from certtrain.bounds.executors.compiled.evaluation import Evaluation
from certtrain.bounds.labels import margin_spec
from certtrain.networks.graph import Graph, Params


@dataclass(frozen=True)
class Known:
    """Bounds of margins that somebody has computed already, and of what they are.

    Attributes:
        of: Graph, relaxation, box, specification and parameters, these very objects.
        margins: [batch, rows].
    """

    of: tuple[object, ...]
    margins: Tensor

    def answers(self, *question: object) -> bool:
        """Whether it was about this."""
        return len(question) == len(self.of) and all(one is other for one, other in zip(question, self.of, strict=True))


@dataclass(frozen=True)
class Problem:
    """A batch, and what is to be certified on it.

    Attributes:
        graph: The network.
        relaxation: Bounds its margins.
        inputs: [batch, *input_shape], in pixel units.
        labels: [batch].
        box: The inputs to certify; lies around `inputs`, which need not be its centre where it is cut.
        spec: [batch, rows, outputs], the margins to certify.
        natural_weight: κ in [0, 1]: weight of the natural loss beside the robust one; 1 where the box has no width.
        seed: Of everything that a loss draws.
        positions: Place of each image in the whole batch, of which this may be a rank's part.
        eps: Radius of the ball that `box` is, cut to `clip`.
        clip: Range of legal pixels; None where there is none.
        progress: How far the ramp of eps is, from 0 (it has not begun) to 1 (it has ended): what a loss mixes on the
            way follows it.
        forwards: Type that products and convolutions of plain evaluations are cast to, natural ones and those of
            attacks; None leaves them. Bounds are never.
        known: Bounds that need not be computed again; None where there are none.
    """

    graph: Graph
    relaxation: Relaxation
    inputs: Float[Tensor, "batch *shape"]
    labels: Int[Tensor, " batch"]
    box: Box
    spec: Float[Tensor, "batch rows outputs"]
    natural_weight: float
    seed: int
    positions: Sequence[int]
    eps: float
    clip: tuple[float, float] | None
    progress: float = 1.0
    forwards: torch.dtype | None = None
    known: Known | None = None

    @staticmethod
    def within(
        graph: Graph,
        relaxation: Relaxation,
        inputs: Float[Tensor, "batch *shape"],
        labels: Int[Tensor, " batch"],
        eps: float,
        natural_weight: float = 0.0,
        clip: tuple[float, float] | None = (0.0, 1.0),
        seed: int = 0,
        first: int = 0,
        progress: float = 1.0,
        forwards: torch.dtype | None = None,
    ) -> Problem:
        """All inputs within eps of the given ones, and all margins of their labels.

        Args:
            graph: The network.
            relaxation: Bounds its margins.
            inputs: [batch, *input_shape], in pixel units.
            labels: [batch].
            eps: Radius of the box in pixel units; 0 leaves nothing but the natural loss.
            natural_weight: See `Problem`.
            clip: Range of legal pixels.
            seed: See `Problem`.
            first: Place of the first of the images in the whole batch.
            progress: See `Problem`.
            forwards: See `Problem`.
        """
        return Problem(
            graph,
            relaxation,
            inputs,
            labels,
            Box.linf(inputs, eps, clip),
            margin_spec(labels, graph.num_outputs).to(inputs),
            natural_weight if eps > 0 else 1.0,
            seed,
            range(first, first + len(inputs)),
            eps,
            clip,
            progress,
            forwards,
        )

    def evaluate(self, params: Params, points: Float[Tensor, "some *shape"], graph: Graph | None = None) -> Tensor:
        """Outputs of the network, or of a part of it, at points: the one place where a loss evaluates what it trains.

        Args:
            params: See `Loss`.
            points: In the shape of what is evaluated.
            graph: The part.

        Returns:
            [some, outputs] in the type of the points, whatever `forwards` is.
        """
        evaluated = self.graph if graph is None else graph
        return self._run(evaluated, evaluated.values(params, points), points)

    def fixed(self, params: Params, graph: Graph | None = None) -> Callable[[Tensor], Tensor]:
        """`evaluate` as a function of points alone, for attacks: parameters are not differentiated.

        Args:
            params: See `Loss`.
            graph: The part.
        """
        evaluated = self.graph if graph is None else graph
        values = evaluated.values({name: p.detach() for name, p in params.items()}, self.inputs)
        compiled = Evaluation.of(evaluated, values, self.inputs) if self.forwards is None else None
        return compiled or (lambda points: self._run(evaluated, values, points))

    def _run(self, graph: Graph, values: Params, points: Tensor) -> Tensor:
        if self.forwards is None:
            return graph.run(values, points)
        with torch.autocast(points.device.type, self.forwards):
            return graph.run(values, points).to(points.dtype)

    def logits(self, params: Params) -> Float[Tensor, "batch classes"]:
        """Outputs at the unperturbed inputs."""
        return self.evaluate(params, self.inputs)

    def cross_entropy(self, params: Params, points: Float[Tensor, "batch *shape"]) -> Float[Tensor, " batch"]:
        """Of each image's label at a point."""
        return F.cross_entropy(self.evaluate(params, points), self.labels, reduction="none")

    def losses_at(self, params: Params) -> Callable[[Tensor, Tensor], Tensor]:
        """(points, images) -> the cross-entropy of points, for attacks: see `fixed`."""
        outputs = self.fixed(params)

        def losses(points: Tensor, images: Tensor) -> Tensor:
            return F.cross_entropy(outputs(points), self.labels[images], reduction="none")

        return losses

    def ball(self, factor: float) -> Box:
        """The inputs within a multiple of eps; the box itself at 1."""
        return self.box if factor == 1 else Box.linf(self.inputs, factor * self.eps, self.clip)

    def lower_margins(self, params: Params) -> Float[Tensor, "batch rows"]:
        """Certified lower bounds of the margins over the box."""
        if self.known is not None and self.known.answers(*self._question(params)):
            return self.known.margins
        return self.relaxation.bound(self.graph, params, self.box, self.spec, sides="lower").lower

    def margins_at(self, params: Params) -> Margins:
        """The margins of points, for attacks."""

        def margins(points: Tensor, images: Tensor) -> Tensor:
            return (self.spec[images] @ self.evaluate(params, points)[:, :, None]).squeeze(-1)

        return margins

    def keys(self, generation: int) -> list[Key]:
        """For each image, what the random numbers of a generation depend on: of all ranks, each has its own."""
        return [(self.seed, generation, position) for position in self.positions]

    def knowing(self, params: Params, margins: Float[Tensor, "batch rows"]) -> Problem:
        """The same problem where `lower_margins(params)` need not be computed again."""
        return replace(self, known=Known(self._question(params), margins))

    def _question(self, params: Params) -> tuple[object, ...]:
        return self.graph, self.relaxation, self.box, self.spec, params

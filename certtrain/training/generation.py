"""What one generation minimises: the configured loss of a batch, at one point of the schedules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from certtrain.gradients.base import GradientEstimator, LossFunction
from certtrain.losses import Problem
from certtrain.networks.graph import Graph, Params
from certtrain.networks.statistics import batch_statistics
from certtrain.training.objective import Objective
from certtrain.training.shards import Shard


@dataclass(frozen=True)
class Generation:
    """One generation of a run.

    Attributes:
        graph: The network.
        objective: What is minimised.
        number: Of the generation, from 0.
        eps: Radius that is trained for.
        natural_weight: Weight κ of the natural loss.
        progress: How far the ramp of eps is, see `Problem`.
    """

    graph: Graph
    objective: Objective
    number: int
    eps: float
    natural_weight: float
    progress: float = 1.0

    @staticmethod
    def at(graph: Graph, objective: Objective, number: int, epoch: float) -> Generation:
        """The generation at a point of the schedules, which go by epochs."""
        eps, weight = objective.eps, objective.natural_weight
        return Generation(graph, objective, number, eps(epoch), weight(epoch), eps.progress(epoch))

    @staticmethod
    def last(graph: Graph, objective: Objective) -> Generation:
        """What training ends with, as the first generation: where it begins, at radius 0, there may be no bounds."""
        return Generation(graph, objective, 0, objective.eps.end, objective.natural_weight.end)

    @staticmethod
    def extremes(graph: Graph, objective: Objective) -> Iterator[Generation]:
        """Generations that between them compute all that any one does.

        Where the schedule begins without a box, that one; the full radius with the weights of both ends, in the middle
        of the ramp, where a loss computes both of what it goes from and what it goes to.
        """
        weight = objective.natural_weight
        if objective.eps.end > 0 == objective.eps(0.0):
            yield Generation.at(graph, objective, 0, 0.0)
        for number, kappa in enumerate(sorted({weight.start, weight.end})):
            yield Generation(graph, objective, number, objective.eps.end, kappa, progress=0.5)

    def problem(self, inputs: Tensor, labels: Tensor, first: int = 0) -> Problem:
        """Images, of which the first has this place in the whole batch, with the box and the margins to certify."""
        objective = self.objective
        return Problem.within(
            self.graph,
            objective.relaxation,
            inputs,
            labels,
            self.eps,
            self.natural_weight,
            objective.clip,
            objective.seed,
            first,
            self.progress,
            objective.forwards,
        )

    def statistics(self, params: Params, shard: Shard) -> Params:
        """What batch norm sees of the whole clean batch at the centre; nothing where there is none."""
        if not self.graph.has_batch_norm:
            return {}
        return {k: v.detach() for k, v in batch_statistics(self.graph, params, shard.batch).items()}

    def loss(
        self, shard: Shard, params: Params, statistics: Params, estimator: GradientEstimator, images: int | None = None
    ) -> LossFunction:
        """The loss as a function of the parameters, prepared at the centre.

        Args:
            shard: Which images it is on; its losses weigh as much as there are of these.
            params: The centre.
            statistics: See `statistics`.
            estimator: What will ask for the loss.
            images: Number of images, the first ones; all of the shard's by default.
        """
        problem = self.problem(shard.inputs[:images], shard.labels[:images], shard.first)
        loss, weight, graph = self.objective.loss, shard.weight, self.graph
        centre = {name: p.detach() for name, p in {**params, **statistics}.items()}
        prepared = loss.prepare(problem, centre, self.number)
        if statistics and estimator.splits == "batch":  # it differentiates, through the statistics too
            return lambda p: weight * loss(problem, {**p, **batch_statistics(graph, p, shard.batch)}, prepared)
        # A population shares the centre's statistics: members differ by their weights alone.
        return lambda p: weight * loss(problem, {**p, **statistics}, prepared)

"""What validation says of a network: the configured loss, and which images are certified."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxtyping import Bool, Float
from torch import Tensor

from certtrain.networks.graph import Graph, Params
from certtrain.training.generation import Generation
from certtrain.training.objective import Objective


@dataclass(frozen=True)
class Judgement:
    """Of each image of a batch.

    Attributes:
        loss: What training minimises, at the end of the schedules but at the radius to certify.
        certified: Whether all margins have positive lower bounds, by the objective's `validation`; of those images that
            it certifies, the first ones.
    """

    loss: Float[Tensor, " batch"]
    certified: Bool[Tensor, " some"]


def judge(
    graph: Graph,
    objective: Objective,
    params: Params,
    inputs: Tensor,
    labels: Tensor,
    number: int = 0,
    first: int = 0,
    place: int = 0,
) -> Judgement:
    """Judges images.

    Args:
        graph: The network.
        objective: What it is trained for.
        params: Its parameters and batch norm's running statistics.
        inputs: [batch, *input_shape].
        labels: [batch].
        number: Of the generation, which the loss's random numbers depend on.
        first: Place of the first of the images in the batch, of which they may be a rank's part.
        place: Its place among all images that are validated.
    """
    exact = replace(objective, forwards=None)
    end = Generation(graph, exact, number, objective.target_eps, objective.natural_weight.end)
    problem = end.problem(inputs, labels, first)
    other = objective.validation.relaxation
    if other is None:
        margins = problem.lower_margins(params)
        problem = problem.knowing(params, margins)  # bounds are most of what validation takes
    else:
        count = objective.validation.share(place, len(inputs))
        some = end.problem(inputs[:count], labels[:count], first)
        margins = replace(some, relaxation=other).lower_margins(params) if count else some.spec.sum(2)
    loss = objective.loss.per_image(problem, params, objective.loss.prepare(problem, params, number))
    # A NaN margin is not positive, so it never counts as certified.
    return Judgement(loss, (margins > 0).all(1))

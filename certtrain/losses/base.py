"""What a loss is evaluated on, and the interface of all losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from certtrain.bounds.base import Relaxation
from certtrain.networks.graph import Graph, Params


@dataclass(frozen=True)
class Problem:
    """A batch, and what is to be certified on it.

    Attributes:
        graph: The network.
        relaxation: Bounds its margins.
        inputs: [batch, *input_shape], in pixel units.
        labels: [batch].
        eps: Radius of the box in pixel units, 0 for none.
        natural_weight: κ in [0, 1]: weight of the natural loss beside the robust one.
        clip: Range of legal pixels.
    """

    graph: Graph
    relaxation: Relaxation
    inputs: Float[Tensor, "batch *shape"]
    labels: Int[Tensor, " batch"]
    eps: float
    natural_weight: float
    clip: tuple[float, float]


class Loss(ABC):
    """A training loss; must be a pure function of the parameters, so that it can be vectorised over them."""

    @abstractmethod
    def __call__(self, problem: Problem, params: Params) -> Tensor:
        """The loss, averaged over the batch: a scalar."""

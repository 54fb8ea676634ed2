"""What is measured: the certified loss of one network on fixed images, as a function of its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from certtrain.bounds import Relaxation
from certtrain.errors import ConfigError
from certtrain.gradients import LossFunction
from certtrain.gradients.members import Drawn
from certtrain.gradients.strategy import fastest
from certtrain.losses import Problem
from certtrain.losses.robust_cross_entropy import robust_cross_entropy
from certtrain.networks.graph import Graph, Params

# Members per vectorised call: bounds the memory, never changes a number beyond rounding.
CHUNK = 32


@dataclass(frozen=True)
class Subject:
    """A network at given weights, on given images.

    Attributes:
        graph: The network; batch norm uses the statistics that it holds.
        params: Name -> weights θ; their precision is the one of everything that is measured.
        inputs: [batch, *input_shape], in pixel units.
        labels: [batch].
        eps: Radius of the box in pixel units.
        relaxations: Name -> relaxation: everything is measured for each.
        clip: Range of legal pixels.

    Raises:
        ConfigError: If eps is not positive, there is no image, or there is no relaxation.
    """

    graph: Graph
    params: Params
    inputs: Float[Tensor, "batch *shape"]
    labels: Int[Tensor, " batch"]
    eps: float
    relaxations: Mapping[str, Relaxation]
    clip: tuple[float, float] | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not self.eps > 0:
            raise ConfigError(f"eps must be positive, got {self.eps}: bounds of a single point are the point's margins")
        if not len(self.inputs) or not self.relaxations:
            raise ConfigError("an analysis needs at least one image and one relaxation")

    def problem(self, name: str) -> Problem:
        """The images with the margins to certify, bounded by a relaxation of `relaxations`."""
        relaxation = self.relaxations[name]
        return Problem.within(self.graph, relaxation, self.inputs, self.labels, self.eps, clip=self.clip)

    def loss(self, name: str) -> LossFunction:
        """θ -> the mean over the images of log(1 + Σ_j exp(-m_j)), m the lower bounds of a relaxation."""
        problem = self.problem(name)
        return lambda params: robust_cross_entropy(problem.lower_margins(params)).mean()

    @property
    def size(self) -> int:
        """Number of weights d."""
        return sum(p.numel() for p in self.params.values())

    @property
    def norm(self) -> float:
        """‖θ‖."""
        return math.sqrt(sum(float(p.square().sum()) for p in self.params.values()))

    def sigma(self, relative: float) -> float:
        """σ of weight noise whose root mean square length is this multiple of ‖θ‖: σ = relative · ‖θ‖ / √d."""
        return relative * self.norm / math.sqrt(self.size)


def strategy_for(loss: LossFunction, params: Params) -> str:
    """The faster way of evaluating several weights; see `gradients.population`."""
    noise = {name: torch.zeros((8, *p.shape), dtype=p.dtype, device=p.device) for name, p in params.items()}
    return fastest(loss, Drawn(params, noise), CHUNK).strategy

"""Bounds whose lower slopes the loss itself chooses (Lee et al., NeurIPS 2021): tight, on a favourable landscape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from certtrain.attacks.pgd import random_points
from certtrain.bounds.analysis import Analysing, Given
from certtrain.bounds.base import Box
from certtrain.errors import ConfigError
from certtrain.losses.base import NOTHING, Prepared
from certtrain.losses.crown_ibp import TowardsIntervals, by_intervals
from certtrain.losses.problem import Problem
from certtrain.losses.robust_cross_entropy import robust_cross_entropy
from certtrain.networks.graph import Params

# What is prepared: the slopes of the activation with this index.
SLOPES = "slopes_{}"


@dataclass(frozen=True, kw_only=True)
class OptimisedSlopes(TowardsIntervals):
    """Robust cross-entropy of β · margins with chosen slopes + (1 - β) · margins by intervals.

    Lower slopes, one for each image and neuron, begin at random and take one step against the sign of the loss's
    derivative, so long that each ends at 0 or 1; those that nothing depends on stay. They are chosen once per
    generation, at the centre, and count as given in derivatives. This is what the authors' public code does
    (sungyoon-lee/LossLandscapeMatters, with relaxation=crown_ibp and β = 1).

    Attributes:
        beta_end: β after the ramp; 1 as published.

    Raises:
        ConfigError: If a number is out of range; from `prepare`, if the relaxation has no slopes to choose.
    """

    beta_end: float = 1.0

    def prepare_robust(self, problem: Problem, params: Params, generation: int) -> Prepared:
        """See `Mixed`; where only intervals have a weight, nothing is chosen."""
        if self.beta(problem) == 0:
            return NOTHING
        start = self._random(problem, generation)
        with torch.enable_grad():
            slopes = {index: x.requires_grad_() for index, x in start.items()}
            loss = self._loss(problem, params, slopes).sum()
            found = torch.autograd.grad(loss, list(slopes.values()), allow_unused=True) if loss.requires_grad else ()
        chosen = {index: x.detach() for index, x in start.items()}
        for index, slope in zip(chosen, found, strict=False):
            if slope is not None:
                chosen[index] = (chosen[index] - 2 * slope.sign()).clamp(0, 1)
        return {SLOPES.format(index): x for index, x in chosen.items()}

    def robust(self, problem: Problem, params: Params, prepared: Prepared) -> Float[Tensor, " batch"]:
        """See `Mixed`; what has no weight is not computed."""
        if self.beta(problem) == 0:
            return robust_cross_entropy(by_intervals(problem).lower_margins(params))
        activations = (index for index, _ in problem.graph.activations)
        return self._loss(problem, params, {index: prepared[SLOPES.format(index)] for index in activations})

    def _loss(self, problem: Problem, params: Params, slopes: Mapping[int, Tensor]) -> Float[Tensor, " batch"]:
        """With given slopes."""
        beta, relaxation = self.beta(problem), problem.relaxation
        margins = self._margins(relaxation, problem, params, slopes)
        if beta < 1:
            margins = beta * margins + (1 - beta) * by_intervals(problem).lower_margins(params)
        return robust_cross_entropy(margins)

    @staticmethod
    def _margins(relaxation: object, problem: Problem, params: Params, slopes: Mapping[int, Tensor]) -> Tensor:
        wrong = "loss=optimised_slopes chooses lower slopes of lines: take relaxation=crown_ibp or deeppoly"
        if not isinstance(relaxation, Analysing):
            raise ConfigError(wrong)
        given = Given(slopes=slopes)
        try:
            found = relaxation.analyse(problem.graph, params, problem.box, problem.spec, "lower", given)
        except ConfigError as error:
            raise ConfigError(f"{wrong}; {error}") from error
        return found.bounds.lower

    @staticmethod
    def _random(problem: Problem, generation: int) -> dict[int, Tensor]:
        """Uniform slopes, [batch, *shape of its input] for each activation: functions of each image's key."""
        found, keys = {}, problem.keys(generation)
        for index, op in problem.graph.activations:
            like = problem.inputs.new_zeros(len(keys), *problem.graph.ops[op.inputs[0]].shape)
            found[index] = random_points(Box(like, like + 1), [(*key, index) for key in keys])
        return found

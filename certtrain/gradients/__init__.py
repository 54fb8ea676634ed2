"""How the gradient of a loss is estimated: `backprop` differentiates it, `pgpe` smooths it and reads values only.

An estimator takes `loss(params) -> scalar` and never looks inside: it does not know which relaxation, network or data
the loss is made of. `noise` is a pure function of (seed, generation, pair); `population` evaluates many members,
and `strategy` finds out which way to do so is the faster one.
"""

from certtrain.gradients.backprop import Backprop
from certtrain.gradients.base import Choice, Estimate, GradientEstimator, LossFunction
from certtrain.gradients.noise import GaussianNoise
from certtrain.gradients.pgpe import PGPE
from certtrain.gradients.population import STRATEGIES, evaluate
from certtrain.gradients.strategy import fastest

__all__ = [
    "PGPE",
    "STRATEGIES",
    "Backprop",
    "Choice",
    "Estimate",
    "GaussianNoise",
    "GradientEstimator",
    "LossFunction",
    "evaluate",
    "fastest",
]

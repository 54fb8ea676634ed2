"""How the gradient of a loss is estimated: `backprop` differentiates it, `pgpe` smooths it and reads values only.

An estimator takes `loss(params) -> scalar` and never looks inside: it does not know which relaxation, network or data
the loss is made of. `noise` is a pure function of (seed, generation, pair); `population` evaluates many members.
"""

from certtrain.gradients.backprop import Backprop
from certtrain.gradients.base import Estimate, GradientEstimator, LossFunction
from certtrain.gradients.noise import GaussianNoise
from certtrain.gradients.pgpe import PGPE
from certtrain.gradients.population import STRATEGIES, evaluate

__all__ = [
    "PGPE",
    "STRATEGIES",
    "Backprop",
    "Estimate",
    "GaussianNoise",
    "GradientEstimator",
    "LossFunction",
    "evaluate",
]

"""How the gradient of a loss is estimated: `backprop` differentiates it, `pgpe` smooths it by its values.

`sharpness` does so a step uphill. Between them stands `rgs`, the mean of gradients at perturbed weights. An estimator
takes `loss(params) -> scalar` and never looks inside: it does not know which relaxation, network or data the loss is
made of. `noise` (Gaussian) and `low_rank` are pure functions of (seed, generation, pair), made of the numbers of
`philox`. `population` evaluates many `members`, and `strategy` finds out which way to do so is the faster one. PGPE is
composed of a `control_variate` (a guess at the gradient, one of `registry`), `fitness` (what is made of losses),
`sigma` and `sigma_unit` (how the noise changes, in which unit), `layer_scale` (where it differs), `pairs` (sums over
noise) and `correction` (what they add to the guess: `shrinkage` keeps a part). `ranks` is what an estimator sees of the
processes that work with it, `distributed` those of torch.distributed, `statistics` says how good an estimate is.
"""

from certtrain.gradients.backprop import Backprop
from certtrain.gradients.base import (
    Choice,
    Estimate,
    EstimationError,
    GradientEstimator,
    LossFunction,
    State,
)
from certtrain.gradients.distributed import Distributed, Layout
from certtrain.gradients.layer_scale import LayerScale
from certtrain.gradients.low_rank import LowRankNoise
from certtrain.gradients.noise import GaussianNoise, Noise
from certtrain.gradients.pgpe import PGPE
from certtrain.gradients.population import STRATEGIES, evaluate
from certtrain.gradients.ranks import Alone, Ranks
from certtrain.gradients.rgs import RGS
from certtrain.gradients.sharpness import SharpnessAware
from certtrain.gradients.strategy import fastest

__all__ = [
    "PGPE",
    "RGS",
    "STRATEGIES",
    "Alone",
    "Backprop",
    "Choice",
    "Distributed",
    "Estimate",
    "EstimationError",
    "GaussianNoise",
    "GradientEstimator",
    "LayerScale",
    "Layout",
    "LossFunction",
    "LowRankNoise",
    "Noise",
    "Ranks",
    "SharpnessAware",
    "State",
    "evaluate",
    "fastest",
]

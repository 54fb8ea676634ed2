"""Losses of certified training, one per file: each maps (problem, parameters) to one value per image.

`problem` is what they are evaluated on, `base` what they have in common.
"""

from certtrain.losses.base import NOTHING, Loss, Prepared
from certtrain.losses.problem import Problem
from certtrain.losses.robust_cross_entropy import RobustCrossEntropy, robust_cross_entropy

__all__ = ["NOTHING", "Loss", "Prepared", "Problem", "RobustCrossEntropy", "robust_cross_entropy"]

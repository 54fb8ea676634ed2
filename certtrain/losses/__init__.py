"""Losses of certified training, one per file: each maps (problem, parameters) to a scalar that is minimised."""

from certtrain.losses.base import Loss, Problem
from certtrain.losses.robust_cross_entropy import RobustCrossEntropy, robust_cross_entropy

__all__ = ["Loss", "Problem", "RobustCrossEntropy", "robust_cross_entropy"]

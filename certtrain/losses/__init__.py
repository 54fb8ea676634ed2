"""Losses of certified training, one per file: each maps (problem, parameters) to one value per image.

`problem` is what they are evaluated on, `base` what they have in common, `mixed` what the recipes of the literature
share, `adversary` the attack of those that attack, `small_box` what SABR and STAPS bound, `beside`
what those share that add to another loss, `teacher` what these distil from.
"""

from certtrain.losses.ad_cert import AdCert
from certtrain.losses.adv_ibp import AdvIbp
from certtrain.losses.adversary import Adversary
from certtrain.losses.base import NOTHING, Loss, Prepared
from certtrain.losses.cc_ibp import CcIbp
from certtrain.losses.crown_ibp import CrownIBP
from certtrain.losses.distillation import Distillation
from certtrain.losses.exp_ibp import ExpIbp
from certtrain.losses.feature_distillation import FeatureDistillation
from certtrain.losses.loss_fusion import LossFusion
from certtrain.losses.mixed import Mixed
from certtrain.losses.mtl_ibp import MtlIbp
from certtrain.losses.natural import Natural
from certtrain.losses.optimised_slopes import OptimisedSlopes
from certtrain.losses.pgd import Adversarial
from certtrain.losses.problem import Problem
from certtrain.losses.robust_cross_entropy import RobustCrossEntropy, robust_cross_entropy
from certtrain.losses.sabr import Sabr
from certtrain.losses.staps import Staps
from certtrain.losses.taps import Taps
from certtrain.losses.trades import Trades

__all__ = [
    "NOTHING",
    "AdCert",
    "AdvIbp",
    "Adversarial",
    "Adversary",
    "CcIbp",
    "CrownIBP",
    "Distillation",
    "ExpIbp",
    "FeatureDistillation",
    "Loss",
    "LossFusion",
    "Mixed",
    "MtlIbp",
    "Natural",
    "OptimisedSlopes",
    "Prepared",
    "Problem",
    "RobustCrossEntropy",
    "Sabr",
    "Staps",
    "Taps",
    "Trades",
    "robust_cross_entropy",
]

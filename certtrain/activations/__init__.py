"""Activations: one file each, with the function and all that bounds need of it.

`base` says what that is: extremes on an interval, where the function is linear on it, and two `Lines` between which it
lies, for a rule or for given slopes. `relu` does this by hand, since most time is spent there. `piecewise`
(`leaky_relu`, `clip`) and `s_shaped` (`sigmoid`, `tanh`) find the offset of a line of any slope: their lines are sound
whatever slopes are tried. `maximum` has several inputs per output: max pooling. `registry` knows what of torch they
stand for. Nothing here knows of networks, relaxations or devices.
"""

from certtrain.activations.base import Activation, Lines, SlopeRule, Slopes
from certtrain.activations.interval import Interval
from certtrain.activations.maximum import WindowMaximum
from certtrain.activations.registry import ACTIVATIONS, FUNCTIONS, MODULES
from certtrain.activations.relu import ReLU

__all__ = [
    "ACTIVATIONS",
    "FUNCTIONS",
    "MODULES",
    "Activation",
    "Interval",
    "Lines",
    "ReLU",
    "SlopeRule",
    "Slopes",
    "WindowMaximum",
]

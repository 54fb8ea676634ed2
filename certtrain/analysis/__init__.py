"""What bounds and gradient estimators are like at the weights of a network: measurements, one per file.

`subject` is what is measured on: the certified loss of fixed images as a function of the weights. `directions` and
`surface` evaluate it along lines and planes, as it is and smoothed. `tightness` compares bounds with attacks and exact
minima, `neurons` tells what is known of hidden ones, `continuity` finds jumps, `sensitivity` tells how much small
changes of the weights change, and `estimators` compares gradients with that of the smoothed loss (`replicates` has its
statistics). All are functions of graph, weights and data; nothing here knows of files or plots.
"""

from certtrain.analysis.continuity import Continuity, Jump, continuity, find_jumps
from certtrain.analysis.directions import gradient_direction, orthogonal, random_direction
from certtrain.analysis.estimators import Budget, Gradients, Quality, gradients
from certtrain.analysis.neurons import Layer, layers
from certtrain.analysis.replicates import Estimated
from certtrain.analysis.sensitivity import Sensitivity, sensitivity
from certtrain.analysis.subject import Subject, strategy_for
from certtrain.analysis.surface import Plane, Values, smoothed, values
from certtrain.analysis.tightness import Tightness, tightness

__all__ = [
    "Budget",
    "Continuity",
    "Estimated",
    "Gradients",
    "Jump",
    "Layer",
    "Plane",
    "Quality",
    "Sensitivity",
    "Subject",
    "Tightness",
    "Values",
    "continuity",
    "find_jumps",
    "gradient_direction",
    "gradients",
    "layers",
    "orthogonal",
    "random_direction",
    "sensitivity",
    "smoothed",
    "strategy_for",
    "tightness",
    "values",
]

"""Sound bounds of networks on boxes: one `Relaxation` per file, all behind one interface.

From the top down:

    api, base, analysis, registry   what others use: Box, Bounds, Relaxation, Analysis; relaxations by name
    relaxation/                     ibp, hbox, zonotope, crown_ibp, deeppoly, intersection
    rounding/                       slack that makes bounds hold in floating point
    substitution/                   what most of them share: pre-activation bounds, the specification's rows
    executors/                      who carries rows back: tensor operations, or compiled C on CPUs
    rows/                           linear forms (dense or patches), and the rule by which each operation carries them
    forward/                        intervals, and the middles of zonotopes
    backends/                       relaxations computed by auto_LiRPA

Intervals go forward: they are ibp, and what the others begin with. The others carry rows of linear forms back to the
input, where they are concretized on the box. They differ in the lines between which they hold an activation (those are
the activation's own: `certtrain.activations`), in where its pre-activation bounds come from, and in what they leave to
intervals. Nothing here knows of training, configuration or logging.
"""

from certtrain.bounds.analysis import Analysing, Analysis, Given
from certtrain.bounds.base import Bounds, Box, Relaxation, Sides
from certtrain.bounds.labels import margin_spec
from certtrain.bounds.registry import build, relaxations
from certtrain.bounds.relaxation.intersection import Intersection

__all__ = [
    "Analysing",
    "Analysis",
    "Bounds",
    "Box",
    "Given",
    "Intersection",
    "Relaxation",
    "Sides",
    "build",
    "margin_spec",
    "relaxations",
]

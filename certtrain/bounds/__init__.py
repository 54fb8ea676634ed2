"""Sound bounds of networks on boxes: one `Relaxation` per file, all behind one interface.

`base` defines Box, Bounds and Relaxation. Forward relaxations propagate a state through the operations: `interval`
serves ibp, `affine_forms` serves hbox and zonotope. Backward ones carry rows of linear forms to the input: `rows` and
`backsubstitution` serve crown_ibp and deeppoly, which differ in where intermediate bounds come from. `registry` knows
them by name. Nothing here knows of training, configuration or logging.
"""

from certtrain.bounds.base import Bounds, Box, Relaxation, Sides, margin_spec
from certtrain.bounds.intersection import Intersection
from certtrain.bounds.registry import build, relaxations

__all__ = ["Bounds", "Box", "Intersection", "Relaxation", "Sides", "build", "margin_spec", "relaxations"]

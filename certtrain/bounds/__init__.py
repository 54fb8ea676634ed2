"""Sound bounds of networks on boxes: one `Relaxation` per file, all behind one interface.

`base` defines Box, Bounds and Relaxation. Intervals go forward through the operations (`interval`): they are ibp, and
what the others begin with. All others carry rows of linear forms back to the input (`rows`, `backsubstitution`) and
differ in the lines between which they hold a ReLU (`slopes`), in where its bounds come from (`intermediate`), and in
what they leave to intervals. `registry` knows them by name. Nothing here knows of training, configuration or logging.
"""

from certtrain.bounds.base import Bounds, Box, Relaxation, Sides
from certtrain.bounds.intersection import Intersection
from certtrain.bounds.labels import margin_spec
from certtrain.bounds.registry import build, relaxations

__all__ = ["Bounds", "Box", "Intersection", "Relaxation", "Sides", "build", "margin_spec", "relaxations"]

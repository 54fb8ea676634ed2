"""What is asked of a network: on which inputs which outputs would be unsafe.

`property` states it, from Python or for one image; `vnnlib` reads it from a VNN-LIB file and `write` writes one, with
`tokens` and `formula` between text and clauses; `contradiction` finds outputs that cannot be at all.
"""

from certtrain.certify.properties.property import Conjunction, Property, Region
from certtrain.certify.properties.vnnlib import read_vnnlib
from certtrain.certify.properties.write import vnnlib_text, write_vnnlib

__all__ = ["Conjunction", "Property", "Region", "read_vnnlib", "vnnlib_text", "write_vnnlib"]

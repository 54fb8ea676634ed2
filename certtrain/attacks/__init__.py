"""Attacks: points of a box at which some margin of an image is as small as an attack can make it.

They know no networks and no labels, only a function that gives the margins of points (`base.Margins`) and can be
differentiated: what is attacked may be a network under certification, a network in training, or a part of one.
"""

from certtrain.attacks.base import Margins
from certtrain.attacks.cross_entropy import CrossEntropyPGD
from certtrain.attacks.pgd import PGD
from certtrain.attacks.square import Square

__all__ = ["PGD", "CrossEntropyPGD", "Margins", "Square"]

"""Verifiers, one per file: what can prove that an image is classified alike in its whole box.

`base` is what they have in common, `registry` makes them from names and options; `memory` is what relaxations take.
"""

from certtrain.certify.verifiers.base import Proved, Verifier
from certtrain.certify.verifiers.registry import choose, resolve
from certtrain.certify.verifiers.relaxation import RelaxationVerifier

__all__ = ["Proved", "RelaxationVerifier", "Verifier", "choose", "resolve"]

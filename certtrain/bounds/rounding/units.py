"""The model of arithmetic, and its constants.

Every operation returns the exact result times 1 + d with |d| <= u, the unit roundoff, or differs from it by at most the
smallest normal number where it underflows (also where subnormal numbers count as zero). A result that n such operations
lead to is then off by at most gamma(n) times the sum of the absolute values of all products, whatever their order
(Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).
"""

from __future__ import annotations

from math import inf

# Unit roundoffs of float32, in which the network is evaluated, and of float64, in which bounds are computed.
SINGLE, DOUBLE = 2.0**-24, 2.0**-53
# The smallest normal number of float32.
TINY = 2.0**-126
# Above this, a number of float32 might overflow on its way through an operation: nothing is proved then.
LARGEST = 2.0**60
# The same for sums of absolute values in float64, below which what underflows in float64 stays far below FLOOR.
LARGEST_DOUBLE = 2.0**500
FLOOR = 2.0**-400
# What sums of positive numbers are multiplied with, operation by operation: their own rounding errors, and products of
# two errors, are far smaller for as many operations as MOST_TERMS.
UPWARD = 1 + 2.0**-20
MOST_TERMS = 2**28


def gamma(terms: int, unit: float) -> float:
    """Largest relative error of a result that so many operations lead to; infinity where that is not small."""
    product = terms * unit
    return inf if terms > MOST_TERMS or product > 0.25 else UPWARD * product / (1 - product)

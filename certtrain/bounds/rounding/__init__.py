"""Proven bounds of rounding errors: the network's own in float32, and those of the bounds themselves in float64.

`units` has the model of arithmetic, `terms` what each operation sums, `sizes` the rule by which each operation passes
errors on, and `errors` what others use: slack for an analysis, and what a bound of a specification loses. The
derivation stands in docs/concepts/verdicts.md.
"""

from certtrain.bounds.rounding.errors import Charges, Rounding, assume, round_errors

__all__ = ["Charges", "Rounding", "assume", "round_errors"]

"""Linear constraints that cannot all hold, proved in exact arithmetic.

By Farkas' lemma no y has C y <= d if there are multipliers λ >= 0 with λᵀC = 0 and λᵀd < 0. A linear program proposes
them; fractions prove them. Without a proof nothing is claimed, however infeasible the program looked.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from jaxtyping import Float
from torch import Tensor

# Multipliers of small whole coefficients are small fractions; a solver returns them as rounded decimals.
_DENOMINATORS = (1, 10**3, 10**6, 10**9)


def contradicts(coefficients: Float[Tensor, "rows outputs"], constants: Float[Tensor, " rows"]) -> bool:
    """Whether it is proved that no y fulfils `coefficients @ y <= constants`."""
    matrix, limits = coefficients.numpy(), constants.numpy()
    if bool((limits >= 0).all()):
        return False  # y = 0
    if bool(((matrix == 0).all(1) & (limits < 0)).any()):
        return True  # a row says 0 <= d with d < 0
    if len(limits) < 2:
        return False
    multipliers = _propose(matrix, limits)
    return multipliers is not None and any(_proves(multipliers, matrix, limits, n) for n in _DENOMINATORS)


def _propose(matrix: np.ndarray, limits: np.ndarray) -> np.ndarray | None:
    from scipy.optimize import linprog  # half a second to import, for a case that is rare

    rows = len(limits)
    system = np.vstack([matrix.T, np.ones((1, rows))])
    solved = linprog(limits, A_eq=system, b_eq=np.append(np.zeros(matrix.shape[1]), 1.0), bounds=(0, None))
    return None if solved.x is None or not solved.fun < 0 else solved.x / solved.x.max()


def _proves(multipliers: np.ndarray, matrix: np.ndarray, limits: np.ndarray, denominator: int) -> bool:
    exact = [Fraction(float(m)).limit_denominator(denominator) for m in multipliers]
    used = [i for i, m in enumerate(exact) if m > 0]
    columns = range(matrix.shape[1])
    cancels = all(sum(exact[i] * Fraction(float(matrix[i, j])) for i in used) == 0 for j in columns)
    return bool(used) and cancels and sum(exact[i] * Fraction(float(limits[i])) for i in used) < 0

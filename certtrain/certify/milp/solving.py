"""HiGHS on encoded networks: the minimum of a margin, and whether it can be negative.

What HiGHS says holds up to its tolerances: a reduced cost may have the wrong sign by 1e-7, which costs at most 1e-7 for
each column, since all lie between 0 and 1; constraints and whole numbers may be missed by 1e-6, and the search ends at
an absolute gap of 1e-6. `tolerance` is the sum, in units of a margin's largest coefficient. Lower bounds are lowered by
it, and a margin within it of zero is not decided. What comes out as a point is a point of the box, and what the network
makes of it is computed by the network.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from certtrain.certify.milp.affine import Affine
from certtrain.certify.milp.encoding import Encoded
from certtrain.deadline import OutOfTime
from certtrain.errors import CerttrainError

REDUCED_COST, FEASIBILITY, GAP = 1e-7, 1e-6, 1e-6
OPTIMAL, LIMIT, INFEASIBLE = 0, 1, 2
# Where all columns are.
UNIT = Bounds(0, 1)


@dataclass(frozen=True)
class Found:
    """About one margin on a box.

    Attributes:
        lower: A lower bound; minus infinity where nothing is known.
        columns: A solution of the program at which the margin is small, [columns]; None where there is none.
    """

    lower: float
    columns: np.ndarray | None


def tolerance(encoded: Encoded) -> float:
    """How far a solved program may be off, in units of the largest coefficient of what is minimised."""
    return REDUCED_COST * encoded.program.num_columns + FEASIBILITY + GAP


def minimum(encoded: Encoded, margin: Affine, deadline: float = math.inf) -> Found:
    """The smallest value of an affine form, up to `tolerance`.

    Args:
        encoded: The network.
        margin: One affine form of its outputs, as columns.
        deadline: In `time.perf_counter()`.

    Raises:
        OutOfTime: If it is not found by then.
        CerttrainError: If HiGHS fails.
    """
    costs, scale, offset = _scaled(encoded, margin)
    if scale == 0:
        return Found(offset, np.zeros(encoded.program.num_columns))
    done = _solve(encoded, costs, deadline)
    if done.status != OPTIMAL:
        raise CerttrainError("HiGHS found no solution of a program that every point of the box solves")
    best = min(done.fun, done.mip_dual_bound) if encoded.program.integrality.any() else done.fun
    return Found((best - tolerance(encoded)) * scale + offset, done.x)


def decide(encoded: Encoded, margin: Affine, deadline: float = math.inf) -> Found:
    """Whether an affine form is positive on the box, which takes less than its minimum.

    Args:
        encoded: The network.
        margin: One affine form of its outputs, as columns.
        deadline: In `time.perf_counter()`.

    Returns:
        A positive lower bound, at least; or a solution at which the form is negative; or neither, where its minimum is
        within twice `tolerance` of zero.

    Raises:
        OutOfTime: If that is not found out by then.
        CerttrainError: If HiGHS fails.
    """
    costs, scale, offset = _scaled(encoded, margin)
    if scale == 0:
        return Found(offset, np.zeros(encoded.program.num_columns))
    slack, solution = tolerance(encoded), None
    # Twice the tolerance, so that a bound remains that is positive; at a solution it may be what the form comes to.
    for most in (2 * slack, -slack):
        at_most = LinearConstraint(costs[None], -np.inf, most - offset / scale)
        done = _solve(encoded, 0 * costs, deadline, more=[at_most])
        if done.status == INFEASIBLE:
            return Found((most - slack) * scale, solution)
        solution = _lowered(encoded, costs, done.x, deadline)
        if costs @ solution + offset / scale < -slack:
            break
    return Found(-math.inf, solution)


def _lowered(encoded: Encoded, costs: np.ndarray, solution: np.ndarray, deadline: float) -> np.ndarray:
    """The best solution with the same whole numbers: a linear program. What HiGHS met first may be close to zero."""
    whole = encoded.program.integrality > 0
    fixed = np.where(whole, solution.round(), 0.0), np.where(whole, solution.round(), 1.0)
    done = _solve(encoded, costs, deadline, Bounds(*fixed))
    # Whole numbers that were missed by a little may be none when they are rounded.
    return solution if done.status == INFEASIBLE else done.x


def _scaled(encoded: Encoded, margin: Affine) -> tuple[np.ndarray, float, float]:
    """Coefficients [columns], of which the largest is one; by what they were divided; and the offset."""
    costs = margin.widened(encoded.program.num_columns).matrix.toarray()[0]
    scale = float(abs(costs).max(initial=0.0))
    return costs / (scale or 1.0), scale, float(margin.offset[0])


def _solve(
    encoded: Encoded, costs: np.ndarray, deadline: float, bounds: Bounds = UNIT, more: Sequence[LinearConstraint] = ()
) -> Any:
    matrix, lower, upper = encoded.program.constraints()
    own = [LinearConstraint(matrix, lower, upper)] if matrix.shape[0] else []
    # Presolving now and then makes programs whose solution HiGHS rejects itself: those it gets as they are.
    for presolve in (True, False):
        left = deadline - time.perf_counter()
        if left <= 0:
            raise OutOfTime("the time for this computation is used up")
        done = milp(
            costs,
            integrality=encoded.program.integrality,
            bounds=bounds,
            constraints=[*own, *more],
            options={"presolve": presolve, "mip_rel_gap": 0.0, **({"time_limit": left} if left < math.inf else {})},
        )
        if done.status == LIMIT:
            raise OutOfTime("the time for this computation is used up")
        if done.status in (OPTIMAL, INFEASIBLE):
            return done
    raise CerttrainError(f"HiGHS failed: {' '.join(str(done.message).split())}")

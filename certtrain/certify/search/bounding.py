"""Bounds of subdomains in batches: optimised in float32, closed in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from certtrain.bounds.optimised.ascent import Best, Rates, improve
from certtrain.bounds.optimised.choice import Choice
from certtrain.certify.search.root import Root

# Of multipliers in units of the root's rows, whose coefficients differ tenfold between plain and certified training.
SLOPES, MULTIPLIERS, DECAY = 0.05, 0.1, 0.95


def rates_on(root: Root) -> Rates:
    """Of the steps on a root's parts."""
    return Rates(slopes=SLOPES, multipliers=MULTIPLIERS * root.unit, decay=DECAY)


@dataclass(frozen=True)
class Bounded:
    """What came of a batch.

    Attributes:
        closed: float64 bounds of those that are proved.
        open: Which are not, int64.
        choice: What the open ones chose.
        lower: Their float32 bounds.
    """

    closed: Tensor
    open: Tensor
    choice: Choice
    lower: Tensor


def bound(root: Root, decisions: Tensor, goal: Tensor, choice: Choice, rounds: Sequence[int]) -> Bounded:
    """Bounds subdomains; after every round only those that are not yet positive take further steps."""
    rates = rates_on(root)
    left, enough = torch.arange(len(goal)), 0.0
    closed: list[Tensor] = []
    best: Best | None = None
    for steps in rounds:
        best = improve(root.rows(root.single, decisions[left], goal[left]), choice, steps, rates, enough=enough)
        positive = best.lower > 0
        if bool(positive.any()):
            done = positive.nonzero().flatten()
            lower = root.proved(decisions[left[done]], goal[left[done]], best.choice[done])
            proved = (lower > 0) & lower.isfinite()
            closed.append(lower[proved])
            enough = max(enough, _shortage(best.lower[done[~proved]], lower[~proved]))
            keep = torch.ones(len(left), dtype=torch.bool)
            keep[done[proved]] = False
            left, best = left[keep], best[keep]
        choice = best.choice
        if not len(left):
            break
    assert best is not None
    proved_all = torch.cat(closed) if closed else torch.zeros(0, dtype=torch.float64)
    return Bounded(proved_all, left, best.choice, best.lower)


def _shortage(single: Tensor, double: Tensor) -> float:
    """How far bounds in float32 must be above zero for those in float64 to be."""
    short = single.double() - double
    short = short[short.isfinite()]
    return float(short.max()) if len(short) else 0.0

"""What to split: neurons whose relaxation costs most at the corner that bounds, then the best of a few by trial.

The estimate is the gap between an activation's line and the activation itself at the value that the pre-activation
has there, times its coefficient λ. Gaps of lower lines (λ > 0) count little: ReLU is convex, so that the best slopes
leave none, and what is seen at one corner is made good at another. It is upper lines that splits do away with. The
trial is filtered smart branching (De Palma et al., arXiv 2104.06718): both children of each candidate are bounded with
the parent's slopes and multipliers, and the one whose worse child is best is split. While there are only few
subdomains, more candidates are tried, with some steps of optimisation: what is split first, all that comes later has to
pay for.

A child that knows a sign is not better off by itself: rows that used to take z's lower line α z now carry all of z, or
nothing, back to layers whose lines may lose more by it. With a multiplier of λ (1 - α) where z >= 0, or λ α where
z <= 0, for λ > 0 the coefficient of z's activation, they are the parent's rows again. So every child begins with the
better of that multiplier and none. (Where λ < 0 it would have to be negative: there a child may begin below its parent,
where lines before z let it leave its bounds.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from certtrain.bounds.optimised.ascent import improve
from certtrain.bounds.optimised.choice import Choice
from certtrain.bounds.optimised.passes import forward
from certtrain.bounds.optimised.space import Part
from certtrain.certify.search.bounding import rates_on
from certtrain.certify.search.root import Root
from certtrain.certify.search.subdomains import Subdomains

NOT_SPLIT = -1
# What gaps of lower lines count, of those of upper lines.
LOWER = 0.1
# So many subdomains are few: of them so many times as many candidates are tried, with so many steps.
FEW, TIMES, STEPS = 8, 4, 9


@dataclass(frozen=True)
class Probing:
    """How thoroughly splits are tried.

    Attributes:
        candidates: Of each subdomain.
        steps: Of optimisation, of each child.
    """

    candidates: int
    steps: int

    @staticmethod
    def among(count: int, usual: int) -> Probing:
        """Where so many subdomains are open: of few it is more candidates than usual, and some steps."""
        return Probing(TIMES * usual, STEPS) if count <= FEW else Probing(usual, 0)


@dataclass(frozen=True)
class Candidates:
    """What may be split.

    Attributes:
        columns: That promise most, best first, [subdomains, some]; `NOT_SPLIT` where fewer are left.
        coefficients: Of their activations, at what was chosen, [subdomains, some].
        corner: Where the subdomains have their bounds, [subdomains, *input_shape].
    """

    columns: Tensor
    coefficients: Tensor
    corner: Tensor


def candidates(root: Root, decisions: Tensor, goal: Tensor, choice: Choice, count: int) -> Candidates:
    """So many of each subdomain, at most."""
    rows = root.rows(root.single, decisions, goal)
    region, found = rows.passed(choice)
    values = forward(region, found)

    functions = {index: op.function for index, op in region.graph.activations}

    def cost(part: Part) -> Tensor:
        coefficients = found.coefficients[part.activation]
        gap = coefficients * (values[part.activation] - functions[part.activation](values[part.read]))
        return gap.abs() * torch.where(coefficients > 0, LOWER, 1.0)

    scores = rows.space.gather(cost, decisions)
    scores = torch.where(rows.free, scores + 1e-12, -1.0)
    best = scores.topk(min(count, scores.shape[1]), dim=1)
    columns = torch.where(best.values > 0, best.indices, NOT_SPLIT)
    return Candidates(columns, rows.coefficients(found).gather(1, best.indices), found.corner)


@dataclass(frozen=True)
class Split:
    """What is split of each subdomain.

    Attributes:
        column: [subdomains].
        multipliers: That the active children begin with, then the inactive ones, [2 subdomains].
    """

    column: Tensor
    multipliers: Tensor

    @staticmethod
    def plain(column: Tensor) -> Split:
        """Children begin without multipliers."""
        return Split(column, torch.zeros(2 * len(column)))


def children(parents: Subdomains, split: Split) -> Subdomains:
    """Both children of each, the active ones first."""
    twice = torch.arange(len(parents)).repeat(2)
    both = parents[twice]
    signs = torch.ones(len(both), dtype=torch.int8)
    signs[len(parents) :] = -1
    decisions, slopes = both.decisions.clone(), both.choice.slopes.clone()
    assert both.choice.multipliers is not None, "subdomains have multipliers"
    multipliers = both.choice.multipliers.clone()
    at = torch.arange(len(both)), split.column.repeat(2)
    decisions[at], slopes[at], multipliers[at] = signs, (signs > 0).to(slopes.dtype), split.multipliers
    return replace(both, decisions=decisions, choice=replace(both.choice, slopes=slopes, multipliers=multipliers))


def choose(root: Root, parents: Subdomains, probing: Probing, together: int) -> Split:
    """What to split; each must have a candidate.

    Args:
        root: What they are parts of.
        parents: Subdomains.
        probing: How.
        together: Candidates of each that there is memory for at a time.
    """
    columns, coefficients = (x[:, : probing.candidates] for x in (parents.candidates, parents.coefficients))
    usable = columns != NOT_SPLIT
    tried = columns.where(usable, columns[:, :1])
    lower = torch.cat([_tried(root, parents, some, probing.steps) for some in tried.split(together, dim=1)], dim=2)
    inherited = torch.where(coefficients >= 0, torch.maximum(lower, parents.lower[:, None]), lower)
    worse, better = inherited.amin(0), inherited.amax(0)
    # A child that is closed needs no more work: beyond that its bound does not matter.
    score = torch.where(usable, worse.clamp(max=0) + 0.1 * better.clamp(max=0), -torch.inf)
    best = score.argmax(1, keepdim=True)
    column = tried.gather(1, best).squeeze(1)
    without = (
        _tried(root, parents, column[:, None], 0).squeeze(2)
        if probing.steps
        else lower.gather(2, best.expand(2, -1, -1)).squeeze(2)
    )
    kept = _keeping(parents, column, coefficients.gather(1, best).squeeze(1))
    return Split(column, torch.where(without < parents.lower, kept, 0.0).flatten())


def _tried(root: Root, parents: Subdomains, columns: Tensor, steps: int) -> Tensor:
    """Bounds of both children of each candidate, [2, subdomains, some], after so many steps without multipliers."""
    several = parents[torch.arange(len(parents)).repeat_interleave(columns.shape[1])]
    plain = children(several, Split.plain(columns.flatten()))
    rows = root.rows(root.single, plain.decisions, plain.goal)
    best = improve(rows, plain.choice, steps, rates_on(root))
    return best.lower.reshape(2, *columns.shape)


def _keeping(parents: Subdomains, column: Tensor, coefficient: Tensor) -> Tensor:
    """Multipliers with which both children's rows are the parent's where a coefficient is positive, [2, subdomains]."""
    slope = parents.choice.slopes.gather(1, column[:, None]).squeeze(1)
    return coefficient.clamp(min=0) * torch.stack([1 - slope, slope])

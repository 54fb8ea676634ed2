"""What to split: neurons whose relaxation costs most at the corner that bounds, then the best of a few by trial.

The estimate is the gap between an activation's line and the activation itself at the value that the pre-activation
has there, times its coefficient. The trial is filtered smart branching (De Palma et al., arXiv 2104.06718): both
children of each candidate are bounded with the parent's slopes and multipliers, and the one whose worse child is best
is split.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from certtrain.bounds.optimised.choice import Choice
from certtrain.bounds.optimised.kernels import chosen
from certtrain.bounds.optimised.passes import forward
from certtrain.bounds.optimised.space import Part
from certtrain.certify.search.root import Root
from certtrain.certify.search.subdomains import Subdomains

NOT_SPLIT = -1


def candidates(root: Root, decisions: Tensor, goal: Tensor, choice: Choice, count: int) -> tuple[Tensor, Tensor]:
    """Columns that promise most, best first, [subdomains, count], and the corners [subdomains, *input_shape].

    Where fewer are left to split, the rest are `NOT_SPLIT`.
    """
    rows = root.rows(root.single, decisions, goal)
    region, found = rows.passed(choice)
    values = forward(region, found)

    functions = {index: op.function for index, op in region.graph.activations}

    def cost(part: Part) -> Tensor:
        coefficients, z = found.coefficients[part.activation], values[part.read]
        line = region.held[part.activation]
        return (coefficients * (chosen(line, coefficients, z) - functions[part.activation](z))).abs()

    scores = rows.space.gather(cost, decisions)
    scores = torch.where(rows.free, scores + 1e-12, -1.0)
    best = scores.topk(min(count, scores.shape[1]), dim=1)
    return torch.where(best.values > 0, best.indices, NOT_SPLIT), found.corner


def children(parents: Subdomains, column: Tensor) -> Subdomains:
    """Both children of each, the active ones first."""
    twice = torch.arange(len(parents)).repeat(2)
    both = parents[twice]
    signs = torch.ones(len(both), dtype=torch.int8)
    signs[len(parents) :] = -1
    decisions, slopes = both.decisions.clone(), both.choice.slopes.clone()
    at = torch.arange(len(both)), column.repeat(2)
    decisions[at], slopes[at] = signs, (signs > 0).to(slopes.dtype)
    return replace(both, decisions=decisions, choice=replace(both.choice, slopes=slopes))


def choose(root: Root, parents: Subdomains) -> Tensor:
    """The column to split of each, [subdomains]; each must have a candidate."""
    count = parents.candidates.shape[1]
    if count == 1:
        return parents.candidates[:, 0]
    usable = parents.candidates != NOT_SPLIT
    tried = parents.candidates.where(usable, parents.candidates[:, :1])
    expanded = children(parents[torch.arange(len(parents)).repeat_interleave(count)], tried.flatten())
    rows = root.rows(root.single, expanded.decisions, expanded.goal)
    lower = rows.lower(expanded.choice).lower.reshape(2, len(parents), count)
    worse, better = lower.amin(0), lower.amax(0)
    # A child that is closed needs no more work: beyond that its bound does not matter.
    score = torch.where(usable, worse.clamp(max=0) + 0.1 * better.clamp(max=0), -torch.inf)
    return tried.gather(1, score.argmax(1, keepdim=True)).squeeze(1)

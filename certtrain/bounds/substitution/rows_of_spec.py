"""Bounds of the specification's rows by one back-substitution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from certtrain.activations import Interval, Lines
from certtrain.bounds.analysis import Analysis
from certtrain.bounds.base import Bounds, Sides
from certtrain.bounds.rows.carry import Carried
from certtrain.bounds.rows.dense import DenseRows, channels_last
from certtrain.bounds.rows.descent import Descent
from certtrain.bounds.rows.passage import Linearization
from certtrain.bounds.rows.selection import All
from certtrain.bounds.substitution.preactivation import Hidden, Substitution
from certtrain.bounds.substitution.specification import spec_rows
from certtrain.errors import ConfigError


def analyse_rows(substitution: Substitution, spec: Tensor | None, hidden: Hidden, sides: Sides) -> Analysis:
    """The end of every relaxation that carries rows back.

    Args:
        substitution: The network, the box, and what is given.
        spec: [batch, rows, outputs]; None for the outputs themselves.
        hidden: Pre-activation bounds, and lines around every activation.
        sides: Which bounds are wanted.

    Raises:
        ConfigError: If multipliers are given for bounds of both sides: they belong to lower bounds.
    """
    given, graph = substitution.given, substitution.graph
    check_given(substitution)
    if given.multipliers and sides != "lower":
        raise ConfigError("multipliers enter lower bounds only: ask for sides='lower'")
    spec = spec_rows(graph, spec, substitution.passage.anchor.radius)
    if any(x.dim() == len(graph.ops[i].shape) + 2 for i, x in _for_each_row(substitution)):
        bounds = _row_by_row(substitution, spec, hidden, sides)
    else:
        shifts = {i: _signed(substitution, i, x) for i, x in given.multipliers.items()}
        bounds = _bound(substitution, spec, Linearization(hidden.lines, shifts), sides)
    return Analysis(bounds, hidden.bounds, hidden.lines)


def check_given(substitution: Substitution) -> None:
    """Refuses what would have no effect: an operation that it does not concern.

    Raises:
        ConfigError: Names the operations, and those that are meant.
    """
    given, activations = substitution.given, substitution.graph.activations
    read = {op.inputs[0] for _, op in activations}
    legal = {
        "slopes": (given.slopes, {index for index, _ in activations}),
        "splits": (given.splits, read),
        "slack": (given.slack, read),
        "multipliers": (given.multipliers, {index for index in read if index > substitution.passage.anchor.index}),
    }
    for name, (tensors, indices) in legal.items():
        if other := sorted(set(tensors) - indices):
            raise ConfigError(f"{name} concern operations {sorted(indices)} of this network, not {other}")


def _bound(substitution: Substitution, spec: Tensor, linearization: Linearization, sides: Sides) -> Bounds:
    count, passage = spec.shape[1], substitution.passage
    data = spec if sides == "lower" else torch.cat([spec, -spec], dim=1)
    start = Carried({len(passage.graph.ops) - 1: DenseRows(data)})
    descent = Descent.of(passage, start, linearization)
    lower = substitution.executor.lower(descent, All(passage.batch, 1, data.shape[1]))
    return Bounds(lower[:, :count], None if sides == "lower" else -lower[:, count:])


def _for_each_row(substitution: Substitution) -> list[tuple[int, Tensor]]:
    """What may differ from row to row, with the operation whose output it is about."""
    given, graph = substitution.given, substitution.graph
    slopes = [(graph.ops[i].inputs[0], x) for i, x in given.slopes.items()]
    return [*slopes, *given.multipliers.items()]


def _row_by_row(substitution: Substitution, spec: Tensor, hidden: Hidden, sides: Sides) -> Bounds:
    """Every row of an image as an image of its own: it may have slopes and multipliers of its own then."""
    given, passage = substitution.given, substitution.passage
    batch, rows = passage.batch, spec.shape[1]

    def alone(x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """[batch, *shape] or [batch, rows, *shape] -> [batch · rows, *shape]."""
        own = x.dim() == len(shape) + 2
        return x.flatten(0, 1) if own else x.repeat_interleave(rows, dim=0)

    slack = {i: alone(x, passage.graph.ops[i].shape) for i, x in given.slack.items()}
    for_rows = replace(given, slack=slack)
    lines: dict[int, Lines] = {}
    for index, line in hidden.lines.items():
        op = passage.graph.ops[index]
        shape = passage.graph.ops[op.inputs[0]].shape
        slopes = given.slopes.get(index)
        if slopes is None or slopes.dim() == len(shape) + 1:
            lines[index] = line.map(lambda x: x.repeat_interleave(rows, dim=0))
        else:
            z = hidden.bounds[op.inputs[0]]
            repeated = Interval(alone(z.lower, shape), alone(z.upper, shape))
            own_lines = op.function.lines(repeated, alone(slopes, shape))  # type: ignore[attr-defined]
            lines[index] = for_rows.loosen(op.inputs[0], own_lines).map(channels_last)
    shifts = {i: alone(_signed(substitution, i, x), passage.graph.ops[i].shape) for i, x in given.multipliers.items()}
    own = replace(substitution, passage=passage.repeated(rows))
    found = _bound(own, spec.expand(batch, -1, -1).reshape(batch * rows, 1, -1), Linearization(lines, shifts), sides)
    upper = None if found.upper is None else found.upper.reshape(batch, rows)
    return Bounds(found.lower.reshape(batch, rows), upper)


def _signed(substitution: Substitution, index: int, multipliers: Tensor) -> Tensor:
    """What is added to rows, channels last: -β z where z >= 0 was decided, β z where z <= 0 was.

    A negative multiplier would make bounds unsound; an optimizer's step may well go there, so it counts as zero.
    """
    splits: Mapping[int, Tensor] = substitution.given.splits
    if index not in splits:
        raise ConfigError(f"multipliers of operation {index} need its split decisions")
    signs = splits[index].to(multipliers.dtype)
    own = multipliers.dim() == signs.dim() + 1
    shift = -multipliers.clamp(min=0) * (signs[:, None] if own else signs)
    return shift.movedim(-3, -1).contiguous() if len(substitution.graph.ops[index].shape) == 3 else shift

"""The network on boxes, its activations held between lines: for every row its own, or one for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from certtrain.activations import Activation, Interval
from certtrain.bounds.base import Box
from certtrain.bounds.optimised.space import Part
from certtrain.networks.graph import Graph
from certtrain.networks.ops import Values


@dataclass(frozen=True)
class Held:
    """The lines around an activation, each tensor [rows or 1, *shape of its input].

    Attributes:
        lower: Slopes of the lower line.
        upper: Slopes of the upper line.
        intercept: Intercepts of the upper line.
        lower_intercept: Of the lower line; None where all are zero.
    """

    lower: Tensor
    upper: Tensor
    intercept: Tensor
    lower_intercept: Tensor | None = None

    @staticmethod
    def between(function: Activation, z: Interval, slack: Tensor | None = None) -> Held:
        """The lines of least area.

        Args:
            function: The activation.
            z: Bounds of its inputs.
            slack: How far what the activation is given may be from what its input makes, see `Given.slack`: the upper
                line is as much further away as its slope allows, the lower one as any slope that it may be given does.
        """
        found = function.lines(z, "adaptive")
        lower, upper, above, below = found.lower_slope, found.upper_slope, found.upper_intercept, found.lower_intercept
        if slack is None:
            return Held(lower, upper, above, below)
        free = function.free(z)
        steepest = lower.abs() if free is None else torch.where(free, 1.0, lower.abs())
        below = -steepest * slack if below is None else below - steepest * slack
        return Held(lower, upper, above + upper.abs() * slack, below)

    @property
    def tensors(self) -> list[Tensor]:
        """All that there are, in the order of the fields."""
        return [x for x in (self.lower, self.upper, self.intercept, self.lower_intercept) if x is not None]

    def map(self, function: Callable[[Tensor], Tensor]) -> Held:
        """The same function of all of them."""
        return Held(*(function(x) for x in self.tensors))


@dataclass(frozen=True)
class Envelope:
    """Upper bounds of an activation's outputs that are affine in outputs of earlier operations, see `envelopes`.

    Attributes:
        part: The activation, and its inputs that have one.
        forms: Operation -> coefficients, [own inputs, size of its output].
        constant: [own inputs].
        taken: How much of it a row takes, [rows or 1, own]; of the upper line it takes what that one is, besides.
    """

    part: Part
    forms: Mapping[int, Tensor]
    constant: Tensor
    taken: Tensor

    def taken_from(self, rows: Tensor) -> Tensor:
        """What takes it of rows over the activation, [rows, *shape] -> [rows, own]."""
        return self.part.gather(rows).clamp(max=0) * self.taken

    @property
    def tensors(self) -> list[Tensor]:
        """All that there are."""
        return [self.constant, self.taken, *self.forms.values()]

    def added(self, coefficients: Tensor, z: Tensor, values: Mapping[int, Tensor]) -> Tensor:
        """Values of lines at z with those of the envelope where a row took it, [rows, *shape].

        Args:
            coefficients: Of the activation's outputs.
            z: The values of the lines.
            values: Of all earlier operations.
        """
        own = sum((values[i].flatten(1) @ form.mT for i, form in self.forms.items()), self.constant)
        takes = (self.part.gather(coefficients) < 0).to(z.dtype) * self.taken
        return self.part.spread(torch.addcmul(self.part.gather(z), takes, own), z)


@dataclass(frozen=True)
class Region:
    """What rows are carried through. The first axis of every tensor are rows; 1 where all share it.

    Attributes:
        graph: The network.
        values: Parameters and buffers.
        center: Of the boxes, [rows or 1, *input_shape].
        radius: Half of their widths.
        held: Lines around activations, with slopes that may be replaced.
        envelopes: Activation -> what some of its inputs have in place of upper lines; of one box only.
    """

    graph: Graph
    values: Values
    center: Tensor
    radius: Tensor
    held: Mapping[int, Held]
    envelopes: Mapping[int, Envelope] = field(default_factory=dict)

    @staticmethod
    def of(
        graph: Graph,
        values: Values,
        box: Box,
        hidden: Mapping[int, Interval],
        slack: Mapping[int, Tensor] | None = None,
    ) -> Region:
        """Activations between the lines of least area, one row for every image of the box.

        Args:
            graph: The network.
            values: Parameters and buffers.
            box: Its inputs.
            hidden: Operation that an activation reads -> bounds of its output, for as many activations as there are
                bounds.
            slack: See `Given.slack`.
        """
        slack = slack or {}
        held = {
            i: Held.between(op.function, hidden[read], slack.get(read))
            for i, op in graph.activations
            if (read := op.inputs[0]) in hidden
        }
        return Region(graph, values, box.center, box.radius, held)

    def rows(self, images: Tensor) -> Region:
        """The same for rows of which each names its image, [rows]."""
        assert not self.envelopes, "envelopes are of one box"
        held = {i: line.map(lambda x: x[images]) for i, line in self.held.items()}
        return replace(self, center=self.center[images], radius=self.radius[images], held=held)

    @property
    def tensors(self) -> list[Tensor]:
        """All that there are."""
        lines = [x for line in self.held.values() for x in line.tensors]
        envelopes = [x for envelope in self.envelopes.values() for x in envelope.tensors]
        return [self.center, self.radius, *self.values.values(), *lines, *envelopes]

    def map(self, function: Callable[[Tensor], Tensor]) -> Region:
        """The same function of all of them."""
        assert not self.envelopes, "envelopes are of one box"
        values = {name: function(x) for name, x in self.values.items()}
        held = {i: line.map(function) for i, line in self.held.items()}
        return Region(self.graph, values, function(self.center), function(self.radius), held)

    def with_lower_slopes(self, slopes: Mapping[int, Tensor]) -> Region:
        """With other slopes of lower lines through the origin, activation -> [rows, *shape of its input]."""
        return replace(self, held={**self.held, **{i: replace(self.held[i], lower=x) for i, x in slopes.items()}})

    def with_envelopes(self, envelopes: Mapping[int, Envelope]) -> Region:
        """With as much of them as they are taken in place of upper lines, activation -> its envelopes."""
        assert not self.envelopes, "upper lines were given up for other envelopes already"
        held = dict(self.held)
        for index, envelope in envelopes.items():
            line, part = held[index], envelope.part
            upper, intercept = (
                part.spread(part.gather(x) * (1 - envelope.taken), x) for x in (line.upper, line.intercept)
            )
            held[index] = replace(line, upper=upper, intercept=intercept)
        return replace(self, held=held, envelopes=dict(envelopes))


def zero_outputs(graph: Graph, hidden: Mapping[int, Interval]) -> dict[int, Tensor]:
    """Activations of which lines are zero for every image, bool [*shape]: these neurons are off on all boxes.

    Args:
        graph: The network.
        hidden: Operation that an activation reads -> bounds of its output, for as many activations as there are bounds.
    """
    known = ((i, op.function, hidden[op.inputs[0]]) for i, op in graph.activations if op.inputs[0] in hidden)
    with torch.no_grad():
        lines = {index: Held.between(function, z) for index, function, z in known}
        return {index: torch.stack([(x == 0).all(0) for x in line.tensors]).all(0) for index, line in lines.items()}

"""Rows of any operation with slopes of their own, and pre-activation bounds made from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from certtrain.activations import Interval
from certtrain.bounds.analysis import Given
from certtrain.bounds.base import Box
from certtrain.bounds.optimised.ascent import Best, improve
from certtrain.bounds.optimised.choice import Choice, Rows
from certtrain.bounds.optimised.objectives import FullRows, Objective, UnitRows
from certtrain.bounds.optimised.region import Region, zero_outputs
from certtrain.bounds.optimised.space import Space
from certtrain.bounds.optimised.ways import choose_ways, plain_ways
from certtrain.bounds.rows.chunks import rows_at_once
from certtrain.bounds.substitution.preactivation import Substitution
from certtrain.deadline import check_deadline
from certtrain.networks.pruning import Pruned, prune

# An image with so many rows is bounded by itself on a CPU, without what is decided on its box.
ROWS_FOR_ONE = 128


@dataclass(frozen=True)
class Tightening:
    """Optimised bounds, operation by operation.

    Attributes:
        substitution: The network, and what is given.
        box: Its inputs.
        iterations: Steps for each row.
        precision: In which slopes are searched.
        hidden: Operation that an activation reads -> bounds of its output, of those that are known so far.
    """

    substitution: Substitution
    box: Box
    iterations: int
    precision: torch.dtype
    hidden: dict[int, Interval] = field(default_factory=dict)

    def tighten(self, index: int, found: Interval) -> Interval:
        """Bounds of an operation, better where an activation that reads them is not linear on them.

        Args:
            index: The operation; `hidden` holds the bounds of all that activations before it read.
            found: Bounds of its output, [batch, *shape].
        """
        graph = self.substitution.graph
        transformed = self.substitution.passage.is_transformed
        if not self.iterations or not Space.of(graph, self.hidden, everywhere=transformed, output=index).parts:
            return found
        batch, size, shape = len(self.box), graph.ops[index].size, found.lower.shape
        if transformed:
            elements = torch.arange(batch * size, device=found.lower.device)
        else:
            masks = [op.function.undecided(found) for _, op in graph.activations if index in op.inputs]
            elements = torch.stack(masks).any(0).flatten().nonzero().flatten()
        if not len(elements):
            return found
        objective = UnitRows.both_sides(elements % size, found.lower)
        lower = self._lower(index, (elements // size).repeat(2), objective)
        own = Interval(lower[: len(elements)], -lower[len(elements) :])

        def put(old: Tensor, new: Callable[[Tensor], Tensor]) -> Tensor:
            flat = old.flatten()
            return flat.index_put((elements,), new(flat[elements])).reshape(shape)

        return Interval(
            put(found.lower, lambda old: torch.maximum(old, own.lower)),
            put(found.upper, lambda old: torch.minimum(old, own.upper)),
        )

    def lower(self, index: int, images: Tensor, forms: Tensor) -> Tensor:
        """Lower bounds [rows] of rows over an operation's output.

        Args:
            index: The operation.
            images: Of each row.
            forms: Coefficients [rows, *shape].
        """
        return self._lower(index, images, FullRows(forms))

    def _lower(self, index: int, images: Tensor, objective: Objective) -> Tensor:
        """Of images together, and of those with many rows one by one."""
        passage = self.substitution.passage
        if len(self.box) == 1 or passage.is_transformed or images.device.type != "cpu" or self._is_spatial(index):
            return self._together(index, images, objective)
        rows = [(images == image).nonzero().flatten() for image in range(len(self.box))]
        alone = [image for image, own in enumerate(rows) if len(own) >= ROWS_FOR_ONE]
        others = torch.cat([own[:0] if image in alone else own for image, own in enumerate(rows)])
        found = [self._on(i)._together(index, torch.zeros_like(rows[i]), objective[rows[i]]) for i in alone]
        if len(others):
            found.append(self._together(index, images[others], objective[others]))
        return torch.cat(found)[torch.cat([*(rows[i] for i in alone), others]).argsort()]

    def _is_spatial(self, index: int) -> bool:
        """Whether rows are over pixels: these have windows perhaps, which are the same for all images."""
        return len(self.substitution.graph.ops[index].shape) == 3

    def _on(self, image: int) -> Tightening:
        """Of one image; of the passage, which is still that of all, nothing is asked but its flags and its memory."""
        one = slice(image, image + 1)
        slack = {i: x if len(x) == 1 else x[one] for i, x in self.substitution.given.slack.items()}
        hidden = {i: z.map(lambda x: x[one]) for i, z in self.hidden.items()}
        substitution = replace(self.substitution, given=Given(slack=slack))
        return replace(self, substitution=substitution, box=self.box[one], hidden=hidden)

    def _together(self, index: int, images: Tensor, objective: Objective) -> Tensor:
        """As `_lower`, through one network for all images."""
        passage, pruned = self.substitution.passage, self._pruned()
        graph, hidden = pruned.graph, {i: z.map(partial(pruned.layer, i)) for i, z in self.hidden.items()}
        slack = {i: pruned.layer(i, x) for i, x in self.substitution.given.slack.items()}
        region = Region.of(graph, pruned.values(self.substitution.values), self.box, hidden, slack)
        if passage.is_transformed:
            ways = plain_ways(region, hidden, index, self.precision)
        else:
            ways = choose_ways(region, hidden, index, objective, self.precision)
        step = rows_at_once(ways.width, self.box.lower, passage.memory_mb, recorded=False)
        own, found = partial(Tensor.to, dtype=self.box.lower.dtype), []
        for first in range(0, len(images), step):
            check_deadline()
            part = slice(first, first + step)
            best = self._best(ways.searched.rows(images[part], objective[part]))
            if ways.decides is None:
                found.append(best.lower)
            else:
                found.append(ways.decides.rows(images[part], objective[part]).lower(best.choice.map(own)).lower)
        return torch.cat(found)

    def _pruned(self) -> Pruned:
        """The network without neurons that are off for all images, unless nothing may depend on the data."""
        graph = self.substitution.graph
        return prune(graph, {} if self.substitution.passage.is_transformed else zero_outputs(graph, self.hidden))

    def _best(self, rows: Rows) -> Best:
        """The best slopes met."""
        held, like = rows.region.held, rows.start.data
        with torch.no_grad():
            slopes = rows.space.gather(lambda part: held[part.activation].lower, like)
            return improve(rows, Choice(slopes.expand(len(like), -1)), self.iterations)

"""Rows of any operation with slopes of their own, and pre-activation bounds made from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from certtrain.activations import Interval
from certtrain.bounds.base import Box
from certtrain.bounds.optimised.ascent import Best, improve
from certtrain.bounds.optimised.choice import Choice, Rows
from certtrain.bounds.optimised.passes import Start
from certtrain.bounds.optimised.region import Region, zero_outputs
from certtrain.bounds.optimised.space import Space
from certtrain.bounds.optimised.ways import Layers, choose_ways, plain_ways
from certtrain.bounds.rows.chunks import rows_at_once
from certtrain.bounds.substitution.preactivation import Substitution
from certtrain.deadline import check_deadline
from certtrain.networks.pruning import Pruned, prune


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
        images, places = elements // size, elements % size
        one = torch.ones_like(places, dtype=found.lower.dtype)

        def forms(rows: slice) -> Tensor:
            """The elements, then their negatives."""
            signed, at = torch.cat([one, -one])[rows], places.repeat(2)[rows]
            return signed.new_zeros((len(at), size)).scatter(1, at[:, None], signed[:, None]).reshape(-1, *shape[1:])

        lower = self._lower(index, images.repeat(2), places.repeat(2), forms)
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
        return self._lower(index, images, None, lambda rows: forms[rows])

    def _lower(self, index: int, images: Tensor, places: Tensor | None, forms: Callable[[slice], Tensor]) -> Tensor:
        passage, pruned = self.substitution.passage, self._pruned()
        graph, hidden = pruned.graph, {i: z.map(partial(pruned.layer, i)) for i, z in self.hidden.items()}
        slack = {i: pruned.layer(i, x) for i, x in self.substitution.given.slack.items()}
        region = Region.of(graph, pruned.values(self.substitution.values), self.box, hidden, slack)
        space = Space.of(graph, hidden, everywhere=passage.is_transformed, output=index)
        whole = Layers.of(region, space, space.free(graph, hidden, self.box.lower), index)
        if passage.is_transformed:
            ways = plain_ways(whole, self.precision)
        else:
            ways = choose_ways(whole, hidden, index, places, self.precision)
        # Steps read a chunk's layers again long after they were written, as a backward pass does. Rows begin whole.
        step = rows_at_once(max(ways.width, graph.ops[index].size), self.box.lower, passage.memory_mb, recorded=True)
        own, found = partial(Tensor.to, dtype=self.box.lower.dtype), []
        for first in range(0, len(images), step):
            check_deadline()
            part = slice(first, first + step)
            data, at = forms(part), None if places is None else places[part]
            start = Start(index, data, data.flatten(1)[:, 0] * 0)
            best = self._best(ways.searched.rows(images[part], at, start))
            if ways.decides is None:
                found.append(best.lower)
            else:
                found.append(ways.decides.rows(images[part], at, start).lower(best.choice.map(own)).lower)
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
            return improve(rows, Choice(slopes), self.iterations)

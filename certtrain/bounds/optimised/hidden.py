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
from certtrain.bounds.optimised.collapsing import Collapsed, collapse
from certtrain.bounds.optimised.passes import Start
from certtrain.bounds.optimised.region import Region, zero_outputs
from certtrain.bounds.optimised.space import Space
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

        lower = self._lower(index, images.repeat(2), places.unique(), forms)
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
        elements = torch.arange(self.substitution.graph.ops[index].size, device=forms.device)
        return self._lower(index, images, elements, lambda rows: forms[rows])

    def _lower(self, index: int, images: Tensor, elements: Tensor, forms: Callable[[slice], Tensor]) -> Tensor:
        passage, pruned = self.substitution.passage, self._pruned()
        graph, hidden = pruned.graph, {i: z.map(partial(pruned.layer, i)) for i, z in self.hidden.items()}
        slack = {i: pruned.layer(i, x) for i, x in self.substitution.given.slack.items()}
        region = Region.of(graph, pruned.values(self.substitution.values), self.box, hidden, slack)
        space = Space.of(graph, hidden, everywhere=passage.is_transformed, output=index)
        searched = self._searched(region, space, index, elements)
        free = space.free(graph, hidden, self.box.lower)
        width = sum(op.size for op in graph.ops[:index])
        # Steps read a chunk's layers again long after they were written, as a backward pass does.
        step = rows_at_once(width, self.box.lower, passage.memory_mb, recorded=True)
        recorded = torch.is_grad_enabled() and any(x.requires_grad for x in region.tensors)
        done = searched.small is None and self.box.lower.dtype == self.precision and not recorded
        own, found = partial(Tensor.to, dtype=self.box.lower.dtype), []
        for first in range(0, len(images), step):
            check_deadline()
            part = images[first : first + step]
            data = forms(slice(first, first + len(part)))
            start = Start(index, data, data.flatten(1)[:, 0] * 0)
            best = self._best(searched.rows(part, start, free[part]))
            if done:
                found.append(best.lower)
            else:
                rows = Rows(region.rows(part), space, start, free[part])
                found.append(rows.lower(best.choice.map(own)).lower)
        return torch.cat(found)

    def _pruned(self) -> Pruned:
        """The network without neurons that are off for all images, unless nothing may depend on the data."""
        graph = self.substitution.graph
        return prune(graph, {} if self.substitution.passage.is_transformed else zero_outputs(graph, self.hidden))

    def _searched(self, region: Region, space: Space, index: int, elements: Tensor) -> _Searched:
        """What slopes are searched on."""
        region = region.map(lambda x: x.detach().to(self.precision))
        if self.substitution.passage.is_transformed:
            return _Searched(region, space)
        small = collapse(region, space, index, elements)
        return _Searched(region, space) if small is None else _Searched(small.region(region), small.space(space), small)

    def _best(self, rows: Rows) -> Best:
        """The best slopes met."""
        held, like = rows.region.held, rows.start.data
        with torch.no_grad():
            slopes = rows.space.gather(lambda part: held[part.activation].lower, like)
            return improve(rows, Choice(slopes), self.iterations)


@dataclass(frozen=True)
class _Searched:
    """The network that slopes are searched on: in the precision of that, and smaller where it can be.

    Attributes:
        region: On all boxes.
        space: Its columns.
        small: Where it is a smaller one.
    """

    region: Region
    space: Space
    small: Collapsed | None = None

    def rows(self, images: Tensor, start: Start, free: Tensor) -> Rows:
        """Rows of the whole network, as rows of this one."""
        start = Start(start.index, *(x.detach().to(self.region.center.dtype) for x in start.tensors))
        start = start if self.small is None else self.small.start(start)
        return Rows(self.region.rows(images), self.space, start, free)

"""Counterexamples of a property: looked for in all regions at once, and what counts as one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from certtrain.attacks import PGD
from certtrain.bounds import Box
from certtrain.certify.counterexamples import float32_inside, inside
from certtrain.certify.network import Network
from certtrain.certify.properties import Property
from certtrain.certify.questions import Question
from certtrain.deadline import check_deadline, until

# Elements of all operations and forms together that a batch of attacks takes.
ELEMENTS = 1 << 25
MOST = 256

# Another evaluation of the network: one input, float64, [*input_shape], to its output vector.
Evaluation = Callable[[Tensor], Tensor]


class Counterexample(NamedTuple):
    """An input for which a property is violated.

    Attributes:
        x: float64, [*input_shape], in a region's box; its numbers are float32 numbers wherever the box has one.
        y: float64, [outputs]: what the network makes of it in float32, by the runtime where one was given.
    """

    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Falsification:
    """Looks for counterexamples, and confirms them.

    Attributes:
        network: What is asked about.
        property: The question.
        question: The same in tensors.
        attack: How each region is searched, from its centre and from random starts.
        runtime: Another evaluation that must agree that an output is unsafe; None where there is none.
    """

    network: Network
    property: Property
    question: Question
    attack: PGD
    runtime: Evaluation | None = None

    def confirmed(self, x: Tensor) -> Counterexample | None:
        """A point as a counterexample, if every evaluation says so.

        Args:
            x: float64, [*input_shape].

        Returns:
            None unless it lies in a region's box and the outputs in float64, in float32 and of the runtime are unsafe
            there.
        """
        exact, single = (self.network.logits(x[None].to(dtype))[0] for dtype in (torch.float64, torch.float32))
        outputs = [exact, single] if self.runtime is None else [exact, single, self.runtime(x)]
        if not all(self.property.violated(x, y) for y in outputs):
            return None
        return Counterexample(x, outputs[-1].double())

    def search(self, deadline: float = math.inf) -> Counterexample | None:
        """The first counterexample that the attack finds; one restart after the other, on all regions.

        Raises:
            OutOfTime: If the deadline passes, in `time.perf_counter()`.
        """
        with until(deadline):
            for points, regions in self._points():
                if (found := self._first(points, regions)) is not None:
                    return found
        return None

    def _points(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Points worth a look, float32, with their regions."""
        batches = torch.arange(len(self.question)).split(regions_at_once(self.network, self.question))
        inner = [float32_inside(self.question.box[batch]) for batch in batches]
        at_center = []
        for batch, box in zip(batches, inner, strict=True):
            center, margins = self.attack.center(self._margins(batch), box)
            at_center.append(margins)
            yield center, batch
        for restart in range(self.attack.rounds):
            for batch, box, margins in zip(batches, inner, at_center, strict=True):
                keys, everywhere = [(0, region) for region in batch.tolist()], torch.arange(len(batch))
                yield self.attack.restart(self._margins(batch), box, keys, everywhere, margins, restart)[0], batch

    def _margins(self, batch: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        def margins(points: Tensor, images: Tensor) -> Tensor:
            check_deadline()
            return self.question.largest(self.network.logits(points), batch[images])

        return margins

    def _first(self, points: Tensor, regions: Tensor) -> Counterexample | None:
        box: Box = self.question.box[regions]
        # Where float32 has no number inside the box, the point moves to one of float64.
        moved = inside(points, box)
        unsafe = (self.question.largest(self.network.logits(moved), regions) <= 0).any(1)
        found = (self.confirmed(x) for x in moved[unsafe])
        return next((one for one in found if one is not None), None)


def regions_at_once(network: Network, question: Question) -> int:
    """How many regions to attack, or to bound, in one batch."""
    forms = question.table.shape[1] * question.goals.forms[0].numel()
    return max(1, min(MOST, ELEMENTS // (forms + sum(op.size for op in network.graph.ops))))

"""A property as tensors: all of its regions and conjunctions at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from certtrain.bounds import Box
from certtrain.certify.properties import Conjunction, Property
from certtrain.certify.search.relaxed import Goals


@dataclass(frozen=True)
class Question:
    """What is to be refuted, region by region.

    Attributes:
        box: Of all regions, float64, [regions, *input_shape].
        goals: Of all conjunctions, float64: unsafe outputs {y: forms y + constants <= 0}. One with fewer rows than
            others repeats its first; one without rows is met by every output.
        owner: The region of each goal, [goals].
        table: The goals of each region, [regions, most]; where there are fewer, its first is repeated.
    """

    box: Box
    goals: Goals
    owner: Int[Tensor, " goals"]
    table: Int[Tensor, "regions most"]

    @staticmethod
    def of(property: Property, num_outputs: int) -> Question:
        """A property with at least one region, each of which has at least one conjunction."""
        regions = property.regions
        found = [one for region in regions for one in region.unsafe]
        most = max(1, *(len(one.constants) for one in found))
        forms, constants = zip(*(_padded(one, most, num_outputs) for one in found), strict=True)
        counts = torch.tensor([len(region.unsafe) for region in regions])
        owner = torch.arange(len(regions)).repeat_interleave(counts)
        first = counts.cumsum(0) - counts
        numbers = torch.arange(int(counts.max()))
        table = first[:, None] + numbers.where(numbers < counts[:, None], 0)
        box = Box(*(torch.cat(ends) for ends in zip(*((r.box.lower, r.box.upper) for r in regions), strict=True)))
        return Question(box, Goals(torch.stack(forms), torch.stack(constants)), owner, table)

    def __len__(self) -> int:
        return len(self.box)

    def largest(
        self, outputs: Float[Tensor, "points outputs"], regions: Int[Tensor, " points"]
    ) -> Float[Tensor, "points most"]:
        """The largest form of each goal of a point's region: an output is unsafe where one is not positive."""
        goals, table = self.goals.to(outputs.dtype), self.table[regions]
        values = (goals.forms[table] @ outputs[:, None, :, None]).squeeze(3) + goals.constants[table]
        return values.amax(2)

    def some(self, which: Int[Tensor, " some"]) -> Goals:
        """Some of the goals."""
        return Goals(self.goals.forms[which], self.goals.constants[which])


def _padded(one: Conjunction, rows: int, num_outputs: int) -> tuple[Tensor, Tensor]:
    """Rows C y - d, [rows, outputs] and [rows]."""
    if not len(one.constants):
        return torch.zeros((rows, num_outputs), dtype=torch.float64), torch.zeros(rows, dtype=torch.float64)
    at = torch.arange(rows)
    at = at.where(at < len(one.constants), 0)
    return one.coefficients[at], -one.constants[at]

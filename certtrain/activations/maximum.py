"""The largest of several inputs: what max pooling does once the pixels of every window stand side by side."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from certtrain.activations.base import Activation, Lines, Slopes
from certtrain.activations.interval import Interval

Taps = tuple[tuple[bool, ...], ...]


@lru_cache(maxsize=256)
def _inside(rows: Taps, columns: Taps) -> Tensor:
    """[candidates, height, width]: whether a window's pixel lies in the image."""
    vertical, horizontal = torch.tensor(rows), torch.tensor(columns)
    return (vertical[:, None, :, None] & horizontal[None, :, None, :]).flatten(0, 1)


@dataclass(frozen=True)
class WindowMaximum(Activation):
    """max over the candidates of one output: [.., channels · candidates, H, W] -> [.., channels, H, W].

    With lower ends l_i and upper ends u_i of the candidates and m = max l_i, two planes lie above: the constant
    max u_i, and m + Σ (u_i - m)⁺ / (u_i - l_i) · (z_i - l_i), since (z_i - m)⁺ lies below its chord and the maximum is
    at most m plus their sum. The lower of both at the midpoint is taken. Below lie the candidates themselves. Both are
    exact where one candidate is never smaller than the others.

    Attributes:
        rows: For each row of the window, whether it lies in the image, by the output's row: padding never wins.
        columns: The same for columns.
    """

    rows: Taps
    columns: Taps

    @property
    def element_wise(self) -> bool:
        """See `Activation`: windows lie along the channels of an image, also those of one element."""
        return False

    @property
    def group(self) -> int:
        """See `Activation`."""
        return len(self.rows) * len(self.columns)

    def collect(self, x: Tensor) -> Tensor:
        """See `Activation`."""
        return x.unflatten(-3, (-1, self.group)).sum(-3)

    def any_input(self, mask: Tensor) -> Tensor:
        """See `Activation`."""
        return mask.unflatten(-3, (-1, self.group)).any(-3)

    def for_inputs(self, x: Tensor) -> Tensor:
        """See `Activation`."""
        return x.repeat_interleave(self.group, dim=-3)

    def for_first_input(self, x: Tensor) -> Tensor:
        """See `Activation`."""
        places = torch.arange(self.group * x.shape[-3], device=x.device)[:, None, None]
        return torch.where(places % self.group == 0, self.for_inputs(x), 0.0)

    def __call__(self, z: Tensor) -> Tensor:
        """See `Activation`."""
        return self._candidates(z).amax(-3)

    def evaluation_error(self, z: Interval, unit: float) -> Tensor:
        """See `Activation`: it is exact."""
        return self.collect(torch.zeros_like(z.lower))

    def lines_size(self, size: Tensor, slopes: Tensor | None = None) -> Tensor:
        """See `Activation`: m + Σ (|z_i| + |l_i|), with |m| no more than the largest."""
        return 3 * self.collect(size)

    def undecided(self, z: Interval) -> Tensor:
        """See `Activation`: candidates that may win in a window where several may."""
        lower, upper = self._candidates(z.lower), self._candidates(z.upper)
        best = lower.amax(-3, keepdim=True)
        others = self._others(upper, lower.argmax(-3, keepdim=True))
        return self._flat((upper > best) & (best < others))

    def lines(self, z: Interval, slopes: Slopes) -> Lines:
        """See `Activation.lines`: "adaptive" takes the candidate of largest midpoint; given slopes are normalised."""
        lower, upper = self._candidates(z.lower), self._candidates(z.upper)
        best, winner = lower.max(-3, keepdim=True)
        one = self._one(winner, lower)
        if isinstance(slopes, str) and slopes == "parallel":
            above = (self._others(upper, winner) - best).clamp(min=0)
            return Lines(self._flat(one), self._flat(torch.zeros_like(one)), self._flat(self._first(above, one)))
        plane, offset = self._above(lower, upper, best, one)
        below, height = self._below(lower, upper, best, slopes)
        return Lines.between(
            *(self._flat(x) for x in (below, self._first(height, one), plane, self._first(offset, one)))
        )

    def _above(self, lower: Tensor, upper: Tensor, best: Tensor, one: Tensor) -> tuple[Tensor, Tensor]:
        """Slopes and intercept [.., 1, H, W] of the upper plane."""
        width = upper - lower
        chord = (upper - best).clamp(min=0) / torch.where(width > 0, width, 1.0)
        # The winner's chord begins at m: its slope is one, also on a point. Of padding, the width is no number.
        chord = torch.where(one > 0, 1.0, torch.where(upper > best, chord, 0.0))
        used = chord > 0
        highest = upper.amax(-3, keepdim=True)
        middle = best + torch.where(used, chord * width, 0.0).sum(-3, keepdim=True) / 2
        # Not where one candidate is left: its plane is the candidate itself, also where rounding has put u below l.
        flat = (highest < middle) & (used.sum(-3, keepdim=True) > 1)
        offset = best - torch.where(used, chord * lower, 0.0).sum(-3, keepdim=True)
        return torch.where(flat, 0.0, chord), torch.where(flat, highest, offset)

    def _below(self, lower: Tensor, upper: Tensor, best: Tensor, slopes: Slopes) -> tuple[Tensor, Tensor]:
        """Slopes and intercept of the lower plane; the winner's where there is one."""
        winner = lower.argmax(-3, keepdim=True)
        decided = ~(best < self._others(upper, winner))
        sure, none = self._one(winner, lower), torch.zeros_like(best)
        if isinstance(slopes, str) and slopes == "zero":
            return torch.where(decided, sure, 0.0), torch.where(decided, none, best)
        middle = self._one((lower + upper).argmax(-3, keepdim=True), lower)
        if isinstance(slopes, str):
            return torch.where(decided, sure, middle), none
        weights = torch.where(lower > -torch.inf, self._candidates(slopes).clamp(min=0), 0.0)
        total = weights.sum(-3, keepdim=True)
        shares = torch.where(total > 0, weights / torch.where(total > 0, total, 1.0), middle)
        return torch.where(decided, sure, shares), none

    def _candidates(self, x: Tensor) -> Tensor:
        """[.., channels · candidates, H, W] -> [.., channels, candidates, H, W], minus infinity outside the image."""
        x = x.unflatten(-3, (-1, self.group))
        inside = _inside(self.rows, self.columns).to(x.device)
        return x if bool(inside.all()) else torch.where(inside, x, -torch.inf)

    def _flat(self, x: Tensor) -> Tensor:
        return x.flatten(-4, -3)

    def _one(self, index: Tensor, like: Tensor) -> Tensor:
        """One at the index, zero elsewhere; NaN where a candidate is."""
        places = torch.arange(self.group, device=like.device)[:, None, None]
        nan = torch.where(like.isnan().any(-3, keepdim=True), torch.nan, 0.0)
        return (places == index).to(like.dtype) + nan

    def _others(self, upper: Tensor, winner: Tensor) -> Tensor:
        """The largest upper end beside the winner's."""
        places = torch.arange(self.group, device=upper.device)[:, None, None]
        return torch.where(places == winner, -torch.inf, upper).amax(-3, keepdim=True)

    def _first(self, value: Tensor, like: Tensor) -> Tensor:
        """An intercept of all candidates together, as the first one's."""
        places = torch.arange(self.group, device=like.device)[:, None, None]
        return torch.where(places == 0, value, 0.0).expand_as(like)

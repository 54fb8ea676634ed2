"""One goal on the whole box, bounded with envelopes in place of upper lines, before anything is split.

On networks of certified training, and on convolutions, whose neurons read few inputs, they close most of the gap that
lines leave, and often all of it. Elsewhere they are left alone after a few steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from certtrain.bounds.optimised.ascent import Rates
from certtrain.bounds.optimised.choice import Choice
from certtrain.bounds.optimised.envelopes import Blend
from certtrain.bounds.optimised.fitting import Fit, Fitted
from certtrain.certify.search.root import Root
from certtrain.errors import ConfigError

# Steps between two looks at what has come of them.
ROUND = 10
# Envelopes are of use where they leave less than this of what a goal's bound lacks without them; they are given up
# after a round of which so many more would not lead there.
LEFT, MORE = 0.6, 4
# Rounds go on while the last few brought the bound nearer to zero by this share.
LAST, GAIN = 3, 0.01
# Bytes for each weight of the layers: that a fit takes, that all goals share then, that a root with envelopes keeps.
FITTED, SHARED, KEPT = 170, 32, 16
# How much of upper bounds they are at first. Of none there would be no derivative, and all of them is best for some.
TAKEN = 0.9


@dataclass(frozen=True)
class Enveloped:
    """A root with envelopes that were fitted to one goal.

    Attributes:
        root: It.
        blends: Of its layers.
        choice: Of the goal's row.
        margin: What is proved of the goal where the root's bounds hold: positive, or minus infinity.
    """

    root: Root
    blends: tuple[Blend, ...]
    choice: Choice
    margin: float

    @property
    def nbytes(self) -> int:
        """What the root takes besides what it was made of, and what was chosen for it."""
        return KEPT * self.root.weight_count

    def on(self, root: Root) -> Enveloped:
        """The same envelopes on another root of the same box, of which nothing is proved by them."""
        return Enveloped(root.with_envelopes(self.blends), self.blends, root.taken_over(self.choice), -math.inf)


@dataclass(frozen=True)
class Enveloping:
    """How much is done.

    Attributes:
        steps: At most, for each goal; 0 leaves roots as they are.
        rates: Of slopes, of multipliers in units of the root's rows, of weights of forms.
        blends: Rate of what envelopes are made of.

    Raises:
        ConfigError: If steps are no whole number >= 0.
    """

    steps: int = 300
    rates: Rates = Rates(slopes=0.1, multipliers=0.1, weights=0.1, decay=0.985)  # noqa: RUF009  (frozen)
    blends: float = 0.1

    def __post_init__(self) -> None:
        if not (type(self.steps) is int and self.steps >= 0):
            raise ConfigError(f"envelopes must be a whole number of steps >= 0, got {self.steps!r}")

    def fit(self, root: Root, goal: int, known: float, memory: int = 1 << 30) -> Enveloped | None:
        """None where envelopes are of no use, or there is not enough memory.

        Args:
            root: Without envelopes.
            goal: Its number.
            known: The bound that the goal had there without them, not positive.
            memory: Bytes that it may take until it is done.

        Raises:
            OutOfTime: If the deadline passes.
        """
        if not self._fits(root, memory):
            return None
        fit, met = self._begun(root, goal), [-math.inf]
        for done in range(0, self.steps, ROUND):
            best = fit.run(min(ROUND, self.steps - done))
            if best.lower > 0 and (found := _proved(root, goal, best)).margin > 0:
                return found
            met.append(best.lower)
            if not best.lower + MORE * (best.lower - met[-2]) > LEFT * known:
                return None
            if best.lower - met[-LAST - 1 :][0] < GAIN * abs(best.lower):
                break
        return _proved(root, goal, best) if best.lower > LEFT * known else None

    def shared(self, root: Root, memory: int) -> int:
        """Bytes that all goals of a root share; none where a fit does not fit into so many."""
        return SHARED * root.weight_count if self._fits(root, memory) else 0

    def _fits(self, root: Root, memory: int) -> bool:
        return self.steps > 0 and 0 < FITTED * root.weight_count <= memory

    def _begun(self, root: Root, goal: int) -> Fit:
        rows = root.rows(root.single, root.decided, torch.tensor([goal]))
        neurons = [own.to(torch.float32) for own in root.neurons]
        blends = [own.blend(root.single.region.held[own.part.activation], TAKEN) for own in neurons]
        rates = Rates(self.rates.slopes, self.rates.multipliers * root.unit, self.rates.weights, self.rates.decay)
        return Fit(rows, neurons, root.first_choice(1), blends, rates, self.blends)


def _proved(root: Root, goal: int, best: Fitted) -> Enveloped:
    found = root.with_envelopes(best.blends)
    lower = float(found.proved(root.decided, torch.tensor([goal]), best.choice))
    return Enveloped(found, best.blends, best.choice, lower if 0 < lower < math.inf else -math.inf)

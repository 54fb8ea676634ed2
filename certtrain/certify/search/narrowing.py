"""Pre-activation bounds that hold wherever a goal's outputs are unsafe: of other inputs nothing has to be proved.

Every counterexample has forms f(x) <= 0 of the outputs. So for multipliers γ >= 0 a lower bound of z(x) + γ f(x) over
the box is one of z over all counterexamples (INVPROP, Kotha et al., arXiv 2302.01404). Such a row begins at the outputs
and passes z's layer on its way, where z is added; slopes and γ are optimised like all others. Where the bounds of one
neuron exclude each other, there is no counterexample; else its lines have become tighter, and with them the next
layer's rows, and the next round's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from certtrain.activations import Interval
from certtrain.bounds.optimised.ascent import Rates, improve
from certtrain.bounds.optimised.choice import Choice, Rows
from certtrain.bounds.optimised.passes import Start
from certtrain.bounds.optimised.space import Part
from certtrain.certify.search.bounding import rates_on
from certtrain.certify.search.kept import KeptChoice
from certtrain.certify.search.relaxed import Relaxed
from certtrain.certify.search.root import Root
from certtrain.deadline import check_deadline
from certtrain.errors import ConfigError

# Float64's bounds are taken to be off by so much, relative to 1 or their size: this is not all of what counts in it.
GUARD = 1e-9
# A goal's bound is taken to be at least so far below zero, where weights are measured by it.
LEAST = 1e-6
# Bytes that rows may take together.
MEMORY = 1 << 27


@dataclass(frozen=True)
class Narrowing:
    """How much is done.

    Attributes:
        rounds: Through all layers, at most; 0 leaves boxes as they are.
        steps: Of each row's optimisation, each round.
        rates: Of its steps; those of weights in units in which z's width and the goal's bound are alike.
        gain: Rounds go on while widths of undecided neurons shrink by this share in all.

    Raises:
        ConfigError: If rounds are no whole number >= 0.
    """

    rounds: int = 8
    steps: int = 3
    rates: Rates = Rates(slopes=0.25, multipliers=0.1, weights=0.05)  # noqa: RUF009  (frozen)
    gain: float = 0.03

    def __post_init__(self) -> None:
        if not (type(self.rounds) is int and self.rounds >= 0):
            raise ConfigError(f"narrowing must be a whole number of rounds >= 0, got {self.rounds!r}")

    def narrow(self, known: Narrowed) -> Narrowed | None:
        """The same box with bounds that hold wherever its goal is met; None where it is nowhere.

        Raises:
            OutOfTime: If the deadline passes.
        """
        for _ in range(self.rounds):
            before = known.width
            lower, choice = known.bounded(self.steps)
            if 0 < lower < math.inf:
                return None
            known, layers = replace(known, choice=choice), []
            for layer in known.layers:
                found = layer.bounds(known.root, lower, self)
                if found is None:
                    return None
                low, high, layer = found
                ends = known.root.bounds.lower.clone(), known.root.bounds.upper.clone()
                for end, own in zip(ends, (low, high), strict=True):
                    end[:, layer.part.columns] = own
                layers.append(layer)
                known = replace(known, root=known.root.narrowed(Interval(*ends)))
            known = replace(known, layers=tuple(layers))
            if known.width > (1 - self.gain) * before:
                break
        return known


@dataclass(frozen=True)
class Narrowed:
    """A box of which only inputs are of interest that meet a goal, and what the rows that narrowed it chose.

    Attributes:
        root: With bounds that hold for these.
        goal: Its number.
        layers: Of the network.
        choice: Of the goal's own row; None for the usual one.
    """

    root: Root
    goal: int
    layers: tuple[Layer, ...]
    choice: Choice | None = None

    @staticmethod
    def of(root: Root, goal: int) -> Narrowed:
        """Nothing is narrowed yet."""
        return Narrowed(root, goal, tuple(Layer(goal, part) for part in root.space.parts))

    def bounded(self, steps: int) -> tuple[float, Choice]:
        """The goal's own bound after so many steps, positive only where that is proved, and what it chose."""
        root, goal = self.root, torch.tensor([self.goal])
        choice = root.first_choice(1) if self.choice is None else root.taken_over(self.choice)
        best = improve(root.rows(root.single, root.decided, goal), choice, steps, rates_on(root))
        lower = root.proved(root.decided, goal, best.choice) if best.lower > 0 else best.lower
        return float(lower), best.choice

    def halves(self, column: int) -> tuple[Narrowed, Narrowed]:
        """Split at a neuron: where it is not negative, and where it is not positive."""
        low, high = self.root.bounds.lower, self.root.bounds.upper
        at, zero = (torch.tensor([0]), torch.tensor([column])), torch.zeros(1, dtype=torch.float64)
        on, off = Interval(low.index_put(at, zero), high), Interval(low, high.index_put(at, zero))
        return replace(self, root=self.root.narrowed(on)), replace(self, root=self.root.narrowed(off))

    @property
    def width(self) -> float:
        """Of all that is undecided, together."""
        return float((self.root.bounds.upper - self.root.bounds.lower)[self.root.undecided].sum())

    @property
    def nbytes(self) -> int:
        """What is kept of its rows' choices."""
        return sum(layer.chosen.kept.nbytes for layer in self.layers if layer.chosen is not None)

    def without_choices(self) -> Narrowed:
        """The same bounds; what its rows chose is forgotten, which costs the next round some of its progress."""
        return replace(self, layers=tuple(replace(layer, chosen=None) for layer in self.layers))


@dataclass(frozen=True)
class Chosen:
    """What rows of neurons chose.

    Attributes:
        columns: Of the neurons, ascending.
        decisions: Those that the rows were bounded with, [1, columns of all], see `Root.rows`.
        kept: Choices of the rows for z, then of those for -z.
    """

    columns: Tensor
    decisions: Tensor
    kept: KeptChoice

    def of(self, root: Root, columns: Tensor) -> Choice:
        """The same, of some of the columns."""
        places = torch.searchsorted(self.columns, columns)
        rows = torch.cat([places, places + len(self.columns)])
        return self.kept.map(lambda x: x[rows]).choice(root, self.decisions)


@dataclass(frozen=True)
class Layer:
    """Neurons of a layer, and what their rows chose.

    Attributes:
        goal: Whose counterexamples they are bounded for.
        part: The layer's columns.
        chosen: By the rows of those that were bounded last; None: nothing was.
    """

    goal: int
    part: Part
    chosen: Chosen | None = None

    def bounds(self, root: Root, lower: float, effort: Narrowing) -> tuple[Tensor, Tensor, Layer] | None:
        """Lower and upper ends at the layer's columns, no looser than before, and what was chosen for them.

        None where ends that were found anew exclude each other.

        Args:
            root: With what is known so far.
            lower: The goal's bound, not positive.
            effort: How much is done.
        """
        columns = self.part.columns
        low, high = (end[0, columns].clone() for end in (root.bounds.lower, root.bounds.upper))
        open_ = root.undecided[0, columns].nonzero().flatten()
        if not len(open_):
            return low, high, self
        scale = (high - low)[open_] / max(-lower, LEAST)
        below, above, choice = self._lower(root, columns.start + open_, scale, effort)
        # What is no number excludes nothing.
        low[open_] = torch.fmax(low[open_], below)
        high[open_] = torch.fmin(high[open_], -above)
        if bool((low > high)[open_].any()):
            return None
        return low, high, replace(self, chosen=Chosen(columns.start + open_, root.decided, choice))

    def _lower(
        self, root: Root, columns: Tensor, scale: Tensor, effort: Narrowing
    ) -> tuple[Tensor, Tensor, KeptChoice]:
        """Lower bounds of z at columns, and of -z, float64, and the choices of both."""
        count = len(columns)
        at, scale = columns.repeat(2), scale.repeat(2)
        signs = torch.ones(2 * count, dtype=torch.float64)
        signs[count:] = -1
        start, found, chosen = self._start(root, columns), [], []
        for rows in torch.arange(2 * count).split(max(1, MEMORY // root.bytes_per_row)):
            check_deadline()
            asked = _Asked(self.goal, at[rows], signs[rows], scale[rows])
            best = improve(asked.rows(root, root.single), start[rows], effort.steps, effort.rates).choice
            chosen.append(KeptChoice.of(best, root.decided, root.unit))
            found.append(asked.proved(root, best))
        below, above = torch.cat(found).split(count)
        return below, above, KeptChoice.joined(chosen)

    def _start(self, root: Root, columns: Tensor) -> Choice:
        """What the same rows chose last."""
        if self.chosen is None:
            count, forms = 2 * len(columns), root.single.goals.forms.shape[1]
            return replace(root.first_choice(count), weights=root.single.lower.new_zeros((count, forms)))
        return root.taken_over(self.chosen.of(root, columns))


@dataclass(frozen=True)
class _Asked:
    """Neurons of which a lower bound is asked.

    Attributes:
        goal: Whose counterexamples they are bounded for.
        columns: The neurons, [rows].
        signs: 1 for z, -1 for -z.
        scale: Units of the weights of the goal's forms.
    """

    goal: int
    columns: Tensor
    signs: Tensor
    scale: Tensor

    def rows(self, root: Root, relaxed: Relaxed) -> Rows:
        """Rows of a neuron, and of the goal's forms with weights of any sum."""
        count, goals, dtype = len(self.columns), relaxed.goals, relaxed.lower.dtype
        which = self._which
        rows = relaxed.rows(root.decided.expand(count, -1), which, root.free)
        added = torch.zeros((count, root.space.size), dtype=dtype)
        added[torch.arange(count), self.columns] = self.signs.to(dtype)
        scale = self.scale.to(dtype)[:, None]
        forms = (goals.forms[which] * scale[:, None]).reshape(count, -1, *relaxed.region.graph.ops[-1].shape)
        return replace(
            rows, start=Start(relaxed.output, forms, goals.constants[which] * scale), added=added, total=None
        )

    def proved(self, root: Root, best: Choice) -> Tensor:
        """Bounds of the network in float64, less what rounding may have added."""
        choice = root.admissible(root.decided.expand(len(self.columns), -1), best)
        assert choice.multipliers is not None, "rows begin with multipliers"
        assert choice.weights is not None, "rows begin with weights"
        unscaled, weights = replace(self, scale=torch.ones_like(self.scale)), choice.weights * self.scale[:, None]
        own = (torch.arange(len(self.columns)), self.columns)
        charged = choice.multipliers.index_put(own, torch.ones_like(self.scale), accumulate=True)
        found = unscaled.rows(root, root.double).lower(Choice(choice.slopes, choice.multipliers, weights))
        lower = found.lower - root.charged.of(self._which, Choice(choice.slopes, charged, weights))
        return lower - GUARD * (1 + lower.abs())

    @property
    def _which(self) -> Tensor:
        return torch.full((len(self.columns),), self.goal)

"""What a positive margin is worth: the arithmetics in which relaxations and complete search are judged.

`Float64` computes in float64 and in float32 and believes what both find. `Sound` proves: bounds of all rounding errors,
of the network in float32 and of its own computation, are part of what it subtracts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from certtrain.activations import Interval
from certtrain.bounds import Analysing, Analysis, Box, Given, Intersection, Relaxation
from certtrain.bounds.relaxation.deeppoly import DeepPoly
from certtrain.bounds.rounding import Rounding, assume, round_errors
from certtrain.certify.network import Network
from certtrain.errors import ConfigError
from certtrain.networks import Graph, Params
from certtrain.spelling import did_you_mean

# Instead of a bound where nothing is proved: a number, since only what goes wrong has none.
NOTHING = torch.finfo(torch.float64).min


@dataclass(frozen=True)
class Known:
    """What is known of a box before it is split.

    Attributes:
        hidden: Operation that an activation reads -> bounds of its output, float64.
        rounding: Errors that they, and all that is concluded from them, must have room for; None where rounding is not
            accounted for.
        holds: Whether they are proved. Where they are not, nothing may be concluded.
    """

    hidden: Mapping[int, Interval]
    rounding: Rounding | None = None
    holds: bool = True


class Arithmetic(ABC):
    """How margins are computed and when they count; frozen, without state."""

    @abstractmethod
    def smallest_margins(self, relaxation: Relaxation, network: Network, box: Box, spec: Tensor) -> Tensor:
        """Lower bounds [batch], float64, of the smallest margin of each image; a positive one claims that it is robust.

        Args:
            relaxation: What bounds them.
            network: What is certified.
            box: float64.
            spec: Rows of margins, [batch, rows, outputs].
        """

    @abstractmethod
    def lower(self, relaxation: Analysing, network: Network, box: Box, spec: Tensor) -> Tensor:
        """Lower bounds [batch, rows], float64, of rows of outputs that must be above a limit.

        Args:
            relaxation: What bounds them.
            network: What is certified.
            box: float64.
            spec: [batch, rows, outputs], float64.
        """

    @abstractmethod
    def known(self, relaxation: Analysing, graph: Graph, values: Params, box: Box) -> Known:
        """What complete search begins with.

        Args:
            relaxation: Bounds pre-activations.
            graph: The network.
            values: Its parameters and buffers, float64.
            box: Of one input, float64.
        """

    @abstractmethod
    def check_relaxation(self, relaxation: Relaxation) -> None:
        """Refuses what it cannot judge.

        Raises:
            ConfigError: One line that says what is needed.
        """

    @abstractmethod
    def check_network(self, network: Network) -> None:
        """Refuses a network that its claims would not be about.

        Raises:
            ConfigError: One line that says what is wrong.
        """

    @property
    def options(self) -> str:
        """What it adds to the options of a verifier that computes with it, in one line."""
        return ""


@dataclass(frozen=True)
class Float64(Arithmetic):
    """Margins in float64; a positive one must be positive in float32, too. Rounding is not accounted for."""

    def smallest_margins(self, relaxation: Relaxation, network: Network, box: Box, spec: Tensor) -> Tensor:
        """See `Arithmetic`: where float32 does not agree, what it found is returned: the sign is the verdict."""

        def smallest(box: Box, spec: Tensor) -> Tensor:
            dtype = box.lower.dtype
            values = network.values[dtype]
            return relaxation.bound(network.graph, values, box, spec.to(dtype), "lower").lower.amin(1)

        exact = smallest(box, spec)
        claimed = (exact > 0).nonzero().flatten()
        if len(claimed):
            single = smallest(box[claimed].to(torch.float32), spec[claimed]).to(exact.dtype)
            exact[claimed] = torch.where((single > 0) & single.isfinite(), exact[claimed], single)
        return exact

    def lower(self, relaxation: Analysing, network: Network, box: Box, spec: Tensor) -> Tensor:
        """See `Arithmetic`: in float64 alone."""
        return relaxation.bound(network.graph, network.values[torch.float64], box, spec, "lower").lower

    def known(self, relaxation: Analysing, graph: Graph, values: Params, box: Box) -> Known:
        """See `Arithmetic`."""
        return Known(relaxation.analyse(graph, values, box, _no_rows(graph, box), "lower").hidden)

    def check_relaxation(self, relaxation: Relaxation) -> None:
        """See `Arithmetic`: it judges all."""

    def check_network(self, network: Network) -> None:
        """See `Arithmetic`: weights that float32 does not hold are rounded."""


@dataclass(frozen=True)
class Sound(Arithmetic):
    """Margins of the network as float32 computes them, summed in any order: docs/concepts/verdicts.md.

    What float64 finds positive is bounded again with slack for all rounding errors, which pre-activation bounds of the
    first pass tell the size of. Where the second pass does not confirm these, nothing is proved.
    """

    def smallest_margins(self, relaxation: Relaxation, network: Network, box: Box, spec: Tensor) -> Tensor:
        """See `Arithmetic`; `NOTHING` where nothing can be proved."""
        spec = spec.to(torch.float64)
        parts, values = _parts(relaxation), network.values[torch.float64]
        found = [part.analyse(network.graph, values, box, spec, "lower") for part in parts]
        margins = reduce(torch.maximum, [one.bounds.lower for one in found]).amin(1)
        claimed = (margins > 0).nonzero().flatten()
        if len(claimed):
            hidden = [{i: z.map(lambda x: x[claimed]) for i, z in one.hidden.items()} for one in found]
            proved = [_prove(*each, network, box[claimed], spec[claimed]) for each in zip(parts, hidden, strict=True)]
            margins[claimed] = reduce(torch.maximum, proved).amin(1)
        return margins

    def lower(self, relaxation: Analysing, network: Network, box: Box, spec: Tensor) -> Tensor:
        """See `Arithmetic`; `NOTHING` where nothing can be proved."""
        found = relaxation.analyse(network.graph, network.values[torch.float64], box, spec, "lower")
        return _prove(relaxation, found.hidden, network, box, spec)

    def known(self, relaxation: Analysing, graph: Graph, values: Params, box: Box) -> Known:
        """See `Arithmetic`: sizes are assumed after DeepPoly, which is quick, and at last those that are proved."""
        spec = _no_rows(graph, box)
        hidden, tries = DeepPoly().analyse(graph, values, box, spec, "lower").hidden, 3
        for _ in range(tries):
            rounding, found = _with_room(relaxation, hidden, graph, values, box, spec)
            if bool(rounding.confirms(found.hidden).all()):
                # Smaller than was assumed, and proved: the errors are smaller, too.
                smaller = round_errors(graph, values, box, found.hidden).with_lines_of(rounding)
                return Known(found.hidden, smaller, bool(smaller.finite.all()))
            hidden = _wider(rounding, found)
        return Known(hidden, rounding, False)

    def check_relaxation(self, relaxation: Relaxation) -> None:
        """See `Arithmetic`: it needs pre-activation bounds, which only native relaxations tell."""
        _parts(relaxation)

    def check_network(self, network: Network) -> None:
        """See `Arithmetic`: it must be one whose parameters float32 holds."""
        single, double = (network.values[dtype] for dtype in (torch.float32, torch.float64))
        for name in network.graph.tensors:
            if not torch.equal(single[name].to(torch.float64), double[name]) and not bool(double[name].isnan().any()):
                raise ConfigError(
                    f"arithmetic=sound is about networks in float32, which '{name}' is no tensor of: "
                    "convert the network with .float()"
                )

    @property
    def options(self) -> str:
        """See `Arithmetic`."""
        return ", arithmetic=sound"


def _parts(relaxation: Relaxation) -> tuple[Analysing, ...]:
    """The relaxations that an intersection takes the best of, row by row.

    Raises:
        ConfigError: If one of them tells bounds only.
    """
    if isinstance(relaxation, Intersection):
        return tuple(part for given in relaxation.parts for part in _parts(given))
    if not isinstance(relaxation, Analysing):
        raise ConfigError(f"certify.arithmetic=sound needs native relaxations, not {type(relaxation).__name__}")
    return (relaxation,)


def _prove(
    relaxation: Analysing, hidden: Mapping[int, Interval], network: Network, box: Box, spec: Tensor, tries: int = 2
) -> Tensor:
    """Proven lower bounds [batch, rows]; `NOTHING` where nothing is proved.

    Args:
        relaxation: What bounds them.
        hidden: Pre-activation bounds that it found before, with less slack.
        network: What is certified.
        box: float64.
        spec: [batch, rows, outputs], float64.
        tries: How often larger bounds are assumed where they were not confirmed: slack may have made intervals, which
            bound neurons that they decide, much wider than they were without.
    """
    rounding, found = _with_room(relaxation, hidden, network.graph, network.values[torch.float64], box, spec)
    margins = found.bounds.lower - rounding.loss(spec)
    # A NaN stays one: it says that something is wrong.
    left = (~rounding.confirms(found.hidden) & ~margins.isnan().any(1)).nonzero().flatten()
    if len(left):
        margins = margins.index_fill(0, left, NOTHING)
        left = left[rounding.finite[left]]
    if len(left) and tries > 1:
        wider = {i: z.map(lambda x: x[left]) for i, z in _wider(rounding, found).items()}
        margins[left] = _prove(relaxation, wider, network, box[left], spec[left], tries - 1)
    return margins


def _with_room(
    relaxation: Analysing, hidden: Mapping[int, Interval], graph: Graph, values: Params, box: Box, spec: Tensor
) -> tuple[Rounding, Analysis]:
    """Rounding errors if pre-activations are about as large as bounds say, and what is found with room for them."""
    rounding = round_errors(graph, values, box, assume(hidden))
    return rounding, relaxation.analyse(graph, values, box, spec, "lower", given=Given(slack=rounding.slack))


def _wider(rounding: Rounding, found: Analysis) -> dict[int, Interval]:
    """Bounds that contain what was assumed and what was found instead."""

    def hull(a: Interval, b: Interval) -> Interval:
        return Interval(torch.minimum(a.lower, b.lower), torch.maximum(a.upper, b.upper))

    return {i: hull(rounding.assumed[i], z) for i, z in found.hidden.items()}


def _no_rows(graph: Graph, box: Box) -> Tensor:
    """A specification for what counts are bounds of inner layers: one row of zeros is enough."""
    return box.lower.new_zeros((len(box), 1, graph.num_outputs))


FLOAT64 = Float64()
ARITHMETICS: Mapping[str, Arithmetic] = {"float64": FLOAT64, "sound": Sound()}


def arithmetic_named(name: object, key: str = "certify.arithmetic") -> Arithmetic:
    """By name.

    Args:
        name: One of `ARITHMETICS`.
        key: Where it was given, for the message.

    Raises:
        ConfigError: If there is none of that name.
    """
    found = ARITHMETICS.get(name) if isinstance(name, str) else None
    if found is None:
        hint = did_you_mean(str(name), ARITHMETICS)
        raise ConfigError(f"{key} must be one of {', '.join(ARITHMETICS)}, got {name!r}{hint}")
    return found

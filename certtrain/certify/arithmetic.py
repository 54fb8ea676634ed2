"""What a positive margin is worth: the arithmetics in which relaxations are judged.

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
from certtrain.bounds import Analysing, Box, Given, Intersection, Relaxation
from certtrain.bounds.rounding import assume, round_errors
from certtrain.certify.network import Network
from certtrain.errors import ConfigError
from certtrain.spelling import did_you_mean


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
        """See `Arithmetic`; what cannot be proved has the smallest number that there is."""
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

    def check_relaxation(self, relaxation: Relaxation) -> None:
        """See `Arithmetic`: it needs pre-activation bounds, which only native relaxations tell."""
        _parts(relaxation)

    def check_network(self, network: Network) -> None:
        """See `Arithmetic`: it must be one whose parameters float32 holds."""
        single, double = (network.values[dtype] for dtype in (torch.float32, torch.float64))
        for name in network.graph.tensors:
            if not torch.equal(single[name].to(torch.float64), double[name]) and not bool(double[name].isnan().any()):
                raise ConfigError(
                    f"certify.arithmetic=sound is about networks in float32, which '{name}' is no tensor of: "
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
    """Proven lower bounds [batch, rows]; the smallest number that there is where nothing is proved.

    Args:
        relaxation: What bounds them.
        hidden: Pre-activation bounds that it found before, with less slack.
        network: What is certified.
        box: float64.
        spec: [batch, rows, outputs], float64.
        tries: How often larger bounds are assumed where they were not confirmed: slack may have made intervals, which
            bound neurons that they decide, much wider than they were without.
    """
    graph, values = network.graph, network.values[torch.float64]
    rounding = round_errors(graph, values, box, assume(hidden))
    found = relaxation.analyse(graph, values, box, spec, "lower", given=Given(slack=rounding.slack))
    margins = found.bounds.lower - rounding.loss(spec)
    # A NaN stays one: it says that something is wrong.
    left = (~rounding.confirms(found.hidden) & ~margins.isnan().any(1)).nonzero().flatten()
    if len(left):
        margins = margins.index_fill(0, left, torch.finfo(margins.dtype).min)
        left = left[rounding.finite[left]]
    if len(left) and tries > 1:
        wider = {i: _hull(rounding.assumed[i], z).map(lambda x: x[left]) for i, z in found.hidden.items()}
        margins[left] = _prove(relaxation, wider, network, box[left], spec[left], tries - 1)
    return margins


def _hull(a: Interval, b: Interval) -> Interval:
    return Interval(torch.minimum(a.lower, b.lower), torch.maximum(a.upper, b.upper))


FLOAT64 = Float64()
ARITHMETICS: Mapping[str, Arithmetic] = {"float64": FLOAT64, "sound": Sound()}


def arithmetic_named(name: object) -> Arithmetic:
    """By name.

    Raises:
        ConfigError: If there is none of that name.
    """
    found = ARITHMETICS.get(name) if isinstance(name, str) else None
    if found is None:
        hint = did_you_mean(str(name), ARITHMETICS)
        raise ConfigError(f"certify.arithmetic must be one of {', '.join(ARITHMETICS)}, got {name!r}{hint}")
    return found

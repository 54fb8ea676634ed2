"""Verifiers: relaxations under a name, asked for the smallest margin of every image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, is_dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from certtrain.bounds import Bounds, Box, Relaxation, Sides, build, margin_spec
from certtrain.certify.network import Network
from certtrain.certify.verdict import ATTACK, PREDICTION
from certtrain.errors import ConfigError


@dataclass(frozen=True)
class Verifier:
    """A relaxation that certifies.

    Attributes:
        name: Under which its results are reported.
        relaxation: What it computes.
    """

    name: str
    relaxation: Relaxation

    def bound(self, network: Network, box: Box, spec: Tensor | None, sides: Sides) -> Bounds:
        """The relaxation's bounds, in the precision of the box."""
        return self.relaxation.bound(network.graph, network.values[box.lower.dtype], box, spec, sides)

    def smallest_margins(self, network: Network, box: Box, labels: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Lower bounds of each image's smallest margin over its box.

        Computed in float64. A positive one is a claim, and must be positive in float32 too: where it is not,
        what float32 found is returned, so that the sign of the result is the verdict. NaN and infinities are
        passed on.

        Args:
            network: What is certified.
            box: float64.
            labels: The right classes.
        """
        spec = margin_spec(labels, network.graph.num_outputs)
        exact = self._smallest(network, box, spec)
        claimed = (exact > 0).nonzero().flatten()
        if len(claimed):
            single = self._smallest(network, box[claimed].to(torch.float32), spec[claimed]).to(exact.dtype)
            exact[claimed] = torch.where((single > 0) & single.isfinite(), exact[claimed], single)
        return exact

    def _smallest(self, network: Network, box: Box, spec: Tensor) -> Tensor:
        return self.bound(network, box, spec.to(box.lower.dtype), "lower").lower.amin(1)

    def describe(self) -> str:
        """Name and options: equal exactly for verifiers that compute the same."""
        kind = type(self.relaxation)
        # The default repr of an object holds its address, which would differ in the next process.
        options = repr(self.relaxation) if is_dataclass(kind) else kind.__qualname__
        return f"{self.name}: {options}"


def resolve(relaxations: str | Sequence[str | tuple[str, Relaxation] | Verifier]) -> tuple[Verifier, ...]:
    """Verifiers from names, (name, relaxation) pairs, or verifiers.

    Raises:
        ConfigError: If there is none, no such relaxation, or two have the same name.
    """
    if not isinstance(relaxations, Iterable):
        raise ConfigError(f"relaxations must be a list of names or (name, relaxation) pairs, got {relaxations!r}")
    items = (relaxations,) if isinstance(relaxations, str) else tuple(relaxations)
    if not items:
        raise ConfigError("relaxations must name at least one verifier, such as 'ibp'")
    verifiers = tuple(_verifier(item) for item in items)
    for verifier in verifiers:
        _check_name(verifier.name)
    names = [v.name for v in verifiers]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"two verifiers are named '{twice}': give each its own name")
    return verifiers


def _check_name(name: str) -> None:
    """A result is found by its verifier's name: in the ledger, and in its settings (`Verifier.describe`)."""
    if not name or name in (PREDICTION, ATTACK) or ": " in name:
        raise ConfigError(f"a verifier cannot be named '{name}': give it another name, without ': '")


def _verifier(item: str | tuple[str, Relaxation] | Verifier) -> Verifier:
    match item:
        case Verifier():
            return item
        case str():
            return Verifier(item, build(item))
        case (str() as name, Relaxation() as relaxation):
            return Verifier(name, relaxation)
    raise ConfigError(f"a verifier is a relaxation's name or a pair (name, relaxation), got {item!r}")

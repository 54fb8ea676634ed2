"""The relaxations that are measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from certtrain.bounds import Relaxation, build

NATIVE, AUTO_LIRPA = "native", "auto_lirpa"


@dataclass(frozen=True)
class Method:
    """A relaxation by name and options.

    Attributes:
        name: In tables and on command lines.
        relaxation: In certtrain's registry.
        options: Which the registry translates for auto_LiRPA.
        same: Whether both tools compute the same numbers, up to rounding. With intersected bounds, auto_LiRPA treats
            the images of a batch together, and native bounds treat each by itself.
        trains: Whether its gradients are measured, too.
    """

    name: str
    relaxation: str
    options: Mapping[str, Any] = field(default_factory=dict)
    same: bool = True
    trains: bool = True

    def build(self, backend: str) -> Relaxation:
        """The relaxation as one of the two tools has it."""
        return build(self.relaxation, backend, **self.options)


# What both tools compute.
METHODS = {
    method.name: method
    for method in (
        Method("ibp", "ibp"),
        Method("crown_ibp", "crown_ibp"),
        Method("deeppoly", "deeppoly", {"intersect": True}, same=False),
        Method("deeppoly_textbook", "deeppoly", {"intersect": False}, trains=False),
    )
}
# What only certtrain computes.
OWN = (Method("hbox", "hbox"), Method("zonotope", "zonotope"))

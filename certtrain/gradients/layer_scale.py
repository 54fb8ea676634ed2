"""Another sigma for some layers: a factor per parameter, found by the parameter's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from certtrain.errors import ConfigError
from certtrain.networks.graph import Params


@dataclass(frozen=True)
class LayerScale:
    """Factors of sigma.

    Attributes:
        factors: Pattern of parameter names, with * and ?, -> factor. The first pattern that matches a name counts;
            a parameter that none matches has factor 1.

    Raises:
        ConfigError: If a factor is not positive.
    """

    factors: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for pattern, factor in self.factors.items():
            if not factor > 0:
                raise ConfigError(f"pgpe.layer_scale: the factor of '{pattern}' must be positive, got {factor}")

    def of(self, params: Params) -> dict[str, float]:
        """The factor of every parameter that has one.

        Raises:
            ConfigError: If a pattern matches no parameter.
        """
        for pattern in self.factors:
            if not any(fnmatchcase(name, pattern) for name in params):
                raise ConfigError(f"pgpe.layer_scale: no parameter matches '{pattern}'; there are {', '.join(params)}")
        found: dict[str, float] = {}
        for name in params:
            match = next((factor for pattern, factor in self.factors.items() if fnmatchcase(name, pattern)), None)
            if match is not None:
                found[name] = match
        return found

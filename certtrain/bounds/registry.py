"""The relaxations by name. A new one is a file in relaxation/, a YAML in conf/relaxation, and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from certtrain.bounds.base import Relaxation
from certtrain.bounds.relaxation.alpha_crown import AlphaCrown
from certtrain.bounds.relaxation.crown_ibp import CrownIBP
from certtrain.bounds.relaxation.deeppoly import DeepPoly
from certtrain.bounds.relaxation.hbox import HBox
from certtrain.bounds.relaxation.ibp import IBP
from certtrain.bounds.relaxation.intersection import Intersection
from certtrain.bounds.relaxation.zonotope import Zonotope
from certtrain.errors import ConfigError
from certtrain.spelling import did_you_mean

NATIVE: Mapping[str, type[Relaxation]] = {
    "ibp": IBP,
    "hbox": HBox,
    "zonotope": Zonotope,
    "crown_ibp": CrownIBP,
    "deeppoly": DeepPoly,
    "alpha_crown": AlphaCrown,
}
AUTO_LIRPA = ("ibp", "crown_ibp", "deeppoly")
BACKENDS = ("native", "auto_lirpa")
# Options of native relaxations that another backend does not know, with the value that asks nothing of it.
ONLY_NATIVE: Mapping[str, Any] = {"lower_slope": "adaptive", "memory_mb": None}


def relaxations() -> tuple[str, ...]:
    """Names of all native relaxations, loosest family first."""
    return tuple(NATIVE)


def build(name: str, backend: str = "native", **options: Any) -> Relaxation:
    """Makes a relaxation from its name and options.

    Args:
        name: One of `relaxations()`, or "intersection" with `parts`, a list of their names.
        backend: "native", or "auto_lirpa" for ibp, crown_ibp and deeppoly.
        **options: Fields of the relaxation, for example `lower_slope` or `intersect`.

    Raises:
        ConfigError: If there is no such relaxation, backend or option, or an option's value is not legal.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"relaxation.backend must be one of {', '.join(BACKENDS)}, got '{backend}'")
    if name == "intersection" and backend == "native":
        return _intersection(**options)
    if name not in (*NATIVE, "intersection"):
        known = tuple(NATIVE) if backend == "native" else AUTO_LIRPA
        possible = f"one of {', '.join(known)}{did_you_mean(str(name), known)}"
        raise ConfigError(f"unknown relaxation '{name}' for backend {backend}: {possible}")
    if backend == "auto_lirpa":
        return _auto_lirpa(name, options)
    return _make(NATIVE[name], name, options)


def _auto_lirpa(name: str, options: Mapping[str, Any]) -> Relaxation:
    """The native options, which a configuration always holds, as auto_LiRPA knows them; then its own."""
    from certtrain.bounds.backends.auto_lirpa import AutoLirpa  # optional dependency

    if name not in AUTO_LIRPA:
        raise ConfigError(
            f"relaxation {name} needs relaxation.backend=native: auto_LiRPA is asked for one of {', '.join(AUTO_LIRPA)}"
        )
    own = {key: value for key, value in options.items() if key not in ONLY_NATIVE and key != "intersect"}
    for option, only in ONLY_NATIVE.items():
        if (value := options.get(option, only)) != only:
            default = "null" if only is None else only
            raise ConfigError(f"relaxation.{option}={value} needs backend native; auto_lirpa has {default} only")
    return _make(AutoLirpa, name, {"method": name, "sparse_intermediate": options.get("intersect", True), **own})


def _intersection(parts: Any = ("ibp", "deeppoly"), **options: Any) -> Intersection:
    if options:
        raise ConfigError(f"relaxation intersection has no option '{next(iter(options))}': only 'parts'")
    names = [parts] if isinstance(parts, str) else parts
    if not isinstance(names, (list, tuple)):
        raise ConfigError(f"relaxation.parts must be a list of relaxations such as [ibp,deeppoly], got {parts!r}")
    return Intersection(tuple(build(str(part)) for part in names))


def _make(kind: type[Relaxation], name: str, options: Mapping[str, Any]) -> Relaxation:
    hints = get_type_hints(kind)
    legal = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for option, value in options.items():
        if option not in legal:
            raise ConfigError(f"relaxation {name} has no option '{option}': {', '.join(legal) or 'it has none'}")
        hint = hints[option]
        choices = (True, False) if hint is bool else get_args(hint) if get_origin(hint) is Literal else ()
        if choices and value not in choices:
            raise ConfigError(
                f"relaxation.{option} must be one of {', '.join(str(c).lower() for c in choices)}, got '{value}'"
            )
    return kind(**options)

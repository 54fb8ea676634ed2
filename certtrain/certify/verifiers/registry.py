"""Verifiers by name, and from whatever a caller of `certify` has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from certtrain.bounds import Relaxation, build
from certtrain.bounds.registry import NATIVE
from certtrain.certify.verifiers.base import Verifier
from certtrain.certify.verifiers.relaxation import RelaxationVerifier
from certtrain.errors import ConfigError
from certtrain.spelling import did_you_mean

Given = str | tuple[str, Relaxation] | Verifier


def resolve(given: str | Sequence[Given]) -> tuple[Verifier, ...]:
    """Verifiers from names, (name, relaxation) pairs, or verifiers.

    Raises:
        ConfigError: If there is none, no such relaxation, or two have the same name.
    """
    if not isinstance(given, Iterable):
        raise ConfigError(f"relaxations must be a list of names or (name, relaxation) pairs, got {given!r}")
    items = (given,) if isinstance(given, str) else tuple(given)
    if not items:
        raise ConfigError("relaxations must name at least one verifier, such as 'ibp'")
    verifiers = tuple(_verifier(item) for item in items)
    names = [v.name for v in verifiers]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"two verifiers are named '{twice}': give each its own name")
    return verifiers


def make(name: str, relaxation: str, backend: str = "native", **options: Any) -> Verifier:
    """A verifier from plain values.

    Args:
        name: Under which its results are reported.
        relaxation: See `bounds.build`.
        backend: See `bounds.build`.
        **options: See `bounds.build`.

    Raises:
        ConfigError: If there is no such relaxation or option, or the name promises another one.
    """
    # Numbers under the name of a relaxation are compared with everybody's.
    if name in (*NATIVE, "intersection") and (name, "native") != (relaxation, backend):
        what = relaxation if backend == "native" else f"{relaxation} by {backend}"
        raise ConfigError(f"what {what} computes would be reported as {name}: choose another name")
    return RelaxationVerifier(name, build(relaxation, backend, **options))


def choose(names: Sequence[str], nodes: Mapping[str, Mapping[str, Any]]) -> tuple[Verifier, ...]:
    """The verifiers of a configuration.

    Args:
        names: In the order in which they are asked.
        nodes: Name -> its relaxation (`name`), `backend` and options. A relaxation without a node has its defaults.

    Raises:
        ConfigError: One line that names the key.
    """
    found: list[Verifier] = []
    for name in names:
        node = dict(nodes.get(name, {"name": name}))
        if name not in nodes and name not in (*NATIVE, "intersection"):
            known = tuple(dict.fromkeys((*NATIVE, *nodes)))
            other = did_you_mean(name, known) or f", or one of your own: +relaxation@verifier.{name}=deeppoly"
            raise ConfigError(f"certify.verifiers: unknown verifier '{name}': one of {', '.join(known)}{other}")
        try:
            found.append(make(name, node.pop("name"), node.pop("backend", "native"), **node))
        except ConfigError as error:
            raise ConfigError(f"verifier.{name}: {error}") from error
    try:
        return resolve(found)
    except ConfigError as error:
        raise ConfigError(f"certify.verifiers: {error}") from error


def _verifier(item: Given) -> Verifier:
    match item:
        case Verifier():
            return item
        case str():
            return RelaxationVerifier(item, build(item))
        case (str() as name, Relaxation() as relaxation):
            return RelaxationVerifier(name, relaxation)
    raise ConfigError(f"a verifier is a relaxation's name or a pair (name, relaxation), got {item!r}")

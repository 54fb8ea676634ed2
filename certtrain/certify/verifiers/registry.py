"""Verifiers by name, and from whatever a caller of `certify` has.

A relaxation is one already. What is none is a class in `VERIFIERS`, whose fields beside the name are its options.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from certtrain.bounds import Intersection, Relaxation, build
from certtrain.bounds.registry import NATIVE
from certtrain.certify.arithmetic import FLOAT64, Arithmetic
from certtrain.certify.verdict import ATTACK, PREDICTION
from certtrain.certify.verifiers.bab import Bab
from certtrain.certify.verifiers.base import Verifier
from certtrain.certify.verifiers.milp import Milp
from certtrain.certify.verifiers.relaxation import RelaxationVerifier
from certtrain.errors import ConfigError
from certtrain.spelling import did_you_mean

# Verifiers that are no relaxations.
VERIFIERS: Mapping[str, type[Verifier]] = {"bab": Bab, "milp": Milp}
# Names that promise what computes.
RESERVED: Mapping[str, type[Relaxation | Verifier]] = {**NATIVE, "intersection": Intersection, **VERIFIERS}

Given = str | tuple[str, Relaxation] | Verifier


def resolve(given: str | Sequence[Given], arithmetic: Arithmetic = FLOAT64) -> tuple[Verifier, ...]:
    """Verifiers from names, (name, relaxation) pairs, or verifiers.

    Args:
        given: What is asked, in order.
        arithmetic: In which margins are judged. The usual one leaves verifiers that are given as they are.

    Raises:
        ConfigError: If there is none, no such relaxation, or a name that would be misunderstood.
    """
    if not isinstance(given, Iterable):
        raise ConfigError(f"relaxations must be a list of names or (name, relaxation) pairs, got {given!r}")
    items = (given,) if isinstance(given, str) else tuple(given)
    if not items:
        raise ConfigError("relaxations must name at least one verifier, such as 'ibp'")
    verifiers = tuple(_verifier(item) for item in items)
    if arithmetic != FLOAT64:
        verifiers = tuple(verifier.judged_in(arithmetic) for verifier in verifiers)
    for verifier in verifiers:
        _check_name(verifier)
    names = [v.name for v in verifiers]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"two verifiers are named '{twice}': give each its own name")
    return verifiers


def choose(
    names: Sequence[str],
    nodes: Mapping[str, Mapping[str, Any]],
    arithmetic: Arithmetic = FLOAT64,
) -> tuple[Verifier, ...]:
    """The verifiers of a configuration.

    Args:
        names: In the order in which they are asked.
        nodes: Name -> its relaxation or verifier (`name`), a relaxation's `backend`, and options. What has no node has
            its defaults.
        arithmetic: In which margins are judged.

    Raises:
        ConfigError: One line that names the key, also about a node that is not asked for.
    """
    made = {name: _of_node(name, node) for name, node in nodes.items()}
    known = tuple(dict.fromkeys((*NATIVE, *VERIFIERS, *made)))
    for name in names:
        if name not in made and name not in RESERVED:
            other = did_you_mean(name, known) or f", or one of your own: +relaxation@verifier.{name}=deeppoly"
            raise ConfigError(f"certify.verifiers: unknown verifier '{name}': one of {', '.join(known)}{other}")
    try:
        return resolve([made.get(name, name) for name in names], arithmetic)
    except ConfigError as error:
        raise ConfigError(f"certify.verifiers: {error}") from error


def _of_node(name: str, node: Mapping[str, Any]) -> Verifier:
    options = {key: value for key, value in node.items() if key != "name"}
    try:
        verifier = _make(node["name"], name, options)
        _check_name(verifier)
    except ConfigError as error:
        raise ConfigError(f"verifier.{name}: {error}") from error
    return verifier


def _make(what: str, name: str, options: Mapping[str, Any]) -> Verifier:
    """A relaxation as a verifier, or what is none; a relaxation that the latter is composed with is given by name."""
    if what not in VERIFIERS:
        return RelaxationVerifier(name, build(what, **options))
    # The arithmetic is everybody's, chosen by `certify.arithmetic`.
    legal = [field.name for field in fields(VERIFIERS[what]) if field.name not in ("name", "arithmetic")]
    for option in options:
        if option not in legal:
            raise ConfigError(f"verifier {what} has no option '{option}': {', '.join(legal) or 'it has none'}")
    given = dict(options)
    if isinstance(given.get("relaxation"), str):
        given["relaxation"] = build(given["relaxation"])
    return VERIFIERS[what](name=name, **given)


def _check_name(verifier: Verifier) -> None:
    """A result is found by its verifier's name: in the ledger, in its settings, and by people who compare numbers."""
    name = verifier.name
    if not name or name in (PREDICTION, ATTACK) or ": " in name:
        raise ConfigError(f"a verifier cannot be named '{name}': give it another name, without ': '")
    promised = RESERVED.get(name.lower())
    computes = verifier.relaxation if isinstance(verifier, RelaxationVerifier) else verifier
    if promised is not None and type(computes) is not promised:
        raise ConfigError(f"what {verifier.options()} computes would be reported as {name}: choose another name")


def _verifier(item: Given) -> Verifier:
    match item:
        case Verifier():
            return item
        case str():
            return _make(item, item, {})
        case (str() as name, Relaxation() as relaxation):
            return RelaxationVerifier(name, relaxation)
    raise ConfigError(f"a verifier is a relaxation's name or a pair (name, relaxation), got {item!r}")

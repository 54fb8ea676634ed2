"""A run directory as other processes find it: what is run there, how far it is, and whether it has finished."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from certtrain.certify.verifiers import choose
from certtrain.cli.code import CODE
from certtrain.cli.lock import NAME, holder
from certtrain.cli.schema import Node
from certtrain.earlier import completed
from certtrain.errors import ConfigError
from certtrain.files import replacing
from certtrain.sweep.jobs import OUTPUT, TRACEBACK

CONFIG = "config.yaml"
# How a run is watched over, not what it computes: these keys may be others when it goes on.
WATCHING = ("resume", "checkpoint", "preemption", "logger", "sweep")
PARTIAL = f"{CONFIG}.partial"
# What is there before a run has begun: Hydra's files, the lock, and what a sweep keeps of its jobs.
PRELIMINARY = (".hydra", "certtrain.log", NAME, PARTIAL, CODE, f"{CODE}.partial", OUTPUT, "output-*.log", TRACEBACK)


@dataclass(frozen=True)
class RunDirectory:
    """A directory that may hold a run.

    Attributes:
        path: Where.
    """

    path: Path

    @property
    def free(self) -> bool:
        """Whether nothing is there, or nothing but what stands there before a run has begun."""
        return not self.path.exists() or (
            self.path.is_dir() and all(any(map(entry.match, PRELIMINARY)) for entry in self.path.iterdir())
        )

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end: the report is the last thing that is written."""
        return (self.path / "summary.json").is_file() and (self.path / "report.html").is_file()

    @property
    def holder(self) -> str | None:
        """The process that is at work there, in words; None if there is none."""
        return holder(self.path)

    @property
    def checkpoints(self) -> Path:
        """Its checkpoints."""
        return self.path / "checkpoints"

    def configuration(self) -> Node | None:
        """The resolved configuration; None where no run has begun."""
        try:
            node = OmegaConf.to_container(OmegaConf.load(self.path / CONFIG))
        except (OSError, YAMLError, OmegaConfBaseException, ValueError, TypeError, RecursionError):
            return None  # whatever it is, it is no configuration that this program has written
        return {str(key): value for key, value in node.items()} if isinstance(node, dict) else None

    def write_configuration(self, node: Node) -> None:
        """Writes the resolved configuration, at once."""
        with replacing(self.path / CONFIG) as partial:
            OmegaConf.save(OmegaConf.create(node), partial)


def difference(there: Node, here: Node) -> str | None:
    """The first key in which two configurations are different runs, with both values; None if they are the same run."""
    return next(_differences(_compared(there), _compared(here), ""), None)


def _compared(node: Node) -> Node:
    """What makes a run what it is: options of verifiers that it asks, whether or not they stand there."""
    kept = completed({key: value for key, value in node.items() if key not in (*WATCHING, "verifier")})
    try:
        verifiers = choose(node["certify"]["verifiers"], node.get("verifier") or {})
    except (ConfigError, LookupError, TypeError, AttributeError):  # whatever it is, another version wrote it
        return {**kept, "verifier": node.get("verifier")}
    return {**kept, "verifier": {verifier.name: verifier.options() for verifier in verifiers}}


def _differences(there: Any, here: Any, key: str) -> Iterator[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        for name in sorted({*there, *here}):
            yield from _differences(there.get(name), here.get(name), f"{key}.{name}".lstrip("."))
    elif isinstance(there, (list, tuple)) and isinstance(here, (list, tuple)):
        if list(there) != list(here):
            yield f"{key} is {list(there)} there, {list(here)} here"
    elif there != here:
        yield f"{key} is {there} there, {here} here"

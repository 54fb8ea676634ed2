"""A run directory as other processes find it: what is run there, how far it is, and whether it has finished."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from certtrain.certify.verifiers import choose
from certtrain.cli.configuration.schema import Node, RunConfig, parse
from certtrain.cli.rundir.code import CODE, tell_changes
from certtrain.earlier import completed
from certtrain.errors import ConfigError
from certtrain.files import replacing
from certtrain.lock import NAME, holder
from certtrain.report.origin import FILE as ORIGIN
from certtrain.report.summary import read_summary
from certtrain.sweep.jobs import OUTPUT, PRUNED, REPORT, SUMMARY, TRACEBACK
from certtrain.training.survival import BEST, LAST, newest, reached_step

CONFIG = "config.yaml"
# How a run is watched over, not what it computes: these keys may be others when it goes on.
WATCHING = ("resume", "checkpoint", "preemption", "logger", "sweep")
PARTIAL = f"{CONFIG}.partial"
METRICS = "metrics.jsonl"
# What a run has come to, and what was found out of that afterwards; it is another one's if the run goes on.
RESULTS = (
    SUMMARY,
    REPORT,
    "ledger*",
    "curves.*",
    "margins.*",
    "images.*",
    "certifications",
    "landscape",
    "analysis",
    "export",
)
EARLIER = "earlier"
# What is there before a run has begun: Hydra's files, the lock, and what a sweep keeps of its jobs.
PRELIMINARY = (
    ".hydra",
    "certtrain.log",
    NAME,
    PARTIAL,
    CODE,
    f"{CODE}.partial",
    OUTPUT,
    "output-*.log",
    TRACEBACK,
    PRUNED,
)


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
        return (self.path / SUMMARY).is_file() and (self.path / REPORT).is_file()

    @property
    def holder(self) -> str | None:
        """The process that is at work there, in words; None if there is none."""
        return holder(self.path)

    @property
    def checkpoints(self) -> Path:
        """Its checkpoints."""
        return self.path / "checkpoints"

    @property
    def judged(self) -> Path:
        """The checkpoint of the weights that the run judges: what its numbers are about.

        summary.json names it. A run that has not come that far, or of before that was recorded, judges its best one,
        and the last one where it never validated.

        Raises:
            CerttrainError: If there is none, or the one that was judged is gone: others have other numbers.
        """
        summary = self.path / SUMMARY
        name = read_summary(summary).get("checkpoint") if summary.is_file() else None
        if isinstance(name, str):
            if not (self.checkpoints / name).is_file():
                raise ConfigError(f"{self.checkpoints / name}, which the run has judged, is gone")
            return self.checkpoints / name
        found = next((self.checkpoints / n for n in (BEST, LAST) if (self.checkpoints / n).is_file()), None)
        if found is None:
            raise ConfigError(f"{self.checkpoints} holds no checkpoint: the run has not got so far")
        return found

    def configuration(self) -> Node | None:
        """The resolved configuration; None where no run has begun."""
        try:
            node = OmegaConf.to_container(OmegaConf.load(self.path / CONFIG))
        except (OSError, YAMLError, OmegaConfBaseException, ValueError, TypeError, RecursionError):
            return None  # whatever it is, it is no configuration that this program has written
        return {str(key): value for key, value in node.items()} if isinstance(node, dict) else None

    def set_results_aside(self) -> Path | None:
        """Keeps what the run has come to in a run directory of its own below this one, before it goes on to more.

        Interrupted anywhere, it can be repeated. Checkpoints are the same files in both places until the run replaces
        its own, which it does by new files.

        Returns:
            That directory; None if the run had come to nothing yet.
        """
        results = [path for pattern in RESULTS for path in sorted(self.path.glob(pattern))]
        last = newest(self.checkpoints)
        if not results or last is None:
            return None
        kept = self.path / EARLIER / f"step-{reached_step(last)}"
        if not kept.exists():
            partial = kept.with_name(f"{kept.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            for path in (*results, *(self.path / name for name in (CONFIG, METRICS, ORIGIN))):
                _copy(path, partial / path.name)
            shutil.copytree(self.checkpoints, partial / self.checkpoints.name, copy_function=_link)
            partial.replace(kept)
        # The summary first: without it the run has not finished.
        for path in sorted(results, key=lambda path: path.name != SUMMARY):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return kept

    def write_configuration(self, node: Node) -> None:
        """Writes the resolved configuration, at once."""
        with replacing(self.path / CONFIG) as partial:
            OmegaConf.save(OmegaConf.create(node), partial)


def parse_recorded(node: Node, directory: Path) -> RunConfig:
    """Types and checks the configuration that a run directory holds, of any version.

    Raises:
        ConfigError: Naming the file, and what is wrong with which key.
    """
    try:
        return parse(completed(node))
    except ConfigError as error:
        raise ConfigError(f"{directory / CONFIG}: {error}") from error


def read_run(directory: Path, command: str = "") -> tuple[Node, RunConfig]:
    """The configuration that a run directory holds, as it is and typed; tells what code of the user's own has changed.

    Args:
        directory: Of the run.
        command: Who asks, in front of what is wrong with the directory.

    Raises:
        ConfigError: If it is no run directory, or something is wrong with its configuration.
    """
    node = RunDirectory(directory).configuration()
    tell_changes(directory)
    if node is None:
        asked = f"{command}: " if command else ""
        raise ConfigError(f"{asked}{directory} is no run directory: it has no config.yaml of a run")
    return node, parse_recorded(node, directory)


@dataclass(frozen=True)
class Change:
    """A key in which two configurations are different runs; str() says it with both values.

    Attributes:
        key: Dotted.
        there: Its value in the one.
        here: In the other; None where it is missing.
    """

    key: str
    there: Any
    here: Any

    def __str__(self) -> str:
        return f"{self.key} is {self.there} there, {self.here} here"


def difference(there: Node, here: Node) -> str | None:
    """The first key in which two configurations are different runs, with both values; None if they are the same run."""
    return next(map(str, changes(there, here)), None)


def changes(there: Node, here: Node) -> list[Change]:
    """All keys in which two configurations are different runs."""
    return list(_differences(_compared(there), _compared(here), ""))


def _compared(node: Node) -> Node:
    """What makes a run what it is: options of verifiers that it asks, whether or not they stand there."""
    kept = completed({key: value for key, value in node.items() if key not in (*WATCHING, "verifier")})
    try:
        verifiers = choose(node["certify"]["verifiers"], node.get("verifier") or {})
    except (ConfigError, LookupError, TypeError, AttributeError):  # whatever it is, another version wrote it
        return {**kept, "verifier": node.get("verifier")}
    return {**kept, "verifier": {verifier.name: verifier.options() for verifier in verifiers}}


def _differences(there: Any, here: Any, key: str) -> Iterator[Change]:
    if isinstance(there, dict) and isinstance(here, dict):
        for name in sorted({*there, *here}):
            yield from _differences(there.get(name), here.get(name), f"{key}.{name}".lstrip("."))
    elif isinstance(there, (list, tuple)) and isinstance(here, (list, tuple)):
        if list(there) != list(here):
            yield Change(key, list(there), list(here))
    elif there != here:
        yield Change(key, there, here)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.is_file():
        shutil.copy2(source, target)


def _link(source: str, target: str) -> None:
    """A second name of a file, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)

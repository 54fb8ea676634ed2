"""Where the run of a command goes: into a new directory, or on in the one where it stopped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from certtrain.cli.configuration.schema import Node
from certtrain.cli.rundir.code import find_code
from certtrain.cli.rundir.directory import CONFIG, RunDirectory, changes, difference
from certtrain.cli.rundir.extension import EPOCHS, STEPS, check_extension
from certtrain.cli.rundir.moving import moves, tell_moves
from certtrain.errors import CerttrainError, ConfigError
from certtrain.training.survival import newest, reached_step

NOW = "${now:"


@dataclass(frozen=True)
class Place:
    """Where a run goes.

    Attributes:
        directory: A directory in which it goes on; None: a new one, which Hydra makes.
        finished: Whether it has come to its end there, so that nothing is left to do.
        note: What changes for it, where it is told more than it was; None if nothing does.
    """

    directory: Path | None = None
    finished: bool = False
    note: str | None = None


def find_place(composed: DictConfig, node: Node) -> Place:
    """Decides for one job of a command that is no sweep.

    Args:
        composed: Its composed configuration, node `hydra` included.
        node: The same, resolved, without that node.

    Raises:
        ConfigError: One line about why the run cannot go where it should.
    """
    resume = str(node["resume"])
    directory = Path(composed.hydra.run.dir)
    pattern = str(OmegaConf.to_container(composed.hydra.run, resolve=False)["dir"])  # type: ignore[index, call-overload]
    dated = NOW in pattern
    if resume not in ("auto", "never"):
        named = _named(Path(resume))
        if not dated and directory.resolve() != named.path.resolve():
            raise ConfigError(f"resume={resume} goes on in {named.path}: leave hydra.run.dir={directory} out")
        instead = f"fork={named.path} begins a new run with its weights"
        return _alter(named, node) or _continue(named, node, instead)
    run = RunDirectory(directory)
    if not run.free:
        if resume == "never" or run.configuration() is None:
            raise ConfigError(f"{directory} exists and is not empty: choose another hydra.run.dir")
        return _continue(run, node)
    return _search(directory, pattern, node) if resume == "auto" and dated else Place()


def _named(path: Path) -> RunDirectory:
    """The run that `resume=<path>` means."""
    if not path.exists():
        raise ConfigError(f"resume={path}: there is no such run directory or checkpoint")
    run = RunDirectory(path if path.is_dir() else path.resolve().parent.parent)
    find_code(run.path)  # own classes, which the current directory need not have
    if run.configuration() is None:
        raise ConfigError(f"resume={path}: no run has begun in {run.path}, which has no {CONFIG}")
    found = _newest(run)
    if path.is_dir() or found is None:
        return run
    if reached_step(path) < reached_step(found):
        raise ConfigError(
            f"resume={path}: its run is at step {reached_step(found)} by now, not {reached_step(path)}: "
            f"resume={run.path} goes on from there"
        )
    return run


def _alter(run: RunDirectory, node: Node) -> Place | None:
    """Where a run that is named goes on to more epochs or on another machine; None if it is asked for neither.

    Raises:
        ConfigError: If it would not end like one that was told so in the beginning.
    """
    there = run.configuration()
    assert there is not None
    moved, others = moves(changes(there, node))
    if not (moved or others) or any(change.key not in (EPOCHS, STEPS) for change in others):
        return None
    _check_free(run)
    if run.finished and not others:
        return Place(run.path, finished=True)
    _newest(run)
    notes = [check_extension(run, node, others)] if others else []
    return Place(run.path, note="; ".join([*notes, *tell_moves(run, moved)]))


def _check_free(run: RunDirectory) -> None:
    if (process := run.holder) is not None:
        raise ConfigError(f"{run.path} is in use by {process}")


def _continue(run: RunDirectory, node: Node, instead: str = "choose another hydra.run.dir") -> Place:
    there = run.configuration()
    assert there is not None
    moved, others = moves(changes(there, node))
    if others:
        raise ConfigError(f"{run.path} holds another run ({others[0]}): {instead}")
    if moved:
        raise ConfigError(f"{run.path} holds this run elsewhere ({moved[0]}): resume={run.path} moves it, or {instead}")
    _check_free(run)
    if not run.finished:
        _newest(run)
    return Place(run.path, run.finished)


def _newest(run: RunDirectory) -> Path | None:
    """The checkpoint that a run goes on from.

    Raises:
        ConfigError: If one cannot be read, with the ways out: it may be the only trace of hours of work.
    """
    try:
        return newest(run.checkpoints)
    except CerttrainError as error:
        raise ConfigError(
            f"{error}; resume=never begins a new run (in another hydra.run.dir, if one is given), and without this "
            "file the run goes on from the checkpoint that is left"
        ) from error


def _search(directory: Path, pattern: str, node: Node) -> Place:
    """The unfinished run of the same configuration that is furthest, among those where a new one would go."""
    parts = Path(pattern).parts
    depth = len(parts) - next(i for i, part in enumerate(parts) if NOW in part)
    root = directory.parents[depth - 1]
    best, step = Place(), -1
    for config in sorted(root.glob("/".join("*" * depth) + f"/{CONFIG}"), reverse=True):
        run = RunDirectory(config.parent)
        if run.finished or run.holder is not None:
            continue
        there = run.configuration()
        if there is None or difference(there, node) is not None:
            continue
        found = _newest(run)
        here = 0 if found is None else reached_step(found)
        if here > step:
            best, step = Place(run.path), here
    return best

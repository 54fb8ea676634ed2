"""`certtrain.train`: a job as the command line runs it, from a notebook or a script."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from certtrain.cli.configuration.parser import read_arguments
from certtrain.cli.job.announce import FILE
from certtrain.cli.rundir.directory import RunDirectory
from certtrain.errors import CerttrainError, ConfigError
from certtrain.runs.own import folder_of_certtrain, own_target
from certtrain.runs.own_data import own_data
from certtrain.runs.process import Ended, run_process, to_nobody, to_standard_output
from certtrain.runs.run import Run
from certtrain.runs.state import failure
from certtrain.sweep.environment import cleaned
from certtrain.sweep.jobs import TRACEBACK


class RunFailed(CerttrainError):
    """A run that `certtrain.train` started has not come to a good end; its message is one line.

    Attributes:
        directory: Where the run is, with what it wrote so far; None if it was refused before it began.
        exit_code: Of its process.
    """

    def __init__(self, message: str, directory: Path | None = None, exit_code: int = 2) -> None:
        super().__init__(message)
        self.directory = directory
        self.exit_code = exit_code


def train(
    overrides: Sequence[str] = (), *, model: Any = None, loss: Any = None, data: Any = None, output: bool = True
) -> Run:
    """Runs one job in a process of its own, as `python -m certtrain OVERRIDES` does, and waits for its end.

    An unfinished run of the same call goes on where it stopped, and a finished one under the same `hydra.run.dir` is
    not run again. KeyboardInterrupt lets the job save and end; a second one ends it at once.

    Args:
        overrides: As they are typed, such as ["method=grad", "eps=0.1"].
        model: A network of one's own instead of `model=`: a class of a module, a function that makes it, its dotted
            name, or functools.partial of it with arguments. It is called with those of input_shape, num_classes, mean
            and std that it names.
        loss: A loss of one's own instead of `loss=`, likewise, or an instance of a dataclass.
        data: A data set of one's own instead of `data=`: see `certtrain.runs.own_data.own_data`.
        output: Whether the output of the job is printed as it comes.

    Returns:
        The run.

    Raises:
        ConfigError: If an argument cannot be handed over to another process.
        RunFailed: If the job was refused, failed, or was stopped by somebody else; one line.
        KeyboardInterrupt: If it was interrupted.
    """
    words = _checked(overrides)
    for key, argument in (("model", model), ("loss", loss), ("data", data)):
        if argument is not None and (
            twice := [word for word in words if word.startswith((f"{key}=", f"{key}._target_="))]
        ):
            raise ConfigError(f"train: {key} is given twice, as an argument and as '{twice[0]}'")
    given = [own_target("model", model), own_target("loss", loss), own_data(data)]
    arguments = [*(word for each in given for word in each.overrides), *words]
    folders = [folder for each in given for folder in each.folders]
    with tempfile.TemporaryDirectory(prefix="certtrain-") as folder:
        told = Path(folder, "directory")
        environment = {**_environment(folders), FILE: str(told)}
        command = [sys.executable, "-m", "certtrain", *arguments]
        ended = run_process(command, environment, to_standard_output if output else to_nobody)
        directory = Path(told.read_text(encoding="utf-8")) if told.is_file() else None
    return _concluded(ended, directory)


def _checked(overrides: Sequence[str]) -> list[str]:
    """The words of a command line of one job.

    Raises:
        ConfigError: If they are none.
    """
    if isinstance(overrides, str) or not isinstance(overrides, Iterable):
        raise ConfigError(f'train: overrides are a list such as ["method=grad", "eps=0.1"], not {overrides!r:.60}')
    words = list(overrides)
    if wrong := [word for word in words if not isinstance(word, str)]:
        raise ConfigError(f'train: an override is a word such as "eps=0.1", not {wrong[0]!r:.60}')
    found = read_arguments(words)
    if found.multirun:
        raise ConfigError("train: runs one job; sweeps (-m) are started from the command line")
    others = [
        name for name in ("cfg", "info", "help", "hydra_help", "version", "shell_completion") if getattr(found, name)
    ]
    if others:
        raise ConfigError(f"train: --{others[0].replace('_', '-')} belongs to the command line")
    return words


def _environment(folders: Sequence[str]) -> dict[str, str]:
    """Of the job: this process's, without its place in another run, and with the folders of own code."""
    environment = cleaned(os.environ)
    # A notebook's is for notebooks; the pictures of a run are files.
    environment.pop("MPLBACKEND", None)
    own = [*folders, *filter(None, [folder_of_certtrain(), environment.get("PYTHONPATH")])]
    if own:
        environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(own))
    return {**environment, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}


def _concluded(ended: Ended, directory: Path | None) -> Run:
    """The run, or what its end means."""
    if ended.interrupted:
        raise KeyboardInterrupt
    finished = directory is not None and RunDirectory(directory).finished
    if ended.code == 0 and finished and directory is not None:
        return Run.load(_nearby(directory))
    raise RunFailed(_reason(ended, directory, finished), None if directory is None else _nearby(directory), ended.code)


def _reason(ended: Ended, directory: Path | None, finished: bool) -> str:
    if ended.error:
        return ended.error
    if ended.code < 0:
        name = signal.Signals(-ended.code).name
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"the process of the run was ended by {name}{hint}; the same call goes on with it"
    said = "" if directory is None else failure(directory / TRACEBACK)
    if ended.code == 1:
        where = "" if directory is None else f"; see {directory / TRACEBACK}"
        return f"the run failed: {said or 'its output says why'}{where}"
    stopped = "" if finished else " was stopped by a signal before its end; the same call goes on with it"
    return f"the run{stopped or f' ended with exit code {ended.code}'}"


def _nearby(directory: Path) -> Path:
    """Relative to the current directory where it is below it, as the command line has it."""
    here = Path.cwd()
    return directory.relative_to(here) if directory.is_relative_to(here) else directory

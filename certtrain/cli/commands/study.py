"""`python -m certtrain study`: several sweeps that belong together, one after the other, and what came out of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import Field, ValidationError
from rich.console import Console
from rich.markup import escape

from certtrain.cli.commands import report
from certtrain.cli.commands.collect import write
from certtrain.cli.configuration.complaints import complaint
from certtrain.cli.configuration.compose import with_configured_sweep
from certtrain.cli.configuration.parser import Parser
from certtrain.cli.configuration.schema import Strict
from certtrain.cli.rundir.recorded import parse_command
from certtrain.errors import CerttrainError, ConfigError
from certtrain.sweep.environment import cleaned
from certtrain.sweep.launcher import quoted
from certtrain.sweep.stop import Stop

POLL_SECONDS = 0.2


class StudyFailed(CerttrainError):
    """Sweeps of a study had failures."""


class StudyFile(Strict):
    """What a study is made of.

    Attributes:
        directory: Where its sweeps go, one folder each, and what is collected from them.
        common: Overrides of every sweep.
        sweeps: Name -> overrides of one sweep.
    """

    directory: str
    common: list[str]
    sweeps: dict[str, list[str]] = Field(min_length=1)


@dataclass(frozen=True)
class Sweep:
    """One sweep of a study.

    Attributes:
        directory: Its folder.
        arguments: Of the command that runs it.
    """

    directory: Path
    arguments: tuple[str, ...]


def study_command(arguments: list[str]) -> None:
    """Checks all sweeps of a study, runs them, and collects their runs.

    Args:
        arguments: What follows `study` on the command line.

    Raises:
        CerttrainError: If the study cannot run, or a job of it failed.
        KeyboardInterrupt: If it was interrupted.
    """
    parser = Parser(
        prog="python -m certtrain study",
        description="Runs the sweeps of a study, collects them and writes their report; run again, it goes on with "
        "what has no result yet.",
    )
    parser.add_argument("file", type=Path, help="such as studies/digits.yaml")
    parser.add_argument("override", nargs="*", default=[], help="further overrides of every sweep, as key=value")
    parser.add_argument("--output", type=Path, help="instead of the directory that the study names")
    found = parser.parse_args(arguments)
    study = read(found.file)
    output = found.output or Path(study.directory)
    sweeps = plan(study, output, found.override)
    check(sweeps)
    console = Console()
    failed = _run(sweeps, console)
    begun = [sweep.directory for sweep in sweeps if sweep.directory.is_dir()]
    write(console, begun, output)
    page = report.write(begun, report.ReportOptions(output=str(output / report.NAME)))
    console.print(f"report: {page}", markup=False, highlight=False, soft_wrap=True)
    if failed:
        raise StudyFailed(f"not everything was run: see {', '.join(failed)}; the same command runs what is missing")


def read(path: Path) -> StudyFile:
    """Reads the file of a study.

    Raises:
        ConfigError: One line about what is wrong.
    """
    try:
        return StudyFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"study: {path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"study: {path} is no YAML: {' '.join(str(error).split())}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"study: {path} is no text: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"study: {path}: {complaint(error)}") from error


def plan(study: StudyFile, output: Path, overrides: list[str]) -> list[Sweep]:
    """The commands of a study; overrides that are given come last and win."""
    return [
        Sweep(
            output / name,
            ("-m", *study.common, *own, *overrides, f"hydra.sweep.dir={quoted(str(output / name))}"),
        )
        for name, own in study.sweeps.items()
    ]


def check(sweeps: list[Sweep]) -> None:
    """Checks every job of every sweep before the first one starts.

    Raises:
        CerttrainError: One line about what is wrong.
    """
    from certtrain.cli.job.preflight import preflight

    for sweep in sweeps:
        preflight(with_configured_sweep(parse_command(list(sweep.arguments))))


def _run(sweeps: list[Sweep], console: Console) -> list[str]:
    """Runs the sweeps, each in a process of its own; the folders of those that did not come to a good end."""
    failed, stop = [], Stop()
    with stop.on_signals():
        for sweep in sweeps:
            console.rule(escape(str(sweep.directory)))
            process = subprocess.Popen(
                [sys.executable, "-m", "certtrain", *sweep.arguments], env=cleaned(os.environ), start_new_session=True
            )
            told = 0
            while process.poll() is None:
                # One signal each: the second one that a sweep gets kills its jobs.
                if stop.asked + stop.urgent > told:
                    told += 1
                    process.terminate()
                time.sleep(POLL_SECONDS)
            if stop.asked:
                raise KeyboardInterrupt
            if process.returncode:
                failed.append(str(sweep.directory))
    return failed

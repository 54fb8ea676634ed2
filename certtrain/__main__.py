"""`python -m certtrain` and the console script `certtrain`."""

from __future__ import annotations

import os
import sys
from importlib import import_module

from certtrain import __version__
from certtrain.cli.configuration.parser import COMMANDS, read_arguments
from certtrain.cli.process.output import tolerate_any_encoding, while_somebody_reads
from certtrain.cli.process.waiting import wait_briefly
from certtrain.errors import CerttrainError


def main() -> int:
    """Runs the command line; the exit code is 0, or 2 after one line about what is wrong."""
    wait_briefly(os.environ)  # first, because torch reads it while it is loaded; ranks and jobs inherit it
    tolerate_any_encoding()
    try:
        _look_here()
        _run(sys.argv[1:])
    except CerttrainError as error:
        return _complain(error)
    except KeyboardInterrupt:
        print("certtrain: interrupted", file=sys.stderr)
        return 130
    except OSError as error:  # a directory that cannot be made, a disk that is full
        named = error.filename is not None and error.strerror
        return _complain(f"{error.filename}: {error.strerror}" if named else error)
    return 0


def _run(arguments: list[str]) -> None:
    if arguments and arguments[0] in COMMANDS:
        module, name = COMMANDS[arguments[0]]
        getattr(import_module(module), name)(arguments[1:])
        return
    found = read_arguments(arguments)
    if found.help:
        from shutil import get_terminal_size

        from certtrain.cli.help.page import help_page  # without torch: help answers at once

        with while_somebody_reads():
            print(help_page(get_terminal_size((120, 24)).columns))
    elif found.version:
        print(f"certtrain {__version__}")
    else:
        from certtrain.cli.job.launch import launch

        launch(found)


def _look_here() -> None:
    """Lets `certtrain` find modules in the current directory, as `python -m certtrain` does."""
    here = os.getcwd()
    if not getattr(sys.flags, "safe_path", False) and not {here, ""} & set(sys.path):
        sys.path.insert(0, here)


def _complain(what: object) -> int:
    print(f"certtrain: error: {what}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())

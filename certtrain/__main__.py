"""`python -m certtrain` and the console script `certtrain`."""

from __future__ import annotations

import os
import sys
from importlib import import_module

from certtrain.errors import CerttrainError

# Beside training, whose command line is Hydra's: the first word -> what takes the others.
COMMANDS = {
    "collect": ("certtrain.cli.collect", "collect_command"),
    "study": ("certtrain.cli.study", "study_command"),
}


def main() -> int:
    """Runs the command line; the exit code is 0, or 2 after one line about what is wrong."""
    arguments = sys.argv[1:]
    command = COMMANDS.get(arguments[0]) if arguments else None
    if command is None and {"-h", "--help"} & set(arguments):
        from certtrain.cli.help import help_page  # without torch: help answers at once

        print(help_page())
        return 0
    # Hydra then lets exceptions through instead of printing its own version of them.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        if command is not None:
            module, name = command
            getattr(import_module(module), name)(arguments[1:])
        else:
            from certtrain.cli.launch import launch

            launch(arguments)
    except CerttrainError as error:
        print(f"certtrain: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("certtrain: interrupted", file=sys.stderr)
        return 130
    except OSError as error:  # a directory that cannot be made, a disk that is full
        print(f"certtrain: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

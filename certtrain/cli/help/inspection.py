"""What Hydra is only asked to show: a composed configuration, how it came about, words that complete a line."""

from __future__ import annotations

import argparse
import io
import os
import re
from contextlib import redirect_stdout

from hydra._internal.hydra import Hydra

from certtrain.cli.configuration.compose import CONFIG, Command, compose_jobs, hydra_for
from certtrain.cli.configuration.parser import COMMANDS, run_parser
from certtrain.errors import ConfigError

LINE = "COMP_LINE"
# What is asked of completion, and for which shells.
TASKS = ("install", "uninstall", "query")
SHELLS = ("bash", "zsh", "fish")
# What a shell completes is the whole line; Hydra knows `python file.py` and the names of programs.
SHOW = re.compile(r"^\s*certtrain\s+show\s+")
AS_MODULE = re.compile(r"^\s*\S*python[\d.]*\s+-m\s+certtrain\b")


def inspect(found: argparse.Namespace, command: Command) -> None:
    """Shows what was asked for; nothing is written.

    Raises:
        ConfigError: If it cannot be shown.
    """
    overrides = list(command.overrides)
    if found.cfg or found.info:
        next(compose_jobs(command))  # refused here as it is everywhere, where Hydra ends in its own errors
    with hydra_for(command) as app:
        if found.hydra_help:
            app.hydra_help(CONFIG, run_parser(), found)
        elif found.cfg:
            app.show_cfg(CONFIG, overrides, found.cfg, found.package, found.resolve)
        elif found.info:
            app.show_info(found.info, CONFIG, overrides)
        else:
            _complete(app, overrides)


def _complete(app: Hydra, overrides: list[str]) -> None:
    asked = dict(override.partition("=")[::2] for override in overrides)
    if [asked[word] in SHELLS for word in TASKS if word in asked] != [True]:
        raise ConfigError(f"--shell-completion takes one of {', '.join(TASKS)}=SHELL, a SHELL of {', '.join(SHELLS)}")
    if "query" not in asked:
        app.shell_completion(CONFIG, overrides)
        return
    line = AS_MODULE.sub("certtrain", os.environ.get(LINE, "certtrain "))
    show = SHOW.match(line)
    os.environ[LINE] = line = SHOW.sub("certtrain ", line)  # it takes what a run does
    words = line.split()[1:]
    if words and words[0] in COMMANDS and (len(words) > 1 or line.endswith(" ")):
        return  # a command takes files, which the shell knows
    begun = "" if not words or line.endswith(" ") else words[-1]
    if begun.startswith("-"):
        known = [flag for flag in _flags() if flag.startswith(begun)]
    else:
        printed = io.StringIO()
        with redirect_stdout(printed):
            app.shell_completion(CONFIG, overrides)
        first = len(words) == bool(begun) and not show
        known = printed.getvalue().split() + [name for name in COMMANDS if first and name.startswith(begun)]
    print(("\n" if asked["query"] == "fish" else " ").join(sorted(known)))


def _flags() -> list[str]:
    actions = (action for action in run_parser()._actions if action.help != argparse.SUPPRESS)
    return [flag for action in actions for flag in action.option_strings if flag.startswith("--")]

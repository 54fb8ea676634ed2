"""What may be typed beside key=value: commands and flags. Known without Hydra and without torch."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import NoReturn

from certtrain.cli.configuration.fractions import in_decimals
from certtrain.cli.configuration.sentences import GROUPS, KEYS
from certtrain.errors import ConfigError

# The first word -> module and function that take the others. Without one, a run or a sweep is asked for.
COMMANDS = {
    "analyze": ("certtrain.cli.commands.analyze", "analyze_command"),
    "certify": ("certtrain.cli.commands.certify", "certify_command"),
    "collect": ("certtrain.cli.commands.collect", "collect_command"),
    "dashboard": ("certtrain.cli.commands.dashboard", "dashboard_command"),
    "estimate": ("certtrain.cli.commands.estimate", "estimate_command"),
    "export": ("certtrain.cli.commands.export", "export_command"),
    "landscape": ("certtrain.cli.commands.landscape", "landscape_command"),
    "presets": ("certtrain.cli.commands.presets", "presets_command"),
    "report": ("certtrain.cli.commands.report", "report_command"),
    "show": ("certtrain.cli.commands.show", "show_command"),
    "study": ("certtrain.cli.commands.study", "study_command"),
    "sync": ("certtrain.cli.commands.sync", "sync_command"),
    "vnncomp": ("certtrain.cli.commands.vnncomp", "vnncomp_command"),
}
CFG = ("job", "hydra", "all")
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


class Parser(argparse.ArgumentParser):
    """A parser that complains in one line."""

    def error(self, message: str) -> NoReturn:
        """Refuses what was typed.

        Raises:
            ConfigError: Always.
        """
        command = self.prog.removeprefix("python -m certtrain").strip()
        see = " ".join(filter(None, ("python -m certtrain", command, "--help")))
        raise ConfigError(f"{command}: {message}; see {see}".removeprefix(": "))


def run_parser() -> Parser:
    """Hydra's flags, as far as certtrain has a use for them."""
    parser = Parser(prog="python -m certtrain", add_help=False)
    add = parser.add_argument
    add("overrides", nargs="*", help="group=choice or key=value")
    add("--help", "-h", action="store_true", help="groups, choices, frequent keys")
    add("--version", action="store_true", help="the version of certtrain")
    add("--run", "-r", action="store_true", help="one run, the default")
    add("--multirun", "-m", action="store_true", help="every combination of values that are separated by commas")
    add("--config-dir", "-cd", help="a folder with further choices, such as experiment/mine.yaml in it")
    add(
        "--cfg",
        "-c",
        nargs="?",
        const="job",
        choices=CFG,
        help="shows the composed configuration instead of running it",
    )
    add("--resolve", action="store_true", help="with --cfg: interpolations replaced by what they lead to")
    add("--package", "-p", help="with --cfg: this node only")
    add("--info", "-i", nargs="?", const="all", choices=INFO, help="shows how Hydra composes a configuration")
    add("--hydra-help", action="store_true", help="what Hydra itself understands")
    add("--shell-completion", "-sc", action="store_true", help="install=SHELL prints what makes a shell complete words")
    # Hydra has them too; told apart from a typing error.
    for name in ("--config-path", "--config-name", "--experimental-rerun"):
        add(name, help=argparse.SUPPRESS)
    return parser


def read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line of a run or a sweep, radii in decimals.

    Raises:
        ConfigError: If a flag or a word is none, or flags exclude each other.
    """
    parser = run_parser()
    for argument in arguments:
        if not argument.isprintable():
            _check_characters(argument)
    found, others = parser.parse_known_intermixed_args(list(arguments))
    flags = [flag for action in parser._actions for flag in action.option_strings]
    if others:
        raise ConfigError(
            f"unknown option {others[0]}{_similar(others[0], flags) or '; see python -m certtrain --help'}"
        )
    if found.config_path or found.config_name or found.experimental_rerun:
        raise ConfigError("--config-path, --config-name and --experimental-rerun are not supported: use --config-dir")
    modes = {"--run": found.run, "--multirun": found.multirun, "--cfg": found.cfg, "--info": found.info}
    asked = [name for name, value in {**modes, "--shell-completion": found.shell_completion}.items() if value]
    if len(asked) > 1:
        raise ConfigError(f"{' and '.join(asked)} exclude each other")
    if (found.resolve or found.package) and not found.cfg:
        raise ConfigError("--resolve and --package belong to --cfg")
    for word in found.overrides:
        if "=" not in word and not word.startswith("~"):
            raise ConfigError(_no_override(word))
    found.overrides = in_decimals(found.overrides)
    return found


def _check_characters(argument: str) -> None:
    try:
        argument.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ConfigError(f"{argument!a} is no UTF-8 text") from error


def _no_override(word: str) -> str:
    *others, last = COMMANDS
    commands = f"{', '.join(others)} and {last}"
    if word in COMMANDS:
        return f"{word} is a command: it must be the first word"
    if word in ("train", "run"):
        return f"'{word}' is no command: training needs none, as in python -m certtrain method=grad relaxation=ibp"
    if word in {**KEYS, **GROUPS}:
        return f"'{word}' is no key=value: write {word}=VALUE"
    return f"'{word}' is no key=value and no command{_similar(word, COMMANDS) or f'; commands are {commands}'}"


def _similar(word: str, legal: Sequence[str] | dict[str, tuple[str, str]]) -> str:
    close = difflib.get_close_matches(word.partition("=")[0], legal, n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""

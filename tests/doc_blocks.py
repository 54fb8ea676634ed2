"""The code blocks of a page: what each is, and how a block of commands is checked without being run."""

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep

from certtrain.cli.assembly.bounds import make_verifiers
from certtrain.cli.commands.certify import read_overrides
from certtrain.cli.configuration import parser as command_line
from certtrain.cli.configuration.compose import Command, compose_jobs
from certtrain.cli.configuration.parser import COMMANDS, Parser
from certtrain.cli.configuration.schema import parse, plain
from certtrain.cli.job.preflight import check_parts
from certtrain.cli.rundir.recorded import parse_command
from certtrain.cli.trained.measured import Measured

REPOSITORY = Path(__file__).resolve().parents[1]
# Pages that a reader copies from; what is in them has to work.
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
COMMANDS_IN = ("bash", "sh")
# What may stand in a fence and is not meant to be typed.
NOT_CODE = ("", "text", "math", "bibtex", "c")
# `<!-- run -->`: commands are run. `<!-- run slow -->`: among the slow tests. `<!-- not run: reason -->`: not checked.
MARK = re.compile(r"^<!-- (run|run slow|not run: .{8,}) -->$")
FENCE = re.compile(r"^( *)(```+|~~~+)(.*)$")
TITLE = re.compile(r'title="([^"]+)"')
INDENTED = re.compile(r"^ {4}(python -m |certtrain |make [a-z])", re.MULTILINE)
# In front of a command: assignments, and what starts ranks.
LAUNCHERS = ("torchrun", "srun", "nohup", "time", "python", "python3")
# Commands that read a run before they do anything, and commands that take the line of a run or a sweep.
MEASURING = ("analyze", "landscape")
COMPOSING = ("estimate",)
# Runs of the reader's, upon whose own configuration a command is composed: here upon the defaults instead.
OF_A_RUN = ("fork=", "resume=")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        kind: The first word behind the fence.
        title: The file that it is, relative to the folder of the reader; None for none.
        text: What stands in it.
        mark: The comment above it; "" for none.
        line: Of the page, where it begins.
    """

    kind: str
    title: str | None
    text: str
    mark: str
    line: int


def blocks_of(text: str) -> Iterator[Block]:
    """The fenced blocks of a page, and what is said about them above.

    Raises:
        ValueError: If a mark belongs to no block, or a fence does not end.
    """
    mark, opened, kept = "", None, []
    for number, line in enumerate(text.splitlines(), start=1):
        fence = FENCE.match(line)
        if opened is not None:
            indent, ticks, information, start = opened
            if fence and fence[2].startswith(ticks) and not fence[3].strip():
                title = TITLE.search(information)
                kind = information.split()[0] if information.split() else ""
                yield Block(kind, title[1] if title else None, "\n".join(kept) + "\n", mark, start)
                mark, opened, kept = "", None, []
            else:
                kept.append(line.removeprefix(indent))
        elif fence:
            opened = (fence[1], fence[2], fence[3].strip(), number)
        elif found := MARK.match(line.strip()):
            mark = found[1]
        elif line.strip() and mark:
            raise ValueError(f"line {number}: '{mark}' stands above no block")
        elif INDENTED.match(line):
            raise ValueError(f"line {number}: put commands into a fence, ```bash, so that they are checked")
    if opened is not None:
        raise ValueError(f"line {opened[3]}: the fence does not end")


def commands_in(text: str) -> Iterator[list[str]]:
    """The commands of a shell's block, each as its words; continued lines are one, comments and prompts are none."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        for separator in ("|", ">", "2>&1", "&&", ";", "&"):
            words = words[: words.index(separator)] if separator in words else words
        if words:
            yield words


def check_command(words: list[str]) -> None:
    """Checks a command as far as that is possible without running it.

    Raises:
        Exception: What the command would complain about, or that it is none.
    """
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert {word for word in words[1:] if "=" not in word} <= set(targets), f"no such target: {words}"
    elif words[:2] in (["pip", "install"], ["python", "-m"]) and "pip" in words[:3]:
        _check_extras(words)
    elif (arguments := _arguments(words)) is not None:
        check_arguments(tuple(arguments))
    elif words[:2] == ["python", "-m"]:
        assert find_spec(words[2]) is not None, f"no module {words[2]}"


def _arguments(words: list[str]) -> list[str] | None:
    """What certtrain is given; None where another program is called."""
    program = next(iter(word for word in words if not re.match(r"[A-Z_]+=", word)), "")
    for number, word in enumerate(words):
        if word == "-m" and words[number + 1 : number + 2] == ["certtrain"] and program in LAUNCHERS:
            return words[number + 2 :]
    return words[words.index("certtrain") + 1 :] if program == "certtrain" else None


def _check_extras(words: list[str]) -> None:
    declared = (REPOSITORY / "setup.cfg").read_text(encoding="utf-8")
    for word in words:
        for extras in re.findall(r"^(?:certtrain|\.)\[([^\]]+)\]", word):
            for extra in extras.split(","):
                assert re.search(rf"^{extra.replace('-', '[-_]')} =$", declared, re.MULTILINE), f"no extra {extra}"


class Understood(Exception):
    """A command has understood its arguments and would now begin."""


@cache
def check_arguments(arguments: tuple[str, ...]) -> None:
    """Composes and types every job of a command line; a command's own arguments are parsed by itself."""
    if arguments and arguments[0] in COMMANDS:
        _check_subcommand(arguments[0], list(arguments[1:]))
        return
    found = command_line.read_arguments(arguments)
    if found.help or found.version or found.shell_completion or found.hydra_help:
        return
    command = parse_command([word for word in arguments if not word.startswith(OF_A_RUN)])
    for overrides in _jobs(command):
        (job,) = compose_jobs(replace(command, overrides=overrides, multirun=False))
        config = parse(plain(job))
        make_verifiers(config)
        if command.config_dir is not None:  # what a reader has written has to fit, too
            check_parts(config)


def _jobs(command: Command) -> Iterator[tuple[str, ...]]:
    """So many of a sweep's jobs that every value of every key is in one of them."""
    choices = []
    for override in OverridesParser.create().parse_overrides(list(command.overrides)):
        key = override.get_key_element()
        value = override.value()
        swept: Iterable[Any] = ()
        if isinstance(value, IntervalSweep):  # of a search: both ends
            swept = (value.start, value.end)
        elif override.is_sweep_override():
            swept = override.sweep_string_iterator()
        choices.append([f"{key}={value}" for value in swept] or [str(override.input_line)])
    assert command.multirun or all(len(values) == 1 for values in choices), "several values need -m"
    first = tuple(values[0] for values in choices)
    yield first
    for number, values in enumerate(choices):
        yield from ((*first[:number], other, *first[number + 1 :]) for other in values[1:])


def _check_subcommand(name: str, arguments: list[str]) -> None:
    if name in COMPOSING:
        check_arguments(tuple(arguments))
        return

    def understood(*_: object, **__: object) -> None:
        raise Understood

    module, function = COMMANDS[name]
    with pytest.MonkeyPatch.context() as patch:
        if name in MEASURING:
            patch.setattr(Measured, "of", understood)
        else:
            patch.setattr(Parser, "parse_args", _parse_and(understood))
            patch.setattr(Parser, "parse_intermixed_args", _parse_and(understood))
        with pytest.raises((Understood, SystemExit)):
            getattr(import_module(module), function)(arguments)
    if name == "certify":
        _check_certification([word for word in arguments if "=" in word and not word.startswith("-")])
    elif name == "study":
        _check_study(arguments)


def _parse_and(then: Callable[[], None]) -> Callable[..., None]:
    def parse_args(self: Parser, given: Sequence[str]) -> None:
        _, others = self.parse_known_intermixed_args(given)
        if others:
            self.error(f"unrecognized arguments: {' '.join(others)}")
        then()

    return parse_args


def _check_certification(overrides: list[str]) -> None:
    """A certification takes keys of a run; a list of radii is a curve."""
    settings, radii, _ = read_overrides(overrides)
    for eps in radii:
        (job,) = compose_jobs(parse_command([*settings, *([] if eps is None else [f"eps={eps}"])]))
        make_verifiers(parse(plain(job)))


def _check_study(arguments: list[str]) -> None:
    from certtrain.cli.commands import study

    file = next(REPOSITORY / word for word in arguments if word.endswith(".yaml"))
    if file.is_file():
        for sweep in study.plan(study.read(file), Path("outputs"), [word for word in arguments if "=" in word]):
            command = parse_command(list(sweep.arguments))
            check_arguments(next(_jobs(command)))


def check_yaml(text: str) -> None:
    """A block of YAML can be read."""
    yaml.safe_load(text)

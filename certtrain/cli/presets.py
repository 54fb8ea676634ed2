"""`python -m certtrain presets`: published settings, what they came to, and what they would take here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from certtrain._paths import config_dir
from certtrain.cli.parser import Parser
from certtrain.errors import ConfigError
from certtrain.spelling import did_you_mean
from certtrain.tables import show

# Lines of a preset's file that are read: "# published: natural 98.74, certified 93.90", a "?" for what is not known.
NOTES = ("published", "verifier", "source", "unknown")
_NOTE = re.compile(rf"# ({'|'.join(NOTES)}): (.+)")
_FIGURES = re.compile(r"natural (\?|[\d.]+), certified (\?|[\d.]+)")


@dataclass(frozen=True)
class Preset:
    """A published setting: a file of conf/experiment.

    Attributes:
        name: What `experiment=` is given.
        sentence: What it is.
        natural: Published accuracy in percent; None where it is not known.
        certified: Published certified accuracy in percent; None where it is not known.
        verifier: What certified that.
        source: Who published it.
        unknown: What of the setting is not known, and what stands here instead; "" for nothing.
    """

    name: str
    sentence: str
    natural: float | None
    certified: float | None
    verifier: str
    source: str
    unknown: str


def presets() -> Mapping[str, Preset]:
    """All presets by name: the experiments that say what was published.

    Raises:
        ConfigError: If one says it in a way that cannot be read.
    """
    found = (_read(file) for file in sorted((config_dir() / "experiment").glob("*.yaml")))
    return {preset.name: preset for preset in found if preset is not None}


def _read(file: Path) -> Preset | None:
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    notes = {match[1]: match[2] for match in map(_NOTE.fullmatch, lines) if match}
    if "published" not in notes:
        return None
    figures = _FIGURES.fullmatch(notes["published"])
    if figures is None or not {"verifier", "source"} <= notes.keys():
        raise ConfigError(f"{file}: a preset says '# published: natural 98.7, certified 93.9', verifier and source")
    natural, certified = (None if figure == "?" else float(figure) for figure in figures.groups())
    sentence = next(line[2:] for line in lines if not line.startswith("# @package"))
    return Preset(file.stem, sentence, natural, certified, notes["verifier"], notes["source"], notes.get("unknown", ""))


def presets_command(arguments: list[str]) -> None:
    """Lists presets, with figures and source; measures, where asked to, what they would take on this machine.

    Args:
        arguments: What follows `presets` on the command line.

    Raises:
        CerttrainError: If a name is none.
    """
    parser = Parser(
        prog="python -m certtrain presets",
        description="Published settings: `python -m certtrain experiment=NAME` runs one. Percentages are natural and "
        "certified accuracy as published; a question mark stands for what is not known here. Files under "
        "conf/experiment say what else is not.",
    )
    parser.add_argument("name", nargs="*", help="which; default: all. The beginning of names is enough")
    parser.add_argument("--measure", action="store_true", help="times a few steps of each and estimates whole runs")
    found = parser.parse_args(arguments)
    known = presets()
    for name in found.name:
        if not any(known_name.startswith(name) for known_name in known):
            raise ConfigError(f"presets: no preset begins with '{name}'{did_you_mean(name, list(known))}")
    chosen = [p for p in known.values() if not found.name or any(p.name.startswith(name) for name in found.name)]
    _print(Console(), chosen, measure=found.measure)


def _print(console: Console, chosen: list[Preset], measure: bool) -> None:
    columns = [
        "experiment=",
        "natural %",
        "certified %",
        "verified by",
        "source",
        *(["one run here"] if measure else []),
    ]
    table = Table()
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=number == 0, justify="right" if number in (1, 2) else "left")
    for preset in chosen:
        row = [preset.name, _percent(preset.natural), _percent(preset.certified), preset.verifier, preset.source]
        if measure:
            row.append(_measured(console, preset))
        table.add_row(*row)
    if console.is_terminal:
        show(console, table)
    else:  # nothing is cut off in a file or a pipe
        Console(file=console.file, width=220).print(table)


def _percent(value: float | None) -> str:
    return "?" if value is None else f"{value:g}"


def _measured(console: Console, preset: Preset) -> str:
    from certtrain.cli.compose import Command, compose_jobs
    from certtrain.cli.measure import run_estimate
    from certtrain.cli.schema import parse, plain

    (job,) = compose_jobs(Command((f"experiment={preset.name}",), multirun=False, inspects=False))
    with console.status(f"measures {preset.name}"):
        return str(run_estimate(parse(plain(job))))

"""`python -m certtrain presets`: published settings, what they came to, and what they would take here."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from certtrain.cli.configuration.parser import Parser
from certtrain.cli.help.presets import Preset, presets
from certtrain.errors import ConfigError
from certtrain.spelling import did_you_mean
from certtrain.tables import print_whole, show


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
        "conf/experiment say what else is not. By certtrain: what a run of ours came to, and how it differed.",
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
        "by certtrain %",
        *(["one run here"] if measure else []),
    ]
    table = Table()
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=number == 0, justify="right" if number in (1, 2) else "left")
    for preset in chosen:
        published = (_percent(preset.natural), _percent(preset.certified), preset.verifier, preset.source)
        own = "" if preset.measured is None else str(preset.measured)
        estimated = [_estimated(console, preset)] if measure else []
        table.add_row(preset.name, *published, own, *estimated)
    if console.is_terminal:
        show(console, table)
    else:
        print_whole(console, table)


def _percent(value: float | None) -> str:
    return "?" if value is None else f"{value:g}"


def _estimated(console: Console, preset: Preset) -> str:
    from certtrain.cli.configuration.compose import Command, compose_jobs
    from certtrain.cli.configuration.schema import parse, plain
    from certtrain.cli.estimates.training import run_estimate

    (job,) = compose_jobs(Command((f"experiment={preset.name}",), multirun=False, inspects=False))
    with console.status(f"measures {preset.name}"):
        return str(run_estimate(parse(plain(job))))

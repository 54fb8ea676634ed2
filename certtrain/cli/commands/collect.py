"""`python -m certtrain collect`: one table and one figure out of many runs."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from certtrain.cli.configuration.parser import Parser
from certtrain.errors import ConfigError


def collect_command(arguments: list[str]) -> None:
    """Reads the runs below directories, prints their table and writes it.

    Args:
        arguments: What follows `collect` on the command line.

    Raises:
        CerttrainError: If a directory does not exist or holds no finished run.
    """
    parser = Parser(
        prog="python -m certtrain collect",
        description="Groups finished runs by everything that was set but the seed and how the run was carried out "
        "(devices, logger, resume, ...), and by what their data are, wherever these lie; prints mean and standard "
        "deviation of natural and certified accuracy, and writes collected.csv, .json, .md, .tex (booktabs) and .png; "
        "where `analyze` has measured runs, also analyses.csv, .md, .png and .svg: bias of gradients. "
        "Every key that differs is a column; what all runs share stands above the table.",
    )
    parser.add_argument("directory", type=Path, nargs="+", help="run directories, sweeps, or folders of them")
    parser.add_argument("--output", type=Path, help="where to write; default: the first directory")
    found = parser.parse_args(arguments)
    for directory in found.directory:
        if not directory.is_dir():
            raise ConfigError(f"collect: {directory} is no directory")
    write(Console(), found.directory, found.output or found.directory[0])


def write(console: Console, directories: list[Path], output: Path) -> None:
    """Prints and writes what is found in directories."""
    from certtrain.report.analyses import read_analyses, write_analyses
    from certtrain.report.collect import collect
    from certtrain.report.collected import print_collection, printable, write_collection

    collection = collect(directories)
    print_collection(console, collection)
    analysed = read_analyses(sorted(Path(run) for group in collection.groups for run in group.directories))
    paths = [*write_collection(collection, output), *write_analyses(analysed, output)]
    console.print(printable(console, "written: " + " ".join(map(str, paths))), soft_wrap=True)

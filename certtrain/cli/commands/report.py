"""`python -m certtrain report`: one page of a run, a sweep, a study, or any set of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field
from rich.console import Console

from certtrain.cli.configuration.options import keyed_parser, read_options
from certtrain.cli.configuration.schema import Node, Strict
from certtrain.cli.rundir.directory import RunDirectory
from certtrain.errors import CerttrainError, ConfigError

if TYPE_CHECKING:
    from certtrain.data.source import Splits
    from certtrain.report.page.gallery import Images

NAME = "report.html"


class ReportOptions(Strict):
    """See --help."""

    output: str | None = Field(
        default=None, description="the page; null: report.html of the run, or in the first directory"
    )
    title: str | None = Field(default=None, description="above the page; null: what was trained on what")
    curves: int = Field(
        default=8, ge=1, description="settings of a sweep that are drawn as lines, the most certified of each kind"
    )
    images: int = Field(default=12, ge=0, description="test images of each gallery; 0 for none")


def report_command(arguments: list[str]) -> None:
    """Writes the page and says where it is.

    Args:
        arguments: What follows `report` on the command line.

    Raises:
        CerttrainError: If a directory does not exist or nothing in it can be shown, or an option does not fit.
    """
    parser = keyed_parser(
        "report",
        "Writes one self-contained HTML page of a run, a sweep, a study, or any set of them: a table of all settings\n"
        "to sort and to filter, fronts, curves, heat maps, accuracy over eps, what each stage settled, costs, test\n"
        "images with counterexamples, commands and versions, and what is missing. It needs no network.",
        ReportOptions,
    )
    parser.add_argument("words", nargs="+", metavar="DIR|key=value", help="run directories, sweeps, folders; and keys")
    words = parser.parse_args(arguments).words
    keys = [word for word in words if "=" in word and not Path(word).exists()]
    directories = [Path(word) for word in words if word not in keys]
    options = read_options("report", ReportOptions, keys)
    _check(directories, options)
    page = write(directories, options)
    Console().print(f"report: {page}", markup=False, highlight=False, soft_wrap=True)


def write(directories: Sequence[Path], options: ReportOptions) -> Path:
    """Writes the page of one run, or of many.

    Raises:
        DataError: If there is nothing to show.
    """
    single = directories[0] if len(directories) == 1 and _is_run(directories[0]) else None
    path = Path(options.output) if options.output else _default(directories)
    path.parent.mkdir(parents=True, exist_ok=True)
    if single is not None:
        from certtrain.report import write_report

        images = reader()(single) if options.images else None
        return write_report(single, images, path, options.images, options.title)
    from certtrain.report.collect import collect
    from certtrain.report.page.study import Shown, write_study

    shown = Shown(options.title, options.curves, options.images)
    return write_study(collect(directories), directories, path, shown, reader())


def reader() -> Callable[[Path], Images | None]:
    """Run directory -> its test images by their number, read when the first one is asked for; None without data.

    Runs of the same data share what is read.
    """

    @cache
    def loaded(key: str) -> Splits | None:
        return _load(nodes[key])

    nodes: dict[str, Node] = {}

    def images_of(directory: Path) -> Images | None:
        node = RunDirectory(directory).configuration()
        if node is None or not isinstance(node.get("data"), dict):
            return None
        key = repr(node["data"])
        nodes.setdefault(key, node)

        def image(index: int) -> object:
            from certtrain.cli.job.certification import test_images

            splits = loaded(key)
            if splits is None:
                raise LookupError(index)
            return test_images(splits)(index)

        return image

    return images_of


def _load(node: Node) -> Splits | None:
    """The data of a configuration; None where they are not at hand: the page says what it can without."""
    from certtrain.cli.assembly.data import make_data
    from certtrain.cli.configuration.schema import parse
    from certtrain.earlier import completed

    try:
        data = make_data(parse(completed(node)))
        data.setup()
    except (CerttrainError, OSError):
        return None
    return data.splits


def _check(directories: Sequence[Path], options: ReportOptions) -> None:
    """Refuses what cannot be shown, before anything is read.

    Raises:
        ConfigError: One line about what is wrong.
    """
    if not directories:
        raise ConfigError("report: name at least one run directory, sweep or folder of them")
    for directory in directories:
        if not directory.is_dir():
            raise ConfigError(f"report: {directory} is no directory")
    if options.output is not None and (Path(options.output).is_dir() or not options.output.endswith((".html", ".htm"))):
        raise ConfigError(f"report: output={options.output} must be a file that ends in .html")
    if options.title is not None and not options.title.strip():
        raise ConfigError("report: title must not be empty; leave it out for one that says what was trained")


def _is_run(directory: Path) -> bool:
    return any((directory / name).is_file() for name in ("config.yaml", "summary.json", "ledger.jsonl"))


def _default(directories: Sequence[Path]) -> Path:
    """The run's own page; of several directories, beside the runs of the first: never in place of a run's own page."""
    first = directories[0]
    return (first.parent if len(directories) > 1 and _is_run(first) else first) / NAME

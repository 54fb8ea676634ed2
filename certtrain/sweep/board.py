"""What people see of a sweep: a line when a job starts and ends, what runs now, and a table at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from certtrain.sweep.jobs import OUTPUT, TRACEBACK, Job, Outcome, certified_accuracy
from certtrain.tables import show

STYLES = {"done": "green", "done before": "green", "failed": "red", "stopped": "yellow", "not run": "yellow"}


class Board:
    """Lines about the jobs of a sweep.

    Args:
        console: Where to. In a terminal, jobs that run side by side have a line each that shows what they last said.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._running: dict[int, tuple[Job, float, str]] = {}
        self._names: dict[int, str] = {}

    def open(self, jobs: Sequence[Job], side_by_side: bool) -> None:
        """Shows jobs from now on."""
        self._names = names(jobs)
        if side_by_side and self.console.is_terminal:
            self._live = Live(console=self.console, get_renderable=self._lines, refresh_per_second=4, transient=True)
            self._live.start()

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def started(self, job: Job) -> None:
        """Says that a job starts."""
        self._running[job.number] = (job, time.monotonic(), "")
        self._say(f"[bold]job {job.number}[/] {escape(self._names[job.number])} -> {escape(_short(job.directory))}")

    def said(self, job: Job, line: str) -> None:
        """Keeps the last line of a job."""
        known = self._running.get(job.number)
        if known is not None and line.strip():
            self._running[job.number] = (job, known[1], line.strip())

    def passed_on(self, line: str) -> None:
        """Prints a line of the one job that runs."""
        self.console.out(line, highlight=False)

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Says what became of a job."""
        self._running.pop(job.number, None)
        words = [f"[bold]job {job.number}[/] [{STYLES[outcome.status]}]{outcome.status}[/]"]
        if outcome.seconds is not None:
            words.append(f"in {outcome.seconds:.1f} s")
        accuracy = certified_accuracy(job.directory)
        if outcome.status.startswith("done") and accuracy is not None:
            words.append(f"certified {100 * accuracy:.2f} %")
        if outcome.status == "failed":
            files = " and ".join(f for f in (TRACEBACK, OUTPUT) if (job.directory / f).exists())
            words.append(
                f"(exit code {outcome.exit_code}): see {files or 'nothing'} in {escape(_short(job.directory))}"
            )
        self._say(" ".join(words))

    def table(self, title: str, jobs: Sequence[Job], outcomes: Mapping[int, Outcome]) -> None:
        """Prints what became of every job."""
        found = Table(title=Text(title, "bold"), title_justify="left")
        for heading, justify in (("job", "right"), ("overrides", "left"), ("status", "left")):
            found.add_column(heading, justify=justify)  # type: ignore[arg-type]
        found.add_column("certified %", justify="right")
        found.add_column("seconds", justify="right")
        found.add_column("directory", overflow="fold")
        shown = names(jobs)
        for job in jobs:
            outcome = outcomes[job.number]
            accuracy = certified_accuracy(job.directory)
            found.add_row(
                str(job.number),
                Text(shown[job.number]),
                Text(outcome.status, style=STYLES.get(outcome.status, "")),
                "" if accuracy is None else f"{100 * accuracy:.2f}",
                "" if outcome.seconds is None else f"{outcome.seconds:.1f}",
                Text(_short(job.directory)),
            )
        show(self.console, found)

    def _say(self, markup: str) -> None:
        self.console.print(markup, highlight=False, soft_wrap=True)

    def _lines(self) -> Group:
        now = time.monotonic()
        return Group(
            *(
                Text(
                    f"  {number:>3}  {now - since:5.0f} s  {self._names[number]}  {said}",
                    overflow="ellipsis",
                    no_wrap=True,
                )
                for number, (_, since, said) in sorted(self._running.items())
            )
        )


def names(jobs: Sequence[Job]) -> dict[int, str]:
    """What tells jobs apart: number -> the overrides that not all of them have."""
    common = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    return {job.number: " ".join(o for o in job.overrides if o not in common) or "(as configured)" for job in jobs}


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)

"""What people see of a sweep: lines when jobs start and end, what runs now and how long yet, and a table at the end."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from certtrain.sweep.jobs import OUTPUT, PRUNED, TRACEBACK, Job, Outcome, certified_accuracy
from certtrain.sweep.state import Running, State
from certtrain.tables import show
from certtrain.times import about, duration

STYLES = {
    **{"done": "green", "done before": "green", "failed": "red", "pruned": "cyan"},
    **{"stopped": "yellow", "not run": "yellow"},
}
# Where lines cannot be replaced, and jobs do not print here, one says how far they are after so many seconds.
LINE_SECONDS = 60.0
BAR_WIDTH = 12


class Board:
    """Lines about the jobs of a sweep.

    Args:
        console: Where to. In a terminal, jobs that run have a line each that shows how far they are.

    Attributes:
        common: Overrides that need no mention; None: those that all jobs share.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.common: frozenset[str] | None = None
        self._live: Live | None = None
        self._state = State()
        self._names: dict[int, str] = {}
        self._closed = threading.Event()
        self._speaker: threading.Thread | None = None

    def knows(self, jobs: Sequence[Job], outcomes: Mapping[int, Outcome]) -> None:
        """Takes notice of jobs, those that were done before among them."""
        self._names = names(jobs, self.common)
        self._state.knows(jobs, outcomes)

    def open(self, side_by_side: bool, at_a_time: int = 1, total: int | None = None) -> None:
        """Shows jobs from now on; see `Sweep.running`."""
        self._state.at_a_time, self._state.total = at_a_time, total
        if self.console.is_terminal:
            self._live = Live(console=self.console, get_renderable=self._shown, refresh_per_second=2, transient=True)
            self._live.start()
        elif side_by_side:
            self._closed.clear()
            self._speaker = threading.Thread(target=self._speak, daemon=True)
            self._speaker.start()

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._speaker is not None:
            self._closed.set()
            self._speaker.join()
            self._speaker = None

    def started(self, job: Job) -> None:
        """Says that a job starts."""
        self._state.started(job)
        self._say(f"[bold]job {job.number}[/] {escape(self._names[job.number])} -> {escape(_short(job.directory))}")

    def said(self, job: Job, line: str) -> None:
        """Keeps the last line of a job."""
        self._state.said(job, line)

    def passed_on(self, line: str) -> None:
        """Prints a line of the one job that runs."""
        self.console.out(line, highlight=False)

    def note(self, line: str) -> None:
        """Says something about the sweep."""
        self._say(escape(line))

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Says what became of a job."""
        self._state.ended(job, outcome)
        words = [f"[bold]job {job.number}[/] [{STYLES[outcome.status]}]{outcome.status}[/]"]
        if outcome.seconds is not None:
            words.append(f"in {duration(outcome.seconds)}")
        accuracy = certified_accuracy(job.directory)
        if outcome.status.startswith("done") and accuracy is not None:
            words.append(f"certified {100 * accuracy:.2f} %")
        if outcome.status == "failed":
            files = " and ".join(f for f in (TRACEBACK, OUTPUT) if (job.directory / f).exists())
            words.append(
                f"(exit code {outcome.exit_code}): see {files or 'nothing'} in {escape(_short(job.directory))}"
            )
        if outcome.status == "pruned":
            words.append(f"({escape((job.directory / PRUNED).read_text(encoding='utf-8').strip())})")
        self._say(" ".join(words))
        if self._live is None and self._state.several:
            self._say(f"  {escape(self._outlook())}")

    def table(self, directory: Path, jobs: Sequence[Job], outcomes: Mapping[int, Outcome]) -> None:
        """Prints what became of every job.

        Args:
            directory: Of the sweep.
            jobs: In their order.
            outcomes: Number of a job -> what became of it.
        """
        self._say(f"[bold]sweep {escape(str(directory))}[/]")
        elsewhere = any(job.directory != directory / str(job.number) for job in jobs)
        found = Table()
        found.add_column("job", justify="right")
        found.add_column("overrides", overflow="fold")
        found.add_column("status")
        found.add_column("certified %", justify="right")
        found.add_column("seconds", justify="right")
        if elsewhere:
            found.add_column("directory", overflow="fold")
        shown = names(jobs, self.common)
        for job in jobs:
            outcome = outcomes[job.number]
            accuracy = certified_accuracy(job.directory)
            found.add_row(
                str(job.number),
                Text(shown[job.number]),
                Text(outcome.status, style=STYLES.get(outcome.status, "")),
                "" if accuracy is None else f"{100 * accuracy:.2f}",
                "" if outcome.seconds is None else f"{outcome.seconds:.1f}",
                *([Text(_short(job.directory))] if elsewhere else []),
            )
        show(self.console, found)
        here = shlex.quote(_short(directory))
        self._say(escape(f"next: python -m certtrain collect {here} (or report {here}, for a page)"))

    def _say(self, markup: str) -> None:
        self.console.print(markup, highlight=False, soft_wrap=True)

    def _speak(self) -> None:
        while not self._closed.wait(LINE_SECONDS):
            running = self._state.look()
            where = ", ".join(f"job {one.job.number} {100 * one.progress.fraction:.0f} %" for one in running)
            self._say(escape(f"{self._outlook()}{f'; {where}' if where else ''}"))

    def _outlook(self) -> str:
        """How many are done, the best so far, and how long yet."""
        words = [self._state.counts()]
        if (best := self._state.best()) is not None:
            number, value = best
            words.append(f"best validated {100 * value:.2f} % (job {number})")
        if (left := self._state.seconds_left()) is not None:
            words.append(f"about {about(left)} left")
        return ", ".join(words)

    def _shown(self) -> RenderableType:
        """Rows of what runs, as many as fit, above the outlook."""
        running = self._state.look()
        room = max(1, self.console.height - 3)
        rows = Table.grid(padding=(0, 1), expand=True)
        for justify, ratio in (("right", None), ("left", None), ("right", None), ("right", None), ("left", 1)):
            rows.add_column(justify=justify, ratio=ratio, no_wrap=True, overflow="ellipsis")  # type: ignore[arg-type]
        for one in running[:room]:
            rows.add_row(*self._row(one))
        more = f" (and {len(running) - room} more that run)" if len(running) > room else ""
        return Group(rows, Text(f"{self._outlook()}{more}", "bold", no_wrap=True, overflow="ellipsis"))

    def _row(self, one: Running) -> list[RenderableType]:
        fraction, validated = one.progress.fraction, one.progress.validated
        # Before its first step and behind its last one, a job itself says best what it does.
        doing = one.said if fraction in (0.0, 1.0) and one.said else self._names[one.job.number]
        return [
            f"job {one.job.number}",
            ProgressBar(total=1.0, completed=fraction, width=BAR_WIDTH),
            "" if validated is None else f"{100 * validated:.1f} %",
            duration(time.monotonic() - one.since),
            Text(doing),
        ]


def names(jobs: Sequence[Job], common: frozenset[str] | None = None) -> dict[int, str]:
    """What tells jobs apart: number -> the overrides that not all of them have.

    Args:
        jobs: All of them.
        common: What is left out instead of what all have.
    """
    if common is None:
        common = frozenset(set.intersection(*(set(job.overrides) for job in jobs))) if len(jobs) > 1 else frozenset()
    return {job.number: " ".join(o for o in job.overrides if o not in common) or "(as configured)" for job in jobs}


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)

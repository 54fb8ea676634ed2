"""`python -m certtrain estimate -m ...`: what a run, a sweep or a search would take, before anything is paid for."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape

from certtrain.cli.assembly.data import make_data
from certtrain.cli.configuration.compose import Command, compose_jobs, with_configured_sweep
from certtrain.cli.configuration.explain import explaining
from certtrain.cli.configuration.parser import Parser
from certtrain.cli.configuration.schema import RunConfig, parse, plain
from certtrain.cli.estimates.announcement import batch_of
from certtrain.cli.estimates.costs import BUDGET_SECONDS, UNSURE, Range, StepCost, kind_of, step_cost
from certtrain.cli.job.preflight import check_jobs
from certtrain.cli.rundir.recorded import parse_command
from certtrain.errors import ConfigError
from certtrain.memory import about_bytes
from certtrain.sweep.environment import cores
from certtrain.sweep.launcher import typed_overrides
from certtrain.sweep.plugins import runner_of
from certtrain.times import about
from certtrain.tuning.plan import is_search, planned

DESCRIPTION = """Composes and checks every job of a command, times a few steps of each kind, and says what all takes.
Nothing is trained, and nothing is written. Jobs that differ in keys that cost nothing (seed, learning rate, sigma,
schedules) are of one kind."""


@dataclass(frozen=True)
class Kind:
    """Jobs that cost the same.

    Attributes:
        config: One of them.
        overrides: Of that one, as typed.
        count: How many there are.
        cost: Per step.
        steps: Generations of each.
        validations: Validations of each.
        images: Validation images.
    """

    config: RunConfig
    overrides: tuple[str, ...]
    count: int
    cost: StepCost
    steps: int
    validations: int
    images: int

    @property
    def seconds(self) -> Range:
        """Of training one job."""
        return self.cost.step * self.steps + self.cost.validation * (self.validations * self.images)


@dataclass(frozen=True)
class Plan:
    """All jobs of a command.

    Attributes:
        kinds: Which there are.
        jobs: How many jobs there are.
        chosen: Whether a search will choose what they are: each may be of any kind.
        start: Seconds that each takes before its first step.
    """

    kinds: tuple[Kind, ...]
    jobs: int
    chosen: bool
    start: Range

    @property
    def one_after_the_other(self) -> Range:
        """Seconds of all jobs together."""
        if self.chosen:
            return self.any_job * self.jobs
        total = Range(0.0, 0.0)
        for kind in self.kinds:
            total = total + (kind.seconds + self.start) * kind.count
        return total

    @property
    def any_job(self) -> Range:
        """From the cheapest job to the dearest."""
        first, *others = (kind.seconds + self.start for kind in self.kinds)
        for other in others:
            first = first.around(other)
        return first

    def on_this_machine(self, at_a_time: int) -> Range:
        """Side by side: at best they do not slow each other down, at worst they only share what one would have used."""
        total = self.one_after_the_other
        return Range(max(total.low / at_a_time, self.any_job.low), total.high)

    def on_machines(self, at_a_time: int) -> Range:
        """Each on a machine like this one, once they have all left the queue."""
        total, one = self.one_after_the_other, self.any_job
        rounds = -(-self.jobs // at_a_time)
        return Range(max(total.low / at_a_time, one.low), rounds * one.high)


def estimate_command(arguments: list[str]) -> None:
    """Says what a command would take.

    Args:
        arguments: What follows `estimate` on the command line: what would follow `python -m certtrain`.

    Raises:
        CerttrainError: One line about the first job that cannot run.
    """
    if {"-h", "--help"} & set(arguments):
        _parser().parse_args(["--help"])
    command = with_configured_sweep(parse_command(arguments))
    if command.inspects:
        raise ConfigError("estimate: it takes overrides, -m and --config-dir; see estimate --help")
    console, clock = Console(), time.process_time()
    begun = time.monotonic()
    with console.status("checks every job"), explaining():
        jobs = list(compose_jobs(command))
        check_jobs(command, jobs)
    kinds = _kinds_of(jobs)
    # What was computed up to here is what a job does before its first step, but for the checks of other kinds.
    own = time.process_time() - clock
    start = Range(clock + own / max(1, len(kinds)), clock + max(own, time.monotonic() - begun))
    if command.multirun and is_search(jobs[0].hydra.sweeper):
        count, chosen = _trials(command, jobs[0]), True
    else:
        count, chosen = len(jobs), False
    with console.status("times a few steps") as status:
        measured: dict[str, StepCost] = {}
        found = []
        for number, members in enumerate(kinds, start=1):
            status.update(f"times a few steps of kind {number} of {len(kinds)}")
            found.append(_kind(members, measured))
    _print(console, Plan(tuple(found), count, chosen, start), jobs[0] if command.multirun else None)


def _parser() -> Parser:
    parser = Parser(prog="python -m certtrain estimate", description=DESCRIPTION)
    parser.add_argument("-m", "--multirun", action="store_true", help="of a sweep or a search")
    parser.add_argument("--config-dir", help="a folder with further choices")
    parser.add_argument("override", nargs="*", default=[], help="as of the run or the sweep")
    return parser


def _kinds_of(jobs: Sequence[DictConfig]) -> list[list[DictConfig]]:
    found: dict[str, list[DictConfig]] = {}
    for job in jobs:
        found.setdefault(kind_of(plain(job), lengths=True), []).append(job)
    return list(found.values())


def _kind(members: Sequence[DictConfig], measured: dict[str, StepCost]) -> Kind:
    node = plain(members[0])
    config = parse(node)
    key = kind_of(node, lengths=False)
    if key not in measured:
        measured[key] = step_cost(config)
    data = make_data(config)
    data.setup()
    epochs, per_epoch = config.trainer.max_epochs, max(1, len(data.train_rows) // batch_of(config))
    steps = epochs * per_epoch
    if config.trainer.max_steps > 0:
        steps = min(steps, config.trainer.max_steps)
    validations = -(-steps // per_epoch) // config.trainer.validate_every
    typed = tuple(typed_overrides(members[0], "task"))
    return Kind(config, typed, len(members), measured[key], steps, validations, len(data.validation_rows))


def _trials(command: Command, job: DictConfig) -> int:
    """Jobs of a search: its trials, each as often as it is repeated."""
    options = OmegaConf.to_container(job.hydra.sweeper, resolve=True)
    assert isinstance(options, dict)
    node = {str(name): value for name, value in options.items() if name not in ("_target_", "_recursive_")}
    settings, space = planned(node, _typed(command), None)
    trials = len(space.grid()) if settings.enumerates else settings.n_trials
    assert trials is not None
    if settings.n_trials is not None:
        trials = min(trials, settings.n_trials)
    return trials * len(space.repetitions)


def _typed(command: Command) -> list[str]:
    return [o for o in command.overrides if not o.lstrip("+~").startswith(("hydra.", "hydra/"))]


def _print(console: Console, plan: Plan, sweep: DictConfig | None) -> None:
    _print_kinds(console, plan)
    free = [kind.cost.bytes for kind in plan.kinds if kind.cost.bytes is not None]
    if (held := _resident()) is not None and free:
        console.print(
            f"memory of a job: about {about_bytes(held + max(free))}, of which libraries and data {about_bytes(held)}"
        )
    console.print(f"before its first step a job takes {_words(plan.start)}")
    if not all(kind.cost.taken for kind in plan.kinds):
        console.print(
            f"steps of more than {BUDGET_SECONDS:g} s were told from one member: right within a factor of {UNSURE:g}"
        )
    jobs = "1 job" if plan.jobs == 1 else f"{plan.jobs} jobs"
    console.print(
        f"\n[bold]{jobs}[/], one after the other: [bold]{_words(plan.one_after_the_other)}[/]", highlight=False
    )
    if sweep is not None:
        _print_side_by_side(console, plan, sweep)
    if any(kind.config.certify.enabled for kind in plan.kinds):
        console.print("without the certification of test images: its time depends on what was trained", style="yellow")
    if plan.chosen:
        console.print("a search may choose any kind, and trials that it prunes take less")


def _print_side_by_side(console: Console, plan: Plan, sweep: DictConfig) -> None:
    name, runner = runner_of(_plain(sweep.hydra.launcher))
    here = runner.at_a_time(plan.jobs) if name == "joblib" else min(cores(), plan.jobs)
    if here > 1:
        console.print(
            f"joblib, {here} at a time on these {cores()} cores: {_words(plan.on_this_machine(here))}", highlight=False
        )
    at_a_time = runner.at_a_time(plan.jobs) if name == "submitit" else plan.jobs
    if plan.jobs > 1:
        words = _words(plan.on_machines(at_a_time))
        console.print(f"submitit, {at_a_time} at a time on machines like this: {words}, and the queue", highlight=False)


def _print_kinds(console: Console, plan: Plan) -> None:
    """Two lines about each kind: keys and their values are never broken in the middle."""
    common = set.intersection(*(set(kind.overrides) for kind in plan.kinds))
    for kind in plan.kinds:
        differs = " ".join(override for override in kind.overrides if override not in common) or "as configured"
        jobs = "any of the jobs takes" if plan.chosen else "1 job of" if kind.count == 1 else f"{kind.count} jobs of"
        each = _words(kind.seconds + plan.start)
        console.print(f"[bold]{escape(differs)}[/]: {jobs} {each}", highlight=False, soft_wrap=True)
        steps = f"{kind.steps} steps of {_words(kind.cost.step)}"
        if kind.cost.members > 1:
            members = kind.cost.members_per_second
            steps += f", {_span(f'{members.low:,.0f}', f'{members.high:,.0f}')} members/s"
        console.print(f"  {steps}", highlight=False)


def _words(found: Range) -> str:
    return _span(about(found.low), about(found.high))


def _span(low: str, high: str) -> str:
    """From low to high, with a unit once where both have the same."""
    if low == high:
        return low
    number, _, unit = low.partition(" ")
    return f"{number} to {high}" if unit and high.endswith(f" {unit}") else f"{low} to {high}"


def _resident() -> int | None:
    """Bytes of this process; None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def _plain(node: DictConfig) -> Mapping[str, object]:
    found = OmegaConf.to_container(node, resolve=True)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}

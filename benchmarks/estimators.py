"""What estimators of the smoothed gradient cost: the noise's share of a generation, and the way to a given accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.table import Table

import certtrain
from benchmarks.cases import Bench, Images, make_case
from benchmarks.plans import Approach, Generation
from benchmarks.settings import NO_DATA
from benchmarks.tables import make_table, milliseconds, number
from benchmarks.timing import Spread, alternate
from certtrain.bounds import build
from certtrain.gradients import PGPE
from certtrain.gradients.base import LossFunction
from certtrain.losses import Problem, RobustCrossEntropy
from certtrain.networks import Params

SIGMA = 0.01
# Of the smoothed gradient, by name: what the way to an accuracy is measured of.
ESTIMATORS: Mapping[str, tuple[str, ...]] = {
    "pgpe": ("pgpe.control_variate=none", "pgpe.shrinkage=none"),
    "+ gradient": ("pgpe.control_variate=gradient", "pgpe.shrinkage=none"),
    "+ rgs, auto": ("pgpe.control_variate=rgs", "pgpe.control_samples=auto", "pgpe.shrinkage=none"),
    "+ gradient, shrunk": ("pgpe.control_variate=gradient", "pgpe.shrinkage=james_stein"),
    "+ gradient, shrunk by layer": ("pgpe.control_variate=gradient", "pgpe.shrinkage=james_stein_layers"),
    "+ rgs, auto, shrunk": ("pgpe.control_variate=rgs", "pgpe.control_samples=auto", "pgpe.shrinkage=james_stein"),
}


@dataclass(frozen=True)
class NoiseRow:
    """One generation of plain PGPE.

    Attributes:
        model: A choice in conf/model.
        relaxation: Its bounds.
        members: Of the population.
        batch: Images.
        parameters: d.
        whole: Seconds of the generation.
        noise: Seconds of all of it but the losses: noise drawn, added, weighted.
    """

    model: str
    relaxation: str
    members: int
    batch: int
    parameters: int
    whole: Spread
    noise: Spread

    @property
    def share(self) -> float:
        """Of the noise, 0 to 1."""
        return self.noise.median / self.whole.median


@dataclass(frozen=True)
class ApproachRow:
    """A run's way to an accuracy.

    Attributes:
        setting: What is trained.
        estimator: A key of ESTIMATORS.
        target: Certified validation accuracy, 0 to 1.
        best: The highest that was reached.
        generations: Until the first validation at the target; None where it was not reached.
        evaluations: Losses of members until then.
        gradients: Gradients of the control variate until then.
        members_per_second: Mean over the run.
    """

    setting: str
    estimator: str
    target: float
    best: float
    generations: int | None
    evaluations: int | None
    gradients: int | None
    members_per_second: float


def run(bench: Bench) -> dict[str, Sequence[NoiseRow | ApproachRow]]:
    """Every generation, then every way."""
    noise = [_noise(bench, what) for what in bench.plan.generations]
    ways = [
        _way(bench, approach, name, options)
        for approach in bench.plan.approaches
        for name, options in ESTIMATORS.items()
        if approach.data == "digits" or bench.settings.data != NO_DATA
    ]
    return {"noise": noise, "approaches": ways}


def _noise(bench: Bench, what: Generation) -> NoiseRow:
    bench.say(f"a generation of {what.members} members of {what.model}, {what.relaxation}")
    images = Images.test("digits", None) if what.data == "digits" else bench.images
    case = make_case(what.model, images.first(what.batch), None, what.data)
    relaxation = build(what.relaxation)
    problem = Problem.within(case.graph, relaxation, case.images.inputs, case.images.labels, what.eps)
    loss, first = RobustCrossEntropy(), next(iter(case.params))
    estimator = PGPE(SIGMA, what.members, strategy=what.strategy)

    def certified(params: Params) -> torch.Tensor:
        return loss(problem, params)

    # A loss that costs nothing: what is left of a generation is its noise.
    free: LossFunction = lambda params: params[first].flatten()[0]  # noqa: E731
    calls = [lambda of=of: estimator.estimate(of, case.params, 0) for of in (certified, free)]
    whole, noise = map(Spread.of, alternate(calls, bench.plan.limits))
    size = sum(p.numel() for p in case.params.values())
    return NoiseRow(what.model, what.relaxation, what.members, what.batch, size, whole, noise)


def _way(bench: Bench, approach: Approach, name: str, options: Sequence[str]) -> ApproachRow:
    bench.say(f"{approach.name}: the way of {name} to {100 * approach.target:g} %")
    data = () if bench.settings.data is None or approach.data == "digits" else (f"data.path={bench.settings.data}",)
    with TemporaryDirectory(prefix="certtrain-bench-") as folder:
        made = certtrain.train(
            [
                *(f"data={approach.data}", *data, *approach.keys, *options),
                *("certify.enabled=false", "trainer.log_every_n_steps=1", f"hydra.run.dir={Path(folder, 'run')}"),
            ],
            output=False,
        )
        metrics = made.metrics
        population = int(made.config.pgpe.population_size)
    validated = metrics["val/certified_accuracy"].dropna()
    reached = validated[validated >= approach.target]
    generations = int(reached.index[0]) + 1 if len(reached) else None
    gradients = metrics.get("control_variate/gradients")
    return ApproachRow(
        approach.name,
        name,
        approach.target,
        float(validated.max()),
        generations,
        None if generations is None else generations * population,
        None if generations is None or gradients is None else int(gradients.loc[: generations - 1].sum()),
        float(metrics["members_per_second"].mean()),
    )


def noise_table(rows: Sequence[NoiseRow]) -> Table:
    """One line per generation."""
    left = ("network", "relaxation", "members", "batch", "parameters")
    cells = [
        (
            *(row.model, row.relaxation, str(row.members), str(row.batch), f"{row.parameters:,}"),
            *(milliseconds(row.whole), milliseconds(row.noise), f"{100 * row.share:.1f}"),
        )
        for row in rows
    ]
    title = "One generation of plain PGPE (median [quartiles])"
    return make_table(title, left, ("generation ms", "all but the losses ms", "share %"), cells)


def table(rows: Sequence[ApproachRow]) -> Table:
    """One line per way."""
    cells = [
        (
            *(row.setting, row.estimator, f"{100 * row.target:g}", f"{100 * row.best:.1f}"),
            *("never" if count is None else f"{count:,}" for count in (row.generations, row.evaluations)),
            *("-" if row.gradients is None else f"{row.gradients:,}", number(row.members_per_second)),
        )
        for row in rows
    ]
    right = ("target %", "best %", "generations", "evaluations", "gradients", "members/s")
    return make_table("To a certified accuracy on validation images", ("setting", "estimator"), right, cells)

"""Losses of a population of parameter vectors, as evolution strategies need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich.table import Table

from benchmarks.cases import Bench, Case, Images, make_case
from benchmarks.methods import AUTO_LIRPA, METHODS, NATIVE
from benchmarks.plans import Population
from benchmarks.tables import COMPARISON, comparison, make_table
from benchmarks.timing import Call, Comparison, alternate
from certtrain.gradients.members import Drawn
from certtrain.gradients.population import evaluate
from certtrain.losses import Problem, RobustCrossEntropy
from certtrain.networks import Params

METHOD = METHODS["deeppoly"]
SIGMA = 0.01


@dataclass(frozen=True)
class PopulationRow:
    """One population and one native strategy, against auto_LiRPA member by member.

    Attributes:
        model: A choice in conf/model.
        data: A choice in conf/data.
        members: Of the population.
        batch: Images.
        strategy: Of the native evaluation.
        counted: Members that auto_LiRPA was timed on; its time is scaled to all of them.
        times: Seconds for the whole population.
    """

    model: str
    data: str
    members: int
    batch: int
    strategy: str
    counted: int
    times: Comparison


def run(bench: Bench) -> dict[str, Sequence[PopulationRow]]:
    """Every population."""
    rows: list[PopulationRow] = []
    for population in bench.plan.populations:
        images = bench.images if population.data == "mnist" else Images.test(population.data, None)
        case = make_case(population.model, images.first(population.batch), None, population.data)
        rows += _measure(bench, population, case)
    return {"population": rows}


def losses(case: Case, backend: str, eps: float, strategy: str, members: int) -> Call:
    """The losses of members that are drawn once, ready to be timed."""
    problem = Problem.within(case.graph, METHOD.build(backend), case.images.inputs, case.images.labels, eps)
    generator, loss = torch.Generator().manual_seed(0), RobustCrossEntropy()
    noise = {
        name: SIGMA * torch.randn(members, *p.shape, generator=generator).to(p.device)
        for name, p in case.params.items()
    }

    def of_member(params: Params) -> torch.Tensor:
        return loss(problem, params)

    return lambda: evaluate(of_member, Drawn(case.params, noise), strategy=strategy)


def _measure(bench: Bench, what: Population, case: Case) -> list[PopulationRow]:
    bench.say(f"{what.members} members of {what.model} on {what.data}, batch {what.batch}")
    calls = [losses(case, NATIVE, what.eps, strategy, what.members) for strategy in what.strategies]
    calls.append(losses(case, AUTO_LIRPA, what.eps, "loop", what.counted))
    *native, other = alternate(calls, bench.plan.limits)
    other = [seconds * what.members / what.counted for seconds in other]
    return [
        PopulationRow(
            what.model, what.data, what.members, what.batch, strategy, what.counted, Comparison.of(own, other)
        )
        for strategy, own in zip(what.strategies, native, strict=True)
    ]


def table(rows: Sequence[PopulationRow]) -> Table:
    """One line per row; says where auto_LiRPA's time was scaled."""
    left = ("network", "data", "members", "batch", "native strategy", "auto_LiRPA")
    cells = []
    for row in rows:
        other = "loop" if row.counted == row.members else f"loop ({row.counted} timed, scaled)"
        words = (row.model, row.data, str(row.members), str(row.batch), row.strategy, other)
        cells.append((*words, *comparison(row.times)))
    return make_table(f"Population: losses with {METHOD.name} (median [quartiles])", left, COMPARISON, cells)

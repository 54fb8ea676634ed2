"""Certification: alpha-CROWN against auto_LiRPA's; branch and bound: subdomains per second, what is settled when."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from rich.table import Table
from torch import Tensor, nn

from benchmarks import cascade
from benchmarks.cascade import StageRow
from benchmarks.cases import Bench
from benchmarks.plans import SearchPlan
from benchmarks.settings import NO_DATA
from benchmarks.tables import comparison, make_table, number
from benchmarks.timing import Comparison, compare
from benchmarks.vnncomp.recipes import recipe_of
from benchmarks.vnncomp.workshop import Instance, Workshop
from certtrain.attacks import PGD
from certtrain.bounds import Box, build, margin_spec
from certtrain.bounds.backends import _auto_lirpa_compat as compat
from certtrain.certify.network import Network
from certtrain.certify.search.relaxed import Goals
from certtrain.certify.search.whole import BranchAndBound
from certtrain.networks import parameters, trace

# Of images, where there are none.
SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
# Of auto_LiRPA: one slope for each neuron and row, as ours; its sparse storage fails on these networks.
OPTIONS = {"sparse_features_alpha": False, "sparse_spec_alpha": False}
# Step of its slopes, of three (0.1, 0.25, 0.5) the one with the tightest bounds on mnist_256x4.
LEARNING_RATE = 0.1


@dataclass(frozen=True)
class AlphaRow:
    """alpha-CROWN's margins of some images.

    Attributes:
        network: Its name.
        images: Bounded together.
        iterations: Of both.
        times: Seconds, and auto_LiRPA's in units of ours; None where it is not installed.
        native: Mean lower bound.
        auto_lirpa: auto_LiRPA's.
    """

    network: str
    images: int
    iterations: int
    times: Comparison | None
    native: float
    auto_lirpa: float | None


@dataclass(frozen=True)
class SearchRow:
    """Branch and bound on a network's properties, one by one, those that the attack falsifies first left out.

    Attributes:
        network: Its name.
        eps: Radius.
        instances: All of them.
        attacked: Falsified by the attack.
        proved: By the search.
        falsified: By the search.
        limit: Seconds for each.
        subdomains: Examined.
        seconds: That the searches took, first bounds included.
        settled: Seconds after which each of those that were settled was, the attack included, ascending.
    """

    network: str
    eps: float
    instances: int
    attacked: int
    proved: int
    falsified: int
    limit: float
    subdomains: int
    seconds: float
    settled: tuple[float, ...]


def run(bench: Bench) -> dict[str, Sequence[AlphaRow] | Sequence[SearchRow] | Sequence[StageRow]]:
    """Measures all stages together, then alpha_crown and the search by themselves."""
    stages = cascade.run(bench)
    plan = bench.plan.search
    questions = {name: instances(bench, name) for name in plan.networks}
    alpha, searched = [], []
    for name, question in _certified(bench):
        bench.say(f"alpha_crown on {name}")
        alpha.append(alpha_row(name, question, plan.iterations, bench))
    for name, given in questions.items():
        bench.say(f"alpha_crown on {name}")
        alpha.append(alpha_row(name, Margins.of(given[: plan.images]), plan.iterations, bench))
        for eps in sorted({one.eps for one in given}):
            bench.say(f"branch and bound on {name}, eps {eps:g}")
            own = [one for one in given if one.eps == eps][: plan.instances]
            searched.append(search_row(name, own, plan))
    return {"stages": stages, "alpha_crown": alpha, "certify": searched}


def instances(bench: Bench, name: str) -> list[Instance]:
    """Properties of a network; of one with random weights, about noise, where there are no data."""
    settings = bench.settings
    if settings.data != NO_DATA:
        return Workshop({"mnist": settings.data}, settings.out, settings.quick, bench.say).instances(name)
    torch.manual_seed(0)
    recipe = recipe_of(name)
    model = recipe.make().eval().requires_grad_(False)
    images = torch.rand(4, *SHAPES[recipe.data])
    labels = model(images).argmax(1).tolist()
    return [Instance(model, x, label, 0.01) for x, label in zip(images, labels, strict=True)]


@dataclass(frozen=True)
class Margins:
    """Margins of some images to bound.

    Attributes:
        model: In eval mode, float32.
        box: Of its inputs.
        labels: Of the images.
    """

    model: nn.Module
    box: Box
    labels: Tensor

    @staticmethod
    def of(given: Sequence[Instance]) -> Margins:
        """Of properties of one network."""
        box = Box.linf(torch.stack([one.image for one in given]), given[0].eps)
        return Margins(given[0].model, box, torch.tensor([one.label for one in given]))


def _certified(bench: Bench) -> Iterator[tuple[str, Margins]]:
    """Networks of certified training, without their normalisation: auto_LiRPA has no patches of constants."""
    plan = bench.plan.search
    for network in plan.certified:
        for weights in bench.weights:
            case = bench.case(network, weights, plan.images)
            (sequence,) = case.graph.module.children()
            normalise, *layers = sequence.children()
            with torch.no_grad():
                box = Box(normalise(case.box.lower), normalise(case.box.upper))
            yield f"{network}, {weights}", Margins(nn.Sequential(*layers).eval(), box, case.images.labels)


def alpha_row(name: str, question: Margins, iterations: int, bench: Bench) -> AlphaRow:
    """Both on the same images, in turns."""
    model, box = question.model, question.box
    spec = margin_spec(question.labels, 10)
    graph = trace(model, box.lower.shape[1:])
    params = {key: p.detach() for key, p in parameters(model).items()}  # auto_LiRPA has the module's recorded
    relaxation = build("alpha_crown", iterations=iterations)

    def ours() -> torch.Tensor:
        return relaxation.bound(graph, params, box, spec, "lower").lower

    if not compat.available():
        return AlphaRow(name, len(box), iterations, None, float(ours().mean()), None)
    theirs = _auto_lirpa(model, box, spec, iterations)
    times = compare(ours, theirs, bench.plan.limits)
    return AlphaRow(name, len(box), iterations, times, float(ours().mean()), float(theirs().mean()))


def _auto_lirpa(model: nn.Module, box: Box, spec: torch.Tensor, iterations: int):
    package = compat.load()
    arguments = {"iteration": iterations, "lr_alpha": LEARNING_RATE, "enable_beta_crown": False}
    module = package.BoundedModule(model, box.lower[:1], {**OPTIONS, "optimize_bound_args": arguments})
    corners = package.PerturbationLpNorm(norm=float("inf"), x_L=box.lower, x_U=box.upper)

    def call() -> torch.Tensor:
        x = package.BoundedTensor(box.center, corners)
        with torch.enable_grad():
            return module.compute_bounds(x=(x,), C=spec, method="CROWN-Optimized", bound_upper=False)[0].detach()

    return call


def search_row(name: str, given: Sequence[Instance], plan: SearchPlan) -> SearchRow:
    """Attack, then branch and bound, on one property after the other."""
    counts = {"attacked": 0, "closed": 0, "counterexample": 0}
    settled, subdomains, seconds = [], 0, 0.0
    for place, one in enumerate(given):
        start = time.perf_counter()
        ending, examined, took = answer(one, place, plan.seconds)
        subdomains, seconds = subdomains + examined, seconds + took
        if ending in counts:
            counts[ending] += 1
            settled.append(time.perf_counter() - start)
    eps, (attacked, proved, falsified) = given[0].eps, counts.values()
    return SearchRow(
        name, eps, len(given), attacked, proved, falsified, plan.seconds, subdomains, seconds, tuple(sorted(settled))
    )


def answer(one: Instance, place: int, limit: float) -> tuple[str, int, float]:
    """How a property ends, and the subdomains and seconds of the search for that."""
    network = Network.of(one.model, one.image.shape)
    box, label = Box.linf(one.image[None].double(), one.eps), torch.tensor([one.label])
    _, lowest = PGD().worst(lambda x, images: network.margins(x, label[images]), box.to(torch.float32), [(place,)])
    if float(lowest) < 0:
        return "attacked", 0, 0.0
    start = time.perf_counter()
    goals = Goals.margins(margin_spec(label, 10).double()[0])
    found = BranchAndBound().decide(network.graph, network.values, box, goals, start + limit)
    return found.ending, found.examined, time.perf_counter() - start


def alpha_table(rows: Sequence[AlphaRow]) -> Table:
    """Time and tightness."""
    lines = []
    for row in rows:
        times = ("", "", "") if row.times is None else comparison(row.times)
        theirs = "" if row.auto_lirpa is None else f"{row.auto_lirpa:.4f}"
        lines.append((row.network, str(row.images), str(row.iterations), *times, f"{row.native:.4f}", theirs))
    right = ("images", "iterations", "native", "auto_LiRPA", "ratio", "mean margin", "auto_LiRPA's")
    return make_table("alpha-CROWN of all margins, slopes of inner layers included", ("network",), right, lines)


def table(rows: Sequence[SearchRow]) -> Table:
    """What was settled, and how fast."""
    lines = [
        (
            row.network,
            f"{row.eps:g}",
            *map(str, (row.instances, row.attacked, row.proved, row.falsified)),
            f"{row.limit:g}",
            str(row.subdomains),
            number(row.subdomains / row.seconds) if row.seconds else "",
        )
        for row in rows
    ]
    right = ("eps", "instances", "attacked", "proved", "falsified", "limit s", "subdomains", "per second")
    return make_table("branch and bound", ("network",), right, lines)

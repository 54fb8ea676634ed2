"""How fast the stages of a complete certification settle images, each asked only what those before it left open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from benchmarks.cases import EPS, Bench
from benchmarks.tables import make_table, number
from certtrain.certify import certify, summarize
from certtrain.certify.verifiers.bab import Bab

VERIFIERS = ("ibp", "crown_ibp", "deeppoly", "alpha_crown")


@dataclass(frozen=True)
class StageRow:
    """One stage on a network's images.

    Attributes:
        network: Its name.
        weights: What it has.
        stage: prediction, attack, or a verifier.
        asked: Images that it was to judge.
        settled: Of these.
        seconds: That it took.
    """

    network: str
    weights: str
    stage: str
    asked: int
    settled: int
    seconds: float


def run(bench: Bench) -> list[StageRow]:
    """Certifies images of every network with every kind of weights."""
    plan = bench.plan.search
    return [row for network in plan.certified for weights in bench.weights for row in _stages(bench, network, weights)]


def _stages(bench: Bench, network: str, weights: str) -> list[StageRow]:
    plan = bench.plan.search
    case = bench.case(network, weights, plan.judged)
    bench.say(f"certifying {len(case.images.labels)} images of {network}, {weights} weights")
    verdicts = certify(
        case.graph.module,
        case.images.inputs,
        case.images.labels,
        EPS,
        relaxations=[*VERIFIERS, Bab()],
        cascade="first",
        timeout_s=plan.seconds,
    )
    found = summarize(verdicts, [*VERIFIERS, Bab().name])["stages"]
    return [StageRow(network, weights, s["name"], s["asked"], s["settled"], float(s["seconds"] or 0.0)) for s in found]


def table(rows: Sequence[StageRow]) -> Table:
    """What each stage was asked, and how fast it answered."""
    lines = [
        (
            *(row.network, row.weights, row.stage),
            *(str(row.asked), str(row.settled), number(row.seconds)),
            number(row.asked / row.seconds) if row.seconds else "",
        )
        for row in rows
    ]
    right = ("asked", "settled", "s", "images per second")
    return make_table("stages of a complete certification, eps 0.1", ("network", "weights", "stage"), right, lines)

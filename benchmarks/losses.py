"""One step of every loss, what it prepares and its gradient, against a composition on auto_LiRPA (`composed`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from rich.table import Table
from torch import nn

from benchmarks.cases import EPS, Bench, Case
from benchmarks.composed import (
    PREPARE,
    VALUES,
    Attack,
    Composition,
    attack_as_ctrain,
    attack_once,
    mixed_gradient,
    nothing,
)
from benchmarks.plans import Limits
from benchmarks.tables import COMPARISON, comparison, make_table, number
from benchmarks.timing import Comparison, Spread, alternate
from certtrain.bounds import Box, build
from certtrain.gradients.backprop import differentiate
from certtrain.losses import (
    Adversarial,
    AdvIbp,
    CcIbp,
    CrownIBP,
    ExpIbp,
    Loss,
    MtlIbp,
    Prepared,
    Problem,
    RobustCrossEntropy,
    Sabr,
    Staps,
    Taps,
    Trades,
)
from certtrain.networks import Normalize

# As conf/loss has them. CROWN-IBP in the middle of its ramp, where both bounds count.
LOSSES: Mapping[str, Loss] = {
    "robust_ce": RobustCrossEntropy(),
    "crown_ibp": CrownIBP(),
    "pgd": Adversarial(),
    "trades": Trades(),
    "sabr": Sabr(),
    "mtl_ibp": MtlIbp(),
    "cc_ibp": CcIbp(),
    "exp_ibp": ExpIbp(),
    "taps": Taps(),
    "staps": Staps(),
    "adv_ibp": AdvIbp(),
}
MIDDLE = 0.5


@dataclass(frozen=True)
class LossRow:
    """One network and loss.

    Attributes:
        network: A choice in conf/model.
        weights: "random" or "ibp".
        batch: Images.
        loss: A key of LOSSES.
        times: Seconds of what is prepared and the gradient together; attacks of the composition are CTRAIN's.
        once: The ratio where the composition's attacks evaluate no point twice; None where nothing is attacked.
        difference: The largest relative difference of both losses of an image, at the native one's attacked points.
    """

    network: str
    weights: str
    batch: int
    loss: str
    times: Comparison
    once: Spread | None
    difference: float


def run(bench: Bench) -> dict[str, Sequence[LossRow]]:
    """Every network, kind of weights and loss."""
    rows = []
    for network, batch in bench.plan.networks:
        for weights in bench.weights:
            case = bench.case(network, weights, batch)
            composed = composition(case)
            for name in LOSSES:
                bench.say(f"{network}, {weights} weights, batch {batch}: a step of {name}")
                found = measure(case, composed, name, bench.plan.limits)
                rows.append(LossRow(network, weights, batch, name, *found))
    return {"losses": rows}


def composition(case: Case) -> Composition:
    """The network of a case with its weights, split for TAPS where the native loss splits it."""
    normalize, *layers = _layers(case)
    activations = [i for i, layer in enumerate(layers) if isinstance(layer, nn.ReLU)]
    split, images, box = activations[Taps().split] + 1, case.images, case.box
    around = Box(normalize(box.lower), normalize(box.upper))
    return Composition(nn.Sequential(*layers), normalize(images.inputs), images.labels, around, split)


def _layers(case: Case) -> list[nn.Module]:
    """The layers of a network that is a sequence of them; the first one normalises."""
    found = [layer for layer in case.graph.module.modules() if not list(layer.children())]
    assert isinstance(found[0], Normalize)
    return found


def problem_of(case: Case, name: str) -> Problem:
    """The same boxes for a native loss."""
    relaxation = build("crown_ibp" if name == "crown_ibp" else "ibp")
    return Problem.within(case.graph, relaxation, case.images.inputs, case.images.labels, EPS, progress=MIDDLE)


def measure(case: Case, composed: Composition, name: str, limits: Limits) -> tuple[Comparison, Spread | None, float]:
    """Times of both, in turns, the ratio to the careful attack, and how far their values are apart."""
    problem = problem_of(case, name)
    ways: tuple[Attack, ...] = (attack_as_ctrain,) if PREPARE[name] is nothing else (attack_as_ctrain, attack_once)
    calls = [partial(native_step, case, problem, name), *(partial(composed_step, composed, name, way) for way in ways)]
    native, *others = alternate(calls, limits)
    times, *once = (Comparison.of(native, other) for other in others)
    prepared = LOSSES[name].prepare(problem, case.params, 0)
    with torch.no_grad():
        own = LOSSES[name].per_image(problem, case.params, prepared)
        theirs = VALUES[name](composed, _for_composition(case, composed, prepared))
    return times, once[0].ratio if once else None, float(((own - theirs).abs() / own.abs().clamp(min=1e-3)).max())


def native_step(case: Case, problem: Problem, name: str) -> object:
    """What is prepared, and the gradient."""
    loss = LOSSES[name]
    prepared = loss.prepare(problem, case.params, 0)
    return differentiate(lambda params: loss(problem, params, prepared), case.params)


def composed_step(on: Composition, name: str, attack: Attack = attack_as_ctrain) -> object:
    """The same of the composition; gradients are left in the module's parameters."""
    on.attack = attack
    on.network.zero_grad(set_to_none=True)
    if name == "adv_ibp":
        return mixed_gradient(on)
    loss = VALUES[name](on, PREPARE[name](on)).mean()
    loss.backward()
    return loss.detach()


def _for_composition(case: Case, on: Composition, prepared: Prepared) -> Prepared:
    """What the native loss has prepared: points normalised, places in the shape that they have there."""
    normalize, *_ = _layers(case)
    found = {name: normalize(x) if name in ("points", "center") else x for name, x in prepared.items()}
    if "places" in prepared:
        shape = on.network[: on.behind](on.inputs[:1]).shape[1:]
        found["places"] = prepared["places"].reshape(*prepared["places"].shape[:2], *shape)
    return found


def table(rows: Sequence[LossRow]) -> Table:
    """One line per row."""
    cells = [
        (
            *(row.network, row.weights, str(row.batch), row.loss, *comparison(row.times)),
            *("" if row.once is None else number(row.once.median), number(row.difference)),
        )
        for row in rows
    ]
    left = ("network", "weights", "batch", "loss")
    title = "One step of a loss: what it prepares, and its gradient (median [quartiles])"
    return make_table(title, left, (*COMPARISON, "each point once", "largest relative difference"), cells)

"""Verifiers against exact minima: small random networks whose smallest margin is known, close to zero.

    compare_with_oracle(MyVerifier(...), range(20))

The minimum comes from mixed-integer programs (`certify.milp`); the bias of the label is then shifted so that the margin
is what was drawn, positive for about half of the questions: each is one that bounds alone hardly answer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from random import Random

import torch
from torch import Tensor, nn

from certtrain.bounds import Box, margin_spec
from certtrain.bounds.relaxation.deeppoly import DeepPoly
from certtrain.certify.network import Network
from certtrain.certify.verifiers.base import Verifier

CLASSES = 3
# Undecided activations at most: minima of more take long.
MOST_UNDECIDED = 40
# How far from zero margins are, in units of what the relaxation is off.
DISTANCES = (0.02, 0.3)
TOLERANCE = 1e-6


@dataclass(frozen=True)
class OracleQuestion:
    """Is a network robust on a box?

    Attributes:
        seed: Which gives the same question every time.
        network: In float64 and float32.
        box: One, float64.
        label: [1].
        minimum: The smallest margin on the box.
        undecided: Activations that DeepPoly does not show to be linear on the box.
    """

    seed: int
    network: Network
    box: Box
    label: Tensor
    minimum: float
    undecided: int

    @property
    def spec(self) -> Tensor:
        """The margins, [1, classes - 1, classes]."""
        return margin_spec(self.label, CLASSES).double()


@dataclass(frozen=True)
class Comparison:
    """What a verifier said.

    Attributes:
        verified: Seeds of questions that it called robust.
        falsified: Seeds of those with a counterexample.
        left_open: Seeds of all others.
    """

    verified: tuple[int, ...]
    falsified: tuple[int, ...]
    left_open: tuple[int, ...]


class _Sum(nn.Module):
    """A branch beside the identity."""

    def __init__(self, *branch: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*branch)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def _dense(random: Random) -> tuple[nn.Module, tuple[int, ...]]:
    inputs = random.randint(2, 8)
    widths = [inputs, *(random.randint(5, 16) for _ in range(random.randint(1, 3)))]
    layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(widths[-1], CLASSES)), (inputs,)


def _convolutional(random: Random) -> tuple[nn.Module, tuple[int, ...]]:
    channels, side = random.randint(1, 2), random.randint(4, 6)
    layers: list[nn.Module] = [nn.Conv2d(channels, 3, 3, random.randint(1, 2), 1), nn.ReLU()]
    layers += [nn.Conv2d(3, 2, 2, 2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(CLASSES)]
    return nn.Sequential(*layers), (channels, side, side)


def _residual(random: Random) -> tuple[nn.Module, tuple[int, ...]]:
    width = random.randint(4, 9)
    block = _Sum(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
    layers = [nn.Linear(5, width), nn.ReLU(), block, nn.ReLU(), nn.Linear(width, CLASSES)]
    return nn.Sequential(*layers), (5,)


def _residual_convolutional(random: Random) -> tuple[nn.Module, tuple[int, ...]]:
    block = _Sum(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 1))
    layers = [nn.Conv2d(1, 2, 3, 2, 1), nn.ReLU(), block, nn.ReLU(), nn.Flatten(), nn.LazyLinear(CLASSES)]
    return nn.Sequential(*layers), (1, random.randint(4, 7), random.randint(4, 7))


KINDS: tuple[Callable[[Random], tuple[nn.Module, tuple[int, ...]]], ...] = (
    _dense,
    _convolutional,
    _residual,
    _residual_convolutional,
)


def _network(random: Random, seed: int) -> tuple[nn.Module, tuple[int, ...]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module, shape = KINDS[seed % len(KINDS)](random)
        module.eval()(torch.zeros(1, *shape))  # gives lazy layers their size
        for parameter in module.parameters():
            parameter.data.mul_(2.0 if parameter.dim() > 1 else 1.0)
    return module.requires_grad_(False), shape


def _undecided(network: Network, box: Box, spec: Tensor) -> tuple[int, float]:
    """How many activations are undecided, and DeepPoly's bound of the smallest margin."""
    found = DeepPoly().analyse(network.graph, network.values[torch.float64], box, spec, "lower")
    count = sum(int(op.function.undecided(found.hidden[op.inputs[0]]).sum()) for _, op in network.graph.activations)
    return count, float(found.bounds.lower.amin())


@lru_cache(maxsize=512)
def oracle_question(seed: int) -> OracleQuestion:
    """The question of a seed; its network is dense, convolutional, or has a residual connection, in turns."""
    from certtrain.certify.milp import exact_minimum

    random = Random(seed)
    module, shape = _network(random, seed)
    network = Network.of(module, shape)
    center = torch.rand((1, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    label = network.logits(center).argmax(1)
    spec, most = margin_spec(label, CLASSES).double(), random.randint(8, MOST_UNDECIDED)
    eps = 0.5
    while (found := _undecided(network, box := Box.linf(center, eps), spec))[0] > most:
        eps *= 0.8
    exact = exact_minimum(network.graph, network.values[torch.float64], box, spec)
    undecided, relaxed = found
    minimum = float(exact.upper.amin())
    unit = max(minimum - relaxed, 0.1 * abs(minimum))
    wanted = random.choice((-1, 1)) * random.uniform(*DISTANCES) * unit
    last = list(module.modules())[-1]
    assert isinstance(last, nn.Linear)
    last.bias[label] += wanted - minimum
    network = Network.of(module, shape)
    point = exact.points.flatten(0, 1)[exact.upper.argmin(), None]
    # Biases are float32: the shift is what it became.
    return OracleQuestion(seed, network, box, label, float(network.margins(point, label).amin()), undecided)


def compare_with_oracle(verifier: Verifier, seeds: Iterable[int], seconds: float = math.inf) -> Comparison:
    """Asks a verifier questions whose answers are known.

    Args:
        verifier: Any; what is complete leaves nothing open.
        seeds: Of the questions.
        seconds: For each question.

    Raises:
        AssertionError: If it verifies what has a counterexample, claims a margin above the smallest one, or names a
            counterexample that is none.
    """
    answers: dict[str, list[int]] = {"verified": [], "falsified": [], "left_open": []}
    for seed in seeds:
        question = oracle_question(seed)
        proved = verifier.smallest_margins(
            question.network, question.box, question.label, time.perf_counter() + seconds
        )
        finished, margin, point = bool(proved.finished[0]), float(proved.margins[0]), proved.counterexamples.get(0)
        about = f"{verifier.name} on seed {seed}, whose smallest margin is {question.minimum:.6g}: "
        if finished:
            assert not margin > question.minimum + TOLERANCE, f"{about}it claims {margin:.6g}"
        if point is not None:
            _check_counterexample(question, point, about)
        said = "falsified" if point is not None else "verified" if finished and margin > 0 else "left_open"
        answers[said].append(seed)
    return Comparison(*(tuple(found) for found in answers.values()))


def _check_counterexample(question: OracleQuestion, point: Tensor, about: str) -> None:
    box, x = question.box, point[None]
    assert bool(((box.lower <= x) & (x <= box.upper)).all()), f"{about}its counterexample is outside the box"
    margin = float(question.network.margins(x, question.label).amin())
    assert margin <= 0, f"{about}its counterexample has margin {margin:.6g}"

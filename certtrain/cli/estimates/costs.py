"""What jobs cost, measured: a few steps and a validation of each kind, timed on images of noise on this machine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from certtrain.cli.assembly.data import make_source
from certtrain.cli.assembly.network import make_network
from certtrain.cli.assembly.training import make_training
from certtrain.cli.configuration.schema import Node, RunConfig
from certtrain.cli.estimates.announcement import batch_of, noise_images
from certtrain.gradients.base import ALONE, LossFunction
from certtrain.gradients.cost import cost_of_gradient, cost_of_one
from certtrain.memory import available_bytes
from certtrain.networks import parameters
from certtrain.training.generation import Generation
from certtrain.training.judging import judge
from certtrain.training.module import CertifiedTraining
from certtrain.training.shards import Shard

# Steps that take longer than this together are not taken; one member then stands for all.
BUDGET_SECONDS = 10.0
STEPS = 3
# What is told from one member is right within this factor.
UNSURE = 2.0
# Images that a validation is told from.
VALIDATED = 32
# Keys that do not change what a step costs, and further ones that only say how many steps there are.
FREE = (
    "seed",
    "init",
    "schedule",
    "stop",
    "logger",
    "sweep",
    "resume",
    "checkpoint",
    "preemption",
    "certify",
    "verifier",
)
FREE_INSIDE = {
    **{"optimizer": ("lr",), "pgpe": ("sigma",), "rgs": ("sigma",), "warm_start": ("path",), "data": ("split_seed",)},
    "trainer": ("log_every_n_steps",),
}
LENGTHS = ("max_epochs", "max_steps", "validate_every")


@dataclass(frozen=True)
class Range:
    """From the least to the most that something may be.

    Attributes:
        low: The least.
        high: The most.
    """

    low: float
    high: float

    def __add__(self, other: Range) -> Range:
        """Of both, one after the other."""
        return Range(self.low + other.low, self.high + other.high)

    def __mul__(self, count: float) -> Range:
        """Of so many."""
        return Range(self.low * count, self.high * count)

    def around(self, other: Range) -> Range:
        """Of either."""
        return Range(min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True)
class StepCost:
    """What a kind of job costs per step.

    Attributes:
        step: Seconds of a generation, at the radii between the ends of the schedule.
        validation: Seconds per validation image.
        bytes: Of memory beside what the libraries take; None where it cannot be watched.
        members: Evaluations of a generation.
        taken: Whether whole generations were timed, not one member of them.
    """

    step: Range
    validation: Range
    bytes: int | None
    members: int
    taken: bool

    @property
    def members_per_second(self) -> Range:
        """Evaluations per second."""
        return Range(self.members / self.step.high, self.members / self.step.low)


def kind_of(node: Node, lengths: bool) -> str:
    """Jobs of the same kind cost the same.

    Args:
        node: The configuration of a job.
        lengths: Whether the number of steps counts, too.
    """
    kept: dict[str, Any] = {}
    for key, value in node.items():
        if key in FREE:
            continue
        left_out = (*FREE_INSIDE.get(key, ()), *(() if lengths or key != "trainer" else LENGTHS))
        kept[key] = {k: v for k, v in value.items() if k not in left_out} if isinstance(value, Mapping) else value
    return json.dumps(kept, default=str, sort_keys=True)


def step_cost(config: RunConfig) -> StepCost:
    """Times a few steps; no data are read.

    Args:
        config: Of a job that has been checked.
    """
    source = make_source(config)
    network, graph = make_network(config, source)
    training = make_training(config, network, graph)
    device = _device(config)
    network.to(device)
    inputs, labels = (x.to(device) for x in noise_images(source, batch_of(config)))
    steps = _Steps(training, inputs, labels)
    found = steps.measured()
    return StepCost(found[0], _validation(training, inputs, labels), found[1], training.estimator.evaluations, found[2])


class _Steps:
    """Steps of a training on some images."""

    def __init__(self, training: CertifiedTraining, inputs: Tensor, labels: Tensor) -> None:
        self.training, self.inputs, self.labels = training, inputs, labels
        self.params = parameters(training.network)
        self.generations = list(Generation.extremes(training.graph, training.objective))

    def measured(self) -> tuple[Range, int | None, bool]:
        """Seconds of a step, bytes, and whether whole steps were taken."""
        estimator, last = self.training.estimator, self.generations[-1]
        batch = len(self.inputs)
        short = BUDGET_SECONDS / estimator.evaluations

        def loss_of(count: int) -> LossFunction:
            return self._loss(last, count)

        cost = cost_of_one(estimator, loss_of, self.params, batch, short=short / 4)
        predicted = estimator.evaluations * cost.seconds
        if estimator.guesses:
            guess = cost_of_gradient(loss_of, self.params, batch, short=BUDGET_SECONDS / estimator.guesses / 4)
            predicted += estimator.guesses * guess.seconds
        held = None if cost.bytes is None else estimator.at_once * cost.bytes
        if predicted > BUDGET_SECONDS or _too_much(held, self.inputs.device):
            return Range(predicted / UNSURE, predicted * UNSURE), cost.bytes, False
        if (choice := estimator.choose(loss_of(batch), self.params, cost)) is not None:
            estimator = estimator.decided(choice.strategy)
        self._take(last, estimator)  # pays for what is set up once
        times = [
            _timed(lambda generation=generation: self._take(generation, estimator))  # type: ignore[misc]
            for generation in self.generations
            for _ in range(STEPS)
        ]
        return Range(min(times), max(times)), held, True

    def _loss(self, generation: Generation, count: int) -> LossFunction:
        shard = Shard.of((self.inputs[:count], self.labels[:count]), ALONE)
        return generation.loss(shard, self.params, generation.statistics(self.params, shard), self.training.estimator)

    def _take(self, generation: Generation, estimator: Any) -> None:
        loss = self._loss(generation, len(self.inputs))
        state = estimator.initial_state(self.params)
        found = estimator.estimate(loss, self.params, generation.number, state)
        float(found.loss)  # waits for the device that computes it


def _validation(training: CertifiedTraining, inputs: Tensor, labels: Tensor) -> Range:
    """Seconds per image; more images at a time take no more each."""
    params, few = parameters(training.network), min(VALIDATED, len(inputs))

    def validate(count: int) -> None:
        with torch.no_grad():
            judge(training.graph, training.objective, params, inputs[:count], labels[:count]).loss.cpu()

    validate(1)
    one, all_of_them = _timed(lambda: validate(1)), _timed(lambda: validate(few))
    each = all_of_them / few
    slope = max(0.0, all_of_them - one) / max(1, few - 1)
    return Range(min(each, slope), each)


def _timed(call: Callable[[], None]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _device(config: RunConfig) -> torch.device:
    if config.trainer.accelerator != "cpu" and torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("cpu")


def _too_much(held: int | None, device: torch.device) -> bool:
    free = available_bytes(device)
    return held is not None and free is not None and held > free

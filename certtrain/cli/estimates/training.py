"""What a whole training would take on this machine, told from a few timed steps."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from certtrain.cli.assembly.data import make_source
from certtrain.cli.assembly.network import make_network
from certtrain.cli.assembly.training import make_training
from certtrain.cli.configuration.schema import RunConfig
from certtrain.cli.estimates.announcement import batch_of, noise_images
from certtrain.gradients.backprop import differentiate
from certtrain.gradients.base import ALONE
from certtrain.gradients.cost import TELLING_SECONDS
from certtrain.networks import parameters
from certtrain.times import about
from certtrain.training.generation import Generation
from certtrain.training.module import CertifiedTraining
from certtrain.training.shards import Shard

# Training images of the public data sets, which nothing says before they are read.
TRAINING_IMAGES = {"mnist": 60_000, "fashion_mnist": 60_000, "cifar10": 50_000, "tiny_imagenet": 100_000}


@dataclass(frozen=True)
class RunEstimate:
    """What a training would take.

    Attributes:
        step_seconds: Of one generation at the full radius.
        steps: Generations; None where the number of training images is not known.
    """

    step_seconds: float
    steps: int | None

    def __str__(self) -> str:
        """For people."""
        step = f"{about(self.step_seconds)} a step"
        return step if self.steps is None else f"about {about(self.step_seconds * self.steps)}: {step}"


def run_estimate(config: RunConfig) -> RunEstimate:
    """Times generations on images of noise, at two sizes if a whole batch takes long, and draws the line through both.

    Validation and certification are not in it; what a loss prepares, such as an attack, is.

    Args:
        config: The run; no data are read.
    """
    source = make_source(config)
    network, graph = make_network(config, source)
    training = make_training(config, network, graph)
    batch = batch_of(config)
    few = min(2, batch)
    _cost(training, noise_images(source, few))  # pays for what is set up once
    base, count = _cost(training, noise_images(source, few)), min(4 * few, batch)
    while (more := _cost(training, noise_images(source, count))).all(1) < TELLING_SECONDS and count < batch:
        count = min(2 * count, batch)
    evaluations = training.estimator.evaluations
    slope = max(0.0, more.all(evaluations) - base.all(evaluations)) / max(count - few, 1)
    seconds = more.all(evaluations) + slope * (batch - count)
    images = TRAINING_IMAGES.get(config.data.name)
    steps = None if images is None else config.trainer.max_epochs * int(images * (1 - config.data.validation) / batch)
    if steps is not None and config.trainer.max_steps > 0:
        steps = min(steps, config.trainer.max_steps)
    return RunEstimate(seconds, steps)


@dataclass(frozen=True)
class _Cost:
    """Seconds of what is prepared once, and of an evaluation."""

    preparation: float
    evaluation: float

    def all(self, evaluations: int) -> float:
        return self.preparation + evaluations * self.evaluation


def _cost(training: CertifiedTraining, images: tuple[torch.Tensor, torch.Tensor]) -> _Cost:
    """Of a generation on some images."""
    shard, params, estimator = Shard.of(images, ALONE), parameters(training.network), training.estimator
    generation = Generation.last(training.graph, training.objective)
    started = time.perf_counter()
    loss = generation.loss(shard, params, generation.statistics(params, shard), estimator)
    prepared = time.perf_counter()
    if estimator.differentiates:
        differentiate(loss, params)
    else:
        with torch.no_grad():
            loss(params)
    return _Cost(prepared - started, time.perf_counter() - prepared)

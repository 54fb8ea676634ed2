"""How long a generation takes and how much memory, said before a run that will make people wait."""

from __future__ import annotations

import torch
from torch import Tensor

from certtrain.cli.configuration.schema import RunConfig
from certtrain.data.source import Source
from certtrain.gradients.base import ALONE, Cost, LossFunction
from certtrain.gradients.cost import cost_of_gradient, cost_of_one
from certtrain.gradients.strategy import against_vectorising
from certtrain.memory import about_bytes, available_bytes
from certtrain.networks import parameters
from certtrain.times import about
from certtrain.training.generation import Generation
from certtrain.training.module import CertifiedTraining
from certtrain.training.shards import Shard

# A generation that takes longer is announced, and so is one that takes this share of the free memory.
LONG_GENERATION = 10.0
MUCH_MEMORY = 0.5


def announcement(config: RunConfig, training: CertifiedTraining, source: Source) -> str | None:
    """One line about a generation that is long or large by estimate; None about any other, and where a GPU computes.

    The estimate is made from one evaluation on a few images of noise, at the weights that training begins with: it is
    right within a factor of a few.
    """
    if config.trainer.accelerator != "cpu" and (torch.cuda.is_available() or torch.backends.mps.is_available()):
        return None
    estimator = training.estimator
    # Of what is held in memory at a time.
    parts = config.trainer.accumulate
    images = -(-batch_of(config) // (parts * (config.trainer.ranks if estimator.splits == "batch" else 1)))

    generation, params = Generation.last(training.graph, training.objective), parameters(training.network)

    def loss_of(count: int) -> LossFunction:
        # No more images than it is evaluated on: all that were asked for need not fit into memory, nor exist.
        shard = Shard.of(noise_images(source, count), ALONE)
        return generation.loss(shard, params, {}, estimator)

    evaluations = estimator.evaluations
    own = parts * -(-evaluations // (config.trainer.ranks if estimator.splits == "population" else 1))
    cost = cost_of_one(estimator, loss_of, params, images, short=LONG_GENERATION / own)
    free = available_bytes(torch.device("cpu"))
    if estimator.is_open and against_vectorising(cost, estimator.at_once, free):
        estimator = estimator.decided("loop")
    seconds, held = own * cost.seconds, estimator.at_once * (cost.bytes or 0)
    guess = ""
    if estimator.guesses:
        share = -(-images // config.trainer.ranks)
        one = cost_of_gradient(loss_of, params, share, short=LONG_GENERATION / estimator.guesses)
        seconds += parts * estimator.guesses * one.seconds
        guess = f", with {_each(estimator.guesses, 'gradient', one)} as control variate"
    if seconds <= LONG_GENERATION and (free is None or held <= MUCH_MEMORY * free):
        return None
    each = _each(evaluations, "member" if estimator.has_members else "evaluation", cost)
    memory = "" if cost.bytes is None else f" and {about_bytes(held)} of memory"
    memory += "" if free is None or not memory else f" ({about_bytes(free)} are free)"
    return f"one generation takes about {about(seconds)}{memory}: {each}{guess}, on {images} images"


def _each(count: int, what: str, cost: Cost) -> str:
    number = f"{count} {what}s" if count > 1 else f"one {what}"
    return f"{number} of about {about(cost.seconds)}"


def noise_images(source: Source, count: int) -> tuple[Tensor, Tensor]:
    """Images of noise and labels, always the same."""
    inputs = torch.rand((count, *source.shape), generator=torch.Generator().manual_seed(0))
    return inputs, torch.arange(count) % source.num_classes


def batch_of(config: RunConfig) -> int:
    """Images of a generation."""
    own = config.pgpe.batch_per_generation if config.pgpe is not None else None
    return own or config.data.batch_size

"""The LightningModule of a run."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from certtrain.cli.assembly.bounds import make_relaxation, make_validation
from certtrain.cli.assembly.estimator import make_estimator
from certtrain.cli.assembly.parts import instantiate, part
from certtrain.cli.configuration.schema import RunConfig
from certtrain.errors import ConfigError
from certtrain.gradients import (
    Ranks,
)
from certtrain.gradients.base import ALONE
from certtrain.losses import Loss
from certtrain.networks import Graph
from certtrain.training.average import Average
from certtrain.training.judged import Judged
from certtrain.training.module import CertifiedTraining
from certtrain.training.objective import Objective, Optimization
from certtrain.training.phases import NO_WARM_START, WarmStart
from certtrain.training.schedules import Ramp

# trainer.forwards -> what plain evaluations are cast to.
FORWARDS: Mapping[str, torch.dtype | None] = {"float32": None, "bfloat16": torch.bfloat16}


def make_training(
    config: RunConfig,
    network: nn.Module,
    graph: Graph,
    ranks: Ranks = ALONE,
    warm_start: WarmStart = NO_WARM_START,
) -> CertifiedTraining:
    """The LightningModule of a run."""
    eps, natural = config.schedule.eps, config.schedule.natural_weight
    loss = part(config.loss, "loss", Loss)
    _check_divided(config, loss)
    objective = Objective(
        make_relaxation(config),
        loss,
        config.eps,
        config.clip,
        Ramp(0.0, config.eps * eps.scale, eps.warmup, eps.ramp, eps.shape),
        Ramp(natural.start, natural.end, natural.warmup, natural.ramp),
        config.seed,
        make_validation(config, loss),
        FORWARDS[config.trainer.forwards],
    )
    optimization = Optimization(
        instantiate({**config.optimizer.target, "_partial_": True}, "optimizer"),
        instantiate({**config.scheduler, "_partial_": True}, "scheduler"),
        config.optimizer.clip_norm,
        config.trainer.accumulate,
    )
    judged = Judged(part(config.average, "average", Average), config.batch_norm)
    return CertifiedTraining(network, graph, make_estimator(config), objective, optimization, ranks, warm_start, judged)


def _check_divided(config: RunConfig, loss: Loss) -> None:
    if not loss.divisible and (config.trainer.ranks > 1 or config.trainer.accumulate > 1):
        raise ConfigError(
            "loss: it is one of whole batches, which nothing may divide: "
            "trainer.devices, trainer.num_nodes and trainer.accumulate must be 1"
        )

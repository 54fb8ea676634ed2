"""One LightningModule for every method: estimate a gradient, clip it, take one optimizer step."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from functools import cached_property
from itertools import count
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.func import functional_call
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from certtrain.errors import CerttrainError
from certtrain.gradients.accumulation import accumulated
from certtrain.gradients.backprop import Backprop
from certtrain.gradients.base import ALONE, Estimate, GradientEstimator, LossFunction, State
from certtrain.gradients.cost import cost_of_one
from certtrain.gradients.ranks import Ranks, portion
from certtrain.networks.graph import Graph, Params, parameters
from certtrain.networks.statistics import update_running_statistics
from certtrain.precision import full_float32
from certtrain.training.generation import Generation
from certtrain.training.judged import Judged
from certtrain.training.judging import judge
from certtrain.training.objective import Objective, Optimization
from certtrain.training.phases import NO_WARM_START, Phases, WarmStart
from certtrain.training.recorder import Recorder
from certtrain.training.schedules import with_horizon
from certtrain.training.shards import Shard

Batch = tuple[Tensor, Tensor]
_log = logging.getLogger(__name__)

# Keys in a checkpoint.
STRATEGY = "population_strategy"
STATE = "estimator_state"
VALIDATED = "validated_step"


class NonFiniteLoss(CerttrainError):
    """The loss or its gradient stopped being a number."""


class CertifiedTraining(pl.LightningModule):
    """Trains a network on certified bounds; the method is the gradient estimator.

    Optimization is manual for every method: exactly one wrapped optimizer step per batch, so that Lightning's
    `global_step` is the number of generations.

    Args:
        network: The network; its parameters are trained in place.
        graph: The same network, traced.
        estimator: The method.
        objective: Relaxation, loss and schedules.
        optimization: Optimizer, scheduler and clipping.
        ranks: The processes that train together. Each is given the same batches.
        warm_start: Epochs of plain gradients before the method takes over.
        judged: Which weights and statistics are validated, chosen by and certified.

    Attributes:
        validated_step: `global_step` at the last validation, -1 before the first.
        strategy: What was measured to be the fastest way to evaluate the population, "" where nothing had to be.
        estimator_state: What the estimator remembers from one generation to the next.
        total_steps: Steps of the whole run, once training begins.
        doing: What goes on at this moment, for people.
    """

    total_steps: int

    def __init__(
        self,
        network: nn.Module,
        graph: Graph,
        estimator: GradientEstimator,
        objective: Objective,
        optimization: Optimization,
        ranks: Ranks = ALONE,
        warm_start: WarmStart = NO_WARM_START,
        judged: Judged | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.graph = graph
        self.estimator = estimator
        self.objective = objective
        self.optimization = optimization
        self.ranks = ranks
        self.warm_start = warm_start
        self.judged = Judged() if judged is None else judged
        self.estimator_state: State = {}
        classes = graph.num_outputs
        self.validated_step = -1
        self.strategy = ""
        self._settled = False
        self._settled_step = -1
        self._validated = 0
        self.doing = "prepares the training"
        self.natural_accuracy = MulticlassAccuracy(classes, average="micro")
        self.certified_accuracy = MeanMetric()
        self.validation_loss = MeanMetric()

    def forward(self, x: Tensor) -> Tensor:
        """Logits: [batch, *input_shape] -> [batch, classes]."""
        return self.network(x)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One optimizer and a scheduler that `training_step` steps."""
        optimizer = self.optimization.optimizer(self.network.parameters())
        self.total_steps = self._count_steps()
        self.estimator = self.estimator.planned(self.total_steps)
        scheduler = with_horizon(self.optimization.scheduler, optimizer, self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @cached_property
    def phases(self) -> Phases:
        """Which steps belong to which epoch and phase, once training begins and the batches of an epoch are counted."""
        epochs = self.warm_start.epochs
        if epochs == 0:
            return Phases(0, 0, int(self.trainer.num_training_batches))
        batches_in = self.trainer.datamodule.batches_in  # type: ignore[attr-defined]
        return Phases(epochs, batches_in(0), batches_in(epochs))

    def _count_steps(self) -> int:
        if self.warm_start.epochs == 0:
            return int(self.trainer.estimated_stepping_batches)
        limits = (self.trainer.max_steps, self.phases.steps(self.trainer.max_epochs or 0))
        return min(n for n in limits if n > 0)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Before the first generation: settles what the estimator leaves to a measurement, on its batch."""
        if self._settled or self.phases.warm(self.global_step):
            return
        self._settled = True
        if not self.estimator.is_open:
            return
        self.doing = "measures how to evaluate the population"
        shard = Shard.of(batch, self.ranks)
        params = parameters(self.network)
        generation = Generation.last(self.graph, self.objective)
        statistics = generation.statistics(params, shard)

        def loss_of(images: int) -> LossFunction:
            return generation.loss(shard, params, statistics, self.estimator, images)

        images = len(shard.inputs)
        cost = cost_of_one(self.estimator, loss_of, params, images)
        # Every rank measures, under the load of the others; the first one's clock decides for all.
        choice = self.trainer.strategy.broadcast(self.estimator.choose(loss_of(images), params, cost))
        if choice is None:
            return
        self._decide(choice.strategy)
        _log.info("%s", choice)
        self.print(choice)
        for logger in self.loggers:
            seconds = {f"population/{name}_seconds": value for name, value in choice.seconds.items()}
            logger.log_metrics(seconds, step=self.global_step)

    def _decide(self, strategy: str) -> None:
        decided = self.estimator.decided(strategy)
        if decided is not self.estimator:
            self.strategy, self.estimator = strategy, decided

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The estimator's state; the measured strategy too: another one would give other last bits."""
        checkpoint[STATE] = dict(self.estimator_state)
        checkpoint[VALIDATED] = self.validated_step
        self.judged.save(checkpoint)
        if self.strategy:
            checkpoint[STRATEGY] = self.strategy

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on with the state and the strategy that the run had, unless the configuration names a strategy."""
        self.estimator_state = dict(checkpoint.get(STATE, {}))
        self.validated_step = checkpoint.get(VALIDATED, -1)
        self.judged.load(checkpoint, self.device)
        if STRATEGY in checkpoint:
            self._decide(checkpoint[STRATEGY])

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One generation: estimate, clip, step, schedule, log."""
        step = self.global_step
        estimator, ranks = self._method_at(step)
        shard = Shard.of(batch, ranks)
        if step == self.phases.switch > 0:
            # Moments of plain gradients say nothing about the scale of a population's.
            self.optimizers().optimizer.state.clear()  # type: ignore[union-attr]
        generation = Generation.at(self.graph, self.objective, step, self.phases.epoch(step))
        params = parameters(self.network)
        statistics = generation.statistics(params, shard)
        update_running_statistics(self.network, self.graph, statistics)
        parts = shard.parts(self.optimization.accumulate)
        whole = accumulated([generation.loss(part, params, statistics, estimator) for part in parts])
        loss = self._counted(whole, estimator)
        recorder = Recorder(params, lambda p: ranks.reduce(loss(p)), estimator, active=self._recorded(step))
        started = time.perf_counter()
        estimate = estimator.estimate(loss, params, step, self.estimator_state, ranks)
        norm = self._step(params, estimate)
        rate = estimator.evaluations / max(time.perf_counter() - started, 1e-9)
        self.estimator_state = estimate.state
        self.judged.update(self.network, self.phases.moment(self.global_step, self.total_steps))
        self._log_step(generation, estimate, {"gradient_norm": norm, **recorder.numbers(params)}, rate)

    def _counted(self, loss: LossFunction, estimator: GradientEstimator) -> LossFunction:
        """The same loss; `doing` follows how often it has been called."""
        calls, step = count(1), f"step {self.global_step + 1} of {self.total_steps}"
        many = f", {estimator.evaluations} members" if estimator.has_members else ""
        self.doing = step

        def counted(params: Params) -> Tensor:
            self.doing = f"{step}, call {next(calls)} of the loss{many}"
            return loss(params)

        return counted

    def _method_at(self, step: int) -> tuple[GradientEstimator, Ranks]:
        """What estimates the gradient of a step, and how the ranks divide its work."""
        return (Backprop(), self.warm_start.ranks) if self.phases.warm(step) else (self.estimator, self.ranks)

    def _recorded(self, step: int) -> bool:
        """Whether the numbers of a step go to the loggers."""
        return (step + 1) % self.trainer.log_every_n_steps == 0  # type: ignore[attr-defined]

    def _step(self, params: Params, estimate: Estimate) -> Tensor:
        for name, parameter in params.items():
            parameter.grad = estimate.gradient[name]
        limit = self.optimization.clip_norm
        norm = torch.nn.utils.clip_grad_norm_(params.values(), float("inf") if limit is None else limit)
        if not (estimate.loss.isfinite() and norm.isfinite()):
            raise NonFiniteLoss(
                f"step {self.global_step}: loss {float(estimate.loss)}, gradient norm {float(norm)}: "
                "lower optimizer.lr, set optimizer.clip_norm or lengthen schedule.eps.ramp"
            )
        optimizer, scheduler = self.optimizers(), self.lr_schedulers()
        optimizer.step()  # type: ignore[union-attr]
        optimizer.zero_grad(set_to_none=True)  # type: ignore[union-attr]
        scheduler.step()  # type: ignore[union-attr]
        return norm

    def _log_step(
        self, generation: Generation, estimate: Estimate, step: dict[str, Tensor | float], rate: float
    ) -> None:
        shown: dict[str, Tensor | float] = {"train/loss": estimate.loss, "eps": generation.eps}
        speed = {"members_per_second": rate}
        if self._method_at(generation.number)[0].has_members:
            shown |= speed
        quiet: dict[str, Tensor | float] = {
            "natural_weight": generation.natural_weight,
            "lr": self.optimizers().param_groups[0]["lr"],  # type: ignore[union-attr]
            **speed,
            **step,
            **estimate.statistics,
        }
        self.log_dict(shown, prog_bar=True, logger=False, batch_size=1)  # of the last step: nothing is averaged
        self._record({**shown, **quiet})

    def _record(self, metrics: Mapping[str, Tensor | float]) -> None:
        """Writes the row of a generation at once: Lightning would after the checkpoint that already holds its step."""
        if not self._recorded(self.global_step - 1):
            return
        row = {**{name: float(value) for name, value in metrics.items()}, "epoch": self.current_epoch}
        for logger in self.loggers:
            logger.log_metrics(row, step=self.global_step - 1)

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        """Natural and certified accuracy at the final eps, by `objective.validation`; each rank judges a part."""
        own = portion(len(batch[0]), self.ranks.rank, self.ranks.size)
        if len(own):
            inputs, labels = (part[own.start : own.stop] for part in batch[:2])
            self._judge(inputs, labels, own.start)
        self._validated += len(batch[0])
        # Also where nothing was judged: every rank takes part when the numbers are added up at the end of the epoch.
        self.log("val/natural_accuracy", self.natural_accuracy, on_epoch=True, prog_bar=True)
        self.log("val/certified_accuracy", self.certified_accuracy, on_epoch=True, prog_bar=True)
        self.log("val/loss", self.validation_loss, on_epoch=True)

    def _judge(self, inputs: Tensor, labels: Tensor, first: int) -> None:
        params = self.judged.weights(self.network)
        found = judge(
            self.graph, self.objective, params, inputs, labels, self.global_step, first, self._validated + first
        )
        with full_float32(inputs.device):
            logits = functional_call(self.network, params, inputs)
        self.natural_accuracy.update(logits, labels)
        self.certified_accuracy.update(found.certified.float())
        self.validation_loss.update(found.loss)

    def on_validation_epoch_start(self) -> None:
        """Says what comes now, and makes ready what is judged."""
        self.doing = "validates"
        self._validated = 0
        self._settle()

    def on_validation_epoch_end(self) -> None:
        """Remembers which weights have been judged."""
        self.validated_step = self.global_step

    def on_train_epoch_end(self) -> None:
        """Where nothing was validated: what a checkpoint of this step holds may be judged all the same."""
        self._settle()

    def _settle(self) -> None:
        if self._settled_step != self.global_step:
            self._settled_step = self.global_step
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            self.judged.settle(self.network, self.graph, lambda: (x.to(self.device) for x in data.training_images()))

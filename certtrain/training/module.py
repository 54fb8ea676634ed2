"""One LightningModule for every method: estimate a gradient, clip it, take one optimizer step."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from certtrain.bounds.base import Relaxation
from certtrain.errors import CerttrainError
from certtrain.gradients.base import Estimate, GradientEstimator
from certtrain.losses.base import Loss, Problem
from certtrain.losses.robust_cross_entropy import lower_margins, robust_cross_entropy
from certtrain.networks.graph import Graph, Params, parameters
from certtrain.networks.statistics import batch_statistics, update_running_statistics
from certtrain.training.schedules import Ramp, with_horizon

Batch = tuple[Tensor, Tensor]
_log = logging.getLogger(__name__)

# Keys in a checkpoint.
STRATEGY = "population_strategy"
VALIDATED = "validated_step"


class NonFiniteLoss(CerttrainError):
    """The loss or its gradient stopped being a number."""


@dataclass(frozen=True)
class Objective:
    """What is minimised, and how it changes over the epochs.

    Attributes:
        relaxation: Bounds the margins, in training and validation.
        loss: Made of these bounds.
        target_eps: Radius that validation certifies, in pixel units.
        clip: Range of legal pixels.
        eps: Radius that is trained for over the epochs; recipes let it end above the target.
        natural_weight: Weight κ of the natural loss over the epochs.
    """

    relaxation: Relaxation
    loss: Loss
    target_eps: float
    clip: tuple[float, float]
    eps: Ramp
    natural_weight: Ramp


@dataclass(frozen=True)
class Optimization:
    """How parameters move along an estimated gradient.

    Attributes:
        optimizer: Parameters -> optimizer.
        scheduler: Optimizer -> learning-rate scheduler, stepped once per optimizer step.
        clip_norm: Largest norm of a gradient; None leaves it.
    """

    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    scheduler: Callable[[Optimizer], LRScheduler]
    clip_norm: float | None = None


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

    Attributes:
        validated_step: `global_step` at the last validation, -1 before the first.
        strategy: What was measured to be the fastest way to evaluate the population, "" where nothing had to be.
    """

    def __init__(
        self,
        network: nn.Module,
        graph: Graph,
        estimator: GradientEstimator,
        objective: Objective,
        optimization: Optimization,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.graph = graph
        self.estimator = estimator
        self.objective = objective
        self.optimization = optimization
        classes = graph.num_outputs
        self.validated_step = -1
        self.strategy = ""
        self._settled = False
        self.natural_accuracy = MulticlassAccuracy(classes, average="micro")
        self.certified_accuracy = MeanMetric()
        self.validation_loss = MeanMetric()

    def forward(self, x: Tensor) -> Tensor:
        """Logits: [batch, *input_shape] -> [batch, classes]."""
        return self.network(x)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One optimizer and a scheduler that `training_step` steps."""
        optimizer = self.optimization.optimizer(self.network.parameters())
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = with_horizon(self.optimization.scheduler, optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Before the first generation: settles what the estimator leaves to a measurement, on its batch."""
        if self._settled:
            return
        self._settled = True
        inputs, labels = batch
        params = parameters(self.network)
        # At the radius where training ends. Where it begins, at 0, there may be no bounds to compute.
        problem = self._problem(inputs, labels, self.objective.eps.end, self.objective.natural_weight.end)
        loss = self._loss_of(problem, self._batch_statistics(params, inputs))
        choice = self.estimator.choose(loss, params)
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
        """The measured strategy is part of a run: another one would give other last bits."""
        checkpoint[VALIDATED] = self.validated_step
        if self.strategy:
            checkpoint[STRATEGY] = self.strategy

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on with the strategy that the run began with, unless the configuration names one."""
        self.validated_step = checkpoint.get(VALIDATED, -1)
        if STRATEGY in checkpoint:
            self._decide(checkpoint[STRATEGY])

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One generation: estimate, clip, step, schedule, log."""
        started = time.perf_counter()
        inputs, labels = batch
        epoch = self.global_step / self.trainer.num_training_batches
        problem = self._problem(inputs, labels, self.objective.eps(epoch), self.objective.natural_weight(epoch))
        params = parameters(self.network)
        statistics = self._batch_statistics(params, inputs)
        update_running_statistics(self.network, self.graph, statistics)
        estimate = self.estimator.estimate(self._loss_of(problem, statistics), params, self.global_step)
        norm = self._step(params, estimate)
        self._log_step(problem, estimate, norm, len(inputs), time.perf_counter() - started)

    def _problem(self, inputs: Tensor, labels: Tensor, eps: float, natural_weight: float) -> Problem:
        objective = self.objective
        return Problem(self.graph, objective.relaxation, inputs, labels, eps, natural_weight, objective.clip)

    def _batch_statistics(self, params: Params, inputs: Tensor) -> Params:
        """What batch norm sees of the clean batch at the centre; nothing where there is none."""
        if not self.graph.has_batch_norm:
            return {}
        return {k: v.detach() for k, v in batch_statistics(self.graph, params, inputs).items()}

    def _loss_of(self, problem: Problem, statistics: Params) -> Callable[[Params], Tensor]:
        """The loss as a function of the parameters, given the centre's batch statistics."""
        if statistics and self.estimator.evaluations == 1:
            return lambda p: self.objective.loss(problem, {**p, **batch_statistics(self.graph, p, problem.inputs)})
        # A population shares the centre's statistics: members differ by their weights alone.
        return lambda p: self.objective.loss(problem, {**p, **statistics})

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

    def _log_step(self, problem: Problem, estimate: Estimate, norm: Tensor, images: int, seconds: float) -> None:
        rate = self.estimator.evaluations / max(seconds, 1e-9)
        shown: dict[str, Tensor | float] = {"train/loss": estimate.loss, "eps": problem.eps, "members_per_second": rate}
        quiet: dict[str, Tensor | float] = {
            "gradient_norm": norm,
            "natural_weight": problem.natural_weight,
            "lr": self.optimizers().param_groups[0]["lr"],  # type: ignore[union-attr]
            **estimate.statistics,
        }
        self.log_dict(shown, prog_bar=True, logger=False, batch_size=images)
        self._record({**shown, **quiet})

    def _record(self, metrics: Mapping[str, Tensor | float]) -> None:
        """Writes the row of a generation at once: Lightning would after the checkpoint that already holds its step."""
        if self.global_step % self.trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        row = {**{name: float(value) for name, value in metrics.items()}, "epoch": self.current_epoch}
        for logger in self.loggers:
            logger.log_metrics(row, step=self.global_step - 1)

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        """Natural and certified accuracy at the final eps, by the relaxation that trains."""
        inputs, labels, _ = batch
        problem = self._problem(inputs, labels, self.objective.target_eps, self.objective.natural_weight.end)
        params = parameters(self.network)
        margins = lower_margins(problem, params)
        logits = self.network(inputs)
        kappa = problem.natural_weight
        loss = (1 - kappa) * robust_cross_entropy(margins) + kappa * F.cross_entropy(logits, labels, reduction="none")
        self.natural_accuracy.update(logits, labels)
        # A NaN margin is not positive, so it never counts as certified.
        self.certified_accuracy.update((margins > 0).all(1).float())
        self.validation_loss.update(loss)
        self.log("val/natural_accuracy", self.natural_accuracy, on_epoch=True, prog_bar=True)
        self.log("val/certified_accuracy", self.certified_accuracy, on_epoch=True, prog_bar=True)
        self.log("val/loss", self.validation_loss, on_epoch=True)

    def on_validation_epoch_end(self) -> None:
        """Remembers which weights have been judged."""
        self.validated_step = self.global_step

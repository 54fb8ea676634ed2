"""The weights and statistics that validation, selection and certification judge: those of the run, or an average."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from certtrain.networks.graph import Graph, Params, parameters
from certtrain.networks.statistics import mean_statistics
from certtrain.training.average import Average, Moment, NoAverage
from certtrain.training.checkpoints import AVERAGED

NO_AVERAGE = NoAverage()
# In a checkpoint: how many weights are in the average.
SAMPLES = "averaged_samples"


class Judged:
    """What of a network is judged.

    Args:
        average: Which average of its weights is judged instead of them.
        batch_norm: Statistics that it is judged with: "running" ones, or "recomputed" over the training images.

    Attributes:
        averaged: Parameters and floating-point buffers of the average; empty while there is none.
        samples: Weights that are in it.
    """

    def __init__(self, average: Average = NO_AVERAGE, batch_norm: Literal["running", "recomputed"] = "running") -> None:
        self.average = average
        self.batch_norm = batch_norm
        self.averaged: Params = {}
        self.samples = 0

    def update(self, network: nn.Module, moment: Moment) -> None:
        """Lets the weights after a step count."""
        share = self.average.share(moment, self.samples)
        if share == 0:
            return
        present = _state(network)
        if not self.averaged:
            self.averaged = {name: tensor.clone() for name, tensor in present.items()}
        else:
            for name, mean in self.averaged.items():
                mean.lerp_(present[name], share)
        self.samples += 1

    def settle(self, network: nn.Module, graph: Graph, images: Callable[[], Iterable[Tensor]]) -> None:
        """Before something is judged: computes the statistics that belong to its weights, if that is asked for.

        Args:
            network: Its buffers are replaced; training does not depend on them.
            graph: The same network.
            images: Gives the training images in batches, each [batch, *input_shape].
        """
        if self.batch_norm == "running" or not graph.has_batch_norm:
            return
        buffers = dict(network.named_buffers())
        own = mean_statistics(graph, parameters(network), images())
        for name, value in own.items():
            buffers[name].copy_(value)
        if self.averaged:
            self.averaged.update(mean_statistics(graph, self.averaged, images()))

    def weights(self, network: nn.Module) -> Params:
        """Parameters to judge, with the buffers that belong to them; those that are missing are the network's own."""
        return self.averaged or parameters(network)

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Adds the average to a checkpoint."""
        if self.averaged:
            checkpoint[AVERAGED], checkpoint[SAMPLES] = dict(self.averaged), self.samples

    def load(self, checkpoint: dict[str, Any], device: torch.device) -> None:
        """Goes on with the average of a checkpoint."""
        self.averaged = {name: tensor.to(device) for name, tensor in checkpoint.get(AVERAGED, {}).items()}
        self.samples = checkpoint.get(SAMPLES, 0)


def _state(network: nn.Module) -> Params:
    """Everything that is averaged, detached."""
    return {name: x.detach() for name, x in network.state_dict().items() if x.is_floating_point()}

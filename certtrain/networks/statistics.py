"""Batch statistics for training networks with batch norm by bounds.

Bounds see batch norm as an affine map with given statistics. While training these are the statistics of the clean
batch, as published recipes have it (Shi et al., NeurIPS 2021); they arrive among the parameters under the buffers'
names.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import torch
from torch import Tensor, nn

from certtrain.errors import ConfigError, UnsupportedOperation
from certtrain.networks.graph import Graph, Params
from certtrain.networks.ops import BatchNorm


def batch_statistics(graph: Graph, params: Params, x: Tensor) -> Params:
    """Mean and (biased) variance that every batch norm sees on a batch, differentiable in the parameters.

    Args:
        graph: The network.
        params: Parameter name -> tensor.
        x: [batch, *input_shape].

    Returns:
        Buffer name -> [channels], for every batch norm of the network.

    Raises:
        ConfigError: If a batch norm sees one value per channel.
    """
    check_batch(graph, len(x))
    values = graph.values(params, x)
    statistics: Params = {}

    def before(op: BatchNorm, y: Tensor) -> None:
        if op.mean in statistics:
            raise UnsupportedOperation(f"batch norm '{op.name}' is applied twice: its statistics would be ambiguous")
        axes = [0, *range(2, y.dim())]
        values[op.mean], values[op.variance] = y.mean(axes), y.var(axes, unbiased=False)
        statistics.update({op.mean: values[op.mean], op.variance: values[op.variance]})

    graph.run(values, x, before_batch_norm=before)
    return statistics


def check_batch(graph: Graph, images: int) -> None:
    """Refuses batches in which a batch norm sees one value per channel: its output would be its shift, of any image.

    The statistics are those of the whole batch, however many processes or members of a population share it.

    Args:
        graph: The network.
        images: Of a batch.

    Raises:
        ConfigError: Naming the batch norm.
    """
    for op in graph.ops:
        if isinstance(op, BatchNorm) and images * prod(op.shape[1:]) < 2:
            raise ConfigError(
                f"batch norm '{op.name}' sees one value per channel in a batch of {images}, which has no variance: "
                "train on batches of at least 2 images (data.batch_size, pgpe.batch_per_generation)"
            )


def mean_statistics(graph: Graph, params: Params, batches: Iterable[Tensor]) -> Params:
    """The mean of the statistics of many batches: what a moving average follows, at one place of the parameters.

    As torch's `update_bn` has it, the variance is the mean of those within batches.

    Args:
        graph: The network.
        params: Parameter name -> tensor.
        batches: Each [batch, *input_shape], of one size.

    Returns:
        Buffer name -> [channels], detached.
    """
    total: Params = {}
    count = 0
    with torch.no_grad():
        for x in batches:
            count += 1
            for name, value in batch_statistics(graph, params, x).items():
                total[name] = total[name] + value if name in total else value
    return {name: value / count for name, value in total.items()}


def update_running_statistics(network: nn.Module, graph: Graph, statistics: Params) -> None:
    """Moves every batch norm's running statistics towards those of a batch.

    Every layer uses its own momentum; a momentum of None keeps the plain average of all batches. Unlike torch, the
    running variance follows the biased variance, which is the one that the batch itself was normalised with.
    """
    buffers = dict(network.named_buffers())
    layers = {id(m.running_mean): m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    with torch.no_grad():
        for op in graph.ops:
            if not isinstance(op, BatchNorm):
                continue
            layer = layers[id(buffers[op.mean])]
            layer.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            rate = layer.momentum if layer.momentum is not None else 1.0 / float(layer.num_batches_tracked)  # type: ignore[arg-type]
            for name in (op.mean, op.variance):
                buffers[name].lerp_(statistics[name].detach(), rate)

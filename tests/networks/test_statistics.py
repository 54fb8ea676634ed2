"""Batch norm needs a variance: batches in which a channel has one value are refused, whoever makes them."""

import pytest
import torch
from torch import nn

from certtrain.errors import ConfigError
from certtrain.networks import parameters, trace
from certtrain.networks.statistics import batch_statistics, check_batch

FLAT = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))
POINT = nn.Sequential(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 2))
PIXELS = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))


@pytest.mark.parametrize("network", [FLAT, POINT])
def test_one_value_per_channel_is_refused_as_torch_does(network: nn.Module) -> None:
    graph, image = trace(network, (1, 2, 2)), torch.rand(1, 1, 2, 2)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        network.train()(image)
    for refused in (lambda: check_batch(graph, 1), lambda: batch_statistics(graph, parameters(network), image)):
        with pytest.raises(ConfigError, match=r"batch norm '\d' sees one value per channel in a batch of 1"):
            refused()
    check_batch(graph, 2)


def test_a_single_image_of_several_pixels_has_a_variance() -> None:
    graph, image = trace(PIXELS, (1, 2, 2)), torch.rand(1, 1, 2, 2)
    assert all(value.isfinite().all() for value in batch_statistics(graph, parameters(PIXELS), image).values())

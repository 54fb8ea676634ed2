"""The architectures of conf/model: published parameter counts, and batch norm statistics."""

import pytest
import torch
from torch import nn

from certtrain.cli.assembly.parts import instantiate
from certtrain.cli.configuration.compose import Command, compose_jobs
from certtrain.cli.configuration.schema import plain
from certtrain.errors import ConfigError
from certtrain.networks import parameters, trace
from certtrain.networks.convnet import ConvNet
from certtrain.networks.statistics import batch_statistics, update_running_statistics

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)


def network(model: str, shape: tuple[int, int, int], **options: object) -> nn.Module:
    (job,) = compose_jobs(Command((f"model={model}",), False, False))
    given = {"input_shape": shape, "num_classes": 10, "mean": [0.5] * shape[0], "std": [0.5] * shape[0]}
    return instantiate({**plain(job)["model"], **options}, "model", **given)


@pytest.mark.parametrize(
    ("model", "options", "mnist", "cifar"),
    [
        ("cnn3", {}, 24_330, 29_930),
        ("cnn5", {}, 820_954, 1_067_002),
        ("cnn7", {"norm": "none"}, 13_257_290, 17_190_602),
        ("paradox_fc", {}, 425_410, None),
        ("paradox_conv", {}, 314_982, None),
    ],
)
def test_parameter_counts(model: str, options: dict, mnist: int, cifar: int | None) -> None:
    assert sum(p.numel() for p in network(model, MNIST, **options).parameters()) == mnist
    if cifar is not None:
        assert sum(p.numel() for p in network(model, CIFAR, **options).parameters()) == cifar


def small_cnn() -> ConvNet:
    return ConvNet((1, 6, 6), 3, [[4, 3, 2, 1]], [5], "batch", [0.5], [0.5])


def test_batch_statistics_are_those_of_training_mode() -> None:
    """Bounds with the batch's statistics and torch's own training mode must see the same network."""
    torch.manual_seed(0)
    net, reference = small_cnn(), small_cnn()
    reference.load_state_dict(net.state_dict())
    graph = trace(net, (1, 6, 6))
    x = torch.rand(16, 1, 6, 6)
    statistics = batch_statistics(graph, parameters(net), x)
    logits = graph.forward({**parameters(net), **statistics}, x)
    expected = reference.train()(x)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    gradients = torch.autograd.grad(logits.square().sum(), list(net.parameters()))
    wanted = torch.autograd.grad(expected.square().sum(), list(reference.parameters()))
    for g, w in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-3, atol=1e-4)


def test_running_statistics_follow_the_batches() -> None:
    torch.manual_seed(0)
    net = small_cnn()
    graph = trace(net, (1, 6, 6))
    x = torch.rand(16, 1, 6, 6)
    for _ in range(100):
        update_running_statistics(net, graph, batch_statistics(graph, parameters(net), x))
    expected = batch_statistics(graph, parameters(net), x)
    buffers = dict(net.named_buffers())
    for name, value in expected.items():
        torch.testing.assert_close(buffers[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"convolutions": [[4, 9, 1, 0]]}, "too small for model.convolutions"),
        ({"convolutions": [[4, 3, 1]]}, "must be"),
        ({"norm": "layer"}, "batch or none"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused(options: dict, message: str) -> None:
    arguments = {"convolutions": [[4, 3, 1, 1]], "widths": [], "norm": "none", **options}
    with pytest.raises(ConfigError, match=message):
        ConvNet((1, 6, 6), 3, mean=[0.5], std=[0.5], **arguments)

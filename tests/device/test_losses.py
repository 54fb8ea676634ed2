"""Losses on a device are those on the CPU, and so are their derivatives."""

import pytest
import torch
from device_cases import Placed, subject
from loss_cases import COMMANDS, loss

from certtrain.bounds import build
from certtrain.gradients.backprop import differentiate
from certtrain.losses import Problem
from certtrain.networks import Params

CPU = torch.device("cpu")


def found(name: str, device: torch.device) -> tuple[torch.Tensor, Params]:
    at = Placed.of(subject("mlp"), torch.float64, device)
    params = {k: p.detach() for k, p in at.params.items()}
    on = Problem.within(at.graph, build("crown_ibp"), at.inputs, at.labels, 0.02, 0.3, progress=0.5)
    made = loss(name, teacher={k: 0.9 * p.to(CPU) for k, p in params.items()})
    prepared = made.prepare(on, params, 3)
    assert all(x.device == device for x in prepared.values())
    value, gradient = differentiate(lambda p: made(on, p, prepared), params)
    assert value.device == device
    return value.to(CPU), {k: g.to(CPU) for k, g in gradient.items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_loss_is_what_it_is_on_the_cpu(device: torch.device, name: str) -> None:
    value, gradient = found(name, device)
    expected, expected_gradient = found(name, CPU)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-7)

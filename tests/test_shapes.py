"""Shapes that annotations state are checked while these tests run; users pay nothing for it."""

import importlib

import pytest
import torch
from jaxtyping import TypeCheckError
from stated_shapes import with_shapes

from certtrain.certify.network import Network


@pytest.mark.parametrize("module", with_shapes())
def test_every_module_that_states_shapes_is_checked(module: str) -> None:
    spec = importlib.import_module(module).__spec__
    assert type(spec.loader).__name__ == "_JaxtypingLoader"


def test_wrong_shapes_are_errors() -> None:
    network = Network.of(torch.nn.Linear(3, 2), (3,))
    with pytest.raises(TypeCheckError, match="parameter 'x'"):
        network.logits("no tensor")
    with pytest.raises(TypeCheckError, match="return value"):
        network.logits(torch.zeros(3))

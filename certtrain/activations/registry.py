"""The activations. A new one is a file beside this and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from certtrain.activations.base import Activation
from certtrain.activations.clip import Clip
from certtrain.activations.hardsigmoid import Hardsigmoid
from certtrain.activations.leaky_relu import LeakyReLU
from certtrain.activations.relu import ReLU
from certtrain.activations.sigmoid import Sigmoid
from certtrain.activations.tanh import Tanh

ACTIVATIONS: tuple[type[Activation], ...] = (ReLU, LeakyReLU, Clip, Hardsigmoid, Sigmoid, Tanh)

# What tracing looks up: class of a module, and function or method, -> how the activation is made.
MODULES: Mapping[type[nn.Module], Callable[[Any], Activation]] = {
    module: make for kind in ACTIVATIONS for module, make in kind.modules.items()
}
FUNCTIONS: Mapping[Any, Callable[..., Activation]] = {
    function: make for kind in ACTIVATIONS for function, make in kind.functions.items()
}

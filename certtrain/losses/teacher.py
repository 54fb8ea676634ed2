"""A teacher: parameters of the same architecture that a loss distils from."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from certtrain.errors import ConfigError
from certtrain.losses.problem import Problem
from certtrain.networks.graph import Params

# Parameters and buffers by name; None where no teacher is named.
Teacher = Mapping[str, Tensor] | None


def teacher_parameters(teacher: Teacher, problem: Problem) -> Params:
    """A teacher's parameters for the problem's network, in dtype and device of its images.

    Args:
        teacher: Parameters and buffers by name.
        problem: What the student is evaluated on.

    Raises:
        ConfigError: If there is no teacher, or it has another architecture.
    """
    if teacher is None:
        raise ConfigError("loss.teacher: name the checkpoint of a teacher")
    found: Params = {}
    for name, (shape, is_buffer) in problem.graph.tensors.items():
        tensor = teacher.get(name)
        if tensor is None and is_buffer:
            continue  # as wherever parameters are given: the network's own
        if tensor is None or tensor.shape != shape:
            has = "no such tensor" if tensor is None else list(tensor.shape)
            raise ConfigError(f"loss.teacher has another architecture: '{name}' must be {list(shape)}, it has {has}")
        found[name] = tensor.to(problem.inputs)
    return found

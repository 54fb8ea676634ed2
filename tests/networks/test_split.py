"""A network in two computes what it does in one."""

import pytest
import torch
from cases import make_case

from certtrain.errors import ConfigError
from certtrain.networks.split import split


@pytest.mark.parametrize("name", ["mlp", "strided", "narrow_after_flatten", "pooled", "dilated_and_grouped"])
@pytest.mark.parametrize("behind", [0, -1])
def test_both_parts_after_each_other_are_the_network(name: str, behind: int) -> None:
    case = make_case(name)
    halves = split(case.graph, behind)
    between = halves.head.forward(case.params, case.inputs).reshape(-1, *halves.tail.input_shape)
    torch.testing.assert_close(halves.tail.forward(case.params, between), case.network(case.inputs))


def test_a_layer_is_found_by_name() -> None:
    case = make_case("mlp")
    by_name, by_number = split(case.graph, case.graph.activations[0][1].name), split(case.graph, 0)
    assert by_name.head.ops == by_number.head.ops


def test_what_cannot_be_split_says_why() -> None:
    case, residual = make_case("mlp"), make_case("residual")
    with pytest.raises(ConfigError, match="there is no layer 'layer' to split behind"):
        split(case.graph, "layer")
    with pytest.raises(ConfigError, match="there is no activation 2 to split behind: the network has 2"):
        split(case.graph, 2)
    with pytest.raises(ConfigError, match="nothing comes behind"):
        split(case.graph, case.graph.ops[-1].name)
    with pytest.raises(ConfigError, match="cannot be split behind '.*': '.*' reads what comes before it"):
        split(residual.graph, 1)

"""Constants that are added to a layer without a bias become its bias: MatMul and Add are one affine map."""

from __future__ import annotations

import operator

from torch import Tensor, fx, nn

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)


def absorb_biases(root: nn.Module, graph: fx.Graph) -> None:
    """Rewrites a graph and its layers in place."""
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target is not operator.add:
            continue
        for source, other in (node.args, node.args[::-1]):
            if _absorbs(root, source, other):
                layer = root.get_submodule(str(source.target))
                layer.bias = nn.Parameter(_bias(root, layer, other))
                node.replace_all_uses_with(source)
                graph.erase_node(node)
                if isinstance(other, fx.Node):
                    graph.erase_node(other)
                break


def _absorbs(root: nn.Module, source: object, other: object) -> bool:
    if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
        return False
    layer = root.get_submodule(str(source.target))
    if not isinstance(layer, LAYERS) or layer.bias is not None:
        return False
    if not isinstance(other, fx.Node):
        return isinstance(other, float)
    # One number for every channel, which is the first axis.
    if other.op != "get_attr":
        return False
    constant = getattr(root, str(other.target))
    rank = layer.weight.dim() - 1
    shape = (*[1] * (rank - constant.dim()), *constant.shape)
    return constant.dim() <= rank and all(n == 1 for n in shape[1:])


def _bias(root: nn.Module, layer: nn.Module, other: object) -> Tensor:
    channels = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    weight = layer.weight
    assert isinstance(weight, Tensor)
    assert isinstance(channels, int)
    constant = getattr(root, str(other.target)) if isinstance(other, fx.Node) else weight.new_tensor(other)
    return constant.detach().flatten().expand(channels).clone()

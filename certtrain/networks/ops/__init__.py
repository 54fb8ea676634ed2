"""The operations of a `Graph`, by what they are: `base` has the kinds, the other files the linear maps.

`linear` has matrices, `windows` and `gathers` what is the same at every position of an image, `channels` scales and
shifts, `layout` what only moves elements. Activations are one kind: what they do stands in `certtrain.activations`.
"""

from certtrain.networks.ops.base import Activation, Add, Input, LinearMap, Op, Shape, Values
from certtrain.networks.ops.channels import (
    BatchNorm,
    ChannelAffine,
    ChannelConstants,
    Constant,
    ElementConstants,
    Normalization,
)
from certtrain.networks.ops.gathers import ChannelGather, Pad2d, WindowGather
from certtrain.networks.ops.layout import Gather, Reshape
from certtrain.networks.ops.linear import Linear
from certtrain.networks.ops.windows import AvgPool2d, Conv2d, ConvTranspose2d, Window, WindowMap

__all__ = [
    "Activation",
    "Add",
    "AvgPool2d",
    "BatchNorm",
    "ChannelAffine",
    "ChannelConstants",
    "ChannelGather",
    "Constant",
    "Conv2d",
    "ConvTranspose2d",
    "ElementConstants",
    "Gather",
    "Input",
    "Linear",
    "LinearMap",
    "Normalization",
    "Op",
    "Pad2d",
    "Reshape",
    "Shape",
    "Values",
    "Window",
    "WindowGather",
    "WindowMap",
]

"""Convolutional networks as data: a list of convolutions and a list of hidden widths."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from certtrain.errors import ConfigError
from certtrain.networks.layers import Normalize


class ConvNet(nn.Module):
    """Normalize, convolutions, flatten, affine layers; ReLU after all but the last.

    Args:
        input_shape: [channels, height, width] of one image.
        num_classes: Length of the output.
        convolutions: [channels, kernel, stride, padding] of each.
        widths: Neurons of each hidden affine layer.
        norm: "batch" puts batch normalisation before every ReLU.
        mean: Per channel, in pixel units.
        std: Per channel, in pixel units.

    Raises:
        ConfigError: If an image is too small for the convolutions, or a number is out of range.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        convolutions: Sequence[Sequence[int]],
        widths: Sequence[int],
        norm: str,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        if norm not in ("batch", "none"):
            raise ConfigError(f"model.norm must be batch or none, got '{norm}'")
        channels, size = input_shape[0], list(input_shape[1:])
        layers: list[nn.Module] = [Normalize(mean, std)]
        for position, convolution in enumerate(convolutions):
            whole = isinstance(convolution, (list, tuple)) and all(isinstance(n, int) for n in convolution)
            if not whole or len(convolution) != 4 or min(convolution[:3]) < 1 or convolution[3] < 0:
                raise ConfigError(
                    f"model.convolutions[{position}] must be [channels, kernel, stride, padding], got {convolution}"
                )
            out, kernel, stride, padding = convolution
            size = [(n + 2 * padding - kernel) // stride + 1 for n in size]
            if min(size) < 1:
                raise ConfigError(
                    f"images of shape {list(input_shape)} are too small for model.convolutions[{position}]: "
                    "choose another model or other data"
                )
            layers.append(nn.Conv2d(channels, out, kernel, stride, padding))
            layers += [nn.BatchNorm2d(out), nn.ReLU()] if norm == "batch" else [nn.ReLU()]
            channels = out
        layers.append(nn.Flatten())
        features = channels * prod(size)
        for width in widths:
            layers.append(nn.Linear(features, width))
            layers += [nn.BatchNorm1d(width), nn.ReLU()] if norm == "batch" else [nn.ReLU()]
            features = width
        self.layers = nn.Sequential(*layers, nn.Linear(features, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, *input_shape] in pixel units -> [batch, num_classes]."""
        return self.layers(x)

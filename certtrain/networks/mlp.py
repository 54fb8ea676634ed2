"""Fully connected networks."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from certtrain.errors import ConfigError
from certtrain.networks.layers import Normalize


class MLP(nn.Module):
    """Normalize, flatten, then affine layers with ReLU after all but the last.

    With `widths` 400, 200, 100, 100 on MNIST it is the FC network of the paradox paper (Jovanović et al., TMLR 2022).

    Args:
        input_shape: [channels, height, width] of one image.
        num_classes: Length of the output.
        widths: Neurons of each hidden layer.
        mean: Per channel, in pixel units.
        std: Per channel, in pixel units.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        widths: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        if not isinstance(widths, (list, tuple)) or not widths or not all(isinstance(w, int) and w > 0 for w in widths):
            raise ConfigError(f"model.widths must be positive whole numbers such as [32,32], got {widths}")
        sizes = [prod(input_shape), *widths]
        layers: list[nn.Module] = [Normalize(mean, std), nn.Flatten()]
        for i in range(len(widths)):
            layers += [nn.Linear(sizes[i], sizes[i + 1]), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, *input_shape] in pixel units -> [batch, num_classes]."""
        return self.layers(x)

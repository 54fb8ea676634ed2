"""The module that an ONNX file becomes."""

from __future__ import annotations

from torch import Tensor, fx, nn


class OnnxNetwork(nn.Module):
    """A network that was read from an ONNX file: layers of torch.nn, named as the file's nodes.

    Args:
        body: The layers and what connects them.
        onnx_shape: Shape of the input as the file has it, an open batch axis being one.
        input_shape: The same without the batch axis: `certtrain.networks.trace` and `certtrain.read_vnnlib` take it.
        input_name: What the file calls the input.
        num_outputs: Length of the output vector.

    Attributes:
        input_shape: See above.
        onnx_shape: See above.
        input_name: See above.
        num_outputs: See above.
    """

    def __init__(
        self,
        body: fx.GraphModule,
        onnx_shape: tuple[int, ...],
        input_shape: tuple[int, ...],
        input_name: str,
        num_outputs: int,
    ) -> None:
        super().__init__()
        self.body = body
        self.onnx_shape = onnx_shape
        self.input_shape = input_shape
        self.input_name = input_name
        self.num_outputs = num_outputs

    def forward(self, x: Tensor) -> Tensor:
        """[batch, *input_shape] -> [batch, num_outputs]."""
        return self.body(x)

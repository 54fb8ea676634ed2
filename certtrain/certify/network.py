"""The network under certification, in the two precisions in which evidence is weighed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from certtrain.errors import ConfigError
from certtrain.networks import Graph, Params, trace
from certtrain.precision import full_float32

PRECISIONS = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Network:
    """A module, what bounds see of it, and its weights in float32 and float64.

    The float64 weights are those of the module, converted: the same function, evaluated with less rounding.
    Outputs come from the module itself and bounds from the graph, so that comparing them also tests the
    trace.

    Attributes:
        module: In eval mode for as long as this object is used.
        graph: The traced module.
        values: Precision -> parameters and floating-point buffers.
        device: Where they are.
    """

    module: nn.Module
    graph: Graph
    values: Mapping[torch.dtype, Params]
    device: torch.device

    @staticmethod
    def of(module: nn.Module, input_shape: Sequence[int]) -> Network:
        """Traces a classifier, which must be in eval mode.

        Raises:
            UnsupportedOperation: If an operation has no bound rule.
            ConfigError: If the network has fewer than two outputs: there is no margin.
        """
        found = Network.traced(module, input_shape)
        if (outputs := found.graph.num_outputs) < 2:
            raise ConfigError(f"certification needs at least two classes, the network has {outputs} output")
        return found

    @staticmethod
    def traced(module: nn.Module, input_shape: Sequence[int]) -> Network:
        """Traces a module with any number of outputs, which must be in eval mode.

        Raises:
            UnsupportedOperation: If an operation has no bound rule.
        """
        graph = trace(module, input_shape)
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        floating = {name: t for name, t in tensors.items() if t.is_floating_point()}
        # Clones: whoever trains on meanwhile, or keeps tensors of inference mode, does not reach them.
        values = {dtype: {name: t.detach().clone().to(dtype) for name, t in floating.items()} for dtype in PRECISIONS}
        device = next((t.device for t in floating.values()), torch.device("cpu"))
        return Network(module, graph, values, device)

    def logits(self, x: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch classes"]:
        """The module's outputs, in the precision of x, whatever less the settings would allow."""
        with full_float32(x.device):
            return functional_call(self.module, self.values[x.dtype], (x,))

    def margins(self, x: Float[Tensor, "batch *shape"], labels: Int[Tensor, " batch"]) -> Float[Tensor, "batch rows"]:
        """Output of the label minus that of every other class, in the order of `margin_spec`."""
        logits = self.logits(x)
        wrong = torch.arange(logits.shape[1] - 1, device=logits.device)
        wrong = wrong + (wrong >= labels[:, None])
        return logits.gather(1, labels[:, None]) - logits.gather(1, wrong)

    def misclassifies(self, x: Float[Tensor, "batch *shape"], labels: Int[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
        """Whether points, float64, are misclassified in both precisions.

        In float64 a margin of zero suffices; in float32 it is the rule that also makes a prediction, the
        largest output, so that no image is classified correctly and falsified by the same point.
        """
        exact, single = self.margins(x, labels), self.logits(x.to(torch.float32))
        finite = single.isfinite().all(1)
        return (exact.amin(1) <= 0) & (single.argmax(1) != labels) & finite

    def fingerprint(self) -> str:
        """A hash of operations, parameters and buffers."""
        digest = sha256(repr(self.graph.ops).encode())
        for name, tensor in sorted(self.values[torch.float64].items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

"""Networks in float32 with boxes and margins, and their rounding errors."""

from fractions import Fraction
from random import Random

import torch
from cases import carried_by
from torch import Tensor, nn

from certtrain.bounds import Analysing, Analysis, Box, Given, build, margin_spec
from certtrain.bounds.rounding import Rounding, assume, round_errors
from certtrain.networks import Graph, parameters, trace
from certtrain.networks.ops import Activation, LinearMap

CLASSES = 3


class Question:
    """A network in float32, a few boxes, and margins."""

    def __init__(self, network: nn.Module, shape: tuple[int, ...], eps: float, seed: int = 0, batch: int = 2) -> None:
        self.network = network.float().eval()
        self.graph = trace(self.network, shape)
        self.single = {name: p.detach() for name, p in parameters(self.network).items()}
        self.double = {name: p.double() for name, p in self.single.items()}
        generator = torch.Generator().manual_seed(seed)
        self.box = Box.linf(torch.rand((batch, *shape), generator=generator).double(), eps)
        outputs = self.graph.num_outputs
        self.spec = margin_spec(torch.arange(batch) % outputs, outputs).double()
        share = torch.rand((batch, *shape), generator=generator, dtype=torch.float64)
        inside = self.box.lower + share * (self.box.upper - self.box.lower)
        single = inside.float()
        self.x = single.where((single >= self.box.lower) & (single <= self.box.upper), self.box.center.float())

    def analyse(self, relaxation: str = "deeppoly", given: Given | None = None, **options: object) -> Analysis:
        found = carried_by(build(relaxation, **options), "tensors")
        assert isinstance(found, Analysing)
        return found.analyse(self.graph, self.double, self.box, self.spec, "lower", given or Given())

    def rounding(self, relaxation: str = "deeppoly") -> tuple[Rounding, Analysis]:
        errors = round_errors(self.graph, self.double, self.box, assume(self.analyse(relaxation).hidden))
        return errors, self.analyse(relaxation, Given(slack=errors.slack))


def perturbed(graph: Graph, values: dict[str, Tensor], x: Tensor, moved: dict[int, Tensor]) -> list[Tensor]:
    """The results of all operations, some of them moved."""
    found: list[Tensor] = []
    for index, op in enumerate(graph.ops):
        read = [found[i] for i in op.inputs]
        if isinstance(op, Activation):
            y = op.function(read[0])
        elif isinstance(op, LinearMap):
            y = op.forward(values, read[0])
        else:
            y = sum(read) if read else x  # type: ignore[assignment]
        found.append(y + moved[index] if index in moved else y)
    return found


def tiny(seed: int, magnitude: int) -> Question:
    """Three inputs, two hidden layers, and weights of very different size that nearly cancel."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    for layer in network[::2]:
        layer.weight.data *= 2.0 ** torch.randint(-magnitude, magnitude + 1, layer.weight.shape)
        layer.weight.data[:, 1] = -layer.weight.data[:, 0] * (1 + 2.0**-20)
    return Question(network, (3,), 0.3, seed, batch=1)


def exactly(x: Tensor) -> list:
    """Its numbers as rational ones, nested."""
    return [exactly(row) for row in x] if x.dim() else Fraction(float(x))  # type: ignore[return-value]


def random_question(seed: int, make: object, eps: float) -> Question:
    random = Random(seed)
    shape = random.randint(1, 3), random.randint(1, 6), random.randint(1, 6)
    return Question(make(random, shape, CLASSES), shape, eps, seed)  # type: ignore[operator]

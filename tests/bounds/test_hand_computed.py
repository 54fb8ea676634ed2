"""Relaxations against a network small enough for pencil and paper.

x in [-1, 1]^2,  z1 = x1 + x2 in [-2, 2],  z2 = x1 - x2 in [-2, 2],  a = relu(z),
y1 = a1 + a2,  y2 = a1 - a2,  then relu(y1) + y2 + 0.5 is the output.
"""

import pytest
import torch
from torch import Tensor, nn

import certtrain
from certtrain.bounds import build
from certtrain.bounds.relaxation.deeppoly import DeepPoly
from certtrain.networks import parameters, trace


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.third = nn.Linear(2, 1)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
            self.second.weight.copy_(torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
            self.third.weight.copy_(torch.tensor([[1.0, 1.0]]))
            self.third.bias.fill_(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(torch.relu(self.second(torch.relu(self.first(x)))))


@pytest.fixture
def box() -> certtrain.Box:
    return certtrain.Box(torch.full((1, 2), -1.0), torch.full((1, 2), 1.0))


# IBP: a in [0,2]^2, y1 in [0,4], y2 in [-2,2]; relu -> [0,4], [0,2]; output in [0.5, 6.5].
#
# HBox: both ReLUs cross, so a = 1 + [-1,1] each with independent errors: the same numbers.
#
# DeepZ: slope 1/2, new term 1/2: a1 = 0.5 + (x1+x2)/2 + e1/2, a2 = 0.5 + (x1-x2)/2 + e2/2.
#   y1 = 1 + x1 + e1/2 + e2/2 in [-1, 3]; y2 = x2 + e1/2 - e2/2 in [-2, 2].
#   y1 crosses: slope 3/4, gap 3/8: 0.75 y1 + 3/8 ± 3/8. y2: slope 1/2, gap 1/2: 0.5 y2 + 0.5 ± 0.5.
#   output centre = 0.75 + 0.375 + 0.5 + 0.5 = 2.125; coefficients: x1 3/4, x2 1/2, e1 3/8+1/4, e2 3/8-1/4, 3/8, 1/2
#   radius = 0.75 + 0.5 + 0.625 + 0.125 + 0.375 + 0.5 = 2.875: [-0.75, 5].
#
# CROWN-IBP: y1 in [0,4] is active, y2 in [-2,2] crosses as a tie: lower slope 0, upper 0.5 y2 + 1.
#   lower: y1 + 0.5 = a1 + a2 + 0.5 >= 0 + 0 + 0.5 (ties, slope 0): 0.5.
#   upper: y1 + 0.5 y2 + 1.5 = 1.5 a1 + 0.5 a2 + 1.5 <= 1.5 (0.5 z1 + 1) + 0.5 (0.5 z2 + 1) + 1.5
#        = 0.75 (x1+x2) + 0.25 (x1-x2) + 3.5 = x1 + 0.5 x2 + 3.5 <= 5.
#
# DeepPoly, textbook: y1 >= 0 + 0 = 0, y1 <= 0.5 z1 + 1 + 0.5 z2 + 1 = x1 + 2 <= 3: active.
#   y2 >= 0 - (0.5 z2 + 1) = -(x1-x2)/2 - 1 >= -2; y2 <= 0.5 z1 + 1 - 0 <= 2: the same tie.
#   So the output has CROWN-IBP's bounds here: [0.5, 5].
#
# alpha-CROWN: y2 >= s z1 - 0.5 z2 - 1 >= -2 for every slope s of z1 (-|s - 1/2| - |s + 1/2| - 1), and y2 <= 2 alike: no
#   slope helps, the tie stays. Lower, with slopes s1, s2, s of z1, z2, y2:
#     y1 + s y2 + 0.5 = (1 + s) a1 + (1 - s) a2 + 0.5 >= (1 + s) s1 z1 + (1 - s) s2 z2 + 0.5, at most 0.5 at its minimum
#     and 0.5 where s1 = s2 = 0, where it begins. Upper: no slope takes part, 5.
EXPECTED = {
    "ibp": (0.5, 6.5),
    "hbox": (0.5, 6.5),
    "zonotope": (-0.75, 5.0),
    "crown_ibp": (0.5, 5.0),
    "deeppoly": (0.5, 5.0),
    "alpha_crown": (0.5, 5.0),
}


def test_slopes_of_alpha_crown_by_hand() -> None:
    """x in [-1, 1.5]: deeppoly takes slope one, 2 relu(x) - x >= 2 x - x >= -1.

    With slope s it is (2 s - 1) x, and 0 for s = 1/2: exact, since the minimum of |x| is 0.
    """
    network = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        # x = relu(x + 4) - 4 where x >= -4: the second neuron is active.
        network[0].weight.copy_(torch.tensor([[1.0], [1.0]]))
        network[0].bias = nn.Parameter(torch.tensor([0.0, 4.0]))
        network[2].weight.copy_(torch.tensor([[2.0, -1.0]]))
        network[2].bias = nn.Parameter(torch.tensor([4.0]))
    box = certtrain.Box(torch.tensor([[-1.0]]), torch.tensor([[1.5]]))
    assert certtrain.bound(network, box, "deeppoly").lower.item() == pytest.approx(-1.0)
    lower = certtrain.bound(network, box, build("alpha_crown", iterations=100)).lower.item()
    assert -0.02 < lower <= 1e-6


@pytest.mark.parametrize("name", certtrain.relaxations())
def test_output_bounds(name: str, box: certtrain.Box) -> None:
    bounds = certtrain.bound(Tiny(), box, name)
    assert (bounds.lower.item(), bounds.upper.item()) == pytest.approx(EXPECTED[name], abs=1e-6)


def test_intermediate_bounds_of_deeppoly(box: certtrain.Box) -> None:
    graph = trace(Tiny(), (2,))
    found = list(DeepPoly(intersect=False).analyse(graph, parameters(graph.module), box).hidden.values())
    assert found[0].lower.tolist() == [[-2.0, -2.0]]
    assert found[0].upper.tolist() == [[2.0, 2.0]]
    assert found[1].lower.tolist() == [[0.0, -2.0]]
    assert found[1].upper.tolist() == [[3.0, 2.0]]


def test_the_slope_rules_differ_where_a_neuron_crosses() -> None:
    """z in [-1, 2]: relu(z) >= slope · z, so -1 under slope one, 0 under zero, and adaptive takes one (2 > 1)."""
    network = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
    with torch.no_grad():
        for layer in (network[0], network[2]):
            layer.weight.fill_(1.0)
            layer.bias.zero_()
    box = certtrain.Box(torch.tensor([[-1.0]]), torch.tensor([[2.0]]))
    lower = {
        rule: certtrain.bound(network, box, build("crown_ibp", lower_slope=rule)).lower.item()
        for rule in ("zero", "one", "adaptive")
    }
    assert lower == {"zero": 0.0, "one": -1.0, "adaptive": -1.0}

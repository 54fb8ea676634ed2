"""What inputs add to a bound's looseness."""

import pytest
import torch
from certify.fakes import linear
from certify.few_inputs import INPUTS, smooth
from torch import nn

from certtrain.bounds import Box
from certtrain.bounds.optimised.passes import Backward, Start, backward
from certtrain.bounds.optimised.region import Region
from certtrain.bounds.relaxation.deeppoly import DeepPoly
from certtrain.certify.network import Network
from certtrain.certify.search import looseness as module
from certtrain.certify.search.looseness import looseness
from certtrain.certify.search.relaxed import Goals
from certtrain.certify.search.whole import BranchAndBound


def measured(network: Network, box: Box, row: list[float]) -> tuple[torch.Tensor, Backward]:
    """Looseness of one form of the outputs on some boxes, and its bounds."""
    values, count = network.values[torch.float64], len(box)
    hidden = DeepPoly().analyse(network.graph, values, box, None, "lower").hidden
    region = Region.of(network.graph, values, box, hidden)
    forms = torch.tensor([row], dtype=torch.float64).expand(count, -1)
    found = backward(region, Start(len(network.graph.ops) - 1, forms, torch.zeros(count, dtype=torch.float64)))
    return looseness(region, hidden, found), found


def test_an_input_whose_coefficients_cancel_is_to_blame_all_the_same() -> None:
    # x0 - |x1|: both chords of |x1| together are 1, whatever x1 is.
    layers = linear([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], [10.0, 0.0, 0.0]), nn.ReLU(), linear([[1.0, -1.0, -1.0]])
    network = Network.traced(nn.Sequential(*layers), (2,))
    blame, found = measured(network, Box(-torch.ones(1, 2).double(), torch.ones(1, 2).double()), [1.0])
    assert found.form.tolist() == [[1.0, 0.0]]
    # Between each chord and its lower line lies half a unit on average.
    assert blame.tolist() == [[0.0, 1.0]]


def test_shares_add_up_and_inputs_without_a_width_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    network = smooth()
    generator = torch.Generator().manual_seed(0)
    center = torch.rand((20, INPUTS), generator=generator, dtype=torch.float64) - 0.5
    width = torch.rand((20, INPUTS), generator=generator, dtype=torch.float64)
    width[:, 3] = 0
    box = Box(center - width / 4, center + width / 4)
    blame, found = measured(network, box, [1.0, -1.0, 0.0, 0.0, 0.0])
    assert (blame[:, 3] == 0).all()
    hidden = DeepPoly().analyse(network.graph, network.values[torch.float64], box, None, "lower").hidden
    lost = torch.zeros(20, dtype=torch.float64)
    for index, coefficients in found.coefficients.items():
        z = hidden[network.graph.ops[index].inputs[0]]
        low, high = z.lower.clamp(max=0), z.upper.clamp(min=0)
        # The upper chord, and of the lower lines the one of least area, at the middle of the bounds.
        chord = high / (high - low) * (z.center - low)
        slope = (high > -low).double()
        lost += (coefficients.abs() * (chord - slope * z.center)).where((z.lower < 0) & (z.upper > 0), 0.0).sum(1)
    torch.testing.assert_close(blame.sum(1), lost)
    monkeypatch.setattr(module, "MEMORY", 1)
    torch.testing.assert_close(measured(network, box, [1.0, -1.0, 0.0, 0.0, 0.0])[0], blame)


def test_fewer_boxes_than_by_coefficients() -> None:
    # By coefficients times widths it takes 1,739 boxes.
    network, center = smooth(), torch.tensor([[0.3, -0.2, 0.4, 0.1, -0.5]], dtype=torch.float64)
    box, row = Box(center - 0.5, center + 0.5), torch.tensor([1.0, -1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    share = torch.rand((20_000, INPUTS), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen = network.logits(box.lower + (box.upper - box.lower) * share) @ row
    goals = Goals.margins(row[None], (seen.min() - seen.std() / 2)[None])
    found = BranchAndBound(splitting="inputs").decide(network.graph, network.values, box, goals)
    assert found.ending == "closed"
    assert found.examined < 1000

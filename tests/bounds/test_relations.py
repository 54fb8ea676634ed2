"""How relaxations relate to each other."""

import pytest
import torch
import zoo
from cases import VARIANTS, Case
from torch import nn

import certtrain
from certtrain.bounds import Box, Intersection, build, relaxations
from certtrain.bounds.relaxation.deeppoly import DeepPoly
from certtrain.errors import ConfigError


def test_an_intersection_is_never_looser_than_its_parts(case: Case) -> None:
    parts = tuple(build(**VARIANTS[name]) for name in relaxations())
    best = Intersection(parts).bound(case.graph, case.params, case.box(0.1), case.spec)
    for part in parts:
        bounds = part.bound(case.graph, case.params, case.box(0.1), case.spec)
        assert (best.lower >= bounds.lower).all()
        assert (best.upper <= bounds.upper).all()


def test_deeppoly_intermediate_bounds_do_not_depend_on_the_batch(case: Case) -> None:
    together = DeepPoly().analyse(case.graph, case.params, case.box(0.1)).hidden
    for i in range(len(case.inputs)):
        alone = DeepPoly().analyse(case.graph, case.params, case.box(0.1)[slice(i, i + 1)]).hidden
        for index in together:
            torch.testing.assert_close(alone[index].lower[0], together[index].lower[i], rtol=0, atol=1e-12)


def test_tighter_families_are_tighter_on_a_single_hidden_layer() -> None:
    """With one hidden layer: deeppoly = crown_ibp, and the zonotope lies between them and intervals on average."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(84, 20), nn.ReLU(), nn.Linear(20, 4)).double()
    box = Box.linf(torch.rand(8, *zoo.IMAGE, dtype=torch.float64), 0.1)
    width = {}
    for name in relaxations():
        bounds = certtrain.bound(network, box, name)
        width[name] = float((bounds.upper - bounds.lower).mean().detach())
    assert width["deeppoly"] == pytest.approx(width["crown_ibp"], abs=1e-12)
    assert width["deeppoly"] <= width["zonotope"] < width["ibp"]
    assert width["hbox"] <= width["ibp"] + 1e-12
    assert width["alpha_crown"] < width["deeppoly"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "nope"}, "unknown relaxation 'nope'"),
        ({"name": "ibp", "lower_slope": "zero"}, "relaxation ibp has no option 'lower_slope'"),
        ({"name": "deeppoly", "lower_slope": "half"}, "relaxation.lower_slope must be one of adaptive, zero, one"),
        ({"name": "ibp", "backend": "other"}, "relaxation.backend must be one of native, auto_lirpa"),
        ({"name": "deeppoly", "memory_mb": 0}, "relaxation.memory_mb must be a positive number of MiB, or null, got 0"),
        ({"name": "crown_ibp", "memory_mb": float("nan")}, "relaxation.memory_mb must be a positive number"),
        ({"name": "hbox", "backend": "auto_lirpa"}, "one of ibp, crown_ibp, deeppoly"),
        ({"name": "intersection", "parts": []}, "at least one"),
        ({"name": "intersection", "part": ["ibp"]}, "only 'parts'"),
    ],
)
def test_a_wrong_relaxation_is_refused_in_one_line(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(**options)
    assert "\n" not in str(caught.value)


def test_a_window_wholly_in_the_padding() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 1, stride=9, padding=2), nn.ReLU(), nn.Flatten()
    )
    box = Box.linf(torch.rand(3, 1, 10, 10), 0.1)
    tight, loose = certtrain.bound(network, box, "deeppoly"), certtrain.bound(network, box, "ibp")
    outputs = network(box.center)
    assert (tight.lower <= outputs + 1e-6).all()
    assert (outputs <= tight.upper + 1e-6).all()
    assert (tight.upper - tight.lower).mean() <= (loose.upper - loose.lower).mean() + 1e-6


def test_a_width_that_overflows_is_no_bound() -> None:
    network = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1.0)
    box = Box(torch.tensor([[-2e38]]), torch.tensor([[2e38]]))
    for name in ("crown_ibp", "deeppoly", "zonotope"):
        assert certtrain.bound(network, box, name).upper.isnan().all(), name


def test_margin_spec_and_boxes() -> None:
    spec = certtrain.margin_spec(torch.tensor([1, 2]), 3)
    assert spec.tolist() == [[[-1, 1, 0], [0, 1, -1]], [[-1, 0, 1], [0, -1, 1]]]
    with pytest.raises(ConfigError, match=r"labels must lie in 0\.\.2"):
        certtrain.margin_spec(torch.tensor([3]), 3)
    box = Box.linf(torch.tensor([[0.0, 0.5, 1.0]]), 0.2)
    torch.testing.assert_close(box.lower, torch.tensor([[0.0, 0.3, 0.8]]))
    torch.testing.assert_close(box.upper, torch.tensor([[0.2, 0.7, 1.0]]))
    with pytest.raises(ConfigError, match="inputs must lie in clip"):
        Box.linf(torch.tensor([[2.0]]), 0.1)
    with pytest.raises(ConfigError, match="eps must be a number >= 0"):
        Box.linf(torch.zeros(1, 3), float("nan"))

"""Each published loss against a small computation of its own, and where it becomes another one."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from cases import Case, make_case
from lirpa_cases import needs_auto_lirpa
from loss_cases import loss

from certtrain.bounds import Box, build
from certtrain.errors import ConfigError
from certtrain.losses import Adversary, Distillation, Loss, LossFusion, Problem, Sabr, Taps, robust_cross_entropy
from certtrain.losses.loss_fusion import chords
from certtrain.losses.small_box import SmallBox
from certtrain.losses.taps import connected, scaled
from certtrain.networks.statistics import batch_statistics

EPS = 0.04


@pytest.fixture(scope="module")
def mlp() -> Case:
    return make_case("mlp")


def problem(
    case: Case, relaxation: str = "ibp", eps: float = EPS, weight: float = 0.0, progress: float = 1.0
) -> Problem:
    inputs, labels = case.inputs, case.labels
    return Problem.within(case.graph, build(relaxation), inputs, labels, eps, weight, progress=progress)


def value(made: Loss, on: Problem, case: Case) -> torch.Tensor:
    return made.per_image(on, case.params, made.prepare(on, case.params, 0))


def robust(case: Case, relaxation: str = "ibp") -> torch.Tensor:
    return robust_cross_entropy(problem(case, relaxation).lower_margins(case.params))


def natural(case: Case) -> torch.Tensor:
    return F.cross_entropy(case.network(case.inputs), case.labels, reduction="none")


def attacked(case: Case, **options: float) -> torch.Tensor:
    return value(loss("pgd", attack=Adversary(**options)), problem(case), case)


@pytest.mark.parametrize(
    "name", ["natural", "pgd", "sabr", "taps", "staps", "mtl_ibp", "cc_ibp", "exp_ibp", "crown_ibp"]
)
def test_the_natural_part_has_the_weight_that_the_problem_says(mlp: Case, name: str) -> None:
    made = loss(name)
    part = value(made, problem(mlp), mlp)
    torch.testing.assert_close(value(made, problem(mlp, weight=0.25), mlp), 0.25 * natural(mlp) + 0.75 * part)
    torch.testing.assert_close(value(made, problem(mlp, weight=1.0), mlp), natural(mlp))
    torch.testing.assert_close(value(made, problem(mlp, eps=0.0), mlp), natural(mlp))


def test_an_attack_lies_between_the_natural_loss_and_the_bound(mlp: Case) -> None:
    """Also at images that are misclassified already, where an attack for counterexamples would not begin."""
    found = attacked(mlp)
    assert (mlp.margins(mlp.inputs) < 0).any()
    assert (found > natural(mlp)).all()
    assert (found <= robust(mlp, "deeppoly") + 1e-9).all()
    torch.testing.assert_close(
        attacked(mlp, steps=0), F.cross_entropy(mlp.network(mlp.box(EPS).center), mlp.labels, reduction="none")
    )


@pytest.mark.parametrize("name", ["natural", "pgd", "trades"])
def test_forwards_and_attacks_see_batch_norm_with_the_statistics_that_are_given(name: str) -> None:
    """While training those of the clean batch, at the clean and at the attacked points."""
    case = make_case("residual")
    params = {**case.params, **batch_statistics(case.graph, case.params, case.inputs)}
    on, made = problem(case), loss(name)
    prepared = made.prepare(on, params, 0)
    found = made.per_image(on, params, prepared)
    case.network.train()
    clean = F.cross_entropy(case.network(case.inputs), case.labels, reduction="none")
    if name == "natural":
        torch.testing.assert_close(found, clean)
        return
    points = prepared["points"]
    assert not torch.equal(points, made.prepare(on, case.params, 0)["points"])
    attacked_there = F.cross_entropy(case.graph.forward(params, points), case.labels, reduction="none")
    if name == "pgd":
        assert (attacked_there > clean).all()
        torch.testing.assert_close(found, attacked_there)
    else:
        assert (found > clean).all()


def test_the_attacked_ball_may_be_wider_than_the_box(mlp: Case) -> None:
    wide = loss("pgd", attack=Adversary(eps_factor=2.0)).prepare(problem(mlp), mlp.params, 0)["points"]
    box, twice = mlp.box(EPS), mlp.box(2 * EPS)
    assert ((wide < box.lower) | (wide > box.upper)).any()
    assert ((wide >= twice.lower) & (wide <= twice.upper)).all()


def test_the_first_step_is_a_multiple_of_the_room_of_a_pixel(mlp: Case) -> None:
    start = loss("pgd", attack=Adversary(steps=1, step_size=1e-9)).prepare(problem(mlp), mlp.params, 0)["points"]
    far = loss("pgd", attack=Adversary(steps=1, step_size=2.0)).prepare(problem(mlp), mlp.params, 0)["points"]
    box = mlp.box(EPS)
    at_an_end = (far == box.lower) | (far == box.upper)
    assert at_an_end.double().mean() > 0.9
    assert not ((start == box.lower) | (start == box.upper))[box.radius > 0].any()


def test_sabr_with_the_whole_box_is_the_robust_loss(mlp: Case) -> None:
    for relaxation in ("ibp", "deeppoly"):
        whole = value(Sabr(subselection_ratio=1.0), problem(mlp, relaxation), mlp)
        torch.testing.assert_close(whole, robust(mlp, relaxation))


def test_sabr_bounds_a_box_of_its_share_inside_the_whole_one_around_the_attack(mlp: Case) -> None:
    made, on = Sabr(subselection_ratio=0.3), problem(mlp)
    center = made.prepare(on, mlp.params, 0)["center"]
    radius = 0.3 * on.box.radius
    assert (center - radius >= on.box.lower - 1e-12).all()
    assert (center + radius <= on.box.upper + 1e-12).all()
    small = build("ibp").bound(mlp.graph, mlp.params, Box(center - radius, center + radius), on.spec, "lower").lower
    torch.testing.assert_close(value(made, on, mlp), robust_cross_entropy(small))


def test_sabr_shrinks_what_crossing_relus_let_through(mlp: Case) -> None:
    """Against intervals written out for this network: normalisation, affine, ReLU, affine, ReLU, affine."""
    made, on = Sabr(subselection_ratio=0.5, relu_shrinkage=0.8), problem(mlp)
    small = SmallBox(0.5, made.attack).around(on, made.prepare(on, mlp.params, 0)["center"]).box
    lower, upper = (mlp.network[:2](x) for x in (small.lower, small.upper))
    *hidden, last = [layer for layer in mlp.network.modules() if isinstance(layer, torch.nn.Linear)]
    for layer in hidden:
        middle, radius = layer((lower + upper) / 2), (upper - lower) / 2 @ layer.weight.abs().T
        lower, upper = middle - radius, middle + radius
        crossing = (lower < 0) & (upper > 0)
        assert crossing.any()
        lower, upper = lower.relu(), torch.where(crossing, 0.2 * upper, upper).relu()
    forms, middle, radius = on.spec @ last.weight, (lower + upper) / 2, (upper - lower) / 2
    margins = on.spec @ last.bias + (forms * middle[:, None]).sum(2) - (forms.abs() * radius[:, None]).sum(2)
    torch.testing.assert_close(value(made, on, mlp), robust_cross_entropy(margins))


def test_shrunk_intervals_certify_nothing_and_need_intervals(mlp: Case) -> None:
    assert not Sabr(subselection_ratio=1.0, relu_shrinkage=0.8).certifies
    for name in ("sabr", "staps"):
        made = loss(name, relu_shrinkage=0.8)
        assert (value(made, problem(mlp), mlp) < value(loss(name), problem(mlp), mlp)).any()
        with pytest.raises(ConfigError, match="loss.relu_shrinkage shrinks intervals: it needs relaxation=ibp"):
            value(made, problem(mlp, "deeppoly"), mlp)


@pytest.mark.parametrize("name", ["mtl_ibp", "cc_ibp", "exp_ibp"])
def test_expressive_losses_end_in_the_adversarial_and_the_robust_one(mlp: Case, name: str) -> None:
    for relaxation in ("ibp", "deeppoly"):
        on = problem(mlp, relaxation)
        torch.testing.assert_close(value(loss(name, alpha=1.0), on, mlp), robust(mlp, relaxation))
        torch.testing.assert_close(value(loss(name, alpha=0.0), on, mlp), attacked(mlp))
        between = value(loss(name, alpha=0.3), on, mlp)
        assert ((attacked(mlp) <= between) & (between <= robust(mlp, relaxation))).all()


def test_expressive_losses_are_their_formulas(mlp: Case) -> None:
    on = problem(mlp)
    points = loss("pgd").prepare(on, mlp.params, 0)["points"]
    low, at_points = on.lower_margins(mlp.params), mlp.margins(points)
    torch.testing.assert_close(value(loss("mtl_ibp", alpha=0.3), on, mlp), 0.3 * robust(mlp) + 0.7 * attacked(mlp))
    torch.testing.assert_close(value(loss("exp_ibp", alpha=0.3), on, mlp), robust(mlp) ** 0.3 * attacked(mlp) ** 0.7)
    combined = robust_cross_entropy(0.3 * low + 0.7 * at_points)
    torch.testing.assert_close(value(loss("cc_ibp", alpha=0.3), on, mlp), combined)


def test_crown_ibp_goes_from_the_relaxation_to_intervals_along_the_ramp(mlp: Case) -> None:
    def at(progress: float, **options: float) -> torch.Tensor:
        return value(loss("crown_ibp", **options), problem(mlp, "crown_ibp", progress=progress), mlp)

    tight, loose = (problem(mlp, name).lower_margins(mlp.params) for name in ("crown_ibp", "ibp"))
    torch.testing.assert_close(at(0.0), robust_cross_entropy(tight))
    torch.testing.assert_close(at(1.0), robust_cross_entropy(loose))
    torch.testing.assert_close(at(0.25), robust_cross_entropy(0.75 * tight + 0.25 * loose))
    torch.testing.assert_close(at(0.25, beta_end=1.0), robust_cross_entropy(tight))


@pytest.mark.parametrize("relaxation", ["ibp", "crown_ibp", "deeppoly"])
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_loss_fusion_bounds_the_loss_from_above(mlp: Case, relaxation: str, progress: float) -> None:
    bound = value(loss("loss_fusion"), problem(mlp, relaxation, progress=progress), mlp)
    box = mlp.box(EPS)
    points = [box.lower + (box.upper - box.lower) * torch.rand_like(box.lower) for _ in range(50)]
    points += [loss("pgd").prepare(problem(mlp), mlp.params, 0)["points"], box.lower, box.upper]
    for x in points:
        assert (F.cross_entropy(mlp.network(x), mlp.labels, reduction="none") <= bound + 1e-9).all()


def test_loss_fusion_of_a_point_is_its_loss(mlp: Case) -> None:
    found = value(loss("loss_fusion"), replace(problem(mlp, eps=0.0, progress=0.0), natural_weight=0.0), mlp)
    torch.testing.assert_close(found, natural(mlp))


def test_loss_fusion_is_a_number_where_exponentials_overflow(mlp: Case) -> None:
    single = {name: 100 * p.float() for name, p in mlp.params.items()}
    inputs = mlp.inputs.float()
    on = Problem.within(mlp.graph, build("crown_ibp"), inputs, mlp.labels, 0.3, progress=0.5)
    assert (-on.lower_margins(single)).max() > 1000
    assert LossFusion().per_image(on, single).isfinite().all()


def test_a_chord_lies_above_the_exponential_and_meets_it_at_both_ends() -> None:
    low, high = torch.tensor([-3.0, 0.5, -1.0]).double(), torch.tensor([2.0, 0.5, -0.999]).double()
    slope, at_low = chords(low, high)
    torch.testing.assert_close(at_low + slope * (high - low), high.exp())
    for share in torch.linspace(0, 1, 11).double():
        x = low + share * (high - low)
        assert (x.exp() <= at_low + slope * (x - low) + 1e-12).all()


def test_trades_adds_the_divergence_at_an_attacked_point(mlp: Case) -> None:
    on, made = problem(mlp), loss("trades", weight=2.0)
    moved = mlp.network(made.prepare(on, mlp.params, 0)["points"]).log_softmax(1)
    before = mlp.network(mlp.inputs).softmax(1)
    divergence = F.kl_div(moved, before, reduction="none").sum(1)
    assert (divergence > 0).all()
    torch.testing.assert_close(value(made, on, mlp), natural(mlp) + 2 * divergence)
    torch.testing.assert_close(value(loss("trades", weight=0.0), on, mlp), natural(mlp))


def test_taps_with_a_classifier_that_has_no_activation_is_the_robust_loss(mlp: Case) -> None:
    """The worst point for an affine map is a corner, which one step finds; both factors are the same then."""
    made = Taps(split=-1, connector=1.0, attack=Adversary(steps=4, step_size=4.0))
    torch.testing.assert_close(value(made, problem(mlp), mlp), robust(mlp) ** 2)


def test_taps_lies_below_its_bound_and_above_the_attacked_network(mlp: Case) -> None:
    found = value(Taps(attack=Adversary(steps=30)), problem(mlp), mlp) / robust(mlp)
    assert (found <= robust(mlp) + 1e-9).all()
    assert (found > attacked(mlp)).all()


def test_staps_with_the_whole_box_is_taps(mlp: Case) -> None:
    torch.testing.assert_close(
        value(loss("staps", subselection_ratio=1.0), problem(mlp), mlp), value(loss("taps"), problem(mlp), mlp)
    )


@needs_auto_lirpa
@pytest.mark.parametrize("name", ["taps", "staps", "sabr", "loss_fusion"])
def test_another_backend_bounds_parts_of_networks_too(mlp: Case, name: str) -> None:
    native = problem(mlp, "crown_ibp", progress=0.5)
    other = replace(native, relaxation=build("crown_ibp", "auto_lirpa"))
    torch.testing.assert_close(value(loss(name), other, mlp), value(loss(name), native, mlp))


def test_the_connector_passes_derivatives_to_the_ends_that_points_are_near() -> None:
    lower, upper = torch.zeros(1, 1, 5, requires_grad=True), torch.ones(1, 1, 5, requires_grad=True)
    places = torch.tensor([[[0.0, 0.25, 0.5, 0.75, 1.0]]])

    def derivatives(connector: float) -> list[list[float]]:
        points = connected(lower, upper, places, connector)
        assert torch.equal(points, places)
        return [g.flatten().tolist() for g in torch.autograd.grad(points.sum(), (lower, upper))]

    assert derivatives(0.5) == [[1.0, 0.5, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.5, 1.0]]
    assert derivatives(1.0) == [[1.0, 0.75, 0.5, 0.25, 0.0], [0.0, 0.25, 0.5, 0.75, 1.0]]


def test_a_scale_multiplies_derivatives_alone() -> None:
    x = torch.tensor(3.0, requires_grad=True)
    found = scaled(x * x, 4.0)
    assert found.item() == 9.0
    assert torch.autograd.grad(found, x)[0].item() == 24.0


def test_distillation_from_itself_adds_nothing(mlp: Case) -> None:
    base, on = loss("robust_ce"), problem(mlp)
    itself = Distillation(base=base, teacher=mlp.params, weight=3.0, temperature=2.0)
    torch.testing.assert_close(value(itself, on, mlp), robust(mlp))
    other = {name: p + 0.1 for name, p in mlp.params.items()}
    teacher = F.softmax(mlp.graph.forward(other, mlp.inputs) / 2, 1)
    student = F.log_softmax(mlp.network(mlp.inputs) / 2, 1)
    expected = robust(mlp) + 3 * 4 * F.kl_div(student, teacher, reduction="none").sum(1)
    torch.testing.assert_close(value(replace(itself, teacher=other), on, mlp), expected)


REFUSED = {
    "alpha": ({"alpha": 1.5}, "loss.alpha must be a number >= 0 and <= 1, got 1.5", "mtl_ibp"),
    "ratio": ({"subselection_ratio": 0.0}, "loss.subselection_ratio must be a number > 0", "sabr"),
    "shrinkage": ({"relu_shrinkage": 1.5}, "loss.relu_shrinkage must be a number >= 0 and <= 1", "staps"),
    "beta": ({"beta_end": 1.5}, "loss.beta_end must be a number", "crown_ibp"),
    "factor": ({"attack": Adversary(eps_factor=2.0)}, "loss.attack.eps_factor must be 1 for sabr", "sabr"),
    "layer": ({"split": True}, "loss.split must be a name of a layer or a whole number", "taps"),
    "connector": ({"connector": 2.0}, "loss.connector must be", "staps"),
    "weight": ({"weight": float("nan")}, "loss.weight must be a number >= 0, got nan", "trades"),
    "temperature": ({"temperature": 0.0}, "loss.temperature must be a number > 0", "distillation"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_options_out_of_range_are_one_line(case: str) -> None:
    options, message, name = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        loss(name, **options)


def test_what_does_not_fit_the_network_is_one_line(mlp: Case) -> None:
    on = problem(mlp)
    with pytest.raises(ConfigError, match="loss.split: there is no activation -3 to split behind: the network has 2"):
        value(Taps(split=-3), on, mlp)
    with pytest.raises(ConfigError, match="loss.teacher: name the checkpoint"):
        value(loss("distillation"), on, mlp)
    with pytest.raises(ConfigError, match="loss.teacher has another architecture: '.*' must be"):
        value(Distillation(base=loss("natural"), teacher={}), on, mlp)
    with pytest.raises(ConfigError, match="loss.attack: steps and restarts must be whole numbers"):
        Adversary(steps=-1)

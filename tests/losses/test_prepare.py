"""What a loss prepares once per generation: at the centre, with random numbers of its own, shared by all members."""

from dataclasses import dataclass, field, replace

import pytest
import torch
import torch.nn.functional as F
from cases import Case, make_case
from jaxtyping import Float
from torch import Tensor

from certtrain.attacks import PGD
from certtrain.bounds import Bounds, Box, Relaxation, Sides, build
from certtrain.gradients import PGPE, RGS, Backprop, GradientEstimator
from certtrain.gradients.base import ALONE
from certtrain.losses import NOTHING, Loss, Prepared, Problem, robust_cross_entropy
from certtrain.networks import Graph, Params
from certtrain.training.generation import Generation
from certtrain.training.judging import judge
from certtrain.training.objective import Objective
from certtrain.training.schedules import Ramp
from certtrain.training.shards import Shard


@dataclass(frozen=True)
class Adversarial(Loss):
    """Cross-entropy at points that an attack finds at the centre; notes what it was asked to prepare."""

    asked: list[tuple[Params, int, Tensor]] = field(default_factory=list)

    def prepare(self, problem: Problem, params: Params, generation: int) -> Prepared:
        attack = PGD(steps=3, restarts=1)
        points, _ = attack.worst(problem.margins_at(params), problem.box, problem.keys(generation))
        self.asked.append((params, generation, points))
        return {"points": points}

    def per_image(self, problem: Problem, params: Params, prepared: Prepared) -> Float[Tensor, " batch"]:
        return F.cross_entropy(problem.graph.forward(params, prepared["points"]), problem.labels, reduction="none")


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case("mlp")


def objective(loss: Loss) -> Objective:
    return Objective(build("deeppoly"), loss, 0.1, (0.0, 1.0), Ramp(0.0, 0.1), Ramp(0.5, 0.5), seed=7)


def generation(case: Case, loss: Loss, number: int = 3) -> Generation:
    return Generation.at(case.graph, objective(loss), number, 1.0)


def prepared_points(case: Case, number: int, shard: slice = slice(None), first: int | None = None) -> Tensor:
    """Of images that are classified correctly: where the centre is a counterexample, nothing is drawn."""
    loss = Adversarial()
    found = generation(case, loss, number)
    inputs = case.inputs[shard]
    labels = case.network(inputs).argmax(1)
    own = Shard(case.inputs, inputs, labels, 1.0, (shard.start or 0) if first is None else first)
    found.loss(own, case.params, {}, Backprop())
    return loss.asked[0][2]


@pytest.mark.parametrize("estimator", [Backprop(), RGS(0.1, 2), PGPE(0.1, 4, strategy="vmap"), PGPE(0.1, 4)])
def test_once_per_generation_at_the_centre(case: Case, estimator: GradientEstimator) -> None:
    loss = Adversarial()
    shard = Shard.of((case.inputs, case.labels), ALONE)
    minimised = generation(case, loss).loss(shard, case.params, {}, estimator)
    estimate = estimator.decided("loop").estimate(minimised, case.params, 3)
    assert estimate.loss.isfinite()
    assert all(g.isfinite().all() for g in estimate.gradient.values())
    ((params, number, points),) = loss.asked
    assert number == 3
    assert all(torch.equal(params[name], p) for name, p in case.params.items())
    assert not points.requires_grad
    box = case.box(0.1)
    assert ((points >= box.lower) & (points <= box.upper)).all()


def test_its_random_numbers_are_a_function_of_seed_generation_and_place(case: Case) -> None:
    whole = prepared_points(case, number=3)
    assert torch.equal(prepared_points(case, number=3), whole)
    assert not torch.equal(prepared_points(case, number=4), whole)
    # A rank's part is attacked as in the whole batch.
    torch.testing.assert_close(prepared_points(case, 3, slice(2, 5)), whole[2:5])
    assert not torch.allclose(prepared_points(case, 3, slice(2, 5), first=0), whole[2:5])


def test_validation_judges_the_configured_loss(case: Case) -> None:
    loss = Adversarial()
    with torch.no_grad():
        found = judge(case.graph, objective(loss), case.params, case.inputs, case.labels, number=5)
    ((_, number, points),) = loss.asked
    assert number == 5
    expected = F.cross_entropy(case.network(points), case.labels, reduction="none")
    torch.testing.assert_close(found.loss, expected)
    margins = generation(case, loss).problem(case.inputs, case.labels).lower_margins(case.params)
    assert torch.equal(found.certified, (margins > 0).all(1))


@dataclass(frozen=True)
class Counting(Relaxation):
    """DeepPoly that counts its calls."""

    calls: list[Box] = field(default_factory=list)

    def bound(
        self, graph: Graph, params: Params, box: Box, spec: Tensor | None = None, sides: Sides = "both"
    ) -> Bounds:
        self.calls.append(box)
        return build("deeppoly").bound(graph, params, box, spec, sides)


@dataclass(frozen=True)
class Halved(Loss):
    """The robust loss over the whole box, and over one of half the radius."""

    def per_image(self, problem: Problem, params: Params, prepared: Prepared = NOTHING) -> Float[Tensor, " batch"]:
        half = replace(problem, box=Box.linf(problem.box.center, problem.box.radius / 2))
        return robust_cross_entropy(problem.lower_margins(params)) + robust_cross_entropy(half.lower_margins(params))


def test_validation_bounds_the_whole_box_once_and_other_boxes_as_they_are_asked_for(case: Case) -> None:
    counting = Counting()
    wanted = replace(objective(Halved()), relaxation=counting)
    with torch.no_grad():
        found = judge(case.graph, wanted, case.params, case.inputs, case.labels)
        assert len(counting.calls) == 2
        problem = generation(case, Halved()).problem(case.inputs, case.labels)
        torch.testing.assert_close(found.loss, Halved().per_image(problem, case.params))

"""trainer.forwards=bfloat16: natural and attack forwards are cast, bounds, statistics and validation are not."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from loss_cases import COMMANDS, loss
from torch import Tensor, nn

from certtrain.bounds import Bounds, Box, Relaxation, Sides, build
from certtrain.gradients import Backprop
from certtrain.gradients.backprop import differentiate
from certtrain.gradients.base import ALONE
from certtrain.losses import Problem
from certtrain.networks import Graph, Params, parameters, trace
from certtrain.testing.losses import moved
from certtrain.training.generation import Generation
from certtrain.training.judging import judge
from certtrain.training.objective import Objective
from certtrain.training.schedules import Ramp
from certtrain.training.shards import Shard

CLASSES, IMAGES = 4, 6


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 8), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Linear(8, CLASSES)).eval()
    return trace(network, (1, 6, 6))


def problem(graph: Graph, forwards: torch.dtype | None, relaxation: str = "crown_ibp") -> Problem:
    torch.manual_seed(1)
    inputs, labels = torch.rand(IMAGES, 1, 6, 6), torch.arange(IMAGES) % CLASSES
    return Problem.within(graph, build(relaxation), inputs, labels, 0.05, 0.25, progress=0.5, forwards=forwards)


def params_of(graph: Graph) -> Params:
    return {name: p.detach() for name, p in parameters(graph.module).items()}


def test_plain_evaluations_are_those_of_autocast_and_margins_are_those_of_float32(graph: Graph) -> None:
    cast, full, params = problem(graph, torch.bfloat16), problem(graph, None), params_of(graph)
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            expected = graph.module(cast.inputs).float()
        assert cast.logits(params).dtype == torch.float32
        torch.testing.assert_close(cast.logits(params), expected, rtol=0.02, atol=0.02)
        assert not torch.equal(cast.logits(params), full.logits(params))
        assert torch.equal(cast.lower_margins(params), full.lower_margins(params))
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_loss_is_near_that_of_float32_and_differentiable(graph: Graph, name: str) -> None:
    """The same attacked points given, since an attack may end elsewhere for a rounding."""
    params = params_of(graph)
    made = loss(name, teacher=moved(params, 9, 0.1))
    full, cast = problem(graph, None), problem(graph, torch.bfloat16)
    prepared = made.prepare(full, params, 0)
    assert all(x.dtype == torch.float32 for x in made.prepare(cast, params, 0).values())
    value, gradient = differentiate(lambda p: made(cast, p, prepared), params)
    expected, exact = differentiate(lambda p: made(full, p, prepared), params)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected, rtol=0.03, atol=0.03)
    one, other = (torch.cat([g.flatten() for g in found.values()]) for found in (gradient, exact))
    assert F.cosine_similarity(one, other, dim=0) > 0.98


def test_a_population_is_cast_as_its_members_are(graph: Graph) -> None:
    params, cast, made = params_of(graph), problem(graph, torch.bfloat16, "ibp"), loss("mtl_ibp", alpha=0.5)
    prepared = made.prepare(cast, params, 0)
    members = [moved(params, seed, 0.05) for seed in range(2)]
    together = {name: torch.stack([member[name] for member in members]) for name in params}
    with torch.no_grad():
        found = torch.func.vmap(lambda p: made(cast, p, prepared))(together)
        alone = torch.stack([made(cast, member, prepared) for member in members])
    torch.testing.assert_close(found, alone, rtol=0.02, atol=0.02)


class Watching(Relaxation):
    """Intervals that say whether autocast reaches them."""

    seen: list[bool] = []  # noqa: RUF012  (of the test)

    def bound(
        self, graph: Graph, params: Params, box: Box, spec: Tensor | None = None, sides: Sides = "both"
    ) -> Bounds:
        self.seen.append(torch.is_autocast_enabled("cpu"))
        return build("ibp").bound(graph, params, box, spec, sides)


@pytest.fixture
def objective() -> Iterator[Objective]:
    made = loss("mtl_ibp", alpha=0.5)
    yield Objective(Watching(), made, 0.05, (0.0, 1.0), Ramp(0.0, 0.05), Ramp(0.0, 0.0), forwards=torch.bfloat16)
    Watching.seen.clear()


def test_a_step_casts_and_validation_does_not(graph: Graph, objective: Objective) -> None:
    params, on = params_of(graph), problem(graph, None)
    shard = Shard.of((on.inputs, on.labels), ALONE)
    full = replace(objective, forwards=None)

    def step(chosen: Objective) -> tuple[Tensor, Params]:
        generation = Generation.at(graph, chosen, 0, 1.0)
        statistics = generation.statistics(params, shard)
        return generation.loss(shard, params, statistics, Backprop())(params).detach(), statistics

    (one, seen), (other, exact) = step(objective), step(full)
    assert not torch.equal(one, other)
    torch.testing.assert_close(one, other, rtol=0.03, atol=0.03)
    assert all(torch.equal(seen[name], exact[name]) for name in exact)
    with torch.no_grad():
        judged, expected = (judge(graph, chosen, params, on.inputs, on.labels) for chosen in (objective, full))
    assert torch.equal(judged.loss, expected.loss)
    assert Watching.seen
    assert not any(Watching.seen)

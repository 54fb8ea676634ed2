"""What can be given and what comes out: known bounds, splits, slopes, multipliers; pre-activation bounds and lines."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from cases import VARIANTS, Case, carried_by, needs_compiler
from torch import Tensor

from certtrain.activations import Interval
from certtrain.bounds import Analysing, Analysis, Given, build, relaxations
from certtrain.errors import ConfigError

TOLERANCE = 1e-9
EPS = 0.1
BACKWARD = ["crown_ibp", "deeppoly", "deeppoly_textbook"]
NO_ROWS = ("ibp", "hbox")
# Who takes no multipliers: without rows, or with rows that differ from neuron to neuron.
NO_MULTIPLIERS = (*NO_ROWS, "alpha_crown")


def analyse(case: Case, name: str, given: Given | None = None, eps: float = EPS, **options: object) -> Analysis:
    relaxation = build(**VARIANTS[name], **options)
    assert isinstance(relaxation, Analysing)
    return relaxation.analyse(case.graph, case.params, case.box(eps), case.spec, "lower", given or Given())


def points(case: Case, eps: float = EPS, count: int = 60) -> Tensor:
    """Corners and others in turn, [count, images, *shape]."""
    box, generator = case.box(eps), torch.Generator().manual_seed(0)
    shares = torch.rand((count, *box.lower.shape), generator=generator, dtype=torch.float64)
    shares[::2] = shares[::2].round()
    return box.lower + shares * (box.upper - box.lower)


def results_at(case: Case, x: Tensor) -> list[Tensor]:
    """What operations give at points, [count, images, *shape of each]."""
    flat = case.graph.results(case.params, x.flatten(0, 1))
    return [value.unflatten(0, x.shape[:2]) for value in flat]


def random_like(case: Case, index: int, lead: tuple[int, ...], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + index)
    return torch.rand((*lead, *case.graph.ops[index].shape), generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", relaxations())
def test_pre_activations_lie_in_their_bounds_and_activations_between_their_lines(case: Case, name: str) -> None:
    found = analyse(case, name)
    # The last activation may be merged into nothing that intervals need.
    assert set(found.hidden) <= {op.inputs[0] for _, op in case.graph.activations}
    assert len(found.hidden) >= len(case.graph.activations) - 1
    results = results_at(case, points(case))
    for index, z in found.hidden.items():
        assert (z.lower - TOLERANCE <= results[index]).all()
        assert (results[index] <= z.upper + TOLERANCE).all()
    for index, lines in found.lines.items():
        if name == "hbox":  # holds a part of the network only
            continue
        z, y = results[case.graph.ops[index].inputs[0]], results[index]
        lower = lines.lower_slope * z + (0 if lines.lower_intercept is None else lines.lower_intercept)
        assert (lower <= y + TOLERANCE).all()
        assert (y <= lines.upper_slope * z + lines.upper_intercept + TOLERANCE).all()


@pytest.mark.parametrize("name", relaxations())
def test_bound_is_the_shorthand(case: Case, name: str) -> None:
    relaxation = build(**VARIANTS[name])
    bounds = relaxation.bound(case.graph, case.params, case.box(EPS), case.spec, "lower")
    assert torch.equal(bounds.lower, analyse(case, name).bounds.lower)


@pytest.mark.parametrize("name", relaxations())
def test_what_is_known_is_never_exceeded_and_never_hurts_soundness(case: Case, name: str) -> None:
    """Bounds from sampled values would be unsound; those of the tightest relaxation are known for sure."""
    known = analyse(case, "deeppoly").hidden
    found = analyse(case, name, Given(known=known))
    for index, z in found.hidden.items():
        assert (z.lower >= known[index].lower - TOLERANCE).all()
        assert (z.upper <= known[index].upper + TOLERANCE).all()
    assert (found.bounds.lower <= case.margins(points(case)) + TOLERANCE).all()


def test_what_ibp_is_told_makes_it_tighter(case: Case) -> None:
    """Intervals are monotone in what is known; somewhere strictly."""
    before, known = analyse(case, "ibp"), analyse(case, "deeppoly").hidden
    after = analyse(case, "ibp", Given(known=known))
    assert (after.bounds.lower >= before.bounds.lower - TOLERANCE).all()


def decisions(case: Case, at: Tensor) -> dict[int, Tensor]:
    """For a third of the neurons on which a point decides, what it decides."""
    results = case.graph.results(case.params, at)
    found = {}
    for _, op in case.graph.activations:
        index = op.inputs[0]
        chosen = random_like(case, index, (len(at),)) < 0.33
        found[index] = torch.where(chosen, results[index].sign(), 0.0)
    return found


def agrees(case: Case, x: Tensor, splits: dict[int, Tensor]) -> Tensor:
    """Which points lie in the part of the box that was decided for, [count, images]."""
    results = results_at(case, x)
    return torch.stack([(results[i] * s >= 0).flatten(2).all(2) for i, s in splits.items()]).all(0)


# Multipliers need rows to enter; who takes none says so (tested below).
SPLIT = [(n, False) for n in relaxations()] + [(n, True) for n in relaxations() if n not in NO_MULTIPLIERS]


@pytest.mark.parametrize(("name", "multiplied"), SPLIT)
def test_splits_and_multipliers_bound_the_part_of_the_box_that_is_left(case: Case, name: str, multiplied: bool) -> None:
    center = case.box(0.02).center
    splits = decisions(case, center)
    multipliers = {i: 0.3 * random_like(case, i, (len(center),), seed=5) for i in splits} if multiplied else {}
    found = analyse(case, name, Given(splits=splits, multipliers=multipliers), eps=0.02)
    x = torch.cat([center[None], points(case, 0.02, 200)])
    inside = agrees(case, x, splits)
    assert inside.any(0).all()
    assert (found.bounds.lower.expand(len(x), -1, -1)[inside] <= case.margins(x)[inside] + TOLERANCE).all()


def test_a_negative_multiplier_counts_as_zero(case: Case) -> None:
    """One step of an optimizer without projection would certify falsely."""
    splits = decisions(case, case.box(EPS).center)
    wrong = {i: random_like(case, i, (5,)) - 0.7 for i in splits}
    right = {i: x.clamp(min=0) for i, x in wrong.items()}
    found, expected = (analyse(case, "crown_ibp", Given(splits=splits, multipliers=m)) for m in (wrong, right))
    assert torch.equal(found.bounds.lower, expected.bounds.lower)


@pytest.mark.parametrize("name", BACKWARD)
def test_any_slopes_are_sound(case: Case, name: str) -> None:
    slopes = {i: 1.4 * random_like(case, op.inputs[0], (5,)) - 0.2 for i, op in case.graph.activations}
    by_row = {i: 1.4 * random_like(case, op.inputs[0], (5, 3), seed=9) - 0.2 for i, op in case.graph.activations}
    for given in (Given(slopes=slopes), Given(slopes=by_row)):
        lower = analyse(case, name, given).bounds.lower
        assert (lower <= case.margins(points(case)) + TOLERANCE).all()


@pytest.mark.parametrize("what", ["slopes", "multipliers"])
def test_what_differs_from_row_to_row_is_what_every_row_alone_would_have(case: Case, what: str) -> None:
    splits = decisions(case, case.box(EPS).center)
    if what == "slopes":
        rows = {i: random_like(case, op.inputs[0], (5, 3)) for i, op in case.graph.activations}
        alone = [{"slopes": {i: x[:, r] for i, x in rows.items()}} for r in range(3)]
        together = {"slopes": rows}
    else:
        rows = {i: random_like(case, i, (5, 3)) for i in splits}
        alone = [{"splits": splits, "multipliers": {i: x[:, r] for i, x in rows.items()}} for r in range(3)]
        together = {"splits": splits, "multipliers": rows}
    # crown_ibp: its hidden bounds do not use slopes, so that rows do not meet.
    found = analyse(case, "crown_ibp", Given(**together)).bounds.lower
    for r, given in enumerate(alone):
        expected = analyse(case, "crown_ibp", Given(**given)).bounds.lower[:, r]
        torch.testing.assert_close(found[:, r], expected, rtol=0, atol=1e-10)


@needs_compiler
@pytest.mark.parametrize("name", BACKWARD)
@pytest.mark.parametrize("by_row", [False, True])
def test_compiled_code_knows_slopes_and_multipliers(case: Case, name: str, by_row: bool) -> None:
    lead, splits = (5, 3) if by_row else (5,), decisions(case, case.box(EPS).center)
    slopes = {i: random_like(case, op.inputs[0], lead).requires_grad_() for i, op in case.graph.activations}
    multipliers = {i: random_like(case, i, lead, seed=3).requires_grad_() for i in splits}
    given = Given(splits=splits, slopes=slopes, multipliers=multipliers)
    found = []
    for executor in ("auto", "tensors"):
        lower = analyse(case, name, given, executor=executor).bounds.lower
        leaves = [*slopes.values(), *multipliers.values()]
        found.append([lower, *torch.autograd.grad(lower.square().sum(), leaves)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("part", ["slopes", "multipliers", "known"])
def test_gradients_go_through_what_is_given(case: Case, part: str) -> None:
    """Central differences along a random direction."""
    splits = decisions(case, case.box(EPS).center)
    known = analyse(case, "crown_ibp").hidden
    start = {
        "slopes": {i: 0.2 + 0.6 * random_like(case, op.inputs[0], (5,)) for i, op in case.graph.activations},
        "multipliers": {i: 0.1 + random_like(case, i, (5,)) for i in splits},
        "known": {i: z.lower - 0.01 for i, z in known.items()},
    }[part]
    directions = {i: random_like(case, case_index(case, part, i), (5,), seed=7) - 0.5 for i in start}

    def lower(tensors: dict[int, Tensor]) -> Tensor:
        given = {
            "slopes": lambda: Given(slopes=tensors),
            "multipliers": lambda: Given(splits=splits, multipliers=tensors),
            "known": lambda: Given(known={i: Interval(x, known[i].upper + 0.01) for i, x in tensors.items()}),
        }[part]()
        return analyse(case, "crown_ibp", given).bounds.lower.sum()

    leaves = {i: x.clone().requires_grad_() for i, x in start.items()}
    gradients = torch.autograd.grad(lower(leaves), list(leaves.values()), allow_unused=True)
    slope = sum((g * directions[i]).sum() for i, g in zip(leaves, gradients, strict=True) if g is not None)
    step = 1e-7
    ahead, behind = (lower({i: x + s * directions[i] for i, x in start.items()}) for s in (step, -step))
    torch.testing.assert_close(torch.as_tensor(slope), (ahead - behind) / (2 * step), rtol=1e-4, atol=1e-5)


def case_index(case: Case, part: str, key: int) -> int:
    """The operation whose output has the shape of what is given."""
    return case.graph.ops[key].inputs[0] if part == "slopes" else key


def test_better_slopes_are_found_by_following_the_gradient(case: Case) -> None:
    """What alpha-CROWN does: never looser than where it began, tighter somewhere."""
    began = analyse(case, "crown_ibp")
    slopes = {i: began.lines[i].lower_slope.clone().requires_grad_() for i, _ in case.graph.activations}
    optimizer, best = torch.optim.Adam(list(slopes.values()), lr=0.1), began.bounds.lower
    for _ in range(15):
        lower = analyse(case, "crown_ibp", Given(slopes=slopes)).bounds.lower
        best = torch.maximum(best, lower.detach())
        optimizer.zero_grad()
        (-lower.sum()).backward()
        optimizer.step()
    gained = best - began.bounds.lower
    assert (gained >= 0).all()
    assert gained.max() > 1e-3


def refused(message: str, call: Callable[[], object]) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_what_makes_no_sense_is_refused_in_one_line(case: Case) -> None:
    index = case.graph.activations[0][1].inputs[0]
    multipliers = {index: random_like(case, index, (5,))}
    for name in NO_ROWS:
        refused("neither slopes", lambda name=name: analyse(case, name, Given(multipliers=multipliers)))
    slopes = {i: random_like(case, op.inputs[0], (5,)) for i, op in case.graph.activations}
    for given in (Given(slopes=slopes), Given(splits=multipliers, multipliers=multipliers)):
        refused("alpha_crown chooses slopes itself", lambda given=given: analyse(case, "alpha_crown", given))
    refused(
        "parallel lines", lambda: analyse(case, "zonotope", Given(slopes={case.graph.activations[0][0]: case.inputs}))
    )
    refused("need its split decisions", lambda: analyse(case, "crown_ibp", Given(multipliers=multipliers)))
    refused("slopes concern operations", lambda: analyse(case, "crown_ibp", Given(slopes={0: case.inputs})))
    refused("splits concern operations", lambda: analyse(case, "crown_ibp", Given(splits={999: case.inputs})))
    both = build("crown_ibp")
    given = Given(splits=multipliers, multipliers=multipliers)
    refused("lower bounds only", lambda: both.analyse(case.graph, case.params, case.box(EPS), case.spec, "both", given))


def test_an_executor_can_be_passed(case: Case) -> None:
    """The same bounds whoever carries rows, also inside an intersection."""
    for options in VARIANTS.values():
        relaxation = build(**options)
        expected = relaxation.bound(case.graph, case.params, case.box(EPS), case.spec)
        found = carried_by(relaxation, "tensors").bound(case.graph, case.params, case.box(EPS), case.spec)
        torch.testing.assert_close(found.lower, expected.lower, rtol=0, atol=1e-10)
    refused("executor must be one of auto, tensors", lambda: build("deeppoly", executor="gpu"))
    assert replace(build("deeppoly"), executor="tensors") != build("deeppoly")

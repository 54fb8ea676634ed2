"""What does not fit together is refused in one line, by every relaxation alike, before anything is computed of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from cases import make_case, needs_compiler
from torch import Tensor, nn

import certtrain
from certtrain.bounds import Bounds, Box, Relaxation, build, margin_spec, relaxations
from certtrain.bounds.executors.compiled import executor as executor_module
from certtrain.bounds.executors.compiled.build import compiled
from certtrain.bounds.executors.compiled.call import substitute
from certtrain.bounds.executors.compiled.task import Job
from certtrain.errors import ConfigError
from certtrain.networks import Normalize, parameters, trace

IMAGES = torch.rand((3, *zoo.IMAGE), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
NAN, INF = float("nan"), float("inf")


def refused(message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


SPECS = {
    "two images": margin_spec(torch.tensor([0, 1]), 4),
    "one image": margin_spec(torch.tensor([0]), 4),
    "ten classes": margin_spec(torch.tensor([0, 1, 2]), 10),
    "three classes": margin_spec(torch.tensor([0, 1, 2]), 3),
    "no batch axis": margin_spec(torch.tensor([0]), 4)[0],
    "no rows": torch.zeros(3, 0, 4),
}


@pytest.mark.parametrize("transformed", [False, True])
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("name", [*relaxations(), "intersection"])
def test_a_specification_that_does_not_fit(name: str, spec: str, transformed: bool) -> None:
    case = make_case("strided")

    def lower(params: dict[str, Tensor]) -> Tensor:
        return build(name).bound(case.graph, params, Box.linf(IMAGES, 0.1), SPECS[spec].double(), "lower").lower

    members = {k: p[None] for k, p in case.params.items()}
    with torch.no_grad():
        call = (lambda: torch.func.vmap(lower)(members)) if transformed else (lambda: lower(case.params))
        refused(r"spec must be \[batch, rows, outputs\] = \[3, rows, 4\]", call)


def test_a_specification_that_is_no_finite_numbers() -> None:
    case, box = make_case("mlp"), Box.linf(IMAGES, 0.1)
    spec = margin_spec(torch.tensor([0, 1, 2]), 4).double()
    for wrong, message in ((spec / 0, "finite"), (spec.long(), "floating-point"), (spec.numpy(), "a tensor")):
        refused(message, lambda wrong=wrong: build("ibp").bound(case.graph, case.params, box, wrong))


@pytest.mark.parametrize(
    ("lower", "upper", "message"),
    [
        (IMAGES[:1], IMAGES, "one shape"),
        (IMAGES[0, 0, 0], IMAGES[0, 0, 0], r"x\[None\]"),
        (IMAGES + 1, IMAGES, "lower lies above"),
        (IMAGES, IMAGES * NAN, "infinite or NaN"),
        (IMAGES, IMAGES + INF, "infinite or NaN"),
        (IMAGES - INF, IMAGES, "infinite or NaN"),
        (IMAGES, IMAGES.float(), "one kind"),
        (IMAGES.long(), IMAGES.long(), "floating-point"),
    ],
)
def test_a_box_that_is_none(lower: Any, upper: Any, message: str) -> None:
    refused(message, lambda: Box(lower, upper))


@pytest.mark.parametrize(
    "eps", [-0.1, NAN, np.float32(-0.1), np.float64(NAN), np.array(-1), torch.tensor(-0.1), torch.tensor(NAN)]
)
def test_a_radius_that_is_none(eps: Any) -> None:
    refused("eps must be (a number|numbers) >= 0, got", lambda: Box.linf(IMAGES, eps))


@pytest.mark.parametrize("eps", [torch.ones(3), torch.ones(6), torch.ones(2, 1, 1, 1), torch.ones(1, 3, 1, 1, 1)])
def test_radii_that_do_not_fit(eps: Tensor) -> None:
    refused("does not fit inputs of shape", lambda: Box.linf(IMAGES, eps))


def test_radii_may_be_numbers_of_any_library_and_one_for_each_image() -> None:
    expected = Box.linf(IMAGES, 0.25)
    for eps in (np.float32(0.25), np.array(0.25), torch.tensor(0.25), torch.full((3, 1, 1, 1), 0.25), [[[0.25]]]):
        found = Box.linf(IMAGES, eps)
        assert torch.equal(found.lower, expected.lower)
        assert torch.equal(found.upper, expected.upper)
    assert torch.equal(Box.linf(IMAGES.numpy(), 0.25).lower, expected.lower)
    assert torch.equal(Box.linf(IMAGES, INF).upper, torch.ones_like(IMAGES))
    refused("finite", lambda: Box.linf(IMAGES, INF, clip=None))


def test_margins_need_one_label_per_image_and_a_wrong_class() -> None:
    refused("labels must be one integer per image", lambda: margin_spec(torch.zeros(2, 2, dtype=torch.int64), 4))
    refused("must be at least 2", lambda: margin_spec(torch.zeros(2, dtype=torch.int64), 1))


@pytest.mark.parametrize("name", relaxations())
def test_networks_parameters_and_boxes_that_do_not_fit(name: str) -> None:
    case, box, relaxation = make_case("strided"), Box.linf(IMAGES, 0.1), build(name)
    weight = next(k for k, p in case.params.items() if p.dim() == 4)

    def bound(params: Any = case.params, box: Any = box, **others: Any) -> Bounds:
        return relaxation.bound(case.graph, params, box, **others)

    refused("must be", lambda: bound({**case.params, weight: case.params[weight][:, :1]}))
    refused("one kind", lambda: bound({**case.params, weight: case.params[weight].float()}))
    refused(f"params lack '{weight}'", lambda: bound({k: p for k, p in case.params.items() if k != weight}))
    refused("one kind", lambda: bound(box=box.to(torch.float32)))
    refused("float32 or float64", lambda: bound(box=box.to(torch.float16)))
    refused(r"box must be \[batch, 2, 7, 6\], got \[3, 2, 6, 6\]", lambda: bound(box=Box.linf(IMAGES[:, :, 1:], 0.1)))
    refused("certtrain.Box", lambda: bound(box=(IMAGES, IMAGES)))
    refused("sides", lambda: bound(sides="upper"))
    refused("graph", lambda: relaxation.bound(case.network, case.params, box))


def test_a_users_relaxation_is_asked_only_what_fits() -> None:
    @dataclass(frozen=True)
    class Mine(Relaxation):
        def bound(self, graph, params, box, spec=None, sides="both") -> Bounds:
            raise AssertionError("asked")

    case, box = make_case("mlp"), Box.linf(IMAGES, 0.1)
    refused("spec", lambda: Mine().bound(case.graph, case.params, box, SPECS["two images"].double()))
    with pytest.raises(AssertionError, match="asked"):
        Mine().bound(case.graph, case.params, box)


def test_boxes_inside_transformations() -> None:
    """Nothing may depend on the data there, so what does is not checked; shapes are."""
    case = make_case("mlp")

    def lower(x: Tensor, eps: Tensor) -> Tensor:
        return build("deeppoly").bound(case.graph, case.params, Box.linf(x[None], eps), None, "lower").lower[0]

    eps = torch.full((3,), 0.1, dtype=torch.float64)
    with torch.no_grad():
        found = torch.func.vmap(lower)(IMAGES, eps)
    expected = build("deeppoly").bound(case.graph, case.params, Box.linf(IMAGES, 0.1)).lower
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    with torch.no_grad():
        refused("does not fit", lambda: torch.func.vmap(lower)(IMAGES, eps[:, None].expand(3, 5)))


@pytest.mark.parametrize("name", relaxations())
def test_one_number_normalises_all_channels(name: str) -> None:
    """Compiled code read zeros for the other channels: bounds of another network."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 3, 1), nn.ReLU(), Normalize([0.1], [0.5]), nn.Conv2d(3, 3, 3), nn.ReLU(), nn.Flatten()]
    network = nn.Sequential(*layers, nn.Linear(60, 3)).double().eval()
    found = certtrain.bound(network, Box(IMAGES, IMAGES), name)
    torch.testing.assert_close(found.lower, network(IMAGES).detach(), rtol=0, atol=1e-9)


@dataclass(frozen=True)
class Call:
    """Everything that one call of the compiled code reads."""

    job: Job
    tensors: list[Tensor]
    wanted: Tensor

    def run(self, tensors: list[Tensor] | None = None, wanted: Tensor | None = None) -> Tensor:
        start, constant, *operands = self.tensors if tensors is None else tensors
        return substitute(self.job, start, constant, operands, self.wanted if wanted is None else wanted)


def calls(name: str, monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """All calls of deeppoly on a network with every step that compiled code knows."""
    found, original = [], substitute

    def spied(job, start, constant, operands, wanted=None) -> Tensor:
        lower = original(job, start, constant, operands, wanted)
        found.append(Call(job, [start, constant, *operands], torch.ones(len(job.rows), dtype=start.dtype)))
        return lower

    with monkeypatch.context() as patch:
        patch.setattr(executor_module, "substitute", spied)
        network = nn.Sequential(
            *(nn.Conv2d(2, 5, 3, 1, 1), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 3, 2), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(90, 6), nn.ReLU(), nn.Linear(6, 4)),
        )
        network = network.double().eval()
        graph, params = trace(network, zoo.IMAGE), {k: p.detach() for k, p in parameters(network).items()}
        build(name).bound(graph, params, Box.linf(IMAGES, 0.1))
    return found


@needs_compiler
@pytest.mark.parametrize("way", ["plain", "recorded", "population"])
@pytest.mark.parametrize("name", ["crown_ibp", "zonotope"])
def test_compiled_code_is_given_no_tensor_that_is_too_small(
    name: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every tensor of every call: one that lacks a number of its last axis, or an image."""
    assert compiled(torch.float64) is not None
    seen = calls(name, monkeypatch)
    assert seen
    for call in seen:
        call.run()
        for i, x in enumerate(call.tensors):
            smaller = [x[..., :-1]] + ([x[:2]] if len(x) == 3 else [])
            for y in smaller:
                tensors = [*call.tensors[:i], y, *call.tensors[i + 1 :]]
                with pytest.raises(ValueError, match="compiled bounds"):
                    run(call, tensors, way, i)
        with pytest.raises(ValueError, match="numbers of rows"):
            call.run(wanted=call.wanted[:-1])


def run(call: Call, tensors: list[Tensor], way: str, i: int) -> None:
    if way == "recorded":
        tensors = [x.clone().requires_grad_(k == i) for k, x in enumerate(tensors)]
    if way == "population":
        with torch.no_grad():
            torch.func.vmap(lambda x: call.run([*tensors[:i], x, *tensors[i + 1 :]]))(torch.stack([tensors[i]] * 2))
    else:
        call.run(tensors)


@needs_compiler
def test_compiled_code_is_given_numbers_of_one_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    call = calls("crown_ibp", monkeypatch)[0]
    for i in range(len(call.tensors)):
        with pytest.raises(TypeError, match="compiled bounds need contiguous tensors of one floating-point type"):
            call.run([x.float() if k == i else x for k, x in enumerate(call.tensors)])


@needs_compiler
@pytest.mark.parametrize("axis", ["image", "position", "form"])
@pytest.mark.parametrize("index", [-1, 10_000])
def test_compiled_code_is_given_no_row_that_is_not_there(axis: str, index: int, monkeypatch) -> None:
    call = max(calls("zonotope", monkeypatch), key=lambda c: len(c.job.rows))
    rows = replace(
        call.job.rows, **{axis: getattr(call.job.rows, axis).clone().index_fill(0, torch.tensor([0]), index)}
    )
    with pytest.raises(ValueError, match="compiled bounds"):
        Call(replace(call.job, rows=rows), call.tensors, call.wanted).run()

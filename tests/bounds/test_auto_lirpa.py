"""The auto_LiRPA backend: right numbers, no state, and one clear line where it cannot be used."""

from __future__ import annotations

import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
import torch
from torch import Tensor, nn

from certtrain.bounds import Bounds, Box, Relaxation, auto_lirpa, build, margin_spec
from certtrain.bounds import _auto_lirpa_compat as compat
from certtrain.bounds.auto_lirpa import AutoLirpa
from certtrain.errors import ConfigError, UnsupportedOperation
from certtrain.networks import Graph, Normalize, Params, parameters, trace

Method = Literal["ibp", "crown_ibp", "deeppoly"]
METHODS: tuple[Method, ...] = get_args(Method)
CLASSES = 4
EXACT = 1e-10  # two ways to sum the same float64 numbers
FLOAT32 = 1e-4

needs_auto_lirpa = pytest.mark.skipif(not compat.available(), reason="auto_LiRPA cannot be imported here")


class Residual(nn.Module):
    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class View(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), -1)


def normalize(channels: int = 1) -> Normalize:
    return Normalize([0.4] * channels, [0.3] * channels)


def head(features: int) -> list[nn.Module]:
    return [nn.Flatten(), nn.Linear(features, 9), nn.ReLU(), nn.Linear(9, CLASSES)]


def norm(channels: int, affine: bool = True) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(channels, affine=affine)
    layer.load_state_dict(
        {"running_mean": 0.3 * torch.randn(channels), "running_var": 0.5 + torch.rand(channels)}, strict=False
    )
    if affine:
        nn.init.normal_(layer.weight)  # of both signs
        nn.init.normal_(layer.bias)
    return layer


def residual_block() -> Residual:
    body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), norm(4), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1), norm(4))
    return Residual(body, nn.Conv2d(3, 4, 1, 2))


def network(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A small random network in float64, and the shape of its input."""
    torch.manual_seed(len(name))
    relu = nn.ReLU()
    conv = nn.Conv2d
    dense = [
        nn.Flatten(),
        nn.Linear(16, 12),
        relu,
        nn.Linear(12, 10, bias=False),
        relu,
        nn.Linear(10, CLASSES),
    ]
    strides = [normalize(2), conv(2, 4, 5, 2, 2), relu, conv(4, 6, 4, 2, 1, bias=False), relu, *head(24)]
    groups = [
        normalize(2),
        conv(2, 4, 3, padding=1, groups=2),
        relu,
        conv(4, 4, 3, dilation=2),
        relu,
        *head(64),
    ]
    oblong = [conv(1, 4, (3, 5), (1, 2), (1, 0)), relu, conv(4, 4, 3, (2, 1)), relu, *head(12)]
    norms = [conv(1, 4, 3, 1, 1), norm(4), relu, conv(4, 4, 3, 2), norm(4, affine=False), relu, *head(36)]
    pools = [conv(1, 3, 3, 1, 1), relu, nn.AvgPool2d(3, 2, 1), conv(3, 4, 3), relu, nn.AvgPool2d(2), *head(4)]
    residual = [normalize(3), residual_block(), Residual(conv(4, 4, 3, 1, 1), nn.Identity()), *head(64)]
    networks: dict[str, tuple[list[nn.Module], tuple[int, ...]]] = {
        "mlp": (dense, (1, 4, 4)),
        "view": ([normalize(), conv(1, 3, 3), relu, View(), nn.Linear(48, CLASSES)], (1, 6, 6)),
        "strides": (strides, (2, 9, 9)),
        "groups": (groups, (2, 8, 8)),
        "oblong": (oblong, (1, 8, 10)),
        "batch_norm": (norms, (1, 8, 8)),
        "pooling": (pools, (1, 9, 9)),
        "residual": (residual, (3, 7, 7)),
    }
    modules, shape = networks[name]
    return nn.Sequential(*modules).double().eval(), shape


NETWORKS = ("mlp", "view", "strides", "groups", "oblong", "batch_norm", "pooling", "residual")


def problem(name: str, batch: int = 3, seed: int = 0) -> tuple[Graph, Params, Box, Tensor]:
    """A network, its parameters, a clipped box (so that some pixels have no width) and margins."""
    module, shape = network(name)
    torch.manual_seed(seed)
    inputs = torch.rand(batch, *shape, dtype=torch.float64).mul(1.4).sub(0.2).clamp(0, 1)
    inputs[:, :, 0] = inputs[:, :, 0].round()
    box = Box.linf(inputs, 0.08)
    box = Box(box.lower, torch.where(torch.rand_like(inputs) < 0.2, box.lower, box.upper))
    spec = margin_spec(torch.arange(batch) % CLASSES, CLASSES).double()
    return trace(module, shape), parameters(module), box, spec


def native(method: Method) -> Relaxation:
    return build(method, intersect=False) if method == "deeppoly" else build(method)


def pair(bounds: Bounds) -> tuple[Tensor, Tensor]:
    assert bounds.upper is not None
    return bounds.lower, bounds.upper


def agree(found: Bounds, expected: Bounds) -> bool:
    return all(torch.allclose(a, b, atol=EXACT) for a, b in zip(pair(found), pair(expected), strict=True))


# A reference for dense networks: nothing in it is shared with certtrain.


def relu_lines(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lower slope, upper slope, upper intercept; each [batch, neurons]."""
    chord = torch.where(low >= 0, 1.0, torch.where(high <= 0, 0.0, high / (high - low)))
    lower = torch.where(low >= 0, 1.0, torch.where(high <= 0, 0.0, (high > -low).double()))
    return lower, chord, torch.where((low < 0) & (high > 0), -chord * low, 0.0)


def substitute(rows: Tensor, layers: list, known: list, box: Box) -> Tensor:
    """Lower bound of rows [batch, rows, n] over the last layer, given pre-activation bounds of the others."""
    total = torch.zeros(rows.shape[:2], dtype=rows.dtype)
    for i in range(len(layers) - 1, -1, -1):
        weight, bias = layers[i]
        total, rows = total + rows @ bias, rows @ weight
        if i > 0:
            lower, chord, intercept = relu_lines(*known[i - 1])
            total = total + (rows.clamp(max=0) @ intercept[..., None]).squeeze(-1)
            rows = rows.clamp(min=0) * lower[:, None] + rows.clamp(max=0) * chord[:, None]
    low, high = box.lower.flatten(1)[:, None], box.upper.flatten(1)[:, None]
    return total + (rows.clamp(min=0) * low + rows.clamp(max=0) * high).sum(-1)


def reference(method: Method, layers: list, box: Box, spec: Tensor) -> tuple[Tensor, Tensor]:
    low, high, known = box.lower.flatten(1), box.upper.flatten(1), list[tuple[Tensor, Tensor]]()
    for i, (weight, bias) in enumerate(layers[:-1]):
        up, down = weight.clamp(min=0), weight.clamp(max=0)
        low, high = low @ up.T + high @ down.T + bias, high @ up.T + low @ down.T + bias
        if method == "deeppoly":
            eye = torch.eye(len(bias), dtype=bias.dtype).expand(len(low), -1, -1)
            parts = layers[: i + 1], known, box
            known.append((substitute(eye, *parts), -substitute(-eye, *parts)))
        else:
            known.append((low, high))
        low, high = low.relu(), high.relu()
    if method == "ibp":
        rows, constant = spec @ layers[-1][0], spec @ layers[-1][1]
        low, high = low[..., None], high[..., None]
        up, down = rows.clamp(min=0), rows.clamp(max=0)
        return (up @ low + down @ high).squeeze(-1) + constant, (up @ high + down @ low).squeeze(-1) + constant
    return substitute(spec, layers, known, box), -substitute(-spec, layers, known, box)


@needs_auto_lirpa
@pytest.mark.parametrize("method", METHODS)
def test_agrees_with_a_reference_written_out_here(method: Method) -> None:
    graph, params, box, spec = problem("mlp")
    linear = [m for m in graph.module.modules() if isinstance(m, nn.Linear)]
    layers = [(m.weight, torch.zeros(len(m.weight)).double() if m.bias is None else m.bias) for m in linear]
    found = AutoLirpa(method, sparse_intermediate=False).bound(graph, params, box, spec)
    assert agree(found, Bounds(*reference(method, layers, box, spec)))


@needs_auto_lirpa
@pytest.mark.parametrize("conv_mode", ["patches", "matrix"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETWORKS)
def test_agrees_with_the_native_relaxation(name: str, method: Method, conv_mode: Literal["patches", "matrix"]) -> None:
    graph, params, box, spec = problem(name)
    relaxation = AutoLirpa(method, sparse_intermediate=False, conv_mode=conv_mode)
    for rows in (None, spec, spec[:, :1]):
        found = relaxation.bound(graph, params, box, rows)
        assert agree(found, native(method).bound(graph, params, box, rows))
        only_lower = relaxation.bound(graph, params, box, rows, sides="lower")
        assert only_lower.upper is None
        assert torch.equal(only_lower.lower, found.lower)


@needs_auto_lirpa
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["strides", "batch_norm", "residual"])
def test_agrees_with_the_native_relaxation_in_float32(name: str, method: Method) -> None:
    graph, params, box, spec = problem(name)
    params = {key: value.detach().float() for key, value in params.items()}
    found = AutoLirpa(method, sparse_intermediate=False).bound(graph, params, box.to(torch.float32), spec)
    expected = native(method).bound(graph, params, box.to(torch.float32), spec)
    assert found.lower.dtype == torch.float32
    assert torch.allclose(found.lower, expected.lower, atol=FLOAT32)


@needs_auto_lirpa
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_arrive_at_the_parameters_and_agree_with_native(name: str, method: Method) -> None:
    graph, params, box, spec = problem(name)
    # Not leaves: gradients must flow on through whatever made the parameters.
    start = {key: value.detach().clone().requires_grad_() for key, value in params.items()}
    params = {key: 1.1 * value for key, value in start.items()}
    corner = box.lower.requires_grad_()
    gradients = []
    for relaxation in (AutoLirpa(method, sparse_intermediate=False), native(method)):
        lower, upper = pair(relaxation.bound(graph, params, Box(corner, box.upper), spec))
        loss = lower.sum() + upper.square().sum()
        gradients.append(torch.autograd.grad(loss, [*start.values(), corner], retain_graph=True))
    for found, expected in zip(*gradients, strict=True):
        assert torch.allclose(found, expected, atol=1e-8)


@needs_auto_lirpa
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_bounds_do_not_depend_on_what_was_computed_before(method: Method, sparse: bool) -> None:
    graph, params, box, spec = problem("residual")
    relaxation = AutoLirpa(method, sparse)
    first = relaxation.bound(graph, params, box, spec)
    other_graph, _, other_box, other_spec = problem("residual", batch=5, seed=1)
    other_params = {key: -2 * value for key, value in params.items()}
    relaxation.bound(other_graph, other_params, other_box, other_spec, sides="lower")
    AutoLirpa("crown_ibp", sparse).bound(graph, params, box[:1])
    again = relaxation.bound(graph, params, box, spec)
    assert all(torch.equal(a, b) for a, b in zip(pair(first), pair(again), strict=True))


@needs_auto_lirpa
@pytest.mark.parametrize("name", ["view", "residual"])
def test_bounds_of_an_image_are_the_same_alone_and_in_a_batch(name: str) -> None:
    graph, params, box, spec = problem(name, batch=4)
    relaxation = AutoLirpa("deeppoly", sparse_intermediate=False)
    together = relaxation.bound(graph, params, box, spec).lower
    alone = [relaxation.bound(graph, params, box[i : i + 1], spec[i : i + 1]).lower for i in range(4)]
    assert torch.allclose(together, torch.cat(alone), atol=EXACT)


@needs_auto_lirpa
def test_parameters_and_statistics_are_those_given() -> None:
    graph, params, box, spec = problem("batch_norm")
    relaxation = AutoLirpa("crown_ibp")
    before = relaxation.bound(graph, params, box, spec).lower
    given = {key: 1.5 * value for key, value in params.items()} | {"1.running_mean": torch.ones(4).double()}
    changed = relaxation.bound(graph, given, box, spec).lower
    assert not torch.allclose(before, changed, atol=1e-2)
    assert torch.allclose(changed, native("crown_ibp").bound(graph, given, box, spec).lower, atol=EXACT)
    # Statistics of the module are read with every call.
    graph.module.get_buffer("1.running_var").mul_(3)
    expected = native("crown_ibp").bound(graph, params, box, spec).lower
    assert not torch.allclose(before, expected, atol=1e-2)
    assert torch.allclose(relaxation.bound(graph, params, box, spec).lower, expected, atol=EXACT)


@needs_auto_lirpa
@pytest.mark.parametrize("method", METHODS)
def test_callers_tensors_are_left_alone_and_not_kept(method: Method) -> None:
    graph, params, box, spec = problem("strides")
    params = {key: value.detach().clone() for key, value in params.items()}
    trained = next(iter(params))
    params[trained].requires_grad_()
    bounds = AutoLirpa(method).bound(graph, params, box, spec)
    assert [key for key, value in params.items() if value.requires_grad] == [trained]
    assert all(value.grad_fn is None for value in params.values())
    watched = [weakref.ref(value) for value in params.values()] + [weakref.ref(bounds.lower)]
    del params, bounds
    assert all(reference() is None for reference in watched)


@needs_auto_lirpa
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_works_without_autograd(method: Method, guard: type) -> None:
    graph, params, box, spec = problem("residual")
    expected = AutoLirpa(method).bound(graph, params, box, spec).lower
    with guard():
        found = AutoLirpa(method).bound(graph, params, box, spec).lower
    assert not found.requires_grad
    assert torch.equal(found, expected)


@needs_auto_lirpa
@pytest.mark.parametrize("name", NETWORKS)
def test_bounds_are_exact_on_a_point_and_sound_around_it(name: str) -> None:
    graph, params, box, _ = problem(name)
    relaxation = AutoLirpa("deeppoly")  # with the interval shortcut, whose bounds depend on the batch
    output = graph.module(box.lower)
    assert agree(relaxation.bound(graph, params, Box(box.lower, box.lower)), Bounds(output, output))
    lower, upper = pair(relaxation.bound(graph, params, box))
    for _ in range(100):
        outputs = graph.module(box.lower + torch.rand_like(box.lower).round() * (box.upper - box.lower))
        assert (outputs >= lower - EXACT).all()
        assert (outputs <= upper + EXACT).all()


@needs_auto_lirpa
@pytest.mark.parametrize("method", METHODS)
def test_nan_propagates(method: Method) -> None:
    graph, params, box, spec = problem("residual")
    relaxation = AutoLirpa(method, sparse_intermediate=False)
    clean = relaxation.bound(graph, params, box, spec).lower
    lower = box.lower.clone()
    lower[1, 0, 3, 3] = torch.nan
    found = relaxation.bound(graph, params, Box(lower, box.upper), spec).lower
    assert found[1].isnan().all()
    assert torch.allclose(found[[0, 2]], clean[[0, 2]], atol=EXACT)
    broken = {key: value.detach().clone() for key, value in params.items()}
    next(iter(broken.values())).view(-1)[0] = torch.nan
    assert relaxation.bound(graph, broken, box, spec).lower.isnan().all()
    assert AutoLirpa(method).bound(graph, broken, box, spec).lower.isnan().all()


@needs_auto_lirpa
def test_the_registry_builds_it() -> None:
    assert build("deeppoly", backend="auto_lirpa", conv_mode="matrix") == AutoLirpa("deeppoly", conv_mode="matrix")


@needs_auto_lirpa
def test_vmap_is_refused_in_one_line() -> None:
    graph, params, box, _ = problem("mlp")
    population = {key: torch.stack([value, 2 * value]) for key, value in params.items()}

    def lower(member: Params) -> Tensor:
        return AutoLirpa("ibp").bound(graph, member, box).lower

    with pytest.raises(ConfigError, match=r"pgpe\.strategy=loop, or relaxation\.backend=native$"):
        torch.func.vmap(lower)(population)


@needs_auto_lirpa
@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.AvgPool2d(2, 2, 1, count_include_pad=False), "'1' .AvgPool2d. .* divisor"),
        (nn.Conv2d(2, 2, 3, dilation=(1, 2)), "'1' .Conv2d. .* dilation"),
    ],
)
def test_operations_without_a_sound_rule_are_refused_by_name(layer: nn.Module, message: str) -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), layer, nn.Flatten(), nn.LazyLinear(CLASSES)).eval()
    inputs = torch.rand(1, 1, 8, 8)
    module(inputs)
    with pytest.raises(UnsupportedOperation, match=message):
        AutoLirpa("ibp").bound(trace(module, (1, 8, 8)), parameters(module), Box.linf(inputs, 0.1))


@needs_auto_lirpa
@pytest.mark.parametrize(
    "branches",
    [
        (nn.Conv2d(1, 2, 3, 2, 1), nn.Conv2d(1, 2, 5)),  # different strides from 8 pixels to 4
        (nn.Conv2d(1, 2, 2, 2), nn.Conv2d(1, 2, 3, 2, 1)),  # the same stride, differently centred
    ],
)
def test_branches_of_different_geometry_are_added(branches: tuple[nn.Module, nn.Module]) -> None:
    module = nn.Sequential(nn.Conv2d(1, 1, 1), Residual(*branches), *head(32)).double().eval()
    graph, params = trace(module, (1, 8, 8)), parameters(module)
    box = Box.linf(torch.rand(2, 1, 8, 8).double(), 0.1)
    found = AutoLirpa("deeppoly", sparse_intermediate=False, conv_mode="patches").bound(graph, params, box)
    assert torch.allclose(found.lower, native("deeppoly").bound(graph, params, box).lower, atol=EXACT)


@needs_auto_lirpa
@pytest.mark.parametrize("error", [NotImplementedError("Function `f` of\n`g`"), AssertionError()])
def test_what_auto_lirpa_refuses_itself_is_told_in_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, params, box, _ = problem("mlp")
    AutoLirpa("ibp").bound(graph, params, box)

    def refuse(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(compat.BoundedNetwork, "bound", refuse)
    with pytest.raises(UnsupportedOperation, match=type(error).__name__) as raised:
        AutoLirpa("ibp").bound(graph, params, box)
    assert "\n" not in str(raised.value)


@needs_auto_lirpa
def test_other_errors_inside_auto_lirpa_are_not_swallowed() -> None:
    graph, params, box, _ = problem("mlp")
    wrong = {key: value[..., :-1] for key, value in params.items()}
    with pytest.raises(RuntimeError):
        AutoLirpa("ibp").bound(graph, wrong, box)
    assert AutoLirpa("ibp").bound(graph, params, box).lower.isfinite().all()


@needs_auto_lirpa
def test_ibp_margins_are_refused_where_they_could_not_be_merged() -> None:
    module = nn.Sequential(nn.Conv2d(1, CLASSES, 4), nn.Flatten())
    graph, params, box = trace(module, (1, 4, 4)), parameters(module), Box.linf(torch.rand(2, 1, 4, 4), 0.1)
    spec = margin_spec(torch.tensor([0, 1]), CLASSES)
    with pytest.raises(UnsupportedOperation, match="only into a Linear layer"):
        AutoLirpa("ibp").bound(graph, params, box, spec)
    assert AutoLirpa("crown_ibp").bound(graph, params, box, spec).lower.shape == (2, CLASSES - 1)


@needs_auto_lirpa
def test_a_network_that_is_misrepresented_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = compat.BoundedNetwork.bound

    def wrong(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        lower, upper = honest(*args, **kwargs)
        return lower + 0.1, upper

    monkeypatch.setattr(compat.BoundedNetwork, "bound", wrong)
    module = nn.Sequential(nn.Flatten(), nn.Linear(7, CLASSES))  # of a size that is not in the cache
    with pytest.raises(UnsupportedOperation, match="misrepresents this network"):
        AutoLirpa("ibp").bound(trace(module, (7,)), parameters(module), Box.linf(torch.rand(1, 7), 0.1))


@needs_auto_lirpa
def test_importing_it_is_silent_and_leaves_the_process_as_it_was() -> None:
    code = (
        "import logging, sys, warnings\n"
        "before = list(logging.getLogger().handlers), list(warnings.filters)\n"
        "from certtrain.bounds import _auto_lirpa_compat as compat\n"
        "assert 'auto_LiRPA' not in sys.modules\n"
        "filters = list(warnings.filters)\n"
        "compat.load()\n"
        "assert (list(logging.getLogger().handlers), list(warnings.filters)) == (before[0], filters)\n"
        "assert compat.NUMPY_MODULE not in sys.modules\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_auto_lirpa_one_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    compat.load.cache_clear()
    auto_lirpa._network.cache_clear()
    monkeypatch.setitem(sys.modules, "auto_LiRPA", None)
    graph, params, box, _ = problem("mlp")
    assert not compat.available()
    with pytest.raises(ConfigError, match="not installed: pip install") as raised:
        compat.load()
    assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match="not installed: pip install"):
        AutoLirpa("ibp").bound(graph, params, box)


def test_an_installation_that_cannot_be_imported_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = compat.importlib.import_module

    def broken(name: str) -> object:
        if name == "auto_LiRPA":
            raise ModuleNotFoundError("No module named 'appdirs'", name="appdirs")
        return honest(name)

    compat.load.cache_clear()
    monkeypatch.setattr(compat.importlib, "import_module", broken)
    with pytest.raises(ConfigError, match=r"cannot be imported .*appdirs.*backend=native$"):
        compat.load()

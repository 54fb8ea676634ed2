"""The auto_LiRPA backend: one clear line where it cannot be used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lirpa_cases import (
    CLASSES,
    EXACT,
    Residual,
    head,
    native,
    needs_auto_lirpa,
    problem,
)
from torch import Tensor, nn

from certtrain.bounds import Box, build, margin_spec
from certtrain.bounds.backends import _auto_lirpa_compat as compat
from certtrain.bounds.backends import auto_lirpa
from certtrain.bounds.backends.auto_lirpa import AutoLirpa
from certtrain.errors import ConfigError, UnsupportedOperation
from certtrain.networks import Params, parameters, trace


@needs_auto_lirpa
def test_the_registry_builds_it() -> None:
    assert build("deeppoly", backend="auto_lirpa", conv_mode="matrix") == AutoLirpa("deeppoly", conv_mode="matrix")


@needs_auto_lirpa
def test_vmap_is_refused_in_one_line() -> None:
    graph, params, box, _ = problem("mlp")
    population = {key: torch.stack([value, 2 * value]) for key, value in params.items()}

    def lower(member: Params) -> Tensor:
        return AutoLirpa("ibp").bound(graph, member, box).lower

    with pytest.raises(ConfigError, match=r"pgpe\.strategy=loop or rgs\.strategy=loop, or relaxation\.backend=native$"):
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
def test_other_errors_inside_auto_lirpa_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, params, box, _ = problem("mlp")

    def fails(*_: object) -> None:
        raise RuntimeError("something else")

    with monkeypatch.context() as patch:
        patch.setattr(compat.BoundedNetwork, "bound", fails)
        with pytest.raises(RuntimeError, match="something else"):
            AutoLirpa("ibp").bound(graph, params, box)
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
        "from certtrain.bounds.backends import _auto_lirpa_compat as compat\n"
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

"""Bounds and evidence in full float32, whatever the process has been told; and its settings as they were afterwards."""

import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from cases import VARIANTS
from torch import Tensor, nn

from certtrain.bounds import Box, build, relaxations
from certtrain.certify.network import Network
from certtrain.networks import parameters, trace
from certtrain.precision import full_float32

CPU = torch.device("cpu")
KEYS = [("generic", "all"), *((b, op) for b in ("cuda", "mkldnn") for op in ("all", "matmul", "conv", "rnn"))]
new_settings = pytest.mark.skipif(
    not hasattr(torch._C, "_get_fp32_precision_getter"), reason="torch 2.9 has them first"
)


def read() -> list[str]:
    return [torch._C._get_fp32_precision_getter(*key) for key in KEYS]


@pytest.fixture(autouse=True)
def settings_of_others() -> Iterator[None]:
    """Whatever these tests set is undone."""
    settings = read() if hasattr(torch._C, "_get_fp32_precision_getter") else []
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = convolutions
    for key, value in zip(KEYS, settings, strict=False):
        torch._C._set_fp32_precision_setter(*key, value)


def everything_in_bfloat16() -> None:
    torch.set_float32_matmul_precision("medium")
    if hasattr(torch.backends, "fp32_precision"):
        torch.backends.mkldnn.conv.fp32_precision = "bf16"


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, stride=2), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(32 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, 5)).eval()


def lower_bounds(name: str, **options: object) -> Tensor:
    module = network()
    box = Box.linf(torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)), 0.01)
    graph = trace(module, (3, 16, 16))
    return build(name, **options).bound(graph, parameters(module), box, sides="lower").lower.detach()


def outputs() -> Tensor:
    inputs = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return Network.of(network(), (3, 16, 16)).logits(inputs)


EVIDENCE: dict[str, Callable[[], Tensor]] = {
    **{name: lambda name=name: lower_bounds(**VARIANTS[name]) for name in relaxations()},
    "tensors": lambda: lower_bounds("deeppoly", executor="tensors"),
    "outputs": outputs,
}


@pytest.mark.parametrize("what", EVIDENCE)
def test_settings_of_the_process_do_not_reach_what_proves_something(what: str) -> None:
    """On a CPU that computes in bfloat16 these settings change the third digit."""
    expected = EVIDENCE[what]()
    everything_in_bfloat16()
    assert torch.equal(EVIDENCE[what](), expected)
    assert torch.get_float32_matmul_precision() == "medium"


@pytest.mark.parametrize("what", EVIDENCE)
def test_autocast_does_not_reach_it(what: str) -> None:
    expected = EVIDENCE[what]()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = EVIDENCE[what]()
        assert torch.is_autocast_enabled("cpu")
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_a_backward_pass_may_be_under_autocast() -> None:
    """It carries rows back again, piece by piece: of the type that they had. Derivatives are as coarse as asked for."""
    module = network()
    graph, leaves = trace(module, (3, 16, 16)), parameters(module)
    box = Box.linf(torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)), 0.01)
    found = []
    for enabled in (False, True):
        lower = build("crown_ibp", executor="tensors", memory_mb=0.5).bound(graph, leaves, box, sides="lower").lower
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            found.append(torch.autograd.grad(lower.sum(), list(leaves.values())))
    for a, b in zip(*found, strict=True):
        assert (a - b).norm() < 0.02 * a.norm()


HISTORIES: dict[str, Callable[[], None]] = {
    "nothing": lambda: None,
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "convolutions without TF32": lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
    "all in TF32": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
    "products of one backend": lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
    "both kinds of settings, at odds": lambda: (
        torch.set_float32_matmul_precision("high"),
        setattr(torch.backends.cuda.matmul, "fp32_precision", "ieee"),
    ),
}


@new_settings
@pytest.mark.parametrize("history", HISTORIES)
def test_inside_all_is_full_and_afterwards_all_is_as_before(history: str) -> None:
    HISTORIES[history]()
    before = read()

    def fail() -> None:
        with full_float32(CPU):
            assert set(read()) == {"ieee"}
            with full_float32(CPU):
                pass
            assert set(read()) == {"ieee"}, "the inner one has put back what the outer one still needs"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert read() == before


@new_settings
def test_what_inherits_still_does_afterwards() -> None:
    """A copy of what was inherited would keep its value when its parent gets another one."""
    for key in KEYS:
        torch._C._set_fp32_precision_setter(*key, "none")
    torch.backends.fp32_precision = "tf32"
    with full_float32(CPU):
        pass
    torch.backends.fp32_precision = "ieee"
    assert set(read()) == {"ieee"}


@new_settings
def test_the_older_setting_can_be_read_inside() -> None:
    """Torch refuses to where it contradicts the newer ones."""
    torch.set_float32_matmul_precision("high")
    with full_float32(CPU):
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32


@new_settings
def test_a_thread_that_leaves_takes_nothing_from_one_that_stays() -> None:
    torch.set_float32_matmul_precision("high")
    entered, leave, found = threading.Event(), threading.Event(), []

    def stay() -> None:
        with full_float32(CPU):
            entered.set()
            leave.wait(timeout=30)
            found.extend(read())

    with full_float32(CPU):
        thread = threading.Thread(target=stay)
        thread.start()
        assert entered.wait(timeout=30)
    leave.set()
    thread.join(timeout=30)
    assert set(found) == {"ieee"}
    assert torch.get_float32_matmul_precision() == "high"

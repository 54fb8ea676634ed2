"""Verdicts on a device are those on the CPU, and so is their evidence."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from device_cases import subject

from certtrain.attacks import PGD
from certtrain.bounds import Box, build, relaxations
from certtrain.certify import Attack, AttackEnsemble, Verdict, certify, read_counterexample, read_ledger
from certtrain.certify.network import Network
from certtrain.memory import MEGABYTE, available_bytes
from certtrain.precision import full_float32

CPU = torch.device("cpu")
QUICK = Attack(steps=5, restarts=2)
# float64 on both devices, summed in another order.
ROUNDING = 1e-6


# Of five images, so that there is something of everything.
EPS = (0.003, 0.003, 0.02, 0.1, 0.1)
NETWORKS = [
    ("elsewhere", "strided"),
    *(pytest.param("cuda", network, marks=pytest.mark.gpu) for network in ("strided", "residual", "curved")),
]


def verdicts(network: str, device: torch.device, where_inputs_are: torch.device, **options) -> list[Verdict]:
    what = subject(network)
    module = copy.deepcopy(what.network).float().to(device)
    inputs = what.inputs.float()
    labels = module(inputs.to(device)).argmax(1).to(CPU)
    labels[-1] = (labels[-1] + 1) % what.graph.num_outputs  # one is misclassified
    given = {"attack": QUICK} | options
    return certify(module, inputs.to(where_inputs_are), labels.to(where_inputs_are), EPS, **given)


@pytest.mark.parametrize(("device", "network"), NETWORKS, indirect=["device"])
@pytest.mark.parametrize("inputs_are", ["there", "on the CPU"])
def test_verdicts_are_the_same(device: torch.device, network: str, inputs_are: str) -> None:
    found = verdicts(network, device, device if inputs_are == "there" else CPU)
    expected = verdicts(network, CPU, CPU)
    assert not any(v.failures for v in found)
    for a, b in zip(found, expected, strict=True):
        assert (a.status, a.predicted, a.verified_by, a.image) == (b.status, b.predicted, b.verified_by, b.image)
        assert set(a.margins) == set(b.margins)
        for name, margin in b.margins.items():
            assert a.margins[name] == pytest.approx(margin, rel=ROUNDING, abs=ROUNDING)
    assert {v.status for v in expected} >= {"misclassified", "verified"}


def test_a_cascade_with_all_attacks_comes_to_the_same_verdicts(device: torch.device, tmp_path: Path) -> None:
    given = {"attack": AttackEnsemble(5, 1, queries=20), "cascade": "first"}
    found = verdicts("strided", device, device, ledger=tmp_path / "ledger.jsonl", **given)
    expected = verdicts("strided", CPU, CPU, **given)
    told = [[(v.status, v.verified_by, v.falsified_by, v.failures) for v in some] for some in (found, expected)]
    assert told[0] == told[1]
    points = {v.status: read_counterexample(tmp_path / "ledger.jsonl", v) for v in found}
    assert [status for status, point in points.items() if point is not None] == ["falsified"]


def test_a_ledger_goes_on_on_another_device(device: torch.device, tmp_path: Path) -> None:
    """Its settings are the network's and the images', wherever they were computed."""
    ledger = tmp_path / "ledger.jsonl"
    there = verdicts("strided", device, CPU, ledger=ledger)
    here = verdicts("strided", CPU, CPU, ledger=ledger)
    assert here == there == read_ledger(ledger)


def test_the_fingerprint_of_a_network_does_not_depend_on_its_device(device: torch.device) -> None:
    what = subject("residual")
    networks = [Network.of(copy.deepcopy(what.network).to(d), what.graph.input_shape) for d in (CPU, device)]
    assert networks[0].fingerprint() == networks[1].fingerprint()


def test_attacks_start_at_the_same_points(device: torch.device) -> None:
    box = subject("strided").box(0.1).to(torch.float32)
    moved = Box(box.lower.to(device), box.upper.to(device))

    def start(where: Box) -> torch.Tensor:
        keys, images = [(0, i) for i in range(len(where))], torch.arange(len(where), device=where.lower.device)
        points, _ = PGD(steps=0).restart(lambda x, _: x.flatten(1), where, keys, images, where.lower.flatten(1), 0)
        return points.to(CPU)

    assert np.allclose(start(box), start(moved), rtol=0, atol=1e-6)


@pytest.mark.gpu
def test_memory_that_torch_keeps_for_itself_counts_as_free(cuda: torch.device) -> None:
    before = available_bytes(cuda)
    x = torch.empty(256 * MEGABYTE, dtype=torch.uint8, device=cuda)
    held = available_bytes(cuda)
    del x
    after = available_bytes(cuda)
    assert before is not None
    assert held is not None
    assert after is not None
    assert before - held > 200 * MEGABYTE
    assert after - held > 200 * MEGABYTE


@pytest.mark.gpu
def test_outputs_and_bounds_on_a_gpu_are_no_tf32(cuda: torch.device) -> None:
    """Against float64: TF32 keeps three digits, float32 seven."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(16, 64, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(64, 64, 3), torch.nn.ReLU()]
    module = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(64 * 14 * 14, 10)).to(cuda).eval()
    x = torch.rand(8, 16, 16, 16, device=cuda)
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        network = Network.of(module, x.shape[1:])
        with torch.no_grad():
            exact = network.logits(x.double())
            assert (network.logits(x) - exact).abs().max() < 1e-5 * (1 + exact.abs().max())
            for name in relaxations():
                single, double = (_at(name, network, x.to(dtype)) for dtype in (torch.float32, torch.float64))
                assert (single - double).abs().max() < 1e-5 * (1 + double.abs().max()), name
        assert torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
        with full_float32(cuda):
            assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


def _at(name: str, network: Network, x: torch.Tensor) -> torch.Tensor:
    """Lower bounds on a small box."""
    return build(name).bound(network.graph, network.values[x.dtype], Box.linf(x, 1e-3), sides="lower").lower.double()

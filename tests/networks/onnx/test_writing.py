"""What was traced, written to a file and read again, is the same function: every architecture, every operation."""

from pathlib import Path
from random import Random

import hydra.utils
import pytest
import torch
import zoo
from odd_networks import varied_network
from omegaconf import OmegaConf
from onnx_models import by_onnxruntime
from torch import nn

from certtrain._paths import config_dir
from certtrain.activations import ACTIVATIONS
from certtrain.errors import UnsupportedOperation
from certtrain.networks import from_onnx, ops, to_onnx, trace
from certtrain.networks.graph import EVALUATION
from certtrain.networks.onnx.writing import FUNCTIONS, WRITING

ARCHITECTURES = sorted(path.stem for path in (Path(config_dir()) / "model").glob("*.yaml"))


def check_round_trip(network: nn.Module, shape: tuple[int, ...], folder: Path) -> None:
    path = folder / "written.onnx"
    to_onnx(network, shape, path)
    back = from_onnx(path)
    dtype = next(network.parameters()).dtype
    x = torch.rand((4, *shape)).to(dtype)
    expected = network(x)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-7  # slopes and epsilons are float32 in every ONNX file
    size = 1 + float(expected.detach().abs().max())
    torch.testing.assert_close(back(x), expected, rtol=0, atol=tolerance * size)
    assert next(back.parameters()).dtype == dtype
    assert trace(back, back.input_shape).num_outputs == expected.shape[1]
    if dtype == torch.float32:
        torch.testing.assert_close(by_onnxruntime(path, x, back.onnx_shape), expected, rtol=0, atol=tolerance * size)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture(name, tmp_path):
    torch.manual_seed(0)
    node = OmegaConf.load(Path(config_dir()) / "model" / f"{name}.yaml")
    shape = (3, 16, 16)
    data = {"input_shape": shape, "num_classes": 10, "mean": [0.3, 0.4, 0.5], "std": [0.2, 0.3, 0.4]}
    network = hydra.utils.instantiate(node, **data, _convert_="all").eval()
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
    check_round_trip(network, shape, tmp_path)


@pytest.mark.parametrize("name", zoo.NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_layer_kind(name, dtype, tmp_path):
    check_round_trip(zoo.make(name, dtype=dtype), zoo.IMAGE, tmp_path)


@pytest.mark.parametrize("seed", range(24))
def test_odd_networks(seed, tmp_path):
    network = varied_network(Random(seed), (2, 5, 6), 3)
    check_round_trip(network.float() if seed % 3 else network, (2, 5, 6), tmp_path)


def test_every_operation_that_can_be_evaluated_can_be_written():
    """What `LinearMap` stands for there is a rule of its own here."""
    kinds = [k for k in vars(ops).values() if isinstance(k, type) and issubclass(k, ops.Op)]
    concrete = [k for k in kinds if not getattr(k, "__abstractmethods__", None) and k not in (ops.Op, ops.LinearMap)]
    assert set(concrete) - set(WRITING.table) == set()
    assert EVALUATION.table.keys() - {ops.LinearMap} <= set(WRITING.table)
    assert {kind.__name__ for kind in ACTIVATIONS} == set(FUNCTIONS)


def test_an_operation_without_a_rule_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.delitem(FUNCTIONS, "Tanh")
    network = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    with pytest.raises(UnsupportedOperation, match=r"operation '1' \(Tanh\) at position 2 has no rule for ONNX files"):
        to_onnx(network, (3,), tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []

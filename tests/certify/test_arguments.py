"""What `certify` takes: whatever holds the numbers; all else is refused in one line."""

import json

import numpy as np
import pytest
import torch
from certify.fakes import QUICK, diagonal, points
from torch import nn

from certtrain.bounds import build
from certtrain.certify import Attack, Verdict, certify
from certtrain.errors import ConfigError

pytestmark = pytest.mark.usefixtures("as_users_call")

INPUTS = points((0.9, 0.1), (0.4, 0.6))


def run(**change) -> list[Verdict]:
    given = {"model": diagonal(), "inputs": INPUTS, "labels": torch.tensor([0, 1]), "eps": 0.05}
    return certify(**given | {"relaxations": "ibp", "attack": QUICK} | change)


@pytest.mark.parametrize(
    "labels",
    [
        [0, 1],
        (0, 1),
        [False, True],
        [torch.tensor(0), torch.tensor(1)],
        *(np.array([0, 1], dtype) for dtype in ("bool", "u1", "i1", ">u4", ">i2", "u2", "u8", "i8")),
        *(
            torch.tensor([0, 1]).to(dtype)
            for dtype in (torch.uint8, torch.bool, torch.int8, torch.int16, torch.int32, torch.uint16)
        ),
    ],
    ids=str,
)
def test_labels_of_every_integer_type(labels):
    verdicts = run(labels=labels)
    assert [(v.label, type(v.label), v.status) for v in verdicts] == [(0, int, "verified"), (1, int, "verified")]


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": INPUTS.numpy()},
        {"inputs": INPUTS.numpy()[::-1], "labels": [1, 0], "indices": np.array([1, 0])},
        {"inputs": INPUTS.tolist()},
        {"inputs": list(INPUTS)},
        {"eps": torch.tensor(0.05)},
        {"eps": np.float64(0.05)},
        {"eps": [0.05, 0.05]},
        {"eps": np.full(2, 0.05)},
        {"clip": [0, 1]},
        {"batch_size": np.int64(1)},
        {"relaxations": ["ibp"]},
    ],
    ids=str,
)
def test_arrays_and_lists_are_taken(change: dict):
    found = sorted(run(**change), key=lambda v: v.index)
    expected = run()
    assert [v.margin for v in found] == pytest.approx([v.margin for v in expected], abs=1e-6)
    assert [v.status for v in found] == ["verified", "verified"]


def test_every_image_may_have_its_own_radius(tmp_path):
    path = tmp_path / "ledger.jsonl"
    small, large = run(eps=[0.05, 0.15], ledger=path)
    assert (small.status, small.margin) == ("verified", pytest.approx(0.7))
    assert (large.status, large.margin) == ("falsified", pytest.approx(-0.1))
    assert [json.loads(line)["eps"] for line in path.read_text().splitlines()] == [0.05, 0.15]
    assert run(eps=np.array([0.05, 0.15]), ledger=path) == [small, large]
    with pytest.raises(ConfigError, match=r"image 1 is about eps 0\.15, here it is 0\.01"):
        run(eps=[0.05, 0.01], ledger=path)


def test_no_images_have_no_verdicts(tmp_path):
    assert run(inputs=INPUTS[:0], labels=[], ledger=tmp_path / "ledger.jsonl") == []
    meta = json.loads((tmp_path / "ledger.meta.json").read_text())
    assert meta["eps"] == 0.05


WRONG = [
    ({"labels": torch.tensor([0.0, 1.0])}, "labels must be integers, got torch.float32"),
    ({"labels": [0, 2.7]}, "labels must be integers, got torch.float64"),
    ({"labels": torch.tensor([0, 1j])}, "labels must be integers"),
    ({"labels": torch.tensor([[0], [1]])}, r"labels must be one integer per image, got shape \(2, 1\)"),
    ({"labels": 0}, "labels must be one integer per image"),
    ({"labels": None}, "labels must be a tensor, an array or a list of numbers, got NoneType"),
    ({"labels": "01"}, "labels must be a tensor, an array or a list of numbers, got str"),
    ({"labels": [[0], [0, 1]]}, "labels must be .* ragged"),
    ({"labels": [0, 2**70]}, "labels must be"),
    ({"labels": np.array([0, 2**64 - 1], np.uint64)}, r"labels must lie in 0\.\.1"),
    ({"labels": [0, 2]}, r"labels must lie in 0\.\.1, got 0\.\.2"),
    ({"labels": [-1, 0]}, r"labels must lie in 0\.\.1, got -1\.\.0"),
    ({"labels": [0]}, "2 inputs, 1 labels and 2 indices; one of each"),
    ({"inputs": None}, "inputs must be a tensor, an array or a list of numbers, got NoneType"),
    ({"inputs": (INPUTS * 255).byte()}, "inputs must be floating-point images, got torch.uint8"),
    ({"inputs": INPUTS[0]}, r"inputs must be a batch of images, \[images, \*shape\], got shape \(2,\)"),
    ({"inputs": points((0.9, float("nan")), (0.4, 0.6))}, "inputs must be finite"),
    ({"inputs": points((0.9, float("inf")), (0.4, 0.6)), "clip": None}, "inputs must be finite"),
    ({"inputs": points((2.0, 0.1), (0.4, 0.6))}, "normalisation belongs into the network"),
    ({"eps": -0.1}, "eps must be a finite number >= 0"),
    ({"eps": float("nan")}, "eps must be"),
    ({"eps": float("inf")}, "eps must be"),
    ({"eps": "0.1"}, "eps must be"),
    ({"eps": None}, "eps must be"),
    ({"eps": True}, "eps must be"),
    ({"eps": [0.1, -0.1]}, "eps must be"),
    ({"eps": torch.full((2, 2), 0.1)}, "eps must be"),
    ({"eps": [0.1, 0.1, 0.1]}, "eps must be one number, or one per image, got 3 for 2 images"),
    ({"indices": [1, 1]}, "indices must be different"),
    ({"indices": [1]}, "2 inputs, 2 labels and 1 indices"),
    ({"indices": [0.5, 1]}, "indices must be whole numbers"),
    ({"indices": [-1, 0]}, "indices must be whole numbers >= 0, got -1"),
    ({"indices": 5}, "indices must be whole numbers"),
    ({"relaxations": ("ibp", "ibp")}, "two verifiers are named 'ibp'"),
    ({"relaxations": ("tightest",)}, "unknown relaxation 'tightest'"),
    ({"relaxations": "depoly"}, "unknown relaxation 'depoly' .*; did you mean deeppoly"),
    ({"relaxations": ()}, "at least one verifier"),
    ({"relaxations": None}, "relaxations must be a list of names"),
    ({"relaxations": [build("ibp")]}, r"a pair \(name, relaxation\), got IBP"),
    ({"relaxations": [("attack", build("ibp"))]}, "cannot be named 'attack'"),
    ({"relaxations": [("my: own", build("ibp"))]}, "cannot be named 'my: own'"),
    ({"clip": (1, 0)}, r"clip must be a pair \(low, high\)"),
    ({"clip": 5}, "clip must be a pair"),
    ({"clip": (0, float("nan"))}, "clip must be a pair"),
    ({"clip": (0, 1, 2)}, "clip must be a pair"),
    ({"attack": None}, "attack must be"),
    ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
    ({"batch_size": 2.5}, "batch_size must be"),
    ({"memory_mb": "much"}, "memory_mb must be"),
    ({"timeout_s": 0.0}, "timeout_s must be a positive number"),
    ({"timeout_s": float("inf")}, "timeout_s must be"),
    ({"timeout_s": "a"}, "timeout_s must be"),
    ({"ledger": 5}, "ledger must be the path of a file"),
    ({"ledger": "."}, "ledger must be the path of a file, . is a folder"),
    ({"progress": 5}, "progress must be a function"),
    ({"model": nn.Linear(2, 1)}, "two classes"),
    ({"model": 5}, "model must be a torch.nn.Module, got int"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_arguments_that_cannot_be_meant_are_refused(change: dict, message: str):
    with pytest.raises(ConfigError, match=message) as refusal:
        run(**change)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("options", [{"steps": 2.5}, {"restarts": True}, {"seed": None}, {"step_size": "a"}])
def test_an_attack_that_could_not_start_is_refused(options: dict):
    with pytest.raises(ConfigError, match="attack"):
        Attack(**options)

"""Labels of every integer type give the same specification; what is no class is refused in one line."""

import numpy as np
import pytest
import torch

import certtrain
from certtrain.errors import ConfigError

INTEGERS = ("uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64")


@pytest.mark.parametrize("dtype", INTEGERS)
def test_every_integer_type(dtype: str) -> None:
    expected = [[[-1, 1, 0], [0, 1, -1]], [[-1, 0, 1], [0, -1, 1]]]
    for labels in (torch.tensor([1, 2]).to(getattr(torch, dtype)), np.array([1, 2], dtype)):
        assert certtrain.margin_spec(labels, 3).tolist() == expected
    assert certtrain.margin_spec([1, 2], 3).tolist() == expected


def test_labels_are_no_masks() -> None:
    for ones in (torch.ones(2, dtype=torch.uint8), torch.ones(2, dtype=torch.bool), np.ones(2, bool), [True, True]):
        assert certtrain.margin_spec(ones, 2).tolist() == [[[-1, 1]], [[-1, 1]]]


def test_no_labels_have_no_rows() -> None:
    assert certtrain.margin_spec([], 3).shape == (0, 2, 3)


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (torch.tensor([2.7]), 3, "labels must be integers, got torch.float32"),
        (np.array([2.0]), 3, "labels must be integers, got torch.float64"),
        (torch.tensor([3], dtype=torch.uint8), 3, r"labels must lie in 0\.\.2, got 3\.\.3"),
        (torch.tensor([-1], dtype=torch.int8), 3, r"labels must lie in 0\.\.2, got -1\.\.-1"),
        (torch.tensor(1), 3, "labels must be one integer per image"),
        (torch.zeros(2, 2, dtype=torch.int64), 3, "labels must be one integer per image"),
        (None, 3, "labels must be a tensor, an array or a list of numbers"),
        ("12", 3, "labels must be a tensor, an array or a list of numbers"),
        (np.array(["a"]), 3, "labels must be a tensor, .* got an array of <U1"),
        ([0], 1, "num_classes must be at least 2, got 1"),
        ([0], 2.5, "num_classes must be an integer, got 2.5"),
    ],
)
def test_all_else_is_refused_in_one_line(labels: object, classes: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refusal:
        certtrain.margin_spec(labels, classes)
    assert "\n" not in str(refusal.value)

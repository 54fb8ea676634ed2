"""What data are, whatever their order and wherever they lie."""

from dataclasses import replace

import pytest
import torch

from certtrain.data.digits import DigitsSource
from certtrain.data.fingerprint import describe_data, fingerprint, ordered_fingerprint
from certtrain.data.source import ArrayPair, Splits

PAIR = ArrayPair(torch.arange(48, dtype=torch.uint8).reshape(3, 1, 4, 4), torch.tensor([0, 1, 1]))
SOURCE = DigitsSource("some", (1, 4, 4), 2, (0.5,), (0.5,))


def test_the_order_does_not_count() -> None:
    order = torch.tensor([2, 0, 1])
    assert fingerprint(ArrayPair(PAIR.inputs[order], PAIR.labels[order])) == fingerprint(PAIR)
    assert fingerprint(ArrayPair(PAIR.inputs.transpose(2, 3), PAIR.labels)) != fingerprint(PAIR)


@pytest.mark.parametrize(
    "other",
    [
        ArrayPair(PAIR.inputs, torch.tensor([0, 1, 0])),
        ArrayPair(PAIR.inputs[order := torch.tensor([1, 0, 2])], PAIR.labels),
        ArrayPair(PAIR.inputs.clone().index_fill_(0, order[:1], 7), PAIR.labels),
        ArrayPair(PAIR.inputs.reshape(3, 1, 2, 8), PAIR.labels),
        ArrayPair(PAIR.inputs[:2], PAIR.labels[:2]),
        ArrayPair(PAIR.inputs[[0, 1, 2, 2]], PAIR.labels[[0, 1, 2, 2]]),
        ArrayPair(PAIR.inputs.float(), PAIR.labels),
    ],
)
def test_everything_else_does(other: ArrayPair) -> None:
    assert fingerprint(other) != fingerprint(PAIR)
    assert ordered_fingerprint(other) != ordered_fingerprint(PAIR)


def test_where_it_counts_so_does_the_order() -> None:
    order = torch.tensor([2, 0, 1])
    assert ordered_fingerprint(ArrayPair(PAIR.inputs[order], PAIR.labels[order])) != ordered_fingerprint(PAIR)
    copy = ArrayPair(PAIR.inputs.repeat(1, 1, 1, 2)[..., :4], PAIR.labels.clone())  # not contiguous
    assert ordered_fingerprint(copy) == ordered_fingerprint(PAIR)


def test_data_are_described_by_what_they_are() -> None:
    splits = Splits(PAIR, ArrayPair(PAIR.inputs.flip(0), PAIR.labels))
    found = describe_data(SOURCE, splits, [0, 1])
    assert {**found, "content": "", "judged": ""} == {
        **{"name": "some", "num_classes": 2, "train_images": 3, "test_images": 3, "content": "", "judged": ""},
    }
    assert describe_data(replace(SOURCE, path="elsewhere", mean=(0.1,)), splits, [1, 0]) == found
    subset = describe_data(SOURCE, splits, [0])
    assert (subset["content"], subset["judged"]) == (found["content"], subset["judged"])
    assert subset["judged"] != found["judged"]
    assert describe_data(SOURCE, splits, [])["judged"] is None
    for different in (Splits(splits.test, splits.train), Splits(PAIR, PAIR)):
        assert describe_data(SOURCE, different, [0, 1])["content"] != found["content"]
    assert describe_data(replace(SOURCE, num_classes=3), splits, [0, 1])["content"] != found["content"]

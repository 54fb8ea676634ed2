"""scikit-learn's digits: 1,797 real scans of 8x8 pixels that need no download."""

from dataclasses import dataclass

import torch
from torch import Tensor

from certtrain.data.source import ArrayPair, Source, Splits
from certtrain.data.splits import stratified_split
from certtrain.errors import DataError

_TEST_SIZE = 360
# scikit-learn ships no split. This one is part of the data set and therefore no option.
_SPLIT_SEED = 0
# A scan counts the dark pixels of 4x4 blocks, so it runs from 0 to 16.
_LARGEST_PIXEL = 16


@dataclass(frozen=True)
class DigitsSource(Source):
    """The digits, 1,437 for training and 360 for test, always the same ones.

    Attributes:
        path: must be None; it exists so that every data set has the same keys.
    """

    path: str | None = None

    def check(self) -> None:
        """Verifies that no folder is set: see `Source.check`."""
        if self.path is not None:
            raise DataError(
                f"data={self.name} comes with scikit-learn and reads no folder: unset data.path ({self.path})"
            )

    def read(self) -> Splits:
        """Reads the scans as float32 in [0, 1]: see `Source.load`."""
        from sklearn.datasets import load_digits  # here, because importing scikit-learn takes a second

        self.check()
        pixels, digits = load_digits(return_X_y=True)
        inputs = torch.from_numpy(pixels).to(torch.float32).div_(_LARGEST_PIXEL).reshape(-1, 1, 8, 8)
        labels = torch.from_numpy(digits).to(torch.int64)

        def part(rows: Tensor) -> ArrayPair:
            return ArrayPair(inputs[rows], labels[rows])

        train, test = stratified_split(labels, _TEST_SIZE, _SPLIT_SEED)
        return Splits(part(train), part(test))

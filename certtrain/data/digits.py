"""scikit-learn's digits: 1,797 real scans of 8x8 pixels that need no download."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
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


def _scans() -> tuple[np.ndarray, np.ndarray]:
    """Pixels [scans, 64] and digits [scans], as `load_digits(return_X_y=True)` has them.

    The file is read as scikit-learn does it, without importing scikit-learn, which takes more than a second.
    """
    home = find_spec("sklearn")
    for folder in (home.submodule_search_locations or ()) if home is not None else ():
        file = Path(folder, "datasets", "data", "digits.csv.gz")
        if file.is_file():
            rows = np.loadtxt(file, delimiter=",")
            return rows[:, :-1], rows[:, -1].astype(int)
    from sklearn.datasets import load_digits  # another version keeps it elsewhere

    found: tuple[np.ndarray, np.ndarray] = load_digits(return_X_y=True)
    return found


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
        self.check()
        pixels, digits = _scans()
        inputs = torch.from_numpy(pixels).to(torch.float32).div_(_LARGEST_PIXEL).reshape(-1, 1, 8, 8)
        labels = torch.from_numpy(digits).to(torch.int64)

        def part(rows: Tensor) -> ArrayPair:
            return ArrayPair(inputs[rows], labels[rows])

        train, test = stratified_split(labels, _TEST_SIZE, _SPLIT_SEED)
        return Splits(part(train), part(test))

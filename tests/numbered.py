"""Images in memory that tell where they come from, and their batches."""

from dataclasses import dataclass

import torch

from certtrain.data.augment import Augmentation
from certtrain.data.module import ImageData
from certtrain.data.source import ArrayPair, Source, Splits


@dataclass(frozen=True)
class Numbered(Source):
    """Images in memory whose first two pixels tell split and row."""

    train: int = 100
    test: int = 7

    def check(self):
        pass

    def read(self):
        return Splits(self._part(0, self.train), self._part(1, self.test))

    def _part(self, split, size):
        generator = torch.Generator().manual_seed(split)
        inputs = torch.randint(1, 256, (size, *self.shape), dtype=torch.uint8, generator=generator)
        inputs[:, :, 0, 0], inputs[:, :, 0, 1] = split, torch.arange(size)[:, None]
        return ArrayPair(inputs, torch.arange(size) % self.num_classes)


def numbered(**changes):
    """A source of a hundred images and seven, with other declarations."""
    declared = {
        "name": "numbered",
        "shape": (3, 4, 4),
        "num_classes": 5,
        "mean": (0.5,) * 3,
        "std": (0.25,) * 3,
    }
    return Numbered(**(declared | changes))


def image_data(source=None, **changes):
    """Batches of it, set up."""
    options = {
        "batch_size": 8,
        "test_batch_size": 3,
        "validation": 0.1,
        "split_seed": 0,
        "max_duplicates": 0.0,
        "augment": Augmentation(),
        "seed": 0,
    }
    data = ImageData(source or numbered(), **(options | changes))
    data.setup()
    return data


def collect(data, epoch, start=0):
    loader = data.train_dataloader()
    loader.sampler.resume(epoch, start)
    return list(loader)


def equal(first, second):
    return all(
        torch.equal(a, b) for left, right in zip(first, second, strict=True) for a, b in zip(left, right, strict=True)
    )

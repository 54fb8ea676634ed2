"""Whole batches out of tensors in memory: one indexing operation each, no collation of single images."""

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.utils.data import Dataset

from certtrain.data.augment import Augmentation
from certtrain.data.sampler import BatchRows
from certtrain.data.source import ArrayPair

TrainingBatch = tuple[Float[Tensor, "batch channels height width"], Int[Tensor, " batch"]]
EvaluationBatch = tuple[Float[Tensor, "batch channels height width"], Int[Tensor, " batch"], Int[Tensor, " batch"]]


def as_float(images: Shaped[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Pixels as float32 in [0, 1]: uint8 is divided by 255, float32 is returned as it is."""
    return images.to(torch.float32).div_(255) if images.dtype == torch.uint8 else images


class TrainingBatches(Dataset[TrainingBatch]):
    """Batches for training, augmented."""

    def __init__(self, pair: ArrayPair, augment: Augmentation, seed: int) -> None:
        """Takes the images, how they are varied, and the seed of the variation."""
        self.pair = pair
        self.augment = augment
        self.seed = seed

    def __len__(self) -> int:
        """The number of images."""
        return len(self.pair)

    def __getitem__(self, rows: BatchRows) -> TrainingBatch:
        """Returns inputs [batch, channels, height, width], float32 in [0, 1], and labels [batch], int64."""
        index = torch.tensor(rows)
        # Augmented before the conversion: moving bytes is four times cheaper than moving floats.
        images = self.augment(_take(self.pair.inputs, index), self.seed, rows.epoch, rows.number)
        return as_float(images), self.pair.labels[index]


class EvaluationBatches(Dataset[EvaluationBatch]):
    """Batches for validation and test: images as they are, and which ones they are."""

    def __init__(self, pair: ArrayPair) -> None:
        """Takes the images."""
        self.pair = pair

    def __len__(self) -> int:
        """The number of images."""
        return len(self.pair)

    def __getitem__(self, rows: list[int]) -> EvaluationBatch:
        """Returns inputs and labels as `TrainingBatches` does, and their rows [batch], int64."""
        index = torch.tensor(rows)
        return as_float(_take(self.pair.inputs, index)), self.pair.labels[index], index


def _take(images: Tensor, index: Tensor) -> Tensor:
    # It copies whole images; images[index] moves single bytes and took 18 times longer.
    return images.index_select(0, index)

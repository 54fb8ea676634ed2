"""The one LightningDataModule: any source, a fixed validation split, reproducible batches."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from certtrain.data.augment import Augmentation
from certtrain.data.batches import EvaluationBatch, EvaluationBatches, TrainingBatch, TrainingBatches, as_float
from certtrain.data.description import describe
from certtrain.data.fingerprint import ordered_fingerprint
from certtrain.data.sampler import SequentialBatches, ShuffledBatches
from certtrain.data.source import Source, Splits
from certtrain.data.splits import stratified_split
from certtrain.errors import ConfigError, DataError

Batch = TypeVar("Batch")
# In a checkpoint: which images these are, see `ordered_fingerprint`.
_IMAGES = "training_images"


@dataclass(frozen=True)
class EarlyBatches:
    """Another batch size in the first epochs. A Trainer has to reload the training loader when they are over.

    Attributes:
        epochs: how many epochs.
        batch_size: training images per batch in them.
    """

    epochs: int
    batch_size: int


class ImageData(pl.LightningDataModule):
    """Training, validation and test batches of one data set.

    Training batches are (inputs, labels), shuffled and augmented as a pure function of (seed, epoch, batch),
    the same on every rank. Validation and test batches are (inputs, labels, rows), in order, complete and
    never augmented; `rows` are positions in the source's training split (validation) or test split (test).

    The sampler of the training loader is a `ShuffledBatches`. A distributed Trainer needs
    `use_distributed_sampler=False`, or Lightning replaces the samplers.

    Attributes:
        splits: the data in memory, after `setup`.
        train_rows: [train images], which rows of the training split are trained on, after `setup`.
        validation_rows: [validation images], which rows of the training split are held out, after `setup`.
    """

    splits: Splits
    train_rows: torch.Tensor
    validation_rows: torch.Tensor

    def __init__(
        self,
        source: Source,
        batch_size: int,
        test_batch_size: int,
        validation: float,
        split_seed: int,
        max_duplicates: float,
        augment: Augmentation,
        seed: int,
        early: EarlyBatches | None = None,
        loaded: Splits | None = None,
    ) -> None:
        """Reads nothing yet.

        Args:
            source: where the images come from.
            batch_size: training images per batch.
            test_batch_size: validation or test images per batch.
            validation: the fraction of the training images that is held out, at least 0 and below 1.
            split_seed: decides which images are held out, independently of `seed`.
            max_duplicates: the fraction of the test images that may be training images as well, from 0 to 1.
            augment: how training images are varied.
            seed: decides the order of the training images and their variations.
            early: another batch size for the first epochs, if they have one.
            loaded: what the source has loaded already, if it has.

        Raises:
            ConfigError: a value is out of range.
        """
        super().__init__()
        for key, value, least in (
            ("data.batch_size", batch_size, 1),
            ("data.test_batch_size", test_batch_size, 1),
            ("seed", seed, 0),
        ):
            if value < least:
                raise ConfigError(f"{key} must be at least {least}, not {value}")
        if not 0 <= split_seed < 2**32:
            raise ConfigError(f"data.split_seed must be at least 0 and below 2**32, not {split_seed}")
        if not 0 <= validation < 1:
            raise ConfigError(f"data.validation must be a fraction, at least 0 and below 1, not {validation}")
        if not 0 <= max_duplicates <= 1:
            raise ConfigError(f"data.max_duplicates must be a fraction from 0 to 1, not {max_duplicates}")
        self.source = source
        self.batch_size = batch_size
        self.test_batch_size = test_batch_size
        self.validation = validation
        self.split_seed = split_seed
        self.max_duplicates = max_duplicates
        self.augment = augment
        self.seed = seed
        self.early = early
        self._loaded = loaded

    def setup(self, stage: str | None = None) -> None:
        """Loads the data and splits them, the first time it is called; the stage makes no difference.

        Raises:
            DataError: the data cannot be read or are not as declared, or too many test images are training images.
            ConfigError: `validation` leaves no image to train on, or holds out none although it is not 0.
        """
        if hasattr(self, "splits"):
            return
        # Lightning advises worker processes for loading; here a batch is one copy out of memory.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        splits = self.source.load() if self._loaded is None else self._loaded
        size = round(self.validation * len(splits.train))
        if size == len(splits.train) or (size == 0 and self.validation > 0):
            wrong = "none is left to train on" if size else "data.validation=0 asks for that"
            raise ConfigError(
                f"data.validation={self.validation} of {len(splits.train)} training images holds out {size}: {wrong}"
            )
        self._check_duplicates(splits)
        self.train_rows, self.validation_rows = stratified_split(splits.train.labels, size, self.split_seed)
        self.splits = splits

    def _check_duplicates(self, splits: Splits) -> None:
        share = splits.duplicates / len(splits.test)
        if share > self.max_duplicates:
            raise DataError(
                f"data={self.source.name}: {splits.duplicates:,} of {len(splits.test):,} test images "
                f"({100 * share:.3g} %) are also training images, bit by bit: mend the splits, or allow it with "
                f"data.max_duplicates (now {self.max_duplicates:g}, a fraction)"
            )

    def state_dict(self) -> dict[str, Any]:
        """See Lightning's hook: what a checkpoint says of the training split."""
        return {_IMAGES: self._training_images}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See Lightning's hook; nothing is compared with a checkpoint of before images were noted.

        Raises:
            DataError: the checkpoint's images, labels or their order were others.
        """
        noted = state_dict.get(_IMAGES)
        if noted is not None and noted != self._training_images:
            raise DataError(
                f"data={self.source.name}: the training images, or their order, are not those of the checkpoint "
                f"({self._training_images} instead of {noted}): set data.path to the data that the run began with"
            )

    @cached_property
    def _training_images(self) -> str:
        return ordered_fingerprint(self.splits.train)

    def describe(self) -> list[str]:
        """Images of each class in each split, and what else people should know, one line each; after `setup`."""
        return describe(self.splits, self.source.num_classes, self.train_rows, self.validation_rows)

    @property
    def smallest_batch_size(self) -> int:
        """Images of the smallest training batch, as far as it is known before `setup`: full batches only are drawn."""
        early = self.early
        return self.batch_size if early is None or early.epochs == 0 else min(self.batch_size, early.batch_size)

    def batches_in(self, epoch: int) -> int:
        """Training batches of an epoch, after `setup`."""
        return len(self._sampler(epoch))

    def _sampler(self, epoch: int) -> ShuffledBatches:
        early = self.early
        size = early.batch_size if early is not None and epoch < early.epochs else self.batch_size
        # Full batches weigh and cost the same in every step, and every epoch leaves out other images. Fewer
        # images than one batch are a batch all the same.
        return ShuffledBatches(self.train_rows, size, self.seed, drop_last=len(self.train_rows) >= size)

    def training_images(self) -> Iterator[torch.Tensor]:
        """The images that are trained on, as they are and in order: full batches [batch, channels, height, width].

        Float32 in [0, 1]. Fewer images than one batch are a batch all the same.
        """
        full = self.train_rows.split(self.batch_size)
        for rows in full[:-1] if len(full) > 1 and len(full[-1]) < self.batch_size else full:
            yield as_float(self.splits.train.inputs[rows])

    def train_dataloader(self) -> DataLoader[TrainingBatch]:
        """Batches of inputs [batch, channels, height, width], float32 in [0, 1], and labels [batch]."""
        epoch = 0 if self.trainer is None else self.trainer.current_epoch
        return _loader(TrainingBatches(self.splits.train, self.augment, self.seed), self._sampler(epoch))

    def val_dataloader(self) -> DataLoader[EvaluationBatch] | list[DataLoader[EvaluationBatch]]:
        """Batches as in `train_dataloader`, and their rows [batch]; an empty list if no image is held out."""
        if len(self.validation_rows) == 0:
            return []
        sampler = SequentialBatches(self.validation_rows, self.test_batch_size)
        return _loader(EvaluationBatches(self.splits.train), sampler)

    def test_dataloader(self) -> DataLoader[EvaluationBatch]:
        """Batches of all test images: as in `val_dataloader`."""
        sampler = SequentialBatches(torch.arange(len(self.splits.test)), self.test_batch_size)
        return _loader(EvaluationBatches(self.splits.test), sampler)


def _loader(dataset: Dataset[Batch], sampler: Sampler[list[int]]) -> DataLoader[Batch]:
    # batch_size=None: what the sampler yields is handed to the dataset as it is, and its answer is the batch.
    # Its own generator: every pass takes a seed for workers from it, and how many passes there were before a batch is
    # not the same in a resumed run.
    return DataLoader(
        dataset, batch_size=None, sampler=sampler, collate_fn=_as_it_is, generator=torch.Generator().manual_seed(0)
    )


def _as_it_is(batch: Batch) -> Batch:
    return batch

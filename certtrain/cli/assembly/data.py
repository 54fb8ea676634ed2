"""Images and their batches."""

from __future__ import annotations

from certtrain.cli.assembly import handover
from certtrain.cli.assembly.parts import part
from certtrain.cli.configuration.schema import RunConfig
from certtrain.data.augment import Augmentation
from certtrain.data.module import EarlyBatches, ImageData
from certtrain.data.source import Source


def make_source(config: RunConfig) -> Source:
    """Where the images come from; nothing is read."""
    return part(config.data.source, "data.source", Source)


def make_data(config: RunConfig) -> ImageData:
    """Batches; nothing is read before `setup`, nor then if preflight has read it."""
    data, source = config.data, make_source(config)
    augment = Augmentation(data.augment.crop, data.augment.flip)
    generation = None if config.pgpe is None else config.pgpe.batch_per_generation
    return ImageData(
        source,
        data.batch_size if generation is None else generation,
        data.test_batch_size,
        data.validation,
        data.split_seed,
        data.max_duplicates,
        augment,
        config.seed,
        EarlyBatches(config.warm_start.epochs, data.batch_size),
        handover.kept(source),
    )

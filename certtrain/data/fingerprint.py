"""What data are, whatever they are called and wherever they lie: so that results on the same images can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import torch

from certtrain.data.source import ArrayPair, Source, Splits

_DIGITS = 16


def fingerprint(pair: ArrayPair) -> str:
    """16 hexadecimal digits that tell images and their labels from others.

    The order of the images does not count: copies of a data set as Parquet files and as a folder of images are the
    same data.
    """
    inputs, labels = pair.inputs.contiguous().numpy(), pair.labels.numpy()
    rows = sorted(
        sha256(pixels.data).digest() + int(label).to_bytes(8, "big")
        for pixels, label in zip(inputs, labels, strict=True)
    )
    # Without shape and type, the same bytes laid out in another way would count as the same image.
    return sha256(f"{inputs.shape[1:]} {inputs.dtype}".encode() + b"".join(rows)).hexdigest()[:_DIGITS]


def ordered_fingerprint(pair: ArrayPair) -> str:
    """16 hexadecimal digits that tell images and their labels from others, and from the same in another order.

    Which images make a batch is drawn by their positions, so a run goes on only where these are the same.
    """
    digest = sha256(f"{pair.inputs.shape} {pair.inputs.dtype}".encode())
    digest.update(pair.inputs.contiguous().numpy().data)
    digest.update(pair.labels.contiguous().numpy().data)
    return digest.hexdigest()[:_DIGITS]


def describe_data(source: Source, splits: Splits, judged: Sequence[int]) -> dict[str, Any]:
    """What summary.json says about the data of a run.

    Args:
        source: Where they came from.
        splits: What came.
        judged: Which rows of the test split were certified.

    Returns:
        name: What messages call the data.
        num_classes: Of the labels.
        train_images: Their number.
        test_images: Their number, whether they were certified or not.
        content: Digest of classes, training images and test images, the same for every copy of the same data.
        judged: Digest of the test images that were certified; None if none were.
    """
    rows = torch.tensor(judged, dtype=torch.int64)
    parts = f"{source.num_classes} {fingerprint(splits.train)} {fingerprint(splits.test)}"
    return {
        "name": source.name,
        "num_classes": source.num_classes,
        "train_images": len(splits.train),
        "test_images": len(splits.test),
        "content": sha256(parts.encode()).hexdigest()[:_DIGITS],
        "judged": fingerprint(ArrayPair(splits.test.inputs[rows], splits.test.labels[rows])) if len(rows) else None,
    }

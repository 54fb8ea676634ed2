"""What was read, for people: images of each class in each split, and whatever else they should know."""

from collections import Counter
from collections.abc import Sequence

from jaxtyping import Int
from torch import Tensor

from certtrain.data.source import Splits

# More classes than this are told as their smallest and largest: ten with their counts are more than a line.
_COUNTED = 5
# Classes without images that are named.
_NAMED = 20


def describe(
    splits: Splits, num_classes: int, train_rows: Int[Tensor, " train"], validation_rows: Int[Tensor, " validation"]
) -> list[str]:
    """Images per class and split, test images that are training images, and other notes, one line each.

    Args:
        splits: the data.
        num_classes: labels are from 0 to num_classes - 1.
        train_rows: the training images that are trained on.
        validation_rows: those that are held out.
    """
    names = splits.classes or [str(label) for label in range(num_classes)]
    labels = {
        "training": splits.train.labels[train_rows],
        "validation": splits.train.labels[validation_rows],
        "test": splits.test.labels,
    }
    counts = {split: found.bincount(minlength=num_classes).tolist() for split, found in labels.items()}
    lines = [f"{split}: {sum(of):,} images, {_per_class(of, names)}" for split, of in counts.items() if sum(of)]
    for split in ("training", "test"):
        if missing := [name for name, count in zip(names, counts[split], strict=True) if count == 0]:
            classes = f"{len(missing)} class{'es' if len(missing) > 1 else ''}"
            lines.append(f"no {split} images of {classes}: {', '.join(missing[:_NAMED])}")
    lines.append(f"{splits.duplicates:,} of {len(splits.test):,} test images are also training images, bit by bit")
    return [*lines, *splits.notes]


def _per_class(counts: Sequence[int], names: Sequence[str]) -> str:
    if len(set(counts)) == 1:
        return f"{counts[0]:,} of each of {len(counts)} classes"
    if len(counts) <= _COUNTED:
        return "by class " + ", ".join(f"{name}: {count:,}" for name, count in zip(names, counts, strict=True))
    [(usual, often)] = Counter(counts).most_common(1)
    rows = sorted(zip(counts, names, strict=True))
    (least, fewest), (most, largest) = rows[0], rows[-1]
    return f"{least:,} ({fewest}) to {most:,} ({largest}) of {len(counts)} classes, {usual:,} in {often} of them"

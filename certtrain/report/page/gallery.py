"""Test images with their verdicts: the image, its counterexample, and what the two differ by, magnified."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certtrain.certify import Verdict, read_counterexample
from certtrain.certify.case import image_digest
from certtrain.errors import DataError
from certtrain.files import replacing

if TYPE_CHECKING:
    import numpy as np

# A test image by its number, [channels, height, width] in pixel units.
Images = Callable[[int], Any]
# Beside a ledger: the images that its gallery shows, so that pages can be made where the data are not.
STORED = "gallery.npz"
SHOWN = 12


@dataclass(frozen=True)
class Picture:
    """An image of the gallery.

    Attributes:
        verdict: What was found.
        original: PNG as a data URI; None where the image is not at hand.
        counterexample: Likewise; None where there is none.
        difference: Likewise: grey is no difference.
        factor: By which it is magnified.
        margin: The largest proved lower bound, in words, and by whom; "" for none.
    """

    verdict: Verdict
    original: str | None
    counterexample: str | None
    difference: str | None
    factor: float
    margin: str


def chosen(verdicts: Sequence[Verdict], count: int = SHOWN) -> list[Verdict]:
    """The images that tell most, in three thirds as far as there are so many.

    Falsified ones that came nearest to being proved, undecided ones likewise, and proved ones with the least margin.
    """

    def nearest(found: Sequence[Verdict]) -> list[Verdict]:
        return sorted(found, key=lambda verdict: (-_margin(verdict), verdict.index))

    falsified = nearest([v for v in verdicts if v.status == "falsified"])
    proved = nearest([v for v in verdicts if v.status == "verified"])[::-1]
    undecided = nearest([v for v in verdicts if v.status not in ("falsified", "verified", "misclassified")])
    piles = [falsified, undecided, proved]
    taken = [0, 0, 0]
    while sum(taken) < count and any(n < len(pile) for n, pile in zip(taken, piles, strict=True)):
        for place, pile in enumerate(piles):
            if taken[place] < len(pile) and sum(taken) < count:
                taken[place] += 1
    return [verdict for n, pile in zip(taken, piles, strict=True) for verdict in pile[:n]]


def gallery(ledger: Path, verdicts: Sequence[Verdict], images: Images | None, count: int = SHOWN) -> list[Picture]:
    """The pictures of a ledger.

    Args:
        ledger: Where it is; the images shown are kept beside it, if they can be.
        verdicts: What stands in it.
        images: Where images are found; None: only those that are kept beside the ledger.
        count: How many pictures at most.
    """
    selected = chosen(verdicts, count)
    known = dict(_stored(ledger.with_name(STORED)))
    found = {v.index: image for v in selected if (image := _image(v, known, images)) is not None}
    if images is not None and found and found.keys() - known.keys():
        _store(ledger.with_name(STORED), found)
    return [_picture(ledger, verdict, found.get(verdict.index)) for verdict in selected]


def keep_images(ledger: Path, verdicts: Sequence[Verdict], images: Images) -> None:
    """Keeps the images of a ledger's gallery beside it: later pages need no data.

    Args:
        ledger: Where it is.
        verdicts: What stands in it.
        images: Where images are found.
    """
    import numpy as np

    _store(ledger.with_name(STORED), {v.index: np.asarray(images(v.index)) for v in chosen(verdicts)})


def _image(verdict: Verdict, known: Mapping[int, np.ndarray], images: Images | None) -> np.ndarray | None:
    """The image that a verdict is about, and no other one."""
    import numpy as np
    import torch

    kept = known.get(verdict.index)
    candidates = [] if kept is None else [kept]
    if images is not None and not candidates:
        try:
            candidates.append(np.asarray(images(verdict.index)))
        except (LookupError, ValueError):
            return None
    for image in candidates:
        if verdict.image is None or image_digest(torch.from_numpy(image)) == verdict.image:
            return image
    return None


def _picture(ledger: Path, verdict: Verdict, image: np.ndarray | None) -> Picture:
    import numpy as np

    point = None
    try:
        kept = read_counterexample(ledger, verdict)
        point = None if kept is None else kept.numpy()
    except DataError:  # the verdict stands without its picture
        point = None
    difference, factor = None, 1.0
    if point is not None and image is not None and point.shape == image.shape:
        change = point - image
        largest = float(np.abs(change).max()) or 1.0
        factor = 0.5 / largest
        difference = png(0.5 + factor * change)
    return Picture(
        verdict,
        None if image is None else png(image),
        None if point is None else png(point),
        difference,
        2 * factor,
        _proved(verdict),
    )


def png(image: Any) -> str:
    """An image [channels, height, width] in [0, 1], of one or three channels, as the data URI of a PNG.

    Other numbers of channels are shown by their mean; vectors as a row.
    """
    import numpy as np
    from PIL import Image

    pixels = np.asarray(image, dtype=np.float64)
    pixels = pixels.reshape((1,) * (3 - pixels.ndim) + pixels.shape) if pixels.ndim < 3 else pixels
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3):
        pixels = pixels.reshape(-1, *pixels.shape[-2:]).mean(0, keepdims=True)
    whole = np.clip(np.rint(255 * np.nan_to_num(pixels)), 0, 255).astype(np.uint8)
    shown = Image.fromarray(whole[0]) if len(whole) == 1 else Image.fromarray(whole.transpose(1, 2, 0))
    file = io.BytesIO()
    shown.save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _margin(verdict: Verdict) -> float:
    known = [margin for margin in verdict.margins.values() if margin is not None]
    return max(known, default=float("-inf"))


def _proved(verdict: Verdict) -> str:
    known = {name: margin for name, margin in verdict.margins.items() if margin is not None}
    if not known:
        return ""
    name = max(known, key=lambda one: known[one])
    return f"{known[name]:+.3g} by {name}"


def _stored(path: Path) -> list[tuple[int, np.ndarray]]:
    import numpy as np

    if not path.is_file():
        return []
    try:
        with np.load(path, allow_pickle=False) as found:
            return [(int(name), found[name]) for name in found.files]
    except (OSError, ValueError, EOFError, KeyError):  # a page goes without
        return []


def _store(path: Path, images: Mapping[int, np.ndarray]) -> None:
    import numpy as np

    try:
        with replacing(path) as partial, partial.open("wb") as file:
            arrays: dict[str, Any] = {str(index): image for index, image in images.items()}
            np.savez_compressed(file, **arrays)
    except OSError:  # the record of somebody else, perhaps: it may be read-only
        return

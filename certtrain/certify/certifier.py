"""Certification of a network on images: one verdict per image, from prediction, attack and verifiers."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from certtrain.bounds import Relaxation
from certtrain.certify.attack import Attack
from certtrain.certify.batching import split
from certtrain.certify.case import Case, image_digest
from certtrain.certify.ledger import Ledger
from certtrain.certify.network import Network
from certtrain.certify.pipeline import Pipeline
from certtrain.certify.summary import count_statuses
from certtrain.certify.verdict import Verdict
from certtrain.certify.verifiers import Verifier, resolve
from certtrain.errors import ConfigError
from certtrain.memory import MEGABYTE
from certtrain.networks import evaluating

RELAXATIONS = ("ibp", "hbox", "zonotope", "crown_ibp", "deeppoly")

Progress = Callable[[int, int, Mapping[str, int]], None]


def certify(
    model: nn.Module,
    inputs: Float[Tensor, "images *shape"],
    labels: Int[Tensor, " images"],
    eps: float,
    *,
    relaxations: str | Sequence[str | tuple[str, Relaxation] | Verifier] = RELAXATIONS,
    clip: tuple[float, float] | None = (0.0, 1.0),
    attack: Attack = Attack(),  # noqa: B008  (frozen)
    batch_size: int = 100,
    memory_mb: int = 2048,
    timeout_s: float | None = None,
    indices: Sequence[int] | None = None,
    ledger: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> list[Verdict]:
    """Decides for every image whether all inputs within eps of it are classified like its label.

    Every correctly classified image goes through the attack and through every verifier, so that the results
    of each verifier and of their union are known. Only the image's own evidence counts: a margin that is
    positive in float64 and in float32, or a counterexample that is misclassified in both. Rounding within
    float64 is not accounted for.

    Args:
        model: Any supported network; in eval mode for the duration.
        inputs: Images in the range of `clip`.
        labels: Their classes.
        eps: Radius of the L-infinity ball, in the unit of the inputs.
        relaxations: The verifiers, cheapest first: names, or (name, relaxation) pairs.
        clip: Range of legal pixels; None if there is none.
        attack: How counterexamples are searched.
        batch_size: Images taken at a time, at most; fewer where the memory of verifiers demands it.
        memory_mb: Memory, in MiB, that a verifier's batch may take by estimate (one image is always tried if
            it fits into what is free).
        timeout_s: Seconds per image; None for no limit. No verifier is started on an image whose time is used
            up.
        indices: Numbers of the images in their data set; None: 0, 1, 2, ...
        ledger: File to which verdicts are appended as they are made; images that are in it already are not
            done again.
        progress: Called with the number of finished images, of all images, and of images per status.

    Returns:
        One verdict per image in the order of the inputs, those from the ledger included.

    Raises:
        SoundnessError: If a verifier's bounds are wrong: at eps 0, or by certifying an image with a
            counterexample.
        UnsupportedOperation: If the network, or one of the verifiers on it, has no bound rule for an
            operation.
        ConfigError: If arguments do not fit together, or the ledger belongs to other settings or images.
    """
    numbers = list(range(len(inputs))) if indices is None else [int(i) for i in indices]
    _check_arguments(inputs, labels, numbers, eps, clip, batch_size, memory_mb, timeout_s)
    verifiers = resolve(relaxations)
    # Autograd, which the attack needs, does not work inside the inference mode that a caller may be in.
    with torch.inference_mode(False), torch.no_grad(), evaluating(model):
        network = Network.of(model, inputs.shape[1:])
        _check_labels(labels, network.graph.num_outputs)
        pipeline = Pipeline(network, verifiers, attack, eps, clip, batch_size, memory_mb * MEGABYTE, timeout_s)
        book = None if ledger is None else Ledger(ledger, pipeline.settings())
        done = {} if book is None else {i: book.verdicts[i] for i in numbers if i in book.verdicts}
        _check_same_data(done, numbers, inputs, labels)
        report = _reporter(progress, done, len(numbers))
        report()
        left = [k for k, i in enumerate(numbers) if i not in done]
        for positions in split(left, pipeline.images_at_once()):
            verdicts = pipeline.run([_case(inputs[k], labels[k], numbers[k], network.device) for k in positions])
            if book is not None:
                book.append(verdicts)
            done.update((verdict.index, verdict) for verdict in verdicts)
            report()
    return [done[i] for i in numbers]


def _case(image: Tensor, label: Tensor, index: int, device: torch.device) -> Case:
    return Case(index, int(label), image.detach().clone().to(device=device, dtype=torch.float64))


def _reporter(progress: Progress | None, done: Mapping[int, Verdict], total: int) -> Callable[[], None]:
    """Tells `progress` how far things are, if it is there."""

    def report() -> None:
        if progress is not None:
            progress(len(done), total, count_statuses(done.values()))

    return report


def _check_arguments(
    inputs: Tensor,
    labels: Tensor,
    indices: Sequence[int],
    eps: float,
    clip: tuple[float, float] | None,
    batch_size: int,
    memory_mb: int,
    timeout_s: float | None,
) -> None:
    if not inputs.is_floating_point():
        raise ConfigError(f"inputs must be floating-point images, got {inputs.dtype}")
    if not len(inputs) == len(labels) == len(indices):
        raise ConfigError(f"{len(inputs)} inputs, {len(labels)} labels and {len(indices)} indices; one of each")
    if len(set(indices)) != len(indices):
        raise ConfigError("indices must be different: a verdict belongs to one image")
    if not 0 <= eps < math.inf:
        raise ConfigError(f"eps must be a finite number >= 0, got {eps}")
    if batch_size < 1 or memory_mb < 1:
        raise ConfigError(f"batch_size and memory_mb must be at least 1, got {batch_size} and {memory_mb}")
    if timeout_s is not None and not timeout_s > 0:
        raise ConfigError(f"timeout_s must be positive or None, got {timeout_s}")
    # A box cut to a range that its image lies outside would not contain the image.
    if clip is not None and bool(((inputs < clip[0]) | (inputs > clip[1])).any()):
        raise ConfigError(
            f"inputs must lie in clip={clip}, got {inputs.min():.4g} to {inputs.max():.4g}: "
            "normalisation belongs into the network (certtrain.networks.Normalize)"
        )


def _check_labels(labels: Tensor, classes: int) -> None:
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < classes):
        raise ConfigError(f"labels must lie in 0..{classes - 1}, got {int(labels.min())}..{int(labels.max())}")


def _check_same_data(done: Mapping[int, Verdict], indices: Sequence[int], inputs: Tensor, labels: Tensor) -> None:
    """Verdicts from the ledger must be about these very images and labels."""
    for index, image, label in zip(indices, inputs, labels.tolist(), strict=True):
        if index not in done:
            continue
        if done[index].label != label:
            raise ConfigError(
                f"the ledger says that image {index} has label {done[index].label}, the data says {label}: "
                "it belongs to other data"
            )
        digest = image_digest(image)
        if done[index].image != digest:
            raise ConfigError(
                f"the ledger's verdict on image {index} is about another image (digest {done[index].image} there, "
                f"{digest} here): it belongs to other data"
            )

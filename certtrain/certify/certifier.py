"""Certification of a network on images: one verdict per image, from prediction, attack and verifiers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from certtrain.bounds import Relaxation
from certtrain.bounds.labels import class_labels
from certtrain.certify.arguments import Images, check_outputs, read_images, read_options, read_shard
from certtrain.certify.arithmetic import arithmetic_named
from certtrain.certify.attack import Attack, Falsifier
from certtrain.certify.batching import split
from certtrain.certify.cascade import Cascade, choose_cascade
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
    inputs: Tensor | np.ndarray | Sequence[Any],
    labels: Tensor | np.ndarray | Sequence[Any],
    eps: float | Tensor | np.ndarray | Sequence[Any],
    *,
    relaxations: str | Sequence[str | tuple[str, Relaxation] | Verifier] = RELAXATIONS,
    clip: Sequence[float] | None = (0.0, 1.0),
    attack: Falsifier = Attack(),  # noqa: B008  (frozen)
    batch_size: int = 100,
    memory_mb: int = 2048,
    timeout_s: float | None = None,
    cascade: str | Cascade = "all",
    shard: tuple[int, int] | None = None,
    arithmetic: str = "float64",
    indices: Sequence[int] | None = None,
    ledger: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> list[Verdict]:
    """Decides for every image whether all inputs within eps of it are classified like its label.

    With `cascade="all"` every correctly classified image goes through the attack and through every verifier, so that
    the results of each verifier and of their union are known; with `"first"` each of these stages is asked only about
    what those before it left open. Only the image's own evidence counts: a margin that is
    positive in float64 and in float32, or a counterexample that is misclassified in both. Rounding is accounted
    for with `arithmetic="sound"` alone.

    Args:
        model: Any supported network; in eval mode for the duration.
        inputs: Images in the range of `clip`, [images, *shape]: a floating-point tensor or array, or a list.
        labels: Their classes, [images]: a tensor or array of any integer type, or a list.
        eps: Radius of the L-infinity ball, in the unit of the inputs: one for all images, or one for each.
        relaxations: The verifiers, cheapest first: names of relaxations, (name, relaxation) pairs, or `Verifier`s.
        clip: Range of legal pixels; None if there is none.
        attack: How counterexamples are searched: an `Attack` or an `AttackEnsemble`.
        batch_size: Images taken at a time, at most; fewer where the memory of verifiers demands it.
        memory_mb: Memory, in MiB, that a verifier's batch may take by estimate (one image is always tried if
            it fits into what is free).
        timeout_s: Seconds per image; None for no limit. No verifier is started on an image whose time is used
            up, and one that is at work then is stopped. The images of a batch share its time.
        cascade: Which images each stage is asked about: `"all"` or `"first"`.
        shard: (rank, ranks): judges only every `ranks`-th image, from the one at position `rank` on, into a ledger of
            its own beside `ledger` (ledger-0-of-4.jsonl); `read_ledger` merges them. None: all images.
        arithmetic: "float64", or "sound": a positive margin then proves that the network in float32, summed in any
            order, has the right class for every input of float32 in the ball (docs/concepts/verdicts.md).
        indices: Numbers of the images in their data set; None: 0, 1, 2, ...
        ledger: File to which verdicts are appended as they are made, with a counterexample in a file beside it for
            each falsified image; images that are in it already, or in that of a shard, are not done again.
        progress: Called with the number of finished images, of all images, and of images per status.

    Returns:
        One verdict per image in the order of the inputs, those from the ledger included; with `shard`, per image of
        the shard.

    Raises:
        SoundnessError: If a verifier's bounds are wrong: at eps 0, or by certifying an image with a
            counterexample.
        UnsupportedOperation: If the network, or one of the verifiers on it, has no bound rule for an
            operation.
        ConfigError: If arguments do not fit together, or the ledger belongs to other settings or images.
    """
    options = read_options(model, clip, attack, batch_size, memory_mb, timeout_s)
    images = read_images(inputs, labels, eps, indices, options.clip)
    part = read_shard(shard)
    order = choose_cascade(cascade)
    verifiers = resolve(relaxations, arithmetic_named(arithmetic))
    check_outputs(ledger, progress)
    # Autograd, which the attack needs, does not work inside the inference mode that a caller may be in.
    with torch.inference_mode(False), torch.no_grad(), evaluating(model):
        network = Network.of(model, images.inputs.shape[1:])
        classes: list[int] = class_labels(images.labels, network.graph.num_outputs).tolist()
        pipeline = Pipeline(
            network,
            verifiers,
            options.attack,
            options.clip,
            options.batch_size,
            options.memory_mb * MEGABYTE,
            options.timeout_s,
            order,
        )
        settings = {"eps": images.common_eps, **pipeline.settings()}
        book = None if ledger is None else Ledger(ledger, settings, part)
        made = _Made(part.of(images.indices), book, order.name, progress)
        _check_same_data(made.verdicts, images, classes)
        made.report()
        left = [k for k in part.of(range(len(images.indices))) if images.indices[k] not in made.verdicts]
        for positions in split(left, pipeline.images_at_once()):
            pipeline.run([_case(images, classes, k, network.device) for k in positions], made.add)
    return [made.verdicts[i] for i in made.numbers]


class _Made:
    """Verdicts as they are made, those among them that the ledger had already.

    Args:
        numbers: Of all images.
        ledger: Keeps them; None keeps nothing.
        cascade: Its name.
        progress: Is told how far things are; None for nobody.
    """

    def __init__(self, numbers: Sequence[int], ledger: Ledger | None, cascade: str, progress: Progress | None) -> None:
        self.numbers = numbers
        self._ledger, self._cascade, self._progress = ledger, cascade, progress
        known = {} if ledger is None else ledger.verdicts
        self.verdicts = {i: known[i] for i in numbers if i in known}

    def add(self, cases: list[Case]) -> None:
        """Takes images of which everything is known."""
        verdicts = [case.verdict(self._cascade) for case in cases]
        if self._ledger is not None:
            points = {c.index: c.counterexample for c in cases if c.falsified_by}
            verdicts = self._ledger.append(verdicts, points)
        self.verdicts.update((verdict.index, verdict) for verdict in verdicts)
        self.report()

    def report(self) -> None:
        """Tells how far things are."""
        if self._progress is not None:
            self._progress(len(self.verdicts), len(self.numbers), count_statuses(self.verdicts.values()))


def _case(images: Images, labels: Sequence[int], position: int, device: torch.device) -> Case:
    image = images.inputs[position].detach().clone().to(device=device, dtype=torch.float64)
    return Case(images.indices[position], labels[position], image, images.eps[position])


def _check_same_data(done: Mapping[int, Verdict], images: Images, labels: Sequence[int]) -> None:
    """Verdicts from the ledger must be about these very images, labels and radii."""
    for index, image, label, eps in zip(images.indices, images.inputs, labels, images.eps, strict=True):
        if index not in done:
            continue
        if done[index].label != label:
            raise ConfigError(
                f"the ledger says that image {index} has label {done[index].label}, the data says {label}: "
                "it belongs to other data"
            )
        if done[index].eps not in (eps, None):
            raise ConfigError(f"the ledger's verdict on image {index} is about eps {done[index].eps}, here it is {eps}")
        digest = image_digest(image)
        if done[index].image != digest:
            raise ConfigError(
                f"the ledger's verdict on image {index} is about another image (digest {done[index].image} there, "
                f"{digest} here): it belongs to other data"
            )

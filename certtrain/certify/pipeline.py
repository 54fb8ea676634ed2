"""The stages that every image goes through: prediction, attack, verifiers in order."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from certtrain.bounds import Box
from certtrain.certify.attack import Falsifier
from certtrain.certify.batching import run_batches
from certtrain.certify.cascade import Cascade, Tray
from certtrain.certify.case import Case
from certtrain.certify.counterexamples import confirm
from certtrain.certify.network import Network
from certtrain.certify.verdict import ATTACK, PREDICTION, Failure
from certtrain.certify.verifiers import Proved, Verifier
from certtrain.errors import CerttrainError
from certtrain.memory import MEGABYTE, available_bytes

SELF_CHECK_IMAGES = 2


@dataclass
class Pipeline:
    """The settings of one certification, and what it has learnt of its verifiers.

    Attributes:
        network: What is certified.
        verifiers: In the order in which they are asked.
        attack: How counterexamples are searched.
        clip: Range of legal pixels; None if there is none.
        largest_batch: Images per batch of prediction and attack, and at most of a verifier.
        budget: Bytes that a verifier's batch may take by estimate.
        timeout_s: Seconds per image; None for no limit.
        cascade: Which images each stage is asked about.
        sizes: Verifier -> images per batch.
        checked: Verifiers that have passed the self-check.
    """

    network: Network
    verifiers: tuple[Verifier, ...]
    attack: Falsifier
    clip: tuple[float, float] | None
    largest_batch: int
    budget: int
    timeout_s: float | None
    cascade: Cascade
    sizes: dict[str, int] = field(default_factory=dict)
    checked: set[str] = field(default_factory=set)

    def settings(self) -> dict[str, Any]:
        """Everything that a verdict depends on but its image, as JSON values.

        Index, label, eps and a digest of the image stand in each verdict itself, and `certify` compares them. The
        machine, the batch size and the memory budget are left out: apart from rounding they decide only what
        runs out of memory or time.
        """
        return {
            "clip": None if self.clip is None else list(self.clip),
            "verifiers": [verifier.describe() for verifier in self.verifiers],
            "attack": self.attack.settings(),
            "timeout_s": self.timeout_s,
            "network": self.network.fingerprint(),
            "cascade": self.cascade.name,
        }

    def images_at_once(self) -> int:
        """How many images to take through all stages together."""
        smallest = min((self._size(verifier) for verifier in self.verifiers), default=self.largest_batch)
        return self.cascade.images_at_once(self.largest_batch, smallest)

    def run(self, cases: Sequence[Case], hand_over: Callable[[list[Case]], None]) -> None:
        """Leads images through the stages.

        Args:
            cases: The images, all different.
            hand_over: Takes images of which everything is known, some at a time: each once, and all before this
                returns.

        Raises:
            SoundnessError: If a verifier's bounds are wrong.
            CerttrainError: If a verifier refuses the network.
        """
        tray = Tray(cases, self.cascade, hand_over)
        run_batches(PREDICTION, cases, self.largest_batch, self._predict, partial(_fail, PREDICTION))
        probes = [case for case in cases if case.predicted is not None][:SELF_CHECK_IMAGES]
        for verifier in self.verifiers:
            self._self_check(verifier, probes)
        tray.clear()
        run_batches(ATTACK, tray.asked, self.largest_batch, self._attack, partial(_fail, ATTACK), after=tray.clear)
        for number in range(len(self.verifiers)):
            self._verify(number, tray)
        tray.close()

    def _predict(self, cases: list[Case]) -> None:
        logits = self.network.logits(_images(cases).to(torch.float32))
        for case, outputs in zip(cases, logits, strict=True):
            if outputs.isfinite().all():
                case.predicted = int(outputs.argmax())
            else:
                _fail(PREDICTION, case, Failure("error", "non-finite outputs"))

    def _attack(self, cases: list[Case]) -> None:
        indices = [case.index for case in cases]
        points, found = self.attack.find(self.network, self._box(cases), self._labels(cases), indices)
        for case, point, hit in zip(cases, points, found.tolist(), strict=True):
            if hit:
                case.falsify(ATTACK, point.clone())

    def _self_check(self, verifier: Verifier, cases: Sequence[Case]) -> None:
        """Checks a verifier that has not passed yet.

        Errors that a user can act on end the certification here, before any verdict. A verifier that fails in
        another way is checked again with the next images; until it passes, its results do not count.
        """
        if verifier.name in self.checked or self._too_large(verifier) is not None:
            return

        def check(batch: list[Case]) -> None:
            verifier.check(self.network, _images(batch))
            self.checked.add(verifier.name)

        # Copies: the time that this takes is nobody's.
        probes = [Case(case.index, case.label, case.image) for case in cases]
        run_batches(verifier.name, probes, self._size(verifier), check, lambda case, failure: None, (CerttrainError,))

    def _verify(self, number: int, tray: Tray) -> None:
        """Has a verifier bound the margins of all images that it is asked about and that have time left."""
        verifier, limit = self.verifiers[number], self._limit
        cases, fail = self._in_time(number, tray), partial(_fail_verifier, verifier.name)
        if (reason := self._too_large(verifier)) is not None:
            for case in cases:
                fail(case, Failure("oom", reason))
            return

        # Before any attempt: one that fails, and is repeated on fewer images, takes nothing away from these.
        left = {case.index: limit - case.seconds for case in cases}

        def prove(batch: list[Case]) -> None:
            # A batch's time is shared equally by its images, so together they have what is left of all of them.
            deadline = time.perf_counter() + sum(left[case.index] for case in batch)
            box, labels = self._box(batch), self._labels(batch)
            proved = verifier.smallest_margins(self.network, box, labels, deadline)
            if verifier.name not in self.checked:
                raise RuntimeError("it could not be checked at eps 0, so its results do not count")
            stopped = Failure("timeout", f"stopped, {limit:g} s for each image of its batch were used up")
            shown, refused = confirm(self.network, box, labels, proved.counterexamples)
            _take_down(batch, verifier.name, proved, shown, refused, stopped)

        last, size = verifier is self.verifiers[-1], self._size(verifier)
        after = partial(tray.clear, lambda case: last and _has_judged(verifier.name, case))
        self.sizes[verifier.name] = run_batches(verifier.name, cases, size, prove, fail, after=after)

    @property
    def _limit(self) -> float:
        return math.inf if self.timeout_s is None else self.timeout_s

    def _in_time(self, number: int, tray: Tray) -> list[Case]:
        """What a verifier is asked about; where no time is left, neither it nor a later one is."""
        late = [case for case in tray.asked if case.seconds >= self._limit]
        for case in late:
            for verifier in self.verifiers[number:]:
                reason = f"not started, the image's {self._limit:g} s were used up"
                _fail(verifier.name, case, Failure("timeout", reason))
        in_time = [case for case in tray.asked if case.seconds < self._limit]
        tray.clear(lambda case: case.seconds >= self._limit)
        return in_time

    def _size(self, verifier: Verifier) -> int:
        if verifier.name not in self.sizes:
            size = verifier.images_at_once(self.network.graph, self.budget, self.largest_batch)
            self.sizes[verifier.name] = size
        return self.sizes[verifier.name]

    def _too_large(self, verifier: Verifier) -> str | None:
        """Why a verifier must not even be tried on one image, if so."""
        need = verifier.bytes_per_image(self.network.graph)
        if need <= self.budget:
            return None
        free = available_bytes(self.network.device)
        if free is None or need <= free:
            return None
        return f"needs about {need // MEGABYTE} MiB for one image, {free // MEGABYTE} MiB are free"

    def _box(self, cases: list[Case]) -> Box:
        images = _images(cases)
        eps = torch.tensor([case.eps for case in cases], dtype=images.dtype, device=images.device)
        return Box.linf(images, eps.view(-1, *[1] * (images.dim() - 1)).expand_as(images), self.clip)

    def _labels(self, cases: list[Case]) -> Tensor:
        return torch.tensor([case.label for case in cases], device=self.network.device)


def _images(cases: list[Case]) -> Tensor:
    return torch.stack([case.image for case in cases])


def _fail(stage: str, case: Case, failure: Failure) -> None:
    case.failures[stage] = failure


def _fail_verifier(name: str, case: Case, failure: Failure) -> None:
    case.failures[name] = failure
    case.margins[name] = None


def _take_down(
    batch: list[Case],
    name: str,
    proved: Proved,
    confirmed: Mapping[int, Tensor],
    refused: Mapping[int, str],
    stopped: Failure,
) -> None:
    """Takes down in its cases what a verifier found out about a batch."""
    margins = proved.margins.tolist()
    if not len(batch) == len(margins) == len(proved.finished):
        raise ValueError(f"{len(margins)} margins of {len(batch)} images")
    for i, (case, margin, finished) in enumerate(zip(batch, margins, proved.finished.tolist(), strict=True)):
        if i in refused:
            case.remarks[name] = refused[i]
        if i in confirmed:
            case.falsify(name, confirmed[i])
            # Beside a counterexample, a bound that was not worked out is no failure.
            if not (finished and math.isfinite(margin)):
                continue
        if finished:
            case.add_margin(name, margin)
        else:
            _fail_verifier(name, case, stopped)


def _has_judged(name: str, case: Case) -> bool:
    return name in case.margins or case.falsified_by == name

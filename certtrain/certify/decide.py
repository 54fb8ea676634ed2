"""Whether a network violates a property: a counterexample, or a proof that there is none."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from certtrain.attacks import PGD
from certtrain.bounds import Bounds, Box, Sides
from certtrain.bounds.relaxation.deeppoly import DeepPoly
from certtrain.certify.arguments import read_timeout
from certtrain.certify.arithmetic import NOTHING, Arithmetic, arithmetic_named
from certtrain.certify.falsify import Counterexample, Evaluation, Falsification, regions_at_once
from certtrain.certify.network import Network
from certtrain.certify.properties import Property, Region
from certtrain.certify.questions import Question
from certtrain.certify.search.whole import BranchAndBound
from certtrain.certify.soundness import check_points
from certtrain.deadline import OutOfTime, until
from certtrain.errors import ConfigError
from certtrain.networks import OnnxNetwork, evaluating
from certtrain.precision import full_float32

# Of the time, that the attack takes at most.
ATTACK_SHARE = 0.25
# The words of VNN-COMP. sat: there is a counterexample. unsat: it is proved that there is none.
Answer = Literal["sat", "unsat", "unknown", "timeout"]


@dataclass(frozen=True)
class Decision:
    """What was found out about a property.

    Attributes:
        status: "sat", the property is violated; "unsat", it is proved that it is not; "timeout" where time was over
            before, "unknown" where there was nothing left to try, or memory was.
        counterexample: (x, y), confirmed, where it is violated; else None.
        seconds: That it took.
        bound: How far from unsafe all outputs are proved to be: a lower bound, in every region and for every
            conjunction `C y <= d`, of the largest element of C y - d, or of a mean of them. Positive exactly with
            "unsat", infinity where nothing is unsafe, minus infinity where nothing is known yet. What is not positive
            is the best that was found, by float32 of what a search left open: it says how close, and proves nothing.
    """

    status: Answer
    counterexample: Counterexample | None
    seconds: float
    bound: float


def decide(
    model: nn.Module,
    property: Property,
    timeout_s: int | float | None = None,
    *,
    attack: PGD = PGD(),  # noqa: B008  (frozen)
    search: BranchAndBound = BranchAndBound(),  # noqa: B008  (frozen)
    runtime: Evaluation | None = None,
    arithmetic: str = "float64",
) -> Decision:
    """Looks for a counterexample of a property, or proves that there is none.

    Contradictions are left out; then all regions are attacked, all are bounded, and those that are open are searched
    one after the other, the closest to a proof first. A counterexample counts if it lies in a region's box and its
    outputs are unsafe in float64 and in the network's own float32. Proofs are computed in float64; rounding is
    accounted for with `arithmetic="sound"` alone. They are complete, up to time, memory and rounding, for networks of
    ReLUs, and for all where few inputs have a width.

    Args:
        model: Any supported network, on the CPU; in eval mode for the duration.
        property: The question; its inputs have the network's shape, or for one from an ONNX file, its size.
        timeout_s: Seconds, soon after which the answer is "timeout"; None for no limit.
        attack: How counterexamples are searched first.
        search: How proofs are.
        runtime: Another evaluation of the network, one input to its outputs, that must also call a counterexample
            unsafe: for an ONNX file `certtrain.networks.onnx.Runtime.read(path, model)`, which asks onnxruntime.
        arithmetic: "float64", or "sound": "unsat" is then proved of the network in float32, summed in any order, for
            every input of float32 (docs/concepts/verdicts.md).

    Raises:
        ConfigError: If network and property do not fit, a region has inputs beyond those of float32, or a weight is
            NaN, infinite, or, with "sound", no number of float32.
        UnsupportedOperation: If the network has an operation without a bound rule.
        SoundnessError: If bounds are not what the network does.
    """
    began = time.perf_counter()
    deadline = began + (read_timeout(timeout_s) or math.inf)
    judged_in = arithmetic_named(arithmetic, "arithmetic")
    _check(model, property)
    _check_ends(property)
    possible = _shaped(model, property).without_contradictions()
    if not possible.regions:
        return Decision("unsat", None, time.perf_counter() - began, math.inf)
    with _computing(model):
        assert possible.input_shape is not None
        network = Network.traced(model, possible.input_shape)
        outputs = network.graph.num_outputs
        if possible.num_outputs != outputs:
            raise ConfigError(f"the property is about {possible.num_outputs} outputs, the network has {outputs}")
        judged_in.check_network(network)
        question = Question.of(possible, outputs)
        check_points("deeppoly", _Bounded(network), network, question.box[:1].center)
        falsification = Falsification(network, possible, question, attack, runtime)
        status, point, bound = _Course(network, question, falsification, search, judged_in, deadline).run()
    return Decision(status, point, time.perf_counter() - began, bound)


class _Course:
    """Attack, bounds, search: what each leaves open goes to the next."""

    def __init__(
        self,
        network: Network,
        question: Question,
        falsification: Falsification,
        search: BranchAndBound,
        arithmetic: Arithmetic,
        deadline: float,
    ) -> None:
        self._network, self._question, self._falsification = network, question, falsification
        self._search, self._arithmetic, self._deadline = search, arithmetic, deadline
        self._proved = torch.full((len(question.goals),), -math.inf, dtype=torch.float64)

    def run(self) -> tuple[Answer, Counterexample | None, float]:
        """Status, counterexample and bound."""
        if (point := self._attack()) is not None:
            return "sat", point, self._bound
        try:
            self._bound_all()
        except OutOfTime:
            return "timeout", None, self._bound
        return self._search_open()

    def _attack(self) -> Counterexample | None:
        """For a share of the time, so that proofs have the rest."""
        now = time.perf_counter()
        try:
            return self._falsification.search(now + ATTACK_SHARE * (self._deadline - now))
        except OutOfTime:
            return None

    @property
    def _bound(self) -> float:
        return float(self._proved.min())

    def _raise_to(self, goals: Tensor, lower: Tensor) -> None:
        lower = lower.nan_to_num(-math.inf, -math.inf, -math.inf)
        self._proved[goals] = torch.maximum(self._proved[goals], lower.where(lower > NOTHING / 2, -math.inf))

    def _bound_all(self) -> None:
        """DeepPoly's bounds of all regions: hundreds of them are one batch.

        Raises:
            OutOfTime: If the deadline passes.
        """
        question = self._question
        with until(self._deadline):
            for batch in torch.arange(len(question)).split(regions_at_once(self._network, question)):
                table = question.table[batch]
                goals = question.some(table.flatten())
                spec = goals.forms.reshape(len(batch), -1, goals.forms.shape[2])
                lower = self._arithmetic.lower(DeepPoly(), self._network, question.box[batch], spec)
                lower = lower.reshape(goals.constants.shape)
                self._raise_to(table.flatten(), (lower + goals.constants).amax(1))

    def _search_open(self) -> tuple[Answer, Counterexample | None, float]:
        question, ends = self._question, set()
        open_goals = ~(self._proved > 0)
        regions = question.owner[open_goals].unique()
        worst = self._proved[question.table].amin(1)[regions]
        for region in regions[worst.argsort(descending=True)].tolist():
            goals = (open_goals & (question.owner == region)).nonzero().flatten()
            found = self._search.decide(
                self._network.graph,
                self._network.values,
                question.box[region : region + 1],
                question.some(goals),
                self._deadline,
                self._arithmetic,
            )
            self._raise_to(goals, torch.tensor(found.lower, dtype=torch.float64))
            if found.counterexample is not None:
                point = self._falsification.confirmed(found.counterexample.double())
                if point is not None:
                    return "sat", point, self._bound
            ends.add(found.ending)
        if ends <= {"closed"}:
            return "unsat", None, self._bound
        return "timeout" if "time" in ends else "unknown", None, self._bound


@dataclass(frozen=True)
class _Bounded:
    """DeepPoly's bounds of a network."""

    network: Network

    def __call__(self, box: Box, spec: Tensor | None, sides: Sides) -> Bounds:
        return DeepPoly().bound(self.network.graph, self.network.values[box.lower.dtype], box, spec, sides)


@contextmanager
def _computing(model: nn.Module) -> Iterator[None]:
    """Without derivatives, in full precision, in eval mode; the attack differentiates by itself."""
    cpu = torch.device("cpu")
    # Autograd does not work inside the inference mode that a caller may be in.
    with torch.inference_mode(False), torch.no_grad(), evaluating(model), full_float32(cpu):
        yield


def _check(model: Any, property: Any) -> None:
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(property, Property):
        raise ConfigError(f"property must be a certtrain.Property, got {type(property).__name__}")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.device.type != "cpu":
            raise ConfigError(f"decide computes on the CPU: move the network there ('{name}' is on {tensor.device})")
        if tensor.is_floating_point() and not bool(tensor.detach().float().isfinite().all()):
            raise ConfigError(f"'{name}' of the network is not finite (NaN or infinity): nothing can be decided")


def _check_ends(property: Property) -> None:
    """Counterexamples are inputs of float32, and so are those that the search looks at."""
    largest = torch.finfo(torch.float32).max
    for number, region in enumerate(property.regions):
        if bool((torch.maximum(region.box.lower.abs(), region.box.upper.abs()) > largest).any()):
            raise ConfigError(f"region {number} of the property has inputs beyond {largest:.4g}, the last of float32")


def _shaped(model: nn.Module, property: Property) -> Property:
    """With inputs of the network's shape, where the network knows it and only the shape is another."""
    shape = property.input_shape
    if shape is None or not isinstance(model, OnnxNetwork) or shape == model.input_shape:
        return property
    if math.prod(shape) != math.prod(model.input_shape):
        raise ConfigError(f"the property has inputs of shape {shape}, the network of shape {model.input_shape}")

    def reshaped(region: Region) -> Region:
        ends = (end.reshape(1, *model.input_shape) for end in (region.box.lower, region.box.upper))
        return replace(region, box=Box(*ends))

    return Property(tuple(map(reshaped, property.regions)))

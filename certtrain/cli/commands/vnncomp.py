"""`python -m certtrain vnncomp`: one network, one property, one answer, as the competition of verifiers has it."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

from certtrain.certify.decide import Decision, decide
from certtrain.certify.falsify import Counterexample
from certtrain.certify.properties import read_vnnlib
from certtrain.cli.configuration.parser import Parser
from certtrain.errors import ConfigError
from certtrain.files import replacing
from certtrain.networks.onnx import Runtime, from_onnx

# What writing the answer and leaving the interpreter takes: seconds at most, and share of the limit.
RESERVE_S, RESERVE_SHARE = 1.0, 0.05
# The result of what failed: nothing was found out.
FAILED = "unknown"


def vnncomp_command(arguments: list[str]) -> None:
    """Decides a property of an ONNX network and writes the result file.

    Args:
        arguments: What follows `vnncomp` on the command line.

    Raises:
        CerttrainError: If a file cannot be read, or network and property do not fit; the result is "unknown" then.
    """
    parser = Parser(
        prog="python -m certtrain vnncomp",
        description="Decides whether a network can violate a property, as VNN-COMP asks for it. The first line of the "
        "result is sat (there is a counterexample, which follows), unsat (it is proved that there is none), timeout or "
        "unknown. The exit code is 0 after an answer; after an error it is not, and the result is unknown.",
    )
    parser.add_argument("network", help="an ONNX file, also compressed (.onnx.gz)")
    parser.add_argument("property", help="a VNN-LIB file, also compressed (.vnnlib.gz)")
    parser.add_argument("result", type=Path, help="the file to write")
    parser.add_argument("timeout_s", type=float, help="seconds, from the start of the process")
    found = parser.parse_args(arguments)
    if not 0 < found.timeout_s < math.inf:
        raise ConfigError(f"vnncomp: the time limit must be a positive number of seconds, got {found.timeout_s:g}")
    result = Result(found.result)
    try:
        decision = _decided(found.network, found.property, found.timeout_s)
    except BaseException:
        # Not the answer of an earlier call either.
        result.write(FAILED)
        raise
    result.write(text_of(decision))
    print(f"{decision.status} in {seconds_since_start():.2f} s")


@dataclass(frozen=True)
class Result:
    """The result file."""

    path: Path

    def write(self, text: str) -> None:
        """Replaces it."""
        with replacing(self.path) as partial:
            partial.write_text(f"{text}\n", encoding="utf-8")


def text_of(decision: Decision) -> str:
    """The answer, and after sat the counterexample."""
    if decision.counterexample is None:
        return decision.status
    return f"{decision.status}\n{assignment(decision.counterexample)}"


def assignment(point: Counterexample) -> str:
    """((X_0 value) ... (Y_0 value) ...), one variable a line, inputs in the order of the file's flattened input."""
    values = (("X", point.x.flatten().tolist()), ("Y", point.y.flatten().tolist()))
    lines = [f"({name}_{i} {value!r})" for name, column in values for i, value in enumerate(column)]
    return f"({chr(10).join(lines)})"


def seconds_since_start() -> float:
    """Since this process was started, as far as the system tells; else since it began to use the processor."""
    try:
        # Fields behind the name, which may hold anything; the 22nd of all is when it was started, in ticks since boot.
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        ticks = os.sysconf("SC_CLK_TCK")
        return max(0.0, float(Path("/proc/uptime").read_text().split()[0]) - started / ticks)
    except (OSError, ValueError, IndexError):
        return time.process_time()


def _decided(network: str, property: str, timeout_s: float) -> Decision:
    model = from_onnx(network)
    asked, runtime = read_vnnlib(property, model.input_shape), Runtime.read(network, model)
    left = timeout_s - seconds_since_start() - min(RESERVE_S, RESERVE_SHARE * timeout_s)
    if left <= 0:
        return Decision("timeout", None, 0.0, -math.inf)
    return decide(model, asked, left, runtime=runtime)

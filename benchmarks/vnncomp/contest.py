"""Asks questions one by one, as VNN-COMP does, and audits the answers."""

from __future__ import annotations

import csv
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import torch

from benchmarks.vnncomp.sets import Asked
from certtrain.attacks import PGD
from certtrain.certify.falsify import Falsification
from certtrain.certify.network import Network
from certtrain.certify.properties import Property, read_vnnlib, write_vnnlib
from certtrain.certify.questions import Question
from certtrain.errors import CerttrainError, ConfigError
from certtrain.networks import to_onnx
from certtrain.networks.onnx import Runtime, from_onnx

# How thoroughly what was proved is attacked afterwards.
AUDIT = PGD(steps=200, restarts=10)
# Beyond the limit: a process that has not ended by then answers nothing.
GRACE = 10.0
SOLVED = ("sat", "unsat")
STATUSES = (*SOLVED, "timeout", "unknown", "error")


@dataclass(frozen=True)
class Answered:
    """One question and its answer.

    Attributes:
        network: Its name.
        property: Its name.
        limit: Seconds.
        threads: Of the process.
        status: One of `STATUSES`.
        seconds: Of the whole process, its start included.
        wrong: What the audit found against the answer; empty where it found nothing.
    """

    network: str
    property: str
    limit: float
    threads: int
    status: str
    seconds: float
    wrong: str

    @property
    def solved(self) -> bool:
        """Whether it is an answer that counts: right, and in time."""
        return self.status in SOLVED and not self.wrong and self.seconds <= self.limit


@dataclass(frozen=True)
class Contest:
    """A folder with networks, properties and answers, laid out as the competition's.

    Attributes:
        folder: Files that are there are taken as they are, and questions that have an answer are not asked again.
        limit: Seconds for each question.
        threads: Of each process.
        again: Answers that are asked for once more, those of an older version of certtrain, say; errors always are.
    """

    folder: Path
    limit: float
    threads: int
    again: frozenset[str] = frozenset()

    def run(self, asked: Iterable[Asked]) -> Iterator[Answered]:
        """Yields answers, those of earlier calls with the same limit and as many threads among them."""
        known = {(one.network, one.property): one for one in self._earlier() if self._asked_so(one)}
        for network, names in [(one.name, self._written(one)) for one in asked]:
            for name in names:
                found = known.get((network, name))
                if found is None or found.status == "error" or found.status in self.again:
                    found = self._ask(network, name)
                    self._note(found)
                yield found

    def _asked_so(self, one: Answered) -> bool:
        return (one.limit, one.threads) == (self.limit, self.threads)

    def _written(self, one: Asked) -> list[str]:
        """Writes a network and its properties unless they are there; returns the names of these."""
        path, listed = self._onnx(one.name), self.folder / "vnnlib" / f"{one.name}.txt"
        if not listed.is_file():
            for folder in (path.parent, listed.parent):
                folder.mkdir(parents=True, exist_ok=True)
            to_onnx(one.make(), one.shape, path)
            properties = one.properties()
            for name, stated in properties.items():
                write_vnnlib(stated, self._vnnlib(one.name, name))
            listed.write_text("".join(f"{name}\n" for name in properties), encoding="utf-8")
        return listed.read_text(encoding="utf-8").split()

    def _onnx(self, network: str) -> Path:
        return self.folder / "onnx" / f"{network}.onnx"

    def _vnnlib(self, network: str, name: str) -> Path:
        return self.folder / "vnnlib" / f"{network}-{name}.vnnlib"

    def _ask(self, network: str, name: str) -> Answered:
        with tempfile.TemporaryDirectory() as place:
            return self._answered(network, name, Path(place) / "result.txt")

    def _answered(self, network: str, name: str, result: Path) -> Answered:
        files = [str(path) for path in (self._onnx(network), self._vnnlib(network, name), result)]
        command = [sys.executable, "-m", "certtrain", "vnncomp", *files, f"{self.limit:g}"]
        start = time.perf_counter()
        try:
            done = subprocess.run(
                command,
                env={**os.environ, "OMP_NUM_THREADS": str(self.threads)},
                capture_output=True,
                timeout=self.limit + GRACE,
                check=False,
            )
            failed = done.returncode != 0
        except subprocess.TimeoutExpired:
            failed = True
        seconds = time.perf_counter() - start
        text = "" if failed else result.read_text(encoding="utf-8")
        status = text.partition("\n")[0] if text else "error"
        wrong = self._audit(network, name, status, text)
        return Answered(network, name, self.limit, self.threads, status, seconds, wrong)

    def _audit(self, network: str, name: str, status: str, text: str) -> str:
        if status not in SOLVED:
            return ""
        model = from_onnx(self._onnx(network))
        stated = read_vnnlib(self._vnnlib(network, name), model.input_shape)
        runtime = Runtime.read(self._onnx(network), model)
        if status == "sat":
            return "" if runtime is None else check_counterexample(text, stated, runtime)
        traced = Network.traced(model, model.input_shape)
        possible = stated.without_contradictions()
        found = Falsification(traced, possible, Question.of(possible, traced.graph.num_outputs), AUDIT, runtime)
        return "" if found.search() is None else "an attack found a counterexample"

    def _earlier(self) -> Iterator[Answered]:
        if not (self.folder / "results.csv").is_file():
            return
        with (self.folder / "results.csv").open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            if list(rows.fieldnames or []) != (expected := [field.name for field in fields(Answered)]):
                raise ConfigError(f"{file.name} has not the columns {', '.join(expected)}: move it away")
            for row in rows:
                given = row["network"], row["property"], float(row["limit"]), int(row["threads"])
                yield Answered(*given, row["status"], float(row["seconds"]), row["wrong"])

    def _note(self, found: Answered) -> None:
        path = self.folder / "results.csv"
        new = not path.is_file()
        with path.open("a", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            if new:
                rows.writerow(field.name for field in fields(Answered))
            rows.writerow(astuple(found))


def check_counterexample(text: str, stated: Property, runtime: Runtime) -> str:
    """What is wrong with the counterexample of a result file; empty if nothing is.

    Args:
        text: The file's.
        stated: The question.
        runtime: onnxruntime with the network's file.
    """
    numbers = {name: float(value) for name, value in re.findall(r"\((X_\d+) ([^)\s]+)\)", text)}
    shape = stated.input_shape or ()
    values = [numbers.get(f"X_{i}", math.nan) for i in range(math.prod(shape))]
    x = torch.tensor(values, dtype=torch.float64).reshape(shape)
    try:
        y = runtime(x).double()
    except CerttrainError as error:
        return str(error)
    return "" if stated.violated(x, y) else "onnxruntime does not confirm the counterexample"

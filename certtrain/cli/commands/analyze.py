"""`python -m certtrain analyze`: bounds and gradients at the weights of a run, in numbers."""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field
from rich.console import Console

from certtrain.analysis import Budget, continuity, gradients, layers, sensitivity, strategy_for, tightness
from certtrain.attacks import PGD
from certtrain.bounds import Analysing
from certtrain.cli.process.heartbeat import Heartbeat
from certtrain.cli.trained.measured import Measured, Options, read
from certtrain.cli.trained.publish import publish
from certtrain.report.analysis import FOLDER, print_analysis, write_analysis
from certtrain.report.plain import plain

Record = dict[str, Any]


class AnalyzeOptions(Options):
    """See --help."""

    steps: int = Field(40, ge=0, description="of PGD, which tightness is measured against")
    restarts: int = Field(3, ge=1, description="of PGD")
    exact_seconds: float = Field(60.0, ge=0, description="for exact margins of all images together; 0: none")
    segments: int = Field(4, ge=1, description="random ones that are searched for jumps")
    segment_length: float = Field(0.1, gt=0, description="of each, in units of ‖θ‖")
    intervals: int = Field(128, ge=1, description="of a segment at first")
    pairs: int = Field(64, ge=2, description="antithetic pairs behind a sensitivity")
    replicates: int = Field(12, ge=3, description="of every gradient estimate")
    reference_pairs: int = Field(64, ge=1, description="of each replicate of the reference for ∇L_σ")
    guess_samples: int = Field(64, ge=2, multiple_of=2, description="gradients behind its control variate")
    population_size: int = Field(64, ge=2, multiple_of=2, description="of the PGPE estimators that are judged")
    samples: int = Field(8, ge=2, multiple_of=2, description="of the RGS estimators that are judged")

    @property
    def budget(self) -> Budget:
        """Of gradient estimates."""
        return Budget(self.replicates, self.reference_pairs, self.guess_samples, self.population_size, self.samples)


def analyze_command(arguments: list[str]) -> None:
    """Measures, prints, draws and writes.

    Args:
        arguments: What follows `analyze` on the command line.

    Raises:
        CerttrainError: If there is no run with a checkpoint, its data cannot be read, or an option does not fit.
    """
    run, options = read(
        "analyze",
        "Tightness, stable neurons, jumps, sensitivity, and bias and noise of gradient estimators for each relaxation, "
        "at the\nweights of a run's checkpoint: printed, in analysis/ in the run directory, and in its report.",
        AnalyzeOptions,
        arguments,
    )
    console = Console()
    measured = Measured.of(run, options)
    doing = "measuring"
    with Heartbeat(console).during(lambda: doing):
        record = {**measured.facts, "tightness": _tightness(measured, options), "relaxation": {}}
        for name in measured.subject.relaxations:
            doing = f"measuring {name}"
            record["relaxation"][name] = _of_one(measured, options, name)
    print_analysis(console, record)
    publish(console, measured, write_analysis(record, run / FOLDER))


def _tightness(measured: Measured, options: AnalyzeOptions) -> Record:
    attack = PGD(options.steps, options.restarts, enough=-math.inf)
    found = tightness(measured.subject, attack, options.seed, options.exact_seconds)
    gaps = {
        name: {
            "mean_bound": float(bound.mean()),
            "certified": float((bound > 0).double().mean()),
            "gap_to_attack": found.gap_to_attack(name),
            "gap_to_exact": found.gap_to_exact(name),
        }
        for name, bound in found.bounds.items()
    }
    return {**plain(found), "gaps": plain(gaps)}


def _of_one(measured: Measured, options: AnalyzeOptions, name: str) -> Record:
    """What is measured of one relaxation by itself."""
    subject = measured.subject
    loss = subject.loss(name)
    way, params, seed = strategy_for(loss, subject.params), subject.params, options.seed
    jumps = continuity(loss, params, options.segments, options.segment_length, options.intervals, seed, way)
    told = {"rate": jumps.rate, "variation": jumps.variation, "largest": jumps.largest, "count": jumps.count}
    noisy, judged = {}, {}
    for relative in options.sigmas:
        sigma = subject.sigma(relative)
        noisy[str(relative)] = plain(sensitivity(loss, params, sigma, options.pairs, seed, way))
        judged[str(relative)] = plain(gradients(loss, params, sigma, options.budget, seed, way))
    analysing = isinstance(subject.relaxations[name], Analysing)
    return {
        "layers": plain(layers(subject, name)) if analysing else [],
        "continuity": {**plain(jumps), **told},
        "sensitivity": noisy,
        "gradients": judged,
    }

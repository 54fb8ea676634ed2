"""`python -m certtrain landscape`: the certified loss around the weights of a run, as it is and smoothed."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from rich.console import Console
from torch import Tensor

from certtrain.analysis import (
    Plane,
    Values,
    gradient_direction,
    orthogonal,
    random_direction,
    smoothed,
    strategy_for,
    values,
)
from certtrain.cli.process.heartbeat import Heartbeat
from certtrain.cli.trained.measured import Measured, Options, read
from certtrain.cli.trained.publish import publish
from certtrain.errors import ConfigError
from certtrain.networks.graph import Params
from certtrain.report.landscape import write_landscape

Record = dict[str, Any]


class LandscapeOptions(Options):
    """See --help."""

    pairs: int = Field(16, ge=2, description="antithetic pairs of a smoothed point on a line")
    span: float = Field(0.2, gt=0, description="how far random directions go to each side, in units of ‖θ‖")
    gradient_span: float = Field(0.05, gt=0, description="the same along the gradient, where losses rise fastest")
    points: int = Field(41, ge=3, description="on a line")
    plane_points: int = Field(13, ge=3, description="along each side of a plane")
    plane_pairs: int = Field(4, ge=2, description="antithetic pairs of a smoothed point of a plane")
    normalisation: Literal["filter", "layer"] = Field("filter", description="of the random direction")
    gradient_of: str | None = Field(None, description="relaxation whose gradient is followed; null: the run's")


def landscape_command(arguments: list[str]) -> None:
    """Evaluates, draws and writes a run's landscape.

    Args:
        arguments: What follows `landscape` on the command line.

    Raises:
        CerttrainError: If there is no run with a checkpoint, its data cannot be read, or an option does not fit.
    """
    run, options = read(
        "landscape",
        "Certified loss of a run's checkpoint along its gradient and a random direction, and on the plane of both, for "
        "each\nrelaxation, as it is and smoothed by Gaussian weight noise: landscape/ in the run directory, and its "
        "report.",
        LandscapeOptions,
        arguments,
    )
    console = Console()
    measured = Measured.of(run, options)
    with Heartbeat(console).during("evaluating the landscape"):
        record = landscape(measured, options)
    written = write_landscape(record, run / "landscape")
    publish(console, measured, written)


def landscape(measured: Measured, options: LandscapeOptions) -> Record:
    """All numbers of a landscape, as they stand in landscape.json."""
    subject = measured.subject
    own = measured.config.relaxation.name
    followed = options.gradient_of or (own if own in subject.relaxations else next(iter(subject.relaxations)))
    if followed not in subject.relaxations:
        raise ConfigError(f"gradient_of={followed} must be one of relaxations={','.join(subject.relaxations)}")
    gradient = gradient_direction(subject.loss(followed), subject.params, subject.norm)
    random = orthogonal(random_direction(subject.params, options.normalisation, options.seed, 0), gradient)
    names = {f"gradient of {followed}": gradient, f"random ({options.normalisation}-normalised)": random}
    spans = (options.gradient_span, options.span)
    lines = []
    for (name, direction), span in zip(names.items(), spans, strict=True):
        steps = _steps(span, options.points)
        losses = _losses(measured, options, [direction], steps[:, None], options.pairs)
        lines.append({"direction": name, "positions": steps.tolist(), "losses": losses})
    up, across = (_steps(span, options.plane_points) for span in spans)
    grid = torch.cartesian_prod(up, across)
    plane = {
        "directions": list(names),
        "positions": [up.tolist(), across.tolist()],
        "losses": _losses(measured, options, list(names.values()), grid, options.plane_pairs),
    }
    shared = {"normalisation": options.normalisation, "pairs": options.pairs, "plane_pairs": options.plane_pairs}
    return {**measured.facts, **shared, "gradient_of": followed, "lines": lines, "plane": plane}


def _steps(span: float, points: int) -> Tensor:
    return torch.linspace(-span, span, points, dtype=torch.float64)


def _losses(
    measured: Measured, options: LandscapeOptions, directions: list[Params], coordinates: Tensor, pairs: int
) -> Record:
    """Relaxation -> for no smoothing and each σ the means and standard errors at the points, in their order."""
    subject, told = measured.subject, {}
    plane = Plane(subject.params, directions, coordinates)
    for name in subject.relaxations:
        loss = subject.loss(name)
        way = strategy_for(loss, subject.params)
        told[name] = [_listed(0.0, values(loss, plane, way))]
        for relative in options.sigmas:
            found = smoothed(loss, plane, subject.sigma(relative), pairs, options.seed, way)
            told[name].append(_listed(relative, found))
    return told


def _listed(relative: float, found: Values) -> Record:
    return {"sigma": relative, "mean": found.mean.tolist(), "error": found.error.tolist()}

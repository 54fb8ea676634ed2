"""Every gradient estimator that the configuration can make, on a problem whose answers are known."""

import threading
from functools import cache

import torch
from torch import Tensor

from certtrain._paths import config_dir
from certtrain.cli.assemble import make_estimator
from certtrain.cli.compose import Command, compose_jobs
from certtrain.cli.help import choices
from certtrain.cli.schema import parse, plain
from certtrain.gradients import GradientEstimator, Ranks
from certtrain.gradients.ranks import portion
from certtrain.networks.graph import Params

METHODS = {method: [f"method={method}"] for method in choices(config_dir() / "method")}
PARTS = {
    f"{group}={choice}": ["method=pgpe", f"pgpe/{group}={choice}"]
    for group in ("sigma_rule", "noise")
    for choice in choices(config_dir() / "pgpe" / group)
}
OPTIONS = {
    "ranks": ["method=pgpe", "pgpe.fitness=centered_ranks"],
    "normalized": ["method=pgpe", "pgpe.fitness=normalized"],
    "layer_scale": ["method=pgpe", "pgpe.layer_scale={w: 0.5}"],
    "rgs_independent": ["method=rgs", "rgs.sampling=independent"],
    "rgs_vmap": ["method=rgs", "rgs.strategy=vmap"],
}
COMMANDS = METHODS | PARTS | OPTIONS
SHAPED = {"ranks", "normalized"}


@cache
def estimator(name: str, *overrides: str) -> GradientEstimator:
    """As a run makes it: 20 members with sigma 0.05, or 8 samples with sigma 0.01."""
    command = [*COMMANDS[name], *overrides]
    if "method=pgpe" in command:
        command.append("pgpe.population_size=20")
    (job,) = compose_jobs(Command(tuple(command), False, False))
    return make_estimator(parse(plain(job))).decided("vmap").planned(10)


def centre() -> Params:
    return {
        "w": torch.tensor([[1.0, -2.0, 0.5], [0.3, 1.5, -1.0], [2.0, 0.1, -0.4]], dtype=torch.float64),
        "b": torch.tensor([0.3], dtype=torch.float64),
    }


def flat(params: Params) -> Tensor:
    return torch.cat([p.flatten() for p in params.values()])


CURVATURE = torch.tensor([1.0, 2.0, 3.0, 0.5, 4.0, 1.5, 2.5, 0.2, 1.0, 2.0], dtype=torch.float64)


def quadratic(params: Params) -> Tensor:
    x = flat(params)
    return (0.5 * CURVATURE * x.square()).sum() + x.sum()


def gradient_of_quadratic(params: Params) -> Tensor:
    """Of the smoothed quadratic too: smoothing adds a constant."""
    return CURVATURE * flat(params) + 1


class Threads(Ranks):
    """Ranks that are threads of this process, for estimators that divide a population."""

    def __init__(self, rank: int, size: int, meeting: threading.Barrier, table: dict) -> None:
        self._rank, self._size, self._meeting, self._table = rank, size, meeting, table

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def size(self) -> int:
        return self._size

    def share(self, count: int) -> range:
        return portion(count, self._rank, self._size)

    def shard(self, images: int) -> range:
        return range(images)

    def reduce(self, losses: Tensor) -> Tensor:
        return losses

    def _exchange(self, value: object) -> list:
        self._table[self._rank] = value
        self._meeting.wait(timeout=60)
        values = [self._table[rank] for rank in range(self._size)]
        self._meeting.wait(timeout=60)
        return values

    def gather(self, values: Tensor, count: int) -> Tensor:
        found = torch.cat(self._exchange(values), dim=-1)
        assert found.shape[-1] == count
        return found

    def sum(self, gradient: Params) -> Params:
        parts = self._exchange(gradient)
        return {name: torch.stack([part[name] for part in parts]).sum(0) for name in gradient}


def on_threads(size: int, work) -> list:
    """What `work(ranks)` returns on every rank."""
    meeting, table = threading.Barrier(size), {}
    found: list = [None] * size

    def run(rank: int) -> None:
        try:
            found[rank] = work(Threads(rank, size, meeting, table))
        except BaseException as error:
            meeting.abort()
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in found:
        if isinstance(result, BaseException):
            raise result
    return found

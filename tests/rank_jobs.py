"""Functions that run on several ranks: real processes over gloo, forked from a server that has imported everything."""

import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.distributed import TCPStore

PRELOAD = ["certtrain.cli.job.entry", "certtrain.cli.configuration.compose", "rank_jobs"]
TIMEOUT_S = 90


def on_ranks(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What a function of this module returns, or the exception that it raises, on each rank."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    pipes = [context.Pipe(duplex=False) for _ in range(size)]
    processes = [
        context.Process(target=_enter, args=(sender, rank, size, store.port, function, arguments), daemon=True)
        for rank, (_, sender) in enumerate(pipes)
    ]
    for process, (_, sender) in zip(processes, pipes, strict=True):
        process.start()
        sender.close()
    try:
        return [_receive(receiver) for receiver, _ in pipes]
    finally:
        for process in processes:
            process.kill()
            process.join()


def _receive(receiver: Any) -> Any:
    if not receiver.poll(TIMEOUT_S):
        raise TimeoutError("a rank does not end")
    try:
        return pickle.loads(receiver.recv_bytes())
    except EOFError:
        return None  # it was killed


def _enter(sender: Any, rank: int, size: int, port: int, function: Callable[..., Any], arguments: tuple) -> None:
    from certtrain.cli.job import cluster
    from certtrain.cli.job.supervisor import environment_of

    os.environ.update(environment_of(os.environ, rank, size, port))
    torch.set_num_threads(1)
    try:
        if size > 1:
            cluster.join(cluster.detect())
        answer = function(*arguments)
    except Exception as error:
        answer = error
    # Not `send`: torch would pass on handles of tensors, which end with this process.
    sender.send_bytes(pickle.dumps(answer))


def resolved(overrides: tuple[str, ...]) -> dict:
    from certtrain.cli.configuration.compose import Command, compose_jobs
    from certtrain.cli.configuration.schema import plain

    (job,) = compose_jobs(Command(overrides, False, False))
    return plain(job)


def train(directory: Path, overrides: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """A run as each of its ranks has it; returns the weights that this one ends with."""
    from certtrain.cli.job.entry import run_in
    from certtrain.training.module import CertifiedTraining

    weights: dict[str, torch.Tensor] = {}

    def remember(self: CertifiedTraining) -> None:
        weights.update({k: v.clone() for k, v in self.network.state_dict().items()})

    CertifiedTraining.on_fit_end = remember
    directory.mkdir(exist_ok=True)
    run_in(directory, resolved((*overrides, "certify.enabled=false", "trainer.accelerator=cpu")))
    return weights


def train_with_a_rank_that_drifts(directory: Path, overrides: tuple[str, ...]) -> None:
    """Rank 1's weights get a little push after the third step of the second epoch."""
    from certtrain.training.module import CertifiedTraining

    def push(self: CertifiedTraining, *_: Any) -> None:
        if self.ranks.rank == 1 and self.global_step == 23:
            with torch.no_grad():
                next(self.network.parameters()).view(-1)[0] += 1e-6

    CertifiedTraining.on_train_batch_end = push
    train(directory, overrides)


def train_until_told(directory: Path, overrides: tuple[str, ...]) -> object:
    """Rank 1 alone gets a signal after the third step of the second epoch; returns the exit code."""
    from certtrain.training.module import CertifiedTraining

    def tell(self: CertifiedTraining, *_: Any) -> None:
        if self.ranks.rank == 1 and self.global_step == 23:
            os.kill(os.getpid(), signal.SIGTERM)

    CertifiedTraining.on_train_batch_end = tell
    try:
        train(directory, overrides)
    except SystemExit as stop:
        return stop.code
    return None


def train_with_a_rank_that_dies(directory: Path, overrides: tuple[str, ...]) -> None:
    """Rank 1 is gone without a word after the third step."""
    from certtrain.training.module import CertifiedTraining

    def leave(self: CertifiedTraining, *_: Any) -> None:
        if self.ranks.rank == 1 and self.global_step == 3:
            os._exit(9)

    CertifiedTraining.on_train_batch_end = leave
    train(directory, overrides)


def exchange(layout: str, arguments: tuple, items: int) -> dict[str, Any]:
    """What one rank gets when every item's value is its number, every loss is split evenly, every gradient is ones."""
    from certtrain.gradients import Distributed, Layout

    ranks = Distributed(getattr(Layout, layout)(*arguments), timeout_s=30)
    own = ranks.share(items)
    numbers = torch.tensor([float(i) for i in own])
    part = torch.stack([numbers, -numbers]) * len(ranks.shard(100)) / 100
    gathered = ranks.gather(ranks.reduce(part), items)
    gradient = {"w": torch.full((2, 3), float(len(own))), "b": torch.ones(1)}
    total = ranks.sum(gradient)
    return {
        "share": list(own),
        "shard": list(ranks.shard(7)),
        "gathered": gathered,
        "w": total["w"],
        "b": total["b"],
        "traffic": (ranks.traffic.scalars, ranks.traffic.numbers, ranks.traffic.calls),
    }


def mean_gradient(samples: int) -> tuple[float, float]:
    """RGS's gradient and dropped samples, where rank 1 alone meets numbers that are not finite: right of 0.1."""
    from certtrain.gradients import RGS, Distributed, Layout

    ranks = Distributed(Layout.batch(2), 30)

    def loss(p: dict[str, torch.Tensor]) -> torch.Tensor:
        bad = ranks.rank == 1 and float(p["x"].detach()) > 0.1
        return p["x"].sum() * (float("nan") if bad else 0.5)

    params = {"x": torch.zeros(1, dtype=torch.float64)}
    found = RGS(0.1, samples).estimate(loss, params, 0, ranks=ranks)
    return found.gradient["x"].item(), found.statistics["population/dropped_samples"]


def estimate(groups: int | None, population: int) -> tuple[dict[str, torch.Tensor], float]:
    """PGPE's gradient and loss on a batch of numbers whose mean loss the ranks of a group share."""
    import torch.distributed as dist

    from certtrain.gradients import PGPE, Alone, Distributed, Layout

    torch.manual_seed(0)
    batch = torch.randn(11, 4)
    params = {"w": torch.randn(4), "b": torch.randn(3, 2)}
    ranks = Alone()
    if dist.is_initialized():
        size = dist.get_world_size()
        ranks = Distributed(Layout.population(size) if groups is None else Layout.hybrid(size, groups), 30)
    own = ranks.shard(len(batch))
    part, weight = batch[own.start : own.stop], len(own) / len(batch)

    def loss(p: dict[str, torch.Tensor]) -> torch.Tensor:
        return weight * ((part @ p["w"]).tanh().square().mean() + p["b"].square().sum())

    found = PGPE(0.1, population).estimate(loss, params, 3, ranks=ranks)
    return found.gradient, float(found.loss)

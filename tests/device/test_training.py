"""Estimates, steps of training and checkpoints on a device are those on the CPU."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from device_cases import Placed, subject
from estimator_cases import COMMANDS, estimator
from interruptions import StopAt
from rich.console import Console

from certtrain.bounds import build
from certtrain.cli.configuration.compose import Command, compose_jobs
from certtrain.cli.configuration.schema import parse, plain
from certtrain.cli.job.job import Job
from certtrain.gradients import PGPE, GradientEstimator, LayerScale, philox
from certtrain.gradients.noise import GaussianNoise
from certtrain.losses import Problem, RobustCrossEntropy
from certtrain.networks import Params, parameters
from certtrain.networks.statistics import batch_statistics, update_running_statistics
from certtrain.precision import full_float32
from certtrain.training.checkpoints import network_state, read_checkpoint
from certtrain.training.metrics import JsonlLogger
from certtrain.training.stopping import Stopped, StopRequest

pytestmark = pytest.mark.usefixtures("no_report")

CPU = torch.device("cpu")
GPU = pytest.mark.gpu
# Of float32, in which normal numbers are made from the same bits: logarithms and cosines are each device's own.
LAST_DIGIT = {"rtol": 1e-5, "atol": 1e-6}


def make(name: str) -> GradientEstimator:
    """The estimator; one that scales layers names those of another problem."""
    found = estimator(name)
    scaled = isinstance(found, PGPE) and found.layer_scale.factors
    return replace(found, layer_scale=LayerScale({"*.bias": 0.5})) if scaled else found


def estimate(name: str, device: torch.device) -> tuple[Params, float, dict, list[torch.Tensor]]:
    at = Placed.of(subject("residual"), torch.float64, device)
    params = {k: p.detach() for k, p in at.params.items()}
    problem = Problem.within(at.graph, build("crown_ibp"), at.inputs, at.labels, 0.02, 0.3)
    statistics = batch_statistics(at.graph, params, at.inputs)
    update_running_statistics(at.graph.module, at.graph, statistics)
    loss = RobustCrossEntropy(l1=1e-3)
    found = make(name).estimate(lambda p: loss(problem, {**p, **statistics}), params, 3)
    assert all(g.device == device for g in found.gradient.values())
    buffers = [b.to(CPU) for b in at.graph.module.buffers()]
    return {k: g.to(CPU) for k, g in found.gradient.items()}, float(found.loss), found.statistics, buffers


@pytest.mark.parametrize("name", COMMANDS)
def test_every_estimator_estimates_what_it_does_on_the_cpu(device: torch.device, name: str) -> None:
    """With the same noise, which is nobody's but the seed's and the generation's."""
    gradient, loss, statistics, buffers = estimate(name, device)
    expected, expected_loss, expected_statistics, expected_buffers = estimate(name, CPU)
    assert loss == pytest.approx(expected_loss, rel=1e-8)
    assert statistics == pytest.approx(expected_statistics, rel=1e-5, abs=1e-8, nan_ok=True)
    for key, g in expected.items():
        torch.testing.assert_close(gradient[key], g, **LAST_DIGIT)
    for a, b in zip(buffers, expected_buffers, strict=True):
        torch.testing.assert_close(a, b)


def test_random_words_are_the_same_bit_by_bit(device: torch.device) -> None:
    here, there = (philox.bits(5, 7, range(2, 6), 1001, d) for d in (CPU, device))
    assert there.device == device
    assert torch.equal(there.to(CPU), here)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_is_the_same_up_to_the_last_digit(device: torch.device, dtype: torch.dtype) -> None:
    params = {k: p.detach().to(dtype) for k, p in parameters(subject("strided").network).items()}
    noise = GaussianNoise(seed=5, sigma=0.1)
    here = noise.sample(params, 7, range(2, 6))
    there = noise.sample({k: p.to(device) for k, p in params.items()}, 7, range(2, 6))
    for key, e in here.items():
        assert there[key].device == device
        torch.testing.assert_close(there[key].to(CPU), e, **LAST_DIGIT)


SHORT = ("trainer.max_steps=4", "data.batch_size=256", "trainer.log_every_n_steps=1", "certify.limit=20")
METHODS = {
    "grad": ("method=grad", "relaxation=crown_ibp"),
    "rgs": ("method=rgs", "rgs.samples=2", "relaxation=deeppoly"),
    "pgpe": ("method=pgpe", "pgpe.population_size=8", "pgpe.strategy=vmap", "relaxation=deeppoly"),
    "convolutions": (
        "method=grad",
        "relaxation=crown_ibp",
        "model=cnn7",
        "model.convolutions=[[2,3,2,1]]",
        "model.widths=[8]",
        # Biases before batch norm have no gradient but rounding, which Adam would make a step of full length of.
        "optimizer=sgd",
    ),
    "learned sigma": ("method=pgpe", "pgpe.population_size=8", "pgpe.strategy=vmap", "pgpe/sigma_rule=learned"),
}
QUICK = ("certify.attack.steps=2", "certify.verifiers=[ibp,deeppoly]", "schedule.eps.warmup=0", "schedule.eps.ramp=0.5")


def run(
    directory: Path,
    accelerator: str,
    *overrides: str,
    request: StopRequest = StopRequest(),  # noqa: B008  (listens to nothing)
    start: Path | None = None,
) -> tuple[dict, list[dict]]:
    """A whole job; its summary and its metrics."""
    directory.mkdir(exist_ok=True)
    command = (*SHORT, *QUICK, f"trainer.accelerator={accelerator}", *overrides)
    (job,) = compose_jobs(Command(command, False, False))
    with full_float32(torch.device("cuda" if accelerator == "gpu" else "cpu")):
        record = Job(parse(plain(job)), directory, Console(quiet=True), request, start).run(
            [JsonlLogger(directory / "metrics.jsonl")]
        )
    return record, [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def weights(directory: Path) -> torch.Tensor:
    state = network_state(directory / "checkpoints" / "last.ckpt")
    return torch.cat([x.flatten().double() for x in state.values() if x.is_floating_point()])


@pytest.mark.parametrize("method", METHODS)
def test_steps_of_training_are_those_on_the_cpu(tmp_path: Path, accelerator: str, method: str) -> None:
    record, rows = run(tmp_path / "found", accelerator, *METHODS[method])
    expected_record, expected_rows = run(tmp_path / "expected", "cpu", *METHODS[method])
    assert torch.allclose(weights(tmp_path / "found"), weights(tmp_path / "expected"), rtol=1e-3, atol=1e-4)
    losses, expected = ([r["train/loss"] for r in x if "train/loss" in r] for x in (rows, expected_rows))
    assert len(expected) == 4
    assert losses == pytest.approx(expected, rel=1e-3)
    for key in ("natural_accuracy", "certified_accuracy"):
        assert record[key] == pytest.approx(expected_record[key], abs=0.051), "one image of twenty may be a close call"


@contextmanager
def watching_certification(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.device]]:
    """Devices of the networks that are certified."""
    from certtrain.cli.job import certification

    seen: list[torch.device] = []
    original = certification.certify

    def certify(network, *args, **options):
        seen.append(next(network.parameters()).device)
        return original(network, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(certification, "certify", certify)
        yield seen


def test_a_run_certifies_where_it_trained(tmp_path: Path, accelerator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with watching_certification(monkeypatch) as seen:
        run(tmp_path / "run", accelerator, *METHODS["grad"])
    assert [d.type for d in seen] == ["cuda" if accelerator == "gpu" else "cpu"]


@pytest.mark.parametrize("method", ["grad", "learned sigma"])
@pytest.mark.parametrize(
    ("first", "then"),
    [("cpu", "cpu"), pytest.param("gpu", "cpu", marks=GPU), pytest.param("cpu", "gpu", marks=GPU)],
)
def test_a_run_goes_on_on_another_device(
    tmp_path: Path, request: pytest.FixtureRequest, first: str, then: str, method: str
) -> None:
    """Two of four steps on each; optimizer, estimator and schedule go on from the checkpoint, too."""
    if "gpu" in (first, then):
        request.getfixturevalue("cuda")
    whole = (*METHODS[method], "certify.enabled=false", "scheduler=constant")
    run(tmp_path / "expected", "cpu", *whole)
    with pytest.raises(Stopped):
        run(tmp_path / "run", first, *whole, request=StopAt(2))
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert read_checkpoint(checkpoint)["global_step"] == 2
    run(tmp_path / "run", then, *whole, start=checkpoint)
    assert read_checkpoint(checkpoint)["global_step"] == 4
    assert torch.allclose(weights(tmp_path / "run"), weights(tmp_path / "expected"), rtol=1e-3, atol=1e-4)

"""What is said while nothing else is, and before a run that takes long."""

import io
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from certtrain.cli.assembly.data import make_source
from certtrain.cli.assembly.network import make_network
from certtrain.cli.assembly.training import make_training
from certtrain.cli.configuration.compose import Command, compose_jobs
from certtrain.cli.configuration.schema import parse, plain
from certtrain.cli.estimates import announcement as estimate
from certtrain.cli.job.preflight import preflight
from certtrain.cli.process.heartbeat import SECONDS, Heartbeat
from certtrain.training.progress import LINE_SECONDS


def test_silence_is_broken_and_speech_is_not() -> None:
    out = io.StringIO()
    console = Console(file=out, width=100)
    heartbeat = Heartbeat(console, seconds=0.2)
    with heartbeat.during(lambda: "step 3 of [5]"):
        time.sleep(0.5)
    assert out.getvalue().splitlines()[0] == "step 3 of [5] (0 s)"
    before = out.getvalue()
    heartbeat = Heartbeat(console, seconds=1.0)
    with heartbeat.during("computing"):
        for _ in range(12):
            console.print("talk")
            time.sleep(0.1)
    assert "computing" not in out.getvalue()[len(before) :]
    alive = threading.active_count()
    with pytest.raises(KeyboardInterrupt), heartbeat.during("computing"):
        raise KeyboardInterrupt
    assert threading.active_count() == alive


def test_progress_speaks_first_where_steps_are_short() -> None:
    assert LINE_SECONDS < 0.9 * SECONDS, "else every line of progress follows one of the heartbeat"


def announcement(*overrides: str) -> str | None:
    (job,) = compose_jobs(Command(overrides, False, False))
    config = parse(plain(job))
    source = make_source(config)
    network, graph = make_network(config, source)
    return estimate.announcement(config, make_training(config, network, graph), source)


def test_a_long_generation_is_announced() -> None:
    assert announcement() is None
    line = announcement("model=cnn7", "model.widths=[64]", "data.batch_size=2000", "pgpe.population_size=2048")
    assert line is not None
    assert line.startswith("one generation takes about ")
    assert "2048 members of about" in line
    assert "with one gradient of about" in line
    assert "on 2000 images" in line


def test_what_the_control_variate_takes_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "LONG_GENERATION", 0.0)
    given = ("relaxation=ibp", "pgpe.population_size=2")
    lines = [
        announcement(*given, *more)
        for more in (
            ("pgpe.control_variate=none",),
            ("pgpe.control_variate=gradient",),
            ("pgpe.control_variate=rgs", "pgpe.control_samples=6"),
        )
    ]
    assert "gradient" not in str(lines[0])
    assert "with one gradient of about" in str(lines[1])
    assert "with 6 gradients of about" in str(lines[2])
    assert all("as control variate, on 64 images" in str(line) for line in lines[1:])


def test_a_large_generation_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "available_bytes", lambda device: 10**6)
    line = announcement("relaxation=ibp", "pgpe.strategy=vmap")
    assert line is not None
    assert "of memory (1 MB are free)" in line


def test_more_images_than_fit_into_memory_are_announced_from_a_few() -> None:
    line = announcement("relaxation=ibp", f"data.batch_size={10**12}")
    assert line is not None
    assert f"on {10**12} images" in line


def test_preflight_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(estimate, "LONG_GENERATION", 0.0)
    preflight(Command(("relaxation=ibp", f"hydra.run.dir={tmp_path / 'run'}"), False, False))
    assert "note: one generation takes about" in capsys.readouterr().out

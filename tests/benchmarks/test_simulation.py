"""The model of many devices: exact where it can be computed by hand."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.ranks import Costs
from benchmarks.simulation import DEVICES, Network, generation, main

COSTS = Costs(parameters=1000, member_fixed=0.1, member_per_image=0.01, pair_noise=0.2, latency=1.0, bytes_per_second=4)
FREE = Network(latency=0.0, bytes_per_second=float("inf"))


def test_one_device_does_everything_and_exchanges_nothing() -> None:
    alone = generation(COSTS, Network(1.0, 4.0), devices=1, members=16)
    assert alone.evaluation == pytest.approx(16 * (0.1 + 0.01 * 64))
    assert alone.noise == pytest.approx(8 * 0.2)
    assert alone.exchange == 0


def test_work_is_divided_by_pairs_then_by_images() -> None:
    for devices in (2, 4, 8):
        found = generation(COSTS, FREE, devices, members=16)
        assert found.evaluation == pytest.approx(16 / devices * (0.1 + 0.01 * 64))
    found = generation(COSTS, FREE, devices=32, members=16)
    assert found.evaluation == pytest.approx(2 * (0.1 + 0.01 * 16)), "one pair, a quarter of the batch"
    assert generation(COSTS, FREE, devices=3, members=16).noise == pytest.approx(3 * 0.2), "8 pairs on 3: the busiest"


def test_exchange_by_the_faster_of_ring_and_tree() -> None:
    network = Network(latency=1.0, bytes_per_second=4.0)
    assert network.all_reduce(2, 100) == pytest.approx(2 * (1 + 50)), "a ring sends halves"
    assert network.all_reduce(1024, 0) == pytest.approx(2 * 10), "a tree needs fewer messages"
    assert network.all_gather(8, 16) == pytest.approx(3 + 16)


def test_tables_and_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "costs.json").write_text(json.dumps({"costs": asdict(COSTS)}))
    assert main([f"--costs={tmp_path / 'costs.json'}", f"--out={tmp_path / 'figure.png'}"]) == 0
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert f"{DEVICES[-1]}" in capsys.readouterr().out

"""Certification as a configuration has it: in a run behind its training, and of what has been trained before."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from certtrain.certify import Verdict, certify
from certtrain.cli.assembly.bounds import make_attack, make_verifiers
from certtrain.cli.configuration.schema import RunConfig
from certtrain.data.batches import as_float
from certtrain.data.source import Splits
from certtrain.report import certification_progress
from certtrain.report.page.gallery import Images, keep_images

LEDGER = "ledger.jsonl"


def certify_test_images(
    config: RunConfig,
    network: nn.Module,
    splits: Splits,
    directory: Path,
    device: torch.device,
    console: Console,
    shard: tuple[int, int] | None = None,
    ledger: str = LEDGER,
) -> tuple[list[Verdict], float]:
    """Judges the test images that a configuration asks for, as far as the ledger has not got them.

    Args:
        config: What to ask whom.
        network: With its weights.
        splits: The data.
        directory: Where the ledger stands.
        device: Where to compute. Not every accelerator has the float64 that verdicts need: elsewhere than on CUDA, the
            CPU computes.
        console: Where progress is shown.
        shard: See `certtrain.certify`.
        ledger: Name of the ledger's file.

    Returns:
        The verdicts, and the seconds that this took. The images of the report's gallery are kept beside the ledger.
    """
    options, test = config.certify, splits.test
    inputs, labels = test.inputs[: options.limit], test.labels[: options.limit]
    started = time.perf_counter()
    rank, ranks = shard or (0, 1)
    with certification_progress(console, len(range(rank, len(inputs), ranks))) as progress:
        verdicts = certify(
            network.to(device if device.type == "cuda" else torch.device("cpu")),
            as_float(inputs),
            labels,
            config.eps,
            relaxations=make_verifiers(config),
            clip=config.clip,
            attack=make_attack(config),
            timeout_s=options.timeout_s,
            memory_mb=options.memory_mb,
            cascade=options.cascade,
            shard=shard,
            ledger=directory / ledger,
            progress=progress,
        )
    seconds = time.perf_counter() - started
    if ledger == LEDGER and shard is None:
        keep_images(directory / ledger, verdicts, test_images(splits))
    return verdicts, seconds


def test_images(splits: Splits) -> Images:
    """Test images by their number, float32 [channels, height, width] in pixel units, as arrays."""
    return lambda index: as_float(splits.test.inputs[index]).numpy()

"""The end of a run: its network is certified, and everything that was found out is written and shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from certtrain.certify import Verdict, summarize
from certtrain.cli.configuration.schema import RunConfig
from certtrain.cli.job.certification import certify_test_images
from certtrain.cli.process.heartbeat import Heartbeat
from certtrain.data.fingerprint import describe_data
from certtrain.data.module import ImageData
from certtrain.report import accuracies_of, print_verdict, write_report, write_summary
from certtrain.report.identity import identify
from certtrain.report.origin import hardware, read_origin
from certtrain.training.checkpoints import is_averaged, load_network, load_state, unaveraged_state

Record = dict[str, Any]

UNAVERAGED_LEDGER = "ledger-unaveraged.jsonl"


@dataclass(frozen=True)
class Trained:
    """What training has come to.

    Attributes:
        network: The network, with whatever weights.
        checkpoint: Holds the weights to judge.
        seconds: That training took, in all processes that the run has had.
        device: Where it was trained.
        validated_by: The relaxation by which validation certified, and chose the checkpoint; None where nothing was.
    """

    network: nn.Module
    checkpoint: Path
    seconds: float
    device: torch.device
    validated_by: str | None


def conclude(
    config: RunConfig, trained: Trained, data: ImageData, directory: Path, console: Console, heartbeat: Heartbeat
) -> Record:
    """Certifies if that is asked for, writes summary.json and the report, and prints the result.

    Args:
        config: Of the run.
        trained: What there is to judge.
        data: Which is set up.
        directory: The run directory.
        console: Where people read.
        heartbeat: Says what goes on.

    Returns:
        What stands in summary.json.
    """
    network, checkpoint = trained.network, trained.checkpoint
    load_network(network, checkpoint)
    verdicts: list[Verdict] = []
    seconds = beside = None
    if config.certify.enabled:
        with heartbeat.during("certifying"):
            # Lightning has put the network back on the CPU.
            verdicts, seconds = certify_test_images(config, network, data.splits, directory, trained.device, console)
            beside = _certify_unaveraged(config, trained, data, directory, console)
    with heartbeat.during("writing the report"):
        node = config.model_dump(mode="json", exclude_unset=True)
        record = write_summary(
            directory / "summary.json",
            result=summarize(verdicts, config.certify.verifiers) if verdicts else {},
            identity=identify(node),
            origin={**read_origin(directory), "hardware": hardware()},
            config=node,
            train_seconds=trained.seconds,
            certify_seconds=seconds,
            parameters=sum(p.numel() for p in network.parameters()),
            data=describe_data(data.source, data.splits, [verdict.index for verdict in verdicts]),
            checkpoint=checkpoint.name,
            unaveraged=beside,
            validated_by=trained.validated_by,
        )
        report = write_report(directory)
    _show(record, report, console)
    return record


def _certify_unaveraged(
    config: RunConfig, trained: Trained, data: ImageData, directory: Path, console: Console
) -> Record | None:
    """The weights at the same step, which an average is compared with; None where nothing was averaged."""
    if not is_averaged(trained.checkpoint):
        return None
    load_state(trained.network, unaveraged_state(trained.checkpoint), trained.checkpoint)
    verdicts, _ = certify_test_images(
        config, trained.network, data.splits, directory, trained.device, console, ledger=UNAVERAGED_LEDGER
    )
    return summarize(verdicts, config.certify.verifiers)


def _show(record: Record, report: Path, console: Console) -> None:
    if record["images"]:
        print_verdict(console, record)
    if "unaveraged" in record:
        console.print(f"without averaging: {accuracies_of(record['unaveraged'])}", highlight=False, soft_wrap=True)
    certified = record["certify_seconds"]
    console.print(
        f"trained in {record['train_seconds']:.1f} s"
        + (f", certified in {certified:.1f} s" if certified is not None else "")
        + f"; judged {record['checkpoint']}\nreport: {report}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )

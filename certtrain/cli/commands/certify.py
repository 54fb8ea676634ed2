"""`python -m certtrain certify TARGET`: other questions about a network that is trained already."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from rich.console import Console

from certtrain.certify import read_ledger, summarize
from certtrain.cli.assembly.bounds import make_attack, make_verifiers
from certtrain.cli.assembly.data import make_data
from certtrain.cli.configuration.explain import explaining
from certtrain.cli.configuration.fractions import in_decimals
from certtrain.cli.configuration.parser import Parser
from certtrain.cli.configuration.schema import Node, RunConfig, parse
from certtrain.cli.job.certification import LEDGER, certify_test_images
from certtrain.cli.process.heartbeat import Heartbeat
from certtrain.cli.rundir.directory import RunDirectory, difference
from certtrain.cli.trained.target import Target, find_target
from certtrain.data.fingerprint import describe_data
from certtrain.data.module import ImageData
from certtrain.errors import ConfigError
from certtrain.lock import locked
from certtrain.report import check_failures, print_verdict, write_report, write_summary
from certtrain.report.certifications import FOLDER
from certtrain.report.eps_curve import write_eps_curve
from certtrain.report.images import write_images
from certtrain.report.origin import command_line, commit, hardware

SHARD = "certify.shard"
DIGITS = 8


@dataclass(frozen=True)
class Question:
    """One certification.

    Attributes:
        node: Its configuration, resolved.
        config: The same, typed.
        directory: Where its results go.
    """

    node: Node
    config: RunConfig
    directory: Path


def certify_command(arguments: list[str]) -> None:
    """Certifies a trained network, for each radius that is asked for.

    Args:
        arguments: What follows `certify` on the command line.

    Raises:
        CerttrainError: If a question cannot be asked, or something failed while it was answered.
    """
    parser = Parser(
        prog="python -m certtrain certify",
        description="Certifies what a run has trained, with other settings: eps=0.1, a list eps=[0.05,0.1] for a "
        "curve, certify.verifiers=[...], certify.cascade=first, and so on. Results go to TARGET/certifications/NAME; "
        "the same command goes on where it stopped. certify.shard=0/4 judges the first of four parts, for processes "
        "that share the work.",
    )
    parser.add_argument(
        "target",
        type=Path,
        help="a run directory, a checkpoint (with model=... and data=...), or an ONNX file (with data=...)",
    )
    parser.add_argument("override", nargs="*", default=[], help="further settings, as key=value")
    found = parser.parse_args(arguments)
    overrides, radii, shard = read_overrides(found.override)
    target = find_target(found.target, overrides)
    questions = [_question(target, overrides if eps is None else [*overrides, f"eps={eps!r}"]) for eps in radii]
    console = Console()
    heartbeat = Heartbeat(console)
    data = make_data(questions[0].config)
    with heartbeat.during("reading the data"):
        data.setup()
    origin = {"command": command_line(["certify", *arguments]), "overrides": found.override, "commit": commit()}
    with heartbeat.during("certifying"):
        records = [_answer(question, target, data, shard, console, origin) for question in questions]
    if len(records) > 1 and None not in records:
        known = [record for record in records if record is not None]
        curve = target.home / FOLDER / f"curve-{_digest([q.directory.name for q in questions])}"
        console.print(f"curve: {write_eps_curve(known, curve)}", markup=False, highlight=False, soft_wrap=True)
    if isinstance(target.home, Path) and RunDirectory(target.home).finished:
        write_report(target.home)
    for record in records:
        check_failures(record or {})


def read_overrides(words: Sequence[str]) -> tuple[list[str], list[float | None], tuple[int, int] | None]:
    """Takes out of overrides what is no setting of one certification.

    Returns:
        The others; the radii that are asked for one after the other, None for that of the configuration; and the shard.

    Raises:
        ConfigError: If one of them is none.
    """
    rest: list[str] = []
    radii: list[float | None] = [None]
    shard = None
    for word in in_decimals(words):
        if "=" not in word and not word.startswith("~"):
            raise ConfigError(f"certify: '{word}' is no key=value")
        key, _, value = word.partition("=")
        if key == SHARD:
            shard = _read_shard(value)
        elif key == "eps" and value.startswith("["):
            radii = _read_radii(word)
        else:
            rest.append(word)
    return rest, radii, shard


def _read_radii(word: str) -> list[float | None]:
    with explaining():
        values = OverridesParser.create().parse_overrides([word])[0].value()
    if not isinstance(values, list) or not values or not all(type(value) in (int, float) for value in values):
        raise ConfigError(f"certify: '{word}' is no list of radii such as eps=[0.05,0.1] or eps=[1/255,2/255]")
    if len({float(value) for value in values}) < len(values):
        raise ConfigError(f"certify: '{word}' names a radius twice")
    return [float(value) for value in values]


def _read_shard(value: str) -> tuple[int, int]:
    rank, _, ranks = value.partition("/")
    if not (rank.isdecimal() and ranks.isdecimal() and int(rank) < int(ranks)):
        raise ConfigError(f"{SHARD} must be RANK/RANKS with RANK from 0 to RANKS - 1, as in 0/4, got {value!r}")
    return int(rank), int(ranks)


def _question(target: Target, overrides: Sequence[str]) -> Question:
    """Composed and checked; nothing is written.

    Raises:
        ConfigError: If it cannot be asked.
    """
    node = target.configuration(overrides)
    certify = node.get("certify")
    if not isinstance(certify, dict) or not certify.get("enabled"):
        node = {**node, "certify": {**(certify if isinstance(certify, dict) else {}), "enabled": True}}
    try:
        config = parse(node)
    except ConfigError:
        target.check()
        raise
    directory = target.home / FOLDER / _name(target, config, node)
    there = RunDirectory(directory).configuration()
    if there is not None and (key := difference(there, node)) is not None:
        raise ConfigError(f"{directory} holds another certification ({key}): remove it")
    return Question(node, config, directory)


def _name(target: Target, config: RunConfig, node: Node) -> str:
    """The radius, and a digest of everything that verdicts depend on: the same question has the same name."""
    asked = [verifier.describe() for verifier in make_verifiers(config)]
    certify = {key: value for key, value in node["certify"].items() if key != "memory_mb"}
    attack, weights = make_attack(config).settings(), target.weights.name
    parts = [certify, asked, attack, config.clip, node["data"], node["model"], weights]
    return f"eps-{config.eps:g}-{config.certify.cascade}-{_digest(parts)}"


def _digest(parts: Any) -> str:
    return sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:DIGITS]


def _answer(
    question: Question,
    target: Target,
    data: ImageData,
    shard: tuple[int, int] | None,
    console: Console,
    origin: Mapping[str, Any],
) -> dict[str, Any] | None:
    """Judges images and writes what came out; None where shards have left some to others."""
    config, directory = question.config, question.directory
    network = target.network(config, data.source)
    directory.mkdir(parents=True, exist_ok=True)
    console.print(f"certifying {target.weights} at eps {config.eps:g}\n{directory}", markup=False, soft_wrap=True)
    gpu = config.trainer.accelerator != "cpu" and torch.cuda.is_available()
    name = "run.lock" if shard is None else f"run-{shard[0]}-of-{shard[1]}.lock"
    with locked(directory, name):
        RunDirectory(directory).write_configuration(question.node)
        device = torch.device("cuda" if gpu else "cpu")
        _, seconds = certify_test_images(config, network, data.splits, directory, device, console, shard)
        verdicts = sorted(read_ledger(directory / LEDGER), key=lambda verdict: verdict.index)
        images = len(data.splits.test.inputs[: config.certify.limit])
        verdicts = [verdict for verdict in verdicts if verdict.index < images]
        if len(verdicts) < images:
            left = f"{len(verdicts):,} of {images:,} images are judged; other shards have the rest"
            console.print(left, soft_wrap=True)
            return None
        record = write_summary(
            directory / "summary.json",
            result=summarize(verdicts, config.certify.verifiers),
            train_seconds=None,
            certify_seconds=seconds if shard is None else None,
            parameters=sum(p.numel() for p in network.parameters()),
            identity=target.identity(question.node),
            trained_eps=target.trained_eps,
            origin={**origin, "hardware": hardware()},
            config=question.node,
            data=describe_data(data.source, data.splits, [verdict.index for verdict in verdicts]),
            checkpoint=target.weights.name,
        )
        write_images(verdicts, directory)
        write_report(directory)
    print_verdict(console, record)
    return record

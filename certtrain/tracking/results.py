"""What is known when a run is over, as W&B shows it: numbers, tables, pictures, and files that are uploaded once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from certtrain.certify import Verdict, read_ledger
from certtrain.certify.case import image_digest
from certtrain.certify.counterexamples import read_counterexample
from certtrain.certify.verdict import FAILURES
from certtrain.errors import DataError
from certtrain.report.metrics import read_rows
from certtrain.tracking.facts import Facts, configuration, name_of, results
from certtrain.tracking.identity import pictures
from certtrain.tracking.wandb_run import STEP, Target, log_row

if TYPE_CHECKING:
    import wandb

# Positions in the test set -> their images, [*shape] with pixels in [0, 1]; those that cannot be had are left out.
Images = Callable[[Sequence[int]], Mapping[int, Tensor]]

LEDGER = "ledger.jsonl"
# Statuses whose images are shown, the most telling ones first.
SHOWN = ("falsified", "unknown", *FAILURES)
COLUMNS = ("index", "label", "predicted", "status", "verified_by", "falsified_by", "margin", "seconds", "message")
STAGE_COLUMNS = ("stage", "asked", "settled", "verified", "falsified", "failed", "left", "seconds")
ACCURACIES = ("natural_accuracy", "attacked_accuracy", "certified_accuracy")
COSTS = ("train_seconds", "certify_seconds", "parameters")
# Keys of the tables, and the prefix of pictures.
POINT, STAGES, VERDICTS, FAILED = "tables/point", "tables/stages", "tables/ledger", "tables/failures"
PICTURES = "pictures"
# A picture has at least so many pixels a side: 8 by 8 of them are a stamp.
SIDE = 64
# Differences to a counterexample are shown around grey, so that the largest one is black or white.
GREY = 0.5


def no_images(indices: Sequence[int]) -> Mapping[int, Tensor]:
    """For a record whose data are not at hand."""
    return {}


def send_results(
    run: wandb.Run,
    directory: Path,
    target: Target,
    facts: Facts,
    record: Mapping[str, Any],
    images: Images = no_images,
) -> None:
    """Sends what stands in the run directory beside metrics.jsonl.

    Args:
        run: Open; its rows are sent.
        directory: Of the run.
        target: Which files, how many images.
        facts: What the run is.
        record: Its summary.json; empty where it was interrupted.
        images: Where the test images come from.

    Raises:
        DataError: If the ledger is damaged.
    """
    import wandb

    verdicts = read_ledger(directory / LEDGER)
    rows = read_rows(directory / "metrics.jsonl")
    last = rows[-1][0] if rows else 0
    shown: dict[str, Any] = dict(_tables(facts, record, verdicts))
    if verdicts:
        shown[FAILED] = _failures(directory / LEDGER, verdicts, images, target.images)
    shown |= {picture_key(directory, file): wandb.Image(str(file)) for file in pictures(directory)}
    # A run that goes on takes no more at the steps that it has.
    step = max(last, int(run.starting_step or 0))
    log_row(run, step, shown)
    run.summary.update({**results(record), STEP: last})
    run.config.update(configuration({}, facts, record), allow_val_change=True)
    run.name = name_of(facts, record)
    for kind in target.artifacts:
        _upload(run, directory, kind, record)


def picture_key(directory: Path, file: Path) -> str:
    """Under which key a picture of a run stands: curves.png -> pictures/curves."""
    return f"{PICTURES}/{file.relative_to(directory).with_suffix('').as_posix()}"


def _tables(facts: Facts, record: Mapping[str, Any], verdicts: Sequence[Verdict]) -> Iterable[tuple[str, Any]]:
    import wandb

    if record:
        numbers = {name: record.get(name) for name in (*ACCURACIES, *COSTS)}
        # Ordinal axes are made of words: a number of a table would be a place on a line.
        point = {**facts.row(), **numbers, "sigma": f"{facts.sigma:g}", "population_size": str(facts.population_size)}
        yield POINT, wandb.Table(columns=list(point), data=[list(point.values())])
    if stages := record.get("stages"):
        found = [{**stage, "left": stage["asked"] - stage["settled"] - stage["failed"]} for stage in stages]
        data = [
            [facts.setting, *(row.get("name" if name == "stage" else name) for name in STAGE_COLUMNS)] for row in found
        ]
        yield STAGES, wandb.Table(columns=["setting", *STAGE_COLUMNS], data=data)
    if verdicts:
        data = [[getattr(verdict, name) for name in COLUMNS] for verdict in verdicts]
        yield VERDICTS, wandb.Table(columns=list(COLUMNS), data=data)


def _stage(facts: Facts, stage: Mapping[str, Any]) -> list[Any]:
    row = {**stage, "stage": stage["name"], "left": stage["asked"] - stage["settled"] - stage["failed"]}
    return [facts.setting, *(row.get(name) for name in STAGE_COLUMNS)]


def _failures(ledger: Path, verdicts: Sequence[Verdict], images: Images, limit: int) -> Any:
    """Images that were not verified, what the attack made of them, and the difference."""
    import wandb

    failed = [verdict for status in SHOWN for verdict in verdicts if verdict.status == status][:limit]
    clean = images([verdict.index for verdict in failed]) if failed else {}
    data = []
    for verdict in failed:
        image = clean.get(verdict.index)
        if image is not None and verdict.image not in (None, image_digest(image)):
            image = None  # of other data than were judged
        point = _point(ledger, verdict)
        change = None if image is None or point is None else _magnified(point - image.to(point))
        row = [getattr(verdict, name) for name in COLUMNS]
        data.append([*row, *(None if pixels is None else _picture(pixels) for pixels in (image, point, change))])
    return wandb.Table(columns=[*COLUMNS, "image", "counterexample", "difference"], data=data)


def _point(ledger: Path, verdict: Verdict) -> Tensor | None:
    try:
        return read_counterexample(ledger, verdict)
    except DataError:  # a picture less
        return None


def _magnified(difference: Tensor) -> Tensor:
    largest = float(difference.abs().max())
    return GREY + difference * (GREY / largest if largest > 0 else 0.0)


def _picture(image: Tensor) -> Any:
    """None for inputs that are no images."""
    import wandb

    if image.ndim != 3 or image.shape[0] not in (1, 3):
        return None
    factor = max(1, -(-SIDE // min(image.shape[1:])))
    large = image.detach().to("cpu", torch.float64).nan_to_num().clamp(0, 1)
    large = large.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    pixels = (255 * large.permute(1, 2, 0)).round().numpy().astype(np.uint8)
    return wandb.Image(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _upload(run: wandb.Run, directory: Path, kind: str, record: Mapping[str, Any]) -> None:
    """One artifact; the same content is no new version of it."""
    import wandb

    files = _artifact_files(directory, kind, record)
    if not files:
        return
    artifact = wandb.Artifact(f"{kind}-{run.id}", type=kind)
    for file in files:
        artifact.add_file(str(file), name=file.relative_to(directory).as_posix())
    run.log_artifact(artifact)


def _artifact_files(directory: Path, kind: str, record: Mapping[str, Any]) -> list[Path]:
    checkpoint = record.get("checkpoint")
    patterns = {
        "checkpoint": [f"checkpoints/{checkpoint}"] if isinstance(checkpoint, str) else [],
        "ledger": ["ledger*.jsonl", "ledger*.meta.json", "ledger*.counterexamples/*.npy"],
        "record": ["config.yaml", "metrics.jsonl", "summary.json", "report.html"],
    }[kind]
    return [file for pattern in patterns for file in sorted(directory.glob(pattern)) if file.is_file()]

"""A W&B run made of the record alone: after a crash, from a cluster without network, or of a run that never had one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certtrain.report.metrics import read_rows
from certtrain.report.summary import CertificationFailed, check_failures, read_summary
from certtrain.tracking.facts import facts_of
from certtrain.tracking.identity import Sent, digest_of, identity, sent
from certtrain.tracking.results import Images, no_images, send_results
from certtrain.tracking.wandb_run import Target, log_row, opened

# Where W&B keeps its files of what is made here: apart from those that a job has written while it ran.
FOLDER = "wandb-sync"
# The machine that sends is not the one that computed: nothing is measured or noted of it.
QUIET: Mapping[str, Any] = {
    "console": "off",
    "disable_git": True,
    "disable_code": True,
    "x_disable_stats": True,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
}


@dataclass(frozen=True)
class Synced:
    """What became of a directory.

    Attributes:
        id: Of its W&B run.
        rows: Steps that were sent; None where everything was there already.
        place: Where they are now: an address, or the folder that `wandb sync` takes.
    """

    id: str
    rows: int | None
    place: str


def sync(
    directory: Path,
    node: Mapping[str, Any],
    target: Target,
    offline: bool,
    images: Images = no_images,
) -> Synced:
    """Sends what stands in a run directory, unless its W&B run was made of the very same files.

    Args:
        directory: Of the run.
        node: Its configuration.
        target: Where it goes.
        offline: Whether a folder for `wandb sync` is written, which always holds the whole run.
        images: Where its test images come from.

    Raises:
        CerttrainError: If a file of the record is damaged.
    """
    run_id, digest = identity(directory), digest_of(directory)
    place = address_of(target)
    wanted = Sent(run_id, f"offline:{place}" if offline else place, digest)
    folder = directory / FOLDER
    if sent(directory) == wanted and not (offline and not _written(folder)):
        return Synced(run_id, None, _written(folder) if offline else "")
    rows = read_rows(directory / "metrics.jsonl")
    finished = (directory / "summary.json").is_file()
    record = read_summary(directory / "summary.json") if finished else {}
    facts = facts_of(node)
    if offline:
        shutil.rmtree(folder, ignore_errors=True)  # superseded: what is written now holds all of it
    folder.mkdir(exist_ok=True)
    code = 0 if finished and _complete(record) else 1
    with opened(target, run_id, directory, node, facts, record, folder, code, offline, **QUIET) as run:
        for step, row in rows:
            if step >= int(run.starting_step or 0):  # what comes before is there
                log_row(run, step, row)
        send_results(run, directory, target, facts, record, images)
        address = str(run.url or "")
    wanted.write(directory)
    return Synced(run_id, len(rows), _written(folder) if offline else address)


def _complete(record: Mapping[str, Any]) -> bool:
    """Whether the job itself ended well."""
    try:
        check_failures(record)
    except CertificationFailed:
        return False
    return True


def address_of(target: Target) -> str:
    """entity/project, without an entity where it is the account's own."""
    return f"{target.entity or ''}/{target.project}"


def _written(folder: Path) -> str:
    """The folder of an offline run; empty if there is none."""
    return next((str(path) for path in sorted(folder.glob("wandb/offline-run-*")) if path.is_dir()), "")

"""Another machine for a run that is there: keys that say where it computes, not what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from certtrain.cli.rundir.directory import Change, RunDirectory
from certtrain.data.module import ImageData
from certtrain.training.checkpoints import read_checkpoint
from certtrain.training.survival import newest

# Where the images lie, as it is told and as the source takes it over, and what computes.
PATH, TAKEN_OVER, ACCELERATOR = "data.path", "data.source.path", "trainer.accelerator"
PLACES = (PATH, TAKEN_OVER, ACCELERATOR)


def moves(changes: Sequence[Change]) -> tuple[list[Change], list[Change]]:
    """The changes that only move a run to another machine, and the others."""
    return [one for one in changes if one.key in PLACES], [one for one in changes if one.key not in PLACES]


def tell_moves(run: RunDirectory, changes: Sequence[Change]) -> list[str]:
    """What it means for a run to be moved, one sentence for each place.

    Args:
        run: The run.
        changes: Those of `PLACES`.
    """
    return [f"{change.key} {change.there} -> {change.here}: {why}" for change, why in _reasons(run, changes)]


def _reasons(run: RunDirectory, changes: Sequence[Change]) -> Iterator[tuple[Change, str]]:
    path = next((change.key for change in changes if change.key in (PATH, TAKEN_OVER)), None)
    for change in changes:
        if change.key not in (path, ACCELERATOR):
            continue
        if change.key == ACCELERATOR:
            yield change, "sums are rounded in another order there, so it does not end bitwise like a run that stayed"
        elif _knows_images(run):
            yield change, "training goes on if the images are the same, in the same order"
        else:
            yield change, "its checkpoint does not say which images it was trained on, so nothing compares them"


def _knows_images(run: RunDirectory) -> bool:
    last = newest(run.checkpoints)
    return last is None or ImageData.__qualname__ in read_checkpoint(last, mmap=True)

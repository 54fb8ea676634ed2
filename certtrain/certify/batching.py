"""Stages run in batches, in which an exception or exhausted memory costs as few images as possible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TypeVar

import torch

from certtrain.certify.case import Case
from certtrain.certify.verdict import Failure

T = TypeVar("T")

OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")


def split(items: Sequence[T], size: int) -> list[list[T]]:
    """Consecutive pieces of at most `size` items."""
    return [list(items[i : i + size]) for i in range(0, len(items), size)]


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory is what an exception complains about."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in OUT_OF_MEMORY)


def describe(error: Exception) -> str:
    """An exception in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def run_batches(
    stage: str,
    cases: Sequence[Case],
    size: int,
    compute: Callable[[list[Case]], None],
    failed: Callable[[Case, Failure], None],
    fatal: tuple[type[Exception], ...] = (),
    after: Callable[[], None] = lambda: None,
) -> int:
    """Runs a stage on cases, batch by batch.

    A batch that exhausts memory is halved, down to one image, and so are all batches after it; one that
    raises something else is repeated image by image. What still fails is recorded, and the others are not
    affected. The time of each attempt is shared by the images of its batch. KeyboardInterrupt passes through.

    Args:
        stage: Which one, for the record of times.
        cases: The images.
        size: Images per batch.
        compute: Takes the results of a batch down in its cases, after everything that can fail.
        failed: Takes down that an image failed.
        fatal: Exceptions that pass through.
        after: Called after each batch of which everything is taken down.

    Returns:
        The batch size that fitted into memory.
    """
    pending = split(cases, size)
    while pending:
        batch = pending.pop(0)
        start = perf_counter()
        failure = _attempt(compute, batch, fatal)
        share = (perf_counter() - start) / len(batch)
        for case in batch:
            case.spend(stage, share)
        if failure is None:
            after()
        elif len(batch) == 1:
            failed(batch[0], failure)
            after()
        elif failure.kind == "oom":
            size = (len(batch) + 1) // 2
            pending = split([*batch, *(case for rest in pending for case in rest)], size)
        else:
            pending = [*split(batch, 1), *pending]
    return size


def _attempt(
    compute: Callable[[list[Case]], None], batch: list[Case], fatal: tuple[type[Exception], ...]
) -> Failure | None:
    try:
        compute(batch)
    except fatal:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            return Failure("error", describe(error))
        message = describe(error)
    else:
        return None
    # Outside the handler: inside it the traceback still holds the tensors that filled the memory.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return Failure("oom", message)

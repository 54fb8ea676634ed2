"""The ways to evaluate the members of a population, and which of them is faster here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from certtrain.errors import one_line
from certtrain.gradients.base import Choice, Cost, LossFunction
from certtrain.gradients.members import Members
from certtrain.memory import about_bytes
from certtrain.times import about

# Every round takes each way once and the best time counts: the first round pays for what is set up once, and whatever
# else the machine does only ever adds time. A lead by the factor `CLEAR` needs no further rounds.
ROUNDS = 5
CLEAR = 1.5
# A member that takes so long is computing, not calling: vectorised calls could save a hundredth of its time, and would
# hold the memory of all members at once.
LONG_MEMBER = 1.0
# Longest time of one way in one round, by estimate.
TURN = 1.0
# A loop takes the same time for every member, so that a few tell it; vectorised calls are timed as they will be made.
LOOPED = 16


def in_a_loop(loss: LossFunction, members: Members, chunk: int) -> Tensor:
    """One member after the other; the chunk means nothing here."""
    return torch.stack([loss(members.one(i)) for i in range(len(members))])


def vectorised(loss: LossFunction, members: Members, chunk: int) -> Tensor:
    """`chunk` members per call."""
    call = torch.func.vmap(loss)
    return torch.cat([call(members.some(i, i + chunk)) for i in range(0, len(members), chunk)])


# The loop comes last: where neither works, the error that people see is the one without vectorisation in it.
WAYS: Mapping[str, Callable[[LossFunction, Members, int], Tensor]] = {"vmap": vectorised, "loop": in_a_loop}


def against_vectorising(cost: Cost, members: int, free: int | None) -> str | None:
    """Why so many members need not be evaluated in one call, in one line; None if they may.

    Args:
        cost: Of one member by itself.
        members: Of a call.
        free: Bytes of memory that are free; None if nobody knows.
    """
    if cost.seconds > LONG_MEMBER:
        return f"beside the {about(cost.seconds)} of one member, calls take no time"
    need = members * (cost.bytes or 0)
    if free is not None and need > free:
        return f"{members} members take about {about_bytes(need)}, {about_bytes(free)} are free: see pgpe.member_chunk"
    return None


def affordable(cost: Cost, members: int) -> int:
    """How many members to measure on, at most `members`; an even number where it is smaller."""
    return min(members, max(2, int(TURN / max(cost.seconds, 1e-9)) // 2 * 2))


def fastest(loss: LossFunction, members: Members, chunk: int) -> Choice:
    """Times every way on the first members, at most a chunk of them (the loop: `LOOPED` of them), in turns.

    Args:
        loss: Maps parameters to a scalar.
        members: Whom to measure on.
        chunk: Members per vectorised call.

    Raises:
        Exception: What the loop raises, if neither way works.
    """
    timed = {"vmap": members.first(chunk), "loop": members.first(min(chunk, LOOPED))}
    seconds: dict[str, float] = {}
    refused: dict[str, str] = {}
    for round_number in range(ROUNDS):
        for name in WAYS:
            try:
                taken = _seconds_per_member(name, loss, timed[name], chunk)
            except Exception as error:  # whatever it is (no batching rule, no memory): the other way may work
                if refused:
                    raise
                refused[name] = one_line(error)
                seconds.pop(name, None)
            else:
                seconds[name] = min(taken, seconds.get(name, taken))
        # A lead counts once both are set up; where one way is refused, the other is the choice.
        if refused or (round_number > 0 and max(seconds.values()) > CLEAR * min(seconds.values())):
            break
    return Choice(min(seconds, key=seconds.__getitem__), seconds, refused)


def _seconds_per_member(name: str, loss: LossFunction, members: Members, chunk: int) -> float:
    started = time.perf_counter()
    with torch.no_grad():
        # Copying the losses waits for the device that computes them.
        losses = WAYS[name](loss, members, chunk).cpu()
    return (time.perf_counter() - started) / len(losses)

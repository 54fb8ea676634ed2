"""The GPUs of this machine, shared out among jobs that run side by side."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The GPUs that jobs may use, by the names that CUDA_VISIBLE_DEVICES gives them.

    Args:
        environment: Of the sweep; what it makes visible is what there is.
    """
    import torch  # here, because a sweep otherwise does without; counting does not occupy a GPU

    count = torch.cuda.device_count()
    named = environment.get(VISIBLE)
    if named is None:
        return tuple(map(str, range(count)))
    return tuple(name.strip() for name in named.split(",") if name.strip())[:count]


class Gpus:
    """Hands out GPUs; used by several threads.

    A job gets GPUs of its own as long as there are enough, and those with the fewest jobs then.

    Args:
        names: All of them, in order.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._jobs = dict.fromkeys(names, 0)
        self._lock = threading.Lock()

    @contextmanager
    def taken(self, count: int) -> Iterator[dict[str, str]]:
        """Inside, so many GPUs are taken.

        Args:
            count: Those that a job uses; 0 for one that computes on the CPU.

        Yields:
            What its environment says about them; nothing where there are not more GPUs than it uses anyway.
        """
        if not 0 < count < len(self._jobs):
            yield {}
            return
        with self._lock:
            chosen = sorted(self._jobs, key=self._jobs.__getitem__)[:count]  # stable: in order where equally busy
            for name in chosen:
                self._jobs[name] += 1
        try:
            yield {VISIBLE: ",".join(chosen)}
        finally:
            with self._lock:
                for name in chosen:
                    self._jobs[name] -= 1

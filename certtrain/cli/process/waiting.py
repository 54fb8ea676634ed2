"""Lets threads of GNU's OpenMP library sleep soon after a parallel region, where by default they spin for long.

At the end of a region a thread looks for new work, 300,000 times, before it sleeps. Alone that saves waking it. Beside
another job it keeps the core from the very thread that the others wait for: bounds are hundreds of short regions, and a
call took up to 15 times as long. With 3,000 spins (cnn3, batch 64, deeppoly, two threads on two cores, when this was
written) a call takes 32 to 34 ms alone and at worst 80 beside a population on digits; by default 39 to 40 and 1,039;
one thread takes 66 to 84 there. Fewer spins cost time alone (none: 45 to 51 ms), more cost it beside others (30,000:
155). Fewer threads while others compute would help, too, but another number of threads gives other last bits.
"""

from __future__ import annotations

from collections.abc import MutableMapping

SPINS = "3000"
# Either of them says how threads wait; whoever has set one knows why.
SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def wait_briefly(environment: MutableMapping[str, str]) -> None:
    """Sets GOMP_SPINCOUNT, unless the user has said how threads wait.

    Args:
        environment: `os.environ` before torch is imported, which reads it while it is loaded, or the environment of a
            process to be started. Processes that are started later inherit it.
    """
    if not any(name in environment for name in SETTINGS):
        environment["GOMP_SPINCOUNT"] = SPINS

"""How much memory is free."""

from __future__ import annotations

from pathlib import Path

import torch

MEGABYTE = 2**20


def available_bytes(device: torch.device) -> int | None:
    """Free memory of the device, and what torch keeps of it for itself; None where the system does not tell.

    On Linux an allocation beyond it may succeed and get the process killed when it is used, so it must not be
    tried.
    """
    if device.type == "cuda":
        # Freed tensors stay with torch, which gives them up when another allocation needs the room.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    if device.type != "cpu":
        return None
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / f"memory.{name}").read_text() for name in ("max", "current"))
        return min(free, int(limit) - int(used))
    except (OSError, ValueError):  # no control group, or the word "max" for no limit
        return free


def about_bytes(count: int) -> str:
    """An amount of memory for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"

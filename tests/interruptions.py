"""Runs that are asked to stop."""

import torch

from certtrain.training.stopping import StopRequest


class StopAt(StopRequest):
    """Asks to stop when it is asked for the n-th time: once per generation, and once more after an epoch's last."""

    def __init__(self, time: int | None) -> None:
        super().__init__()
        self.time = time
        self.asked = 0

    def agreed(self, device: torch.device) -> int:
        self.asked += 1
        return 15 if self.asked == self.time else 0

"""A network that divides and joins again."""

import torch
from torch import Tensor, nn


class Parallel(nn.Module):
    """Two branches with activations of their own: rows over one pass nothing of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Linear(60, 8), nn.Linear(9, 3)
        self.left, self.right, self.after = nn.Linear(8, 9), nn.Linear(8, 9), nn.Linear(9, 9)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 60 numbers in any shape] -> [batch, 3]."""
        x = torch.relu(self.stem(x.flatten(1)))
        return self.last(torch.relu(self.after(torch.relu(self.left(x))) + torch.relu(self.right(x))))

"""What is attacked."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

# (points [some, *shape], images [some]) -> margins [some, rows]. An image is misclassified where one of its margins is
# not positive; whatever gives differentiable numbers with this meaning can be attacked. `images` says to which image of
# the batch each point belongs: an attack asks about those only that it is still at.
Margins = Callable[[Tensor, Tensor], Tensor]

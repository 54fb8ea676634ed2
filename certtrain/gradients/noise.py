"""Gaussian weight noise as a pure function of (seed, generation, pair).

Counter-based generation (Philox, Salmon et al., SC 2011) makes every pair's noise its own stream: it does not depend on
which process, chunk or device asks for it, and it can be generated again instead of being stored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from certtrain.networks.graph import Params


@dataclass(frozen=True)
class GaussianNoise:
    """ε ~ N(0, σ² I) over all parameters.

    Attributes:
        seed: Seed of the run.
        sigma: Standard deviation, in the unit of the weights.
    """

    seed: int
    sigma: float

    def sample(self, params: Params, generation: int, pairs: range) -> Params:
        """Noise of some pairs: name -> [len(pairs), *parameter shape], in the parameter's dtype and device.

        Parameters take their part of one long vector in the order of `params`.
        """
        size = sum(p.numel() for p in params.values())
        flat = np.empty((len(pairs), size), dtype=np.float32)
        for row, pair in enumerate(pairs):
            # The two upper words of the counter name the stream; the lower two count within it.
            stream = np.random.Philox(key=[self.seed, 0], counter=[0, 0, generation, pair])
            np.random.Generator(stream).standard_normal(out=flat[row], dtype=np.float32)
        vector = torch.from_numpy(flat).mul_(self.sigma)
        parts = vector.split([p.numel() for p in params.values()], dim=1)
        return {
            name: part.reshape(len(pairs), *p.shape).to(dtype=p.dtype, device=p.device)
            for (name, p), part in zip(params.items(), parts, strict=True)
        }

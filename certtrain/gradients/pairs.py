"""The noise of antithetic pairs, block by block, and the sums over pairs that estimates are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from certtrain.gradients.noise import Noise
from certtrain.gradients.ranks import Ranks
from certtrain.networks.graph import Params

# Noise numbers held at once. Pairs are drawn and summed in blocks of a size that depends on nothing but the network, so
# that neither the chunk nor the strategy of the evaluation changes the order of a sum.
NOISE_NUMBERS = 1 << 26
MAX_BLOCK = 64

# What travels with the gradient when it is summed over the ranks; no parameter has such a name.
_EXTRA = "sums of squares and slope"


def pairs_at_once(params: Params, pairs: int) -> int:
    """Pairs of a block, at least one."""
    size = sum(p.numel() for p in params.values())
    return max(1, min(pairs, MAX_BLOCK, NOISE_NUMBERS // size))


@dataclass(frozen=True)
class Blocks:
    """The noise of some pairs, drawn again in every pass.

    Attributes:
        noise: What it is drawn from.
        scale: Parameter name -> factor of its noise; 1 for a parameter that is not there.
        params: Name -> centre.
        generation: Number of the estimate.
        pairs: Which pairs.
    """

    noise: Noise
    scale: Mapping[str, float]
    params: Params
    generation: int
    pairs: range

    def __iter__(self) -> Iterator[Params]:
        """Name -> [pairs of the block, *shape]."""
        step = pairs_at_once(self.params, len(self.pairs))
        for start in range(self.pairs.start, self.pairs.stop, step):
            epsilon = self.noise.sample(self.params, self.generation, range(start, min(start + step, self.pairs.stop)))
            for name, factor in self.scale.items():
                epsilon[name].mul_(factor)
            yield epsilon

    def kept(self) -> Iterable[Params]:
        """The same blocks for several passes: held in memory where all of them fit, drawn again where not."""
        numbers = len(self.pairs) * sum(p.numel() for p in self.params.values())
        return tuple(self) if numbers <= NOISE_NUMBERS else self


@dataclass(frozen=True)
class Sums:
    """Sums over antithetic pairs i of noise ε_i = σ s z_i with weights w_i; s is the factor of a parameter's layer.

    Attributes:
        gradient: Σ_i w_i ε_i / s².
        squares: Parameter name -> Σ_i |w_i ε_i / s²|².
        slope: Σ_i v_i (|z_i|² - d) for the deviations v_i, d the number of parameters.
    """

    gradient: Params
    squares: dict[str, float]
    slope: float


def weigh(
    blocks: Iterable[Params],
    noise: Noise,
    scale: Mapping[str, float],
    params: Params,
    weights: Tensor,
    deviations: Tensor,
    ranks: Ranks,
) -> Sums:
    """The sums over all pairs, each rank having added up its own.

    Args:
        blocks: Noise of this rank's pairs.
        noise: What it was drawn from.
        scale: See `Blocks`.
        params: Name -> centre.
        weights: [own pairs].
        deviations: [own pairs].
        ranks: Who adds up.
    """
    gradient = {name: torch.zeros_like(p) for name, p in params.items()}
    first = next(iter(params.values()))
    extra = torch.zeros(len(params) + 1, dtype=first.dtype, device=first.device)
    start = 0
    for epsilon in blocks:
        here = slice(start, start := start + len(next(iter(epsilon.values()))))
        for at, (name, e) in enumerate(epsilon.items()):
            gradient[name] += torch.tensordot(weights[here].to(e.dtype), e, dims=1)
            norms = torch.linalg.vector_norm(e.flatten(1), dim=1).square()
            factor = scale.get(name, 1.0)
            surplus = norms / (noise.sigma * factor) ** 2 - params[name].numel()
            extra[at] += (weights[here].square() * norms).sum() / factor**4
            extra[-1] += (deviations[here] * surplus).sum()
    for name, factor in scale.items():
        gradient[name] /= factor**2
    total = ranks.sum({**gradient, _EXTRA: extra})
    *squares, slope = total.pop(_EXTRA).tolist()
    return Sums(total, dict(zip(params, squares, strict=True)), slope)

"""Squared norms of means, from independent replicates: what noise adds is left out, and the rest has an interval.

For independent x_1, ..., x_K of one distribution, products of *different* replicates know nothing of noise:

    1 / K(K-1) Σ_{k≠l} x_k · y_l   estimates   E x · E y   without bias, for pairs (x_k, y_k) that are independent of
                                                          each other.

Everything is computed from Gram matrices, [K, K], so that intervals by leaving one replicate out (the jackknife) cost
nothing. The jackknife overestimates the variance of such products where the mean is zero: intervals are wide there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

# 0.975 quantiles of Student's t for 3, 4, ... replicates; for more of them the last one.
_T = (4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110)


@dataclass(frozen=True)
class Estimated:
    """A number with an interval of about 95 %.

    Attributes:
        value: The estimate.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float


def product_of_means(gram: Float[Tensor, "replicates replicates"]) -> float:
    """E x · E y from the Gram matrix x_k · y_l, without the products of a replicate with itself."""
    count = len(gram)
    return float((gram.sum() - gram.diagonal().sum()) / (count * (count - 1)))


def mean_square(gram: Float[Tensor, "replicates replicates"]) -> float:
    """E |x|²."""
    return float(gram.diagonal().mean())


Statistic = Callable[..., float]


def jackknife(statistic: Statistic, *grams: Tensor) -> Estimated:
    """A function of Gram matrices of the same replicates, with an interval.

    Args:
        statistic: Takes the matrices; what it makes of those without the k-th row and column tells its spread.
        *grams: Each [replicates, replicates], at least 3 of them.
    """
    count = len(grams[0])
    value = statistic(*grams)
    without = []
    for k in range(count):
        rest = torch.arange(count) != k
        without.append(statistic(*(gram[rest][:, rest] for gram in grams)))
    spread = torch.tensor(without, dtype=torch.float64)
    error = math.sqrt((count - 1) / count * float((spread - spread.mean()).square().sum()))
    quantile = _T[min(count - 3, len(_T) - 1)]
    return Estimated(value, value - quantile * error, value + quantile * error)

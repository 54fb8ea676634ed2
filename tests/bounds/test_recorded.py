"""Bounds as they were recorded once (`python tests/bounds/test_recorded.py` from the root): a redesign keeps them."""

from pathlib import Path

import numpy as np
import pytest
import torch
import zoo
from cases import VARIANTS, Case, make_case

from certtrain.bounds import build

FILE = Path(__file__).with_name("recorded.npz")
RADII = (0.02, 0.15)
# Of the relaxations that were there then; the key that holds the first bounds of a new one would be a new file's.
RECORDED = tuple(np.load(FILE)["variants"]) if FILE.is_file() else tuple(VARIANTS)


def numbers(case: Case, variant: str) -> torch.Tensor:
    """[radii, lower and upper and, in the first column, a gradient's product with ones; batch, rows]."""
    found = []
    for eps in RADII:
        params = {k: p.clone().requires_grad_() for k, p in case.params.items()}
        bounds = build(**VARIANTS[variant]).bound(case.graph, params, case.box(eps), case.spec)
        bounds.lower.square().sum().backward()
        gradient = sum(p.grad.sum() for p in params.values() if p.grad is not None)
        found.append(torch.stack([bounds.lower, bounds.upper, torch.full_like(bounds.lower, float(gradient))]))
    return torch.stack(found).detach()


@pytest.mark.parametrize("variant", RECORDED)
def test_bounds_and_gradients_are_as_recorded(case: Case, variant: str) -> None:
    (name,) = (
        name for name in zoo.NETWORKS if type(make_case(name).network) is type(case.network) and _same(name, case)
    )
    expected = torch.from_numpy(np.load(FILE)[f"{name}/{variant}"])
    torch.testing.assert_close(numbers(case, variant), expected, rtol=1e-6, atol=1e-9)


def _same(name: str, case: Case) -> bool:
    return make_case(name).graph.ops == case.graph.ops


if __name__ == "__main__":
    arrays = {f"{n}/{v}": numbers(make_case(n), v).numpy() for n in zoo.NETWORKS for v in VARIANTS}
    np.savez_compressed(FILE, variants=np.array(list(VARIANTS)), **arrays)

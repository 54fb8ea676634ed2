"""The robust loss: an upper bound of the loss at every point, and plain cross-entropy at eps 0."""

import pytest
import torch
import torch.nn.functional as F
from cases import Case, make_case

from certtrain.bounds import build, relaxations
from certtrain.losses import Problem, RobustCrossEntropy, robust_cross_entropy


@pytest.fixture(scope="module")
def mlp() -> Case:
    return make_case("mlp")


def problem(case: Case, eps: float, weight: float, relaxation: str = "deeppoly") -> Problem:
    return Problem.within(case.graph, build(relaxation), case.inputs, case.labels, eps, weight)


def test_of_exact_margins_is_cross_entropy(mlp: Case) -> None:
    logits = mlp.network(mlp.inputs)
    margins = mlp.margins(mlp.inputs)
    expected = F.cross_entropy(logits, mlp.labels, reduction="none")
    torch.testing.assert_close(robust_cross_entropy(margins), expected)


@pytest.mark.parametrize("relaxation", relaxations())
def test_bounds_the_loss_at_every_point_of_the_box(mlp: Case, relaxation: str) -> None:
    loss = RobustCrossEntropy()(problem(mlp, 0.1, 0.0, relaxation), mlp.params)
    box = mlp.box(0.1)
    for _ in range(50):
        x = box.lower + (box.upper - box.lower) * torch.rand_like(box.lower)
        assert F.cross_entropy(mlp.network(x), mlp.labels) <= loss + 1e-9


def test_mixes_natural_and_robust(mlp: Case) -> None:
    robust = RobustCrossEntropy()(problem(mlp, 0.1, 0.0), mlp.params)
    natural = RobustCrossEntropy()(problem(mlp, 0.1, 1.0), mlp.params)
    mixed = RobustCrossEntropy()(problem(mlp, 0.1, 0.25), mlp.params)
    torch.testing.assert_close(natural, F.cross_entropy(mlp.network(mlp.inputs), mlp.labels))
    torch.testing.assert_close(mixed, 0.25 * natural + 0.75 * robust)
    at_zero = RobustCrossEntropy()(problem(mlp, 0.0, 0.0), mlp.params)
    torch.testing.assert_close(at_zero, natural)


def test_l1_counts_weights_only(mlp: Case) -> None:
    plain = RobustCrossEntropy()(problem(mlp, 0.1, 1.0), mlp.params)
    penalised = RobustCrossEntropy(l1=0.5)(problem(mlp, 0.1, 1.0), mlp.params)
    weights = sum(p.abs().sum() for p in mlp.params.values() if p.dim() > 1)
    torch.testing.assert_close(penalised - plain, 0.5 * weights)

"""What rows chose, put away and taken up again."""

from dataclasses import replace

import pytest
import torch
from certify.search_cases import fully_split, random_network, root_of, uniform, whole

from certtrain.bounds import Box
from certtrain.bounds.optimised.choice import Choice
from certtrain.certify.search.branching import NOT_SPLIT, Split, children
from certtrain.certify.search.kept import LARGEST, KeptChoice
from certtrain.certify.search.relaxed import Goals
from certtrain.certify.search.root import Root
from certtrain.certify.search.subdomains import Subdomains


def parts(forms: int) -> tuple[Root, Subdomains]:
    """Some subdomains of a box with several decisions each, and choices of all kinds."""
    network, box = random_network(1), Box.linf(uniform(1, 3, seed=1), 0.4)
    rows = torch.randn((forms, 3), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    root = root_of(network, box, Goals(rows[None], torch.zeros(1, forms).double()))
    found = whole(root)
    for column in root.free[0].nonzero().flatten()[:3].tolist():
        found = children(found, Split.plain(torch.full((len(found),), column)))
    slopes = torch.where(
        (found.decisions == 0) & root.free, uniform(*found.decisions.shape, seed=2).float(), found.choice.slopes
    )
    multipliers = torch.where(found.decisions != 0, 3 * uniform(*slopes.shape, seed=3).float(), 0.0)
    weights = uniform(len(found), forms, seed=4).float() if forms > 1 else None
    columns = torch.full((len(found), 3), NOT_SPLIT)
    columns[:, :2] = torch.tensor([70_000, 1])
    coefficients = root.unit * torch.tensor([2.5, -0.3, 0.0]).expand(len(found), 3)
    return root, Subdomains(
        found.decisions,
        Choice(slopes, multipliers, weights),
        found.lower,
        found.goal,
        columns,
        coefficients,
    )


@pytest.mark.parametrize("forms", [1, 2])
def test_what_is_taken_up_is_what_was_put_away(forms: int) -> None:
    root, found = parts(forms)
    assert len(found) == 8
    again = found.put_away(root).taken_up(root)
    torch.testing.assert_close(again.choice.slopes, found.choice.slopes, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(again.choice.multipliers, found.choice.multipliers, rtol=1e-3, atol=1e-6)
    assert (again.choice.weights is None) == (forms == 1)
    for name in ("decisions", "lower", "goal", "candidates"):
        assert torch.equal(getattr(again, name), getattr(found, name)), name
    torch.testing.assert_close(again.coefficients, found.coefficients, rtol=1e-3, atol=0)
    bounds = [root.rows(root.single, x.decisions, x.goal).lower(x.choice).lower for x in (found, again)]
    torch.testing.assert_close(*bounds, rtol=0, atol=1e-3)


def test_what_is_put_away_takes_a_third() -> None:
    root, found = parts(1)
    kept = found.put_away(root)
    assert kept.kept.nbytes == found.decisions.numel() * 2
    assert kept.candidates.nbytes + kept.coefficients.nbytes == 6 * found.candidates.numel()
    assert found.choice.slopes.nbytes + found.choice.multipliers.nbytes == found.decisions.numel() * 8


def test_slopes_that_follow_from_signs_are_exact() -> None:
    """Whatever half precision makes of them."""
    root, _ = parts(1)
    leaf = fully_split(root, uniform(3, seed=1))
    again = leaf.put_away(root).taken_up(root)
    assert torch.equal(again.choice.slopes, leaf.choice.slopes)


def test_large_multipliers_stay_finite() -> None:
    root, found = parts(1)
    huge = Choice(found.choice.slopes, torch.full_like(found.choice.slopes, 1e9))
    kept = KeptChoice.of(huge, found.decisions, 1.0)
    assert float(kept.choice(root, found.decisions).multipliers.max()) == LARGEST
    steep = replace(found, coefficients=-1e9 * torch.ones_like(found.coefficients)).put_away(root)
    assert (steep.coefficients == -LARGEST).all()


def test_multipliers_are_kept_in_units_of_the_rows() -> None:
    root, found = parts(1)
    tiny = Choice(found.choice.slopes, found.choice.multipliers * 1e-9)
    again = KeptChoice.of(tiny, found.decisions, 1e-9).choice(root, found.decisions)
    torch.testing.assert_close(again.multipliers, tiny.multipliers, rtol=1e-3, atol=1e-15)

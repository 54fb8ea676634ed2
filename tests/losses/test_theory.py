"""What holds for every loss: a new choice in conf/loss runs through all of this."""

import re
from pathlib import Path

import pytest
import torch
from loss_cases import COMMANDS, NAMES, loss

import certtrain
from certtrain.losses import Natural
from certtrain.testing import LOSS_CHECKS, check_loss, subjects
from certtrain.testing.losses import accepted, moved

PAGE = Path(certtrain.__file__).parents[1] / "docs" / "reference" / "losses.md"
SUBJECTS = {name: subject for name, subject in subjects().items() if name in ("fully_connected", "convolutional")}


@pytest.mark.parametrize("check", LOSS_CHECKS)
@pytest.mark.parametrize("name", COMMANDS)
def test_theory(name: str, check: str) -> None:
    for subject in SUBJECTS.values():
        made = loss(name, teacher=moved(subject.params, 9, 0.1))
        for relaxation in accepted(made, subject):
            LOSS_CHECKS[check](made, subject, relaxation)


def test_a_users_loss_is_checked_with_one_call() -> None:
    check_loss(Natural(l1=0.01))


def test_every_published_loss_is_a_choice() -> None:
    published = "natural pgd trades robust_ce crown_ibp loss_fusion sabr taps staps mtl_ibp cc_ibp exp_ibp distillation"
    published += " feature_distillation ad_cert adv_ibp optimised_slopes"
    assert set(published.split()) <= set(NAMES)


@pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not installed")
def test_the_reference_has_a_row_for_every_loss() -> None:
    rows = re.findall(r"^\| (\w+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(NAMES) <= set(rows)


@pytest.mark.parametrize("name", [n for n in COMMANDS if n.startswith(("taps", "staps"))])
def test_losses_with_other_derivatives_say_so(name: str) -> None:
    assert loss(name).differentiates_its_value == name.endswith("_exact")


class Forgetful(Natural):
    """Has other derivatives than its value, unsaid."""

    def per_image(self, problem, params, prepared=None):  # type: ignore[no-untyped-def, override]
        found = super().per_image(problem, params)
        return found.detach() + 2 * (found - found.detach())


class Restless(Natural):
    """Draws random numbers that depend on nothing."""

    def prepare(self, problem, params, generation):  # type: ignore[no-untyped-def, override]
        return {"noise": torch.rand(3)}


@pytest.mark.parametrize(("wrong", "found"), [(Forgetful(), "by differences"), (Restless(), "without a reason")])
def test_the_checks_find_losses_that_break_the_rules(wrong: Natural, found: str) -> None:
    with pytest.raises(AssertionError, match=found):
        check_loss(wrong)

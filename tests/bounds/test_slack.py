"""Slack: bounds of all networks whose pre-activations differ by as much."""

from dataclasses import replace

import pytest
import torch
import zoo
from cases import carried_by, needs_compiler
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_networks import varied_network
from rounding_cases import Question, perturbed, random_question
from torch import Tensor

from certtrain.bounds import Analysing, Analysis, Given, build, relaxations
from certtrain.errors import ConfigError


def check_slack(question: Question, found: Analysis, slack: dict[int, Tensor], tolerance: float = 1e-9) -> None:
    values = question.graph.values(question.double, question.box.lower)
    generator = torch.Generator().manual_seed(2)
    for k in range(20):
        share = torch.rand(question.box.lower.shape, generator=generator, dtype=torch.float64)
        x = question.box.lower + (share.round() if k % 2 else share) * (question.box.upper - question.box.lower)
        moved = {i: s * (2 * torch.rand(s.shape, generator=generator).round().double() - 1) for i, s in slack.items()}
        results = perturbed(question.graph, values, x, moved)
        for index, z in found.hidden.items():
            scale = tolerance * (1 + results[index].abs())
            assert (z.lower - scale <= results[index]).all()
            assert (results[index] <= z.upper + scale).all()
        margins = (question.spec @ results[-1][..., None])[..., 0]
        assert (found.bounds.lower <= margins + tolerance * (1 + margins.abs())).all()


def some_slack(question: Question, largest: float) -> dict[int, Tensor]:
    generator, read = torch.Generator().manual_seed(3), {op.inputs[0] for _, op in question.graph.activations}
    lead = len(question.box)
    return {
        i: largest * torch.rand((lead, *question.graph.ops[i].shape), generator=generator, dtype=torch.float64)
        for i in sorted(read)
    }


@pytest.mark.parametrize("relaxation", relaxations())
@pytest.mark.parametrize("executor", ["tensors", pytest.param("auto", marks=needs_compiler)])
@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_slack_covers_networks_that_differ_by_it(name: str, executor: str, relaxation: str) -> None:
    question = Question(zoo.make(name), zoo.IMAGE, 0.05)
    slack = some_slack(question, 0.1)
    bounds = carried_by(build(relaxation), executor)
    assert isinstance(bounds, Analysing)
    found = bounds.analyse(question.graph, question.double, question.box, question.spec, "lower", Given(slack=slack))
    check_slack(question, found, slack)


@given(seed=st.integers(0, 10**6), relaxation=st.sampled_from(relaxations()), eps=st.sampled_from([0.0, 0.1]))
@settings(max_examples=30, deadline=None)
def test_slack_covers_random_networks(seed: int, relaxation: str, eps: float) -> None:
    question = random_question(seed, varied_network, eps)
    slack = some_slack(question, 0.2)
    check_slack(question, question.analyse(relaxation, Given(slack=slack)), slack)


def test_slack_counts_for_slopes_of_each_row() -> None:
    question = Question(zoo.make("strided"), zoo.IMAGE, 0.05)
    slack, plain = some_slack(question, 0.1), question.analyse()
    slopes = {
        i: torch.full((2, question.spec.shape[1], *question.graph.ops[op.inputs[0]].shape), 0.3, dtype=torch.float64)
        for i, op in question.graph.activations
    }
    given = Given(slack=slack, slopes=slopes)
    found = question.analyse(given=given)
    check_slack(question, found, slack)
    assert (found.bounds.lower < question.analyse(given=replace(given, slack={})).bounds.lower).all()
    assert (found.bounds.lower < plain.bounds.lower).all()


def test_slack_of_an_operation_that_no_activation_reads_is_refused() -> None:
    question = Question(zoo.make("mlp"), zoo.IMAGE, 0.05)
    with pytest.raises(ConfigError, match="slack concern operations"):
        question.analyse(given=Given(slack={len(question.graph.ops) - 1: torch.zeros(2, 4)}))

"""What a command would take, said before it is paid for."""

import re

import pytest

from certtrain.cli.commands import estimate as estimation
from certtrain.cli.configuration.compose import Command, compose_jobs
from certtrain.cli.configuration.schema import Node, parse, plain
from certtrain.cli.estimates import costs
from certtrain.cli.estimates.costs import Range, kind_of, step_cost
from certtrain.errors import ConfigError

QUICK = ("method=pgpe", "relaxation=ibp", "model.widths=[8]", "pgpe.population_size=4", "pgpe.control_variate=none")


def node(*overrides: str) -> Node:
    (job,) = compose_jobs(Command((*QUICK, *overrides), False, False))
    return plain(job)


def test_jobs_that_differ_in_what_costs_nothing_are_of_one_kind() -> None:
    same = ("seed=3", "pgpe.sigma=0.5", "optimizer.lr=0.5", "schedule.eps.warmup=1", "trainer.log_every_n_steps=1")
    assert kind_of(node(*same), lengths=True) == kind_of(node(), lengths=True)
    for other in ("pgpe.population_size=8", "relaxation=deeppoly", "model.widths=[9]", "data.batch_size=7", "eps=0.3"):
        assert kind_of(node(other), lengths=False) != kind_of(node(), lengths=False)
    longer = node("trainer.max_epochs=77")
    assert kind_of(longer, lengths=True) != kind_of(node(), lengths=True)
    assert kind_of(longer, lengths=False) == kind_of(node(), lengths=False)


def test_steps_are_taken_or_told_from_one_member(monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse(node())
    taken = step_cost(config)
    assert taken.taken
    assert 0 < taken.step.low <= taken.step.high
    assert taken.members == 4
    assert taken.members_per_second.high == pytest.approx(4 / taken.step.low)
    assert taken.bytes is not None
    monkeypatch.setattr(costs, "BUDGET_SECONDS", 0.0)
    told = step_cost(config)
    assert not told.taken
    assert told.step.high == pytest.approx(told.step.low * costs.UNSURE**2)


def test_a_sweep_is_added_up(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    found: list[estimation.Plan] = []
    shown = estimation._print
    monkeypatch.setattr(
        estimation, "_print", lambda console, plan, sweep: (found.append(plan), shown(console, plan, sweep))
    )
    swept = ["pgpe.population_size=4,8", "seed=0,1,2", "trainer.max_epochs=2", "hydra/launcher=joblib"]
    estimation.estimate_command(["-m", *QUICK[:3], *QUICK[4:], *swept, "hydra.launcher.n_jobs=3"])
    (plan,) = found
    assert plan.jobs == 6
    assert [(kind.count, kind.steps, kind.validations) for kind in plan.kinds] == [(3, 40, 2), (3, 40, 2)]
    total = plan.one_after_the_other
    parts = [(kind.seconds + plan.start) * kind.count for kind in plan.kinds]
    assert total.high == pytest.approx(sum(part.high for part in parts))
    assert plan.on_this_machine(3) == Range(max(total.low / 3, plan.any_job.low), total.high)
    text = capsys.readouterr().out
    assert "6 jobs, one after the other" in text
    assert "joblib, 3 at a time" in text
    assert re.search(r"pgpe.population_size=4: 3 jobs of .*\n  40 steps of ", text)
    assert all(len(line) <= 80 for line in text.splitlines())


def test_a_search_may_choose_any_kind(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("optuna")
    swept = ["optimizer.lr=interval(0.1,0.2)", "seed=0,1", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=5"]
    estimation.estimate_command(["-m", *QUICK, *swept, "certify.enabled=false", "trainer.max_steps=3"])
    text = capsys.readouterr().out
    assert "10 jobs, one after the other" in text
    assert "a search may choose any kind" in text
    assert "without the certification" not in text
    assert re.search(r"as configured: any of the jobs takes .*\n  3 steps of ", text)


def test_what_cannot_run_is_refused_as_it_is_without_estimate() -> None:
    with pytest.raises(ConfigError, match="eps must be less than or equal to 1"):
        estimation.estimate_command(["-m", "eps=0.1,7"])
    with pytest.raises(ConfigError, match="has several values: add -m"):
        estimation.estimate_command(["seed=0,1"])
    with pytest.raises(ConfigError, match="takes overrides, -m and --config-dir"):
        estimation.estimate_command(["--cfg", "job"])


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.012, 0.034, "12 to 34 ms"), (0.5, 0.5, "0.5 s"), (3, 200, "3 s to 3.3 min"), (40000, 80000, "11 to 22 h")],
)
def test_ranges_are_said_with_their_unit(low: float, high: float, words: str) -> None:
    assert estimation._words(Range(low, high)) == words
